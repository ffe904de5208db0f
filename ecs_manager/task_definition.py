"""Pure decisions about a task definition: what is carried over, where an image and secrets go."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ecs_manager.errors import ManagerError

# The exit code of a container that was asked to stop, and ECS's stopCode of a task that none but itself has ended.
SIGTERM, ENDED_ITSELF = 143, "EssentialContainerExited"
# What DescribeTaskDefinition returns and RegisterTaskDefinition does not accept. Everything else is carried
# over: a list of fields to keep would lose those that ECS adds later.
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
    """A described task definition in the form that RegisterTaskDefinition accepts, with its tags."""
    fields = {key: deepcopy(value) for key, value in definition.items() if key not in OUTPUT_ONLY}
    # Tags that begin with aws: are AWS's own and cannot be set.
    own = [dict(tag) for tag in tags if not tag["key"].startswith("aws:")]
    return {**fields, "tags": own} if own else fields


def repository(image: str) -> str:
    """An image's URI without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def path_of(image: str) -> str:
    """An image's repository without its registry."""
    name = repository(image)
    head, slash, rest = name.partition("/")
    return rest if slash and (head == "localhost" or set(".:") & set(head)) else name


def containers_for_image(definition: Mapping[str, Any], image: str, wanted: Sequence[str] = ()) -> list[str]:
    """The containers that are to get an image.

    Those that are named (wanted); else all that use its repository; else, as the image may have moved to another
    registry, all that use a repository of the same name; else the only container. Raises ManagerError otherwise.
    """
    containers = definition["containerDefinitions"]
    if wanted:
        return known(containers, wanted)
    for part in (repository, path_of):
        using = [str(c["name"]) for c in containers if part(c["image"]) == part(image)]
        if using:
            return using
    if len(containers) == 1:
        return [str(containers[0]["name"])]
    names = ", ".join(f"{c['name']} ({c['image']})" for c in containers)
    raise ManagerError(
        "AmbiguousContainer",
        f"No container uses the repository {repository(image)}: {names}. Name the ones that it is for (the setting"
        " service.containers).",
    )


