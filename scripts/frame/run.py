"""Runs a command: chooses its environment, asks for a confirmation, prints plans and results, reports the end.

A command reads what it needs, decides in a pure function that returns a plan, and hands the plan to `Run.act` with
the function that acts on it. A dry run prints the plan and stops there, so it cannot differ from the run.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

from scripts.frame import console, settings, stop, summary, text, waiting
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Plan, Report, aligned
from scripts.frame.settings import Environment
from scripts.frame.stop import Stopped
from scripts.frame.summary import Phase

if TYPE_CHECKING:
    from scripts.edges.aws import Destination

T = TypeVar("T")
P = TypeVar("P", bound=Plan)
R = TypeVar("R", bound=Report)


class Step(Struct):
    """One step of a command in the report: its plan and, once it has run, its result. seconds: how long it took."""

    name: str
    plan: Plan | None = None
    result: Report | None = None
    seconds: float = 0.0


@dataclass
class Run:
    """One run of a command. steps: what it did so far. progress: which steps are done, for the message after a stop.

    destination: where its requests to AWS go; None for a command that sends none. yes: --yes was given. force_lock,
    lock_wait: how it takes the environment's lock; seconds to wait for it.
    """

    name: str
    environment: Environment
    dry_run: bool = False
    json: bool = False
    destination: "Destination | None" = None
    yes: bool = False
    force_lock: bool = False
    lock_wait: float = 0.0

    def __post_init__(self) -> None:
        self.steps: list[Step] = []
        self.phases: list[Phase] = []
        # What the receipt says beside the steps, such as the version; and whether lock and receipt are taken care of.
        self.facts: dict[str, str] = {}
        self.locked = self.recorded = False
        self.unread: list[str] = []
        self.last_line = ""
        self.progress = ""
        # What the step's summary in Actions shows after a success instead of the steps; empty for nothing.
        self.summary: str | None = None
        self._started = time.monotonic()

    def read(self, what: str, look: Callable[[], T]) -> T | None:
        """Read something outside. If that fails in a dry run, the failure is noted and None returned."""
        try:
            return look()
        except DeployError as error:
            if not self.dry_run:
                raise
            self.unread.append(f"could not read {what}: {text.one_line(str(error))}")
            return None

    def look(self, what: str, look: Callable[[], R]) -> R | None:
        """Read something outside and show it, in a dry run too. For commands that change nothing."""
        started = time.monotonic()
        found = self.read(what, look)
        if found is not None:
            self.steps.append(Step(self.name, seconds=_since(started)))
            self._done(self.steps[-1], found)
            if not self.json:
                for line in aligned(found.table(), console.width() if found.is_overview else 0):
                    console.result(line)
        return found

    def act(self, plan: P, act: Callable[[P], R], name: str = "", *, changes: bool = True) -> R | None:
        """Print a plan, then act on it; in a dry run only print it.

        changes: acting on it changes something, so that a stop from here on leaves the outcome unknown.
        """
        step = Step(name or self.name, plan)
        self.steps.append(step)
        if self.dry_run:
            for line in plan.describe():
                console.say(f"  would {line}" if not line.startswith(("{", " ")) else f"  {line}")
            return None
        if changes:
            stop.changing()
        started = time.monotonic()
        try:
            result = act(plan)
        finally:
            step.seconds = _since(started)
        return self._done(step, result)

    def _done(self, step: Step, result: R) -> R:
        step.result = result
        self.last_line = result.line()
        for key, value in result.outputs().items():
            console.output(key, value)
        return result

    def run_steps(self, steps: Sequence[tuple[str, Callable[[], object]]]) -> None:
        """Run steps in order. The first failure ends them; its message names the steps that were and were not done."""
        names = [name for name, _ in steps]
        for number, (name, step) in enumerate(steps):
            done, left = ", ".join(names[:number]) or "nothing", ", ".join(names[number + 1 :]) or "nothing"
            self.progress = f"Done: {done}. Interrupted: {name}. Not done: {left}."
            before, begun = len(self.steps), time.monotonic()
            phase = Phase(name, begun - self._started)
            self.phases.append(phase)
            console.step(names, number)
            try:
                with console.group(f"== {name}"):
                    stop.check()
                    step()
                    phase.now = "done"
                    if len(self.steps) > before and self.steps[-1].result:
                        phase.now = self.last_line
                        console.say(self.last_line)
            except DeployError as error:
                message = f"{name} failed: {error}\nDone: {done}. Failed: {name}. Not done: {left}."
                if error.code == Refused.exit_code and any(step.result for step in self.steps):
                    # This step changed nothing, but earlier steps did: it is a failure, not a refusal.
                    raise DeployError(message) from error
                raise error.with_message(message) from error
            finally:
                phase.seconds = time.monotonic() - begun
        self.progress = f"Done: {', '.join(names)}. Interrupted: the end of the command. Not done: nothing."

    def confirm(self) -> None:
        """Have a person confirm the environment, if its settings say so. Raises Refused."""
        if self.environment.confirm and not self.dry_run:
            _confirm(self, self.yes)

    def report(self, error: DeployError | None) -> None:
        """Report how the command ended: on stderr, as an annotation, in the step's summary and as JSON."""
        # Serializing a large plan takes time: only if somebody reads it.
        document = self._document(error) if self.json or self.dry_run else {}
        if self.dry_run:
            unset = sorted(set(re.findall(r"<([A-Z][A-Z0-9_]+)>", json.dumps(document["steps"]))))
            self.unread += [f"{name} is not set: a real run would be refused" for name in unset]
            document["unread"] = self.unread
            for line in self.unread:
                console.say(f"  {line}")
        if error:
            console.error(str(error), title=self.name)
        elif self.dry_run:
            console.say("dry run: nothing was changed")
        elif self.last_line:
            console.say(f"{self.last_line} ({time.monotonic() - self._started:.0f} s)")
        if self.environment.origin:
            # For the page of the job's deployment on GitHub.
            console.output("site", self.environment.site)
        if self.summary is None or error:
            console.summary(self._page(error))
        elif self.summary:
            console.summary(self.summary)
        if self.json:
            console.document(_json(document))

    def _page(self, error: DeployError | None) -> str:
        """The step's summary in Actions."""
        sign = "❌" if error else "📝" if self.dry_run else "✅"
        heading = f"{sign} {self.name} · {self.environment.name}"
        return summary.page(heading, str(error or ""), self._done_so_far(), self.phases, self.links())

    def _done_so_far(self) -> list[tuple[str, str, float]]:
        """Each step: its name, what it did, and seconds."""
        if self.phases and not self.dry_run:
            return [(phase.name, phase.now or "failed", phase.seconds) for phase in self.phases]
        missing = "planned" if self.dry_run else "failed"
        return [(step.name, step.result.line() if step.result else missing, step.seconds) for step in self.steps]

    def links(self) -> summary.Links:
        """Where the summary leads."""
        env, commit = self.environment, self.facts.get("version") or os.environ.get("GITHUB_SHA", "")
        told = [step.result.outputs() for step in self.steps if step.result]
        return summary.Links(
            env.site,
            console.github(f"{env.application.on_github}/commit/"),
            commit if commit.isalnum() else "",
            {one["image"]: one["digest"] for one in told if one.get("image") and one.get("digest")},
            console=env.account.is_public(),
        )

    def _document(self, error: DeployError | None) -> dict[str, Any]:
        return {
            "command": self.name,
            "environment": self.environment.name,
            "dry_run": self.dry_run,
            "destination": plain(self.destination),
            "steps": [
                {"name": s.name, "plan": plain(s.plan), "result": plain(s.result), "seconds": s.seconds}
                for s in self.steps
            ],
            "error": str(error) if error else None,
            "exit_code": error.code if error else 0,
        }


