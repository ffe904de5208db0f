"""The workflow files: linters find nothing, and their jobs, as tests/github.py runs them, go in the right order."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.github import Environment, GitHub, Job, Run, condition, contains_secret, load, resolve
from tests.runner import BIN, ENVIRONMENTS, SHA

FOLDER = ROOT / ".github"
WORKFLOWS = FOLDER / "workflows"
ACTION = load(FOLDER / "actions" / "setup" / "action.yml")
FILES = {path.name: load(path) for path in sorted(WORKFLOWS.glob("*.yml"))}
NEXT, THIRD = "6" * 40, "7" * 40


@pytest.mark.parametrize(
    "words",
    [
        ["zizmor", "--offline", "--no-progress", "--pedantic", ".github"],
        ["check-jsonschema", "--builtin-schema=vendor.github-workflows", *map(str, WORKFLOWS.glob("*.yml"))],
        ["check-jsonschema", "--builtin-schema=vendor.github-actions", str(FOLDER / "actions/setup/action.yml")],
        ["check-jsonschema", "--builtin-schema=vendor.dependabot", ".github/dependabot.yml"],
    ],
    ids=["zizmor", "schema of workflows", "schema of actions", "schema of dependabot"],
)
def test_the_linters_find_nothing(words: list[str]) -> None:
    """In their strictest mode, offline."""
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def jobs() -> list[dict[str, Any]]:
    """Every job of every file."""
    return [job for file in FILES.values() for job in file["jobs"].values()]


def steps() -> list[dict[str, Any]]:
    """Every step of every file."""
    return [step for job in jobs() for step in job.get("steps", [])] + ACTION["runs"]["steps"]


def test_no_expression_is_in_a_shell_line() -> None:
    """Values reach the shell as environment variables."""
    assert [step["run"] for step in steps() if "${{" in step.get("run", "")] == []


def test_actions_are_pinned_by_commit() -> None:
    """With the version in a comment."""
    lines = [line.strip() for path in FOLDER.rglob("*.yml") for line in path.read_text().splitlines()]
    used = [line for line in lines if "uses: " in line and "uses: $/" not in line]

    assert used
    assert [line for line in used if not re.fullmatch(r"uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_a_deployment_is_one_invoke_line() -> None:
    """Besides the announcement of a failure."""
    runs = [step["run"] for step in FILES["deploy.yml"]["jobs"]["deploy"]["steps"] if "run" in step]

    assert [" ".join(run.replace("\\\n", " ").split()) for run in runs] == [
        'invoke deploy --tag="$VERSION" --digest="$SERVER_DIGEST" --migration-digest="$MIGRATIONS_DIGEST"'
        " --no-build --build-dir=build --lock-wait=900",
        "invoke announce-failure",
    ]


def test_no_condition_contains_the_name_of_an_environment() -> None:
    """Differences between environments are in the settings."""
    conditions = [str(item["if"]) for item in (*jobs(), *steps()) if "if" in item]

    assert conditions
    assert [one for one in conditions if re.search(r"environment\b|APP_ENV|'(dev|impl|prod|local)'", one)] == []


def test_every_job_has_a_time_limit_and_one_way_to_be_set_up() -> None:
    """The commands come from one step, which takes them from a cache; pip is nowhere else."""
    own = [job for job in jobs() if "steps" in job]
    assert all("timeout-minutes" in job for job in own)
    for job in own:
        calls = [step for step in job["steps"] if re.match(r"invoke\b", step.get("run", ""))]
        sets_up = [step for step in job["steps"] if step.get("uses") == "$/.github/actions/setup"]
        assert len(sets_up) == bool(calls)
    cached = ACTION["runs"]["steps"][0]["with"]
    assert "hashFiles('requirements.txt')" in cached["key"]
    installed = [step["run"] for step in steps() if "--require-hashes" in step.get("run", "")]
    assert len(installed) == 1
    assert cached["path"] in installed[0]


def test_what_takes_the_lock_may_ask_whether_its_holder_is_over() -> None:
    """A run that GitHub has ended is not waited for. What a called workflow may do, its caller has to allow."""
    taking = [
        (job, step)
        for job in jobs()
        for step in job.get("steps", [])
        if re.search(r"invoke (deploy|rollback|preview)\b", step.get("run", ""))
    ]

    assert len(taking) == 3
    assert all(job["permissions"]["actions"] == "read" for job, _ in taking)
    assert all(step["env"]["GITHUB_TOKEN"] == "${{ github.token }}" for _, step in taking)
    callers = [job for job in jobs() if job.get("uses", "").endswith("deploy.yml")]
    assert [job["permissions"]["actions"] for job in callers] == ["read"] * 3


def test_every_deployment_has_a_url() -> None:
    """What works on an environment that people use; the others build, or wait for an approval."""
    named = [job["environment"] for job in jobs() if "environment" in job]
    without = {one for one in named if isinstance(one, str)}

    assert without == {"build", "${{ inputs.environment }}_gate"}
    assert all(one["url"].startswith("${{ ") for one in named if isinstance(one, dict))


def test_artifacts_outlive_an_approval() -> None:
    """A job waits for 30 days at most. What a second attempt uploads replaces what the first one did."""
    uploads = [step["with"] for step in steps() if "upload-artifact" in step.get("uses", "")]
    assert all(upload["overwrite"] for upload in uploads)
    assert [upload["retention-days"] for upload in uploads if upload["name"].startswith("frontend")] == [35]


# The order of jobs: nothing runs here.


def event(sha: str = SHA, name: str = "push", **request: Any) -> dict[str, Any]:
    """What GitHub says of a push to main, or of a pull request from a branch of the repository or of a fork."""
    if name != "pull_request":
        return {"event_name": name, "ref": "refs/heads/main", "sha": sha, "event": {}}
    labels = [{"name": label} for label in request.get("labels", [])]
    head = {"sha": sha, "repo": {"full_name": request.get("repository", GitHub.repository)}}
    pull = {"head": head, "labels": labels, "user": {"login": request.get("login", "octocat")}}
    return {"event_name": name, "ref": "refs/pull/1/merge", "sha": "f" * 40, "event": {"pull_request": pull}}


def result(job: Job) -> tuple[str, dict[str, Any]]:
    """What a job that succeeds tells."""
    told = {"digest": f"sha256:{job.name}", "site": "https://example.org"}
    return "success", {step: {"outputs": told} for step in ("image", "preview")}


@dataclass
class Jobs:
    """What jobs do: they succeed, but for those that fail or go on until they are ended."""

    fail: set[str] = field(default_factory=set)
    hold: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)

    def __call__(self, job: Job) -> tuple[str, dict[str, Any]] | None:
        self.ran.append(job.name)
        if job.name in self.hold:
            return None
        return ("failure", {}) if job.name in self.fail else result(job)


NAMES = (
    "AWS_ROLE_TO_ASSUME",
    "STATIC_S3_BUCKET",
    "OKTA_CLIENT_ID",
    "OKTA_SERVER_ID",
    "LD_CLIENT_ID",
)


def repository(execute: Any) -> GitHub:
    """The repository as docs/adopting.md has it."""
    secrets = {f"{name}_{env.upper()}": f"{name.lower()}-of-{env}" for name in NAMES for env in ENVIRONMENTS}
    secrets |= {"AWS_ACCOUNT_ID": "123456789012", "SLACK_WEBHOOK_URL": "https://hooks.example.org/T/B/secret"}
    secrets |= {"AWS_ROLE_TO_ASSUME": "role-of-build", "STORYBOOK_S3_BUCKET_DEV": "storybook-of-dev"}
    environments = {f"{name}_gate": Environment(reviewers=name != "dev") for name in ENVIRONMENTS}
    return GitHub(WORKFLOWS, execute, secrets, environments)


@pytest.fixture
def made() -> Jobs:
    """What the jobs of `github` do."""
    return Jobs()


@pytest.fixture
def github(made: Jobs) -> GitHub:
    """A repository whose jobs run nothing."""
    return repository(made)


def deployed(run: Run) -> list[str]:
    """The environments that a run has deployed to."""
    return [name for name in ENVIRONMENTS if run.states().get(f"deploy_{name}/deploy") == "success"]


def test_a_push_goes_from_environment_to_environment_with_an_approval_each(github: GitHub) -> None:
    """After all checks, and only as far as it was approved."""
    run = github.start("build.yml", event())
    seen = [deployed(run)]
    for name in ("impl", "prod"):
        github.approve(run, f"{name}_gate")
        seen.append(deployed(run))

    assert seen == [["dev"], ["dev", "impl"], ["dev", "impl", "prod"]]
    checks = {"deployment_checks", "anti_virus", "lint", "client_test", "server_test", "e2e_tests"}
    assert checks <= {job.name for job in run["deploy_dev"].ancestors()}
    assert run["announce_failure"].state == "skipped"


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({}, []),
        ({"labels": ["deploy_dev"]}, ["dev"]),
        ({"labels": ["deploy_dev"], "repository": "somebody/mint-app"}, []),
        ({"labels": ["deploy_dev"], "login": "dependabot[bot]"}, []),
    ],
    ids=["plain", "labelled", "from a fork", "of Dependabot"],
)
def test_what_a_pull_request_deploys(of: dict[str, Any], expected: list[str], github: GitHub, made: Jobs) -> None:
    """Without secrets it is only checked, and no job that needs them begins."""
    run = github.start("build.yml", event(name="pull_request", **of))

    assert deployed(run) == expected
    assert run["lint"].state == "success"
    assert "failure" not in run.states().values()
    if run.fork:
        assert not any(job.secrets for job in run.jobs)
        assert not any(
            name.startswith(("build_server", "build_db", "build_frontend", "deploy_dev")) for name in made.ran
        )


def test_a_run_that_waits_for_an_approval_blocks_nobody(github: GitHub) -> None:
    """The next one goes as far as it can, and may be approved first."""
    first = github.start("build.yml", event())
    second = github.start("build.yml", event(NEXT))

    assert (deployed(first), deployed(second)) == (["dev"], ["dev"])
    github.approve(second, "impl_gate")
    assert deployed(second) == ["dev", "impl"]
    assert first["deploy_impl/approve"].state == "waiting"


def test_of_those_that_wait_for_a_deployment_the_newest_goes(github: GitHub, made: Jobs) -> None:
    """The one that runs goes on to its end. A revert, too, is a merge, and overtakes those that wait."""
    made.hold.add("deploy_dev/deploy")
    runs = [github.start("build.yml", event(sha)) for sha in (SHA, NEXT, THIRD)]

    assert [run["deploy_dev/deploy"].state for run in runs] == ["running", "cancelled", "pending"]
    github.finish(runs[0]["deploy_dev/deploy"])
    assert [run["deploy_dev/deploy"].state for run in runs] == ["success", "cancelled", "running"]
    # What was replaced has not failed.
    assert runs[1]["announce_failure"].state == "skipped"
    assert runs[1]["deploy_impl"].state == "skipped"


def test_only_checks_of_a_pull_request_are_cancelled(github: GitHub, made: Jobs) -> None:
    """By a newer push to it; a deployment that it has begun goes on."""
    made.hold |= {"lint"}
    old = github.start("build.yml", event(name="pull_request"))
    main = github.start("build.yml", event())
    github.start("build.yml", event(NEXT, "pull_request"))
    assert (old["lint"].state, main["lint"].state) == ("cancelled", "running")

    made.hold = {"deploy_dev/deploy"}
    labelled = github.start("build.yml", event(name="pull_request", labels=["deploy_dev"]))
    github.start("build.yml", event(NEXT, "pull_request"))
    assert labelled["deploy_dev/deploy"].state == "running"


def test_a_pull_request_takes_no_place_from_main(github: GitHub, made: Jobs) -> None:
    """Their deployments to dev wait in queues of their own, and for the environment's lock."""
    made.hold.add("deploy_dev/deploy")
    github.start("build.yml", event())
    waiting = github.start("build.yml", event(NEXT))
    github.start("build.yml", event(THIRD, "pull_request", labels=["deploy_dev"]))

    assert waiting["deploy_dev/deploy"].state == "pending"


