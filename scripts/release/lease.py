"""Allows only one release at a time: a lease is an object that is created with If-None-Match.

The body names the holder, so that a writer whose response was lost recognizes its own lease. A lease is taken over if
its holder is known to be dead or the lease has expired.
"""

import os
import time
import uuid
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import msgspec
from msgspec import Meta

from scripts.edges.s3 import Bucket, S3Error
from scripts.frame import console, stop
from scripts.frame.errors import DeployError, Refused
from scripts.release.manifest import JSON, LEASE, Text, decoded

# How long a lease lasts, unless it is renewed.
SECONDS = 900
# A release renews its lease when at most this much of it is left.
RENEW_BELOW_SECONDS = 600
# How long to look for a lease whose PUT got no response, because S3 may still process it. Shorter than stop.LIMIT.
LOOK_SECONDS, LOOK_EVERY = 0.8, 0.1
# Bytes of a lease that are read.
MOST = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease, and until when (Unix time). run: the URL of the workflow's run, empty on a laptop.

    pid: of the process on its host, 0 where that is not known.
    """

    id: Text = ""
    actor: Text = ""
    run: Text = ""
    host: Text = ""
    pid: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    expires: Annotated[float, Meta(ge=0, le=4_102_444_800)]


def load(body: bytes) -> Holder:
    """A holder from JSON. Raises Refused for a document that is damaged."""
    try:
        return decoded(body, Holder)
    except ValueError as error:
        raise Refused(
            f"{LEASE} is damaged ({error}): if no release is running there, take it over with --force-lock."
            " Nothing was changed."
        ) from error


class Lease:
    """The lease of this release on a bucket. etag: of the lease object, empty while we do not hold it."""

    def __init__(self, bucket: Bucket, actor: str, run: str) -> None:
        """run: the URL of the workflow's run, empty on a laptop."""
        self._bucket = bucket
        self._own = Holder(
            id=uuid.uuid4().hex, actor=actor, run=run, host=os.uname().nodename, pid=os.getpid(), expires=0
        )
        self._unanswered = False
        self.etag = ""

    def take(self, *, force: bool = False) -> None:
        """Take the lease. Raises Refused if somebody else holds it; force: take it anyway."""
        condition = {"If-None-Match": "*"}
        for _ in range(3):
            try:
                return self._write(condition)
            except S3Error as error:
                if error.status not in (404, 409, 412):
                    raise
            found = self._bucket.get(LEASE, MOST)
            if found is None:
                condition = {"If-None-Match": "*"}
                continue
            body, etag = found
            if self._is_ours(body):
                self.etag = etag
                return None
            console.say(f"taking over the lease of {self._predecessor(body, force)}")
            condition = {"If-Match": f'"{etag}"'}
        raise Refused(f"Several releases to {self._bucket.name} are starting at the same time: run this again.")

    def _predecessor(self, body: bytes, force: bool) -> str:
        """The holder of a lease that may be taken over. Raises Refused if it is still held, or damaged."""
        try:
            holder = load(body)
        except Refused:
            if not force:
                raise
            return "somebody unknown"
        if not (force or is_over(holder, self._own, time.time())):
            hint = "Wait for it, or break it with --force-lock if that release is dead."
            raise Refused(f"{_said(self._bucket, holder)}. {hint} Nothing was changed.")
        return holder.actor or "somebody unknown"

    def renew(self) -> None:
        """Extend the lease if it expires soon. Raises DeployError if another release has taken it over."""
        if self._own.expires - time.time() > RENEW_BELOW_SECONDS:
            return
        try:
            self._write({"If-Match": f'"{self.etag}"'})
        except S3Error as error:
            if error.status not in (404, 412):
                raise
            self.etag = ""
            raise DeployError(
                f"Somebody took over the lease of this release to {self._bucket.name}, so it stops here. Run it again."
            ) from error

    def give_back(self) -> None:
        """Release the lease if we hold it. A failure is only a warning: it must not hide how the release ended."""
        try:
            if self._unanswered:
                self.etag = self._found()
            if self.etag:
                self._end()
        except DeployError as error:
            console.warn(f"The lease could not be deleted; it expires by itself: {error}")
        self.etag = ""

    def _found(self) -> str:
        """The ETag of our lease after a PUT whose response was lost, empty if it was not written."""
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            found = self._bucket.get(LEASE, MOST, tries=1)
            if found and self._is_ours(found[0]):
                return found[1]
            if time.monotonic() > deadline:
                return ""
            time.sleep(LOOK_EVERY)

    def _is_ours(self, body: bytes) -> bool:
        try:
            return load(body).id == self._own.id
        except Refused:
            return False

    def _end(self) -> None:
        try:
            refused = bool(self._bucket.delete([LEASE], self.condition))
        except S3Error:
            refused = True
        if not refused:
            return
        try:
            # Without the permission to delete, write a lease that has expired.
            self._write({"If-Match": f'"{self.etag}"'}, seconds=0)
        except S3Error as error:
            if error.status not in (404, 412):
                raise

    @property
    def condition(self) -> dict[str, str]:
        """The condition under which a delete removes only our lease: key -> ETag."""
        return {LEASE: self.etag}

    def _write(self, condition: Mapping[str, str], seconds: float = SECONDS) -> None:
        """Write the lease. Until S3 responds, it is not known whether it was written."""
        self._own = replace(self._own, expires=int(time.time() + seconds))
        self._unanswered = True
        try:
            self.etag = self._bucket.put(LEASE, msgspec.json.encode(asdict(self._own)), {**JSON, **condition})
        except S3Error as error:
            self._unanswered = error.status >= 500
            raise
        self._unanswered = False


@contextmanager
def held(bucket: Bucket, actor: str, run: str, *, force: bool = False) -> Iterator[Lease]:
    """Hold the lease during the block, and release it however the block ends. Raises Refused as `take` does.

    A stop may interrupt taking the lease, because S3 may be slow. Releasing it is not interrupted, and looks for a
    lease whose PUT got no response.
    """
    with stop.owned(lambda: Lease(bucket, actor, run), Lease.give_back) as lease:
        lease.take(force=force)
        yield lease


def warn_of_holder(bucket: Bucket, listing: Container[str]) -> None:
    """Warn of a lease in the bucket that is held by another release, or damaged."""
    found = bucket.get(LEASE, MOST) if LEASE in listing else None
    if not found:
        return
    try:
        holder = load(found[0])
    except Refused as damaged:
        console.warn(str(damaged))
        return
    if not is_over(holder, Holder(host=os.uname().nodename, expires=0), time.time()):
        console.warn(f"{_said(bucket, holder)}.")


def is_over(holder: Holder, own: Holder, now: float) -> bool:
    """Whether a holder can no longer be running.

    Its lease has expired, its process on this machine has ended, or it was an earlier attempt of the same workflow run,
    whose jobs release to one environment one after the other.
    """
    if now >= holder.expires or (own.run and holder.run == own.run):
        return True
    if holder.host != own.host or not holder.pid:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _said(bucket: Bucket, holder: Holder) -> str:
    until = time.strftime("%H:%M:%S UTC", time.gmtime(holder.expires))
    run = f", {holder.run}" if holder.run else ""
    who = f"{holder.actor or 'Somebody'} ({holder.host}{run})"
    return f"{who} is releasing to {bucket.name}; the lease ends at {until}"
