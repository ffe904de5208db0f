"""Starts, stops and shows the embedded AWS of an environment with an endpoint of its own."""

from dataclasses import dataclass

from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


@dataclass(frozen=True)
class Embedded:
    """What to do with the embedded AWS on a port. verb: up or down. scenario: to start there, empty for none."""

    verb: str
    port: int
    scenario: str = ""

    def describe(self) -> list[str]:
        what = {"up": "start, unless it is running,", "down": "stop"}[self.verb]
        lines = [f"{what} the embedded AWS on port {self.port}"]
        return [*lines, f"start the scenario {self.scenario} in it"] if self.scenario else lines


@dataclass(frozen=True)
class State(Report):
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


def up(run: Run, *, port: str | None = None, scenario: str | None = None) -> State | None:
    """Start the embedded AWS, and a scenario in it."""
    from local_aws.scenarios import SCENARIOS

    if scenario is not None and scenario not in SCENARIOS:
        raise Refused(f"{scenario[:100]!r} is not a scenario: use one of {', '.join(SCENARIOS)}.")
    return run.act(Embedded("up", chosen(run.environment, port), scenario or ""), act)


def down(run: Run, *, port: str | None = None) -> State | None:
    """Stop the embedded AWS."""
    return run.act(Embedded("down", chosen(run.environment, port)), act)


def status(run: Run, *, port: str | None = None) -> State | None:
    """Look whether the embedded AWS runs."""
    found = chosen(run.environment, port)
    return run.look("the embedded AWS", lambda: state(found))


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