def test_a_failed_check_stops_everything_and_is_announced(github: GitHub, made: Jobs) -> None:
    """Its second attempt runs it alone, and goes on with what the first one built."""
    made.fail.add("lint")
    run = github.start("build.yml", event())
    assert (deployed(run), run["announce_failure"].state) == ([], "success")
    made.fail.clear()
    made.ran.clear()

    github.rerun_failed(run)

    assert made.ran[0] == "lint"
    assert "build_server_image" not in made.ran
    assert deployed(run) == ["dev"]
    assert run["deploy_dev/deploy"].given["inputs"]["server-digest"] == "sha256:build_server_image"


def test_a_second_attempt_of_a_deployment_needs_no_second_approval(github: GitHub, made: Jobs) -> None:
    """Only the job that failed runs again, and what depends on it."""
    made.fail.add("deploy_impl/deploy")
    run = github.start("build.yml", event())
    github.approve(run, "impl_gate")
    assert run["deploy_impl"].state == "failure"
    made.fail.clear()
    made.ran.clear()

    github.rerun_failed(run)

    assert deployed(run) == ["dev", "impl"]
    assert made.ran[0] == "deploy_impl/deploy"
    assert run["deploy_prod/approve"].state == "waiting"


def test_no_job_has_secrets_of_another_environment(github: GitHub) -> None:
    run = github.start("build.yml", event())
    for name in ("impl", "prod"):
        github.approve(run, f"{name}_gate")

    for name in ENVIRONMENTS:
        own = [job for job in run.jobs if job.name.startswith((f"deploy_{name}/", f"build_frontend_{name}/"))]
        values = [value for job in own for value in job.secrets.values()]
        assert len(own) == 4
        assert [value for value in values if any(f"-of-{other}" in value for other in {*ENVIRONMENTS} - {name})] == []
    # What would be deployed is shown by a job that has no secret of the environment at all.
    job = FILES["deploy.yml"]["jobs"]["preview"]
    assert set(re.findall(r"secrets\.(\w+)", json.dumps(job))) == {"AWS_ACCOUNT_ID"}


