"""Carries out a plan, in stages with barriers; the upload of index.html is the commit point.

A failure before it leaves the old page complete and nothing deleted. The next run uploads what is missing, and
completes the release.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scripts.edges.s3 import Bucket, S3Error, Upload, is_doubtful
from scripts.frame import console, stop
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report
from scripts.frame.settings import Environment
from scripts.release import cdn, lease, manifest, plan
from scripts.release.lease import Lease
from scripts.release.manifest import JSON, Manifest, State
from scripts.release.plan import COMMIT, STAGES, ReleasePlan
from scripts.release.site import Site


@dataclass(frozen=True)
class Released(Report):
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

    def line(self) -> str:
        if not self.puts and not self.deletes:
            return f"{self.bucket} already holds this build ({self.unchanged} files, {self.requests} requests)"
        return (
            f"{self.bucket} holds release {self.release}: {self.puts} files put ({self.bytes:,} bytes),"
            f" {self.unchanged} unchanged, {self.deletes} deleted, {self.requests} requests"
        )

    def outputs(self) -> dict[str, str]:
        return {"release-id": self.release}


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
    etags: dict[str, str] = {}
    invalidation = ""
    if decided.is_needed:
        with lease.held(bucket, lease.here(actor, run, version=decided.release.version), force=force_lock) as mine:
            if not (state.unread or bucket.is_still(manifest.KEY, state.etag, manifest.MOST)):
                raise Refused(f"{MEANWHILE.format(bucket.name)} Nothing was changed: run it again.")
            _put_stages(bucket, site, decided, etags, mine)
            with _committed(bucket.name):
                invalidation = _finish(bucket, site, state, decided, environment, etags, mine)
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
    )


def _put_stages(bucket: Bucket, site: Site, decided: ReleasePlan, etags: dict[str, str], mine: Lease) -> None:
    """Put the files stage by stage. etags: gets those that S3 returns."""
    for stage in STAGES:
        uploads = [
            Upload(put.key, site.files[put.key].path, put.size, site.files[put.key].sha256, put.headers)
            for put in decided.puts
            if put.stage == stage
        ]
        if stage == plan.OTHER:
            # No page references the copies for a rollback, so they can be put in any stage.
            uploads += [_blob(site, key) for key in decided.blobs]
        if not uploads:
            continue
        if stage != COMMIT:
            console.say(f"{stage}: putting {len(uploads)}")
        count = 0

        def done(upload: Upload, etag: str, total: int = len(uploads)) -> None:
            nonlocal count
            stop.check()
            count += 1
            etags[upload.key] = etag
            console.progress(f"{count} of {total}")
            mine.renew()

        mine.renew()
        try:
            with _putting(bucket.name, stage, etags):
                bucket.put_all(uploads, done)
        finally:
            console.progress_done()


@contextmanager
def _putting(name: str, stage: str, etags: Mapping[str, str]) -> Iterator[None]:
    """Set the exit code of an error in a stage: unknown if index.html may have been put.

    etags: of what was put before. If there are any, no error is Refused, which would mean that nothing was changed.
    """
    try:
        yield
    except DeployError as error:
        if stage == COMMIT and is_doubtful(error):
            unknown = f"It is not known whether {name} has the old or the new page: {error} Run it again."
            raise OutcomeUnknown(unknown) from error
        if error.code == Refused.exit_code and etags:
            raise DeployError(str(error)) from error
        raise


@contextmanager
def _committed(name: str) -> Iterator[None]:
    """Make errors after the commit point say that the new page is live; none of them is Refused."""
    try:
        yield
    except DeployError as error:
        unknown = is_doubtful(error) or isinstance(error, OutcomeUnknown)
        kind = OutcomeUnknown if unknown else DeployError
        raise kind(f"The new page in {name} is live, but the release is not complete: {error}") from error


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
    """After the commit point: write the manifest, invalidate, delete. Returns the invalidation's id, or empty."""
    if state.unread:
        # Without the manifest nothing is known of older releases, so it is not overwritten and nothing is deleted.
        return cdn.invalidate(environment, decided.invalidate) if decided.invalidate else ""
    new = plan.next_manifest(
        decided,
        site,
        state,
        etags,
        cache_control=environment.frontend.cache_control,
        keep_releases=environment.frontend.keep_releases,
        application=environment.application.name,
        environment=environment.name,
    )
    etag = write(bucket, new, state.etag)
    invalidation, failure = "", None
    try:
        if new.pending:
            invalidation = _tell_cdn(bucket, new, etag, environment)
    except DeployError as error:
        failure = error
    _prune(bucket, decided, mine)
    if failure:
        raise failure
    return invalidation


def _tell_cdn(bucket: Bucket, new: Manifest, etag: str, environment: Environment) -> str:
    """Invalidate the pending paths of a manifest that was just written. Returns the invalidation's id."""
    try:
        invalidation = cdn.invalidate(environment, new.pending)
    except DeployError as error:
        told = "may not have been invalidated" if isinstance(error, OutcomeUnknown) else "was not invalidated"
        release = next(iter(new.releases)).id
        raise error.with_message(
            f"{bucket.name} holds release {release}, but the CDN {told}: {error} The next run invalidates it."
        ) from error
    write(bucket, replace(new, pending=()), etag)
    return invalidation


def write(bucket: Bucket, new: Manifest, etag: str) -> str:
    """Write the manifest and return its ETag. etag: of the manifest that it replaces, empty if there is none.

    Raises DeployError if somebody else has written it since.
    """
    condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
    body = manifest.dump(new)
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
    keys = [*(delete.key for delete in decided.deletes), *condition]
    failed = bucket.delete(keys, condition)
    if condition and manifest.LEASE not in failed:
        mine.etag = ""
    failed.pop(manifest.LEASE, None)
    if failed:
        shown = ", ".join(f"{key} ({code})" for key, code in list(failed.items())[:10])
        raise DeployError(f"{decided.bucket} holds the new release, but {len(failed)} keys were not deleted: {shown}.")
