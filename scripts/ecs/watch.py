"""Watches a deployment to its end: in ECS, as far as that can be read, and at the endpoint of the application.

Success needs ECS's word that the deployment is complete with every running task on it, or several answers of the
version in a row; where both can be had, both. A look that fails is repeated, and nothing is decided until it succeeds.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from scripts.ecs import proof, reasons, rollout
from scripts.ecs.proof import Answers, Tasks
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import Before, Deployment, Service, Task, Verdict
from scripts.edges import http
from scripts.edges.aws import Denied
from scripts.frame import console, waiting
from scripts.frame import version as versions
from scripts.frame.errors import DeployError, OutcomeUnknown, RolledBack
from scripts.frame.report import Bar
from scripts.frame.waiting import CLOCK, Clock, TimedOut

# Seconds: between two ticks, two looks at ECS, two requests to the endpoint; the longest pause after failures.
TICK, LOOK, ASK, LONGEST_PAUSE = 0.5, 1.0, 1.0, 15.0
REQUEST_TIMEOUT = 2.0
# Seconds between two reads of the tasks that have stopped, and between two reports of how many answers were new.
STOPPED, REPORT = 5.0, 30.0
# After this many denials in a row, and no look that succeeded, the right to read ECS is missing.
DENIALS = 3
# Seconds: how long the endpoint or the tasks may contradict a deployment that is complete; how long an endpoint that
# does not answer is asked where ECS cannot be read; how long ECS may show another deployment before it shows ours.
SETTLE, GIVE_UP, CERTAIN = 120.0, 60.0, 5.0


class Sight(Protocol):
    """How ECS is looked at: `reader.Reader`."""

    def look(self, before: Before) -> Service: ...
    def running(self) -> tuple[Task, ...] | None: ...
    def stopped(self) -> tuple[Task, ...]: ...
    def stop(self) -> None: ...
    def variants(self, repository: str, digest: str) -> frozenset[str]: ...
    def explain(self, before: Before, now: Service) -> Reasons: ...


class Plan(Struct, frozen=True):
    """What to watch. where: what messages name. url: of the healthcheck, empty for none. timeout: seconds.

    digest: of the image, empty if not known. again: the command that goes on watching. until_traffic: it is enough that
    all traffic goes to the new revision. abort: have ECS roll back as soon as the tasks turn out to fail.
    """

    where: str
    service: str
    before: Before
    url: str
    timeout: float
    again: str
    until_traffic: bool = False
    abort: bool = False

    @property
    def what(self) -> str:
        """What is deployed where, for messages."""
        version = versions.short(self.before.version) if self.before.version else "the restart"
        return f"{self.where}: {version} of {self.service}"


class Ended(Struct, frozen=True):
    """How the watch ended. verdict: None if ECS could not be read. failure: the error to raise, None after a success.

    proof: what a success rests on, in sentences. note: a restriction of it, or empty. changed_from: the last other
    version that answered.
    """

    verdict: Verdict | None
    failure: DeployError | None = None
    proof: tuple[str, ...] = ()
    note: str = ""
    changed_from: str = ""
    reasons: Reasons = field(default_factory=Reasons)


def watch(
    plan: Plan,
    sight: Sight | None,
    *,
    ask: Callable[[str, float], str] = versions.answering,
    clock: Clock = CLOCK,
) -> Ended:
    """Watch until the deployment has ended, or to the timeout. sight: None if ECS cannot be asked at all.

    Time that the deployment's strategy bakes is added to the timeout.
    """
    watching = _Watch(plan, sight, ask, clock)
    try:
        return waiting.wait(watching.tick, seconds=plan.timeout + watching.bake(), every=TICK, clock=clock)
    except TimedOut:
        return watching.unfinished()
    finally:
        console.progress()


class _Watch:
    def __init__(self, plan: Plan, sight: Sight | None, ask: Callable[[str, float], str], clock: Clock) -> None:
        self._plan, self._sight, self._ask, self._clock = plan, sight, ask, clock
        self._before = replace(plan.before, eager=plan.abort)
        self._began = clock.now()
        self._answers = Answers()
        self._service: Service | None = None
        self._verdict: Verdict | None = None
        self._tasks: Tasks | None = None
        self._stopped: tuple[Task, ...] = ()
        # Failed looks and denials since the last look that succeeded.
        self._failed = self._denied = 0
        self._said = ""
        self._since = dict[object, float]()
        self._due = dict.fromkeys(("look", "ask", "stopped", "report"), self._began)

    # What there is to see

    def bake(self) -> float:
        """Seconds that the strategy keeps both revisions."""
        self._look()
        return 60 * self._service.bake if self._service else 0.0

    def tick(self) -> tuple[str, Ended | None]:
        """Look once at everything that is due. Returns a line to print, and how the watch ended, if it did."""
        self._look()
        self._request()
        ended = self._ended()
        return self._line(), ended

    def _is_due(self, what: str, every: float) -> bool:
        now = self._clock.now()
        if now < self._due[what]:
            return False
        self._due[what] = now + every
        return True

    def _look(self) -> None:
        if self._sight is None or not self._is_due("look", LOOK):
            return
        try:
            now = self._sight.look(self._before)
            self._read_stopped(now)
        except DeployError as error:
            self._failed += 1
            self._denied = self._denied + 1 if isinstance(error, Denied) else 0
            self._due["look"] += min(LONGEST_PAUSE, 2.0 ** min(self._failed, 5)) - LOOK
            if self._failed == 1:
                console.say(f"ECS cannot be read, trying again: {error}")
            return
        self._failed = self._denied = 0
        self._service = replace(now, stopped=self._stopped)
        self._before = replace(self._before, seen=rollout.find(self._before, self._service))
        console.progress(*_tasks(self._before, self._service), event=self._last_event(self._service))
        self._judge(self._service)

    def _last_event(self, now: Service) -> str:
        new = rollout.new_events(self._before, now, rollout.start(self._before, now))
        return new[0].message if new else ""

    def _read_stopped(self, now: Service) -> None:
        """Read the tasks that have stopped: from time to time, and whenever ECS counts another failure."""
        ours = rollout.find(self._before, now)
        more = ours is not None and self._before.seen is not None and ours.failed > self._before.seen.failed
        if self._sight and (self._is_due("stopped", STOPPED) or more):
            self._stopped = self._sight.stopped()

    def _judge(self, now: Service) -> None:
        found = rollout.verdict(self._before, now)
        if found is not self._verdict:
            self._since["verdict"] = self._clock.now()
            self._tasks = None
        self._verdict = found
        line = f"ECS: {now.name} {found.says}{_detail(self._before, now, found)}{_trouble(self._before, now, found)}"
        if line != self._said and found is not Verdict.NOTHING:
            console.say(line)
            self._said = line
        if found is Verdict.SUCCEEDED or (self._plan.until_traffic and rollout.has_shifted(self._before, now)):
            self._read_tasks(now)

    def _read_tasks(self, now: Service) -> None:
        if self._sight is None or (self._tasks and self._tasks.proven):
            return
        try:
            running = self._sight.running()
            self._tasks = None if running is None else self._prove(running, now)
        except DeployError:
            self._failed += 1

    def _prove(self, running: tuple[Task, ...], now: Service) -> Tasks:
        ours, record = self._before.seen, now.record
        revision = ours.task_definition if ours else record.task_definition if record else self._before.task_definition
        draining = {d.id for d in now.deployments if ours and d.created < ours.created}
        repository, digest = self._before.repository, self._before.digest
        found = proof.of_tasks(running, revision, draining, repository, [digest] if digest else [])
        if found.proven or not digest or self._sight is None:
            return found
        # The digest of a tag may be that of an index, and a task runs one of the images in it.
        variants = self._sight.variants(repository, digest)
        return proof.of_tasks(running, revision, draining, repository, [digest, *sorted(variants)])

    def _request(self) -> None:
        if not self._plan.url or not self._is_due("ask", ASK if self._verdict is not Verdict.SUCCEEDED else TICK):
            return
        try:
            found = self._ask(self._plan.url, REQUEST_TIMEOUT)
            self._answers = self._answers.with_version(found, self._before.version)
        except http.Unreachable as error:
            self._answers = self._answers.without_version(str(error), reached=False)
            if not self._answers.reached and self._answers.failed > proof.UNREACHED:
                self._due["ask"] += min(LONGEST_PAUSE, 2.0 ** min(self._answers.failed - proof.UNREACHED, 5))
        except DeployError as error:
            self._answers = self._answers.without_version(str(error), reached=True)

    def _line(self) -> str:
        if not self._plan.url:
            return ""
        if self._is_due("report", REPORT) and self._answers.new + self._answers.old > proof.MATCHES:
            console.say(f"{self._plan.url}: {self._answers.counts} so far")
        return f"{self._plan.url} {self._answers.last}"

    # What follows from it

    @property
    def _blind(self) -> bool:
        """Whether ECS cannot be read at all. A read that fails for another reason than a missing right is repeated."""
        return self._sight is None or (self._service is None and self._denied >= DENIALS)

    def _elapsed(self, what: object) -> float:
        """Seconds since something was first asked about, or changed."""
        return self._clock.now() - self._since.setdefault(what, self._clock.now())

    def _ended(self) -> Ended | None:
        if self._blind:
            return self._by_endpoint()
        if self._failed or self._verdict is None or self._service is None:
            return None
        if self._verdict.lost:
            return self._lost(self._verdict, self._service)
        if self._verdict is Verdict.NOTHING:
            gone = self._service.status != "ACTIVE"
            return Ended(self._verdict, proof=("the service is being deleted" if gone else "no task is desired",))
        if self._verdict is Verdict.NOT_STARTED and not self._before.started and self._answers.proven:
            # Its image may only be named differently, such as by its digest.
            return self._succeeded("according to its endpoint alone; ECS shows no deployment with that image")
        shifted = self._plan.until_traffic and rollout.has_shifted(self._before, self._service)
        return self._complete() if self._verdict is Verdict.SUCCEEDED or shifted else None

    def _by_endpoint(self) -> Ended | None:
        if self._answers.proven:
            return self._succeeded("according to its endpoint alone; ECS was not read")
        hopeless = not self._plan.url or (self._answers.unreachable and self._elapsed("blind") >= GIVE_UP)
        return self.unfinished() if hopeless else None

    def _complete(self) -> Ended | None:
        """ECS says that the deployment is complete: whether its tasks and its endpoint agree."""
        if self._tasks and not self._tasks.proven:
            settled = self._elapsed("verdict") >= SETTLE
            return self._contradicted(f"but {self._tasks.says}") if settled else None
        if not self._plan.url or self._answers.proven:
            return self._succeeded("" if self._tasks else "its tasks were not read")
        if self._answers.unreachable:
            return self._succeeded(f"its endpoint was not reached from here: {self._plan.url} {self._answers.last}")
        drains = self._tasks.drains if self._tasks else 0
        if self._answers.contradicts and not drains and self._elapsed("verdict") >= SETTLE:
            return self._contradicted(f"but {self._plan.url} {self._answers.last} ({self._answers.counts})")
        return None

    def _succeeded(self, note: str) -> Ended:
        proven = []
        if self._verdict in (Verdict.SUCCEEDED, Verdict.BAKING, Verdict.IN_PROGRESS):
            proven.append(f"in ECS, {self._tasks.says if self._tasks else 'the deployment is complete'}")
        if self._answers.proven:
            proven.append(f"its endpoint gave {self._answers.row} answers with it in a row")
        return Ended(self._verdict, None, tuple(proven), note, self._answers.other)

    def _contradicted(self, how: str) -> Ended:
        return self._failure(DeployError, f"{self._plan.what} is complete in ECS, {how}")

    def _lost(self, verdict: Verdict, now: Service) -> Ended | None:
        # ECS answers from copies: one that does not show ours yet may show another one, and the record may say that
        # ours was stopped before the service shows by what.
        unseen = verdict is Verdict.SUPERSEDED and self._before.seen is None
        if (unseen or verdict is Verdict.STOPPED) and self._elapsed("verdict") < CERTAIN:
            return None
        given_up = verdict is Verdict.FAILED and not rollout.verdict(replace(self._before, patient=True), now).ended
        if given_up and self._plan.abort:
            return self._abort(now)
        return self._failure(error_of(verdict), f"{self._plan.what} {self._how(verdict, now, given_up)}")

    def _abort(self, now: Service) -> Ended | None:
        """Have ECS stop the deployment and roll back, then go on watching that."""
        console.say(f"tasks of {now.name} die for the same reason: having ECS stop the deployment and roll back")
        try:
            if self._sight:
                self._sight.stop()
        except DeployError as error:
            return self._failure(DeployError, f"{self._plan.what} failed, and could not be stopped: {error}")
        self._before, self._verdict = replace(self._before, patient=True), None
        return None

    def _how(self, verdict: Verdict, now: Service, given_up: bool) -> str:
        if verdict is Verdict.ROLLED_BACK:
            return "was rolled back, the previous version runs"
        if verdict is Verdict.SUPERSEDED and now.primary:
            return f"{verdict.says} ({now.primary.task_definition.rpartition('/')[2]})"
        if given_up:
            return (
                "failed: its tasks die, and ECS goes on starting new ones."
                f" `{self._plan.again} --abort-on-failure` has ECS roll it back, --keep-waiting waits longer"
            )
        if verdict is Verdict.FAILED and not now.takes_back:
            return "failed. The service has no circuit breaker that rolls back: deploy the previous version"
        return verdict.says

    def unfinished(self) -> Ended:
        """The end at the timeout, or where nothing can be proven."""
        seconds = f"after {self._clock.now() - self._began:.0f} s"
        complete = self._verdict is Verdict.SUCCEEDED and not self._failed
        if complete and self._tasks and not self._tasks.proven:
            return self._contradicted(f"but {self._tasks.says} {seconds}")
        if complete and self._answers.contradicts:
            return self._contradicted(f"but {self._plan.url} {self._answers.last} {seconds} ({self._answers.counts})")
        if complete and not self._answers.reached:
            return self._succeeded(f"its endpoint was not reached from here: {self._plan.url} {self._answers.last}")
        return self._failure(
            OutcomeUnknown, f"{self._unclear(seconds)}{self._in_ecs()} To go on: `{self._plan.again}`."
        )

    def _unclear(self, seconds: str) -> str:
        """What the endpoint says, in a sentence. It never says that a version does not run while it answers."""
        version, url = versions.short(self._before.version) or "the restart", self._plan.url
        if self._answers.proven:
            return f"{self._plan.where} answers with {version}, but its rollout in ECS is not complete {seconds}."
        said = f": {url} {self._answers.last}" if self._answers.last else ""
        counts = f" ({self._answers.counts})" if self._answers.reached else ""
        return f"{self._plan.what} is not proven to run {seconds}{said}{counts}."

    def _in_ecs(self) -> str:
        if self._sight is None or self._service is None or self._verdict is None:
            return " ECS could not be read."
        stale = " when it was last read" if self._failed else ""
        detail = _detail(self._before, self._service, self._verdict)
        return f" In ECS, {self._service.name} {self._verdict.says}{stale}{detail}."

    def _failure(self, kind: type[DeployError], message: str) -> Ended:
        found = Reasons()
        if self._sight and self._service:
            with_tasks = replace(self._service, stopped=self._newest_stopped())
            found = self._sight.explain(self._before, with_tasks)
        why = "".join(f"\n  - {line}" for line in found.lines) or "\n  - ECS gives no reason"
        whole = f"{message.rstrip('.')}:{why}" if self._service else message
        return Ended(self._verdict, kind(whole), changed_from=self._answers.other, reasons=found)

    def _newest_stopped(self) -> tuple[Task, ...]:
        try:
            return self._sight.stopped() if self._sight else ()
        except DeployError:
            return self._stopped


def _tasks(before: Before, now: Service) -> list[Bar]:
    """The tasks of the deployment that is followed, and of the others that still have some."""
    ours = before.seen
    there = [d for d in now.deployments if d.running or d.pending or (ours and d.id == ours.id)]
    wanted = max((d.desired for d in now.deployments), default=0)
    return [
        Bar(
            f"{'new' if ours and d.id == ours.id else 'old'} {d.task_definition.rpartition('/')[2]}",
            d.running,
            max(wanted, d.running),
            _counts(d) if d.desired else f"{d.running} tasks drain",
        )
        for d in there
    ]


def _detail(before: Before, now: Service, verdict: Verdict) -> str:
    """How far the deployment is."""
    ours, record = before.seen, now.record
    if verdict is Verdict.BAKING:
        planned = f", for {now.bake:g} min in all" if now.bake else ""
        hook = f", waiting for the hook {record.hook}" if record and record.hook else ""
        shifted = "has shifted" if rollout.has_shifted(before, now) else "has not shifted"
        return f"{planned}{hook}: the traffic {shifted}"
    if verdict is Verdict.IN_PROGRESS and ours:
        return f": {_counts(ours)}{_stage(record.stage, record.traffic) if record else ''}"
    return ""


def _trouble(before: Before, now: Service, verdict: Verdict) -> str:
    """Why it does not get on, while it is still under way: the end may be minutes away."""
    if verdict not in (Verdict.IN_PROGRESS, Verdict.ROLLING_BACK):
        return ""
    return "".join(f"; {line}" for line in reasons.grouped(rollout.deaths(before, now))[:1])


def _counts(ours: Deployment) -> str:
    failed = f", {ours.failed} failed" if ours.failed else ""
    return f"{ours.running} of {ours.desired} tasks run{failed}"


def _stage(stage: str, traffic: float | None) -> str:
    on_it = f", {traffic:g} % of the traffic" if traffic else ""
    return f" ({stage.lower().replace('_', ' ')}{on_it})" if stage else on_it


def error_of(verdict: Verdict) -> type[DeployError]:
    """The kind of error that a deployment without success is."""
    return RolledBack if verdict is Verdict.ROLLED_BACK else DeployError
