"""Migrates the database: deploys the migrations of a version, runs them once, and shows their logs.

The logs come from CloudWatch, whether or not the migration succeeded.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scripts import run_task
from scripts.deploy_service import Deployed, Wish, carry_out
from scripts.ecs import logs, receipts
from scripts.ecs.logs import Source
from scripts.ecs.reader import Reader
from scripts.frame import console, waiting
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut
from scripts.release import lease
from scripts.run_task import TaskEnded

# CloudWatch shows a line some seconds after it was logged.
TIMEOUT, INTERVAL = 5.0, 1.5
# Maximum difference between this machine's clock and AWS's, in seconds.
SKEW = 5.0
LINES = 200


def migrate_database(
    run: Run,
    *,
    tag: str | None = None,
    digest: str | None = None,
    image_uri: str | None = None,
    via: str | None = None,
) -> None:
    """Deploy the migrations, then run them once."""
    wish = Wish(service=service(run.environment), tag=tag, digest=digest, image_uri=image_uri, via=via)
    deployed: Deployed | None = None

    def deploy() -> None:
        nonlocal deployed
        deployed = carry_out(run, wish)

    with receipts.kept(run), lease.locked(run):
        run.run_steps(
            [("deploy the migrations", deploy), ("migrate the database", lambda: migrate(run, deployed, via=via))]
        )


def migrate(run: Run, deployed: Deployed | None = None, *, via: str | None = None) -> TaskEnded | None:
    """Run the deployed migrations once, and show their logs. deployed: what was deployed of them, None if not known."""
    revision = deployed.task_definition if deployed else ""
    with showing_logs(run.environment, revision):
        return run_task.carry_out(run, service(run.environment), via=via, task_definition=revision)


def service(environment: Environment) -> str:
    """The service that migrates. Raises Refused where the environment has none."""
    if not environment.migrations.service:
        raise Refused(f"{environment.name} has no migrations.service in the settings: set it to migrate the database.")
    return environment.migrations.service


@contextmanager
def showing_logs(environment: Environment, revision: str = "", *, clock: Clock = CLOCK) -> Iterator[None]:
    """Show what the migration logged during the block, after it. A failure to read logs never changes the outcome.

    revision: its task definition, empty for the one that the service runs.
    """
    since = time.time() - SKEW
    try:
        yield
    except Refused:
        raise
    except DeployError:
        _show(environment, revision, since, clock)
        raise
    if not environment.dry_run:
        _show(environment, revision, since, clock)


def _show(environment: Environment, revision: str, since: float, clock: Clock) -> None:
    lines: list[str] = []
    try:
        found = _sources(environment, revision)

        def look() -> tuple[str, list[str] | None]:
            return "", [line for source in found for line in logs.since(environment, source, since)] or None

        with suppress(TimedOut):
            lines = waiting.wait(look, seconds=TIMEOUT, every=INTERVAL, clock=clock) if found else []
    except DeployError as error:
        console.say(f"the migration's logs cannot be read: {error}")
        return
    if not lines:
        console.say("the migration has logged nothing" if found else "the migration does not log to CloudWatch")
        return
    with console.group(f"what {environment.migrations.service} printed"):
        for line in lines[-LINES:]:
            console.say(f"  | {line}")


def _sources(environment: Environment, revision: str) -> list[Source]:
    """The log sources of the containers of the migration."""
    found, name = Reader(environment, service(environment)), service(environment)
    if not revision and name in environment.tasks:
        revision = environment.tasks[name].family
    if not revision:
        primary = found.look().primary
        revision = primary.task_definition if primary else ""
    return logs.sources(environment, found.definition(revision)) if revision else []
