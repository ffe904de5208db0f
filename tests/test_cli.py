"""The command line as people type it: what all tasks have in common, and every kind of bad input."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Invoke
from tests.stand_in import DENIED, Reply, answering, stand_in

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012"}
OK = Reply(
    json.dumps(
        {
            "data": {
                "response": {
                    "ResponseMetadata": {"HTTPStatusCode": 200},
                    "NewTaskdefArn": "arn:aws:ecs:us-west-2:1:task-definition/mint-app:42",
                }
            }
        }
    ).encode()
)


def tasks() -> list[str]:
    """The names of all tasks, as the command line shows them."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "--list-format=json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    def names(collection: dict[str, object], prefix: str = "") -> list[str]:
        own = [prefix + task["name"] for task in collection["tasks"]]  # type: ignore[attr-defined]
        for sub in collection["collections"]:  # type: ignore[attr-defined]
            own += names(sub, f"{prefix}{sub['name']}.")
        return own

    return names(json.loads(done.stdout))


TASKS = tasks()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_help_for_every_flag(name: str, invoke: Invoke) -> None:
    """--help after a task shows its help and does not run it."""
    done = invoke(name, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: inv[oke] [--core-opts] {name}")
    assert done.stderr == ""
    options = done.stdout.partition("Options:")[2].split("\n  --")[1:]
    assert all(len(option.split(maxsplit=1)) == 2 for option in options), "a flag without an explanation"


def test_tasks_can_be_spelled_with_dashes_or_underscores(invoke: Invoke) -> None:
    """Also with --help before or after the task. --list shows dashes."""
    words = ["--env=dev", "--tag=x", "--dry-run"]
    dashes, underscores = invoke("deploy-service", *words, **ACCOUNT), invoke("deploy_service", *words, **ACCOUNT)

    assert (dashes.returncode, dashes.stderr) == (underscores.returncode, underscores.stderr)
    assert dashes.returncode == 0
    assert invoke("deploy_service", "--help").stdout == invoke("--help", "deploy_service").stdout
    assert invoke("deploy_service", "--help").stdout.startswith("Usage: inv[oke] [--core-opts] deploy-service")
    assert not any("_" in task for task in TASKS)


def test_invoke_alone_lists_the_tasks(invoke: Invoke) -> None:
    """Like --list, with the summary of each."""
    bare = invoke()

    assert (bare.returncode, bare.stderr) == (0, "")
    assert bare.stdout == invoke("--list").stdout
    assert [name for name in TASKS if f"\n  {name} " not in bare.stdout] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deploi"], "'deploi' is not a task or a flag. Did you mean deploy?"),
        (["release.lst"], "'release.lst' is not a task or a flag. Did you mean release.list?"),
        (["release.rolback"], "'release.rolback' is not a task or a flag. Did you mean release.rollback?"),
        (["deploy", "--tga=x"], "'--tga' is not a task or a flag. Did you mean --tag?"),
        (["deploy", "--no_build"], "'--no_build' is not a task or a flag. Did you mean --no-build?"),
        (["--hlep"], "'--hlep' is not a task or a flag. Did you mean --help?"),
        (["--help=deploi"], "'deploi' is not a task or a flag. Did you mean deploy?"),
        (["--env=dev", "deploy"], "--env belongs after the task: `invoke TASK --env`."),
        (["deploy", "--tag"], "--tag needs a value."),
        (["deploy", "--env", "--tag"], "--env needs a value."),
        (
            ["deploy", "-x"],
            "'-x' is not a task or a flag. `invoke --list` shows all tasks, `invoke TASK --help` its flags.",
        ),
        (["a\n::error::b"], r"'a\\n::error::b' is not a task or a flag."),
    ],
    ids=lambda value: ascii(" ".join(value)) if isinstance(value, list) else None,
)
def test_unknown_tasks_and_flags_are_refused_with_the_nearest_name(words: list[str], said: str, invoke: Invoke) -> None:
    """Exit code 2 and one sentence; Invoke itself would exit with 1."""
    done = invoke(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_no_task_has_a_positional_argument() -> None:
    """A required positional argument would swallow the flags after it."""
    from invoke import Collection, Task

    import tasks as module

    def every(collection: Collection) -> list[Task]:  # type: ignore[type-arg]
        own = list(collection.tasks.values())
        return own + [task for sub in collection.collections.values() for task in every(sub)]

    namespace = getattr(module, "namespace", None) or Collection.from_module(module)
    found = every(namespace)

    assert len(found) == len(TASKS)
    assert all(list(task.positional) == [] and task.auto_shortflags is False for task in found)


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--env="], {}, "The environment's name is empty (from --env)"),
        (["--env=staging"], {}, "'staging' is not an environment (from --env): give one of dev, impl, prod"),
        ([], {"CI": "true"}, "No environment: give --env or set APP_ENV"),
        ([], {"APP_ENV": ""}, "The environment's name is empty (from APP_ENV)"),
        (["--env=dev"], {"ENVIRONMENTS_FILE": "/nowhere.toml"}, "The settings cannot be read: /nowhere.toml"),
        (["--env=dev"], {}, "AWS_ACCOUNT_ID is not set"),
        (["--env=dev"], {"AWS_ACCOUNT_ID": "12"}, "'12' is not the account of dev"),
        (["--env=dev", "--tag="], ACCOUNT, "The version is empty"),
        (["--env=dev", "--tag=a b"], ACCOUNT, "'a b' is not a version"),
        (["--env=dev"], {**ACCOUNT, "GITHUB_SHA": ""}, "The version is empty (from GITHUB_SHA)"),
        (["--env=dev", "--image=UPPER"], ACCOUNT, "'UPPER' is not the name of an image's repository"),
        (["--env=dev", "--image-uri="], ACCOUNT, "'' is not an image's URI"),
        (["--env=dev", "--image-uri=a b:c"], ACCOUNT, "'a b:c' is not an image's URI"),
        (["--env=dev", "--service="], ACCOUNT, "'' is not the name of an ECS service"),
        (["--env=dev", "--service=other"], ACCOUNT, "No image is set for other"),
        (["--env=dev", "--function-name=a/b"], ACCOUNT, "'a/b' is not the name of a Lambda function"),
        (["--env=dev", "--qualifier="], ACCOUNT, "'' is not a version or an alias"),
        (["--env=dev", "--no-image", "--tag=x"], ACCOUNT, "--no-image keeps the current image"),
        (["--env=prod"], ACCOUNT, "prod needs a confirmation, and there is no terminal to ask on: give --yes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_sentence_before_any_request(
    words: list[str], variables: dict[str, str], said: str, invoke: Invoke
) -> None:
    """Exit code 2, no traceback, nothing on stdout."""
    with stand_in(answering(OK)) as aws:
        done = invoke("deploy-service", *words, **{**KEYS, "AWS_ENDPOINT_URL": aws.url, **variables})

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert aws.requests == []


def test_without_credentials_it_is_refused(invoke: Invoke) -> None:
    """The message says what to do, and nothing is sent."""
    with stand_in(answering(OK)) as aws:
        done = invoke("deploy-service", "--env=dev", AWS_ENDPOINT_URL=aws.url, **ACCOUNT)

    assert (done.returncode, aws.requests) == (2, [])
    assert "No AWS credentials for reading the service mint-app" in done.stderr


def denied(code: str, status: int = 403) -> Reply:
    """An error as AWS sends it, in JSON."""
    return Reply(json.dumps({"message": "said AWS"}).encode(), status, {"x-amzn-ErrorType": code + ":http://internal"})


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (denied("ExpiredTokenException"), 2, "AWS rejected the credentials"),
        (denied("UnrecognizedClientException"), 2, "AWS rejected the credentials"),
        (denied("AccessDeniedException"), 1, "AWS refused invoking dev-ecs-manager-docker at 8"),
        (denied("ResourceNotFoundException", 404), 1, "ResourceNotFoundException: said AWS"),
        (denied("ServiceException", 500), 3, "AWS failed while invoking"),
        (Reply(b""), 3, "returned an empty response"),
        (Reply(b"<html>"), 3, "did not return JSON: <html>"),
        (Reply(b"null"), 3, "is not a reply of the ECS manager"),
        (Reply(b"[]"), 3, "is not a reply of the ECS manager"),
        (Reply(b'{"msg": "m", "data": "Unknown command", "level": "critical"}'), 1, "Unknown command"),
        (
            Reply(b'{"data": {"response": {"title": "T", "message": "M", "traceback": ["secret"]}}}'),
            1,
            "failed: T: M",
        ),
        (
            Reply(
                b'{"errorType": "KeyError", "errorMessage": "x"}',
                headers={"X-Amz-Function-Error": "Unhandled"},
            ),
            1,
            "failed: KeyError: x",
        ),
        (
            Reply(
                b'{"errorMessage": "2026 Task timed out after 120.00 seconds"}',
                headers={"X-Amz-Function-Error": "Unhandled"},
            ),
            3,
            "timed out: 2026 Task",
        ),
        (Reply(b"{}", drop=True), 3, "AWS's response was lost"),
    ],
    ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else None,
)
def test_every_kind_of_failure_has_its_sentence_and_exit_code(
    reply: Reply, code: int, said: str, invoke: Invoke
) -> None:
    """The function is called only once."""
    with stand_in(answering(reply)) as aws:
        done = invoke("deploy-service", "--env=dev", "--no-image", AWS_ENDPOINT_URL=aws.url, **ACCOUNT, **KEYS)

    assert done.returncode == code, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert len(aws.lambda_calls()) == 1