@contextmanager
def running(
    name: str,
    env: str | None,
    *,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
    changes: bool = True,
    application: bool = False,
    embedded: bool = True,
    asks: bool = False,
    force_lock: bool = False,
    lock_wait: str | None = None,
) -> Iterator[Run]:
    """Run a command: choose and check its environment, ask for a confirmation if needed, and report how it ended.

    changes: whether it changes anything, so that prod asks first. asks: the command itself calls `Run.confirm`, once it
    has shown what it is about to do. application: the command is about the application; without --env any
    environment's settings will do. embedded: whether it sends requests to AWS: an embedded AWS is started if the
    environment has one, and a destination that differs from the settings is a warning. force_lock, lock_wait: the
    flags of that name.
    """
    run: Run | None = None
    try:
        try:
            stop.begin()
            run = _prepared(name, env, dry_run, json, application)
            run.yes, run.force_lock = yes, force_lock
            run.lock_wait = 0.0 if lock_wait in (None, "0") else waiting.seconds(lock_wait, 60.0, "--lock-wait")
            environment = run.environment
            if embedded:
                _say_where(run)
            if not dry_run:
                if changes and not asks:
                    run.confirm()
                if embedded and environment.endpoint_url:
                    _start_embedded_aws(environment.endpoint_url)
            with console.live("" if dry_run else f"{name}: {environment.name}"):
                yield run
            stop.check()
            stop.end()
            run.report(None)
        except DeployError as error:
            # A failure after a stop is caused by the stop.
            stop.check()
            stop.end()
            _report_failure(run, name, error, json=json)
            raise
        except Exception:
            stop.check()
            raise
        finally:
            stop.end()
    except Stopped:
        _end_stopped(run, stop.received())


