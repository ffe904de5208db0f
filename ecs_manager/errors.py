"""The manager's failures. A reply has their title and message."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# AWS's names for "too many requests for now": it did nothing.
THROTTLED = {
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
# The title if something may have started, but AWS has not confirmed it.
OUTCOME_UNKNOWN = "OutcomeUnknown"


class ManagerError(Exception):
    """An expected failure. Title and message go into the reply, so they must hold no secrets."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title
        self.message = message


class BadRequest(Exception):
    """The event is not one that the manager understands."""


def passes(error: "ClientError") -> bool:
    """Whether AWS refused for now, and provably did nothing: it was asked too much, or another revision is made."""
    code = error.response["Error"]["Code"]
    return code in THROTTLED or "Too many concurrent attempts" in str(error) or "Rate exceeded" in str(error)


@contextmanager
def begins(what: str) -> Iterator[None]:
    """Wrap a request that starts something. what: subject of a sentence, such as "a task of app".

    Raises ManagerError OUTCOME_UNKNOWN if AWS failed (5xx), or its response was lost or is malformed. The error of a
    request that AWS refused, or that did not reach it, is raised unchanged.
    """
    # What only looks at the manager's decisions, such as a dry run, does without botocore.
    from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

    try:
        yield
    except (EndpointConnectionError, ConnectTimeoutError):
        raise
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500:
            raise
        raise ManagerError(OUTCOME_UNKNOWN, f"{what} may have started: {error}") from error
    except (BotoCoreError, LookupError, TypeError) as error:
        raise ManagerError(OUTCOME_UNKNOWN, f"{what} may have started: AWS's response was lost: {error}") from error
