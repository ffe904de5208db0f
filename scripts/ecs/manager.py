"""Has the ECS manager do something exactly once, and reads its reply.

The manager is a Lambda function, or (via "ecs") the same code in this process, which calls ECS with the caller's
rights: the event, the reply and all that follows from it are the same.

Its wire contract: a reply has `data.response`, which on failure holds `title` and `message`. The reply to an unknown
command has `level` and no `data.response`. An unexpected error of the function arrives as Lambda's own function error,
with HTTP status 200.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from scripts.edges import aws
from scripts.edges.aws import NothingRan
from scripts.frame import console, stop, waiting
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock

FUNCTION = re.compile(r"[A-Za-z0-9:_-]{1,170}")
QUALIFIER = re.compile(r"\$LATEST|[A-Za-z0-9_-]{1,128}")
SERVICE = re.compile(r"[A-Za-z0-9_-]{1,255}")
DEPLOYMENT = re.compile(r"ecs-svc/[0-9]{1,40}")
LAMBDA, ECS = "lambda", "ecs"

# Titles of the manager for a task whose end it has not seen, and for a request that may have had an effect.
UNKNOWN = {"TaskStillRunning", "TaskLost", "OutcomeUnknown"}
# Seconds to wait for a function that Lambda cannot start yet, and between two tries.
NOT_YET, TRY_AGAIN = 60.0, 1.0
# What GitHub sets for one step of one attempt of a workflow's run: a repeat in the same step has the same.
OF_THE_RUN = ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "GITHUB_ACTION")
# botocore's errors for credentials that are missing, and that cannot be had.
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
THIS_PROCESS = str(uuid.uuid4())


class Invocation(Struct, frozen=True):
    """One call of the ECS manager, or of another Lambda function. function, qualifier: empty where via is ecs.

    qualifier: a version, an alias or $LATEST. via: lambda, or ecs for a call in this process.
    """

    function: str
    qualifier: str
    payload: Mapping[str, Any]
    via: str = LAMBDA

    @property
    def who(self) -> str:
        """Who is called, for messages."""
        return "ECS" if self.via == ECS else self.function

    @property
    def doing(self) -> str:
        """What is being done, for messages: "invoking dev-ecs-manager at 8"."""
        return "calling ECS" if self.via == ECS else f"invoking {self.function} at {self.qualifier}"

    def describe(self) -> list[str]:
        """The call and its exact payload."""
        how = "call ECS directly, as the ECS manager would for" if self.via == ECS else ""
        return [how or f"invoke {self.function} at {self.qualifier} with", json.dumps(self.payload)]


def planned(
    environment: Environment,
    function: str | None,
    qualifier: str | None,
    payload: Mapping[str, Any],
    via: str | None = None,
) -> Invocation:
    """A call of the environment's ECS manager, or of another function.

    function, qualifier: None for those of the settings. The settings' qualifier belongs to the settings' function:
    another function is called at $LATEST unless a qualifier is given. via: lambda or ecs, None for that of the
    settings; a function that is given is always called. Raises Refused for a malformed or missing value.
    """
    if via not in (None, LAMBDA, ECS):
        raise Refused(f"--via must be {LAMBDA} or {ECS}, not {via[:50]!r}.")
    given = function is not None or qualifier is not None
    if via == ECS and given:
        raise Refused("--via=ecs calls no Lambda function: leave out --function-name and --qualifier.")
    if (via or (LAMBDA if given else environment.manager.via)) == ECS:
        return Invocation("", "", payload, ECS)
    if qualifier is None:
        qualifier = environment.manager.qualifier if function is None else "$LATEST"
    function = environment.manager.function if function is None else function
    for name, value in (("function", function), ("qualifier", qualifier)):
        if not value and not given:
            raise Refused(
                f"{environment.name} has no manager.{name}: set it, or set manager.via to ecs (--via=ecs) to call ECS"
                " directly."
            )
    if not FUNCTION.fullmatch(function):
        raise Refused(f"{function[:200]!r} is not the name of a Lambda function.")
    if not QUALIFIER.fullmatch(qualifier):
        raise Refused(f"{qualifier[:200]!r} is not a version or an alias of a Lambda function.")
    return Invocation(function, qualifier, payload)


def token(environment: Environment, *parts: str) -> str:
    """A token for ECS, by which it recognizes a repeated request: the same for the same step of a workflow's run.

    Elsewhere it is the same for the length of this process. parts: what is requested.
    """
    run = [os.environ.get(name, "") for name in OF_THE_RUN] if os.environ.get("GITHUB_RUN_ID") else [THIS_PROCESS]
    whole = json.dumps([environment.name, environment.cluster, *run, *parts])
    return hashlib.sha256(whole.encode()).hexdigest()


def services(environment: Environment) -> tuple[str, ...]:
    """The services that a deployment of the application is for: its own, then the others of the settings."""
    return (environment.service.name, *(name for name in environment.services if name != environment.service.name))


def repository(environment: Environment, service: str) -> str:
    """The repository of a service's own image. Raises Refused if it is not in the settings."""
    if service == environment.migrations.service != environment.service.name:
        found = environment.migrations.image
    elif service in environment.services:
        found = environment.services[service].image or environment.service.image
    else:
        found = environment.service.image if service == environment.service.name else ""
    if not found:
        raise Refused(f"No image is set for {service} in the settings: give --image, --image-uri or --no-image.")
    return found


