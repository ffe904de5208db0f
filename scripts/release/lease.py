"""Only one release at a time: a lease is an object that can be written only where none is.

The body names the holder, so that a writer whose reply was lost, and who then finds the lease taken, recognises its
own. A holder that is known to be dead is not waited for; of any other, no longer than its lease says.
"""

import json
import os
import time
import uuid
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scripts.edges.s3 import Bucket, S3Error
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.release.manifest import JSON, LEASE

SECONDS = 900
# A holder that is at work renews its lease when this much of it is left.
LEFT = 600


class Lease:
    """The right to release to a bucket. etag: of the object that says so."""

    def __init__(self, bucket: Bucket, actor: str, run: str) -> None:
        """run: the URL of the workflow's run, empty on a laptop."""
        self._bucket = bucket
        self._holder = {
            "id": uuid.uuid4().hex,
            "actor": actor,
            "run": run,
            "host": os.uname().nodename,
            "pid": os.getpid(),
        }
        self._expires = 0.0
        self.etag = ""

    def take(self, *, force: bool = False) -> None:
        """Take the lease. Raises Refused where somebody else holds it; force: take it anyway."""
        condition = {"If-None-Match": "*"}
        for _ in range(3):
            try:
                return self._write(condition)
            except S3Error as error:
                if error.status not in (404, 409, 412):
                    raise
            found = self._bucket.get(LEASE)
            if found is None:
                condition = {"If-None-Match": "*"}
                continue
            holder, etag = _holder(found[0]), found[1]
            if holder.get("id") == self._holder["id"]:
                self.etag = etag
                return None
            if not (force or is_over(holder, self._holder, time.time())):
                said = _said(self._bucket, holder)
                hint = "Wait for it, or break it with --force-lock if that release is dead."
                raise Refused(f"{said}. {hint} Nothing was changed.")
            console.say(f"taking over the lease of {holder.get('actor') or 'somebody unknown'}")
            condition = {"If-Match": f'"{etag}"'}
        raise Refused(f"Several releases to {self._bucket.name} begin at the same time: try again.")

    def renew(self) -> None:
        """Hold the lease for longer, where it ends soon. Raises DeployError where somebody has broken it."""
        if self._expires - time.time() > LEFT:
            return
        try:
            self._write({"If-Match": f'"{self.etag}"'})
        except S3Error as error:
            if error.status not in (404, 412):
                raise
            self.etag = ""
            raise DeployError(
                f"Somebody has broken the lease of this release to {self._bucket.name}: it stops here. Run it again."
            ) from error

    def give_back(self) -> None:
        """End the lease if it is still ours. A failure here never hides how the release ended."""
        if not self.etag:
            return
        try:
            self._end()
        except DeployError as error:
            console.warn(f"The lease was not given back and ends by itself: {error}")
        self.etag = ""

    def _end(self) -> None:
        try:
            refused = bool(self._bucket.delete([LEASE], self.condition))
        except S3Error:
            refused = True
        if refused:
            # Who may not delete may still write that the lease is over.
            self._write({"If-Match": f'"{self.etag}"'}, seconds=0)

    @property
    def condition(self) -> dict[str, str]:
        """What makes a delete of the lease delete ours alone."""
        return {LEASE: self.etag}

    def _write(self, condition: Mapping[str, str], seconds: float = SECONDS) -> None:
        expires = time.time() + seconds
        body = json.dumps({**self._holder, "expires": int(expires)}).encode()
        self.etag = self._bucket.put(LEASE, body, {**JSON, **condition})
        self._expires = expires


@contextmanager
def held(bucket: Bucket, actor: str, run: str, *, force: bool = False) -> Iterator[Lease]:
    """Hold the lease while the block runs, and give it back however it ends. Raises Refused as `take` does."""
    lease = Lease(bucket, actor, run)
    lease.take(force=force)
    try:
        yield lease
    finally:
        lease.give_back()


def warn_of_holder(bucket: Bucket, listing: Container[str]) -> None:
    """Say who is releasing and until when, where LIST shows a lease that is not over."""
    found = bucket.get(LEASE) if LEASE in listing else None
    holder = _holder(found[0]) if found else {}
    if not is_over(holder, {"run": "", "host": os.uname().nodename}, time.time()):
        console.warn(f"{_said(bucket, holder)}.")


def is_over(holder: Mapping[str, Any], own: Mapping[str, Any], now: float) -> bool:
    """Whether a holder cannot be at work any more.

    Its lease has ended, it was a process of this machine that is gone, or it was an earlier attempt of the same
    workflow run, whose jobs release to one environment one after the other.
    """
    if now >= holder.get("expires", 0) or (own["run"] and holder.get("run") == own["run"]):
        return True
    if holder.get("host") != own["host"] or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _holder(body: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError):
        return {}


def _said(bucket: Bucket, holder: Mapping[str, Any]) -> str:
    until = time.strftime("%H:%M:%S UTC", time.gmtime(holder["expires"]))
    run = f", {holder['run']}" if holder.get("run") else ""
    who = f"{holder.get('actor') or 'Somebody'} ({holder.get('host', '')}{run})"
    return f"{who} is releasing to {bucket.name}; the lease ends at {until}"
