"""Judges how one deployment of an ECS service went, from plain data: what was known before, and what ECS shows now.

"The service is stable" is also true after a rollback. So one deployment is followed: by its id, else by its task
definition, else by the image that it runs. ECS's own record of it (a service deployment) decides if it can be read;
otherwise ids, states and times count more than the text of messages. An event counts only if it is newer than that.
"""

import enum
import re
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from scripts.ecs import images

# ECS's wording in reasons and in events: "rolling back to deployment …", "rolled back", "rollback".
ROLLBACK = re.compile(r"\broll(ed|ing)?[ -]?back\b", re.IGNORECASE)
TROUBLE = re.compile(r"\bfail|\bunable\b|\bunhealthy\b|\berror|roll(ed|ing)?[ -]?back|\balarm", re.IGNORECASE)
DEPLOYMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]{0,127}")
# What differs between two deaths for the same reason: ids, addresses, times.
VARIES = re.compile(r"\b[0-9a-f]{8,}\b|\b\d+(\.\d+)*\b|arn:\S+|\S+/\S+")

# Tasks that died for the same reason, after which a rollout is given up.
SAME_DEATHS = 2
# ECS's circuit breaker gives up after 3 to 200 failures, at half the desired count: where it takes the deployment back
# by itself, it gets twice as many. The same limit holds where only the number of failed tasks is known.
FEWEST_FAILURES, FAILURES_PER_TASK = 10, 2
# Seconds between the event of a rollback and the deployment that it starts, at most.
TOGETHER = 5.0
# The exit code of a container that was told to stop.
SIGTERM = 143
GRADUAL = {"BLUE_GREEN", "LINEAR", "CANARY"}


class Verdict(enum.Enum):
    """How a deployment went, or that it has not ended."""

    NOT_STARTED = "has not started"
    IN_PROGRESS = "in progress"
    BAKING = "baking"
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    STOPPED = "stopped by somebody"
    NOTHING = "nothing to verify"

    @property
    def says(self) -> str:
        """The verdict as the end of a sentence about a service."""
        return SAYS.get(self, self.value)

    @property
    def ended(self) -> bool:
        """Whether no later look can change it."""
        return self not in UNDER_WAY

    @property
    def lost(self) -> bool:
        """Whether the deployment ended without success."""
        return self in LOST


SAYS = {
    Verdict.IN_PROGRESS: "is rolling out",
    Verdict.BAKING: "is baking",
    Verdict.SUCCEEDED: "is complete",
    Verdict.ROLLING_BACK: "is rolling back",
    Verdict.ROLLED_BACK: "was rolled back",
    Verdict.SUPERSEDED: "was superseded by another deployment",
    Verdict.STOPPED: "was stopped by somebody",
    Verdict.NOTHING: "is deployed; no task is desired, so there is nothing to verify",
}
UNDER_WAY = {Verdict.NOT_STARTED, Verdict.IN_PROGRESS, Verdict.BAKING, Verdict.ROLLING_BACK}
LOST = {Verdict.ROLLED_BACK, Verdict.FAILED, Verdict.SUPERSEDED, Verdict.STOPPED}

# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceDeployment.html
RECORDED = {
    "SUCCESSFUL": Verdict.SUCCEEDED,
    "ROLLBACK_REQUESTED": Verdict.ROLLING_BACK,
    "ROLLBACK_IN_PROGRESS": Verdict.ROLLING_BACK,
    "ROLLBACK_SUCCESSFUL": Verdict.ROLLED_BACK,
    "ROLLBACK_FAILED": Verdict.FAILED,
    "STOPPED": Verdict.STOPPED,
}
# Stages in which all production traffic goes to the new revision.
SHIFTED = {"POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP"}


class Deployment(Struct, frozen=True):
    """One deployment of a service. status: PRIMARY or ACTIVE (draining). images: of its containers.

    state: ECS's rolloutState, empty if there is none. created: Unix time in seconds, by ECS's clock.
    """

    id: str
    status: str
    task_definition: str
    images: tuple[str, ...]
    state: str
    reason: str
    created: float
    desired: int
    running: int
    failed: int
    pending: int = 0

    @property
    def is_rollback(self) -> bool:
        """Whether ECS started this deployment to roll another one back."""
        return bool(ROLLBACK.search(self.reason))


class Event(Struct, frozen=True):
    """One event of a service. created: Unix time in seconds, by ECS's clock."""

    message: str
    created: float
    id: str = ""


