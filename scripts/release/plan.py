"""Decides a release: what is put in which stage, what is deleted, and why. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scripts.errors import Refused
from scripts.release import content
from scripts.release.bucket import Remote
from scripts.release.manifest import Entry, Manifest, Release, State, blob_key, record_key
from scripts.release.site import ENTRY, PREFIX, File, Site

# The stages of a release; each begins when all of the one before has succeeded.
HASHED, OTHER, PAGES, COMMIT = "hashed files", "other files", "pages", "the commit point"
STAGES = (HASHED, OTHER, PAGES, COMMIT)
# More paths than these are one `/*`: CloudFront bills each path and takes fifteen with wildcards at a time.
MOST_PATHS = 15


@dataclass(frozen=True, slots=True)
class Put:
    """One object to be put. reason: new, content, headers, foreign (overwritten by somebody else) or unknown."""

    key: str
    stage: str
    reason: str
    size: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delete:
    """One object to be deleted. reason: foreign (never ours) or expired (of a release no longer kept)."""

    key: str
    reason: str


@dataclass(frozen=True)
class ReleasePlan:
    """Everything that a release is going to do. blobs: keys of unhashed files to be stored for a rollback."""

    bucket: str
    release: Release
    puts: tuple[Put, ...]
    blobs: tuple[str, ...]
    deletes: tuple[Delete, ...]
    unchanged: tuple[str, ...]
    invalidate: tuple[str, ...]
    adopted: tuple[str, ...]
    total_bytes: int

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.puts or self.deletes or self.invalidate or self.adopted)

    def describe(self) -> list[str]:
        """The plan in lines for a person; other people's keys that would go come first."""
        foreign = [d for d in self.deletes if d.reason == "foreign"]
        lines = [f"delete {d.key}, which no release of ours has put there" for d in foreign]
        for put in self.puts:
            kept = ", ".join(put.headers.values())
            lines.append(f"put {put.key} ({put.reason}, {put.size:,} bytes, {kept})")
        lines += [f"delete {d.key} ({d.reason})" for d in self.deletes if d.reason != "foreign"]
        if self.invalidate:
            lines.append(f"invalidate {' '.join(self.invalidate)}")
        files, size = len(self.puts) + len(self.unchanged), sum(put.size for put in self.puts)
        lines.append(
            f"release {self.release.id} to {self.bucket}: put {len(self.puts)} of {files} files"
            f" ({size:,} of {self.total_bytes:,} bytes), leave {len(self.unchanged)}, delete {len(self.deletes)};"
            f" `aws s3 sync` would put all {files}"
        )
        return lines


def stage_of(key: str) -> str:
    """The stage in which a key is put."""
    if key == ENTRY:
        return COMMIT
    if key.endswith((".html", ".htm")):
        return PAGES
    return HASHED if content.is_hashed(key) else OTHER


def reason_to_put(file: File, headers: Mapping[str, str], known: Entry | None, remote: Remote | None) -> str:
    """Why an object has to be put, empty if it is there as wanted."""
    if remote is None:
        return "new"
    if known is None:
        return "unknown"
    if known.sha256 != file.sha256 or known.size != file.size:
        return "content"
    if dict(known.headers) != dict(headers):
        return "headers"
    return "" if (remote.etag, remote.size) == (known.etag, known.size) else "foreign"


def plan(
    site: Site,
    state: State,
    *,
    bucket: str,
    release: Release,
    application: str,
    environment: str,
    cache_control: Mapping[str, str],
    keep_releases: int,
    max_delete_percent: int,
    distribution: str = "",
) -> ReleasePlan:
    """Decide a release. Raises Refused for another environment's bucket and for too many deletes."""
    manifest, listing = state.manifest, state.listing
    check_owner(manifest, bucket, application, environment)
    puts, unchanged = [], []
    for key, file in sorted(site.files.items()):
        headers = content.headers(key, cache_control)
        known = known_entry(manifest, key)
        reason = reason_to_put(file, headers, known, None if listing is None else listing.get(key))
        if reason:
            puts.append(Put(key, stage_of(key), reason, file.size, headers))
        else:
            unchanged.append(key)
    puts.sort(key=lambda put: STAGES.index(put.stage))
    changed = set(manifest.files) != set(site.files) if manifest else True
    deletes = _deletes(site, state, keep_releases) if listing is not None else []
    check_deletes(deletes, listing or {}, max_delete_percent, bucket)
    return ReleasePlan(
        bucket=bucket,
        release=release,
        puts=tuple(puts),
        blobs=_blobs(site, listing or {}, keep_releases, {put.key for put in puts} if puts or changed else set()),
        deletes=tuple(deletes),
        unchanged=tuple(unchanged),
        invalidate=_paths(puts, deletes, manifest) if distribution else (),
        adopted=tuple(sorted(set(site.files) ^ set(manifest.files))) if manifest and changed and not puts else (),
        total_bytes=sum(file.size for file in site.files.values()),
    )


def known_entry(manifest: Manifest | None, key: str) -> Entry | None:
    """What the manifest has of a key, as a file of the newest release or of one that is kept."""
    if manifest is None:
        return None
    kept = manifest.kept.get(key)
    return manifest.files.get(key) or (kept[0] if kept else None)


