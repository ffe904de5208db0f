"""The frame that every task runs in: which environment, may it go on, what is printed, what is returned.

A task makes a plan, a frozen record with `describe()`, and hands it to `Command.run` with the function
that acts on it. A dry run prints the plan and stops there, so it cannot differ from the run.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol, TypeVar

from scripts import console, environments
from scripts.environments import Environment
from scripts.errors import DeployError, Refused, Stopped, retold

T = TypeVar("T")


class Result(Protocol):
    """What a command has done, as plain data."""

    def summary(self) -> str:
        """What is true now, in one line."""
        ...

    def outputs(self) -> dict[str, str]:
        """What later steps of a workflow may want to know."""
        ...


R = TypeVar("R", bound=Result)


class Plan(Protocol):
    """What a command is about to do, as plain data."""

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        ...


@dataclass
class Step:
    """One step of a command as it is reported: its plan and, once it has run, its result."""

    name: str
    plan: Any = None
    result: Result | None = None
    seconds: float = 0.0


class Command:
    """One task's run. Use it with `with`; the environment is chosen and checked on entering."""

    def __init__(
        self,
        context: Any,
        name: str,
        env: str | None,
        *,
        dry_run: bool = False,
        yes: bool = False,
        json: bool = False,
        changes: bool = True,
        embedded: bool = True,
        application: bool = False,
    ) -> None:
        """changes: whether prod asks first. embedded: whether the embedded AWS is started where it is needed.

        application: the command is about the application; without --env any environment's settings will do.
        """
        self.name = name
        self.dry_run = dry_run or bool(context.config.run.dry)
        self.json = json
        self.steps: list[Step] = []
        self.unread: list[str] = []
        self.last_line = ""
        self._flag, self._yes, self._changes = env, yes, changes
        self._embedded, self._application = embedded, application
        self._started = time.monotonic()
        self.environment: Environment

    def __enter__(self) -> "Command":
        self._signals = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            mode = ", dry run: nothing will be changed" if self.dry_run else ""
            if self._application and self._flag is None:
                self.environment = environments.environment(environments.names()[0], dry_run=self.dry_run)
                console.say(f"{self.name}: {self.environment.application.name}{mode}")
            else:
                self.environment = environments.find(self._flag, dry_run=self.dry_run)
                console.say(f"{self.name}: {self.environment.name} (from {self.environment.origin}){mode}")
            if not self.dry_run:
                self._confirm()
                self._start_embedded_aws()
        except DeployError as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _confirm(self) -> None:
        """In an environment that asks for it, a person types its name; CI's own gate counts as that."""
        env = self.environment
        if not (self._changes and env.confirm) or self._yes or os.environ.get("CI"):
            return
        if not console.interactive():
            raise Refused(f"{env.name} needs a confirmation, and nobody can be asked here: give --yes.")
        if not console.confirm(f"Type {env.name} to go on:", env.name):
            raise Refused(f"Not confirmed: nothing was changed in {env.name}.")

    def _start_embedded_aws(self) -> None:
        if self._embedded and self.environment.endpoint_url:
            from local_aws.process import ensure_running

            ensure_running(self.environment.endpoint_url)

    def read(self, what: str, look: Callable[[], T]) -> T | None:
        """Read from the world. A dry run that cannot notes it in one line and goes on with None."""
        try:
            return look()
        except DeployError as error:
            if not self.dry_run:
                raise
            self.unread.append(f"could not read {what}: {' '.join(str(error).split())}")
            return None

    def run(self, plan: Plan, act: Callable[[Any], R], name: str = "") -> R | None:
        """Print a plan, then act on it; in a dry run only print it. act: gets the plan."""
        step = Step(name or self.name, plan)
        self.steps.append(step)
        if self.dry_run:
            for line in plan.describe():
                console.say(f"  would {line}" if not line.startswith(("{", " ")) else f"  {line}")
            return None
        started = time.monotonic()
        try:
            result = act(plan)
        finally:
            step.seconds = round(time.monotonic() - started, 3)
        step.result = result
        self.last_line = result.summary()
        for key, value in result.outputs().items():
            console.output(key, value)
        return result

    def row(self, steps: Sequence[tuple[str, Callable[[], Any]]]) -> None:
        """Run steps in order and stop at the first failure, saying what was done and what was not."""
        for number, (name, step) in enumerate(steps):
            try:
                with console.group(f"== {name}"):
                    step()
                    if self.steps and self.steps[-1].result:
                        console.say(self.last_line)
            except DeployError as error:
                done = ", ".join(n for n, _ in steps[:number]) or "nothing"
                left = ", ".join(n for n, _ in steps[number + 1 :]) or "nothing"
                message = f"{name} failed: {error}\nDone: {done}. Failed: {name}. Not done: {left}."
                if isinstance(error, Refused) and any(step.result for step in self.steps):
                    # The step was refused and changed nothing, but those before it have.
                    raise DeployError(message) from error
                raise retold(error, message) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        if error is None or isinstance(error, DeployError):
            self._report(error)

    def _report(self, error: DeployError | None) -> None:
        # A large plan takes time to write out: only where somebody reads it.
        document = self._document(error) if self.json or self.dry_run else {}
        if self.dry_run:
            unset = sorted(set(re.findall(r"<([A-Z][A-Z0-9_]+)>", json.dumps(document["steps"]))))
            self.unread += [f"{name} is not set here: a run would refuse" for name in unset]
            document["unread"] = self.unread
            for line in self.unread:
                console.say(f"  {line}")
        if error:
            console.error(str(error), title=self.name)
        elif self.dry_run:
            console.say("dry run: nothing was changed")
        elif self.last_line:
            console.say(f"{self.last_line} ({time.monotonic() - self._started:.0f} s)")
        console.summary(self._markdown(error))
        if self.json:
            console.result(json.dumps(document, indent=2, default=str))

    def _markdown(self, error: DeployError | None) -> str:
        """The step's page in Actions: what was done where, how long it took, and where to look."""
        sign = "❌" if error else "📝" if self.dry_run else "✅"
        where = f" · {self.environment.name}" if hasattr(self, "environment") else ""
        lines = [f"### {sign} {self.name}{where}", "", "| step | now | seconds |", "|---|---|---|"]
        for step in self.steps:
            now = step.result.summary() if step.result else "planned" if self.dry_run else "failed"
            lines.append(f"| {step.name} | {now} | {step.seconds:.1f} |")
        if error:
            lines += ["", "```", str(error), "```"]
        if where:
            lines += ["", " · ".join(f"[{name}]({url})" for name, url in self._links())]
        return "\n".join(lines)

    def _links(self) -> Iterator[tuple[str, str]]:
        """Where to look: the site, and the commit that the workflow runs for."""
        yield self.environment.site, self.environment.site
        commit = os.environ.get("GITHUB_SHA", "")
        if commit:
            yield commit[:7], console.github(f"{self.environment.application.repository}/commit/{commit}")

    def _document(self, error: DeployError | None) -> dict[str, Any]:
        environment = getattr(self, "environment", None)
        return {
            "command": self.name,
            "environment": environment.name if environment else None,
            "dry_run": self.dry_run,
            "steps": [
                {"name": s.name, "plan": plain(s.plan), "result": plain(s.result), "seconds": s.seconds}
                for s in self.steps
            ],
            "error": str(error) if error else None,
            "exit_code": error.code if error else 0,
        }


def _stop(number: int, _: FrameType | None) -> None:
    """Turn a signal that would end the process at once into an error, so that everything is put away."""
    raise Stopped(f"{signal.Signals(number).name} ended the command: look at what it had begun, or run it again.")


def plain(value: Any) -> Any:
    """A record as JSON can hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value