def _prepared(name: str, env: str | None, dry_run: bool, json: bool, application: bool) -> Run:
    """Choose the environment and print its name."""
    mode = ", dry run: nothing will be changed" if dry_run else ""
    if application and env is None:
        environment = settings.environment(settings.names()[0], dry_run=dry_run)
        console.say(f"{name}: {environment.application.name}{mode}")
    else:
        environment = settings.find(env, dry_run=dry_run)
        console.say(f"{name}: {environment.name} (from {environment.origin}){mode}")
    return Run(name, environment, dry_run, json)


def _start_embedded_aws(url: str) -> None:
    from local_aws.process import ensure_running

    ensure_running(url)


def _report_failure(run: Run | None, name: str, error: DeployError, *, json: bool) -> None:
    if run:
        run.report(error)
        return
    console.error(str(error), title=name)
    if json:
        document: dict[str, Any] = {"command": name, "environment": None, "dry_run": False, "destination": None}
        document["steps"] = []
        console.document(_json(document | {"error": str(error), "exit_code": error.code}))


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _end_stopped(run: Run | None, signal: str) -> None:
    """Report what a stop interrupted, and end the process without waiting for threads that hang in requests."""
    code = stop.exit_code()
    was = run.progress if run else ""
    if code == Refused.exit_code:
        error: DeployError = Refused(f"stopped by {signal}: nothing was changed. {was}".rstrip())
    else:
        hint = "What was started may still be happening: check it, then run it again."
        error = OutcomeUnknown(f"stopped by {signal}; cleanup ran. {was or hint}")
    with stop.deferred():
        console.say(str(error))
        if run:
            run.report(error)
    stop.leave(code)


def _say_where(run: Run) -> None:
    """Warn about each way in which the destination of requests to AWS differs from the settings."""
    from scripts.edges import aws

    run.destination = aws.destination(run.environment)
    for sentence in run.destination.elsewhere:
        console.warn(sentence)


def _confirm(run: Run, yes: bool) -> None:
    """Have a person confirm the environment and the destination of its requests by typing its name. Raises Refused.

    In CI the environment's approval counts, but only for the destination in the settings. yes: --yes was given.
    """
    name = run.environment.name
    if not (yes or console.in_ci() or console.interactive()):
        raise Refused(f"{name} needs a confirmation, and there is no terminal to ask on: give --yes.")
    elsewhere = "; ".join(_elsewhere(run))
    if yes or (console.in_ci() and not elsewhere):
        return
    if console.in_ci():
        raise Refused(
            f"{elsewhere}. The approval in CI covers {name} only as its settings define it. Nothing was changed:"
            " correct this, or give --yes."
        )
    if not console.confirm(f"{elsewhere}{elsewhere and '. '}Type {name} to continue:", name):
        raise Refused(f"Not confirmed: nothing was changed in {name}.")


def _elsewhere(run: Run) -> Sequence[str]:
    """How the destination of requests differs from the settings, including the account of the credentials."""
    if run.destination is None or run.environment.endpoint_url:
        return ()
    from scripts.edges import aws

    known = run.destination.elsewhere
    run.destination = aws.with_caller(run.destination, run.environment)
    for sentence in run.destination.elsewhere[len(known) :]:
        console.warn(sentence)
    return run.destination.elsewhere


def actor() -> tuple[str, str]:
    """Who runs this, and the URL of the workflow's run, empty on a laptop."""
    who = os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or os.environ.get("LOGNAME") or "somebody"
    repository, run = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_RUN_ID")
    url = console.github(f"{repository}/actions/runs/{run}") if repository and run else ""
    return text.one_line(who), text.one_line(url)


def plain(value: Any) -> Any:
    """A record as JSON types, without the user part of URLs."""
    if value is None or isinstance(value, (int, float)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    if isinstance(value, Struct):
        return {key: plain(item) for key, item in structs.asdict(value).items()}
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return text.without_credentials(str(value))