def known(containers: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[str]:
    """The names that were asked for, each once. Raises ManagerError for one that no container has."""
    names = [str(c["name"]) for c in containers]
    for name in wanted:
        if name not in names:
            raise ManagerError("UnknownContainer", f"There is no container {name}: use one of {', '.join(names)}.")
    return list(dict.fromkeys(wanted))


def containers_for_secrets(definition: Mapping[str, Any], secrets: Sequence[Mapping[str, str]]) -> list[str]:
    """The containers that get the secrets when no image says which.

    The only one that has some, or all that have one of these; where none has any, the only one that is essential, or
    the only one. Raises ManagerError otherwise.
    """
    containers = definition["containerDefinitions"]
    having = [str(c["name"]) for c in containers if c.get("secrets")]
    meant = {secret["name"] for secret in secrets}
    sharing = [str(c["name"]) for c in containers if meant & {secret["name"] for secret in c.get("secrets", [])}]
    if sharing:
        return sharing
    for candidates in (having, [] if having else essential(definition), [c["name"] for c in containers]):
        if len(candidates) == 1:
            return [str(candidates[0])]
    names = ", ".join(c["name"] for c in containers)
    raise ManagerError("AmbiguousContainer", f"The secrets could go to any of {names}: send an image too.")


@dataclass(frozen=True)
class Change:
    """What a task definition is to get. image, secrets: None to leave them as they are.

    containers: the ones that get it, empty for those that use the image's repository. own: ARN of a task definition of
    the same region and account. drop: remove every secret that is not among the new ones.
    """

    image: str | None = None
    secrets: Sequence[Mapping[str, str]] | None = None
    containers: Sequence[str] = ()
    own: str = ""
    drop: bool = False


def changed(definition: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """A registrable task definition with a new image and new secrets in the containers meant for them."""
    new = deepcopy(dict(definition))
    if change.image is None and change.secrets is None:
        return new
    if change.image is not None:
        names = containers_for_image(new, change.image, change.containers)
    elif change.containers:
        names = known(new["containerDefinitions"], change.containers)
    else:
        names = containers_for_secrets(new, change.secrets or [])
    chosen = [c for c in new["containerDefinitions"] if c["name"] in names]
    for container in chosen if change.image is not None else []:
        container["image"] = change.image
    if change.secrets is not None:
        # Of several containers with one image, a helper that runs without secrets stays without them.
        for container in [c for c in chosen if c.get("secrets")] or chosen:
            _give(container, change, change.secrets)
    return new


def _give(container: dict[str, Any], change: Change, secrets: Sequence[Mapping[str, str]]) -> None:
    """Replace a container's secrets; those that no parameter can stand for are kept."""
    old, given = container.get("secrets", []), {secret["name"] for secret in secrets}
    kept = [s for s in old if not change.drop and s["name"] not in given and is_foreign(s["valueFrom"], change.own)]
    # Another order of the same secrets is not a change.
    if _by_name([*secrets, *kept]) != _by_name(old):
        container["secrets"] = _by_name([*secrets, *kept])


def is_foreign(value_from: str, own: str) -> bool:
    """Whether a secret comes from Secrets Manager, or by ARN from another region or account than `own` is in.

    The search for parameters cannot find such a secret, so its absence there says nothing.
    """
    if not value_from.startswith("arn:"):
        return False
    return ":secretsmanager:" in value_from or (bool(own) and home(value_from) != home(own))


def home(arn: str) -> tuple[str, str]:
    """The region and the account of an ARN, empty for a text that is none."""
    parts = arn.split(":", 5)
    return (parts[3], parts[4]) if len(parts) == 6 else ("", "")


def _by_name(secrets: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    return sorted((dict(secret) for secret in secrets), key=lambda secret: secret["name"])


def essential(definition: Mapping[str, Any]) -> list[str]:
    """The names of the containers whose end ends the task. ECS counts one as essential unless told not to."""
    return [str(c["name"]) for c in definition["containerDefinitions"] if c.get("essential", True)]


def own_container(definition: Mapping[str, Any], names: Sequence[str]) -> str:
    """The essential container that a task is run for, as opposed to its sidecars; empty where that is not clear.

    The only essential one; else the one called like the service or the family (names), or like their end; else the only
    one whose image is in the private registry of the task definition's account.
    """
    candidates = essential(definition)
    if len(candidates) == 1:
        return candidates[0]
    _, account = home(definition.get("taskDefinitionArn", ""))
    private = [
        str(c["name"])
        for c in definition["containerDefinitions"]
        if account and c["name"] in candidates and str(c.get("image", "")).startswith(f"{account}.dkr.ecr")
    ]
    called = [c for c in candidates if c in names]
    ending = [c for c in candidates if any(f"-{name}".endswith(f"-{c}") for name in names)]
    return next((found[0] for found in (called, ending, private) if len(found) == 1), "")


def verdict(task: Mapping[str, Any], definition: Mapping[str, Any], own: str = "") -> tuple[int, str]:
    """The exit code of a stopped task, and the container that it is from.

    own: the container that the task was run for; it alone counts. Where that is not clear (""): the first essential
    container that did not end with 0. Once one of them has ended with 0, ECS stops the others with SIGTERM: 143 is
    what such a container returns, and does not count.

    Raises ManagerError, with ECS's reasons, for a container that counts and never started.
    """
    containers = {c["name"]: c for c in task.get("containers", [])}
    codes = {name: containers.get(name, {}).get("exitCode") for name in ([own] if own else essential(definition))}
    never = [name for name, code in codes.items() if code is None]
    if never:
        reasons = [containers.get(name, {}).get("reason", "") for name in never]
        told = [text for text in (task.get("stopCode"), task.get("stoppedReason"), *reasons) if text]
        why = "; ".join(dict.fromkeys(told)) or "ECS gives no reason"
        raise ManagerError("TaskFailedToStart", f"{', '.join(never)} stopped without an exit code: {why}.")
    done = [name for name, code in codes.items() if code == 0]
    ended_itself = task.get("stopCode", ENDED_ITSELF) == ENDED_ITSELF
    failed = [n for n, code in codes.items() if code and not (code == SIGTERM and done and ended_itself)]
    counted = (failed or done)[0]
    return int(codes[counted] or 0), counted
