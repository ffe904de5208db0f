"""What ECS and the endpoint show of a deployment, in sequence: what the tool says of it, and its exit code."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from scripts.ecs import reasons, watch
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import (
    Before,
    Container,
    Deployment,
    Event,
    Record,
    Service,
    Task,
    Verdict,
    has_shifted,
    verdict,
)
from scripts.edges import http
from scripts.edges.aws import Denied
from scripts.frame.errors import DeployError
from scripts.frame.report import Bar
from scripts.frame.waiting import Clock

# When things happened, in seconds: the day before, the old deployment, ours, and what came after it.
YESTERDAY, OLD_AT, NEW_AT, LATER = 100.0, 1000.0, 2000.0, 2100.0
BACK = "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/1."
DIGEST, OTHER_DIGEST = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PINNED_SIDECAR = f"public.ecr.aws/sidecar@{DIGEST}"
URL = "https://dev.example.org/health"


def deployment(
    tag: str, id: str = "ecs-svc/new", status: str = "PRIMARY", state: str = "COMPLETED", **more: object
) -> Deployment:
    """A deployment of registry/app:tag beside a sidecar."""
    values: dict[str, object] = {
        "id": id,
        "status": status,
        "task_definition": f"arn:task-definition/app:{tag}",
        "images": (PINNED_SIDECAR, f"registry:5000/app:{tag}"),
        "state": state,
        "reason": "",
        "created": {"ecs-svc/old": OLD_AT, "ecs-svc/new": NEW_AT}.get(id, LATER),
        "desired": 2,
        "running": 2,
        "failed": 0,
    }
    return Deployment(**{**values, **more})  # type: ignore[arg-type]


def service(
    *deployments: Deployment, events: Sequence[tuple[float, str]] = (), breaker: bool = True, **more: Any
) -> Service:
    """A service with these deployments. events: time and message, newest first."""
    told = tuple(Event(f"(service app) {text}", at, f"{at} {text}") for at, text in events)
    return Service("app", deployments, told, breaker, **{"takes_back": breaker, **more})


def rolls(status: str = "IN_PROGRESS", **more: Any) -> Record:
    """ECS's record of our deployment."""
    return Record("arn:service-deployment/1", status, "arn:task-definition/app:v2", created=NEW_AT, **more)


def dead(number: int = 0, **more: Any) -> Task:
    """A task of ours that died."""
    values: dict[str, Any] = {
        "stop_code": "EssentialContainerExited",
        "reason": "Essential container in task exited",
        "containers": (Container("app", exit_code=137, reason="OutOfMemoryError: Container killed"),),
    }
    task = {"id": f"t{number}", "task_definition": "arn:task-definition/app:v2", "deployment": "ecs-svc/new"}
    return Task(status="STOPPED", stopped=LATER + number, **{**task, **values, **more})


OLD = deployment("v1", id="ecs-svc/old")
DRAINING = deployment("v1", id="ecs-svc/old", status="ACTIVE")
DONE = deployment("v2")
NEW = deployment("v2", state="IN_PROGRESS", running=0)
FAILED = deployment("v2", status="ACTIVE", state="FAILED", running=0)
THEIRS = deployment("v3", id="ecs-svc/theirs", state="IN_PROGRESS")
GOES_BACK = deployment("v1", id="ecs-svc/back", state="IN_PROGRESS", reason=BACK)
WENT_BACK = replace(GOES_BACK, state="COMPLETED")
AGAIN = deployment("v2", id="ecs-svc/old")
BACK_EVENT = "rolling back to deployment ecs-svc/old."
FAILED_EVENT = "(deployment ecs-svc/new) deployment failed: tasks failed to start."
CANNOT_PULL = "CannotPullContainerError: registry:5000/app:v2: not found"

# How the deployment to judge is known: by its image alone, its id, its id and time, and as deploy-service knows it.
UNKNOWN = Before("v2", "app")
OURS = Before("v2", "app", id="ecs-svc/new")
KNOWN = replace(OURS, since=NEW_AT)
AFTER = Before("v2", "app", service=service(OLD, events=[(OLD_AT, "has reached a steady state.")]))
STARTED = replace(AFTER, id="ecs-svc/new", task_definition="arn:task-definition/app:v2")
PUBLIC = replace(AFTER, task_definition="arn:task-definition/app:v2")
DENIED = Denied("AccessDenied")
THROTTLED = DeployError("ThrottlingException")
UNREACHED = http.Unreachable("Connection refused")


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.clock = Clock(now=lambda: self.time, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Sight:
    """What ECS shows at one look after the other, the last one from then on. Its running tasks are those it counts."""

    def __init__(
        self, looks: Sequence[Service | DeployError], running: Sequence[Task] | DeployError | None = ()
    ) -> None:
        self._left, self._running, self.now, self.stops = list(looks), running, Service("app", (), (), False), 0

    def look(self, before: Before) -> Service:
        found = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if isinstance(found, DeployError):
            raise found
        self.now = found
        return found

    def running(self) -> tuple[Task, ...] | None:
        if isinstance(self._running, DeployError):
            raise self._running
        if self._running is None or self._running:
            return None if self._running is None else tuple(self._running)
        return tuple(
            Task(f"{d.id}/{n}", d.task_definition, d.id, "RUNNING")
            for d in self.now.deployments
            for n in range(d.running)
        )

    def stopped(self) -> tuple[Task, ...]:
        return self.now.stopped

    def stop(self) -> None:
        self.stops += 1

    def variants(self, repository: str, digest: str) -> frozenset[str]:
        return frozenset({OTHER_DIGEST})

    def explain(self, before: Before, now: Service) -> Reasons:
        return Reasons(reasons.explain(before, now))


def answering(answers: Sequence[str | DeployError]) -> Any:
    """The endpoint, which gives these answers one after the other, and the last one from then on."""
    left = list(answers)

    def ask(url: str, timeout: float) -> str:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, DeployError):
            raise found
        return found

    return ask


@dataclass(frozen=True)
class Case:
    """A sequence. code: the exit code. says: part of what the tool says at the end. answers: of the endpoint."""

    name: str
    looks: Sequence[Service | DeployError]
    code: int
    says: str
    verdict: Verdict | None
    answers: Sequence[str | DeployError] = ("v2",)
    before: Before = STARTED
    plan: Any = None
    running: Sequence[Task] | DeployError | None = ()


