"""The workflow files: linters find nothing, and their deployment jobs really deploy.

The jobs are read from the files. Their expressions are resolved as by GitHub, as far as they use them, and every `run:`
line runs in bash, in order, against the embedded AWS.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_aws.server import Server
from tests.conftest import ROOT, EmbeddedCloud
from tests.stand_in import Reply, StandIn, stand_in

WORKFLOWS = ROOT / ".github" / "workflows"
SHA = "5" * 40
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "words",
    [
        ["zizmor", "--offline", "--no-progress", "--pedantic", ".github"],
        ["check-jsonschema", "--builtin-schema=vendor.github-workflows", *map(str, WORKFLOWS.glob("*.yml"))],
        ["check-jsonschema", "--builtin-schema=vendor.dependabot", ".github/dependabot.yml"],
    ],
    ids=["zizmor", "schema of workflows", "schema of dependabot"],
)
def test_the_linters_find_nothing(words: list[str]) -> None:
    """In their strictest mode, offline."""
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def load(name: str) -> dict[str, Any]:
    """A workflow file. YAML 1.1 parses the key `on` as true."""
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return loaded


BUILD, DEPLOY = load("build.yml"), load("deploy.yml")


def steps() -> list[dict[str, Any]]:
    """Every step of both files."""
    return [step for file in (BUILD, DEPLOY) for job in file["jobs"].values() for step in job.get("steps", [])]


def test_no_expression_is_in_a_shell_line() -> None:
    """Values reach the shell as environment variables."""
    assert [step["run"] for step in steps() if "${{" in step.get("run", "")] == []


def test_actions_are_pinned_by_commit() -> None:
    """With the version in a comment."""
    used = [line for name in ("build.yml", "deploy.yml") for line in (WORKFLOWS / name).read_text().splitlines()]
    used = [line.strip() for line in used if "uses: " in line and "uses: $/" not in line]

    assert used
    assert [line for line in used if not re.fullmatch(r"uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_a_deployment_is_one_invoke_line() -> None:
    """Besides the installation and the announcement of a failure."""
    runs = [step["run"] for step in DEPLOY["jobs"]["deploy"]["steps"] if "run" in step]

    assert runs == [
        "pip install --require-hashes --requirement requirements.txt",
        'invoke deploy --tag="$VERSION" --digest="$SERVER_DIGEST" --migration-digest="$MIGRATIONS_DIGEST"'
        " --no-build --build-dir=build",
        "invoke announce-failure",
    ]


def test_no_condition_contains_the_name_of_an_environment() -> None:
    """Differences between environments are in the settings."""
    jobs = [job for file in (BUILD, DEPLOY) for job in file["jobs"].values()]
    conditions = [str(item["if"]) for item in (*jobs, *steps()) if "if" in item]

    assert conditions
    assert [one for one in conditions if re.search(r"environment|APP_ENV|'(dev|impl|prod|local)'", one)] == []


def test_jobs_output_only_digests() -> None:
    """GitHub drops outputs that contain a secret, and an image's URI contains the account's id."""
    outputs = {
        value for file in (BUILD, DEPLOY) for job in file["jobs"].values() for value in job.get("outputs", {}).values()
    }

    assert outputs == {"${{ steps.image.outputs.digest }}"}


def test_a_running_deployment_is_never_cancelled() -> None:
    """One concurrency group per environment, and every job has a time limit."""
    job = DEPLOY["jobs"]["deploy"]
    assert job["concurrency"] == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}
    assert job["environment"] == "${{ inputs.environment }}"
    jobs = [job for file in (BUILD, DEPLOY) for job in file["jobs"].values() if "steps" in job]
    assert all("timeout-minutes" in job for job in jobs)


def test_the_order_and_the_conditions_of_the_deployments() -> None:
    """dev, impl, prod, after every check. Only on main; dev also for a pull request with the label."""
    jobs = BUILD["jobs"]
    assert {"anti_virus", "lint", "client_test", "server_test", "e2e_tests"} <= set(jobs["deploy_dev"]["needs"])
    assert "deploy_dev" in jobs["deploy_impl"]["needs"]
    assert "deploy_impl" in jobs["deploy_prod"]["needs"]
    labelled = {"event": {"pull_request": {"labels": [{"name": "deploy_dev"}]}}, "ref": "refs/pull/1/merge"}
    plain = {"event": {"pull_request": {"labels": []}}, "ref": "refs/pull/1/merge"}
    main = {"event": {}, "ref": "refs/heads/main"}
    expected = {"dev": (True, False, True), "impl": (True, False, False), "prod": (True, False, False)}
    for name, runs in expected.items():
        condition = jobs[f"deploy_{name}"]["if"]
        assert tuple(bool(resolve(condition, {"github": g})) for g in (main, plain, labelled)) == runs
    assert BUILD[True]["push"]["branches"] == BUILD[True]["pull_request"]["branches"] == ["main"]


# Expressions: the part of GitHub's syntax that the files use

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def resolve(text: Any, context: Mapping[str, Any]) -> Any:
    """A value of a workflow with its expressions resolved. Raises an error for syntax that is not supported."""
    if not isinstance(text, str):
        return text
    whole = EXPRESSION.fullmatch(text)
    if whole:
        return evaluate(whole[1], context)
    return EXPRESSION.sub(lambda match: str(evaluate(match[1], context)), text)


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """The value of an expression with ||, ==, !=, contains, failure, literals and paths."""
    for part in expression.split(" || "):
        value = _comparison(part.strip(), context)
        if value:
            return value
    return value


def _comparison(part: str, context: Mapping[str, Any]) -> Any:
    for operator, wanted in ((" == ", True), (" != ", False)):
        left, found, right = part.partition(operator)
        if found:
            return (_term(left, context) == _term(right, context)) is wanted
    return _term(part, context)


def _term(term: str, context: Mapping[str, Any]) -> Any:
    if term.startswith("'") and term.endswith("'"):
        return term[1:-1]
    if term == "failure()":
        return context["failed"]
    if match := re.fullmatch(r"contains\((.+), '(.+)'\)", term):
        return match[2] in _term(match[1], context)
    if not re.fullmatch(r"[a-z_]+(\.[A-Za-z0-9_*-]+)+", term):
        raise ValueError(f"this expression is not understood: {term}")
    value: Any = context
    for name in term.split("."):
        if name == "*":
            value = value or []
        elif isinstance(value, list):
            value = [item.get(name) for item in value]
        else:
            value = (value or {}).get(name, "")
    return value


# Running jobs

# Everything is already installed, so each installation runs only once.
INSTALLED = set[str]()


@dataclass
class Runner:
    """A GitHub runner: a checkout, artifacts, and the secrets of the repository."""

    workspace: Path
    cloud: EmbeddedCloud
    secrets: dict[str, str]
    variables: dict[str, str]
    artifacts: dict[str, Path] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def run(self, job: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Run a job's steps. Returns whether all succeeded, and the outputs of its steps."""
        failed, outputs = False, dict[str, Any]()
        env = {name: resolve(value, context) for name, value in job.get("env", {}).items()}
        for step in job["steps"]:
            here = {**context, "failed": failed, "steps": outputs}
            condition = resolve(step.get("if", not failed), here)
            if not condition or (failed and "failure()" not in str(step.get("if"))):
                continue
            if "uses" in step:
                given = {key: resolve(value, here) for key, value in step.get("with", {}).items()}
                env |= self._use(step["uses"].partition("@")[0], given)
                continue
            own = {name: resolve(value, here) for name, value in step.get("env", {}).items()}
            ok, told = self._bash(step["run"], {**env, **own})
            if "id" in step:
                outputs[step["id"]] = {"outputs": told}
            failed = failed or not ok
        return not failed, outputs

    def _use(self, action: str, given: Mapping[str, str]) -> dict[str, str]:
        """The effect of an action. Returns the variables that it sets."""
        if action == "actions/download-artifact":
            shutil.rmtree(self.workspace / given["path"], ignore_errors=True)
            shutil.copytree(self.artifacts[given["name"]], self.workspace / given["path"])
        elif action == "actions/upload-artifact":
            kept = self.workspace.parent / "artifacts" / given["name"]
            shutil.rmtree(kept, ignore_errors=True)
            self.artifacts[given["name"]] = Path(shutil.copytree(self.workspace / given["path"], kept))
        elif action == "aws-actions/configure-aws-credentials":
            assert given["role-to-assume"]
            return {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": given["aws-region"]}
        elif action not in ("actions/checkout", "actions/setup-python", "actions/setup-node"):
            raise ValueError(f"this action is not understood: {action}")
        return {}

    def _bash(self, line: str, env: Mapping[str, Any]) -> tuple[bool, dict[str, str]]:
        """Run a line as GitHub does. Returns whether it succeeded, and the outputs that it set."""
        if line.startswith("pip install "):
            if line in INSTALLED:
                return True, {}
            INSTALLED.add(line)
        files = {name: self.workspace.parent / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
            cwd=self.workspace,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": os.environ["HOME"],
                **self.variables,
                **{name: str(path) for name, path in files.items()},
                **{name: str(value) for name, value in env.items()},
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.log.append(f"$ {line}\n{done.stdout}{done.stderr}")
        self.codes.append(done.returncode)
        told = dict(item.split("=", 1) for item in files["GITHUB_OUTPUT"].read_text().splitlines())
        # GitHub does not pass on outputs that contain a secret.
        told = {name: value for name, value in told.items() if not any(s in value for s in self.secrets.values())}
        return done.returncode == 0, told


ENVIRONMENTS = ("dev", "impl", "prod")


@pytest.fixture
def slack() -> Any:
    """A Slack that accepts everything."""
    with stand_in(lambda *_: Reply(b"ok")) as server:
        yield server


@pytest.fixture
def runner(embedded_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slack: StandIn) -> Runner:
    """A runner with a checkout whose dev, impl and prod are on the embedded AWS."""
    url = embedded_server.cloud.url
    text = (ROOT / "environments.toml").read_text().partition("# The embedded AWS (local_aws/)")[0]
    for name, site in zip(ENVIRONMENTS, ("https://dev.mint", "https://impl.mint", "https://mint"), strict=True):
        text = text.replace(f'site = "{site}.cms.gov"', f'site = "{url}/{name}"\nendpoint_url = "{url}"')
    for old, new in {
        'registry = "${account}.dkr.ecr.${region}.amazonaws.com"': 'registry = "${endpoint_host}"',
        'build_context = "."': 'build_context = "examples/backend"',
        '"Dockerfile"': '"examples/backend/Dockerfile"',
        '"Dockerfile.db_migrations"': '"examples/backend/Dockerfile.db_migrations"',
        'install = ["yarn", "install", "--frozen-lockfile"]': "install = []",
        'build = ["yarn", "run", "build"]': 'build = ["bash", "build.sh"]',
    }.items():
        assert old in text
        text = text.replace(old, new)
    workspace = tmp_path / "workspace"
    ignored = shutil.ignore_patterns(".git", ".venv", ".local", ".*_cache", "__pycache__", "tests", "build")
    shutil.copytree(ROOT, workspace, ignore=ignored)
    (workspace / "build.sh").write_text(
        "python3 examples/frontend/build.py && rm -rf build && mv examples/frontend/build build"
    )
    settings = workspace / "settings.toml"
    settings.write_text(text)
    secrets = {"AWS_ACCOUNT_ID": "123456789012", "SLACK_WEBHOOK_URL": f"{slack.url}/slack"}
    for name in ENVIRONMENTS:
        upper = name.upper()
        secrets |= {
            f"{key}_{upper}": f"{key.lower()}-{name}" for key in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID")
        }
        secrets |= {f"STATIC_S3_BUCKET_{upper}": f"mint-static-{name}", f"AWS_ROLE_TO_ASSUME_{upper}": "arn:role"}
        monkeypatch.setenv(f"STATIC_S3_BUCKET_{upper}", f"mint-static-{name}")
    secrets["AWS_ROLE_TO_ASSUME"] = "arn:role"
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(settings))
    monkeypatch.delenv("BUILD_PATH")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    embedded_server.cloud.clock.stop(stopped=False)
    embedded_server.reset()
    variables = {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": SHA,
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_REPOSITORY": "CMS-Enterprise/mint-app",
        "GITHUB_RUN_ID": "77",
        "GITHUB_JOB": "deploy",
        "GITHUB_ACTOR": "octocat",
        "ENVIRONMENTS_FILE": str(settings),
        "AWS_ENDPOINT_URL": url,
        "DOCKER_HOST": "unix:///nowhere",
        "IMAGE_TAG": SHA,
    }
    return Runner(workspace, EmbeddedCloud(embedded_server), secrets, variables)


GITHUB = {"sha": SHA, "ref": "refs/heads/main", "event": {}}


def build_everything(runner: Runner) -> dict[str, Any]:
    """Run the jobs that build. Returns the outputs that the deployments need."""
    needs: dict[str, Any] = {}
    for name in ("build_server_image", "build_db_migrate_image"):
        job = BUILD["jobs"][name]
        ok, outputs = runner.run(job, {"github": GITHUB, "secrets": runner.secrets})
        assert ok, runner.log[-1]
        told = {key: resolve(value, {"steps": outputs}) for key, value in job["outputs"].items()}
        needs[name] = {"outputs": told}
    for name in BUILD["jobs"]["build_frontend"]["strategy"]["matrix"]["environment"]:
        context = {"github": GITHUB, "secrets": runner.secrets, "matrix": {"environment": name}}
        assert runner.run(BUILD["jobs"]["build_frontend"], context)[0], runner.log[-1]
    return needs


def built(runner: Runner) -> dict[str, Any]:
    """The outputs of the jobs that build, without running them."""
    server, migrations = runner.cloud.push(SHA, "mint-backend", "mint-db-migrate")
    page = runner.workspace.parent / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>page</title>")
    for name in BUILD["jobs"]["build_frontend"]["strategy"]["matrix"]["environment"]:
        runner.artifacts[f"frontend-{name}"] = page
    return {
        "build_server_image": {"outputs": {"digest": server}},
        "build_db_migrate_image": {"outputs": {"digest": migrations}},
    }


def deploy(runner: Runner, name: str, needs: Mapping[str, Any]) -> bool:
    """Run a deployment job: the reusable workflow with the inputs from build.yml."""
    caller = BUILD["jobs"][f"deploy_{name}"]
    outer = {"github": GITHUB, "secrets": runner.secrets, "needs": needs}
    assert resolve(caller["if"], outer)
    inputs = {key: resolve(value, outer) for key, value in caller["with"].items()}
    secrets = {key: resolve(value, outer) for key, value in caller["secrets"].items()}
    declared = DEPLOY[True]["workflow_call"]
    assert set(inputs) == set(declared["inputs"])
    assert set(secrets) == set(declared["secrets"])
    assert all([*inputs.values(), *secrets.values()])
    return runner.run(DEPLOY["jobs"]["deploy"], {"github": GITHUB, "inputs": inputs, "secrets": secrets})[0]


def test_the_jobs_deploy_to_all_three_environments(runner: Runner, slack: StandIn) -> None:
    """Then each runs the version, the snapshots exist, and the frontends have their own values."""
    needs = build_everything(runner)
    digests = {name: needs[name]["outputs"]["digest"] for name in needs}
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests.values())
    for name in ENVIRONMENTS:
        assert deploy(runner, name, needs), "\n".join(runner.log)

    cloud = runner.cloud
    s3, rds = cloud.client("s3"), cloud.client("rds")
    for name in ENVIRONMENTS:
        import urllib.request

        with urllib.request.urlopen(f"{cloud.url}/{name}/api/v1/healthcheck") as answer:
            assert json.load(answer)["version"] == SHA
        page = s3.get_object(Bucket=f"mint-static-{name}", Key="index.html")["Body"].read().decode()
        script = re.search(r'src="/(assets/index-[^"]+\.js)"', page)
        assert script
        code = s3.get_object(Bucket=f"mint-static-{name}", Key=script[1])["Body"].read().decode()
        assert f'"REACT_APP_APP_ENV": "{name}"' in code
        assert f'"REACT_APP_OKTA_CLIENT_ID": "okta_client_id-{name}"' in code
        manual = rds.describe_db_snapshots(DBInstanceIdentifier=f"mint{name}", SnapshotType="manual")["DBSnapshots"]
        assert len(manual) == (0 if name == "dev" else 1)
    invoked = [
        (r["path"].split("/")[3], r["parameters"]["command"])
        for r in cloud.requests("lambda", "Invoke")
        if "command" in r["parameters"]
    ]
    assert invoked == [
        ("mint-app-db-clean-tmp", "runtask"),
        *[
            (f"{name}-ecs-manager-docker", command)
            for name in ENVIRONMENTS
            for command in ("deploy", "runtask", "deploy")
        ],
    ]
    images = [
        r["parameters"]["body"].get("image") for r in cloud.requests("lambda", "Invoke") if "command" in r["parameters"]
    ]
    registry = f"127.0.0.1:{cloud.server.cloud.port}"
    assert {image for image in images if image} == {
        f"{registry}/mint-backend@{digests['build_server_image']}",
        f"{registry}/mint-db-migrate@{digests['build_db_migrate_image']}",
    }
    assert slack.requests == []


def test_a_broken_step_stops_the_job_and_is_announced(runner: Runner, slack: StandIn) -> None:
    """The snapshot of impl fails: impl is not changed, and a message is sent to Slack."""
    needs = built(runner)
    runner.cloud.fail(service="rds", operation="CreateDBSnapshot", status=400, code="SnapshotQuotaExceeded", times=9)

    assert not deploy(runner, "impl", needs)

    assert runner.cloud.requests("ecs", "UpdateService") == []
    (posted,) = slack.requests
    assert b"danger" in posted["body"]
    assert "::error title=deploy::back up the database failed" in "".join(runner.log)


def test_an_image_that_cannot_be_pulled_ends_the_job_with_exit_code_4(runner: Runner, slack: StandIn) -> None:
    """The previous version answers, the frontend is untouched, and a message is sent to Slack."""
    needs = built(runner)
    needs["build_server_image"] = {"outputs": {"digest": "sha256:" + "0" * 64}}

    assert not deploy(runner, "dev", needs)

    assert runner.codes[-2:] == [4, 0]
    said = "".join(runner.log)
    assert "was rolled back" in said
    assert "CannotPullContainerError" in said
    assert runner.cloud.requests("s3", "PutObject") == []
    assert len(slack.requests) == 1
