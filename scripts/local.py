"""Starts, stops and shows the embedded AWS of an environment with an endpoint of its own."""

from dataclasses import dataclass

from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


@dataclass(frozen=True)
class Embedded:
    """What to do with the embedded AWS on a port. verb: up or down."""

    verb: str
    port: int

    def describe(self) -> list[str]:
        what = {"up": "start, unless it is running,", "down": "stop"}[self.verb]
        return [f"{what} the embedded AWS on port {self.port}"]


@dataclass(frozen=True)
class State(Report):
    """Whether the embedded AWS runs, and where. changed: whether it was just started or stopped."""

    url: str
    runs: bool
    changed: bool = False

    def line(self) -> str:
        if self.changed:
            return f"the embedded AWS at {self.url} was {'started' if self.runs else 'stopped'}"
        return f"the embedded AWS runs at {self.url}" if self.runs else f"no embedded AWS runs at {self.url}"

    def outputs(self) -> dict[str, str]:
        return {"url": self.url}


def up(run: Run, *, port: str | None = None) -> State | None:
    """Start the embedded AWS."""
    return run.act(Embedded("up", chosen(run.environment, port)), act)


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
    return state(plan.port, changed=changed)


def state(port: int, *, changed: bool = False) -> State:
    """Check whether it runs. Raises Refused if another program uses the port."""
    from local_aws import process

    return State(f"http://127.0.0.1:{port}", process.status(port) is not None, changed)
