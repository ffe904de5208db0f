"""Carries out a plan, in stages with barriers; the upload of index.html is the commit point.

A failure before it leaves the old page complete and nothing deleted. The next run uploads what is missing, and
completes the release.

What needs no order shares a round trip. The manifest is compared beside the request for the lease, so that a stale plan
is refused before the first write, and again beside the new files: by then the lease is certainly ours, and until then
nothing was written that a page could show.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from scripts.edges.s3 import Bucket, S3Error, Upload, is_doubtful
from scripts.frame import console, stop
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Bar, Report
from scripts.frame.settings import Environment
from scripts.frame.threads import workers
from scripts.release import cdn, lease, manifest, plan
from scripts.release.lease import Lease
from scripts.release.manifest import JSON, Base, Manifest, State
from scripts.release.plan import COMMIT, STAGES, Put, ReleasePlan
from scripts.release.site import Site, shown

# How many objects the next command reads to know whether a noted release is live.
MOST_LOOKED_AT = 3
# How many copies and records are written at the same time, beside the first files.
BESIDE = 8


class Released(Report, Struct, frozen=True):
    """What a release did. requests: to S3, including LIST and manifest. invalidation: id in CloudFront, or empty."""

    environment: str
    bucket: str
    release: str
    puts: int
    bytes: int
    deletes: int
    unchanged: int
    requests: int
    invalidation: str = ""
    allowed_missing: tuple[str, ...] = ()

    def line(self) -> str:
        excused = f"; missing, and allowed: {shown(self.allowed_missing)}" if self.allowed_missing else ""
        if not self.puts and not self.deletes:
            return f"{self.bucket} already holds this build ({self.unchanged} files, {self.requests} requests){excused}"
        return (
            f"{self.bucket} holds release {self.release}: {self.puts} files put ({self.bytes:,} bytes),"
            f" {self.unchanged} unchanged, {self.deletes} deleted, {self.requests} requests{excused}"
        )

    def outputs(self) -> dict[str, str]:
        return {"release-id": self.release}


class _Progress(Struct):
    """What a release has done so far. etags: of what was put, as S3 returned them.

    writing: a request may have changed the site. committed: the commit point is done, or there is none.
    """

    etags: dict[str, str] = field(default_factory=dict)
    writing: bool = False
    committed: bool = False


class _Overtaken(DeployError):
    """Another release has finished, so that the plan is no longer right."""


MEANWHILE = "Another release to {} has finished since this one read the bucket."


def publish(
    bucket: Bucket,
    site: Site,
    state: State,
    decided: ReleasePlan,
    environment: Environment,
    *,
    actor: str,
    run: str,
    force_lock: bool = False,
) -> Released:
    """Carry out a plan. actor, run: who holds the lease, and the URL of the workflow's run.

    Raises DeployError. The old page is whole before the commit point, the new one after it.
    """
    invalidation = ""
    if decided.is_needed:
        own = lease.here(actor, run, version=decided.release.version)
        progress, noted = _Progress(), _note(site, state, decided, environment)
        with _said(bucket.name, decided, progress), workers(1) as pool:
            looking = pool.submit(_is_current, bucket, state)
            with lease.held(bucket, own, force=force_lock) as mine:
                if not looking.result():
                    raise Refused(f"{MEANWHILE.format(bucket.name)} Nothing was changed: run it again.")
                _put_stages(bucket, site, state, decided, noted, progress, mine)
                invalidation = _finish(bucket, site, state, decided, environment, progress.etags, mine)
            if not mine.shared:
                # Waiting for the CDN needs it no more.
                mine.give_back()
    return Released(
        environment=environment.name,
        bucket=decided.bucket,
        release=decided.release.id,
        puts=len(decided.puts),
        bytes=sum(put.size for put in decided.puts),
        deletes=len(decided.deletes),
        unchanged=len(decided.unchanged),
        requests=bucket.requests,
        invalidation=invalidation,
        allowed_missing=decided.allowed_missing,
    )


def _is_current(bucket: Bucket, state: State) -> bool:
    """Whether no other release has finished since the bucket was read, as far as that can be known."""
    return bool(state.unread) or bucket.is_still(manifest.KEY, state.etag, manifest.MOST)


def _put_stages(
    bucket: Bucket, site: Site, state: State, decided: ReleasePlan, noted: bytes, progress: _Progress, mine: Lease
) -> None:
    """Put the files stage by stage. noted: the note of the release, which is put beside the first ones."""
    progress.writing = bool(decided.rescues or noted)
    with workers(BESIDE) as pool:
        looking = pool.submit(_is_current, bucket, state)
        begun: list[Future[Any]] = [
            pool.submit(bucket.copy, key, manifest.blob_key(sha256)) for key, sha256 in decided.rescues.items()
        ]
        if noted:
            begun.append(pool.submit(bucket.put, manifest.NEXT, noted, JSON))
        for stage in STAGES:
            puts = [put for put in decided.puts if put.stage == stage]
            # What no page references needs to wait for nothing.
            if stage != plan.NEW or any(put.reason != "new" for put in puts):
                _settle(bucket, looking, begun)
            _put_stage(bucket, site, decided, puts, stage, progress, mine)
            progress.committed = progress.committed or stage == COMMIT


def _settle(bucket: Bucket, looking: "Future[bool]", begun: Sequence["Future[Any]"]) -> None:
    """Wait for what was begun beside the first files. Raises DeployError, also if the plan is no longer right."""
    for one in begun:
        one.result()
    if not looking.result():
        raise _Overtaken(f"{MEANWHILE.format(bucket.name)} The page is still its page: run it again.")


def _put_stage(
    bucket: Bucket,
    site: Site,
    decided: ReleasePlan,
    puts: Sequence[Put],
    stage: str,
    progress: _Progress,
    mine: Lease,
) -> None:
    uploads = [
        Upload(put.key, site.files[put.key].path, put.size, site.files[put.key].sha256, put.headers) for put in puts
    ]
    if stage == plan.NEW:
        # No page references the copies for a rollback either.
        uploads += [_blob(site, key) for key in decided.blobs]
    if not uploads:
        return
    if stage != COMMIT:
        console.say(f"{stage}: putting {len(uploads)}")
    count = 0

    def done(upload: Upload, etag: str) -> None:
        nonlocal count
        stop.check()
        count += 1
        progress.etags[upload.key] = etag
        console.progress(Bar(stage, count, len(uploads), f"{count} of {len(uploads)} files"))
        mine.renew()

    console.progress(Bar(stage, 0, len(uploads), f"0 of {len(uploads)} files"))
    mine.renew()
    # Of several that are sent at once, one may be written although another one fails.
    progress.writing = progress.writing or len(uploads) > 1
    try:
        bucket.put_all(uploads, done)
    except DeployError as error:
        if stage == COMMIT and is_doubtful(error):
            unknown = f"It is not known whether {bucket.name} has the old or the new page: {error} Run it again."
            raise OutcomeUnknown(unknown) from error
        progress.writing = progress.writing or is_doubtful(error)
        raise
    finally:
        console.progress()
    progress.writing = True


@contextmanager
def _said(name: str, decided: ReleasePlan, progress: _Progress) -> Iterator[None]:
    """Have an error say which release is live and what the next run does, and give it the exit code of what was done.

    After the first write none is Refused, which would mean that nothing was changed.
    """
    try:
        yield
    except DeployError as error:
        if progress.committed:
            unknown = is_doubtful(error) or isinstance(error, OutcomeUnknown)
            kind: type[DeployError] = OutcomeUnknown if unknown else DeployError
            raise kind(
                f"The new page in {name} is live ({decided.release.id}), but the release is not complete: {error}"
                " The next run completes it."
            ) from error
        if isinstance(error, OutcomeUnknown | _Overtaken) or not progress.writing:
            raise
        live = f"release {decided.live} is still live" if decided.live else "the page is still the old one"
        raise DeployError(
            f"{error} In {name} {live}; {len(progress.etags)} files of the new one are there, and the next run puts the"
            " others."
        ) from error


def _note(site: Site, state: State, decided: ReleasePlan, environment: Environment) -> bytes:
    """The note of a release (see manifest.NEXT), empty if it needs none."""
    if state.unread or not decided.is_noted:
        return b""
    stages = [put.stage for put in decided.puts if STAGES.index(put.stage) <= STAGES.index(COMMIT)]
    last = max(stages or [put.stage for put in decided.puts], key=STAGES.index)
    keys = [put.key for put in decided.puts if put.stage == last][:MOST_LOOKED_AT]
    return manifest.note(state.manifest, _next(site, state, decided, environment, {}), keys)


def _next(
    site: Site, state: State, decided: ReleasePlan, environment: Environment, etags: Mapping[str, str]
) -> Manifest:
    return plan.next_manifest(
        decided,
        site,
        state,
        etags,
        keep_releases=environment.frontend.keep_releases,
        application=environment.application.name,
        environment=environment.name,
    )


def _blob(site: Site, key: str) -> Upload:
    file = site.files[key]
    headers = {"Content-Type": "application/octet-stream"}
    return Upload(manifest.blob_key(file.sha256), file.path, file.size, file.sha256, headers)


def _finish(
    bucket: Bucket,
    site: Site,
    state: State,
    decided: ReleasePlan,
    environment: Environment,
    etags: Mapping[str, str],
    mine: Lease,
) -> str:
    """After the commit point: invalidate, write the manifest, delete. Returns the invalidation's id, or empty.

    What is to be invalidated is in the note, else in the manifest, until the CDN was told.
    """
    if state.unread:
        # Without the manifest nothing is known of older releases, so it is not overwritten and nothing is deleted.
        return cdn.invalidate(environment, decided.invalidate) if decided.invalidate else ""
    new, etag = _next(site, state, decided, environment, etags), state.etag
    base = state.base if decided.based else None
    if new.pending and not decided.is_noted:
        etag = write(bucket, new, etag, base)
    invalidation, failure = "", None
    try:
        if new.pending:
            invalidation = _tell_cdn(bucket, new, environment)
            new = replace(new, pending=())
    except DeployError as error:
        failure = error
    if decided.is_noted or not new.pending:
        write(bucket, new, etag, base)
    _prune(bucket, decided, mine)
    if failure:
        raise failure
    return invalidation


def _tell_cdn(bucket: Bucket, new: Manifest, environment: Environment) -> str:
    """Invalidate the pending paths of a manifest. Returns the invalidation's id."""
    try:
        return cdn.invalidate(environment, new.pending)
    except DeployError as error:
        told = "may not have been invalidated" if isinstance(error, OutcomeUnknown) else "was not invalidated"
        release = next(iter(new.releases)).id
        raise error.with_message(
            f"{bucket.name} holds release {release}, but the CDN {told}: {error} The next run invalidates it."
        ) from error


