"""MINT's old build.yml, with nothing replaced but the lines that docs/migrating.md lists, and one setup step."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from local_aws.server import Server
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.github import Environment, GitHub, load
from tests.runner import ENVIRONMENTS, SHA, Runner, prepared
from tests.stand_in import Reply, StandIn, stand_in

OLD = ROOT / "tests" / "mint_2022.yml"
SETUP = {"uses": "$/.github/actions/setup"}
# What only builds the arguments of `docker image build`.
OF_BUILD = re.compile(r"docker (?:image )?push |APPLICATION_(?:DATETIME|TS)=")


def table() -> list[tuple[re.Pattern[str], str]]:
    """The rows of docs/migrating.md whose first cell is one line: it, whatever its environment, and the new one."""
    page = (ROOT / "docs" / "migrating.md").read_text()
    found = []
    for old, new in re.findall(r"^\| `([^`]+)` \| `(invoke [^`]+)` \|$", page, re.MULTILINE):
        general = (
            re.escape(old)
            .replace("\\ …", " .*")
            .replace(" .*\\ ", " .*")
            .replace("dev\\-ecs", r"\w+\-ecs")
            .replace('"8"', r'"\d+"')
        )
        found.append((re.compile(rf"(?:bash )?{general}"), new))
    return found


def replaced(line: str, rows: list[tuple[re.Pattern[str], str]]) -> str:
    """The new line for an old one, which stays if it is not ours."""
    if OF_BUILD.match(line):
        return ""
    new = next((new for old, new in rows if old.fullmatch(line)), line)
    assert not re.search(r"scripts/(deploy|db_lambda|health|release|rds|check_|github)|docker (image|build)", new)
    return new


def dropped_in(text: str) -> dict[str, Any]:
    """A workflow with our lines. A job that runs in a container has none."""
    workflow: dict[str, Any] = yaml.safe_load(text)
    rows = table()
    for job in workflow["jobs"].values():
        steps = []
        for step in job["steps"]:
            lines = [replaced(line.strip(), rows) for line in step.get("run", "").splitlines()]
            made = {**step, "run": "\n".join(filter(None, lines))} if "run" in step else step
            if not ("container" in job and "invoke" in made.get("run", "")):
                steps.append(made)
        ours = any("invoke" in step.get("run", "") for step in steps)
        job["steps"] = [*steps[:1], *([SETUP] if ours else []), *steps[1:]]
    return workflow


@pytest.fixture
def slack() -> Iterator[StandIn]:
    """A Slack that has no such channel."""
    with stand_in(lambda *_: Reply(b"no_such_channel", status=404)) as server:
        yield server


@pytest.fixture
def runner(cloud: EmbeddedCloud, embedded_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A runner with MINT's settings of then."""
    made = prepared(cloud, embedded_server, tmp_path, monkeypatch, OLD.with_suffix(".toml"), "master")
    made.artifacts["storybook-build"] = made.artifacts["storybook"]
    made.keys = True
    return made


