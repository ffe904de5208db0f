"""The pipeline: runs the other commands in order. The workflow and a person call the same command."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from scripts import clean_database, release_static, verify
from scripts.backup_database import backup_database
from scripts.build_image import build_image
from scripts.deploy_service import Deployed, Wish, carry_out, endpoint, still, wish_of
from scripts.ecs import images, manager, order, preflight, promotion, receipts
from scripts.frame import console, version
from scripts.frame.run import Run
from scripts.frame.settings import ROOT, Environment
from scripts.migrate_database import migrate
from scripts.release import lease


class Deployment(Struct):
    """What is deployed, and the results of the steps so far.

    digest, migration_digest: of the images, None if they are found by tag. migrations, deployed: results of deploying
    them and the service, None before that step and in a dry run.
    """

    environment: Environment
    version: str
    digest: str | None
    migration_digest: str | None
    no_build: bool
    build_dir: str | None
    skip_promotion: bool
    supersede: bool
    allow_secret_removal: bool
    migrations: Deployed | None = None
    deployed: Deployed | None = None

    @property
    def builds_images(self) -> bool:
        """Whether to build images: in an embedded environment no workflow has built them."""
        return bool(self.environment.endpoint_url) and not self.no_build


Do = Callable[[Run, Deployment], object]


class Step(NamedTuple):
    """One step. applies: whether settings and flags include it.

    check: verifies what the step needs, before the first step changes anything; raises Refused.
    """

    name: str
    do: Do
    applies: Callable[[Deployment], bool] = lambda _: True
    check: Callable[[Deployment], object] = lambda _: None


def deploy(
    run: Run,
    *,
    tag: str | None = None,
    digest: str | None = None,
    migration_digest: str | None = None,
    no_build: bool = False,
    build_dir: str | None = None,
    skip_promotion: bool = False,
    supersede: bool = False,
    allow_secret_removal: bool = False,
) -> None:
    """Deploy a version step by step; the first failure ends it."""
    for given, flag in ((digest, "--digest"), (migration_digest, "--migration-digest")):
        if given is not None:
            images.checked_digest(given, flag)
    now = Deployment(
        run.environment,
        version.wanted(tag),
        digest,
        migration_digest,
        no_build,
        build_dir,
        skip_promotion,
        supersede,
        allow_secret_removal,
    )
    steps = [step for step in PIPELINE if step.applies(now)]
    # A dry run reports what is missing at each step instead.
    for step in [] if run.dry_run else steps:
        step.check(now)
    run.facts["version"] = now.version
    with receipts.kept(run), lease.locked(run):
        if not run.dry_run:
            _look_first(run, now)
        run.run_steps([(step.name, partial(_do, run, now, step)) for step in steps])
    if not run.dry_run:
        console.say(f"the application is at {now.environment.site}")


def _look_first(run: Run, now: Deployment) -> None:
    """Look at all that is going to be deployed, before the database is touched. Raises Refused.

    Not at images that are only built in this run.
    """
    env, migrations = now.environment, now.environment.migrations.service
    of_service, of_migrations = _wish(now), _wish_of_migrations(now)
    if now.builds_images:
        of_service, of_migrations = (
            replace(one, tag=None, digest=None, no_image=True) for one in (of_service, of_migrations)
        )
    for name in verify.targets(env):
        wish = of_migrations if name == migrations else wish_of(env, of_service, name)
        preflight.before(run, verify.call_for(env, wish, name), supersede=now.supersede, brief=True)


def _wish(now: Deployment) -> Wish:
    tag = None if now.digest else now.version
    return Wish(
        tag=tag,
        digest=now.digest,
        version=now.version,
        supersede=now.supersede,
        allow_secret_removal=now.allow_secret_removal,
    )


def _wish_of_migrations(now: Deployment) -> Wish:
    tag = None if now.migration_digest else now.version
    return Wish(now.environment.migrations.service, tag=tag, digest=now.migration_digest)


def _do(run: Run, now: Deployment, step: Step) -> None:
    """Do one step, while nobody has taken the lock over."""
    lease.check(run)
    step.do(run, now)


def _check_promotion(run: Run, now: Deployment) -> None:
    """Whether the environment before has run the version well."""
    if now.skip_promotion:
        run.facts["promotion"] = "promotion skipped"
        console.warn(f"it is not looked at whether {version.short(now.version)} has run before {now.environment.name}")
        return
    before = promotion.environment_before(now.environment)
    run.look(f"what {before} has run", lambda: promotion.check(now.environment, now.version, now.digest))


def _check_order(run: Run, now: Deployment) -> None:
    """Whether the environment does not run a newer version: this one may have waited long for its approval."""
    if not run.dry_run:
        order.check(now.environment, ROOT, now.version)


def _build_image(run: Run, now: Deployment) -> None:
    build_image(run, image=now.environment.service.image, tag=now.version)


def _build_migration_image(run: Run, now: Deployment) -> None:
    build_image(run, image=now.environment.migrations.image, tag=now.version)


def _build_frontend(run: Run, now: Deployment) -> None:
    folder = release_static.folder(now.environment.frontend.folder, now.build_dir)
    release_static.build_into(run, folder)
    if not run.dry_run:
        release_static.check(now.environment, build_dir=now.build_dir, no_build=True)


def _deploy_migrations(run: Run, now: Deployment) -> None:
    now.migrations = carry_out(run, _wish_of_migrations(now))


def _deploy_service(run: Run, now: Deployment) -> None:
    now.deployed = carry_out(run, _wish(now))


def _release_frontend(run: Run, now: Deployment) -> None:
    release_static.release_static(run, build_dir=now.build_dir, no_build=True)


def _look_again(run: Run, now: Deployment) -> None:
    """Somebody else may have deployed while the frontend was released."""
    deployed = now.deployed
    if deployed:
        run.look("the service", lambda: still(now.environment, deployed))


def _check_service(now: Deployment) -> None:
    env = now.environment
    manager.checked_service(env.service.name)
    env.account.require()
    env.registry.require()
    if env.service.secrets:
        env.service.secrets.require()
    endpoint(env)


PIPELINE = (
    Step("check the order", _check_order, lambda now: not now.environment.endpoint_url),
    Step("check the promotion", _check_promotion, lambda now: bool(promotion.environment_before(now.environment))),
    Step("build the service's image", _build_image, lambda now: now.builds_images),
    Step(
        "build the migrations' image",
        _build_migration_image,
        lambda now: now.builds_images and bool(now.environment.migrations.image),
    ),
    Step("build the frontend", _build_frontend, lambda now: not now.no_build),
    Step(
        "back up the database",
        lambda run, _: backup_database(run),
        lambda now: now.environment.database.backup,
        lambda now: now.environment.database.name.require(),
    ),
    Step(
        "clean the database",
        lambda run, _: clean_database.clean_database(run),
        lambda now: clean_database.is_set(now.environment),
        lambda now: clean_database.check(now.environment),
    ),
    Step(
        "deploy the migrations",
        _deploy_migrations,
        lambda now: bool(now.environment.migrations.service),
        lambda now: manager.checked_service(now.environment.migrations.service),
    ),
    Step(
        "migrate the database",
        lambda run, now: migrate(run, now.migrations),
        lambda now: bool(now.environment.migrations.service),
    ),
    Step("deploy the service", _deploy_service, check=_check_service),
    Step(
        "release the frontend",
        _release_frontend,
        check=lambda now: release_static.check(now.environment, build_dir=now.build_dir, no_build=now.no_build),
    ),
    Step("look at the service again", _look_again),
)
