"""Starts, stops and shows the embedded AWS that answers for an environment with an endpoint of its own."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


@dataclass(frozen=True)
class Embedded:
    """What is to be done with the embedded AWS on a port: up, down or status."""

    verb: str
    port: int

    def describe(self) -> list[str]:
        what = {"up": "start, unless it runs,", "down": "stop", "status": "look at"}[self.verb]
        return [f"{what} the embedded AWS on port {self.port}"]


@dataclass(frozen=True)
class State(Report):
    """Whether the embedded AWS runs, and where."""

    url: str
    runs: bool

    def line(self) -> str:
        return f"the embedded AWS runs at {self.url}" if self.runs else f"no embedded AWS runs at {self.url}"

    def outputs(self) -> dict[str, str]:
        return {"url": self.url}


def up(run: Run, *, port: str | None = None) -> State | None:
    """Start the embedded AWS."""
    return run.act(plan(run.environment, "up", port), act)


def down(run: Run, *, port: str | None = None) -> State | None:
    """Stop the embedded AWS."""
    return run.act(plan(run.environment, "down", port), act)


def status(run: Run, *, port: str | None = None) -> State | None:
    """Look whether the embedded AWS runs."""
    return run.act(plan(run.environment, "status", port), act)


def plan(environment: Environment, verb: str, port: str | None) -> Embedded:
    """Decide on which port. Raises Refused for an environment of the real AWS and for what is no port."""
    if not environment.endpoint_url:
        raise Refused(f"{environment.name} is not embedded: it has no endpoint_url in the settings.")
    chosen = str(urlsplit(environment.endpoint_url).port or 80) if port is None else port
    if not chosen.isdecimal() or not 0 < int(chosen) < 65536:
        raise Refused(f"{port!r} is not a port: give a number from 1 to 65535.")
    return Embedded(verb, int(chosen))


def act(plan: Embedded) -> State:
    """Do it. Raises Refused where something else has the port, DeployError where it does not start."""
    from local_aws import process

    url = f"http://127.0.0.1:{plan.port}"
    if plan.verb == "up":
        process.ensure_running(url)
    elif plan.verb == "down":
        process.stop(plan.port)
    return State(url, process.status(plan.port) is not None)
