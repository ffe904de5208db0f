"""Services of the embedded ECS: what each one works towards, how far that is, and how every change of it ended.

ECS has two words for it. A *deployment* is what DescribeServices lists: a set of tasks of one revision. A *service
deployment* is a change of the service: from its source revisions to a target, and back if it fails. Both are computed
from the clock at each request. A rollout goes through stages; a new deployment's tasks run after START seconds, and the
old ones drain for DRAIN more. Where tasks fail, one does every RETRY seconds, and the circuit breaker, if the service
has one, trips at its threshold.
"""

import math
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from local_aws.tasks import Stop, id_of

START, DRAIN, RETRY, KEEP_FAILED = 0.6, 0.8, 0.4, 20.0
# Seconds: until a change is taken up, until a rollback is, until it is done, one shift of traffic, one Lambda hook.
PENDING, REQUESTED, ROLLBACK, SHIFT, HOOK = 0.1, 0.1, 0.3, 0.2, 0.2
FEWEST, MOST = 3, 200
TAKEN_BACK = "Service deployment rolled back because the circuit breaker threshold was exceeded."
NO_CANDIDATE = "No rollback candidate was found to run the rollback."
ENDED = ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")


class Stage(NamedTuple):
    """A stage of a rollout. weight: percent of the traffic for the new revision, None where all that run share it."""

    name: str
    seconds: float
    weight: float | None = None


def stages(configuration: Mapping[str, Any], slower: float = 1.0) -> tuple[Stage, ...]:
    """What a rollout goes through. configuration: a deploymentConfiguration of ECS. slower: how many times as long."""
    start, drain = START * slower, DRAIN * slower
    bake = [Stage("BAKE_TIME", minutes * 60)] if (minutes := configuration.get("bakeTimeInMinutes", 0)) else []
    strategy = configuration.get("strategy", "ROLLING")
    if strategy == "ROLLING":
        clean_up = [] if _leaves_early(configuration) else [Stage("CLEAN_UP", drain)]
        return (Stage("SCALE_UP", start), *bake, *clean_up)
    before = ("RECONCILE_SERVICE", "PRE_SCALE_UP", "SCALE_UP", "POST_SCALE_UP")
    tested = ("TEST_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT")
    return (
        *(Stage(name, start if name == "SCALE_UP" else 0, 0) for name in (*before, *tested)),
        *_shifts(configuration, strategy),
        Stage("POST_PRODUCTION_TRAFFIC_SHIFT", 0, 100),
        *(stage._replace(weight=100) for stage in bake),
        Stage("CLEAN_UP", drain, 100),
    )


def _shifts(configuration: Mapping[str, Any], strategy: str) -> list[Stage]:
    """The steps in which production traffic goes over."""
    if strategy == "LINEAR":
        given = configuration.get("linearConfiguration", {})
        step, minutes = given.get("stepPercent", 10.0), given.get("stepBakeTimeInMinutes", 6)
        weights = [min(100.0, step * number) for number in range(1, math.ceil(100 / step) + 1)]
    elif strategy == "CANARY":
        given = configuration.get("canaryConfiguration", {})
        weights, minutes = [given.get("canaryPercent", 5.0), 100.0], given.get("canaryBakeTimeInMinutes", 10)
    else:
        weights, minutes = [100.0], 0
    steps = []
    for before, weight in zip((0.0, *weights), weights, strict=False):
        steps.append(Stage("PRE_PRODUCTION_TRAFFIC_SHIFT", 0, before))
        steps.append(Stage("PRODUCTION_TRAFFIC_SHIFT", SHIFT + (minutes * 60 if weight < 100 else 0), weight))
    return steps


def _leaves_early(configuration: Mapping[str, Any]) -> bool:
    """Whether a rolling deployment is successful while old tasks still drain."""
    early = configuration.get("earlySuccessCriteria", {})
    return bool(early.get("enable")) and early.get("sourceServiceRevisionCleanup") == "DEFERRED"


def threshold(configuration: Mapping[str, Any], desired: int) -> int:
    """How many failed tasks trip the circuit breaker."""
    given = configuration.get("deploymentCircuitBreaker", {}).get("thresholdConfiguration", {})
    kind, value = given.get("type", "BOUNDED_PERCENT"), given.get("value", 50)
    if kind == "COUNT":
        return int(value)
    share: int = math.ceil(value * desired / 100)
    return max(share, 1) if kind == "UNBOUNDED_PERCENT" else min(max(share, FEWEST), MOST)


