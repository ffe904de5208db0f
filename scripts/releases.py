"""Lists and compares the releases of a bucket, verifies the live one, and rolls back to an earlier one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from scripts.ecs import receipts
from scripts.edges import http
from scripts.edges.s3 import Bucket, open_bucket
from scripts.frame.errors import DeployError
from scripts.frame.files import temporary_folder
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.threads import workers
from scripts.release import history, lease, manifest
from scripts.release import verify as verification
from scripts.release.history import Difference
from scripts.release.manifest import Manifest, Release, State
from scripts.release.publish import Released
from scripts.release.verify import Verified
from scripts.release_static import Observed, bucket_name, decide, known, release, rules


class Seen(Report, Struct, frozen=True):
    """What was read from a bucket. text: one line. lines: for a person. data: the same for a program."""

    text: str
    lines: tuple[str, ...]
    data: Sequence[Release] | Difference

    def line(self) -> str:
        return self.text

    def table(self) -> list[tuple[str]]:
        return [(line,) for line in self.lines]


def list_releases(run: Run, *, bucket: str | None = None) -> Seen | None:
    """The kept releases, newest first."""
    name = bucket_name(run.environment.frontend.bucket, bucket)

    def look_at() -> Seen:
        state = look(run.environment, name)[1]
        kept = history.lost(state, history.known(state, name))
        # The live one is there, whatever was done to it.
        found = [release for number, (release, gone) in enumerate(kept.items()) if not (number and gone)]
        return Seen(f"{name} keeps {len(found)} release{'s' * (len(found) != 1)}", tuple(history.lines(kept)), found)

    return run.look(f"the releases of {name}", look_at)


def diff(run: Run, *, bucket: str | None = None, old: str | None = None, new: str | None = None) -> Seen | None:
    """What changed between two releases."""
    name = bucket_name(run.environment.frontend.bucket, bucket)

    def look_at() -> Seen:
        found = history.compare(look(run.environment, name)[1], name, old, new)
        return Seen(f"{found.old} -> {found.new}: {len(found.lines())} files", tuple(found.lines()), found)

    return run.look(f"the releases of {name}", look_at)


def verify(run: Run, *, bucket: str | None = None, url: str | None = None) -> Verified | None:
    """Compare the live release with LIST and, given a URL, with what it serves.

    Raises DeployError if a file is missing or different.
    """
    name = bucket_name(run.environment.frontend.bucket, bucket)
    site = http.checked(url, "the URL of a site") if url is not None else ""

    def fetched(current: Manifest) -> tuple[str, ...]:
        return verification.served(current, site, rules(run.environment).keeps)

    def look_at() -> Verified:
        state = look(run.environment, name)[1]
        current = history.known(state, name)
        found = verification.compare(state, current, name, fetched(current) if site else ())
        if not found.is_whole:
            raise DeployError("\n".join([found.line(), *found.lines()]))
        return found

    return run.look(f"the releases of {name}", look_at)


def rollback(run: Run, *, bucket: str | None = None, to: str | None = None, wait: bool = False) -> Released | None:
    """Release an earlier release again, by default the newest one before the live one that was not rolled back from."""
    env, name = run.environment, bucket_name(run.environment.frontend.bucket, bucket)
    with lease.awaited(run, name), temporary_folder("rollback-") as folder:
        found = run.read(f"the bucket {name}", lambda: restored(env, name, to, folder))
        if found is None:
            return None
        decided = decide(env, found.observed, of_version=found.version, rolled_back_from=found.live.id)
        run.facts.setdefault("version", found.version)
        run.facts.setdefault("rolled_back_from", found.live.version)
        act = partial(release, env, found.observed, force_lock=run.force_lock, wait=wait)
        with receipts.kept(run, name):
            return run.act(decided, act, "rollback")


def look(environment: Environment, name: str) -> tuple[Bucket, State]:
    """Read a bucket. Warns if another run holds its lease. Raises DeployError if it cannot be read."""
    held = lease.bucket(name)
    bucket = held or open_bucket(environment, name)
    with workers(2) as pool:
        listed, read = pool.submit(bucket.list), pool.submit(manifest.read, bucket)
        stored, listing = read.result(), listed.result()
    if not held and not stored.unread:
        lease.warn_of_holder(bucket, listing)
    return bucket, known(environment, bucket, State(listing, *stored))


class Restored(Struct, frozen=True):
    """An earlier release, ready to be released again. version: of the application. live: the release it replaces."""

    observed: Observed
    version: str
    live: Release


def restored(environment: Environment, name: str, to: str | None, folder: Path) -> Restored:
    """Restore an earlier release in a folder. to: its id, None for the default. Raises Refused."""
    held = lease.bucket(name)
    earlier = held.requests if held else 0
    bucket, state = look(environment, name)
    restoring, site = history.restored(bucket, state, to, folder)
    copies = sum(bool(file.path) for file in site.files.values())
    live = next(iter(history.known(state, name).releases))
    return Restored(Observed(site, state, name, bucket, copies, earlier), restoring.version, live)
