"""Lambda's Invoke API, with handlers in processes of their own."""

import json
import os
import time
from typing import Any

import pytest

from local_aws.lambdas import Function
from tests.conftest import EmbeddedCloud


def echo(event: Any, context: Any) -> Any:
    """What the tests' own function answers."""
    if event == "sleep":
        time.sleep(30)
    if event == "variables":
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if event == "raise":
        raise ValueError("broken")
    if event == "exit":
        os._exit(3)
    print("said by the function")
    return {"event": event, "millis": context.get_remaining_time_in_millis()}


@pytest.fixture
def function(cloud: EmbeddedCloud) -> str:
    """A function with a version 7, an alias live, and four seconds of time."""
    qualifiers = {"$LATEST", "7", "live"}
    cloud.server.functions.add(Function("echo", f"{__name__}:echo", "us-west-2", qualifiers, timeout=4))
    return "echo"


def invoke(cloud: EmbeddedCloud, event: Any, **more: Any) -> tuple[dict[str, Any], Any]:
    """Invoke, and return the answer and its parsed payload."""
    answer = cloud.client("lambda").invoke(FunctionName="echo", Payload=json.dumps(event), **more)
    return answer, json.loads(answer["Payload"].read() or "null")


def test_a_handler_runs_with_its_event_and_its_time(cloud: EmbeddedCloud, function: str) -> None:
    """At the qualifier that was asked for; what it prints does not disturb the answer."""
    answer, payload = invoke(cloud, {"a": 1}, Qualifier="7")

    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "7")
    assert "FunctionError" not in answer
    assert payload["event"] == {"a": 1}
    assert 0 < payload["millis"] <= 4000


def test_an_exception_is_a_function_error_with_status_200(cloud: EmbeddedCloud, function: str) -> None:
    """As Lambda has it."""
    answer, payload = invoke(cloud, "raise")

    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (payload["errorType"], payload["errorMessage"]) == ("ValueError", "broken")


def test_a_function_that_runs_out_of_time_is_ended(cloud: EmbeddedCloud, function: str) -> None:
    """And answers again at the next call."""
    answer, payload = invoke(cloud, "sleep")

    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorMessage"].endswith("Task timed out after 4.00 seconds")
    assert invoke(cloud, "again")[1]["event"] == "again"


def test_a_function_that_ends_its_process_is_replaced(cloud: EmbeddedCloud, function: str) -> None:
    """The cloud goes on."""
    answer, payload = invoke(cloud, "exit")

    assert (answer["FunctionError"], payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert invoke(cloud, "again")[1]["event"] == "again"


@pytest.mark.parametrize(("name", "qualifier"), [("echo", "8"), ("nobody", "$LATEST")])
def test_what_does_not_exist_is_not_found(cloud: EmbeddedCloud, function: str, name: str, qualifier: str) -> None:
    """Neither the function nor the version."""
    client = cloud.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName=name, Qualifier=qualifier, Payload="{}")


def test_the_other_kinds_of_invocation(cloud: EmbeddedCloud, function: str) -> None:
    """Event answers at once, DryRun runs nothing; an ARN names a function too."""
    client = cloud.client("lambda")
    arn = "arn:aws:lambda:us-west-2:123456789012:function:echo:live"

    assert client.invoke(FunctionName="echo", InvocationType="Event", Payload='"x"')["StatusCode"] == 202
    assert client.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
    assert client.invoke(FunctionName=arn, Payload='"x"', LogType="Tail")["LogResult"]


def test_the_seeded_functions_are_the_settings(cloud: EmbeddedCloud) -> None:
    """The manager at its qualifier, and the one that counts findings."""
    reply = cloud.client("lambda").invoke(
        FunctionName="ecr-scan-findings",
        Qualifier="7",
        Payload=json.dumps({"repository": "mint-backend", "imageTag": "v0"}),
    )

    assert json.loads(reply["Payload"].read()) == {"totalFindings": 0}


def test_the_function_has_nobodys_keys(cloud: EmbeddedCloud, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the shell for the real AWS does not reach it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_REGION"):
        monkeypatch.setenv(name, "mine")

    variables = invoke(cloud, "variables")[1]

    assert variables == {
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_REGION": "us-west-2",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }


def test_a_call_that_comes_late_starts_nothing(cloud: EmbeddedCloud, function: str) -> None:
    """The cloud has been reset meanwhile: no process is left of it."""
    late = cloud.server.functions.functions["echo"]
    cloud.server.functions.stop()

    assert "was deleted" in late.call({}, cloud.url)["error"]["errorMessage"]
    assert late.worker is None
