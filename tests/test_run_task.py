"""How a task that ran once is judged, by the manager's reply."""

import json
from typing import Any

import pytest

from scripts import run_task
from scripts.ecs import manager
from scripts.frame import settings
from scripts.frame.errors import DeployError
from scripts.run_task import TaskEnded, TaskRun
from tests.stand_in import Reply, answering, stand_in

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


def test_exit_code_0_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its ARN as an output, and ECS's reason."""
    ended = start({"taskArn": ARN, "taskStatus": {"exitCode": 0, "stoppedReason": "done"}}, monkeypatch)

    assert ended == TaskEnded(MIGRATE, ARN, 0, "done")
    assert ended.outputs() == {"task": ARN}


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
