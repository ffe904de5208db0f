"""Pure decisions about a task definition: what is carried over, where an image and secrets go."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from ecs_manager.errors import ManagerError

# What DescribeTaskDefinition returns and RegisterTaskDefinition does not take. Everything else is carried
# over: a list of what to keep would lose each field that ECS adds.
OUTPUT_ONLY = {
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
}


def registrable(definition: Mapping[str, Any], tags: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A described task definition as RegisterTaskDefinition takes it, its tags included."""
    fields = {key: deepcopy(value) for key, value in definition.items() if key not in OUTPUT_ONLY}
    # Tags that begin with aws: are AWS's own and cannot be set.
    own = [dict(tag) for tag in tags if not tag["key"].startswith("aws:")]
    return {**fields, "tags": own} if own else fields


def repository(image: str) -> str:
    """An image's URI without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def container_for_image(definition: Mapping[str, Any], image: str) -> str:
    """The container that is to get an image: the one that uses its repository, or the only one.

    Raises ManagerError where that does not name exactly one.
    """
    containers = definition["containerDefinitions"]
    using = [c["name"] for c in containers if repository(c["image"]) == repository(image)]
    if len(using) == 1:
        return str(using[0])
    if len(containers) == 1:
        return str(containers[0]["name"])
    names = ", ".join(f"{c['name']} ({c['image']})" for c in containers)
    which = "More than one container uses" if using else "No container uses"
    raise ManagerError("AmbiguousContainer", f"{which} the repository {repository(image)}: {names}.")


def container_for_secrets(definition: Mapping[str, Any]) -> str:
    """The container that gets the secrets when no image says which.

    The one that has some; where none has, the only one that is essential, or the only one. Raises
    ManagerError where that does not name exactly one.
    """
    containers = definition["containerDefinitions"]
    having = [c["name"] for c in containers if c.get("secrets")]
    for candidates in (having, [] if having else essential(definition), [c["name"] for c in containers]):
        if len(candidates) == 1:
            return str(candidates[0])
    names = ", ".join(c["name"] for c in containers)
    raise ManagerError("AmbiguousContainer", f"The secrets could go to any of {names}: send an image too.")


def changed(
    definition: Mapping[str, Any], image: str | None, secrets: Sequence[Mapping[str, str]] | None
) -> dict[str, Any]:
    """A registrable task definition with a new image and new secrets in the container meant for them."""
    new = deepcopy(dict(definition))
    if image is None and secrets is None:
        return new
    name = container_for_image(new, image) if image is not None else container_for_secrets(new)
    container = next(c for c in new["containerDefinitions"] if c["name"] == name)
    if image is not None:
        container["image"] = image
    # The same secrets in another order are no change.
    if secrets is not None and _by_name(secrets) != _by_name(container.get("secrets", [])):
        container["secrets"] = [dict(secret) for secret in secrets]
    return new


def _by_name(secrets: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    return sorted((dict(secret) for secret in secrets), key=lambda secret: secret["name"])


def essential(definition: Mapping[str, Any]) -> list[str]:
    """The names of the containers whose end ends the task. ECS counts one as essential unless told not to."""
    return [c["name"] for c in definition["containerDefinitions"] if c.get("essential", True)]


def verdict(task: Mapping[str, Any], names: Iterable[str]) -> int:
    """The exit code of a stopped task: the first of its essential containers that is not 0, else 0.

    Raises ManagerError, with ECS's reasons, for a container that never started.
    """
    containers = {c["name"]: c for c in task.get("containers", [])}
    codes = {name: containers.get(name, {}).get("exitCode") for name in names}
    never = [name for name, code in codes.items() if code is None]
    if never:
        reasons = [containers.get(name, {}).get("reason", "") for name in never]
        told = [text for text in (task.get("stopCode"), task.get("stoppedReason"), *reasons) if text]
        why = "; ".join(dict.fromkeys(told)) or "ECS gives no reason"
        raise ManagerError("TaskFailedToStart", f"{', '.join(never)} stopped without an exit code: {why}.")
    return next((int(code) for code in codes.values() if code), 0)
