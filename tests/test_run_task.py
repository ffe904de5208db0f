"""How a task that ran once is judged, by the manager's reply."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import run_task
from scripts.ecs import manager
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.run_task import TaskEnded, TaskRun
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.stand_in import Reply, answering, stand_in
from tests.test_preflight import of_account

MIGRATE, ARN = "mint-app-db-migrate", "arn:task/1"


def start(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> TaskEnded:
    """Run a task for which the manager returns this."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    environment = settings.environment("dev")
    call = manager.planned(environment, None, None, {"command": "runtask"})
    response = {"ResponseMetadata": {"HTTPStatusCode": 200}, **told}
    with stand_in(answering(Reply(json.dumps({"data": {"response": response}}).encode()))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        return run_task.start(environment, TaskRun(MIGRATE, environment.cluster, call))


def test_exit_code_0_is_a_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With its ARN as an output, and ECS's reason."""
    ended = start({"taskArn": ARN, "taskStatus": {"exitCode": 0, "stoppedReason": "done"}}, monkeypatch)

    assert ended == TaskEnded(MIGRATE, ARN, 0, "done")
    assert ended.outputs() == {"task": ARN}
    assert ended.line() == f"{MIGRATE} ended with exit code 0"
    assert f"running the task of {MIGRATE} in dev-mint-app\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("container", "said"), [("", ""), (MIGRATE, ""), ("app", " (container app)"), (None, "")], ids=str
)
def test_the_container_that_counted_is_named(container: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is called like the service."""
    ended = start({"taskArn": ARN, "taskStatus": {"exitCode": 0, "container": container}}, monkeypatch)

    assert ended.line() == f"{MIGRATE} ended with exit code 0{said}"
    with pytest.raises(DeployError) as error:
        start({"taskStatus": {"exitCode": 3, "container": container}}, monkeypatch)
    assert str(error.value).startswith(f"The task of {MIGRATE} ended with exit code 3{said}: ")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"taskArn": ARN}, f"stopped without an exit code: no reason given ({ARN})"),
        ({"taskArn": ARN, "taskStatus": "0"}, f"stopped without an exit code: no reason given ({ARN})"),
        ({"taskStatus": {"exitCode": None, "stopCode": "S"}}, "stopped without an exit code: S ()"),
        ({"taskStatus": {"exitCode": "0"}}, "stopped without an exit code"),
        ({"taskStatus": {"exitCode": False}}, "stopped without an exit code"),
        (
            {"taskArn": ARN, "taskStatus": {"exitCode": 1, "stoppedReason": "R", "stopCode": "S"}},
            f"ended with exit code 1: R ({ARN})",
        ),
        ({"taskStatus": {"exitCode": -1, "stoppedReason": ""}}, "ended with exit code -1: no reason given ()"),
    ],
)
def test_a_task_without_exit_code_0_is_a_failure(
    told: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the best reason in the reply."""
    with pytest.raises(DeployError) as error:
        start(told, monkeypatch)

    assert type(error.value) is DeployError
    assert f"The task of {MIGRATE} {said}" in str(error.value)


FAMILY = """
[environments.local.tasks.seed-data]
family = "local-mint-app-db-migrate"
subnets = ["subnet-9"]
security_groups = ["sg-9"]
assign_public_ip = true
platform = "1.4.0"
"""
STEP = {"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "j", "GITHUB_ACTION": "__run"}


@pytest.mark.parametrize("way", ["lambda", "ecs"])
def test_a_task_without_a_service_runs_in_the_network_of_the_settings(
    way: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """Both ways alike. A repeat in the same step of a workflow's run starts no second task."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text() + FAMILY)
    words = ("run-task", "--service=seed-data", f"--via={way}")

    done = [invoke(*words, **cloud.env, **STEP, ENVIRONMENTS_FILE=str(file)) for _ in range(2)]

    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert "seed-data ended with exit code 0 (container mint-app-db-migrate)" in done[1].stderr
    assert bool(cloud.requests("lambda")) == (way == "lambda")
    first, second = (request["parameters"] for request in cloud.requests("ecs", "RunTask"))
    assert first == second
    assert first["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-9"],
        "securityGroups": ["sg-9"],
        "assignPublicIp": "ENABLED",
    }
    ran = cloud.client("ecs").list_tasks(
        cluster="local-mint-app", family="local-mint-app-db-migrate", desiredStatus="STOPPED"
    )
    assert len(ran["taskArns"]) == 1


@pytest.mark.parametrize(
    ("flags", "service", "called"),
    [
        ({}, MIGRATE, ("dev-ecs-manager-docker", "8", "lambda")),
        ({"service": "other"}, "other", ("dev-ecs-manager-docker", "8", "lambda")),
        ({"service": "other", "via": "ecs"}, "other", ("", "", "ecs")),
        ({"function_name": "f"}, MIGRATE, ("f", "$LATEST", "lambda")),
        ({"function_name": "f", "qualifier": "3"}, MIGRATE, ("f", "3", "lambda")),
        ({"qualifier": "3"}, MIGRATE, ("dev-ecs-manager-docker", "3", "lambda")),
    ],
    ids=str,
)
def test_which_task_is_run_by_whom(flags: dict[str, str], service: str, called: tuple[str, str, str]) -> None:
    """By default the migrations, by the manager in the settings."""
    run = Run("run-task", settings.environment("dev", dry_run=True), dry_run=True)

    run_task.run_task(run, **flags)

    (step,) = run.steps
    assert isinstance(step.plan, TaskRun)
    call = step.plan.invocation
    assert (call.function, call.qualifier, call.via) == called
    assert (step.plan.service, step.plan.cluster) == (service, "dev-mint-app")
    assert call.payload == {"command": "runtask", "body": {"cluster_id": "dev-mint-app", "service_id": service}}
    assert step.plan.describe()[0] == f"run the task of {service} once in dev-mint-app"


def test_without_migrations_the_service_has_to_be_given() -> None:
    """The message says how."""
    dev = settings.environment("dev", dry_run=True)
    dev = replace(dev, migrations=replace(dev.migrations, service=""))
    run = Run("run-task", dev, dry_run=True)

    with pytest.raises(Refused, match=r"give --service, or set migrations\.service for dev"):
        run_task.run_task(run)
    run_task.run_task(run, service="other")
    assert len(run.steps) == 1


def test_with_credentials_of_another_account_no_task_is_started(cloud: EmbeddedCloud) -> None:
    """The manager is not called."""
    run = Run("run-task", of_account("999999999999"))
    run.locked = run.recorded = True

    with pytest.raises(Refused, match=r"^No task was started: "):
        run_task.run_task(run)

    assert {request["service"] for request in cloud.requests()} == {"sts"}


def test_straight_to_ecs_the_plan_shows_the_same_event(invoke: Invoke) -> None:
    """Without credentials and without a network."""
    shown = {
        way: json.loads(invoke("run-task", "--env=dev", f"--via={way}", "--dry-run", "--json").stdout)["steps"][0][
            "plan"
        ]
        for way in ("lambda", "ecs")
    }

    assert shown["ecs"]["invocation"]["payload"] == shown["lambda"]["invocation"]["payload"]
    assert (shown["ecs"]["invocation"]["via"], shown["ecs"]["invocation"]["function"]) == ("ecs", "")