def check_owner(manifest: Manifest | None, bucket: str, application: str, environment: str) -> None:
    """Raises Refused where the bucket is another application's or environment's."""
    if manifest and (manifest.application, manifest.environment) != (application, environment):
        raise Refused(
            f"{bucket} holds {manifest.application} of {manifest.environment}, not {application} of {environment}:"
            " check the bucket's name. Nothing was changed."
        )


def check_deletes(deletes: Iterable[Delete], listing: Mapping[str, Remote], percent: int, bucket: str) -> None:
    """Raises Refused where a release would delete more of the bucket than the settings allow."""
    present = sum(1 for key in listing if not key.startswith(PREFIX))
    gone = [d for d in deletes if not d.key.startswith(PREFIX)]
    if gone and len(gone) * 100 > percent * present:
        foreign = [d.key for d in gone if d.reason == "foreign"]
        shown = ", ".join((foreign or [d.key for d in gone])[:10])
        raise Refused(
            f"This release would delete {len(gone)} of the {present} objects in {bucket}, more than the {percent} %"
            f" that max_delete_percent allows: {shown}{' …' if len(gone) > 10 else ''}. Nothing was changed."
        )


def kept_after(site: Site, manifest: Manifest | None, keep_releases: int) -> dict[str, tuple[Entry, str]]:
    """The files of older releases that stay after this one, each with the last release that had it."""
    if manifest is None or not manifest.releases:
        return {}
    newest = manifest.releases[0].id
    older = {**manifest.kept, **{key: (entry, newest) for key, entry in manifest.files.items()}}
    stay = {release.id for release in manifest.releases[:keep_releases]}
    return {key: kept for key, kept in older.items() if key not in site.files and kept[1] in stay}


def _deletes(site: Site, state: State, keep_releases: int) -> list[Delete]:
    """What has no place in the bucket any more; foreign keys first."""
    manifest, listing = state.manifest, state.listing or {}
    kept = kept_after(site, manifest, keep_releases)
    gone = [key for key in sorted(listing) if key not in site.files and key not in kept and not key.startswith(PREFIX)]
    # A bucket that we have never released to holds the release before ours: its open tabs keep working.
    if manifest is None and keep_releases:
        return []
    ours = {**manifest.files, **manifest.kept} if manifest else {}
    foreign = [Delete(key, "foreign") for key in gone if key not in ours]
    return foreign + [Delete(key, "expired") for key in gone if key in ours]


def _blobs(site: Site, listing: Mapping[str, Remote], keep_releases: int, changed: set[str]) -> tuple[str, ...]:
    """The unhashed files to be stored under their sha256, so that this release can be rolled back to."""
    if not keep_releases or not changed:
        return ()
    unhashed = (key for key in sorted(site.files) if not content.is_hashed(key))
    wanted = {site.files[key].sha256: key for key in unhashed}
    return tuple(key for sha256, key in wanted.items() if blob_key(sha256) not in listing)


def _paths(puts: Iterable[Put], deletes: Iterable[Delete], manifest: Manifest | None) -> tuple[str, ...]:
    """What the CDN has to be told: the page and changed unhashed files, and what it was not told before."""
    keys = [put.key for put in puts if put.stage != HASHED and put.reason != "new"]
    keys += [d.key for d in deletes if not content.is_hashed(d.key) and not d.key.startswith(PREFIX)]
    paths = {escaped(f"/{key}") for key in keys}
    if f"/{ENTRY}" in paths:
        paths.add("/")
    paths |= set(manifest.pending if manifest else ())
    return ("/*",) if len(paths) > MOST_PATHS or "/*" in paths else tuple(sorted(paths))


def escaped(path: str) -> str:
    """A path as CloudFront takes it: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide."""
    from urllib.parse import quote

    return quote(path, safe="/~-._")


def next_manifest(
    plan: ReleasePlan,
    site: Site,
    state: State,
    etags: Mapping[str, str],
    cache_control: Mapping[str, str],
    keep_releases: int,
    application: str,
    environment: str,
) -> Manifest:
    """The manifest after a release. etags: of what was put, as S3 gave them back."""
    old = state.manifest
    files = {}
    for key, file in site.files.items():
        known = known_entry(old, key)
        etag = etags.get(key) or (known.etag if known else "")
        files[key] = Entry(file.sha256, file.size, etag, content.headers(key, cache_control))
    kept = kept_after(site, old, keep_releases)
    before = old.releases if old else ()
    if old is None and keep_releases and state.listing:
        first = Release("before", "", 0, "", "")
        before = (first,)
        kept = {
            key: (Entry("", remote.size, remote.etag, {}), first.id)
            for key, remote in state.listing.items()
            if key not in site.files and not key.startswith(PREFIX)
        }
    return Manifest(
        application=application,
        environment=environment,
        releases=(plan.release, *before[:keep_releases]),
        files=files,
        kept=kept,
        pending=plan.invalidate,
    )


def stale_own_keys(listing: Mapping[str, Remote], manifest: Manifest, needed: Iterable[str]) -> list[str]:
    """Our own keys that no kept release needs: records and blobs. needed: the sha256 that some release needs."""
    records = {record_key(release.id) for release in manifest.releases}
    blobs = {blob_key(sha256) for sha256 in needed}
    ours = (f"{PREFIX}releases/", f"{PREFIX}files/")
    return sorted(key for key in listing if key.startswith(ours) and key not in records and key not in blobs)
