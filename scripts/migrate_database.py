"""Migrates the database: deploys the migrations of a version, runs them once, and shows their logs.

The logs come from CloudWatch, whether or not the migration succeeded.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from scripts.deploy_service import deploy_service
from scripts.ecs import rollout
from scripts.edges import aws
from scripts.frame import console, waiting
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut
from scripts.run_task import TaskEnded, run_task

# CloudWatch shows a line some seconds after it was logged.
TIMEOUT, INTERVAL = 5.0, 1.5
# Maximum difference between this machine's clock and AWS's, in seconds.
SKEW = 5.0
LINES = 200


@dataclass(frozen=True)
class Source:
    """Where a container logs to. prefix: of the names of its log streams."""

    group: str
    region: str
    prefix: str


def migrate_database(
    run: Run, *, tag: str | None = None, digest: str | None = None, image_uri: str | None = None
) -> None:
    """Deploy the migrations, then run them once."""
    name = service(run.environment)
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
        found = sources(environment)

        def look() -> tuple[str, list[str] | None]:
            return "", [line for source in found for line in read(environment, source, since)] or None

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


def sources(environment: Environment) -> list[Source]:
    """The log sources of the containers in the task definition of the service that migrates."""
    primary = rollout.observe(environment, service(environment)).primary
    if primary is None:
        return []
    with aws.errors(f"reading {primary.task_definition}", environment):
        found = aws.client("ecs", environment).describe_task_definition(taskDefinition=primary.task_definition)
    return [source for c in found["taskDefinition"]["containerDefinitions"] if (source := _source(environment, c))]


def _source(environment: Environment, container: Mapping[str, Any]) -> Source | None:
    configuration = container.get("logConfiguration", {})
    options = configuration.get("options", {})
    if configuration.get("logDriver") != "awslogs" or not options.get("awslogs-stream-prefix"):
        return None
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html: prefix/container/task
    prefix = f"{options['awslogs-stream-prefix']}/{container['name']}/"
    return Source(options.get("awslogs-group", ""), options.get("awslogs-region", environment.region), prefix)


def read(environment: Environment, source: Source, since: float) -> list[str]:
    """The lines of the newest task that logged there. since: Unix time in seconds."""
    client = aws.client("logs", structs.replace(environment, region=source.region))
    with aws.errors(f"reading the log group {source.group}", environment):
        pages = client.get_paginator("filter_log_events").paginate(
            logGroupName=source.group, logStreamNamePrefix=source.prefix, startTime=int(since * 1000)
        )
        events = [event for page in pages for event in page["events"]]
    if not events:
        return []
    newest = max(events, key=lambda event: event["timestamp"])["logStreamName"]
    return [str(event["message"]).rstrip() for event in events if event["logStreamName"] == newest]
