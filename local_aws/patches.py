"""Corrects moto's classes where they differ from AWS and a deployment would notice."""

import threading
from collections.abc import Callable
from typing import Any

from local_aws.cloud import Cloud

Method = Callable[..., Any]

SNAPSHOT_SECONDS = 1.5
INVALIDATION_SECONDS = 1.0


def install(cloud: Cloud) -> None:
    """Patch moto for this cloud. What takes time in AWS takes it by the cloud's clock."""
    _modules()
    _invalidations(cloud)
    _snapshots(cloud)
    _images()
    _conditional_deletes()
    _conditional_writes()


def _modules() -> None:
    """moto searches its own folder at every request, which takes a third of its time."""
    import moto.backends

    found = frozenset(moto.backends.list_of_moto_modules())
    moto.backends.list_of_moto_modules = lambda: found


def _invalidations(cloud: Cloud) -> None:
    """CloudFront says InProgress, then Completed; on moto's COMPLETED, boto3's waiter waits for ten minutes.

    A repeated CallerReference gets the invalidation that it made first.
    """
    from moto.cloudfront.models import CloudFrontBackend, Invalidation

    class Status:
        def __get__(self, invalidation: Any, _: Any) -> str:
            age = cloud.clock.now() - invalidation.__dict__.setdefault("made", cloud.clock.now())
            return "Completed" if age >= INVALIDATION_SECONDS else "InProgress"

        def __set__(self, invalidation: Any, value: str) -> None:
            invalidation.__dict__["made"] = cloud.clock.now()

    Invalidation.status = Status()

    def create_once(create: Method, self: Any, dist_id: str, paths: list[str], caller_ref: str) -> Any:
        for known in self.invalidations.get(dist_id, []):
            if known.caller_ref == caller_ref:
                return known
        return create(self, dist_id, paths, caller_ref)

    _wrap(CloudFrontBackend, "create_invalidation", create_once)


def _snapshots(cloud: Cloud) -> None:
    """A manual snapshot takes SNAPSHOT_SECONDS and shows its progress."""
    from moto.rds.models import DBSnapshot

    def age(snapshot: Any) -> float:
        return cloud.clock.now() - float(snapshot.__dict__.setdefault("made", cloud.clock.now()))

    def percent(snapshot: Any) -> int:
        done = snapshot.snapshot_type != "manual" or age(snapshot) >= SNAPSHOT_SECONDS
        return 100 if done else int(100 * age(snapshot) / SNAPSHOT_SECONDS)

    def status(snapshot: Any) -> str:
        return "available" if percent(snapshot) == 100 else "creating"

    def started(snapshot: Any, _: str) -> None:
        snapshot.__dict__["made"] = cloud.clock.now()

    DBSnapshot.status = property(status, started)
    DBSnapshot.percent_progress = property(percent)


def _images() -> None:
    """An image's digest is that of its manifest, and its size that of its layers and its config."""
    import hashlib
    import json

    from moto.ecr.models import Image

    def digest(image: Any) -> None:
        image._image_digest = "sha256:" + hashlib.sha256(image.image_manifest.encode()).hexdigest()

    def size(image: Any) -> int:
        manifest = json.loads(image.image_manifest)
        parts = [*manifest.get("layers", []), manifest.get("config", {})]
        return sum(part.get("size", 0) for part in parts)

    Image._create_digest = digest
    Image.get_image_size_in_bytes = size


def _conditional_deletes() -> None:
    """DeleteObjects leaves an object whose ETag differs from the given one; moto ignores the ETag."""
    from moto.s3.models import S3Backend

    def delete_same(
        delete: Method, self: Any, bucket_name: str, objects: list[dict[str, Any]], bypass: bool = False
    ) -> Any:
        def has_changed(given: dict[str, Any]) -> bool:
            found = self.get_bucket(bucket_name).keys.get(given["Key"])
            return "ETag" in given and found is not None and found.etag.strip('"') != given["ETag"].strip('"')

        changed = [given["Key"] for given in objects if has_changed(given)]
        deleted, failed = delete(self, bucket_name, [o for o in objects if o["Key"] not in changed], bypass)
        return deleted, [*failed, *changed]

    _wrap(S3Backend, "delete_objects", delete_same)


def _conditional_writes() -> None:
    """S3 looks at the condition of a write and writes at once; in moto another write may come in between."""
    from moto.s3.responses import S3Response

    lock = threading.RLock()

    def alone(write: Method, self: Any, *given: Any, **more: Any) -> Any:
        with lock:
            return write(self, *given, **more)

    for name in ("put_object", "copy_object", "delete_object", "_bucket_response_delete_keys"):
        _wrap(S3Response, name, alone)


def _wrap(owner: Any, name: str, by: Method) -> None:
    """Replace a method once, however many clouds are made. by: gets the method as it was, then its arguments."""
    method = getattr(owner, name)
    if hasattr(method, "wrapped"):
        return

    def wrapped(*given: Any, **more: Any) -> Any:
        return by(method, *given, **more)

    wrapped.wrapped = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)