@dataclass
class Deployment:
    """Tasks of one revision of a service. definition: the task definition. revision: ARN of the service revision.

    stop: why its tasks fail. started: when they ran. digests: of the images, as they were pulled. adopts: the id of the
    deployment whose tasks it took over. retired: how many tasks it had when `by` replaced it, at `ended`.
    """

    definition: dict[str, Any]
    created: float
    revision: str
    id: str = field(default_factory=lambda: f"ecs-svc/{number()}")
    status: str = "PRIMARY"
    state: str = "IN_PROGRESS"
    reason: str = ""
    running: int = 0
    pending: int = 0
    failed: int = 0
    stop: Stop | None = None
    started: float = 0.0
    digests: dict[str, str] = field(default_factory=dict)
    adopts: str = ""
    retired: int = 0
    ended: float = 0.0
    by: str = ""

    def retire(self, by: str, at: float) -> None:
        """Stop its tasks: another deployment takes its place."""
        self.retired += self.running + self.pending
        self.running = self.pending = 0
        self.ended, self.by = at, by

    def gives_up(self, at: float, reason: str) -> None:
        """It starts no task any more."""
        self.status, self.state, self.ended, self.reason = "ACTIVE", "FAILED", at, reason
        self.pending = 0


@dataclass
class Hook:
    """A lifecycle hook that a rollout has come to. resolved: when it lets the rollout go on, or else takes it back."""

    id: str
    given: Mapping[str, Any]
    stage: int
    status: str
    expires: float
    resolved: float

    @property
    def action(self) -> str:
        """What is done when it expires."""
        return str(self.given.get("timeoutConfiguration", {}).get("action", "ROLLBACK"))


@dataclass
class Change:
    """A service deployment: the change of a service to a target. entered: when it came to the stage `at`.

    back: the deployment that takes it back. due: when the rollback that was asked for goes on.
    """

    arn: str
    target: Deployment
    sources: list[Deployment]
    configuration: dict[str, Any]
    created: float
    stages: tuple[Stage, ...]
    status: str = "IN_PROGRESS"
    reason: str = ""
    at: int = 0
    entered: float = 0.0
    hooks: list[Hook] = field(default_factory=list)
    back: Deployment | None = None
    due: float = 0.0
    finished: float = 0.0

    @property
    def stage(self) -> Stage | None:
        """Where it is, None once it has ended or is taken back."""
        return self.stages[self.at] if self.status == "IN_PROGRESS" else None

    @property
    def has_scaled(self) -> bool:
        """Whether the target's tasks run."""
        return any(stage.name == "SCALE_UP" for stage in self.stages[: self.at])

    @property
    def leaves(self) -> float:
        """When the stage is over, as far as is known."""
        held = (hook.resolved for hook in self.hooks if hook.stage == self.at)
        return max((self.entered + self.stages[self.at].seconds, *held))

    def enter(self, at: int, now: float) -> None:
        """Come to a stage, and to its hooks."""
        self.at, self.entered = at, now
        for given in self.configuration.get("lifecycleHooks", []):
            if self.stages[at].name in given.get("lifecycleStages", []):
                seconds = given.get("timeoutConfiguration", {}).get("timeoutInMinutes", 1440) * 60
                pauses = given.get("targetType", "AWS_LAMBDA") == "PAUSE"
                status, takes = ("AWAITING_ACTION", seconds) if pauses else ("IN_PROGRESS", HOOK)
                self.hooks.append(Hook(str(uuid.uuid4()), given, at, status, now + seconds, now + takes))

    def resolve(self, now: float) -> Hook | None:
        """Resolve the hooks whose time has come. Returns one that takes the rollout back."""
        for hook in self.hooks:
            if now >= hook.resolved and hook.status == "IN_PROGRESS":
                hook.status = "SUCCEEDED"
            if now >= hook.resolved and hook.status == "AWAITING_ACTION":
                hook.status = "TIMED_OUT"
                if hook.action == "ROLLBACK":
                    return hook
        return None

    def ask_back(self, reason: str, due: float) -> None:
        """Ask for a rollback, which begins when it is due."""
        self.status, self.reason, self.due = "ROLLBACK_REQUESTED", reason, due

    def end(self, status: str, now: float, reason: str = "") -> None:
        """It is over, well or not."""
        self.status, self.reason, self.finished = status, reason or self.reason, now


Fault = Callable[[Deployment], Stop | None]


