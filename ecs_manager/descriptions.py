"""Reads task definitions, with a check that nothing of them is lost on the way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecs_manager.errors import ManagerError


def describe(ecs: Any, name: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A task definition by its ARN or family, and its tags.

    Raises ManagerError if ECS returned a field that this botocore does not know: botocore leaves it out of the answer
    without a word, and the next revision would be without it.
    """
    bodies: list[bytes] = []

    def keep(response_dict: Mapping[str, Any], **_: Any) -> None:
        bodies.append(response_dict["body"])

    events, event = getattr(getattr(ecs, "meta", None), "events", None), "before-parse.ecs.DescribeTaskDefinition"
    if events:
        events.register(event, keep)
    try:
        answer = ecs.describe_task_definition(taskDefinition=name, include=["TAGS"])
    finally:
        if events:
            events.unregister(event, keep)
    definition = answer["taskDefinition"]
    lost = sorted(set(unknown(_raw(bodies), definition, ""))) if bodies else []
    if lost:
        import botocore

        raise ManagerError(
            "UnknownFields",
            f"The task definition {definition.get('taskDefinitionArn', name)} has fields that botocore"
            f" {botocore.__version__} does not know, and the new revision would lose them: {', '.join(lost)}. Update"
            " botocore, or deploy from where it is newer (--via). Nothing was changed.",
        )
    return dict(definition), list(answer.get("tags", []))


def _raw(bodies: Sequence[bytes]) -> Any:
    """The task definition as ECS sent it, in its last response."""
    try:
        return json.loads(bodies[-1]).get("taskDefinition")
    except (ValueError, AttributeError):
        return None


def unknown(raw: Any, parsed: Any, path: str) -> Iterator[str]:
    """The paths of values in a JSON document that are missing in what botocore made of it.

    Null and what is empty are no values: nothing is lost with them.
    """
    if isinstance(raw, Mapping) and isinstance(parsed, Mapping):
        for key, value in raw.items():
            here = f"{path}.{key}".removeprefix(".")
            if key in parsed:
                yield from unknown(value, parsed[key], here)
            elif value not in (None, "", [], {}):
                yield here
    elif isinstance(raw, list) and isinstance(parsed, list):
        for one, other in zip(raw, parsed, strict=False):
            yield from unknown(one, other, path)
