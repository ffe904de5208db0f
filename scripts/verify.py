"""Looks at everything that a deployment depends on, and changes nothing: the reads of deploy-service alone.

Also asks IAM whether the role that deploys has the rights that it needs, and GitHub whether somebody has to approve, as
far as they may be asked.
"""

from msgspec import Struct

from scripts import deploy_service
from scripts.deploy_service import Wish
from scripts.ecs import gates, manager, preflight, rights
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import Finding, Preflight
from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


class Verified(Report, Struct, frozen=True):
    """What was found, for each service. rights: those of the role that deploys. gate: who has to approve."""

    environment: str
    services: tuple[Preflight, ...]
    rights: tuple[Finding, ...]
    gate: tuple[Finding, ...] = ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why nothing can be deployed, a sentence each."""
        of_services = [(f"{one.name}: ", found) for one in self.services for found in one.refusals]
        of_rights = [("", found) for found in self.rights if found.result == preflight.REFUSED]
        return tuple(f"{whose}{found.about}: {found.text}" for whose, found in [*of_services, *of_rights])

    def line(self) -> str:
        names = ", ".join(one.name for one in self.services if not one.refusals)
        return f"{self.environment}: {names or 'nothing'} can be deployed"

    def table(self) -> list[tuple[str, ...]]:
        rows = [("RESULT", "SERVICE", "WHAT", "")]
        for one in self.services:
            rows += [(result, one.name, about, text) for result, about, text in one.table()[1:]]
        return [*rows, *((found.result, "", found.about, found.text) for found in (*self.rights, *self.gate))]


def verify(
    run: Run,
    *,
    service: str | None = None,
    tag: str | None = None,
    digest: str | None = None,
    image_uri: str | None = None,
    via: str | None = None,
) -> Verified | None:
    """Look at the services, and fail if one of them cannot be deployed."""
    env = run.environment
    names = targets(env) if service is None else (manager.checked_service(service),)
    if service is None and (digest is not None or image_uri is not None):
        # They are of one image.
        names = names[:1]
    calls = [call_for(env, Wish(tag=tag, digest=digest, image_uri=image_uri), name, via) for name in names]
    found = run.look("what a deployment depends on", lambda: look(run, calls))
    if found and found.refusals and not run.dry_run:
        raise Refused("\n".join([f"{found.line()}.", *(f"  {reason}" for reason in found.refusals)]))
    return found


def targets(environment: Environment) -> tuple[str, ...]:
    """What a deployment of the application deploys: what migrates its database, and its services."""
    migrations = (environment.migrations.service,) if environment.migrations.service else ()
    return tuple(dict.fromkeys([*manager.services(environment), *migrations]))


def call_for(environment: Environment, wish: Wish, name: str, via: str | None = None) -> Invocation:
    """The call that would deploy a service. Raises Refused for flags and settings that cannot be."""
    image = deploy_service.image_of(environment, wish, name)
    event = manager.deploy_event(environment, name, str(image or ""), allow_secret_removal=wish.allow_secret_removal)
    return manager.planned(environment, None, None, event, via)


def look(run: Run, calls: list[Invocation]) -> Verified:
    """What is found for each call, and whether the role that carries them out may do so."""
    env = run.environment
    found = tuple(preflight.check(run, call, supersede=False) for call in calls)
    return Verified(env.name, found, tuple(rights.check(env, calls[0])), tuple(gates.check(env)))
