"""The pipeline: the other commands in a row. The workflow calls it, and a person calls the same."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from scripts import release_static
from scripts.backup_database import backup_database
from scripts.build_image import build_image
from scripts.clean_database import clean_database
from scripts.deploy_service import Deployed, deploy_service
from scripts.frame import version
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.healthcheck import healthcheck
from scripts.migrate_database import migrate, service


@dataclass
class Deployment:
    """What is deployed, and what the steps have learned so far, by name."""

    environment: Environment
    version: str
    digest: str | None = None
    migration_digest: str | None = None
    no_build: bool = False
    build_dir: str | None = None
    deployed: Deployed | None = None


class Step(NamedTuple):
    """One step. applies: whether the settings and the flags ask for it."""

    name: str
    applies: Callable[[Deployment], bool]
    do: Callable[[Run, Deployment], object]


def _builds_images(now: Deployment) -> bool:
    # No pipeline has built the images of an embedded environment.
    return bool(now.environment.endpoint_url) and not now.no_build


def _build_image(run: Run, now: Deployment) -> None:
    build_image(run, image=run.environment.service.image, tag=now.version)


def _build_migration_image(run: Run, now: Deployment) -> None:
    build_image(run, image=run.environment.migrations.image, tag=now.version)


def _deploy_migrations(run: Run, now: Deployment) -> None:
    tag = None if now.migration_digest else now.version
    deploy_service(run, service=service(run.environment), tag=tag, digest=now.migration_digest)


def _deploy_service(run: Run, now: Deployment) -> None:
    tag = None if now.digest else now.version
    now.deployed = deploy_service(run, tag=tag, digest=now.digest)


def _healthcheck(run: Run, now: Deployment) -> None:
    learned = now.deployed
    healthcheck(
        run,
        version=now.version,
        deployment_id=learned.deployment_id if learned else None,
        digest=now.digest,
    )


def _release_frontend(run: Run, now: Deployment) -> None:
    release_static.release_static(run, build_dir=now.build_dir, no_build=True)


PIPELINE = (
    Step("build the service's image", _builds_images, _build_image),
    Step(
        "build the migrations' image",
        lambda now: _builds_images(now) and bool(now.environment.migrations.image),
        _build_migration_image,
    ),
    Step("back up the database", lambda now: now.environment.database.backup, lambda run, _: backup_database(run)),
    Step("clean the database", lambda now: bool(now.environment.cleaner.function), lambda run, _: clean_database(run)),
    Step("deploy the migrations", lambda now: bool(now.environment.migrations.service), _deploy_migrations),
    Step("migrate the database", lambda now: bool(now.environment.migrations.service), lambda run, _: migrate(run)),
    Step("deploy the service", lambda _: True, _deploy_service),
    Step("wait for the version", lambda _: True, _healthcheck),
    Step("build the frontend", lambda now: not now.no_build, lambda run, _: release_static.build_frontend(run)),
    Step("release the frontend", lambda _: True, _release_frontend),
)


def deploy(
    run: Run,
    *,
    tag: str | None = None,
    digest: str | None = None,
    migration_digest: str | None = None,
    no_build: bool = False,
    build_dir: str | None = None,
) -> None:
    """Deploy a version, one step after the other; the first failure ends it."""
    env = run.environment
    now = Deployment(env, version.wanted(tag), digest, migration_digest, no_build, build_dir)
    if not run.dry_run:
        # What the last steps need is looked at before the first one changes anything.
        release_static.check(env, build_dir=build_dir, no_build=no_build)
    steps = [step for step in PIPELINE if step.applies(now)]
    run.run_steps([(step.name, partial(step.do, run, now)) for step in steps])
    run.last_line = f"{env.name} runs {version.short(now.version)}"