@dataclass
class Service:
    """A service, its deployments, the primary one first, and its changes, the newest last.

    settings: as CreateService and UpdateService were given them. past: deployments that are not listed any more, but
    whose stopped tasks are. settles: when as many tasks run as are desired. overlay, slower: what a scenario puts over
    the deploymentConfiguration, and how many times as long it makes a rollout. deleted: when it was, 0 if it was not.
    """

    name: str
    arn: str
    cluster: str
    region: str
    settings: dict[str, Any]
    deployments: list[Deployment] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    created: float = 0.0
    changes: list[Change] = field(default_factory=list)
    past: list[Deployment] = field(default_factory=list)
    settles: float = 0.0
    overlay: Mapping[str, Any] = field(default_factory=dict)
    slower: float = 1.0
    deleted: float = 0.0

    @property
    def desired(self) -> int:
        return int(self.settings.get("desiredCount", 1))

    @property
    def controller(self) -> str:
        """ECS, CODE_DEPLOY or EXTERNAL."""
        return str(self.settings.get("deploymentController", {}).get("type", "ECS"))

    @property
    def configuration(self) -> dict[str, Any]:
        """The deploymentConfiguration of the next rollout."""
        return {**self.settings.get("deploymentConfiguration", {}), **self.overlay}

    def status(self, now: float) -> str:
        """ACTIVE, DRAINING or INACTIVE."""
        return "ACTIVE" if not self.deleted else "DRAINING" if now < self.deleted + DRAIN else "INACTIVE"

    def say(self, message: str, at: float) -> None:
        """Add an event."""
        text = f"(service {self.name}) {message}"
        self.events.insert(0, {"id": str(uuid.uuid4()), "createdAt": at, "message": text})

    # What it is asked for

    def begin(self, definition: dict[str, Any], now: float) -> Change:
        """Start a rollout, in place of one that is not over."""
        target = Deployment(definition, now, self._arn("service-revision", str(number())))
        for change in self.changes:
            if change.status not in ENDED:
                change.end("STOPPED", now)
        for old in list(self.deployments):
            old.status, old.pending = "ACTIVE", 0
            if not old.running:
                # What never ran has nothing that could drain.
                self._drop(old, target.id, now)
        sources = list(self.deployments)
        self.deployments = [target, *sources]
        configuration = self.configuration
        arn = self._arn("service-deployment", secrets.token_urlsafe(16)[:21])
        change = Change(arn, target, sources, configuration, now, stages(configuration, self.slower))
        change.enter(0, now)
        self.changes.append(change)
        return change

    def adopt(self, definition: dict[str, Any], now: float) -> None:
        """Start with tasks that run already, as every service of a new cloud does."""
        change = self.begin(definition, now)
        change.target.started = now
        self._complete(change, now)

    def scale(self, desired: int, now: float) -> None:
        """Change the desired count: tasks that are too many stop at once, others take a while to start."""
        self.settings["desiredCount"] = desired
        self.settles = now + START
        for deployment in self.deployments:
            deployment.running = min(deployment.running, desired)

    def hurry(self, now: float) -> None:
        """Let a rollout that is slow or pauses go on as fast as the next one would."""
        for change in self.changes[-1:]:
            change.stages = stages(change.configuration, self.slower)
            for hook in change.hooks:
                if hook.status == "AWAITING_ACTION":
                    hook.status, hook.resolved = "SUCCEEDED", now

    def _arn(self, kind: str, name: str) -> str:
        return f"{self.arn.replace(':service/', f':{kind}/')}/{name}"

    # Time

    def roll(self, now: float, fault: Fault) -> None:
        """Bring it to where it is now. fault: why tasks of a deployment fail, None where they run."""
        if not self.changes:
            return
        change = self.changes[-1]
        if change.status == "IN_PROGRESS":
            # Without tasks nothing can fail.
            stop = fault(change.target) if self.desired else None
            if stop:
                self._fail(change, stop, now)
            else:
                self._advance(change, now)
        if change.status == "ROLLBACK_REQUESTED" and now >= change.due:
            self._take_back(change, now)
        if change.status == "ROLLBACK_IN_PROGRESS" and now >= change.due:
            self._reach(self.deployments[0], now)
            change.end("ROLLBACK_SUCCESSFUL", now)
        if change.status in ENDED:
            self._settle(now)

    def _advance(self, change: Change, now: float) -> None:
        """Go through the stages that are over."""
        while True:
            hook = change.resolve(now)
            if hook:
                change.ask_back(f"The lifecycle hook {hook.id} timed out.", now)
                return
            if now < change.leaves:
                self._start(change)
                return
            if change.at + 1 == len(change.stages):
                self._complete(change, now)
                return
            change.enter(change.at + 1, change.leaves)

    def _start(self, change: Change) -> None:
        """Start the target's tasks once it has scaled up: all, or as many as make an early success."""
        target, early = change.target, change.configuration.get("earlySuccessCriteria", {})
        percent = early.get("healthyPercent", 100) if early.get("enable") else 100
        ready = math.ceil(self.desired * percent / 100) if change.has_scaled else 0
        target.running, target.pending = ready, self.desired - ready
        if ready and not target.started:
            target.started = target.created + START * self.slower
            self.say(f"has started {self.desired} tasks: {_names(target, self.desired)}.", target.started)

    def _complete(self, change: Change, now: float) -> None:
        """ECS calls it successful. After early success, tasks start and drain for a while yet."""
        change.at = len(change.stages)
        self._start(change)
        lasts = DRAIN * self.slower if _leaves_early(change.configuration) else 0
        self.settles = now + lasts
        self._settle(now)
        self._reach(change.target, now)
        change.end("SUCCESSFUL", now)

    def _reach(self, target: Deployment, now: float) -> None:
        target.state, target.reason = "COMPLETED", f"ECS deployment {target.id} completed."
        self.say(f"(deployment {target.id}) deployment completed.", now)
        self.say("has reached a steady state.", now)

    def _settle(self, now: float) -> None:
        """Leave the old deployments behind, and run as many tasks as are desired."""
        primary = self.deployments[0]
        for old in self.deployments[1:]:
            if now >= (old.ended + KEEP_FAILED if old.state == "FAILED" else self.settles):
                if old.running:
                    self.say(f"has stopped {old.running} running tasks: {_names(old, old.running)}.", now)
                self._drop(old, primary.id, now)
        if primary.state == "COMPLETED" and now >= self.settles:
            primary.running, primary.pending = self.desired, 0

    def _drop(self, old: Deployment, by: str, now: float) -> None:
        self.deployments.remove(old)
        old.retire(old.by or by, old.ended or now)
        self.past.append(old)

    def _fail(self, change: Change, stop: Stop, now: float) -> None:
        """A task fails every RETRY seconds, until the circuit breaker trips."""
        target, breaker = change.target, change.configuration.get("deploymentCircuitBreaker", {})
        target.pending, target.running, target.stop = self.desired, 0, stop
        failed, most = int((now - target.created) / RETRY), threshold(change.configuration, self.desired)
        trips = breaker.get("enable") and failed >= most
        for nth in range(target.failed, most if trips else failed):
            event = stop.event or "has started 1 tasks: (task {task})."
            self.say(event.format(task=id_of(target.id, nth)), target.created + (nth + 1) * RETRY)
        target.failed = most if trips else failed
        if not trips:
            return
        why = "tasks failed health checks" if "health check" in stop.reason else "tasks failed to start"
        reason = f"ECS deployment circuit breaker: {why}."
        self.say(f"(deployment {target.id}) deployment failed: {why}.", now)
        if breaker.get("rollback") and any(d.running for d in self.deployments[1:]):
            target.gives_up(now, reason)
            change.ask_back(TAKEN_BACK, now)
            return
        target.state, target.ended, target.reason, target.pending = "FAILED", now, reason, 0
        ended = ("ROLLBACK_FAILED", NO_CANDIDATE) if breaker.get("rollback") else ("STOPPED", reason)
        change.end(ended[0], now, ended[1])

    def _take_back(self, change: Change, now: float) -> None:
        """Return to the deployment that ran before."""
        target, old = change.target, next((d for d in self.deployments[1:] if d.running), None)
        if old is None:
            change.end("ROLLBACK_FAILED", now, NO_CANDIDATE)
            return
        back = Deployment(old.definition, now, old.revision, started=now, digests=old.digests, adopts=old.id)
        by_breaker = target.state == "FAILED"
        back.reason = (
            f"{'ECS deployment circuit breaker: r' if by_breaker else 'R'}olling back to deploymentId {old.id}."
        )
        back.running, old.running = self.desired, 0
        if not by_breaker:
            target.gives_up(now, f"ECS deployment {target.id} was stopped.")
        target.retire(back.id, now)
        self._drop(old, back.id, now)
        self.deployments = [back, *self.deployments]
        self.say(f"rolling back to deployment {old.id}.", now)
        change.back, change.status, change.due = back, "ROLLBACK_IN_PROGRESS", now + ROLLBACK

    def answering(self, turn: int) -> Deployment | None:
        """The deployment that answers a request: those that run take turns, or get the share that traffic has."""
        running = [d for d in self.deployments if d.running]
        stage, target = (self.changes[-1].stage, self.changes[-1].target) if self.changes else (None, None)
        if target in running and stage and stage.weight is not None and len(running) > 1:
            if math.floor(turn * stage.weight / 100) > math.floor((turn - 1) * stage.weight / 100):
                return target
            running.remove(target)
        return running[turn % len(running)] if running else None


def _names(deployment: Deployment, count: int) -> str:
    """Some tasks of a deployment, as events name them."""
    return " ".join(f"(task {id_of(deployment.id, deployment.failed + nth)})" for nth in range(count))


def number() -> int:
    """An id as ECS numbers deployments and revisions."""
    return uuid.uuid4().int % 10**19