def test_what_holds_a_secret_does_not_leave_a_job(github: GitHub) -> None:
    """GitHub drops such an output: an image's URI holds the account's id, its digest holds none."""
    run = github.start("build.yml", event())
    job = run["build_server_image"]

    assert contains_secret("123456789012.dkr.ecr.us-west-2.amazonaws.com/mint-backend@sha256:1", job)
    assert job.outputs == {"digest": "sha256:build_server_image"}


def test_a_deployment_without_its_inputs_does_not_begin(github: GitHub, made: Jobs) -> None:
    """An image whose digest is not known is no image."""
    made_before = github.execute
    github.execute = lambda job: ("success", {}) if job.name == "build_server_image" else made_before(job)

    with pytest.raises(AssertionError, match="required inputs are empty"):
        github.start("build.yml", event())


@pytest.mark.parametrize("action", ["deploy", "rollback", "verify", "history"])
def test_what_is_started_by_hand_has_the_same_gate(action: str, github: GitHub, made: Jobs) -> None:
    """And waits for a deployment of main."""
    made.hold.add("deploy_impl/deploy")
    run = github.start("build.yml", event())
    github.approve(run, "impl_gate")
    inputs = {"environment": "impl", "action": action, "version": SHA, "dry-run": True, "keep-migrations": False}

    by_hand = github.start("operate.yml", event(name="workflow_dispatch"), inputs)

    assert by_hand["operate"].state == ""
    github.approve(by_hand, "impl_gate")
    assert by_hand["operate"].state == "pending"
    github.finish(run["deploy_impl/deploy"])
    assert by_hand["operate"].state == "success"


