"""Waits until an environment answers with the version that was deployed.

Was scripts/healthcheck. While a rollout drains, old and new answers alternate, so one match proves
nothing; and a service that was rolled back is stable too, so ECS is watched where that is possible.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from scripts.ecs import rollout
from scripts.ecs.rollout import Verdict
from scripts.edges import aws
from scripts.frame import console, version
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment

REQUEST_TIMEOUT = 2.0
INTERVAL = 1.0
MATCHES = 3
WATCH_INTERVAL = 5.0


@dataclass(frozen=True)
class Expectation:
    """What to wait for. timeout: seconds. deployment_id: the rollout to follow, where it is known."""

    environment: str
    url: str
    version: str
    timeout: float
    deployment_id: str = ""

    def describe(self) -> list[str]:
        return [
            f"wait up to {self.timeout:g} s until {self.url} answers with version {self.version}"
            f" {MATCHES} times in a row"
        ]


@dataclass(frozen=True)
class Healthy(Report):
    """What answers. changed_from: the other version that answered last on the way, empty if none did."""

    environment: str
    version: str
    changed_from: str

    def line(self) -> str:
        change = f" (was {version.short(self.changed_from)})" if self.changed_from else ""
        return f"{self.environment} runs {version.short(self.version)}{change}"

    def outputs(self) -> dict[str, str]:
        return {"version": self.version}


def healthcheck(
    run: Run,
    *,
    version: str | None = None,
    deployment_id: str | None = None,
    digest: str | None = None,
    timeout: str | None = None,
    url: str | None = None,
) -> Healthy | None:
    """Wait until the version answers."""
    decided = plan(run.environment, wanted=version, timeout=timeout, url=url, deployment_id=deployment_id or "")
    return run.act(decided, lambda plan: wait(plan, watcher(run.environment)), "wait for the version")


def plan(
    environment: Environment,
    *,
    wanted: str | None = None,
    timeout: str | None = None,
    url: str | None = None,
    deployment_id: str = "",
) -> Expectation:
    """Decide what to wait for. Raises Refused for bad input: an empty version above all."""
    target = environment.healthcheck if url is None else url
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Refused(f"{target!r} is not the URL of a healthcheck: it begins with http:// or https://.")
    try:
        seconds = float("300" if timeout is None else timeout)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise Refused(f"{timeout!r} is not a time-out: give seconds, such as 300.")
    return Expectation(environment.name, target, version.wanted(wanted), seconds, deployment_id)


def watcher(environment: Environment) -> Callable[[], rollout.Service] | None:
    """A look at the service in ECS, or None where there are no credentials to ask with."""
    if not aws.has_credentials(environment):
        console.say("ECS is not watched: there are no AWS credentials here")
        return None
    return lambda: rollout.observe(environment, environment.service.name)


def wait(
    plan: Expectation,
    watch: Callable[[], rollout.Service] | None = None,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Healthy:
    """Wait until the version answers several times in a row and ECS, if watched, is done with it.

    Raises RolledBack as soon as ECS takes the version back, DeployError when the rollout failed or was
    superseded, OutcomeUnknown at the time-out, with what answers then.
    """
    deadline = now() + plan.timeout
    look = _Watch(plan, watch, now)
    matches, other, last = 0, "", ""
    while True:
        try:
            found = version.answering(plan.url, min(REQUEST_TIMEOUT, max(0.1, deadline - now())))
            line = f"{plan.url} answers with {version.short(found)}"
        except DeployError as error:
            found, line = "", f"{plan.url} does not answer: {error}"
        matches = matches + 1 if found == plan.version else 0
        other = found if found not in ("", plan.version) else other
        verdict = look(at_once=matches >= MATCHES)
        if matches >= MATCHES and verdict is not Verdict.RUNNING:
            return Healthy(plan.environment, plan.version, other)
        if line != last:
            console.say(line)
            last = line
        if now() + INTERVAL > deadline:
            raise OutcomeUnknown(
                f"{plan.environment} does not run {version.short(plan.version)} after {plan.timeout:g} s:"
                f" {line}.{look.said()} It may still be rolling out: `invoke healthcheck` goes on waiting."
            )
        sleep(INTERVAL)


class _Watch:
    """Looks into ECS now and then, says what changed, and raises when the rollout is lost."""

    def __init__(
        self,
        plan: Expectation,
        watch: Callable[[], rollout.Service] | None,
        now: Callable[[], float],
    ) -> None:
        self._plan, self._watch, self._now = plan, watch, now
        self._next, self._seen = now(), False
        self._verdict: Verdict | None = None
        self._service: rollout.Service | None = None

    def said(self) -> str:
        if self._verdict is None or self._service is None:
            return ""
        return f" In ECS, {self._service.name} {self._verdict.value}."

    def __call__(self, *, at_once: bool) -> Verdict | None:
        if self._watch is None or (self._now() < self._next and not at_once):
            return self._verdict
        self._next = self._now() + WATCH_INTERVAL
        try:
            service = self._watch()
        except DeployError as error:
            console.say(f"ECS is not watched any more: {error}")
            self._watch, self._verdict = None, None
            return None
        verdict = rollout.verdict(service, self._plan.version, self._plan.deployment_id or None, self._seen)
        self._seen = self._seen or verdict is not Verdict.ABSENT
        if verdict is not self._verdict:
            console.say(f"ECS: {service.name} {verdict.value}")
        self._verdict, self._service = verdict, service
        self._judge(service, verdict)
        return verdict

    def _judge(self, service: rollout.Service, verdict: Verdict) -> None:
        what = f"{self._plan.environment}: {version.short(self._plan.version)} of {service.name}"
        why = rollout.explain(service) or "ECS gives no reason"
        if verdict is Verdict.ROLLED_BACK:
            raise RolledBack(f"{what} was rolled back, the version before it runs: {why}.")
        if verdict in (Verdict.FAILED, Verdict.SUPERSEDED):
            raise DeployError(f"{what} {verdict.value}: {why}.")
