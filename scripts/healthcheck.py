"""Waits until an environment's healthcheck returns the deployed version.

During a rollout, old and new tasks answer in turn, so one match proves nothing; and a service that was rolled back is
stable too. So the version has to answer several times in a row, and the rollout in ECS, if it can be read, has to be
complete.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scripts.ecs import images, rollout
from scripts.ecs.rollout import Deployment, Service, Target, Verdict
from scripts.edges import aws, http
from scripts.frame import console, waiting
from scripts.frame import version as versions
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut

TIMEOUT = 300.0
REQUEST_TIMEOUT = 2.0
INTERVAL = 1.0
MATCHES = 3
WATCH_INTERVAL = 5.0
# After this many failed reads of ECS and no successful one, the endpoint alone decides.
BLIND_LOOKS = 3
# Without a deployment id: how many seconds before this command the deployment may have started.
LOOK_BACK = 300.0


@dataclass(frozen=True)
class Expectation:
    """What to wait for. timeout: seconds. own_url: whether the URL is the environment's own.

    deployment_id, digest, repository, since: of the deployment to follow in ECS, as in `rollout.Target`.
    """

    environment: str
    url: str
    version: str
    timeout: float
    own_url: bool = True
    repository: str = ""
    deployment_id: str = ""
    digest: str = ""
    since: float = 0.0

    @property
    def where(self) -> str:
        """What messages name: the environment if its own URL is requested, else the URL."""
        return self.environment if self.own_url else self.url

    def describe(self) -> list[str]:
        return [
            f"wait up to {self.timeout:g} s until {self.url} answers with version {self.version}"
            f" {MATCHES} times in a row"
        ]


@dataclass(frozen=True)
class Healthy(Report):
    """What runs now. changed_from: the last other version that answered, empty if none did.

    where: the environment, or the URL that was given instead of its own. answers: False if the desired count is 0, so
    that nothing can answer. note: a restriction, such as that ECS could not be read; or empty.
    """

    environment: str
    version: str
    changed_from: str
    where: str
    answers: bool = True
    note: str = ""

    def line(self) -> str:
        if not self.answers:
            return f"{self.where} has {versions.short(self.version)} deployed; no task is desired, so nothing answers"
        change = f" (was {versions.short(self.changed_from)})" if self.changed_from else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.where} runs {versions.short(self.version)}{change}{note}"

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
    # The outputs of deploy-service are empty if the id or the digest is not known.
    if deployment_id and not rollout.DEPLOYMENT_ID.fullmatch(deployment_id):
        raise Refused(f"{deployment_id[:200]!r} is not the id of a deployment: it looks like ecs-svc/1234567890.")
    if digest:
        images.checked_digest(digest)
    target = Target(
        versions.wanted(version), run.environment.service.image, id=deployment_id or "", digest=digest or ""
    )
    return follow(run, target, timeout=waiting.seconds(timeout, TIMEOUT), url=url)


def follow(run: Run, target: Target, *, timeout: float = TIMEOUT, url: str | None = None) -> Healthy | None:
    """Wait until the version answers. url: of the healthcheck, if it is not the environment's."""
    env = run.environment
    asked = http.checked(env.healthcheck if url is None else url, "the URL of a healthcheck")
    decided = Expectation(
        environment=env.name,
        url=asked,
        version=target.version,
        timeout=timeout,
        own_url=url is None,
        repository=target.repository,
        deployment_id=target.id,
        digest=target.digest,
        since=target.since,
    )
    return run.act(decided, lambda plan: wait(plan, watcher(env)), "wait for the version", changes=False)


def still(environment: Environment, target: Target, healthy: Healthy) -> Healthy:
    """Check in ECS that a healthy deployment is still the current one. Raises RolledBack or DeployError if it is not.

    Without the deployment's id, or if ECS cannot be read, it counts as current.
    """
    try:
        service = rollout.observe(environment, environment.service.name) if target.id else None
    except DeployError as error:
        console.say(f"ECS can no longer be read: {error}")
        service = None
    if service:
        raise_if_lost(healthy.where, target, service, None)
    return healthy


def watcher(environment: Environment) -> Callable[[], Service] | None:
    """A function that reads the service from ECS, or None if there are no credentials."""
    if not aws.has_credentials(environment):
        console.say("the rollout in ECS is not watched: there are no AWS credentials here")
        return None
    return partial(rollout.observe, environment, environment.service.name)


