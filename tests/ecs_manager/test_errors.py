"""What a failed call to AWS says about what it did, as tables."""

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from ecs_manager.errors import ManagerError, begins, passes


def answer(status: int | None) -> ClientError:
    """An error response with an HTTP status."""
    metadata = {} if status is None else {"ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError({"Error": {"Code": "C", "Message": "m"}, **metadata}, "RunTask")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EndpointConnectionError(endpoint_url="u"), None),
        (ConnectTimeoutError(endpoint_url="u"), None),
        (answer(400), None),
        (answer(499), None),
        (answer(None), None),
        (ZeroDivisionError(), None),
        (answer(500), "a task of app may have started: An error"),
        (answer(503), "a task of app may have started: An error"),
        (ReadTimeoutError(endpoint_url="u"), "a task of app may have started: "),
        (KeyError("tasks"), "a task of app may have started: "),
        (TypeError("x"), "a task of app may have started: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_after_which_something_may_have_started_become_outcome_unknown(
    error: Exception, said: str | None
) -> None:
    """A request that AWS refused, or that never reached it, keeps its own error."""
    with pytest.raises(Exception) as raised, begins("a task of app"):  # noqa: PT011
        raise error

    if said is None:
        assert raised.value is error
    else:
        assert isinstance(raised.value, ManagerError)
        assert raised.value.title == "OutcomeUnknown"
        assert raised.value.message.startswith(said)
        assert str(raised.value) == raised.value.message


@pytest.mark.parametrize(
    ("code", "message", "passing"),
    [
        ("RequestLimitExceeded", "", True),
        ("RequestThrottled", "", True),
        ("RequestThrottledException", "", True),
        ("SlowDown", "Please reduce your request rate.", True),
        ("Throttling", "", True),
        ("ThrottlingException", "", True),
        ("ThrottledException", "", True),
        ("TooManyRequestsException", "", True),
        ("400", "Rate exceeded", True),
        ("ClientException", "Too many concurrent attempts to create a new revision of the specified family.", True),
        ("ClientException", "Unable to describe task definition.", False),
        ("AccessDeniedException", "", False),
        ("", "", False),
    ],
)
def test_a_refusal_passes_where_aws_was_asked_too_much(code: str, message: str, passing: bool) -> None:
    """By its code or, where the service has none for that, by its message."""
    assert passes(ClientError({"Error": {"Code": code, "Message": message}}, "UpdateService")) is passing
