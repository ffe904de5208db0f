"""The ECS manager's wire contract: how it is called, and what each kind of reply means."""

import json
from typing import Any

import pytest

from scripts.ecs import manager
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown
from tests.stand_in import Reply, answering, stand_in

ENDED = {"errorType": "KeyError", "errorMessage": "x"}
LATE = {"errorMessage": "2026 Task timed out after 120.00 seconds"}
DONE = {"ResponseMetadata": {"HTTPStatusCode": 200}}


@pytest.mark.parametrize(
    ("function", "qualifier", "expected"),
    [
        (None, None, ("dev-ecs-manager-docker", "8")),
        (None, "9", ("dev-ecs-manager-docker", "9")),
        ("other", None, ("other", "$LATEST")),
        ("other", "live", ("other", "live")),
        ("dev-ecs-manager-docker", None, ("dev-ecs-manager-docker", "$LATEST")),
    ],
)
def test_another_function_does_not_get_the_qualifier_of_the_settings(
    function: str | None, qualifier: str | None, expected: tuple[str, str]
) -> None:
    """It has other versions."""
    call = manager.planned(settings.environment("dev"), function, qualifier, {"a": 1})

    assert (call.function, call.qualifier) == expected
    assert call.describe() == [f"invoke {expected[0]} at {expected[1]} with", '{"a": 1}']


@pytest.mark.parametrize(
    ("body", "function_error", "kind", "said"),
    [
        (b"", None, OutcomeUnknown, "f returned an empty response."),
        (b"<html>", None, OutcomeUnknown, "f did not return JSON: <html>"),
        (b"\xff", None, OutcomeUnknown, "f did not return JSON: \N{REPLACEMENT CHARACTER}"),
        (b"[" * 100_000, None, OutcomeUnknown, "f did not return JSON: " + "[" * 200),
        (json.dumps(LATE).encode(), "Unhandled", OutcomeUnknown, f"f timed out: {LATE['errorMessage']}."),
        (json.dumps(ENDED).encode(), "Unhandled", DeployError, "f failed: KeyError: x"),
        (b'{"errorType": "E"}', "Unhandled", DeployError, "f failed: E: no message"),
        (b"[]", "Unhandled", DeployError, "f failed: Unhandled: no message"),
        (b"", "Unhandled", DeployError, "f failed: Unhandled: no message"),
    ],
)
def test_an_invalid_response_is_a_failure_or_an_unknown_outcome(
    body: bytes, function_error: str | None, kind: type[DeployError], said: str
) -> None:
    """A function error is a failure, unless the function timed out."""
    with pytest.raises(DeployError) as error:
        manager.parse(body, function_error, "f")

    assert type(error.value) is kind
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (None, OutcomeUnknown, "f returned null"),
        ([DONE], OutcomeUnknown, "f returned [{"),
        ({}, OutcomeUnknown, "f returned {}"),
        ({"msg": "m"}, DeployError, "f did not understand the request: m"),
        ({"data": []}, DeployError, "f did not understand the request: no message"),
        ({"data": "no", "msg": "m"}, DeployError, "f did not understand the request: no"),
        ({"data": {"response": "x"}, "msg": "m"}, DeployError, "f did not understand the request: m"),
        ({"data": {"response": DONE}, "level": "critical"}, DeployError, "f did not understand the request"),
        *(
            ({"data": {"response": {"title": title, "message": "m"}}}, OutcomeUnknown, f"f failed: {title}: m")
            for title in ("TaskStillRunning", "TaskLost", "OutcomeUnknown")
        ),
        ({"data": {"response": {"title": "T", "message": "m"}}}, DeployError, "f failed: T: m"),
        ({"data": {"response": {"title": "T"}}}, DeployError, "f failed: T: no message"),
        ({"data": {"response": {"title": ""} | DONE}}, DeployError, "f failed: "),
        ({"data": {"response": {}}}, DeployError, "f reports HTTP status None"),
        ({"data": {"response": {"ResponseMetadata": []}}}, DeployError, "f reports HTTP status None"),
        (
            {"data": {"response": {"ResponseMetadata": {"HTTPStatusCode": 201}}}},
            DeployError,
            "f reports HTTP status 201",
        ),
    ],
)
def test_a_reply_without_success_is_a_failure_or_an_unknown_outcome(
    reply: Any, kind: type[DeployError], said: str
) -> None:
    """Unknown only if the manager says so, or if the reply is not the manager's."""
    with pytest.raises(DeployError) as error:
        manager.manager_response(reply, "f")

    assert type(error.value) is kind
    assert str(error.value).startswith(said)


def test_a_success_is_the_response_in_the_reply() -> None:
    """Other fields of the reply do not matter."""
    assert manager.manager_response({"msg": "m", "data": {"response": DONE, "duration": "1 ms"}}, "f") == DONE


def test_a_call_returns_the_reply_and_its_errors_have_function_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = settings.environment("dev")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    call = manager.planned(environment, "other", "live", {"a": 1})
    with stand_in(answering(Reply(b'{"b": 2}'))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        assert manager.invoke(environment, call) == {"b": 2}
        aws.answer = answering(Reply(b""))
        with pytest.raises(OutcomeUnknown, match=r"other \(dev\) returned an empty response"):
            manager.invoke(environment, call)
        aws.answer = answering(Reply(b'{"errorType": "E"}', headers={"X-Amz-Function-Error": "Unhandled"}))
        with pytest.raises(DeployError, match=r"other \(dev\) failed: E: no message"):
            manager.invoke(environment, call)

    asked = aws.requests[0]
    assert asked["path"] == "/2015-03-31/functions/other/invocations"
    assert (asked["query"], json.loads(asked["body"])) == ({"Qualifier": ["live"]}, {"a": 1})
    assert asked["headers"]["X-Amz-Invocation-Type"] == "RequestResponse"


def test_a_call_whose_response_is_lost_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have started something; a retry would start it again."""
    environment = settings.environment("dev")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with stand_in(answering(Reply(b"", drop=True))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        with pytest.raises(OutcomeUnknown):
            manager.invoke(environment, manager.planned(environment, None, None, {}))

    assert len(aws.requests) == 1
