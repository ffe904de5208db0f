"""The wire contract: the reply to an event, in this process and through Lambda's Invoke."""

import json
import re
from typing import Any

import boto3
import pytest

from ecs_manager.handler import handler
from tests.conftest import EmbeddedCloud

CLUSTER = "local-mint-app"
SECRET = "secret-postgres_password"


class Context:
    """The context that Lambda passes to a handler."""

    aws_request_id = "request-1"

    def __init__(self, remaining: int = 60_000) -> None:
        self.remaining = remaining

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining


@pytest.fixture(autouse=True)
def lambda_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Lambda sets. The endpoint is a closed port, unless a test uses the embedded AWS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in {
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def deploy(**more: Any) -> dict[str, Any]:
    """A deploy event."""
    return {"command": "deploy", "body": {"cluster_id": CLUSTER, "service_ids": ["mint-app"], **more}}


def test_a_success_has_the_shape_of_the_wire_contract(cloud: EmbeddedCloud) -> None:
    """The event is echoed beside the result, and the duration is in milliseconds."""
    reply = handler(deploy(), Context())

    assert reply["msg"] == "response received"
    assert re.fullmatch(r"\d+\.\d ms", reply["data"]["duration"])
    response = reply["data"]["response"]
    assert response["request_payload"] == deploy()
    done = {"ResponseMetadata", "UpdatedServiceArns", "NewTaskdefArn", "DeploymentIds"}
    assert set(response) == {"request_payload", *done}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 200


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (deploy(cluster_id="nothing"), "ClusterNotFoundException"),
        (deploy(service_ids=["nothing"]), "ServiceNotFoundException"),
        (deploy(secrets=["/local/nothing/x"]), "NoSecretsFound"),
        (deploy(secrets=["("]), "BadExpression"),
    ],
)
def test_a_failure_is_a_normal_reply_with_title_and_message(
    cloud: EmbeddedCloud, event: dict[str, Any], title: str
) -> None:
    """With an empty traceback, and without the HTTP status of a success."""
    response = handler(event, Context())["data"]["response"]

    assert set(response) == {"request_payload", "title", "message", "traceback"}
    assert response["title"] == title
    assert response["message"]
    assert response["traceback"] == []
    assert response["request_payload"] == event


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"command": "destroy", "body": {}}, "unknown command 'destroy'"),
        ({"command": ["deploy"], "body": {}}, "unknown command"),
        ({"body": {}}, "unknown command None"),
        ({}, "unknown command"),
        (None, "unknown command"),
        ("deploy", "unknown command"),
        ({"command": "deploy"}, "needs a body"),
        ({"command": "deploy", "body": []}, "needs a body"),
        ({"command": "deploy", "body": {"cluster_id": CLUSTER}}, "service_ids"),
        ({"command": "runtask", "body": {"cluster_id": CLUSTER}}, "service_id"),
        (deploy(secrets=[]), "secrets"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_invalid_event_gets_level_critical_and_a_reason(event: Any, said: str) -> None:
    """It has no response, and AWS is not called."""
    reply = handler(event, Context())

    assert set(reply) == {"msg", "data", "level"}
    assert reply["level"] == "critical"
    assert said in reply["data"]


def test_no_reply_or_log_contains_the_value_of_a_secret(
    cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Parameter values are never read at all."""
    cloud.fail(service="ecs", operation="UpdateService", status=400, code="AccessDeniedException")
    event = deploy(secrets=[r"^/local/mint-app/\S+$"])

    failed, done = handler(event, Context()), handler(event, Context())

    assert failed["data"]["response"]["title"] == "AccessDeniedException"
    assert done["data"]["response"]["ResponseMetadata"]["HTTPStatusCode"] == 200
    said = capsys.readouterr()
    assert SECRET not in json.dumps([failed, done]) + said.out + said.err + caplog.text
    assert not [r for r in cloud.requests("ssm") if r["operation"].startswith("GetParameter")]


def runtask() -> dict[str, Any]:
    """An event that runs the migrations."""
    return {"command": "runtask", "body": {"cluster_id": CLUSTER, "service_id": "mint-app-db-migrate"}}


def test_the_manager_knows_its_request_and_how_much_time_it_has(cloud: EmbeddedCloud) -> None:
    """The id stays the same when Lambda repeats an event, so that ECS starts one task. Time: less than six seconds."""
    response = handler(runtask(), Context(remaining=5_900))["data"]["response"]

    assert response["title"] == "TaskStillRunning"
    (started,) = cloud.requests("ecs", "RunTask")
    assert started["parameters"]["clientToken"] == "request-1"


def test_the_log_has_a_line_for_each_command(cloud: EmbeddedCloud, caplog: pytest.LogCaptureFixture) -> None:
    """With its time, and the title of its failure. Lambda's own level of the log would hide it."""
    replies = [handler(event, Context()) for event in (deploy(), deploy(cluster_id="nothing"))]

    lines = [(r.levelname, json.loads(r.getMessage())) for r in caplog.records if r.name == "ecs_manager"]
    titles = (None, "ClusterNotFoundException")
    assert lines == [
        ("INFO", {"command": "deploy", "duration": reply["data"]["duration"], "title": title})
        for reply, title in zip(replies, titles, strict=True)
    ]


def invoke(cloud: EmbeddedCloud, event: Any, function: str = "local-ecs-manager-docker") -> tuple[Any, str | None]:
    """Invoke the function as a deployment does. Returns the reply and FunctionError."""
    answer = cloud.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
    return json.loads(answer["Payload"].read()), answer.get("FunctionError")


def test_a_deployment_and_a_task_succeed_through_lambda(cloud: EmbeddedCloud) -> None:
    """The handler runs in its own process and finds AWS by its environment variables."""
    deployed, error = invoke(cloud, deploy(image=f"{cloud.server.cloud.host}/mint-backend:v0"))
    assert error is None
    assert deployed["data"]["response"]["ResponseMetadata"]["HTTPStatusCode"] == 200

    ran, error = invoke(cloud, runtask())
    assert error is None
    assert ran["data"]["response"]["taskStatus"]["exitCode"] == 0


def test_through_lambda_a_bug_is_a_function_error(cloud: EmbeddedCloud) -> None:
    """Unexpected exceptions are not turned into replies."""
    cloud.fail(service="ecs", operation="DescribeServices", status=200, code="x")

    reply, error = invoke(cloud, deploy())

    assert error == "Unhandled"
    assert {"errorMessage", "errorType"} <= set(reply)


def test_a_service_is_updated_once_even_if_the_answer_is_lost(cloud: EmbeddedCloud) -> None:
    """botocore would repeat the request, and each starts another deployment."""
    cloud.fail(service="ecs", operation="UpdateService", after=True, drop=True, times=9)

    response = handler(deploy(), Context())["data"]["response"]

    assert response["title"] == "OutcomeUnknown"
    assert len(cloud.requests("ecs", "UpdateService")) == 1
