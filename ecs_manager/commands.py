"""What the manager can do. Each command takes the clients and the event's body and returns the reply's fields."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_manager import parameters, task_definition
from ecs_manager.errors import OUTCOME_UNKNOWN, BadRequest, ManagerError, begins

POLL_SECONDS = 1.0
# What is left of the function's own time for the answer, once it stops waiting for a task.
MARGIN_SECONDS = 5.0
# ECS answers from copies that lag behind: a task that was just started may not be known yet.
UNKNOWN_LOOKS = 10
REGISTER_TRIES = 5


@dataclass(frozen=True)
class Invocation:
    """What a command may use: clients, an id that is the same when Lambda repeats a call, and time."""

    ecs: Any
    ssm: Any
    id: str
    remaining: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep


def deploy(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """Give services an image and secrets, and start their rollout. Everything is checked before any change."""
    cluster, names = _text(body, "cluster_id"), _texts(body, "service_ids")
    image = _text(body, "image") if body.get("image") is not None else None
    # An empty list is no way to ask for a service without secrets: it would be an outage by mistake.
    expressions = _texts(body, "secrets") if body.get("secrets") is not None else None
    services = _services(call.ecs, cluster, names)
    secrets = parameters.secrets(call.ssm, expressions) if expressions is not None else None
    planned = []
    for service in services:
        current = call.ecs.describe_task_definition(taskDefinition=service["taskDefinition"], include=["TAGS"])
        old = task_definition.registrable(current["taskDefinition"], current.get("tags", []))
        new = task_definition.changed(old, image, secrets)
        planned.append((service, current["taskDefinition"]["taskDefinitionArn"], None if new == old else new))
    return _roll_out(call, cluster, planned)


def _roll_out(
    call: Invocation, cluster: str, planned: Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any] | None]]
) -> dict[str, Any]:
    ecs = call.ecs
    updated: list[str] = []
    deployments: dict[str, str] = {}
    arn = ""
    for service, current, new in planned:
        name = service["serviceName"]
        try:
            arn = _register(call, new) if new else current
            with begins(f"a deployment of {name}"):
                answer = ecs.update_service(cluster=cluster, service=name, taskDefinition=arn, forceNewDeployment=True)
                deployments[name] = _primary(answer["service"])
        except Exception as error:
            if not updated:
                raise
            done = ", ".join(updated)
            title = OUTCOME_UNKNOWN if isinstance(error, ManagerError) else "PartlyUpdated"
            raise ManagerError(title, f"{service['serviceName']}: {error} Already rolling out: {done}.") from error
        updated.append(service["serviceArn"])
    return {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "UpdatedServiceArns": updated,
        "NewTaskdefArn": arn,
        "DeploymentIds": deployments,
    }


def _primary(service: Mapping[str, Any]) -> str:
    """The id of the deployment that ECS works towards, empty where a service has none of its own."""
    return next((str(d["id"]) for d in service.get("deployments", []) if d.get("status") == "PRIMARY"), "")


def _register(call: Invocation, definition: Mapping[str, Any]) -> str:
    """Register a revision and return its ARN. A family takes one at a time: that refusal did nothing, and passes."""
    for attempt in range(1, REGISTER_TRIES + 1):
        try:
            registered = call.ecs.register_task_definition(**definition)
            return str(registered["taskDefinition"]["taskDefinitionArn"])
        except ClientError as error:
            if "Too many concurrent attempts" not in str(error) or attempt == REGISTER_TRIES:
                raise
            call.sleep(POLL_SECONDS * attempt)
    raise AssertionError("the last try returns or raises")


def runtask(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """Run a service's task definition once, in the service's own network, and wait until it has stopped."""
    cluster, name = _text(body, "cluster_id"), _text(body, "service_id")
    (service,) = _services(call.ecs, cluster, [name])
    definition = call.ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    how = {**_placement(service), **_overrides(body, definition)}
    with begins(f"a task of {name}"):
        started = call.ecs.run_task(
            cluster=cluster,
            taskDefinition=definition["taskDefinitionArn"],
            count=1,
            startedBy="ecs-manager",
            clientToken=call.id,
            **how,
        )
        arns = [str(task["taskArn"]) for task in started["tasks"]]
    if not arns:
        raise ManagerError("TaskNotStarted", f"ECS did not start the task of {name}: {_failures(started)}.")
    task = _wait(call, cluster, arns[0])
    judged = task_definition.essential(definition)
    if body.get("entrypoint"):
        # The container that was given a command counts, essential or not, and first.
        judged = list(dict.fromkeys([body["container_id"], *judged]))
    code = task_definition.verdict(task, judged)
    return {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "taskArn": task["taskArn"],
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "taskStatus": {
            "exitCode": code,
            "stopCode": task.get("stopCode", ""),
            "stoppedReason": task.get("stoppedReason", ""),
            "startedBy": task.get("startedBy", ""),
            "taskArn": task["taskArn"],
        },
    }


def _placement(service: Mapping[str, Any]) -> dict[str, Any]:
    """Where the service's own tasks run: Fargate or its capacity providers, and its network."""
    strategy = service.get("capacityProviderStrategy")
    where: dict[str, Any] = (
        {"capacityProviderStrategy": strategy} if strategy else {"launchType": service.get("launchType", "FARGATE")}
    )
    for key in ("networkConfiguration", "platformVersion"):
        if service.get(key):
            where[key] = service[key]
    return where