def test_a_slow_function_is_called_exactly_once(invoke: Invoke, tmp_path: Path) -> None:
    """Its response comes after the time-out: the outcome is unknown."""
    settings = tmp_path / "settings.toml"
    text = (ROOT / "environments.toml").read_text()
    settings.write_text(text.replace("timeout = 930", "timeout = 1"))
    with stand_in(answering(Reply(OK.body, delay=2))) as aws:
        done = invoke(
            "deploy-service",
            "--env=dev",
            "--no-image",
            AWS_ENDPOINT_URL=aws.url,
            ENVIRONMENTS_FILE=str(settings),
            **ACCOUNT,
            **KEYS,
        )

    assert done.returncode == 3
    assert len(aws.lambda_calls()) == 1
    assert "Do not run this again before that is clear" in done.stderr


def test_an_unreachable_endpoint_is_a_failure(invoke: Invoke) -> None:
    """Exit code 1, because nothing was started."""
    done = invoke("run-task", "--env=dev", "--service=x", AWS_ENDPOINT_URL="http://127.0.0.1:9", **ACCOUNT, **KEYS)

    assert done.returncode == 1
    assert "AWS cannot be reached for invoking dev-ecs-manager-docker" in done.stderr


@pytest.mark.parametrize("dry", [["--dry-run"], ["--dry"]])
def test_a_dry_run_shows_the_payload_and_sends_nothing(dry: list[str], invoke: Invoke) -> None:
    """It needs no credentials and no network. Invoke's own --dry does the same."""
    with stand_in(answering(OK)) as aws:
        done = invoke(
            "deploy-service",
            "--env=prod",
            "--tag=abc",
            *dry,
            AWS_ENDPOINT_URL=aws.url,
            **ACCOUNT,
        )

    payload = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("  {")))
    assert done.returncode == 0, done.stderr
    assert payload == {
        "command": "deploy",
        "body": {
            "cluster_id": "prod-mint-app",
            "service_ids": ["mint-app"],
            "secrets": ["^/prod/mint-app/\\S+$"],
            "image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/mint-backend:abc",
        },
    }
    assert aws.requests == []
    assert done.stderr.endswith("dry run: nothing was changed\n")