@pytest.fixture
def github(runner: Runner, slack: StandIn, tmp_path: Path) -> GitHub:
    """A repository with the secrets that the old workflow names, and that workflow."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "build.yml").write_text(json.dumps(dropped_in(OLD.read_text())))
    assert load(folder / "build.yml")["jobs"]["lint"]["steps"][1] == SETUP
    names = ("AWS_ROLE_TO_ASSUME", "STATIC_S3_BUCKET", "OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID")
    secrets = {f"{name}_{env.upper()}": f"{name.lower()}-of-{env}" for name in names for env in ENVIRONMENTS}
    secrets |= {f"STATIC_S3_BUCKET_{name.upper()}": f"mint-static-{name}" for name in ENVIRONMENTS}
    secrets |= {"AWS_ACCOUNT_ID": "123456789012", "ECR_REGISTRY": "123456789012.dkr.ecr.us-west-2.amazonaws.com"}
    secrets |= {"AWS_ACCESS_KEY_ID": "key-of-ci", "AWS_SECRET_ACCESS_KEY": "secret-of-ci"}
    secrets |= {"STORYBOOK_S3_BUCKET_DEV": "storybook-of-dev", "SLACK_WEBHOOK_URL": f"{slack.url}/slack"}
    environments = {name: Environment(reviewers=name != "dev") for name in ENVIRONMENTS}
    return GitHub(folder, runner, secrets, environments)


PUSH = {"event_name": "push", "ref": "refs/heads/master", "sha": SHA, "event": {}}


def test_every_deploy_job_works(github: GitHub, runner: Runner, slack: StandIn) -> None:
    """With the variables that each step had, and no more."""
    run = github.start("build.yml", PUSH)
    for name in ("impl", "prod"):
        assert run[f"deploy_{name}"].state == "waiting", "\n".join(runner.log)
        github.approve(run, name)

    assert {job.name: job.state for job in run.jobs if job.state != "success"} == {}, "\n".join(runner.log)
    for name in ENVIRONMENTS:
        assert "index.html" in runner.cloud.objects(f"mint-static-{name}")
    assert "index.html" in runner.cloud.objects("storybook-of-dev")
    # Cleaned in dev, as it was before; then migrations and service, each once.
    called = [r["parameters"] for r in runner.cloud.requests("lambda", "Invoke") if "command" in r["parameters"]]
    commands = [r["command"] for r in called]
    assert commands == ["runtask", *["deploy", "runtask", "deploy"] * 3]
    registry = f"127.0.0.1:{runner.cloud.server.cloud.port}"
    images = [r["body"]["image"] for r in called if r["command"] == "deploy"]
    assert images == [f"{registry}/{name}:{SHA}" for name in ("mint-db-migrate", "mint-backend")] * 3
    assert slack.requests == []


@pytest.mark.parametrize(
    ("event", "failing", "posted"),
    [
        (PUSH, "lint", {"warning": "lint"}),
        (PUSH, "deploy_dev", {"danger": "deploy_dev"}),
        (PUSH, "anti_virus", {}),
        ({**PUSH, "ref": "refs/heads/other"}, "lint", {}),
    ],
    ids=["lint", "deploy_dev", "anti_virus", "another branch"],
)
def test_a_failed_job_is_announced_by_its_name(
    event: dict[str, Any], failing: str, posted: dict[str, str], github: GitHub, runner: Runner, slack: StandIn
) -> None:
    """Without APP_ENV. What Slack refused is said, and changes nothing."""
    only = {"build_db_migrate_image", "build_server_image", "deploy_storybook_dev"}
    runner.variables["GITHUB_REF"] = event["ref"]
    runner.failing.add(failing)
    # Of the jobs that deploy nothing, only the announcement is run; and of deploy_dev only what comes before it.
    execute = github.execute
    github.execute = lambda job: ("success", {}) if job.name in only else execute(job)
    if failing == "deploy_dev":
        runner.cloud.fail(service="lambda", operation="Invoke", status=403, code="AccessDenied", times=9)

    run = github.start("build.yml", event)

    assert run[failing].state == "failure", "\n".join(runner.log)
    told = [json.loads(parse_qs(request["body"].decode())["payload"][0]) for request in slack.requests]
    attachments = [message["attachments"][0] for message in told]
    assert {one["color"]: one["title"].rpartition(" ")[2] for one in attachments} == posted
    if posted:
        assert "the message was not posted to Slack: it answered with HTTP status 404: no" in runner.log[-1]


DOCKERFILES = {"mint-backend": "Dockerfile", "mint-db-migrate": "Dockerfile.db_migrations"}
DOCKERFILES |= {"mint-db-clean": "Dockerfile.db_clean"}


def test_images_are_built_as_their_jobs_did(invoke: Invoke) -> None:
    """With the Dockerfile of each, for the registry that the job was told; an unknown one is refused."""
    env = {"CI": "true", "ENVIRONMENTS_FILE": str(OLD.with_suffix(".toml")), "IMAGE_TAG": SHA}
    env |= {"ECR_REGISTRY": "210987654321.dkr.ecr.us-west-2.amazonaws.com"}
    for repository, file in DOCKERFILES.items():
        words = ("build-image", "--env=dev", f"--image={repository}", f"--tag={SHA}", "--dry-run", "--json")
        done = invoke(*words, **env)
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)["steps"][0]["plan"]
        assert plan["file"] == str(ROOT / file)
        assert plan["uri"] == f"{env['ECR_REGISTRY']}/{repository}:{SHA}"
    unknown = invoke("build-image", "--env=dev", "--image=mint-proxy", "--tag=1", "--dry-run", **env)
    assert unknown.returncode == 2
    assert "give --file" in unknown.stderr