def _overrides(body: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Another command for one container of this one task, where the event asks for it."""
    entrypoint = body.get("entrypoint")
    if not entrypoint:
        return {}
    name = _text(body, "container_id")
    names = [c["name"] for c in definition["containerDefinitions"]]
    if name not in names:
        raise ManagerError("UnknownContainer", f"There is no container {name}: use one of {', '.join(names)}.")
    return {"overrides": {"containerOverrides": [{"name": name, "command": _words(entrypoint)}]}}


def _words(entrypoint: Any) -> list[str]:
    """A command as ECS takes it: a list of words, or one text that is taken apart as a shell would."""
    try:
        words = shlex.split(entrypoint) if isinstance(entrypoint, str) else entrypoint
    except ValueError as error:
        raise BadRequest(f"the body's entrypoint cannot be split into words: {error}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadRequest("the body's entrypoint must be a text or a list of texts")
    return words


def _wait(call: Invocation, cluster: str, arn: str) -> dict[str, Any]:
    """The task once it has stopped. Raises ManagerError where the function's own time ends before.

    The task runs, whatever ECS answers: a look that fails is no end of it, and is repeated.
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
                f"The task {arn} is {status}, and this function is about to time out: the task may still finish.",
            )
        call.sleep(POLL_SECONDS)


def healthcheck(call: Invocation, body: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a cluster's tasks and their containers, of one family or service where that is given."""
    cluster = body.get("cluster") or _text(body, "cluster_id")
    wanted = {
        "family": body.get("family"),
        "serviceName": body.get("serviceName") or body.get("service_name"),
    }
    pages = call.ecs.get_paginator("list_tasks").paginate(
        cluster=cluster, **{key: value for key, value in wanted.items() if value}
    )
    arns = [arn for page in pages for arn in page["taskArns"]]
    tasks = []
    for start in range(0, len(arns), 100):
        tasks += call.ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]
    return {"ResponseMetadata": {"HTTPStatusCode": 200}, "tasks": [_health(task) for task in tasks]}


def _health(task: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("taskArn", "taskDefinitionArn", "lastStatus", "desiredStatus", "healthStatus")
    of_container = ("name", "image", "lastStatus", "healthStatus", "exitCode", "reason")
    return {
        **{key: task[key] for key in keys if key in task},
        "containers": [{key: c[key] for key in of_container if key in c} for c in task.get("containers", [])],
    }


def _services(ecs: Any, cluster: str, names: list[str]) -> list[dict[str, Any]]:
    """Active services by their names, in that order and each once. Raises ManagerError if one is missing."""
    found: dict[str, dict[str, Any]] = {}
    # DescribeServices takes ten names at a time.
    for start in range(0, len(names), 10):
        answer = ecs.describe_services(cluster=cluster, services=names[start : start + 10])
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