def test_a_dry_run_shows_a_placeholder_for_a_missing_variable(invoke: Invoke) -> None:
    """It says which variable is missing, and exits with 0."""
    done = invoke("deploy-service", "--env=prod", "--tag=abc", "--dry-run")

    assert done.returncode == 0
    assert "<AWS_ACCOUNT_ID>.dkr.ecr.us-west-2.amazonaws.com/mint-backend:abc" in done.stderr
    assert "AWS_ACCOUNT_ID is not set: a real run would be refused" in done.stderr


def test_json_is_one_document_on_stdout(invoke: Invoke) -> None:
    """With plan and result, or the error."""
    with stand_in(answering(OK)) as aws:
        done = invoke(
            "deploy-service",
            "--env=dev",
            "--no-image",
            "--json",
            AWS_ENDPOINT_URL=aws.url,
            **ACCOUNT,
            **KEYS,
        )
    failed = invoke("deploy-service", "--env=nowhere", "--json")

    step = json.loads(done.stdout)["steps"][0]
    assert step["plan"]["invocation"]["qualifier"] == "8"
    assert step["result"]["task_definition"].endswith("task-definition/mint-app:42")
    assert json.loads(failed.stdout)["exit_code"] == 2
    assert "'nowhere' is not an environment" in json.loads(failed.stdout)["error"]


