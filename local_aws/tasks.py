"""Tasks of the embedded ECS: those that RunTask started and those of deployments, why they stop, what they print."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from local_aws.cloud import ACCOUNT

if TYPE_CHECKING:
    from local_aws.deployments import Deployment, Service

# Seconds: how long a task that is run once takes, and until its containers run; how long ECS shows a stopped one.
RUN, PULL, KEEP_STOPPED = 1.0, 0.3, 3600.0


@dataclass(frozen=True)
class Stop:
    """Why a task stops. code, reason: its stopCode and stoppedReason. container: the one to blame, empty for its own.

    exit_code: of that container, None if it never ran. detail: the container's own reason. prints: its last lines.
    event: what the service says of it, if anything.
    """

    code: str
    reason: str
    exit_code: int | None = None
    container: str = ""
    detail: str = ""
    prints: tuple[str, ...] = ()
    event: str = ""

    @property
    def before_start(self) -> bool:
        """Whether no container ever ran."""
        return self.code == "TaskFailedToStart"


EXITED = Stop("EssentialContainerExited", "Essential container in task exited", 0)
_PANIC = ("starting", "panic: runtime error: invalid memory address or nil pointer dereference", "exit status 2")
_HEALTH = "ServiceSchedulerInitiated"
_TARGET_GROUP = f"arn:aws:elasticloadbalancing:us-west-2:{ACCOUNT}:targetgroup/app/0123456789abcdef"
# What FAULT in a container's environment, or a scenario, may name. {image} is the container's, {secret} its first.
FAULTS = {
    "crash": replace(EXITED, exit_code=1, prints=_PANIC),
    "killed": replace(
        EXITED, exit_code=137, detail="OutOfMemoryError: Container killed due to memory usage", prints=("loading",)
    ),
    "segfault": replace(EXITED, exit_code=139, prints=("starting",)),
    "pull": Stop(
        "TaskFailedToStart",
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}:"
        " {image}: not found",
    ),
    "secrets": Stop(
        "TaskFailedToStart",
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed:"
        " unable to retrieve secrets from ssm: service call has been retried 1 time(s): invalid parameters: {secret}",
    ),
    "unhealthy": Stop(
        _HEALTH, "Task failed container health checks", 137, event="(task {task}) failed container health checks."
    ),
    "unreachable": Stop(
        _HEALTH,
        f"Task failed ELB health checks in (target-group {_TARGET_GROUP})",
        143,
        event=f"(task {{task}}) (port 8080) is unhealthy in (target-group {_TARGET_GROUP}) due to (reason Request"
        " timed out)",
    ),
}


def stop_of(container: Mapping[str, Any], name: str) -> Stop:
    """The fault of FAULTS as it happens to a container."""
    secrets = [secret["valueFrom"] for secret in container.get("secrets", [])]
    fault = FAULTS[name]
    reason = fault.reason.format(image=container["image"], secret=(secrets or ["none"])[0])
    detail = reason if fault.before_start else fault.detail
    code = int(variables(container).get("EXIT_CODE", fault.exit_code or 0)) if name == "crash" else fault.exit_code
    return replace(fault, reason=reason, detail=detail, container=container["name"], exit_code=code)


@dataclass
class Task:
    """A task. starts: when its containers run. stops: when they have stopped, None if they go on; stop: why they do."""

    arn: str
    cluster: str
    definition: dict[str, Any]
    created: float
    started_by: str
    group: str
    starts: float | None
    stops: float | None = None
    stop: Stop = EXITED
    overrides: dict[str, Any] = field(default_factory=dict)
    token: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return last(self.arn)

    def status(self, now: float) -> str:
        """PENDING, RUNNING or STOPPED."""
        if self.stops is not None and now >= self.stops:
            return "STOPPED"
        return "RUNNING" if self.starts is not None and now >= self.starts else "PENDING"


def id_of(deployment: str, nth: int) -> str:
    """The id of a deployment's nth task, from 0."""
    return hashlib.sha256(f"{deployment} {nth}".encode()).hexdigest()[:32]


def of_deployment(service: "Service", d: "Deployment", retry: float) -> Iterator[Task]:
    """The tasks of a deployment: those that failed, one every `retry` seconds, and the others.

    The first of the others is the one that comes after those that failed.
    """

    def task(nth: int, created: float, starts: float | None) -> Task:
        arn = f"arn:aws:ecs:{service.region}:{ACCOUNT}:task/{service.cluster}/{id_of(d.id, nth)}"
        group = f"service:{service.name}"
        return Task(arn, service.cluster, d.definition, created, d.id, group, starts, digests=d.digests)

    for nth in range(d.failed):
        born, stop = d.created + nth * retry, d.stop or EXITED
        ran = None if stop.before_start else born + retry / 2
        yield replace(task(nth, born, ran), stops=born + retry, stop=stop)
    for nth in range(d.failed, d.failed + d.running + d.pending):
        runs = nth < d.failed + d.running
        yield task(nth, d.created + d.failed * retry, (d.started or d.created) if runs else None)
    scaled_in = Stop("ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {d.by})", 143)
    for nth in range(d.failed, d.failed + d.retired):
        yield replace(task(nth, d.created, d.started or None), stops=d.ended, stop=scaled_in)


