"""Waits until an environment's healthcheck returns the deployed version, and its rollout in ECS is complete.

During a rollout, old and new tasks answer in turn, so one match proves nothing; and a service that was rolled back is
stable too. `ecs/watch.py` has the rules.
"""

import time

from msgspec import Struct
from msgspec.structs import replace

from scripts.ecs import images, reasons, rollout, watch
from scripts.ecs.proof import MATCHES
from scripts.ecs.reader import Reader
from scripts.ecs.rollout import Before
from scripts.edges import aws, http
from scripts.frame import console, waiting
from scripts.frame import version as versions
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock

TIMEOUT = 300.0
# Without a deployment id: how many seconds before this command the deployment may have started.
LOOK_BACK = 300.0


class Expectation(Struct, frozen=True):
    """What to wait for. timeout: seconds. own_url: whether the URL is the environment's own.

    deployment_id, digest, repository: of the deployment to follow in ECS, as in `rollout.Before`.
    """

    environment: str
    url: str
    version: str
    timeout: float
    own_url: bool
    repository: str
    deployment_id: str
    digest: str

    @property
    def where(self) -> str:
        """What messages name: the environment if its own URL is requested, else the URL."""
        return self.environment if self.own_url else self.url

    def describe(self) -> list[str]:
        return [
            f"wait up to {self.timeout:g} s until {self.url} answers with version {self.version}"
            f" {MATCHES} times in a row"
        ]


class Healthy(Report, Struct, frozen=True):
    """What runs now. changed_from: the last other version that answered, empty if none did.

    where: the environment, or the URL that was given instead of its own. verdict: one of `rollout.Verdict`, empty if
    ECS was not read. proof: what the result rests on. note: a restriction of it, or empty. reasons: why it failed.
    """

    environment: str
    version: str
    changed_from: str
    where: str
    verdict: str = ""
    proof: tuple[str, ...] = ()
    note: str = ""
    reasons: tuple[str, ...] = ()

    def line(self) -> str:
        version = versions.short(self.version)
        if self.reasons:
            return f"{self.where}: {version} {self.verdict or 'is not proven to run'}"
        if self.verdict == rollout.Verdict.NOTHING.value:
            return f"{self.where} has {version} deployed; {self.proof[0]}, so nothing is verified"
        change = f" (was {versions.short(self.changed_from)})" if self.changed_from else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.where} runs {version}{change}{note}"

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
    env = run.environment
    decided = Expectation(
        environment=env.name,
        url=http.checked(env.healthcheck if url is None else url, "the URL of a healthcheck"),
        version=versions.wanted(version),
        timeout=waiting.seconds(timeout, TIMEOUT),
        own_url=url is None,
        repository=env.service.image,
        deployment_id=deployment_id or "",
        digest=digest or "",
    )

    def act(plan: Expectation) -> Healthy:
        result, failure = wait(plan, env)
        if failure:
            run.steps[-1].result = result
            raise failure
        return result

    return run.act(decided, act, "wait for the version", changes=False)


def wait(plan: Expectation, environment: Environment, *, clock: Clock = CLOCK) -> tuple[Healthy, DeployError | None]:
    """Wait until the version answers and its rollout is complete. Returns the result, and the error if it failed."""
    sight = _reader(environment)
    since = 0.0 if plan.deployment_id else time.time() - LOOK_BACK
    before = Before(plan.version, plan.repository, plan.deployment_id, plan.digest, since)
    again = f"invoke healthcheck --env={plan.environment} --version={plan.version}"
    name = environment.service.name
    ended = watch.watch(watch.Plan(plan.where, name, before, plan.url, plan.timeout, again), sight, clock=clock)
    reasons.show(ended.reasons)
    why = ended.reasons.lines or ((str(ended.failure),) if ended.failure else ())
    result = Healthy(plan.environment, plan.version, ended.changed_from, plan.where)
    verdict = ended.verdict.value if ended.verdict else ""
    return replace(result, verdict=verdict, proof=ended.proof, note=ended.note, reasons=why), ended.failure


def _reader(environment: Environment) -> Reader | None:
    """How to read the service, or None if there are no credentials."""
    if not aws.has_credentials(environment):
        console.say("the rollout in ECS is not watched: there are no AWS credentials here")
        return None
    return Reader(environment, environment.service.name)