@pytest.mark.parametrize(
    ("typed", "code", "calls"),
    [("prod\n", 0, 1), ("yes\n", 2, 0), ("\n", 2, 0)],
    ids=["prod", "yes", "nothing"],
)
def test_at_a_terminal_prod_is_confirmed_by_typing_its_name(typed: str, code: int, calls: int) -> None:
    leader, follower = pty.openpty()
    with stand_in(answering(OK)) as aws:
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", "deploy-service", "--env=prod", "--no-image", "--no-wait"],
            cwd=ROOT,
            stdin=follower,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ACCOUNT, **KEYS, "AWS_ENDPOINT_URL": aws.url},
        )
        os.write(leader, typed.encode())
        _, said = process.communicate(timeout=30)
    os.close(leader)
    os.close(follower)

    assert process.returncode == code, said
    assert b"Type prod to continue:" in said
    assert len(aws.lambda_calls()) == calls


def test_prod_is_confirmed_by_yes(invoke: Invoke) -> None:
    """Another endpoint too."""
    with stand_in(answering(OK)) as aws:
        words = ("--env=prod", "--no-image", "--no-wait", "--yes")
        done = invoke("deploy-service", *words, AWS_ENDPOINT_URL=aws.url, **ACCOUNT, **KEYS)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "deploy-service: prod (from --env)"
    assert len(aws.lambda_calls()) == 1


def test_a_command_works_from_any_folder_of_the_project(invoke: Invoke) -> None:
    """Settings and paths are those of the project."""
    done = invoke("deploy-service", "--env=dev", "--tag=x", "--dry-run", cwd=ROOT / "tests", **ACCOUNT)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flag", "code", "last"),
    [
        ("--no-wait", 0, "dev-mint-app: mint-app rolls out mint-app:42 ("),
        ("--timeout=0.5", 3, "dev: x of mint-app is not"),
    ],
)
def test_a_role_that_may_not_read_ecs_can_still_deploy(invoke: Invoke, flag: str, code: int, last: str) -> None:
    """The manager deploys. Without ECS and without an endpoint nothing proves that the version runs."""
    with stand_in(lambda _, path: OK if "functions" in path else DENIED) as aws:
        done = invoke("deploy-service", "--env=dev", "--tag=x", flag, AWS_ENDPOINT_URL=aws.url, **ACCOUNT, **KEYS)

    assert done.returncode == code, done.stderr
    assert "the rollout in ECS is not watched: AWS refused reading the service mint-app" in done.stderr
    assert "dev-mint-app: mint-app rolls out mint-app:42" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(last)