EXPRESSIONS = [
    ("'a' || 'b'", "a"),
    ("github.none || 'b'", "b"),
    ("github.event_name == 'PUSH' && github.ref || github.run_id", "refs/heads/main"),
    ("!(github.event_name == 'push')", False),
    ("github.event_name != 'pull_request' || (failure() && true)", True),
    ("contains(github.event.labels.*.name, 'x')", False),
    ("format('a{0}b', 1)", "a1b"),
    ("'it''s'", "it's"),
]


@pytest.mark.parametrize(("expression", "expected"), EXPRESSIONS)
def test_expressions(expression: str, expected: Any) -> None:
    """As GitHub evaluates them."""
    assert resolve(f"${{{{ {expression} }}}}", {"github": {**event(), "run_id": "7"}}) == expected


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("github.ref != ''", "success", True),
        ("github.ref != ''", "failure", False),
        ("failure()", "failure", True),
        ("failure()", "cancelled", False),
        ("${{ failure() && github.ref == 'refs/heads/main' }}", "failure", True),
        ("always()", "cancelled", True),
        ("cancelled()", "failure", False),
    ],
)
def test_conditions(text: str, status: str, *, expected: bool) -> None:
    """Without a status function, a condition holds only if nothing failed."""
    assert condition(text, {"github": event(), "status": status}) is expected
