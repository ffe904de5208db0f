"""Calls a Lambda function exactly once, and reads its reply.

The ECS manager's wire contract: a reply has `data.response`, which on failure holds `title` and `message`. The reply to
an unknown command has `level` and no `data.response`. An unexpected error of the function arrives as Lambda's own
function error, with HTTP status 200.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.edges import aws
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment

FUNCTION = re.compile(r"[A-Za-z0-9:_-]{1,170}")
QUALIFIER = re.compile(r"\$LATEST|[A-Za-z0-9_-]{1,128}")
SERVICE = re.compile(r"[A-Za-z0-9_-]{1,255}")
DEPLOYMENT = re.compile(r"ecs-svc/[0-9]{1,40}")

# Titles of the manager for a task whose end it has not seen, and for a request that may have had an effect.
UNKNOWN = {"TaskStillRunning", "TaskLost", "OutcomeUnknown"}


@dataclass(frozen=True)
class Invocation:
    """One synchronous call of a Lambda function. qualifier: a version, an alias or $LATEST."""

    function: str
    qualifier: str
    payload: Mapping[str, Any]

    def describe(self) -> list[str]:
        """The call and its exact payload."""
        return [f"invoke {self.function} at {self.qualifier} with", json.dumps(self.payload)]


def planned(
    environment: Environment,
    function: str | None,
    qualifier: str | None,
    payload: Mapping[str, Any],
) -> Invocation:
    """A call of the environment's ECS manager, or of another function.

    function, qualifier: None for those of the settings. The settings' qualifier belongs to the settings' function:
    another function is called at $LATEST unless a qualifier is given. Raises Refused for a malformed name or qualifier.
    """
    if qualifier is None:
        qualifier = environment.manager.qualifier if function is None else "$LATEST"
    function = environment.manager.function if function is None else function
    if not FUNCTION.fullmatch(function):
        raise Refused(f"{function[:200]!r} is not the name of a Lambda function.")
    if not QUALIFIER.fullmatch(qualifier):
        raise Refused(f"{qualifier[:200]!r} is not a version or an alias of a Lambda function.")
    return Invocation(function, qualifier, payload)


def checked_service(name: str) -> str:
    """The name of an ECS service. Raises Refused for an invalid or empty one."""
    if not SERVICE.fullmatch(name):
        raise Refused(f"{name[:200]!r} is not the name of an ECS service.")
    return name


def invoke(environment: Environment, invocation: Invocation, *, reads: bool = False) -> Any:
    """Call the function once and return its reply, parsed from JSON.

    The call is never repeated, because each call would start another deployment. Raises OutcomeUnknown when the
    response is lost, late or malformed, or says that the function timed out; DeployError for any other failure.

    reads: the function only reads, so the call may be repeated, and a lost response is a plain failure.
    """
    doing = f"invoking {invocation.function} at {invocation.qualifier}"
    client = aws.client("lambda", environment, once=not reads, read_timeout=environment.manager.timeout)
    with aws.errors(doing, environment, starts_something=not reads):
        answer = client.invoke(
            FunctionName=invocation.function,
            Qualifier=invocation.qualifier,
            InvocationType="RequestResponse",
            Payload=json.dumps(invocation.payload).encode(),
        )
        body = answer["Payload"].read()
    return parse(body, answer.get("FunctionError"), f"{invocation.function} ({environment.name})")


def parse(body: bytes, function_error: str | None, function: str) -> Any:
    """The reply in a response of Lambda. Raises as `invoke` does."""
    reply, readable = None, True
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        readable = False
    if function_error:
        details = reply if isinstance(reply, dict) else {}
        message = str(details.get("errorMessage", "no message"))
        if "Task timed out" in message:
            raise OutcomeUnknown(f"{function} timed out: {message}. What it started may still be happening.")
        raise DeployError(f"{function} failed: {details.get('errorType', function_error)}: {message}")
    if not body:
        raise OutcomeUnknown(f"{function} returned an empty response.")
    if not readable:
        raise OutcomeUnknown(f"{function} did not return JSON: {body[:200].decode(errors='replace')}")
    return reply


def manager_response(reply: Any, manager: str) -> dict[str, Any]:
    """What the ECS manager did: `data.response` of a reply that reports success.

    Raises DeployError for every failure in the contract, OutcomeUnknown for a reply that breaks the contract.
    """
    if not isinstance(reply, dict) or not reply:
        raise OutcomeUnknown(f"{manager} returned {json.dumps(reply)[:200]}, which is not a reply of the ECS manager.")
    data = reply.get("data")
    response = data.get("response") if isinstance(data, dict) else None
    if reply.get("level") or not isinstance(response, dict):
        detail = data if isinstance(data, str) else reply.get("msg", "no message")
        raise DeployError(f"{manager} did not understand the request: {detail}")
    if "title" in response:
        title = str(response["title"])
        kind = OutcomeUnknown if title in UNKNOWN else DeployError
        raise kind(f"{manager} failed: {title}: {response.get('message', 'no message')}")
    metadata = response.get("ResponseMetadata")
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    if status != 200:
        raise DeployError(f"{manager} reports HTTP status {status} instead of 200.")
    return response


def deployment_id(response: Mapping[str, Any], service: str) -> str:
    """The id of a service's deployment in the manager's reply; empty if the manager does not report it."""
    reported = response.get("DeploymentIds")
    found = reported.get(service) if isinstance(reported, Mapping) else None
    return found if isinstance(found, str) and DEPLOYMENT.fullmatch(found) else ""
