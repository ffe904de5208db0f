"""Reads a service from ECS: the service itself, its tasks, and ECS's record of one of its deployments.

What a role may not read is said once and left out. What cannot be read for a moment is raised, so that the caller reads
again: nothing is decided on half a look.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from scripts.ecs import images, reasons, rollout
from scripts.ecs.images import Image
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import Before, Container, Deployment, Event, Record, Service, Task
from scripts.edges import aws
from scripts.edges.aws import Denied
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock

T = TypeVar("T")

# Seconds before the deployment of a version that has no id may have started: one that is much older is another one.
LOOK_BACK = 3600.0
# How often a read is tried before a decision that depends on it, and the first pause; it doubles each time.
TRIES, PAUSE = 4, 0.5
MOST_TASKS = 100
# Pages of records that are read, newest first.
PAGES = 20
# How many times what may not be read is left out before it is tried again: a denial may be one for a moment.
SKIP = 10
TASKS, RECORDS = "its tasks", "ECS's records of its deployments"


def steadily(read: Callable[[], T], *, clock: Clock = CLOCK) -> T:
    """Read something, again after a failure that may pass. Raises the last failure; Refused at once.

    A right that is missing is asked for twice: it may be denied for a moment.
    """
    for attempt in range(1, TRIES):
        try:
            return read()
        except Refused:
            raise
        except DeployError as error:
            if isinstance(error, Denied) and attempt > 1:
                raise
            clock.sleep(PAUSE * 2 ** (attempt - 1))
    return read()


class Reader:
    """Reads one service. Keeps what never changes, and what may not be read."""

    def __init__(self, environment: Environment, service: str) -> None:
        self._environment, self._service = environment, service
        self._client = aws.client("ecs", environment)
        self._definitions: dict[str, Mapping[str, Any]] = {}
        self._revisions: dict[str, str] = {}
        # What was read before, and how often what may not be read is still to be left out.
        self._worked: set[str] = set()
        self._left_out: dict[str, int] = {}
        self._record = ""

    def look(self, before: Before | None = None) -> Service:
        """The service now, with ECS's record of the deployment that is followed, if any.

        Raises Refused if the service does not exist, DeployError if it cannot be read. One that was deleted since a
        deployment was started is INACTIVE.
        """
        with self._errors(f"reading the service {self._service} in {self._environment.cluster}"):
            answer = self._client.describe_services(cluster=self._environment.cluster, services=[self._service])
            found = next((s for s in answer.get("services", []) if s.get("status") != "INACTIVE"), None)
            if not (answer.get("services") or answer.get("failures")):
                # ECS says of a service that is gone that it is INACTIVE or MISSING.
                raise DeployError(f"ECS's answer says nothing of the service {self._service}.")
            if found is None and before and before.started:
                return Service(self._service, (), (), breaker=False, status="INACTIVE")
            if found is None:
                raise Refused(f"There is no service {self._service} in the cluster {self._environment.cluster}.")
            now = self._service_of(found)
        if before is None:
            return now
        return replace(now, record=self._may(RECORDS, lambda: self._read_record(before, now), None))

    def _service_of(self, found: Mapping[str, Any]) -> Service:
        events = [Event(str(e.get("message", "")), _time(e), str(e.get("id", ""))) for e in found.get("events", [])]
        configuration = found.get("deploymentConfiguration", {})
        breaker = configuration.get("deploymentCircuitBreaker", {})
        enabled = bool(breaker.get("enable", False))
        return Service(
            name=self._service,
            deployments=tuple(self._deployment(item) for item in found.get("deployments", [])),
            events=tuple(sorted(events, key=lambda event: event.created, reverse=True)),
            breaker=enabled,
            takes_back=enabled and bool(breaker.get("rollback", False)),
            status=found.get("status", "ACTIVE"),
            controller=found.get("deploymentController", {}).get("type", "ECS"),
            strategy=configuration.get("strategy", "ROLLING"),
            bake=_minutes(configuration),
        )

    def _deployment(self, item: Mapping[str, Any]) -> Deployment:
        definition = self.definition(item["taskDefinition"])
        return Deployment(
            id=item["id"],
            status=item["status"],
            task_definition=definition.get("taskDefinitionArn", item["taskDefinition"]),
            images=_images(definition),
            state=item.get("rolloutState", ""),
            reason=item.get("rolloutStateReason", ""),
            created=_time(item),
            desired=item.get("desiredCount", 0),
            running=item.get("runningCount", 0),
            failed=item.get("failedTasks", 0),
            pending=item.get("pendingCount", 0),
        )

    def definition(self, arn: str) -> Mapping[str, Any]:
        """A task definition; empty if it may not be read."""
        if arn not in self._definitions:
            read = self._client.describe_task_definition
            found = self._may("its task definition", lambda: read(taskDefinition=arn)["taskDefinition"], None)
            if found is None:
                return {}
            self._definitions[arn] = found
        return self._definitions[arn]

    def explain(self, before: Before, now: Service) -> Reasons:
        """Why the deployment did not succeed, with the last log lines of a task that died."""
        ours = rollout.find(before, now)
        definition = ours.task_definition if ours else now.record.task_definition if now.record else ""
        try:
            found = self.definition(definition) if definition else {}
        except DeployError:
            found = {}
        return reasons.collect(self._environment, before, now, found)

    def variants(self, repository: str, digest: str) -> frozenset[str]:
        """The digests of the images in an index of several platforms; none if it is not one, or cannot be read."""
        registry = self._environment.registry.known()
        try:
            found = images.manifest(self._environment, Image(registry, repository, digest=digest))
        except DeployError:
            return frozenset()
        return frozenset(entry.digest for entry in found.manifests)

    # Tasks

    def running(self) -> tuple[Task, ...] | None:
        """The tasks of the service that run now; None if they may not be read."""
        found = self._may(TASKS, lambda: self._read_tasks("RUNNING"), None)
        return None if found is None else tuple(task for task in found if task.status == "RUNNING")

    def stopped(self) -> tuple[Task, ...]:
        """The tasks of the service that have stopped within the last hour or so; none if they may not be read."""
        return self._may(TASKS, lambda: self._read_tasks("STOPPED"), ())

    def _read_tasks(self, status: str) -> tuple[Task, ...]:
        cluster = self._environment.cluster
        asked = {"cluster": cluster, "serviceName": self._service, "desiredStatus": status}
        arns = [arn for page in aws.pages(self._client, "list_tasks", **asked) for arn in page["taskArns"]]
        found: list[Task] = []
        for start in range(0, len(arns), MOST_TASKS):
            answer = self._client.describe_tasks(cluster=cluster, tasks=arns[start : start + MOST_TASKS])
            found += [_task(item) for item in answer["tasks"]]
        return tuple(found)

    # ECS's records of deployments

    def stop(self) -> None:
        """Have ECS stop the deployment that is followed, and roll back. Raises DeployError."""
        if not self._record:
            raise DeployError(
                f"ECS's record of the deployment of {self._service} cannot be read, so it is not stopped."
            )
        with self._errors(f"stopping the deployment of {self._service}", starts_something=True):
            self._client.stop_service_deployment(serviceDeploymentArn=self._record, stopType="ROLLBACK")

    def succeeded(self, since: float) -> tuple[tuple[float, tuple[str, ...]], ...]:
        """When deployments that ECS calls successful began, and their images, newest first; empty without the right.

        since: Unix time. ECS keeps its records for 90 days.
        """

        def read() -> tuple[tuple[float, tuple[str, ...]], ...]:
            briefs = [b for b in self._briefs(datetime.fromtimestamp(since, UTC)) if b.get("status") == "SUCCESSFUL"]
            definitions = self._task_definitions(map(_revision, briefs))
            of = [(_time(brief), definitions.get(_revision(brief), "")) for brief in briefs]
            newest_first = sorted(((at, arn) for at, arn in of if arn), reverse=True)
            return tuple((at, _images(self.definition(arn))) for at, arn in newest_first)

        return self._may(RECORDS, read, ())

    def _read_record(self, before: Before, now: Service) -> Record | None:
        self._record = self._record or self._find_record(before, now)
        if not self._record:
            return None
        answer = self._client.describe_service_deployments(serviceDeploymentArns=[self._record])
        found = next(iter(answer["serviceDeployments"]), None)
        if found is None:
            return None
        target = found.get("targetServiceRevision", {}).get("arn", "")
        return record(found, self._task_definitions([target]).get(target, ""))

    def _find_record(self, before: Before, now: Service) -> str:
        """The ARN of the record of the deployment, empty if there is none yet."""
        ours = rollout.find(before, now)
        since = rollout.start(before, now, ours)
        newest = max((d.created for d in now.deployments), default=datetime.now(UTC).timestamp())
        after = (since or newest - LOOK_BACK) - rollout.TOGETHER
        briefs = self._briefs(datetime.fromtimestamp(max(0.0, after), UTC))
        number = (ours.id if ours else before.id).rpartition("/")[2]
        for brief in briefs:
            if number and _revision(brief).rpartition("/")[2] == number:
                return str(brief["serviceDeploymentArn"])
        return self._by_definition(before, ours, briefs)

    def _briefs(self, after: datetime) -> list[Mapping[str, Any]]:
        """ECS's records of the service's deployments since a time, in short."""
        asked = {"cluster": self._environment.cluster, "service": self._service, "createdAt": {"after": after}}
        found: list[Mapping[str, Any]] = []
        page = self._client.list_service_deployments(**asked)
        for _ in range(PAGES):
            found += page["serviceDeployments"]
            if not page.get("nextToken"):
                break
            page = self._client.list_service_deployments(**asked, nextToken=page["nextToken"])
        return found

    def _by_definition(self, before: Before, ours: Deployment | None, briefs: Sequence[Mapping[str, Any]]) -> str:
        """The record with the task definition of ours that began with it, else the newest one with its image."""
        wanted = ours.task_definition if ours else before.task_definition
        definitions = self._task_definitions(map(_revision, briefs))
        of = {brief["serviceDeploymentArn"]: definitions.get(_revision(brief), "") for brief in briefs}
        known = before.service.deployments if before.service and not ours else ()
        # What was there before, of the same task definition, is not ours, which ECS does not show yet.
        since = max((d.created + rollout.TOGETHER for d in known), default=0.0)
        oldest_first = sorted((brief for brief in briefs if _time(brief) >= since), key=_time)
        if wanted:
            exact = [b for b in oldest_first if of[b["serviceDeploymentArn"]] == wanted]
            if ours:
                # The same task definition may have been deployed a moment before, or since.
                exact.sort(key=lambda brief: abs(_time(brief) - ours.created))
            return str(exact[0]["serviceDeploymentArn"]) if exact else ""
        if before.id:
            return ""
        ours_too = [
            brief
            for brief in oldest_first
            if (arn := of[brief["serviceDeploymentArn"]]) and before.is_run_by(_images(self.definition(arn)))
        ]
        return str(ours_too[-1]["serviceDeploymentArn"]) if ours_too else ""

    def _task_definitions(self, revisions: Iterable[str]) -> dict[str, str]:
        """The task definitions of service revisions, by their ARNs."""
        unknown = [arn for arn in dict.fromkeys(revisions) if arn and arn not in self._revisions]
        for begin in range(0, len(unknown), 20):
            answer = self._client.describe_service_revisions(serviceRevisionArns=unknown[begin : begin + 20])
            for item in answer["serviceRevisions"]:
                self._revisions[item["serviceRevisionArn"]] = item.get("taskDefinition", "")
        return self._revisions

    # Errors

    def _errors(self, doing: str, *, starts_something: bool = False) -> Any:
        return aws.errors(doing, self._environment, starts_something=starts_something)

    def _may(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Read something that a role may lack the right for: then it is said once, and the rest goes on without it.

        What could be read before is not left out when it is denied for a moment.
        """
        if self._left_out.get(what, 0) > 0:
            self._left_out[what] -= 1
            return otherwise
        try:
            with self._errors(f"reading {what}"):
                found = read()
        except DeployError as error:
            if not isinstance(error, Denied) or what in self._worked:
                raise
            if what not in self._left_out:
                console.say(f"{self._service} is judged without {what}: {error}")
            self._left_out[what] = SKIP
            return otherwise
        if found:
            # To find nothing may take fewer rights: without a task there is none to describe.
            self._worked.add(what)
        return found