def deploy_event(
    environment: Environment, service: str, image: str, *, allow_secret_removal: bool = False
) -> dict[str, Any]:
    """The event that deploys a service, or gives a task without one its revision. image: its URI, empty for a restart.

    Only the application's own service gets secrets, and others whose settings say which. Raises Refused for an
    expression that is not set.
    """
    others, tasks = environment.services, environment.tasks
    body: dict[str, Any] = {"cluster_id": environment.cluster}
    body |= {"families": [tasks[service].family]} if service in tasks else {"service_ids": [service]}
    secrets, containers = "", tuple[str, ...]()
    if service == environment.service.name:
        own = environment.service
        secrets, containers = own.secrets.require() if own.secrets else "", own.containers
    elif service in others:
        secrets, containers = others[service].secrets, others[service].containers
    elif service == environment.migrations.service:
        containers = environment.migrations.containers
    if secrets:
        body["secrets"] = [secrets]
    if image:
        body["image"] = image
    if containers:
        body["containers"] = list(containers)
    if allow_secret_removal:
        body["allow_secret_removal"] = True
    return {"command": "deploy", "body": body}


def run_event(environment: Environment, service: str, task_definition: str = "") -> dict[str, Any]:
    """The event that runs a service's task once, or a task of the settings that has no service.

    task_definition: the revision of such a task, empty for the newest of its family.
    """
    body: dict[str, Any] = {"cluster_id": environment.cluster}
    task = environment.tasks.get(service)
    if task is None:
        return {"command": "runtask", "body": {**body, "service_id": service}}
    body |= {"family": task.family, "subnets": [one.require() for one in task.subnets]}
    if task.security_groups:
        body["security_groups"] = [one.require() for one in task.security_groups]
    body |= {"assign_public_ip": True} if task.assign_public_ip else {}
    body |= {"platform": task.platform} if task.platform else {}
    body |= {"task_definition": task_definition} if task_definition else {}
    return {"command": "runtask", "body": {**body, "client_token": token(environment, json.dumps(body))}}


def checked_service(name: str) -> str:
    """The name of an ECS service. Raises Refused for an invalid or empty one."""
    if not SERVICE.fullmatch(name):
        raise Refused(f"{name[:200]!r} is not the name of an ECS service.")
    return name


def invoke(environment: Environment, invocation: Invocation, *, reads: bool = False, clock: Clock = CLOCK) -> Any:
    """Have it done once and return the reply, parsed from JSON.

    The call is never repeated, because each call would start another deployment. Only a function that Lambda could not
    start is called again, for a minute. Raises OutcomeUnknown when the response is lost, late or malformed, or says
    that the function timed out; NothingRan if the function could not be started; DeployError for any other failure.

    reads: the function only reads, so the call may be repeated, and a lost response is a plain failure.
    """
    if invocation.via == ECS:
        return _in_this_process(environment, invocation, clock)

    def look() -> tuple[str, Any]:
        try:
            return "", (_invoke(environment, invocation, reads),)
        except NothingRan as error:
            if not error.passes or clock.now() + TRY_AGAIN > deadline:
                raise
            return f"Lambda cannot start {invocation.function} yet, and is asked again: {error}", None

    deadline = clock.now() + NOT_YET
    return waiting.wait(look, seconds=NOT_YET, every=TRY_AGAIN, clock=clock)[0]


def _invoke(environment: Environment, invocation: Invocation, reads: bool) -> Any:
    client = aws.client("lambda", environment, once=not reads, read_timeout=environment.manager.timeout)
    with aws.errors(invocation.doing, environment, starts_something=not reads):
        answer = client.invoke(
            FunctionName=invocation.function,
            Qualifier=invocation.qualifier,
            InvocationType="RequestResponse",
            LogType="Tail",
            Payload=json.dumps(invocation.payload).encode(),
        )
        body = answer["Payload"].read()
    try:
        return parse(body, answer.get("FunctionError"), f"{invocation.function} ({environment.name})")
    except DeployError:
        with console.group(f"the end of the log of {invocation.function}"):
            for line in log_tail(answer.get("LogResult", "")):
                console.say(f"  | {line}")
        raise


def log_tail(encoded: str) -> list[str]:
    """The last lines of a function's log, as Lambda sends them: in base64, the last 4 KB.

    Lines with JSON are left out: the public manager logs whole task definitions, values of the environment included.
    """
    try:
        whole = base64.b64decode(encoded).decode(errors="replace")
    except (ValueError, binascii.Error):
        return []
    lines = whole.splitlines()[1 if len(whole) >= 4000 else 0 :]
    return [line for line in lines if line.strip() and not set("{}") & set(line)][-20:]


def _in_this_process(environment: Environment, invocation: Invocation, clock: Clock) -> Any:
    """The reply of the manager's own code, with the caller's credentials. Raises as `invoke` does."""
    from ecs_manager import handler
    from ecs_manager.commands import Invocation as Call

    deadline = clock.now() + environment.manager.timeout
    registered = list[bool]()

    def sleep(seconds: float) -> None:
        stop.check()
        clock.sleep(seconds)

    def note(http_response: Any, **_: object) -> None:
        registered.append(http_response.status_code < 300)

    def using() -> Call:
        ecs = aws.client("ecs", environment)
        ecs.meta.events.register("after-call.ecs.RegisterTaskDefinition", note)
        return Call(
            ecs=ecs,
            ssm=aws.client("ssm", environment),
            id=token(environment, json.dumps(invocation.payload, sort_keys=True)),
            remaining=lambda: deadline - clock.now(),
            sleep=sleep,
            once=aws.client("ecs", environment, once=True),
        )

    with aws.errors(invocation.doing, environment):
        reply = handler.answer(invocation.payload, using)
    response = reply.get("data", {})
    title = response.get("response", {}).get("title") if isinstance(response, Mapping) else None
    # Credentials that expire after a revision was registered have failed: a refusal means that nothing was written.
    if title in aws.CREDENTIALS | NO_CREDENTIALS and not any(registered):
        raise Refused(
            f"No valid AWS credentials for {invocation.doing} ({environment.name}): log in, then run this again."
        )
    return reply


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
