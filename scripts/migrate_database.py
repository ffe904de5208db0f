"""Migrates the database: deploys the migrations of a version, runs them once, and shows their logs.

The logs come from CloudWatch, whether or not the migration succeeded.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scripts.deploy_service import deploy_service
from scripts.ecs import logs, receipts
from scripts.ecs.logs import Source
from scripts.ecs.reader import Reader
from scripts.frame import console, waiting
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut
from scripts.release import lease
from scripts.run_task import TaskEnded, run_task

# CloudWatch shows a line some seconds after it was logged.
TIMEOUT, INTERVAL = 5.0, 1.5
# Maximum difference between this machine's clock and AWS's, in seconds.
SKEW = 5.0
LINES = 200


def migrate_database(
    run: Run, *, tag: str | None = None, digest: str | None = None, image_uri: str | None = None
) -> None:
    """Deploy the migrations, then run them once."""
    name = service(run.environment)
    with receipts.kept(run), lease.locked(run):
        run.run_steps(
            [
                (
                    "deploy the migrations",
                    lambda: deploy_service(run, service=name, tag=tag, digest=digest, image_uri=image_uri),
                ),
                ("migrate the database", lambda: migrate(run)),
            ]
        )


def migrate(run: Run) -> TaskEnded | None:
    """Run the deployed migrations once, and show their logs."""
    with showing_logs(run.environment):
        return run_task(run, service=service(run.environment))


def service(environment: Environment) -> str:
    """The service that migrates. Raises Refused where the environment has none."""
    if not environment.migrations.service:
        raise Refused(f"{environment.name} has no migrations.service in the settings: set it to migrate the database.")
    return environment.migrations.service


@contextmanager
def showing_logs(environment: Environment, *, clock: Clock = CLOCK) -> Iterator[None]:
    """Show what the migration logged during the block, after it. A failure to read logs never changes the outcome."""
    since = time.time() - SKEW
    try:
        yield
    except Refused:
        raise
    except DeployError:
        _show(environment, since, clock)
        raise
    if not environment.dry_run:
        _show(environment, since, clock)


def _show(environment: Environment, since: float, clock: Clock) -> None:
    lines: list[str] = []
    try:
        found = _sources(environment)

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


def _sources(environment: Environment) -> list[Source]:
    """The log sources of the containers in the task definition of the service that migrates."""
    found = Reader(environment, service(environment))
    primary = found.look().primary
    return logs.sources(environment, found.definition(primary.task_definition)) if primary else []
