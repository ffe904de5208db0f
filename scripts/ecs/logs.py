"""Reads from CloudWatch what a task's containers logged, where its task definition says that they log there."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from scripts.edges import aws
from scripts.frame.settings import Environment


class Source(Struct, frozen=True):
    """Where a container logs to. prefix: of the names of its log streams."""

    container: str
    group: str
    region: str
    prefix: str


def sources(environment: Environment, definition: Mapping[str, Any]) -> list[Source]:
    """The log sources of a task definition's containers, in its order."""
    containers = definition.get("containerDefinitions", [])
    return [source for container in containers if (source := _source(environment, container))]


def _source(environment: Environment, container: Mapping[str, Any]) -> Source | None:
    configuration = container.get("logConfiguration", {})
    options = configuration.get("options", {})
    if configuration.get("logDriver") != "awslogs" or not options.get("awslogs-stream-prefix"):
        return None
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html: prefix/container/task
    prefix = f"{options['awslogs-stream-prefix']}/{container['name']}/"
    region = options.get("awslogs-region", environment.region)
    return Source(container["name"], options.get("awslogs-group", ""), region, prefix)


def since(environment: Environment, source: Source, began: float) -> list[str]:
    """The lines of the newest task that logged there. began: Unix time in seconds. Raises DeployError."""
    with aws.errors(f"reading the log group {source.group}", environment):
        asked = {"logGroupName": source.group, "logStreamNamePrefix": source.prefix, "startTime": int(began * 1000)}
        pages = aws.pages(_client(environment, source), "filter_log_events", **asked)
        events = [event for page in pages for event in page["events"]]
    if not events:
        return []
    newest = max(events, key=lambda event: event["timestamp"])["logStreamName"]
    return _lines([event for event in events if event["logStreamName"] == newest])


def last(environment: Environment, source: Source, task: str, most: int) -> list[str]:
    """The last lines of one task; none if it logged nothing. task: its id. Raises DeployError."""
    client = _client(environment, source)
    with aws.errors(f"reading the log group {source.group}", environment):
        try:
            found = client.get_log_events(
                logGroupName=source.group, logStreamName=source.prefix + task, limit=most, startFromHead=False
            )
        except client.exceptions.ResourceNotFoundException:
            return []
        return _lines(found["events"])


def _client(environment: Environment, source: Source) -> Any:
    return aws.client("logs", structs.replace(environment, region=source.region))


def _lines(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(event["message"]).rstrip() for event in events]