def write(bucket: Bucket, new: Manifest, etag: str, base: Base | None) -> str:
    """Write the manifest and return its ETag. etag: of the manifest that it replaces, empty if there is none.

    base: what it is written as the difference to, None for a whole one. Raises DeployError if somebody else has written
    it since.
    """
    condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
    body = manifest.dump(new, base)
    try:
        return bucket.put(manifest.KEY, body, JSON | condition)
    except S3Error as error:
        if error.status != 412:
            raise
        # If the first response was lost, the retry finds what it has written itself.
        found = bucket.get(manifest.KEY, manifest.MOST)
        if found and found[0] == body:
            return found[1]
        raise DeployError(f"{MEANWHILE.format(bucket.name)} Run it again.") from error


def _prune(bucket: Bucket, decided: ReleasePlan, mine: Lease) -> None:
    """Delete what has no place any more. The lease goes with it, in the same request, if nothing else needs it."""
    condition = {} if mine.shared else mine.condition
    noted = [manifest.NEXT] if decided.is_noted or decided.repairs else []
    keys = [*(delete.key for delete in decided.deletes), *noted, *condition]
    failed = bucket.delete(keys, condition)
    if condition and manifest.LEASE not in failed:
        mine.etag = ""
    failed.pop(manifest.LEASE, None)
    # It says nothing more once the manifest is written.
    failed.pop(manifest.NEXT, None)
    if failed:
        shown = ", ".join(f"{key} ({code})" for key, code in list(failed.items())[:10])
        raise DeployError(f"{decided.bucket} holds the new release, but {len(failed)} keys were not deleted: {shown}.")
