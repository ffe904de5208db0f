"""The manager's commands. Each takes an Invocation and the event's body and returns the reply's fields."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from ecs_manager import descriptions, parameters, task_definition
from ecs_manager.errors import OUTCOME_UNKNOWN, BadRequest, ManagerError, begins, passes
from ecs_manager.task_definition import Change

T = TypeVar("T")

POLL_SECONDS = 1.0
# The function stops waiting for a task this long before its own time-out, so that it can still answer.
MARGIN_SECONDS = 5.0
# ECS is eventually consistent: a task that was just started may be unknown for a while.
UNKNOWN_LOOKS = 10
# Seconds between two tries of a request that AWS refused for now.
PAUSES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Invocation:
    """What a command may use: clients, an id that is the same when a call is repeated, and time in seconds.

    once: a client for ECS that never repeats a request by itself, for what has no token and starts something.
    """

    ecs: Any
    ssm: Any
    id: str
    remaining: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep
    once: Any = None

    def patiently(self, request: Callable[[], T]) -> T:
        """Do a request, and repeat it while AWS refuses it for now. Raises ClientError for the last refusal."""
        for pause in PAUSES:
            try:
                return request()
            except ClientError as error:
                if not passes(error) or self.remaining() < MARGIN_SECONDS + pause:
                    raise
                self.sleep(pause)
        return request()


@dataclass(frozen=True)
class Planned:
    """A revision to be made for one service, or for a family without one. new: None for the current revision."""

    name: str
    current: str
    new: Mapping[str, Any] | None
    service: Mapping[str, Any] | None = None


def deploy(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """Give services an image and secrets, and start their rollout. Everything is checked before any change.

    With families in place of services, each only gets its new revision.
    """
    cluster = _text(body, "cluster_id")
    families = _texts(body, "families") if body.get("families") is not None else []
    image = _text(body, "image") if body.get("image") is not None else None
    # An empty list is refused: a service that loses all its secrets is an outage, and nobody wants that.
    expressions = _texts(body, "secrets") if body.get("secrets") is not None else None
    containers = _texts(body, "containers") if body.get("containers") is not None else []
    services = [] if families else _services(call, cluster, _texts(body, "service_ids"))
    secrets = parameters.secrets(call.ssm, expressions, call.patiently) if expressions is not None else None
    drop = body.get("allow_secret_removal") is True
    planned = []
    for name, current, service in [
        *((s["serviceName"], s["taskDefinition"], s) for s in services),
        *((family, family, None) for family in families),
    ]:
        definition, tags = call.patiently(lambda current=current: descriptions.describe(call.ecs, current))  # type: ignore[misc]
        arn = definition["taskDefinitionArn"]
        old = task_definition.registrable(definition, tags)
        new = task_definition.changed(old, Change(image, secrets, containers, arn, drop))
        planned.append(Planned(name, arn, None if new == old else new, service))
    return _roll_out(call, cluster, planned)


def _roll_out(call: Invocation, cluster: str, planned: Sequence[Planned]) -> dict[str, Any]:
    updated: list[str] = []
    deployments: dict[str, str] = {}
    arn = ""
    for one in planned:
        try:
            arn = _register(call, one.new) if one.new else one.current
            if one.service:
                deployments[one.name] = _update(call, cluster, one.name, arn)
        except Exception as error:
            if not updated:
                raise
            done = ", ".join(updated)
            title = OUTCOME_UNKNOWN if isinstance(error, ManagerError) else "PartlyUpdated"
            raise ManagerError(title, f"{one.name}: {error} Already rolling out: {done}.") from error
        updated += [one.service["serviceArn"]] if one.service else []
    return {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "UpdatedServiceArns": updated,
        "NewTaskdefArn": arn,
        "DeploymentIds": deployments,
    }


def _update(call: Invocation, cluster: str, name: str, arn: str) -> str:
    """Start a rollout, and return the id of its deployment. Only a refusal is tried again."""
    ecs = call.once or call.ecs
    with begins(f"a deployment of {name}"):
        answer = call.patiently(
            lambda: ecs.update_service(cluster=cluster, service=name, taskDefinition=arn, forceNewDeployment=True)
        )
        return _primary(answer["service"])


def _primary(service: Mapping[str, Any]) -> str:
    """The id of a service's primary deployment, empty if it has none."""
    return next((str(d["id"]) for d in service.get("deployments", []) if d.get("status") == "PRIMARY"), "")