def cases() -> Iterator[Case]:
    """The public cases first, then one or more of each verdict."""
    v = Verdict
    yield Case(
        "early success criteria: complete, while two old tasks still run",
        [service(NEW, DRAINING), service(DONE, DRAINING)],
        0,
        "2 of 2 running tasks are on app:v2, 2 of older deployments still drain",
        v.SUCCEEDED,
    )
    yield Case(
        "complete, and scaled out a moment ago",
        [service(deployment("v2", desired=4))],
        0,
        "2 of 2 running tasks are on app:v2",
        v.SUCCEEDED,
    )
    bakes = service(deployment("v2", state="IN_PROGRESS"), DRAINING, strategy="BLUE_GREEN", bake=30.0)
    yield Case(
        "blue/green bakes for half an hour, then it is complete",
        [bakes] * 1500 + [service(DONE, strategy="BLUE_GREEN")],
        0,
        "running tasks are on app:v2",
        v.SUCCEEDED,
    )
    yield Case(
        "blue/green, and the traffic is enough",
        [bakes],
        0,
        "2 of older deployments still drain",
        v.BAKING,
        plan={"until_traffic": True},
    )
    pinned = replace(UNKNOWN, digest=DIGEST, since=NEW_AT)
    old_and_back = service(OLD, events=[(LATER, BACK_EVENT)])
    yield Case(
        "a sidecar has the digest; ours is not listed; an event of a rollback",
        [old_and_back],
        4,
        "the previous version runs",
        v.ROLLED_BACK,
        ["v1"],
        pinned,
    )
    yield Case("the same without that event", [service(OLD)], 3, "has not started", v.NOT_STARTED, ["v1"], pinned)
    theirs = service(THEIRS, events=[(LATER, "has started 2 tasks"), (LATER, "steady state"), (YESTERDAY, BACK_EVENT)])
    yield Case(
        "a colleague's rollout, and a rollback of yesterday",
        [service(NEW, OLD), theirs],
        1,
        "was superseded by another deployment (app:v3)",
        v.SUPERSEDED,
        ["v1"],
    )
    registered = [(LATER + n, f"registered 1 targets in {n}") for n in range(9, 0, -1)]
    yield Case(
        "five newer events hide that of our rollback",
        [service(NEW, OLD), service(OLD, events=[*registered, (LATER, BACK_EVENT)])],
        4,
        "rolled back",
        v.ROLLED_BACK,
        ["v1"],
    )
    yield Case(
        "ours is not listed any more, its id is in an event",
        [service(OLD, events=[(LATER, FAILED_EVENT)])],
        4,
        "deployment failed: tasks failed to start",
        v.ROLLED_BACK,
        ["v1"],
        OURS,
    )
    for words in ("Rolling back.", "ROLLBACK to ecs-svc/old", "was rolled back", "roll-back"):
        back = deployment("v1", id="ecs-svc/back", reason=words)
        yield Case(f"ECS says {words!r}", [service(NEW, OLD), service(back)], 4, words, v.ROLLED_BACK, ["v1"], OURS)
    same = replace(STARTED, service=service(AGAIN))
    yield Case(
        "the version ran before, and ours is not listed yet",
        [service(AGAIN)],
        3,
        "has not started",
        v.NOT_STARTED,
        before=same,
    )
    yield Case(
        "the same, then it is",
        [service(AGAIN)] * 3 + [service(NEW, AGAIN), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
        before=same,
    )
    yield Case(
        "the same, and it was rolled back", [service(AGAIN, FAILED)], 4, "rolled back", v.ROLLED_BACK, before=same
    )
    unhealthy = [(LATER, "(task 1) failed container health checks.")]
    hopeless = deployment("v2", state="IN_PROGRESS", running=0, failed=40)
    yield Case(
        "40 failed tasks and no breaker",
        [service(hopeless, DRAINING, breaker=False, events=unhealthy)],
        1,
        "40 tasks failed\n  - (service app) (task 1) failed container health checks",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "no task is desired",
        [service(deployment("v2", desired=0, running=0))],
        0,
        "no task is desired",
        v.NOTHING,
        [DeployError("HTTP status 503")],
    )
    yield Case(
        "no task is desired, and the rollout is under way",
        [service(deployment("v2", state="IN_PROGRESS", desired=0, running=0))],
        0,
        "no task is desired",
        v.NOTHING,
        [UNREACHED],
    )
    yield Case(
        "the service is being deleted",
        [service(NEW, OLD), service(NEW, status="DRAINING")],
        0,
        "the service is being deleted",
        v.NOTHING,
        [UNREACHED],
    )
    by_digest = Before("v2", "app", digest=DIGEST)
    pulled = replace(FAILED, images=(f"registry:5000/app@{DIGEST}",))
    no_image = dead(
        stop_code="TaskFailedToStart", reason=CANNOT_PULL, containers=(Container("app", reason=CANNOT_PULL),)
    )
    yield Case(
        "by digest, cannot be pulled, rolled back, in a step of its own",
        [service(WENT_BACK, pulled, stopped=(no_image,))],
        4,
        "CannotPullContainerError",
        v.ROLLED_BACK,
        ["v1"],
        by_digest,
    )
    yield Case(
        "four looks are throttled in the middle of it",
        [service(NEW, OLD), *[THROTTLED] * 4, service(GOES_BACK, FAILED), service(WENT_BACK, FAILED)],
        4,
        "rolled back",
        v.ROLLED_BACK,
    )
    yield Case(
        "the endpoint is not reached, and ECS is complete on the digest",
        [service(DONE)],
        0,
        "was not reached from here",
        v.SUCCEEDED,
        [UNREACHED],
    )
    yield Case(
        "rolled back yesterday, today ours, then a colleague's",
        [service(NEW, OLD), service(deployment("v3", id="ecs-svc/theirs"), events=[(YESTERDAY, BACK_EVENT)])],
        1,
        "superseded",
        v.SUPERSEDED,
        ["v3"],
    )

    # ECS's own records decide where they can be read.
    yield Case(
        "recorded: in progress, then successful",
        [service(NEW, DRAINING, record=rolls()), service(DONE, record=rolls("SUCCESSFUL"))],
        0,
        "app:v2",
        v.SUCCEEDED,
    )
    yield Case(
        "recorded: rolls back, then it has",
        [
            service(NEW, record=rolls("ROLLBACK_IN_PROGRESS")),
            service(OLD, record=rolls("ROLLBACK_SUCCESSFUL", rollback_reason="an alarm", alarms=("5xx",))),
        ],
        4,
        "an alarm\n  - alarms: 5xx",
        v.ROLLED_BACK,
        ["v1"],
    )
    yield Case(
        "recorded: the rollback failed",
        [service(NEW, record=rolls("ROLLBACK_FAILED", reason="no capacity"))],
        1,
        "no capacity",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "recorded: stopped by somebody",
        [service(NEW, record=rolls("STOPPED", reason="Stopped by ann"))],
        1,
        "was stopped by somebody:\n  - Stopped by ann",
        v.STOPPED,
        ["v1"],
    )
    yield Case(
        "recorded: stopped, because a colleague's came",
        [service(THEIRS, DRAINING, record=rolls("STOPPED"))],
        1,
        "superseded",
        v.SUPERSEDED,
        ["v1"],
    )
    yield Case(
        "recorded: successful, and then a colleague's came",
        [service(THEIRS, DONE, record=rolls("SUCCESSFUL"))],
        1,
        "superseded by another deployment (app:v3)",
        v.SUPERSEDED,
    )
    yield Case(
        "recorded: rolled back, and then a colleague's came",
        [service(THEIRS, record=rolls("ROLLBACK_SUCCESSFUL"))],
        1,
        "failed",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "recorded: a stop is requested, then it is rolled back",
        [
            service(NEW, record=rolls("STOP_REQUESTED")),
            service(NEW, record=rolls("ROLLBACK_REQUESTED")),
            service(OLD, record=rolls("ROLLBACK_SUCCESSFUL")),
        ],
        4,
        "rolled back",
        v.ROLLED_BACK,
        ["v1"],
    )
    paused = rolls(stage="POST_TEST_TRAFFIC_SHIFT", hook="arn:hook", traffic=0.0)
    yield Case(
        "recorded: pauses at a hook to the end",
        [service(NEW, DRAINING, record=paused)],
        3,
        "is baking, waiting for the hook arn:hook: the traffic has not shifted",
        v.BAKING,
        ["v1"],
    )
    canary = rolls(stage="BAKE_TIME", traffic=10.0)
    yield Case(
        "recorded: a canary has a tenth of the traffic",
        [service(NEW, record=replace(canary, stage="PRODUCTION_TRAFFIC_SHIFT"))],
        3,
        "10 % of the traffic",
        v.IN_PROGRESS,
        ["v1"],
        plan={"until_traffic": True},
    )
    yield Case(
        "recorded: it bakes with all the traffic, which is enough",
        [service(deployment("v2", state="IN_PROGRESS"), DRAINING, record=rolls(stage="BAKE_TIME", traffic=100.0))],
        0,
        "app:v2",
        v.BAKING,
        plan={"until_traffic": True},
    )
    yield Case(
        "recorded: no primary says anything else",
        [service(OLD, record=rolls("SUCCESSFUL"))],
        0,
        "app:v2",
        v.SUCCEEDED,
        before=replace(OURS, since=NEW_AT),
        running=[Task("1", "arn:task-definition/app:v2", "x", "RUNNING")],
    )

    # How tasks die.
    twice = (dead(0), dead(1))
    yield Case(
        "two tasks died for the same reason, and nothing takes it back",
        [service(NEW, DRAINING, breaker=False, stopped=twice)],
        1,
        "--keep-waiting waits longer:\n  - 2 tasks died: EssentialContainerExited: Essential container in task exited;"
        " app exited with 137 (OutOfMemoryError: Container killed) – the container needs more memory",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "the same, and the breaker is going to take it back",
        [service(NEW, DRAINING, stopped=twice), service(WENT_BACK, FAILED, stopped=twice)],
        4,
        "2 tasks died",
        v.ROLLED_BACK,
        ["v1"],
    )
    yield Case(
        "the same, and the breaker never does",
        [service(NEW, DRAINING, stopped=tuple(dead(n) for n in range(10)))],
        1,
        "10 tasks died",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "the same, and it is to be waited for",
        [service(NEW, DRAINING, breaker=False, stopped=twice), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
        ["v1", "v2"],
        replace(STARTED, patient=True),
    )
    yield Case(
        "two tasks died for different reasons",
        [service(NEW, DRAINING, breaker=False, stopped=(dead(0), no_image)), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
    )
    yield Case(
        "two tasks of another deployment died",
        [
            service(NEW, DRAINING, breaker=False, stopped=tuple(replace(t, deployment="ecs-svc/old") for t in twice)),
            service(DONE),
        ],
        0,
        "app:v2",
        v.SUCCEEDED,
    )
    scaled = tuple(
        replace(t, stop_code="ServiceSchedulerInitiated", reason="Scaling activity initiated by deployment")
        for t in twice
    )
    yield Case(
        "two tasks stopped for scaling",
        [service(NEW, DRAINING, breaker=False, stopped=scaled), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
    )
    sick = tuple(
        replace(
            t,
            stop_code="ServiceSchedulerInitiated",
            reason=f"Task failed ELB health checks in (target-group arn:{n})",
            containers=(),
        )
        for n, t in enumerate(twice)
    )
    yield Case(
        "two tasks failed the load balancer's health check",
        [service(NEW, DRAINING, breaker=False, stopped=sick)],
        1,
        "the load balancer's health check got no good answer in time",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "they are stopped and rolled back",
        [
            service(NEW, OLD, breaker=False, stopped=twice),
            service(NEW, record=rolls("ROLLBACK_IN_PROGRESS")),
            service(OLD, record=rolls("ROLLBACK_SUCCESSFUL")),
        ],
        4,
        "rolled back",
        v.ROLLED_BACK,
        ["v1"],
        plan={"abort": True},
    )

    yield Case(
        "the same, although the breaker would take it back later",
        [
            service(NEW, OLD, stopped=twice),
            service(NEW, record=rolls("ROLLBACK_IN_PROGRESS")),
            service(OLD, record=rolls("ROLLBACK_SUCCESSFUL")),
        ],
        4,
        "rolled back",
        v.ROLLED_BACK,
        ["v1"],
        plan={"abort": True},
    )

    # What DescribeServices alone tells.
    yield Case(
        "failed, and ECS stays there",
        [service(deployment("v2", state="FAILED", reason="no memory"), breaker=False)],
        1,
        "deploy the previous version:\n  - no memory",
        v.FAILED,
        ["v1"],
    )
    yield Case(
        "failed, then a colleague's came", [service(NEW, OLD), service(THEIRS, FAILED)], 1, "failed", v.FAILED, ["v1"]
    )
    yield Case(
        "the manager reports no id: found by its task definition",
        [service(OLD), service(NEW, OLD), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
        ["v1", "v2"],
        PUBLIC,
    )
    yield Case(
        "the same, and a colleague deploys that task definition again",
        [service(NEW, OLD), service(replace(DONE, id="ecs-svc/again", created=LATER + 50))],
        1,
        "superseded",
        v.SUPERSEDED,
        before=PUBLIC,
    )
    yield Case("never listed, and another one is", [service(THEIRS)], 1, "superseded", v.SUPERSEDED, ["v1"], PUBLIC)
    yield Case(
        "another one is listed for a moment before ours",
        [service(THEIRS), service(NEW, THEIRS), service(DONE)],
        0,
        "app:v2",
        v.SUCCEEDED,
    )
    yield Case(
        "the old one is PRIMARY again, no word of why",
        [service(NEW, OLD), service(OLD, replace(NEW, status="ACTIVE"))],
        4,
        "rolled back",
        v.ROLLED_BACK,
        ["v1"],
    )
    yield Case(
        "no state, and one task is missing to the end",
        [service(deployment("v2", state="", running=1))],
        3,
        "1 of 2 tasks run",
        v.IN_PROGRESS,
        ["v1"],
    )
    yield Case(
        "it rolls back to the end of the time",
        [service(NEW, OLD), service(GOES_BACK, FAILED)],
        3,
        "is rolling back",
        v.ROLLING_BACK,
        ["v1"],
    )
    yield Case("ECS lists no deployment", [service()], 3, "has not started", v.NOT_STARTED, ["v1"])

    # What the endpoint and the tasks prove.
    yield Case(
        "old and new answer in turn, then only new",
        [service(DONE)],
        0,
        "3 answers with it in a row",
        v.SUCCEEDED,
        ["v1", "v2", "v1", "v2", "v2", "v1", "v2"],
    )
    yield Case(
        "the endpoint answers with another version to the end",
        [service(DONE)],
        1,
        "is complete in ECS, but https://dev.example.org/health answers with v1",
        v.SUCCEEDED,
        ["v1"],
    )
    yield Case(
        "the endpoint is broken to the end",
        [service(DONE)],
        3,
        "answers without a version: HTTP status 503",
        v.SUCCEEDED,
        [DeployError("HTTP status 503")],
    )
    yield Case(
        "it answered before, and is not reached any more",
        [service(NEW, OLD), *[service(DONE)]],
        3,
        "does not answer: Connection refused",
        v.SUCCEEDED,
        ["v1", UNREACHED],
    )
    yield Case(
        "it answers, and the rollout never ends",
        [service(deployment("v2", state="IN_PROGRESS"), DRAINING)],
        3,
        "answers with v2, but its rollout in ECS is not complete",
        v.IN_PROGRESS,
    )
    yield Case(
        "ECS cannot be read: the endpoint is the proof",
        [DENIED],
        0,
        "according to its endpoint alone; ECS was not read",
        None,
    )
    yield Case(
        "ECS cannot be read, and the endpoint is not reached", [DENIED], 3, "ECS could not be read", None, [UNREACHED]
    )
    yield Case(
        "ECS cannot be read, and there is no endpoint", [DENIED], 3, "ECS could not be read", None, plan={"url": ""}
    )
    yield Case("ECS is throttled to the end: what answers is no proof", [THROTTLED], 3, "ECS could not be read", None)
    yield Case(
        "ECS was read once: its last word counts no more",
        [service(DONE), *[THROTTLED]],
        3,
        "when it was last read",
        v.SUCCEEDED,
        ["v1", "v1", "v2"],
    )
    yield Case(
        "denied for a moment, after a look that succeeded",
        [service(NEW, OLD), *[DENIED] * 5, service(WENT_BACK, FAILED)],
        4,
        "rolled back",
        v.ROLLED_BACK,
    )
    yield Case("the tasks may not be read", [service(DONE)], 0, "its tasks were not read", v.SUCCEEDED, running=None)
    foreign = [
        Task(
            "1",
            "arn:task-definition/app:v2",
            "ecs-svc/new",
            "RUNNING",
            containers=(Container("app", "r.io/app:v2", "sha256:c"),),
        )
    ]
    yield Case(
        "a task runs another digest than the version has",
        [service(DONE)],
        1,
        "runs the digest sha256:c",
        v.SUCCEEDED,
        before=replace(STARTED, digest=DIGEST),
        running=foreign,
    )
    of_index = [replace(foreign[0], containers=(Container("app", "r.io/app:v2", OTHER_DIGEST),))]
    yield Case(
        "a task runs an image of the version's index",
        [service(DONE)],
        0,
        "the running task is on app:v2 and sha256:aaaa",
        v.SUCCEEDED,
        before=replace(STARTED, digest=DIGEST),
        running=of_index,
    )
    stray = [Task("1", "arn:task-definition/app:v1", "elsewhere", "RUNNING")]
    yield Case(
        "a task is on another revision",
        [service(DONE)],
        1,
        "0 of 1 running tasks are on app:v2",
        v.SUCCEEDED,
        running=stray,
    )
    yield Case(
        "by its image, which ECS names differently",
        [service(THEIRS)],
        0,
        "ECS shows no deployment with that image",
        v.NOT_STARTED,
        before=UNKNOWN,
    )


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_a_sequence_ends_with_what_is_true(case: Case) -> None:
    """The exit code, the verdict and the words are those of the last truth, whatever was seen before."""
    plan = watch.Plan(
        "dev", "app", case.before, **{"url": URL, "timeout": 300.0, "again": "again", **(case.plan or {})}
    )
    sight, time = Sight(case.looks, case.running), Time()

    ended = watch.watch(plan, sight, ask=answering(case.answers), clock=time.clock)

    said = str(ended.failure) if ended.failure else " ".join((*ended.proof, ended.note))
    assert (ended.failure.code if ended.failure else 0, ended.verdict) == (case.code, case.verdict), said
    assert case.says in said
    if "v2" in case.answers and case.code:
        assert "does not run" not in said
    assert sight.stops == bool(plan.abort)
    if case.code in (0, 4):
        # What is known is said at once, and not at the end of the time.
        assert time.time < max(60.0, 60 * 30 * (len(case.looks) > 1000))


STRAY = (Task("1", "arn:task-definition/app:v1", "elsewhere", "RUNNING"),)
HELD = service(DONE, deployment("v1", id="ecs-svc/beside", status="ACTIVE", created=NEW_AT))
DRAINS = service(DONE, replace(DRAINING, created=NEW_AT - 1))
DYING = service(NEW, OLD, breaker=False, stopped=tuple(dead(n, reason="out of memory", containers=()) for n in (0, 1)))
BROKEN = DeployError("HTTP status 503")
SHIFTED = service(deployment("v2", state="IN_PROGRESS"), DRAINING, record=rolls(stage="BAKE_TIME", traffic=100.0))
PINNED = replace(STARTED, digest=DIGEST)
OF_INDEX, PULLED = (
    (Task("1", "arn:task-definition/app:v2", "x", "RUNNING", containers=(Container("app", "r.io/app:v2", digest),)),)
    for digest in (OTHER_DIGEST, DIGEST)
)


class Noted(Sight):
    """Sight that notes when it was asked for what. cannot_stop: having ECS stop the deployment fails."""

    def __init__(self, looks: Sequence[Any], running: Any, time: Time, cannot_stop: bool = False) -> None:
        super().__init__(looks, running)
        self.time, self.cannot_stop, self.noted = time, cannot_stop, dict[str, list[float]]()

    def note(self, what: str) -> None:
        self.noted.setdefault(what, []).append(self.time.time)

    def look(self, before: Before) -> Service:
        self.note("look")
        return super().look(before)

    def stopped(self) -> tuple[Task, ...]:
        self.note("stopped")
        return super().stopped()

    def running(self) -> tuple[Task, ...] | None:
        self.note("running")
        return super().running()

    def variants(self, repository: str, digest: str) -> frozenset[str]:
        self.note("variants")
        return super().variants(repository, digest)

    def stop(self) -> None:
        super().stop()
        if self.cannot_stop:
            raise DENIED


def noted(
    looks: Sequence[Service | DeployError],
    answers: Sequence[str | DeployError] = ("v2",),
    running: Sequence[Task] | DeployError | None = (),
    *,
    before: Before = STARTED,
    cannot_stop: bool = False,
    **more: Any,
) -> tuple[watch.Ended, Noted]:
    """Watch a sequence, and note when what was asked."""
    time = Time()
    sight, ask = Noted(looks, running, time, cannot_stop), answering(answers)

    def asking(url: str, timeout: float) -> Any:
        assert (url, timeout) == (URL, 2.0)
        sight.note("ask")
        return ask(url, timeout)

    given = {"where": "dev", "service": "app", "url": URL, "timeout": 130.0, "again": "again", **more}
    return watch.watch(watch.Plan(before=before, **given), sight, ask=asking, clock=time.clock), sight


@pytest.mark.parametrize(
    ("sequence", "plan", "seconds", "code", "says"),
    [
        (([service(DONE)],), {}, 1.0, 0, "3 answers with it in a row"),
        (([service(DONE)],), {"url": ""}, 0.0, 0, "in ECS, 2 of 2 running tasks are on app:v2 "),
        (
            ([service(DONE)],),
            {"before": replace(OURS, id="ecs-svc/absent"), "timeout": 9.0},
            9.0,
            3,
            "In ECS, app has not started.",
        ),
        (([service(NEW, OLD)] * 5 + [service(DONE)],), {}, 5.0, 0, "2 of 2 running tasks"),
        (([service(NEW, record=rolls("ROLLBACK_FAILED"))],), {}, 0.0, 1, "dev: v2 of app failed:"),
        # What ECS may show of another deployment for a moment.
        (([service(THEIRS)],), {"before": PUBLIC}, 5.0, 1, "was superseded by another deployment (app:v3)"),
        (([service(NEW, record=rolls("STOPPED"))],), {}, 5.0, 1, "was stopped by somebody"),
        (([service(NEW, OLD), service(THEIRS, FAILED)],), {}, 1.0, 1, "failed"),
        (
            ([*[service(THEIRS)] * 3, *[service(OLD)] * 2, service(THEIRS)], ["v1"]),
            {"before": PUBLIC},
            10.0,
            1,
            "was superseded by another deployment",
        ),
        # What ECS cannot show by mistake.
        (([service(NEW, OLD), service(THEIRS)], ["v1"]), {}, 1.0, 1, "was superseded by another deployment (app:v3)"),
        (
            ([service(OLD, events=[(LATER, FAILED_EVENT)])], ["v1"]),
            {"before": OURS},
            0.0,
            4,
            "was rolled back, the prev",
        ),
        # What contradicts ECS.
        (
            ([service(DONE)], ["v1"]),
            {},
            120.0,
            1,
            "but https://dev.example.org/health answers with v1 (0 new and 241 old",
        ),
        (
            ([service(DONE)], ["v1"]),
            {"timeout": 60.0},
            60.0,
            1,
            "/health answers with v1 after 60 s (0 new and 121 old",
        ),
        (([service(DONE)], ["v2"], STRAY), {}, 120.0, 1, "in ECS, but 0 of 1 running tasks are on app:v2:"),
        # From the last time that it was complete.
        (
            ([*[service(DONE)] * 2, *[service(NEW, OLD)] * 2, service(DONE)], ["v1"]),
            {},
            124.0,
            1,
            "but https://dev.example.org/health answers with v1",
        ),
        (
            ([*[service(DONE)] * 2, *[service(NEW, OLD)] * 2, service(DONE)], ["v1"], STRAY),
            {},
            124.0,
            1,
            "in ECS, but 0 of 1 running tasks are on app:v2:",
        ),
        (([service(DONE)], ["v1"], None), {}, 120.0, 1, "but https://dev.example.org/health answers with v1"),
        (
            ([service(DONE)], ["v2"], STRAY),
            {"timeout": 60.0},
            60.0,
            1,
            "0 of 1 running tasks are on app:v2 after 60 s:",
        ),
        (([HELD],), {}, 120.0, 1, "but 2 of 4 running tasks are on app:v2:"),
        # Old tasks that drain still answer.
        (([DRAINS], ["v1"] * 250 + ["v2"]), {}, 126.0, 0, "2 of older deployments still drain"),
        (([DRAINS], ["v1"]), {}, 130.0, 1, "answers with v1 after 130 s (0 new and 261 old answers)"),
        (
            ([service(DONE)], [BROKEN]),
            {"timeout": 9.0},
            9.0,
            3,
            "dev: v2 of app is not proven to run after 9 s: https://dev.example.org/health answers without a version:"
            " HTTP status 503 (0 new and 0 old answers). In ECS, app is complete. To go on: `again`",
        ),
        # An endpoint that is not reached from here.
        (
            ([service(DONE)], [UNREACHED]),
            {},
            1.0,
            0,
            "its endpoint was not reached from here: https://dev.example.org/",
        ),
        (([service(DONE)], [UNREACHED]), {"timeout": 0.5}, 0.5, 0, "its endpoint was not reached from here"),
        (
            ([service(DONE)], [BROKEN, UNREACHED]),
            {"timeout": 9.0},
            9.0,
            3,
            "does not answer: Connection refused (0 new",
        ),
        # ECS cannot be read.
        (([DENIED],), {}, 6.0, 0, "7 answers with it in a row according to its endpoint alone; ECS was not read"),
        (
            ([DENIED], ["v1"]),
            {"timeout": 9.0},
            9.0,
            3,
            "answers with v1 (0 new and 10 old answers). ECS could not be read.",
        ),
        (
            ([DENIED], [UNREACHED]),
            {},
            66.0,
            3,
            "dev: v2 of app is not proven to run after 66 s: https://dev.example.org/health does not answer: Connection"
            " refused. ECS could not be read. To go on: `again`.",
        ),
        (([DENIED],), {"url": ""}, 6.0, 3, "dev: v2 of app is not proven to run after 6 s. ECS could not be read."),
        (([THROTTLED, DENIED, DENIED, service(DONE)],), {"url": ""}, 14.0, 0, "running tasks are on app:v2"),
        (([DENIED, THROTTLED] * 20,), {"url": ""}, 130.0, 3, "ECS could not be read."),
        (
            ([THROTTLED],),
            {"timeout": 9.0},
            9.0,
            3,
            "dev answers with v2, but its rollout in ECS is not complete after 9 s. ECS could not be read.",
        ),
        (
            ([service(NEW, OLD), THROTTLED], ["v1"]),
            {"timeout": 9.0},
            9.0,
            3,
            "In ECS, app is rolling out when it was last read: 0 of 2 tasks run.",
        ),
        (
            ([service(DONE)], ["v2"], THROTTLED),
            {"timeout": 9.0},
            9.0,
            3,
            "In ECS, app is complete when it was last read.",
        ),
        # Tasks that die.
        (
            ([DYING],),
            {"abort": True, "cannot_stop": True},
            0.0,
            1,
            "v2 of app failed, and could not be stopped: AccessD",
        ),
        (
            ([DYING], ["v1"]),
            {"abort": True, "timeout": 9.0},
            9.0,
            3,
            "(0 new and 10 old answers). In ECS, app is rolling out: 0 of 2 tasks run. To go on: `again`:\n  - 2 tasks",
        ),
        (
            ([DYING],),
            {},
            0.0,
            1,
            "dev: v2 of app failed: its tasks die, and ECS goes on starting new ones. `again --abort-on-failure` has"
            " ECS roll it back, --keep-waiting waits longer:\n  - 2 tasks died: ",
        ),
        # The restart of a version that is not known.
        (
            ([service(NEW)], ["v1"]),
            {"before": replace(STARTED, version=""), "timeout": 9.0},
            9.0,
            3,
            "dev: the restart of app is not p",
        ),
    ],
)
def test_each_end_comes_at_its_time_and_in_its_words(
    sequence: Any, plan: dict[str, Any], seconds: float, code: int, says: str
) -> None:
    """To the second: how long something may contradict, how long nothing is known, and when the time is over."""
    ended, sight = noted(*sequence, **plan)

    said = str(ended.failure) if ended.failure else " ".join((*ended.proof, ended.note))
    assert (sight.time.time, ended.failure.code if ended.failure else 0) == (seconds, code), said
    assert says in said
    asked = plan.get("url", URL) and "v1" in (sequence[1] if len(sequence) > 1 else ())
    assert ended.changed_from == ("v1" if asked else "")
    if "\n" in said:
        told = [line.removeprefix("  - ") for line in said.splitlines()[1:]]
        assert told == list(ended.reasons.lines or ("ECS gives no reason",))


def test_what_was_read_of_the_tasks_says_why_if_they_cannot_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be throttled just then."""
    reads = [DYING.stopped]

    def stopped(sight: Sight) -> tuple[Task, ...]:
        if not reads:
            raise THROTTLED
        return reads.pop()

    monkeypatch.setattr(Noted, "stopped", stopped)

    ended, _ = noted([DYING])

    assert ended.reasons.lines == ("2 tasks died: EssentialContainerExited: out of memory",)


@pytest.mark.parametrize(
    ("sequence", "plan", "expected"),
    [
        (
            ([service(NEW, OLD)], ["v1"]),
            {"timeout": 4.0},
            {"look": [0, 1, 2, 3, 4], "ask": [0, 1, 2, 3, 4], "stopped": [0, 4]},
        ),
        # Once it is complete, only the answers are missing.
        (
            ([service(DONE)], ["v1"]),
            {"timeout": 1.0},
            {"look": [0, 1], "ask": [0, 0.5, 1], "stopped": [0, 1], "running": [0]},
        ),
        # The running tasks: until they prove it, once the traffic has shifted if that is enough, else at the end.
        (([service(DONE)], ["v2"], STRAY), {"timeout": 2.0}, {"ask": [0, 0.5, 1, 1.5, 2], "running": [0, 1, 2]}),
        (([service(NEW, OLD), SHIFTED], ["v1"]), {"timeout": 3.0, "url": ""}, {"look": [0, 1, 2, 3]}),
        (([service(NEW, OLD)], ["v1"]), {"timeout": 3.0, "url": "", "until_traffic": True}, {"look": [0, 1, 2, 3]}),
        (
            ([service(NEW, OLD), SHIFTED], ["v1"]),
            {"timeout": 3.0, "url": "", "until_traffic": True},
            {"look": [0, 1], "running": [1]},
        ),
        # The images of an index: only if the digest is not the tag's own.
        (([service(DONE)], ["v1"], PULLED), {"timeout": 0.5, "before": PINNED}, {"ask": [0, 0.5], "running": [0]}),
        (
            ([service(DONE)], ["v1"], OF_INDEX),
            {"timeout": 0.5, "before": PINNED},
            {"ask": [0, 0.5], "running": [0], "variants": [0]},
        ),
        # Which tasks have stopped: from time to time, whenever ECS counts another failure, and at the end.
        (
            ([*[service(replace(NEW, failed=n), OLD) for n in (0, 1, 1, 3, 3, 3, 3)]], ["v1"]),
            {"timeout": 11.0, "url": ""},
            {"look": list(range(12)), "stopped": [0, 1, 3, 5, 10, 11]},
        ),
        # Failures are repeated less and less often.
        (
            ([THROTTLED], [UNREACHED]),
            {"timeout": 60.0},
            {"look": [0, 2, 6, 14, 29, 44, 59], "ask": [0, 1, 2, 3, 6, 11, 20, 36, 52]},
        ),
        (
            ([THROTTLED, THROTTLED, service(NEW, OLD), THROTTLED], ["v1"]),
            {"timeout": 13.0, "url": ""},
            {"look": [0, 2, 6, 7, 9, 13], "stopped": [6, 13]},
        ),
        # The endpoint answered before.
        (([service(NEW, OLD)], ["v1", UNREACHED]), {"timeout": 9.0}, {"ask": list(range(10))}),
        # The strategy bakes for a minute.
        (([service(NEW, OLD, bake=1.0)], ["v1"]), {"timeout": 4.0}, {"ask": list(range(65))}),
    ],
)
def test_each_source_is_asked_at_its_time(sequence: Any, plan: dict[str, Any], expected: dict[str, Any]) -> None:
    """Often enough to say the end at once, and not more often than that."""
    _, sight = noted(*sequence, **plan)

    assert {what: sight.noted.get(what) for what in expected} == expected
    assert set(sight.noted) - set(expected) <= {"look", "stopped"}


@pytest.mark.parametrize(
    ("sequence", "plan", "expected"),
    [
        (
            (
                [
                    service(NEW, OLD),
                    service(NEW, OLD),
                    service(deployment("v2", state="IN_PROGRESS"), DRAINING),
                    service(DONE),
                ],
            ),
            {},
            [
                "ECS: app is rolling out: 0 of 2 tasks run",
                f"{URL} answers with v2",
                "ECS: app is rolling out: 2 of 2 tasks run",
                "ECS: app is complete",
            ],
        ),
        (
            ([service(deployment("v2", desired=0, running=0))],),
            {"url": ""},
            [],
        ),
        (
            (
                [
                    THROTTLED,
                    DENIED,
                    service(NEW, OLD, record=rolls(stage="SCALE_UP")),
                    THROTTLED,
                    THROTTLED,
                    service(DONE),
                ],
            ),
            {"url": ""},
            [
                "ECS cannot be read, trying again: ThrottlingException",
                "ECS: app is rolling out: 0 of 2 tasks run (scale up)",
                "ECS cannot be read, trying again: ThrottlingException",
                "ECS: app is complete",
            ],
        ),
        (
            (
                [
                    service(NEW, DRAINING, breaker=False, stopped=(dead(0, reason="first", containers=()),)),
                    service(WENT_BACK, FAILED),
                ],
            ),
            {"url": ""},
            [
                "ECS: app is rolling out: 0 of 2 tasks run; 1 task died: EssentialContainerExited: first",
                "ECS: app was rolled back",
            ],
        ),
        (
            (
                [
                    service(
                        NEW,
                        DRAINING,
                        stopped=tuple(dead(n, reason=why, containers=()) for n, why in enumerate(("a", "b", "b"))),
                    ),
                    service(GOES_BACK, FAILED, stopped=(dead(0, reason="c", containers=()),)),
                    service(WENT_BACK, FAILED, stopped=(dead(0, reason="d", containers=()),)),
                ],
            ),
            {"url": "", "before": replace(STARTED, patient=True)},
            [
                "ECS: app is rolling out: 0 of 2 tasks run; 2 tasks died: EssentialContainerExited: b",
                "ECS: app is rolling back; 2 tasks died: EssentialContainerExited: b",
                "ECS: app was rolled back",
            ],
        ),
        (
            ([DYING, service(NEW, OLD, record=rolls("ROLLBACK_IN_PROGRESS")), service(WENT_BACK, FAILED)],),
            {"url": "", "abort": True},
            [
                "ECS: app failed",
                "tasks of app die for the same reason: having ECS stop the deployment and roll back",
                "ECS: app is rolling back; 2 tasks died: EssentialContainerExited: out of memory",
                "ECS: app was rolled back",
            ],
        ),
        (
            ([service(NEW, OLD)], ["v1"]),
            {"timeout": 61.0},
            [
                "ECS: app is rolling out: 0 of 2 tasks run",
                f"{URL} answers with v1",
                f"{URL}: 0 new and 31 old answers so far",
                f"{URL}: 0 new and 61 old answers so far",
            ],
        ),
    ],
    ids=["in progress", "nothing", "cannot be read", "a death", "the most frequent", "abort", "counts"],
)
def test_each_change_is_said_once_while_it_is_watched(
    sequence: Any, plan: dict[str, Any], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With why it does not get on, which is no news at the end."""
    noted(*sequence, **plan)

    assert capsys.readouterr().err.splitlines() == expected


@pytest.mark.parametrize(
    ("seen", "now", "expected"),
    [
        (None, service(), []),
        (None, service(OLD), [Bar("old app:v1", 2, 2, "2 of 2 tasks run")]),
        (
            NEW,
            service(NEW, DRAINING),
            [Bar("new app:v2", 0, 2, "0 of 2 tasks run"), Bar("old app:v1", 2, 2, "2 of 2 tasks run")],
        ),
        (
            NEW,
            service(replace(NEW, desired=4, running=3, failed=1), replace(DRAINING, desired=0)),
            [Bar("new app:v2", 3, 4, "3 of 4 tasks run, 1 failed"), Bar("old app:v1", 2, 4, "2 tasks drain")],
        ),
        (NEW, service(DONE, replace(DRAINING, desired=0, running=0)), [Bar("new app:v2", 2, 2, "2 of 2 tasks run")]),
        (NEW, service(replace(NEW, desired=1, running=3)), [Bar("new app:v2", 3, 3, "3 of 1 tasks run")]),
        (
            NEW,
            service(NEW, replace(THEIRS, running=0, pending=1)),
            [Bar("new app:v2", 0, 2, "0 of 2 tasks run"), Bar("old app:v3", 0, 2, "0 of 2 tasks run")],
        ),
    ],
)
def test_what_a_terminal_shows_of_the_tasks(seen: Deployment | None, now: Service, expected: list[Bar]) -> None:
    """Ours from the start, the others as long as they have some; all on the scale of the largest."""
    assert watch._tasks(replace(STARTED, seen=seen), now) == expected


def test_a_terminal_shows_the_tasks_and_the_newest_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this deployment; it is cleared at the end."""
    shown: list[Any] = []
    monkeypatch.setattr(watch.console, "progress", lambda *bars, event="": shown.append((len(bars), event)))
    old, first, last = (OLD_AT, "has reached a steady state."), (NEW_AT, "started"), (LATER, "registered")
    looks = [
        service(OLD, events=[old]),
        service(NEW, OLD, events=[first, old]),
        service(DONE, events=[last, first, old]),
    ]

    noted(looks, url="")

    assert shown == [(1, ""), (2, "(service app) started"), (1, "(service app) registered"), (0, "")]


def test_the_end_is_said_within_two_seconds_at_the_median() -> None:
    """From the end of a rollout to the last line, with requests that take 0.2 s each."""
    took = []
    for number in range(41):
        time, ends = Time(), 10 + number * 0.173
        sight = Sight([service(DONE)])

        def look(before: Before, time: Time = time, ends: float = ends) -> Service:
            time.sleep(0.4)
            return service(DONE) if time.time >= ends else service(NEW, DRAINING)

        def ask(url: str, timeout: float, time: Time = time, ends: float = ends) -> str:
            time.sleep(0.2)
            return "v2" if time.time >= ends - 2 else "v1"

        sight.look = look  # type: ignore[method-assign]
        sight.now = service(DONE)
        plan = watch.Plan("dev", "app", STARTED, URL, 300.0, "again")
        assert watch.watch(plan, sight, ask=ask, clock=time.clock).failure is None
        took.append(time.time + 0.4 - ends)

    assert statistics.median(took) < 2


RECORDED = {
    "PENDING": Verdict.IN_PROGRESS,
    "IN_PROGRESS": Verdict.IN_PROGRESS,
    "STOP_REQUESTED": Verdict.IN_PROGRESS,
    "SUCCESSFUL": Verdict.SUCCEEDED,
    "STOPPED": Verdict.STOPPED,
    "ROLLBACK_REQUESTED": Verdict.ROLLING_BACK,
    "ROLLBACK_IN_PROGRESS": Verdict.ROLLING_BACK,
    "ROLLBACK_SUCCESSFUL": Verdict.ROLLED_BACK,
    "ROLLBACK_FAILED": Verdict.FAILED,
    "SOMETHING_NEW": Verdict.IN_PROGRESS,
}


@pytest.mark.parametrize("before", [UNKNOWN, OURS, STARTED], ids=["by its image", "by its id", "as it was started"])
@pytest.mark.parametrize("status", RECORDED)
def test_each_status_of_ecs_own_record_has_its_verdict(status: str, before: Before) -> None:
    """Whatever DescribeServices shows beside it."""
    for now in (service(NEW, OLD), service(DONE), service(OLD), service()):
        assert verdict(before, replace(now, record=rolls(status))) is RECORDED[status]


@pytest.mark.parametrize(
    ("record", "shifted"),
    [
        *((rolls(stage=stage), True) for stage in ("POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP")),
        *((rolls(stage=stage), False) for stage in ("SCALE_UP", "TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT", "")),
        (rolls(stage="PRODUCTION_TRAFFIC_SHIFT", traffic=100.0), True),
        (rolls(stage="PRODUCTION_TRAFFIC_SHIFT", traffic=99.0), False),
        (rolls("SUCCESSFUL"), True),
        (rolls("ROLLBACK_IN_PROGRESS", stage="CLEAN_UP", traffic=100.0), False),
    ],
)
def test_the_traffic_has_shifted_once_all_of_it_has(record: Record, shifted: bool) -> None:
    """Later stages imply it, where ECS gives no weights."""
    assert has_shifted(STARTED, service(NEW, OLD, record=record)) is shifted


@pytest.mark.parametrize("strategy", ["ROLLING", "BLUE_GREEN", "LINEAR", "CANARY"])
@pytest.mark.parametrize("more", [{}, {"running": 1}, {"pending": 1}, {"running": 3}])
def test_without_a_record_a_gradual_rollout_bakes_once_its_tasks_run(strategy: str, more: dict[str, int]) -> None:
    """A rolling one is complete instead."""
    ours = deployment("v2", state="IN_PROGRESS", **more)
    bakes = strategy != "ROLLING" and (more.get("running", 2) >= 2 and not more.get("pending"))

    found = verdict(STARTED, service(ours, DRAINING, strategy=strategy, bake=5.0))

    assert found is (Verdict.BAKING if bakes else Verdict.IN_PROGRESS)
    assert verdict(STARTED, service(ours, DRAINING, strategy=strategy)) is Verdict.IN_PROGRESS


@pytest.mark.parametrize(
    ("failed", "desired", "breaker", "hopeless"),
    [
        (9, 2, False, False),
        (10, 2, False, True),
        (19, 10, False, False),
        (20, 10, False, True),
        (40, 2, True, False),
    ],
)
def test_without_a_breaker_many_failed_tasks_are_enough(
    failed: int, desired: int, breaker: bool, hopeless: bool
) -> None:
    """Where the tasks themselves are not known. ECS's own breaker gives up at half the desired count."""
    ours = replace(NEW, failed=failed, desired=desired)

    assert (verdict(STARTED, service(ours, breaker=breaker)) is Verdict.FAILED) is hopeless


@pytest.mark.parametrize(
    ("threshold", "died", "hopeless"), [(0, 9, False), (0, 10, True), (6, 11, False), (6, 12, True)]
)
def test_a_breaker_that_rolls_back_gets_its_time(threshold: int, died: int, hopeless: bool) -> None:
    """Twice its threshold; --abort-on-failure waits for two."""
    now = service(NEW, record=rolls(threshold=threshold), stopped=tuple(dead(n) for n in range(died)))

    assert (verdict(STARTED, now) is Verdict.FAILED) is hopeless
    assert verdict(replace(STARTED, eager=True), now) is Verdict.FAILED
    assert verdict(replace(STARTED, eager=True, patient=True), now) is Verdict.IN_PROGRESS


@pytest.mark.parametrize(
    ("images", "digest", "ours"),
    [
        ((f"registry:5000/app@{DIGEST}",), DIGEST, True),
        ((f"registry:5000/app@{DIGEST}",), "", False),
        ((f"registry:5000/app@{OTHER_DIGEST}",), DIGEST, False),
        ((f"registry:5000/app:v2@{DIGEST}",), "", True),
        ((f"registry:5000/app:v1@{DIGEST}",), DIGEST, True),
        ((f"registry:5000/app@{OTHER_DIGEST}", PINNED_SIDECAR), DIGEST, False),
        (("registry:5000/app:v1", "registry/sidecar:v2"), "", False),
        (("registry:5000/v2", "registry:5000/app:xv2", "<not an image>"), "", False),
        (("registry:5000/app", "registry:5000/team/app:v2"), "", False),
    ],
)
def test_only_the_tag_or_the_digest_of_the_services_own_image_tells_ours(
    images: tuple[str, ...], digest: str, ours: bool
) -> None:
    """A sidecar's image does not, and neither does a digest that nobody has given."""
    found = verdict(Before("v2", "app", digest=digest), service(deployment("", images=images)))

    assert found is (Verdict.SUCCEEDED if ours else Verdict.NOT_STARTED)


SINCE = Before("v2", "app", since=NEW_AT)
# Of the task definition that ran before.
RESTART = replace(STARTED, task_definition=OLD.task_definition, seen=replace(OLD, id="ecs-svc/new", created=NEW_AT))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (OURS, service(OLD, events=[(LATER, FAILED_EVENT.replace("new)", "news)"))]), Verdict.NOT_STARTED),
        (OURS, service(THEIRS, events=[(NEW_AT, FAILED_EVENT)]), Verdict.FAILED),
        (
            OURS,
            service(THEIRS, events=[(NEW_AT, "(deployment ecs-svc/new) deployment completed.")]),
            Verdict.SUPERSEDED,
        ),
        (OURS, service(THEIRS), Verdict.SUPERSEDED),
        (OURS, service(GOES_BACK), Verdict.NOT_STARTED),
        (UNKNOWN, service(THEIRS), Verdict.NOT_STARTED),
        (SINCE, service(OLD, events=[(NEW_AT, BACK_EVENT)]), Verdict.ROLLED_BACK),
        (SINCE, service(OLD, events=[(YESTERDAY, BACK_EVENT)]), Verdict.NOT_STARTED),
        (
            SINCE,
            service(replace(WENT_BACK, reason="", created=LATER + 5), events=[(LATER, BACK_EVENT)]),
            Verdict.ROLLED_BACK,
        ),
        (
            SINCE,
            service(replace(WENT_BACK, reason="", created=LATER + 6), events=[(LATER, BACK_EVENT)]),
            Verdict.NOT_STARTED,
        ),
        (STARTED, service(replace(WENT_BACK, reason="")), Verdict.ROLLED_BACK),
        (STARTED, service(replace(GOES_BACK, reason="")), Verdict.ROLLING_BACK),
        (STARTED, service(OLD, events=[(OLD_AT, "has reached a steady state.")]), Verdict.NOT_STARTED),
        (STARTED, service(OLD, events=[(LATER, FAILED_EVENT)]), Verdict.ROLLED_BACK),
        (STARTED, service(THEIRS, events=[(LATER, FAILED_EVENT)]), Verdict.FAILED),
        (AFTER, service(THEIRS), Verdict.NOT_STARTED),
        (replace(STARTED, seen=NEW), service(THEIRS, events=[(LATER - 6, BACK_EVENT)]), Verdict.SUPERSEDED),
        (replace(STARTED, seen=NEW), service(THEIRS, events=[(LATER + 6, BACK_EVENT)]), Verdict.SUPERSEDED),
        (replace(STARTED, seen=NEW), service(THEIRS, events=[(LATER + 5, BACK_EVENT)]), Verdict.ROLLING_BACK),
        (replace(OURS, seen=NEW), service(OLD), Verdict.ROLLED_BACK),
        (replace(UNKNOWN, seen=NEW), service(replace(AGAIN, id="x", created=LATER)), Verdict.SUCCEEDED),
        (
            replace(UNKNOWN, seen=NEW),
            service(replace(AGAIN, id="x", created=LATER), events=[(LATER, BACK_EVENT)]),
            Verdict.ROLLED_BACK,
        ),
        (UNKNOWN, service(replace(AGAIN, reason=BACK), FAILED), Verdict.ROLLED_BACK),
        (UNKNOWN, service(replace(AGAIN, id="back", created=LATER, reason=BACK), FAILED), Verdict.ROLLED_BACK),
        (UNKNOWN, service(replace(AGAIN, id="back", created=LATER, reason=BACK), DRAINING), Verdict.SUCCEEDED),
        (OURS, service(replace(OLD, desired=0)), Verdict.NOTHING),
        (UNKNOWN, service(replace(OLD, desired=0)), Verdict.NOT_STARTED),
        (UNKNOWN, service(replace(DONE, desired=0)), Verdict.NOTHING),
        (OURS, service(replace(THEIRS, desired=0)), Verdict.SUPERSEDED),
        (OURS, service(THEIRS, record=rolls("ROLLBACK_SUCCESSFUL")), Verdict.ROLLED_BACK),
        (OURS, service(THEIRS, record=rolls("SUCCESSFUL")), Verdict.SUPERSEDED),
        (OURS, service(replace(THEIRS, created=NEW_AT), record=rolls("SUCCESSFUL")), Verdict.SUCCEEDED),
        (OURS, service(replace(THEIRS, reason=BACK), record=rolls("SUCCESSFUL")), Verdict.SUCCEEDED),
        (OURS, service(replace(DONE, id="ecs-svc/again", created=LATER), record=rolls("STOPPED")), Verdict.STOPPED),
        (STARTED, service(replace(WENT_BACK, reason=""), record=rolls("ROLLBACK_SUCCESSFUL")), Verdict.ROLLED_BACK),
        (RESTART, service(replace(OLD, id="ecs-svc/again", created=LATER)), Verdict.SUPERSEDED),
        (RESTART, service(OLD), Verdict.ROLLED_BACK),
        (UNKNOWN, service(replace(AGAIN, reason=BACK, state="IN_PROGRESS")), Verdict.IN_PROGRESS),
    ],
)
def test_without_a_record_ids_times_and_states_count_before_words(
    before: Before, now: Service, expected: Verdict
) -> None:
    """One look, at what a deployment may leave behind in DescribeServices."""
    assert verdict(before, now) is expected


def test_the_words_of_a_verdict_are_those_of_the_receipts() -> None:
    """Programs read them."""
    assert [one.value for one in Verdict] == [
        "has not started",
        "in progress",
        "baking",
        "succeeded",
        "rolling back",
        "rolled back",
        "failed",
        "superseded",
        "stopped by somebody",
        "nothing to verify",
    ]
    assert {one for one in Verdict if not one.ended} == {
        Verdict.NOT_STARTED,
        Verdict.IN_PROGRESS,
        Verdict.BAKING,
        Verdict.ROLLING_BACK,
    }