class Record(Struct, frozen=True):
    """ECS's record of the deployment that is followed: a service deployment.

    status, stage: ECS's own words. traffic: percent of the production traffic on the new revision, None if ECS does not
    say. hook: the lifecycle hook that it waits for, empty if none. failures, threshold: of the circuit breaker.
    alarms: those that were triggered. created: Unix time, by ECS's clock.
    """

    arn: str
    status: str
    task_definition: str = ""
    reason: str = ""
    rollback_reason: str = ""
    stage: str = ""
    traffic: float | None = None
    hook: str = ""
    failures: int = 0
    threshold: int = 0
    alarms: tuple[str, ...] = ()
    created: float = 0.0


class Container(Struct, frozen=True):
    """A container of a task. exit_code: None if it has none: it runs, or never started."""

    name: str
    image: str = ""
    digest: str = ""
    exit_code: int | None = None
    reason: str = ""


class Task(Struct, frozen=True):
    """A task of a service. deployment: the id of the deployment that started it. stopped: Unix time, 0 if it runs."""

    id: str
    task_definition: str
    deployment: str
    status: str
    stop_code: str = ""
    reason: str = ""
    containers: tuple[Container, ...] = ()
    stopped: float = 0.0

    @property
    def died(self) -> bool:
        """Whether it stopped on its own or for its health, and not because of scaling or a deployment."""
        return self.stop_code in ("TaskFailedToStart", "EssentialContainerExited") or bool(
            self.stop_code == "ServiceSchedulerInitiated" and re.search(r"\bfail|unhealthy", self.reason, re.IGNORECASE)
        )

    @property
    def ended(self) -> tuple[Container, ...]:
        """Its containers that ended badly or never started, without those that were only told to stop (143) then."""
        bad = tuple(c for c in self.containers if c.exit_code or (c.reason and c.exit_code is None))
        return tuple(c for c in bad if c.exit_code != SIGTERM) or bad

    @property
    def death(self) -> tuple[object, ...]:
        """Why it died, the same for all tasks that died for the same reason."""
        ends = tuple((c.name, c.exit_code, VARIES.sub("…", c.reason)) for c in self.ended)
        return self.stop_code, VARIES.sub("…", self.reason), ends


class Service(Struct, frozen=True):
    """A service as ECS describes it. events: newest first.

    breaker: whether the circuit breaker is enabled; takes_back: whether it also rolls back. controller: ECS,
    CODE_DEPLOY or EXTERNAL. status: ACTIVE, or DRAINING while it is being deleted. bake: minutes that the strategy
    waits with both revisions in place. record: ECS's record of the deployment that is followed, None if there is none
    or it cannot be read. stopped: tasks that have stopped, as far as they were read.
    """

    name: str
    deployments: tuple[Deployment, ...]
    events: tuple[Event, ...]
    breaker: bool
    takes_back: bool = False
    status: str = "ACTIVE"
    controller: str = "ECS"
    strategy: str = "ROLLING"
    bake: float = 0.0
    record: Record | None = None
    stopped: tuple[Task, ...] = ()

    @property
    def primary(self) -> Deployment | None:
        """The PRIMARY deployment, which ECS is rolling out or has rolled out."""
        return next((d for d in self.deployments if d.status == "PRIMARY"), None)


class Before(Struct, frozen=True):
    """What is known of the deployment to judge before ECS is looked at.

    repository: of the service's image; containers with other images are sidecars and are ignored. id,
    task_definition: of the deployment, empty if not known; then it is recognized by the tag (version) or digest of its
    image. since: Unix time by ECS's clock; earlier events do not concern it; 0 if not known. service: as it was before
    the deployment was started. seen: the deployment as it was last seen. patient: tasks may die as often as they like.
    eager: a few deaths are enough, although ECS's circuit breaker is going to roll back.
    """

    version: str
    repository: str
    id: str = ""
    digest: str = ""
    since: float = 0.0
    task_definition: str = ""
    service: Service | None = None
    seen: Deployment | None = None
    patient: bool = False
    eager: bool = False

    @property
    def started(self) -> bool:
        """Whether it is known that the deployment was started, although ECS may not show it yet."""
        return bool(self.id or self.task_definition or self.service)

    @property
    def known(self) -> frozenset[str]:
        """The ids of the deployments that were there before."""
        return frozenset(d.id for d in self.service.deployments) if self.service else frozenset()

    @property
    def previous(self) -> str:
        """The task definition that ran before, empty if not known."""
        return self.service.primary.task_definition if self.service and self.service.primary else ""

    def is_run_by(self, references: Iterable[str]) -> bool:
        """Whether one of a deployment's images is the service's own, with the tag, or exactly the digest."""
        for reference in references:
            image = images.parse(reference)
            if image is None or image.repository != self.repository:
                continue
            if image.tag == self.version or (self.digest and image.digest == self.digest):
                return True
        return False