def shown(task: Task, now: float, digest: Callable[[str], str]) -> dict[str, Any]:
    """A task as DescribeTasks shows it. digest: of an image that was pulled."""
    status = task.status(now)
    told: dict[str, Any] = {
        "taskArn": task.arn,
        "clusterArn": f"arn:aws:ecs:{task.arn.split(':')[3]}:{ACCOUNT}:cluster/{task.cluster}",
        "taskDefinitionArn": task.definition["taskDefinitionArn"],
        "lastStatus": status,
        "desiredStatus": "STOPPED" if status == "STOPPED" else "RUNNING",
        "startedBy": task.started_by,
        "group": task.group,
        "launchType": "FARGATE",
        "overrides": task.overrides,
        "createdAt": task.created,
        "healthStatus": "UNKNOWN",
        "version": {"PENDING": 1, "RUNNING": 2, "STOPPED": 3}[status],
        "containers": [_container(task, c, status, digest) for c in task.definition["containerDefinitions"]],
    }
    has_run = task.starts is not None and status != "PENDING"
    if has_run:
        told |= {"pullStartedAt": task.created, "pullStoppedAt": task.starts, "startedAt": task.starts}
    if status == "STOPPED":
        stop = task.stop
        told |= {"stoppedReason": stop.reason, "stopCode": stop.code}
        told |= {"stoppingAt": task.stops, "executionStoppedAt": task.stops, "stoppedAt": task.stops}
    return told


def _container(task: Task, container: Mapping[str, Any], status: str, digest: Callable[[str], str]) -> dict[str, Any]:
    name, image, stop = container["name"], container["image"], task.stop
    arn = f"{task.arn.replace(':task/', ':container/')}/{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    told = {"containerArn": arn, "taskArn": task.arn, "name": name, "image": image, "lastStatus": status}
    told |= {"healthStatus": "UNKNOWN", "networkBindings": [], "networkInterfaces": []}
    has_run = task.starts is not None and status != "PENDING"
    if has_run:
        told["imageDigest"] = task.digests.get(image) or digest(image)
        told["runtimeId"] = f"{task.id}-{container['name']}"
    if status != "STOPPED":
        return told
    if stop.detail and stop.container in ("", name):
        told["reason"] = stop.detail
    if has_run:
        told["exitCode"] = _exit_code(task, container)
    return told


def _exit_code(task: Task, container: Mapping[str, Any]) -> int:
    """What a container ended with: what its variables ask for, or what the task's stop says."""
    stop, given = task.stop, variables(container)
    for override in task.overrides.get("containerOverrides", []):
        if override.get("name") == container["name"]:
            given |= variables(override)
    if stop.container == container["name"]:
        return stop.exit_code or 0
    if stop is EXITED:
        return int(given.get("EXIT_CODE", 1 if given.get("CRASH") else 0))
    # The others are asked to stop.
    return int(given.get("EXIT_CODE", 143))


def prints(task: Task, now: float) -> Iterator[tuple[str, str, str, float, str]]:
    """What a task has printed so far: group, stream, region, Unix time and line, as its log configuration says."""
    if task.starts is None or now < task.starts:
        return
    for container in task.definition["containerDefinitions"]:
        options = container.get("logConfiguration", {}).get("options", {})
        if not options.get("awslogs-group"):
            continue
        # What is run once prints what it did when it is done.
        at = task.starts if task.group.startswith("service:") or task.stops is None else task.stops
        lines = [text for text in variables(container).get("LOG", "").split("|") if text]
        if task.stop.container == container["name"]:
            lines = list(task.stop.prints) or lines
        stream = f"{options.get('awslogs-stream-prefix', 'ecs')}/{container['name']}/{task.id}"
        region = options.get("awslogs-region", task.arn.split(":")[3])
        if now >= at:
            yield from ((options["awslogs-group"], stream, region, at, line) for line in lines)


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a container, or of an override of it."""
    return {item["name"]: item["value"] for item in container.get("environment", [])}


def last(arn: str) -> str:
    """The name at the end of an ARN; a name is its own."""
    return arn.rpartition("/")[2]