def record(found: Mapping[str, Any], task_definition: str) -> Record:
    """ECS's record of a deployment, from its own words."""
    breaker, target = found.get("deploymentCircuitBreaker", {}), found.get("targetServiceRevision", {})
    waiting_for = [
        hook
        for hook in found.get("lifecycleHookDetails", [])
        if hook.get("status") in ("AWAITING_ACTION", "IN_PROGRESS")
    ]
    hook = waiting_for[0] if waiting_for else {}
    return Record(
        arn=found["serviceDeploymentArn"],
        status=found["status"],
        task_definition=task_definition,
        reason=found.get("statusReason", ""),
        rollback_reason=found.get("rollback", {}).get("reason", ""),
        stage=found.get("lifecycleStage", ""),
        traffic=target.get("requestedProductionTrafficWeight"),
        hook=str(hook.get("targetArn") or hook.get("hookId") or hook.get("targetType", "")),
        failures=breaker.get("failureCount", 0),
        threshold=breaker.get("threshold", 0),
        alarms=tuple(found.get("alarms", {}).get("triggeredAlarmNames", [])),
        created=_time(found),
    )


def _task(item: Mapping[str, Any]) -> Task:
    containers = tuple(
        Container(
            name=c.get("name", ""),
            image=c.get("image", ""),
            digest=c.get("imageDigest", ""),
            exit_code=c.get("exitCode"),
            reason=c.get("reason", ""),
        )
        for c in item.get("containers", [])
    )
    return Task(
        id=str(item["taskArn"]).rpartition("/")[2],
        task_definition=item.get("taskDefinitionArn", ""),
        deployment=item.get("startedBy", ""),
        status=item.get("lastStatus", ""),
        stop_code=item.get("stopCode", ""),
        reason=item.get("stoppedReason", ""),
        containers=containers,
        stopped=_time(item, "stoppedAt"),
    )


def _revision(brief: Mapping[str, Any]) -> str:
    """The ARN of the service revision that a deployment is to reach."""
    found: str = brief.get("targetServiceRevisionArn", "")
    return found


def _images(definition: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(container.get("image", "") for container in definition.get("containerDefinitions", []))


def _minutes(configuration: Mapping[str, Any]) -> float:
    """How long a gradual strategy keeps both revisions, in minutes: the bakes of its steps and the last one."""
    linear, canary = configuration.get("linearConfiguration", {}), configuration.get("canaryConfiguration", {})
    steps = 100 / max(1.0, linear.get("stepPercent") or 100.0)
    between = steps * (linear.get("stepBakeTimeInMinutes") or 0) + (canary.get("canaryBakeTimeInMinutes") or 0)
    return float((configuration.get("bakeTimeInMinutes") or 0) + between)


def _time(item: Mapping[str, Any], key: str = "createdAt") -> float:
    found = item.get(key)
    return float(found.timestamp()) if found else 0.0