def find(before: Before, now: Service) -> Deployment | None:
    """The deployment among those that ECS lists, else as it was last seen; None if it was never seen."""
    seen = before.seen
    exact = bool(before.task_definition or before.service)
    # After a rollback event, a newer deployment of the same version does not replace the one that was seen.
    followed = before.id or (seen.id if seen and (exact or _rollback_event(before, now, seen.created)) else "")
    if followed:
        return next((d for d in now.deployments if d.id == followed), seen)
    new = [d for d in now.deployments if d.id not in before.known]
    if before.task_definition:
        # A later one with the same task definition is somebody else's.
        return min((d for d in new if d.task_definition == before.task_definition), key=_age, default=None)
    ours = [d for d in new if before.is_run_by(d.images)]
    newest = max(ours, key=_age, default=None)
    if newest and newest.is_rollback:
        # The deployment that it rolled back may have run the same version.
        newest = max((d for d in ours if d.state == "FAILED"), key=_age, default=newest)
    return seen if seen and (newest is None or newest.created < seen.created) else newest


def _age(deployment: Deployment) -> float:
    return deployment.created


def verdict(before: Before, now: Service) -> Verdict:
    """How the deployment went, as far as ECS shows it now."""
    if now.status != "ACTIVE":
        return Verdict.NOTHING
    ours = find(before, now)
    found = _of_record(before, ours, now.record, now) if now.record else _of_deployments(before, ours, now)
    if now.primary and not now.primary.desired and not found.lost and (ours or before.started):
        return Verdict.NOTHING
    if found in (Verdict.IN_PROGRESS, Verdict.BAKING) and not before.patient and is_hopeless(before, now):
        return Verdict.FAILED
    return found


def _of_record(before: Before, ours: Deployment | None, record: Record, now: Service) -> Verdict:
    """The verdict from ECS's own record of the deployment."""
    found = RECORDED.get(record.status, Verdict.IN_PROGRESS)
    if found in (Verdict.SUCCEEDED, Verdict.STOPPED, Verdict.ROLLED_BACK) and _is_replaced(before, ours, record, now):
        return Verdict.FAILED if found is Verdict.ROLLED_BACK else Verdict.SUPERSEDED
    waits = found is Verdict.IN_PROGRESS and (record.stage == "BAKE_TIME" or bool(record.hook))
    return Verdict.BAKING if waits else found


def _is_replaced(before: Before, ours: Deployment | None, record: Record, now: Service) -> bool:
    """Whether somebody else's deployment is PRIMARY: newer than ours, of another task definition, and no rollback."""
    primary = now.primary
    if primary is None or primary.is_rollback or (ours is not None and primary.id == ours.id):
        return False
    if record.status == "ROLLBACK_SUCCESSFUL" and not before.previous:
        return False
    newer = primary.created > (ours.created if ours else record.created)
    return newer and primary.task_definition not in (record.task_definition, before.previous)


def _of_deployments(before: Before, ours: Deployment | None, now: Service) -> Verdict:
    """The verdict from what DescribeServices shows alone."""
    primary = now.primary
    if ours is None:
        return _of_unseen(before, now)
    if primary and primary.id == ours.id:
        return _of_primary(primary, now)
    if primary and _takes_back(primary, ours, before, now):
        return Verdict.ROLLING_BACK if primary.state == "IN_PROGRESS" else Verdict.ROLLED_BACK
    return Verdict.FAILED if ours.state == "FAILED" else Verdict.SUPERSEDED


def _takes_back(primary: Deployment, ours: Deployment, before: Before, now: Service) -> bool:
    """Whether the PRIMARY deployment is the one before ours, or one that brings it back."""
    back = before.previous if before.previous != ours.task_definition else ""
    return (
        primary.id in before.known
        or primary.created < ours.created
        or primary.is_rollback
        or (primary.task_definition == back)
        or _rollback_event(before, now, max(ours.created, primary.created - TOGETHER), primary.created + TOGETHER)
    )


def _of_primary(primary: Deployment, now: Service) -> Verdict:
    """The verdict on the PRIMARY deployment. COMPLETED counts, although old tasks may still drain."""
    if primary.state == "FAILED":
        return Verdict.FAILED
    if primary.state == "COMPLETED":
        return Verdict.SUCCEEDED
    there = primary.running >= primary.desired and not primary.pending
    if primary.state == "" and there and len(now.deployments) == 1:
        return Verdict.SUCCEEDED
    return Verdict.BAKING if now.strategy in GRADUAL and now.bake and there else Verdict.IN_PROGRESS


