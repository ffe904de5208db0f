"""The images that tasks of the embedded ECS run. Those of other registries than its own are taken for granted."""

import hashlib
from collections.abc import Mapping
from typing import Any

from local_aws.cloud import ACCOUNT, Cloud
from scripts.ecs import images


def find(cloud: Cloud, image: str) -> Any:
    """moto's record of an image in this cloud's registry, or None."""
    from moto.ecr.models import ecr_backends

    named = images.parse(image)
    if named is None or named.registry != cloud.host:
        return None
    repository, tag, digest = named.repository, named.tag or "latest", named.digest
    for backend in ecr_backends[ACCOUNT].values():
        for stored in backend.repositories[repository].images if repository in backend.repositories else []:
            if stored.get_image_digest() == digest if digest else tag in stored.image_tags:
                return stored
    return None


def exists(cloud: Cloud, image: str) -> bool:
    """Whether an image of this cloud's registry is there; any other is taken for granted."""
    return not image.startswith(cloud.host + "/") or find(cloud, image) is not None


def digest(cloud: Cloud, image: str) -> str:
    """The digest of an image; one of another registry gets one of its name."""
    stored = find(cloud, image)
    named = images.parse(image)
    if stored is not None:
        return str(stored.get_image_digest())
    return named.digest if named and named.digest else "sha256:" + hashlib.sha256(image.encode()).hexdigest()


def own_container(cloud: Cloud, definition: Mapping[str, Any]) -> dict[str, Any]:
    """The container that has an image of this cloud's registry, else the first one."""
    containers = definition["containerDefinitions"]
    own = (c for c in containers if c["image"].startswith(cloud.host))
    return dict(next(own, containers[0]))


def version(cloud: Cloud, definition: Mapping[str, Any]) -> str:
    """The tag of the image that a task definition runs."""
    image = own_container(cloud, definition)["image"]
    named = images.parse(image)
    if named and named.tag:
        return named.tag
    stored = find(cloud, image) if named else None
    return str(stored.image_tags[0]) if stored and stored.image_tags else ""
