"""Starts, stops and shows the embedded AWS of an environment with an endpoint of its own, and rehearses on one."""

import sys
import time
from collections.abc import Sequence

from msgspec import Struct

from scripts.edges import shell
from scripts.frame import console, stop
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report, aligned
from scripts.frame.run import Run
from scripts.frame.settings import ROOT, Environment

# What a rehearsed command may end with.
CODES = range(5)
# Seconds until the embedded AWS of a rehearsal ends itself, if a stop leaves it behind.
LEFT = 60.0


class Embedded(Struct, frozen=True):
    """What to do with the embedded AWS on a port. verb: up or down. scenario: to start there, empty for none."""

    verb: str
    port: int
    scenario: str = ""

    def describe(self) -> list[str]:
        what = {"up": "start, unless it is running,", "down": "stop"}[self.verb]
        lines = [f"{what} the embedded AWS on port {self.port}"]
        return [*lines, f"start the scenario {self.scenario} in it"] if self.scenario else lines


class State(Report, Struct, frozen=True):
    """Whether the embedded AWS runs, and where. changed: whether it was just started or stopped.

    scenario: its name, and what goes wrong in it; empty for none.
    """

    url: str
    runs: bool
    changed: bool = False
    scenario: str = ""
    says: str = ""

    def line(self) -> str:
        scenario = f", in the scenario {self.scenario}: {self.says}" if self.scenario else ""
        if self.changed:
            return f"the embedded AWS at {self.url} was {'started' if self.runs else 'stopped'}{scenario}"
        return f"the embedded AWS runs at {self.url}{scenario}" if self.runs else f"no embedded AWS runs at {self.url}"

    def outputs(self) -> dict[str, str]:
        return {"url": self.url}


class Rehearsal(Struct, frozen=True):
    """Which scenarios to rehearse, one after the other, and the environment whose settings are used."""

    environment: str
    scenarios: tuple[str, ...]

    def describe(self) -> list[str]:
        from local_aws.scenarios import SCENARIOS

        commands = [shell.words(("invoke", *SCENARIOS[one].deployment(self.environment))) for one in self.scenarios]
        lines = [f"in {name}: {command}" for name, command in zip(self.scenarios, commands, strict=True)]
        return ["start an embedded AWS on a free port, and stop it at the end", *lines]


class Scene(Struct, frozen=True):
    """A scenario that was rehearsed. code: with which its command ended."""

    name: str
    code: int
    seconds: float
    says: str


class Rehearsed(Report, Struct, frozen=True):
    """What was rehearsed, in order."""

    scenes: tuple[Scene, ...]

    def line(self) -> str:
        return f"each scenario ended as it should: {', '.join(one.name for one in self.scenes)}"

    def table(self) -> Sequence[Sequence[str]]:
        rows = [(one.name, str(one.code), f"{one.seconds:.0f} s", one.says) for one in self.scenes]
        return [("SCENARIO", "EXIT CODE", "TIME", "WHAT GOES WRONG"), *rows]


def up(run: Run, *, port: str | None = None, scenario: str | None = None) -> State | None:
    """Start the embedded AWS, and a scenario in it."""
    known(scenario)
    return run.act(Embedded("up", chosen(run.environment, port), scenario or ""), act)


def down(run: Run, *, port: str | None = None) -> State | None:
    """Stop the embedded AWS."""
    return run.act(Embedded("down", chosen(run.environment, port)), act)


def status(run: Run, *, port: str | None = None) -> State | None:
    """Look whether the embedded AWS runs."""
    found = chosen(run.environment, port)
    return run.look("the embedded AWS", lambda: state(found))


def rehearse(run: Run, *, scenario: str | None = None) -> Rehearsed | None:
    """Go through the scenarios in an embedded AWS of their own: what goes wrong, what a deployment says, what to do."""
    chosen(run.environment, None)
    done = run.act(Rehearsal(run.environment.name, known(scenario)), perform, changes=False)
    if done and not run.json:
        for line in aligned(done.table()):
            console.result(line)
    return done


def known(scenario: str | None) -> tuple[str, ...]:
    """A scenario, or all of them without one. Raises Refused for a name that is none."""
    from local_aws.scenarios import SCENARIOS

    if scenario is None:
        return tuple(SCENARIOS)
    if scenario not in SCENARIOS:
        raise Refused(f"{scenario[:100]!r} is not a scenario: use one of {', '.join(SCENARIOS)}.")
    return (scenario,)


def perform(plan: Rehearsal) -> Rehearsed:
    """Rehearse. Raises DeployError for the first scenario that does not end as it should."""
    from local_aws import process
    from local_aws.cloud import free_port

    port, scenes = free_port(), list[Scene]()
    url = f"http://127.0.0.1:{port}"
    with stop.owned(lambda: process.ensure_running(url, idle=LEFT), lambda _: process.stop(port)):
        for name in plan.scenarios:
            if scenes:
                process.reset(port)
            process.stage(port, name)
            scenes.append(_scene(plan.environment, name, port))
    return Rehearsed(tuple(scenes))


def _scene(environment: str, name: str, port: int) -> Scene:
    """Run the command of a scenario, as a person does. It says what it says at a laptop, also in CI."""
    from local_aws.scenarios import SCENARIOS

    scenario, begun = SCENARIOS[name], time.monotonic()
    words = scenario.deployment(environment)
    own = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "GITHUB_ACTIONS": None}
    with console.group(f"== {name}: {scenario.says}"):
        console.say(f"$ {shell.words(('invoke', *words))}")
        code = shell.stream([sys.executable, "-m", "invoke", *words], cwd=ROOT, env=own, codes=CODES)
        if code != scenario.code:
            raise DeployError(f"In {name} the deployment ends with exit code {code} instead of {scenario.code}.")
        console.say(scenario.outcome())
    return Scene(name, code, round(time.monotonic() - begun, 3), scenario.says)


def chosen(environment: Environment, port: str | None) -> int:
    """The port of the embedded AWS. Raises Refused for an environment of the real AWS and for an invalid port."""
    from local_aws import process

    if not environment.endpoint_url:
        raise Refused(f"{environment.name} is not embedded: it has no endpoint_url in the settings.")
    if port is None:
        return process.port_of(environment.endpoint_url)
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise Refused(f"{port[:100]!r} is not a port: give a number from 1 to 65535.")
    return int(port)


def act(plan: Embedded) -> State:
    """Start or stop it. Raises Refused if another program uses the port, DeployError if it does not start."""
    from local_aws import process

    url = f"http://127.0.0.1:{plan.port}"
    changed = process.ensure_running(url) if plan.verb == "up" else process.stop(plan.port)
    if plan.scenario:
        process.stage(plan.port, plan.scenario)
    return state(plan.port, changed=changed)


def state(port: int, *, changed: bool = False) -> State:
    """Check whether it runs. Raises Refused if another program uses the port."""
    from local_aws import process

    told = process.status(port)
    name = str(told.get("scenario", "")) if told else ""
    staged = (name, str(told.get("says", ""))) if told and name not in ("", "healthy") else ("", "")
    return State(f"http://127.0.0.1:{port}", told is not None, changed, *staged)