def _register(call: Invocation, definition: Mapping[str, Any]) -> str:
    """Register a revision and return its ARN. Retried while ECS is busy with another registration of the family."""
    registered = call.patiently(lambda: call.ecs.register_task_definition(**definition))
    return str(registered["taskDefinition"]["taskDefinitionArn"])


def runtask(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """Run a task once, and wait until it has stopped.

    A service's task runs in the service's own network; one of a family without a service in that of the event.
    """
    cluster = _text(body, "cluster_id")
    name, current, where = _subject(call, cluster, body)
    definition = call.patiently(lambda: call.ecs.describe_task_definition(taskDefinition=current))["taskDefinition"]
    how = {**where, **_overrides(body, definition)}
    with begins(f"a task of {name}"):
        started = call.patiently(
            lambda: call.ecs.run_task(
                cluster=cluster,
                taskDefinition=definition["taskDefinitionArn"],
                count=1,
                startedBy="ecs-manager",
                clientToken=body.get("client_token") or call.id,
                **how,
            )
        )
        arns = [str(task["taskArn"]) for task in started["tasks"]]
    if not arns:
        raise ManagerError("TaskNotStarted", f"ECS did not start the task of {name}: {_failures(started)}.")
    task = _wait(call, cluster, arns[0])
    names = [name, str(definition.get("family", ""))]
    own = body["container_id"] if body.get("container_id") else task_definition.own_container(definition, names)
    code, counted = task_definition.verdict(task, definition, own)
    return {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "taskArn": task["taskArn"],
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "taskStatus": {
            "exitCode": code,
            "container": counted,
            "stopCode": task.get("stopCode", ""),
            "stoppedReason": task.get("stoppedReason", ""),
            "startedBy": task.get("startedBy", ""),
            "taskArn": task["taskArn"],
        },
    }


def _subject(call: Invocation, cluster: str, body: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """What is to run: its name, its task definition, and where."""
    if body.get("family") is None:
        (service,) = _services(call, cluster, [_text(body, "service_id")])
        return service["serviceName"], service["taskDefinition"], _placement(service)
    family = _text(body, "family")
    return family, str(body.get("task_definition") or family), _network(body)


def _network(body: Mapping[str, Any]) -> dict[str, Any]:
    """Where a task without a service runs: on Fargate, in the event's subnets."""
    addresses: dict[str, Any] = {
        "subnets": _texts(body, "subnets"),
        "assignPublicIp": "ENABLED" if body.get("assign_public_ip") is True else "DISABLED",
    }
    if body.get("security_groups"):
        addresses["securityGroups"] = _texts(body, "security_groups")
    where = {"launchType": "FARGATE", "networkConfiguration": {"awsvpcConfiguration": addresses}}
    return {**where, "platformVersion": _text(body, "platform")} if body.get("platform") else where


def _placement(service: Mapping[str, Any]) -> dict[str, Any]:
    """Where the service's own tasks run: launch type or capacity providers, network and platform version."""
    strategy = service.get("capacityProviderStrategy")
    where: dict[str, Any] = (
        {"capacityProviderStrategy": strategy} if strategy else {"launchType": service.get("launchType", "FARGATE")}
    )
    for key in ("networkConfiguration", "platformVersion"):
        if service.get(key):
            where[key] = service[key]
    return where


def _overrides(body: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """The command override for one container, empty if the event has none."""
    entrypoint = body.get("entrypoint")
    if not entrypoint:
        return {}
    (name,) = task_definition.known(definition["containerDefinitions"], [_text(body, "container_id")])
    return {"overrides": {"containerOverrides": [{"name": name, "command": _words(entrypoint)}]}}


def _words(entrypoint: Any) -> list[str]:
    """A command as a list of words. A string is split as a shell would split it."""
    try:
        words = shlex.split(entrypoint) if isinstance(entrypoint, str) else entrypoint
    except ValueError as error:
        raise BadRequest(f"the body's entrypoint cannot be split into words: {error}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadRequest("the body's entrypoint must be a text or a list of texts")
    return words


def _wait(call: Invocation, cluster: str, arn: str) -> dict[str, Any]:
    """Wait until a task has stopped, and return it.

    Raises ManagerError if ECS does not know the task, or if the function is about to time out. A failed request is
    repeated, because it says nothing about the task.
    """
    unknown, answer = 0, dict[str, Any]()
    while True:
        try:
            answer = call.ecs.describe_tasks(cluster=cluster, tasks=[arn])
            task: dict[str, Any] = next(iter(answer["tasks"]), {})
        except (BotoCoreError, ClientError, LookupError) as error:
            answer, task = {"failures": [{"reason": str(error)}]}, {}
        if task.get("lastStatus") == "STOPPED":
            return task
        unknown = 0 if task else unknown + 1
        if unknown > UNKNOWN_LOOKS:
            raise ManagerError("TaskLost", f"ECS does not know the task {arn}: {_failures(answer)}.")
        if call.remaining() < MARGIN_SECONDS + POLL_SECONDS:
            status = task.get("lastStatus", "not known yet")
            raise ManagerError(
                "TaskStillRunning",
                f"The task {arn} is {status}, and the time to wait for it is over: it may still finish.",
            )
        call.sleep(POLL_SECONDS)


def healthcheck(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a cluster's tasks and their containers, of one family or service where that is given.

    Tasks that have stopped are among them as long as ECS knows them, which is about an hour.
    """
    cluster = body.get("cluster") or _text(body, "cluster_id")
    wanted = {
        "family": body.get("family"),
        "serviceName": body.get("serviceName") or body.get("service_name"),
    }
    given = {key: value for key, value in wanted.items() if value}
    listing = call.ecs.get_paginator("list_tasks")
    # A task that stops between the two requests is in both answers.
    arns = list(
        dict.fromkeys(
            arn
            for status in ("RUNNING", "STOPPED")
            for page in listing.paginate(cluster=cluster, desiredStatus=status, **given)
            for arn in page["taskArns"]
        )
    )
    tasks = []
    for start in range(0, len(arns), 100):
        batch = arns[start : start + 100]
        tasks += call.patiently(lambda batch=batch: call.ecs.describe_tasks(cluster=cluster, tasks=batch))["tasks"]  # type: ignore[misc]
    return {"ResponseMetadata": {"HTTPStatusCode": 200}, "tasks": [_health(task) for task in tasks]}


OF_TASK = (
    *("taskArn", "taskDefinitionArn", "connectivity", "healthStatus", "desiredStatus", "lastStatus", "startedAt"),
    *("startedBy", "stopCode", "stoppedReason", "executionStoppedAt", "failures"),
)
OF_CONTAINER = ("containerArn", "name", "image", "lastStatus", "exitCode", "reason", "healthStatus")


def _health(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as the public manager shows it: every field, null where ECS has none; times in ISO 8601."""
    return {
        **{key: _plain(task.get(key)) for key in OF_TASK},
        "containers": [{key: _plain(c.get(key)) for key in OF_CONTAINER} for c in task.get("containers", [])],
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _services(call: Invocation, cluster: str, names: list[str]) -> list[dict[str, Any]]:
    """Active services by name or ARN, in that order and each once. Raises ManagerError if one is missing."""
    found: dict[str, dict[str, Any]] = {}
    # DescribeServices takes ten names at a time.
    for start in range(0, len(names), 10):
        batch = names[start : start + 10]
        answer = call.patiently(lambda batch=batch: call.ecs.describe_services(cluster=cluster, services=batch))  # type: ignore[misc]
        for service in answer["services"]:
            if service.get("status", "ACTIVE") == "ACTIVE":
                found |= {service["serviceName"]: service, service["serviceArn"]: service}
    missing = [name for name in names if name not in found]
    if missing:
        raise ManagerError(
            "ServiceNotFoundException",
            f"There is no active service {', '.join(missing)} in the cluster {cluster}.",
        )
    return list({found[name]["serviceArn"]: found[name] for name in names}.values())


def _failures(answer: Mapping[str, Any]) -> str:
    told = [f"{f.get('reason', '')} {f.get('detail', '')}".strip() for f in answer.get("failures", [])]
    return "; ".join(told) or "no reason given"


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"the body needs {key}, a non-empty string")
    return value


def _texts(body: Mapping[str, Any], key: str) -> list[str]:
    value = body.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise BadRequest(f"the body needs {key}, a non-empty list of non-empty strings")
    return value


COMMANDS = {"deploy": deploy, "runtask": runtask, "healthcheck": healthcheck}
