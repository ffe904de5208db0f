"""Only one release at a time: a lease is an object that can be written only where none is.

A holder that died is waited for no longer than its lease says. The body names the holder, so that a writer
whose reply was lost, and who then finds the lease taken, recognises its own.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scripts import console
from scripts.errors import DeployError, Refused
from scripts.release.bucket import Bucket, S3Error
from scripts.release.manifest import JSON, LEASE

SECONDS = 900


@contextmanager
def held(bucket: Bucket, actor: str, run: str, *, force: bool = False) -> Iterator[None]:
    """Hold the lease while the block runs, and give it back however it ends.

    Raises Refused, naming the holder and when its lease ends, where somebody else has it. force: take it anyway.
    """
    mine = {"id": uuid.uuid4().hex, "actor": actor, "run": run, "host": os.uname().nodename}
    _take(bucket, mine, force)
    try:
        yield
    finally:
        _give_back(bucket, mine["id"])


def _take(bucket: Bucket, mine: dict[str, str], force: bool) -> None:
    condition = {"If-None-Match": "*"}
    for _ in range(3):
        body = json.dumps({**mine, "expires": int(time.time()) + SECONDS}).encode()
        try:
            bucket.put(LEASE, body, JSON | condition)
            return
        except S3Error as error:
            if error.status not in (404, 409, 412):
                raise
        found = bucket.get(LEASE)
        if found is None:
            condition = {"If-None-Match": "*"}
            continue
        holder = _holder(found[0])
        if holder.get("id") == mine["id"]:
            return
        if not force and time.time() < holder.get("expires", 0):
            raise Refused(_refusal(bucket, holder))
        console.say(f"taking over the lease of {holder.get('actor') or 'somebody unknown'}")
        condition = {"If-Match": f'"{found[1]}"'}
    raise Refused(f"Several releases to {bucket.name} begin at the same time: try again.")


def _holder(body: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError):
        return {}


def _refusal(bucket: Bucket, holder: dict[str, Any]) -> str:
    until = time.strftime("%H:%M:%S UTC", time.gmtime(holder["expires"]))
    run = f", {holder['run']}" if holder.get("run") else ""
    return (
        f"{holder.get('actor') or 'Somebody'} ({holder.get('host', '')}{run}) is releasing to {bucket.name}; the lease"
        f" ends at {until}. Wait for it, or break it with --force-lock if that release is dead. Nothing was changed."
    )


def _give_back(bucket: Bucket, own: str) -> None:
    """Delete the lease if it is still ours. A failure here never hides how the release ended."""
    try:
        found = bucket.get(LEASE)
        if found and _holder(found[0]).get("id") == own:
            bucket.delete([LEASE])
    except DeployError as error:
        console.warn(f"The lease was not given back and ends by itself: {error}")