def _of_unseen(before: Before, now: Service) -> Verdict:
    """The verdict on a deployment that ECS does not list and that was never seen, from ids and times."""
    primary, since = now.primary, start(before, now)
    if primary is None:
        return Verdict.NOT_STARTED
    if before.service:
        return _of_unseen_since(before, primary, now)
    if not since:
        # Whoever gave the id has seen that deployment in ECS: the one that rolls out now is newer.
        later = bool(before.id) and primary.state == "IN_PROGRESS" and not primary.is_rollback
        return Verdict.SUPERSEDED if later else Verdict.NOT_STARTED
    # Without an id, a deployment that became PRIMARY after the rollback shows that the rollback is over.
    if _rollback_event(before, now, since if before.id else max(since, primary.created - TOGETHER)):
        return Verdict.ROLLED_BACK
    if any(TROUBLE.search(event.message) for event in _naming(before, now)):
        return Verdict.ROLLED_BACK if primary.created <= since else Verdict.FAILED
    return Verdict.SUPERSEDED if before.id and primary.created > since else Verdict.NOT_STARTED


def _of_unseen_since(before: Before, primary: Deployment, now: Service) -> Verdict:
    """The same where the service was looked at before the deployment was started."""
    new = primary.id not in before.known
    back = primary.is_rollback or primary.task_definition == before.previous != before.task_definition
    if new and back:
        return Verdict.ROLLING_BACK if primary.state == "IN_PROGRESS" else Verdict.ROLLED_BACK
    trouble = any(TROUBLE.search(event.message) for event in _naming(before, now))
    if not new:
        return Verdict.ROLLED_BACK if trouble or _rollback_event(before, now, 0.0) else Verdict.NOT_STARTED
    began = bool(before.id or before.task_definition)
    return Verdict.FAILED if trouble else Verdict.SUPERSEDED if began else Verdict.NOT_STARTED


def start(before: Before, now: Service, ours: Deployment | None = None) -> float:
    """When the deployment started, as Unix time by ECS's clock; 0 if not known. Older events do not concern it."""
    if ours and ours.created:
        return ours.created
    return before.since or min((event.created for event in _naming(before, now)), default=0.0)


def _naming(before: Before, now: Service) -> list[Event]:
    """The events that mention the deployment by its id; none if that is not known."""
    whole = re.compile(rf"{re.escape(before.id)}(?![\w-])")
    return [event for event in now.events if before.id and whole.search(event.message)]


def new_events(before: Before, now: Service, since: float, until: float = float("inf")) -> list[Event]:
    """The events of a span of time, without those that were there before the start. since, until: by ECS's clock."""
    old = before.service.events if before.service else ()
    known, since = {event.id for event in old if event.id}, max([since, *(event.created for event in old)])
    return [event for event in now.events if since <= event.created <= until and event.id not in known]


def _rollback_event(before: Before, now: Service, since: float, until: float = float("inf")) -> bool:
    return any(ROLLBACK.search(event.message) for event in new_events(before, now, since, until))


def deaths(before: Before, now: Service) -> list[Task]:
    """The tasks of the deployment that died, newest first. Without its id: those of its task definition."""
    ours = find(before, now)
    known, definition = ours.id if ours else before.id, now.record.task_definition if now.record else ""
    died = [
        task
        for task in now.stopped
        if task.died and (task.deployment == known if known else task.task_definition == definition)
    ]
    return sorted(died, key=lambda task: -task.stopped)


def is_hopeless(before: Before, now: Service) -> bool:
    """Whether enough tasks of the deployment died for the same reason, or died at all, to give it up."""
    ours = find(before, now)
    desired = ours.desired if ours else 0
    most = max(FEWEST_FAILURES, FAILURES_PER_TASK * desired)
    if now.record and now.record.threshold:
        most = max(most, FAILURES_PER_TASK * now.record.threshold)
    same = max(Counter(task.death for task in deaths(before, now)).values(), default=0)
    if same >= (most if now.takes_back and not before.eager else SAME_DEATHS):
        return True
    return bool(ours and not now.breaker and ours.failed >= most)


def has_shifted(before: Before, now: Service) -> bool:
    """Whether all production traffic goes to the new revision, although the deployment may not be complete."""
    found = verdict(before, now)
    if found not in (Verdict.IN_PROGRESS, Verdict.BAKING):
        return found is Verdict.SUCCEEDED
    if now.record:
        return now.record.traffic == 100 or now.record.stage in SHIFTED
    return found is Verdict.BAKING