def wait(plan: Expectation, look: Callable[[], Service] | None = None, *, clock: Clock = CLOCK) -> Healthy:
    """Wait until the version answers several times in a row and its rollout in ECS, if it can be read, is complete.

    look: reads the service from ECS. Raises RolledBack as soon as ECS rolls the version back, DeployError when the
    rollout failed or was superseded, OutcomeUnknown at the timeout, with the last answer.
    """
    watch, deadline = Watch(plan, look, clock), clock.now() + plan.timeout
    matches, other = 0, ""

    def healthy(*, answers: bool = True) -> Healthy:
        return Healthy(plan.environment, plan.version, other, plan.where, answers, watch.note)

    def ask() -> tuple[str, Healthy | None]:
        nonlocal matches, other
        try:
            found = versions.answering(plan.url, min(REQUEST_TIMEOUT, max(0.1, deadline - clock.now())))
            line = f"{plan.url} answers with {versions.short(found)}"
        except DeployError as error:
            found, line = "", f"{plan.url} does not answer: {error}"
        matches = matches + 1 if found == plan.version else 0
        other = found if found not in ("", plan.version) else other
        watch.look_if_due(now=matches >= MATCHES)
        if watch.wants_no_task:
            return line, healthy(answers=False)
        return line, healthy() if matches >= MATCHES and watch.agrees else None

    try:
        return waiting.wait(ask, seconds=plan.timeout, every=INTERVAL, clock=clock)
    except TimedOut as error:
        if matches >= MATCHES and watch.blind:
            return healthy()
        version, after = versions.short(plan.version), f"after {plan.timeout:g} s"
        answers = f"{plan.where} does not run {version} {after}: {error}."
        if matches >= MATCHES:
            answers = f"{plan.where} answers with {version}, but its rollout in ECS is not complete {after}."
        raise OutcomeUnknown(
            f"{answers}{watch.says} It may still be rolling out: `invoke healthcheck` goes on waiting."
        ) from error


class Watch:
    """Reads ECS from time to time, prints changes, and raises when the rollout has failed or was superseded."""

    def __init__(self, plan: Expectation, look: Callable[[], Service] | None, clock: Clock) -> None:
        self._plan, self._look, self._clock = plan, look, clock
        since = plan.since if plan.deployment_id else time.time() - LOOK_BACK
        self._target = Target(plan.version, plan.repository, plan.deployment_id, plan.digest, since)
        self._due = clock.now()
        self._seen: Deployment | None = None
        self._service: Service | None = None
        self._verdict: Verdict | None = None
        # Failed reads since the last successful one.
        self._failed = 0

    @property
    def blind(self) -> bool:
        """Whether ECS has never been read."""
        return self._service is None

    @property
    def agrees(self) -> bool:
        """Whether ECS does not contradict the endpoint."""
        if self.blind:
            return self._look is None or self._failed >= BLIND_LOOKS
        if self._failed:
            return False
        # A deployment with a known id has to be found; without one, its image may only be named differently.
        return self._verdict is Verdict.SUCCEEDED or (self._verdict is Verdict.ABSENT and not self._target.id)

    @property
    def wants_no_task(self) -> bool:
        """Whether the rollout is complete with a desired count of 0."""
        primary = self._service.primary if self._service else None
        return self._verdict is Verdict.SUCCEEDED and primary is not None and primary.desired == 0

    @property
    def note(self) -> str:
        """The restriction on a result without ECS."""
        return "according to its endpoint alone; ECS was not read" if self.blind else ""

    @property
    def says(self) -> str:
        """The state in ECS, as a sentence to append to a message; empty if ECS is not watched."""
        if self._look is None:
            return ""
        if self._service is None or self._verdict is None:
            return " ECS could not be read."
        return f" In ECS, {self._service.name} {self._verdict.value}."

    def look_if_due(self, *, now: bool) -> None:
        """Read ECS, if it is time or `now`. Raises RolledBack or DeployError as `raise_if_lost` does."""
        if self._look is None or (self._clock.now() < self._due and (self._failed or not now)):
            return
        self._due = self._clock.now() + WATCH_INTERVAL
        try:
            service = self._look()
        except DeployError as error:
            if not self._failed:
                console.say(f"ECS cannot be read, trying again in {WATCH_INTERVAL:g} s: {error}")
            self._failed += 1
            return
        verdict = raise_if_lost(self._plan.where, self._target, service, self._seen)
        self._seen = rollout.find(self._target, service, self._seen)
        if verdict is not self._verdict:
            console.say(f"ECS: {service.name} {verdict.value}")
        self._failed, self._verdict, self._service = 0, verdict, service


def raise_if_lost(where: str, target: Target, service: Service, seen: Deployment | None) -> Verdict:
    """The verdict on a deployment. seen: as it was last seen.

    Raises RolledBack, or DeployError if it failed or was superseded, with ECS's reasons.
    """
    verdict = rollout.verdict(target, service, seen)
    since = rollout.start(target, service, rollout.find(target, service, seen))
    what = f"{where}: {versions.short(target.version)} of {service.name}"
    why = rollout.explain(service, since) or "ECS gives no reason"
    if verdict is Verdict.ROLLED_BACK:
        raise RolledBack(f"{what} was rolled back, the previous version runs: {why}.")
    if verdict is Verdict.FAILED and not service.breaker:
        why += ". The service has no circuit breaker, so ECS does not roll back: deploy the previous version"
    if verdict in (Verdict.FAILED, Verdict.SUPERSEDED):
        raise DeployError(f"{what} {verdict.value}: {why}.")
    return verdict
