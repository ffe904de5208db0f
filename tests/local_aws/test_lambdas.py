"""Lambda's Invoke API: handlers run in their own processes."""

import json
import os
import time
from typing import Any

import pytest

from local_aws.lambdas import Function
from tests.conftest import EmbeddedCloud


def echo(event: Any, context: Any) -> Any:
    """The handler of the tests' function."""
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
    """A function with version 7, the alias live, and a timeout of a minute."""
    return add(cloud, timeout=60)


def add(cloud: EmbeddedCloud, timeout: int) -> str:
    """Add the function with a timeout in seconds, and return its name."""
    qualifiers = {"$LATEST", "7", "live"}
    cloud.server.functions.add(Function("echo", f"{__name__}:echo", "us-west-2", qualifiers, timeout=timeout))
    return "echo"


def invoke(cloud: EmbeddedCloud, event: Any, **more: Any) -> tuple[dict[str, Any], Any]:
    """Invoke it. Returns the response and the parsed payload."""
    answer = cloud.client("lambda").invoke(FunctionName="echo", Payload=json.dumps(event), **more)
    return answer, json.loads(answer["Payload"].read() or "null")


def test_a_handler_gets_its_event_and_its_remaining_time(cloud: EmbeddedCloud, function: str) -> None:
    """At the requested qualifier. What the handler prints is not part of the reply."""
    answer, payload = invoke(cloud, {"a": 1}, Qualifier="7")

    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "7")
    assert "FunctionError" not in answer
    assert payload["event"] == {"a": 1}
    assert 0 < payload["millis"] <= 60_000


def test_an_exception_is_a_function_error_with_status_200(cloud: EmbeddedCloud, function: str) -> None:
    """As in the real Lambda."""
    answer, payload = invoke(cloud, "raise")

    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (payload["errorType"], payload["errorMessage"]) == ("ValueError", "broken")


def test_a_function_that_times_out_is_killed(cloud: EmbeddedCloud) -> None:
    """The next call works again."""
    add(cloud, timeout=1)

    answer, payload = invoke(cloud, "sleep")

    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorMessage"].endswith("Task timed out after 1.00 seconds")
    add(cloud, timeout=60)
    assert invoke(cloud, "again")[1]["event"] == "again"


def test_a_function_that_ends_its_process_is_replaced(cloud: EmbeddedCloud, function: str) -> None:
    """The embedded AWS keeps running."""
    answer, payload = invoke(cloud, "exit")

    assert (answer["FunctionError"], payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert invoke(cloud, "again")[1]["event"] == "again"


@pytest.mark.parametrize(("name", "qualifier"), [("echo", "8"), ("nobody", "$LATEST")])
def test_an_unknown_function_or_version_is_not_found(
    cloud: EmbeddedCloud, function: str, name: str, qualifier: str
) -> None:
    client = cloud.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName=name, Qualifier=qualifier, Payload="{}")


def test_event_dry_run_and_arn_invocations(cloud: EmbeddedCloud, function: str) -> None:
    """Event returns at once, and DryRun runs nothing."""
    client = cloud.client("lambda")
    arn = "arn:aws:lambda:us-west-2:123456789012:function:echo:live"

    assert client.invoke(FunctionName="echo", InvocationType="Event", Payload='"x"')["StatusCode"] == 202
    assert client.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
    assert client.invoke(FunctionName=arn, Payload='"x"', LogType="Tail")["LogResult"]


def test_the_functions_of_the_settings_exist(cloud: EmbeddedCloud) -> None:
    """ecr-scan-findings is there, at its qualifier."""
    reply = cloud.client("lambda").invoke(
        FunctionName="ecr-scan-findings",
        Qualifier="7",
        Payload=json.dumps({"repository": "mint-backend", "imageTag": "v0"}),
    )

    assert json.loads(reply["Payload"].read()) == {"totalFindings": 0}


def test_a_function_does_not_get_the_users_aws_variables(
    cloud: EmbeddedCloud, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real credentials in the shell do not reach it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_REGION"):
        monkeypatch.setenv(name, "mine")

    variables = invoke(cloud, "variables")[1]

    assert variables == {
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_REGION": "us-west-2",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "lambda",
        "AWS_SECRET_ACCESS_KEY": "lambda",
    }


def test_a_call_after_a_reset_starts_no_process(cloud: EmbeddedCloud, function: str) -> None:
    late = cloud.server.functions.functions["echo"]
    cloud.server.functions.stop()

    assert "was deleted" in late.call({}, cloud.url)["error"]["errorMessage"]
    assert late.worker is None
