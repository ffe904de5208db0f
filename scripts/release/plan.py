"""Decides a release: what is put in which stage, what is deleted, and why. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from scripts.edges.s3 import DELETE_BATCH, LIST_PAGE, Remote, requests_of
from scripts.frame.errors import Refused
from scripts.release import content
from scripts.release.manifest import BLOBS, Entry, Manifest, Release, State, blob_key
from scripts.release.site import ENTRY, PREFIX, File, Site

# The stages of a release; each starts when the one before has succeeded.
HASHED, OTHER, PAGES, COMMIT = "hashed files", "other files", "pages", "the commit point"
STAGES = (HASHED, OTHER, PAGES, COMMIT)
# More paths than this are invalidated as `/*`, because CloudFront bills each path.
MOST_PATHS = 15


@dataclass(frozen=True, slots=True)
class Put:
    """One object to be put.

    reason: new, content, headers, foreign (overwritten by somebody else) or unknown (not in the manifest).
    """

    key: str
    stage: str
    reason: str
    size: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delete:
    """One object to be deleted. reason: foreign (not put by us) or expired (of a release that is no longer kept)."""

    key: str
    reason: str


@dataclass(frozen=True)
class ReleasePlan:
    """Everything that a release is going to do.

    release: the new one, or the live one if it has the same files (is_new is false then). blobs: keys of unhashed files
    to be copied for a rollback. invalidate: paths in the CDN. total_bytes: size of the whole site. requests: to S3,
    including LIST and the manifest's GET.
    """

    bucket: str
    release: Release
    puts: tuple[Put, ...]
    blobs: tuple[str, ...]
    deletes: tuple[Delete, ...]
    unchanged: tuple[str, ...]
    invalidate: tuple[str, ...]
    is_new: bool
    total_bytes: int
    requests: int

    @property
    def is_needed(self) -> bool:
        return bool(self.puts or self.deletes or self.invalidate or self.is_new)

    def describe(self) -> list[str]:
        """Foreign keys that would be deleted come first."""
        foreign = [d for d in self.deletes if d.reason == "foreign"]
        lines = [f"delete {d.key}, which was not put there by a release" for d in foreign]
        for put in self.puts:
            kept = ", ".join(put.headers.values())
            lines.append(f"put {put.key} ({put.reason}, {put.size:,} bytes, {kept})")
        lines += [f"delete {d.key} ({d.reason})" for d in self.deletes if d.reason != "foreign"]
        if self.invalidate:
            lines.append(f"invalidate {' '.join(self.invalidate)}")
        files, size = len(self.puts) + len(self.unchanged), sum(put.size for put in self.puts)
        lines.append(
            f"release {self.release.id} to {self.bucket}: put {len(self.puts)} of {files} files"
            f" ({size:,} of {self.total_bytes:,} bytes), leave {len(self.unchanged)}, delete {len(self.deletes)},"
            f" with {self.requests} requests; `aws s3 sync` would put all {files} ({self.total_bytes:,} bytes)"
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
    """Why an object has to be put (see Put), empty if it is unchanged in the bucket."""
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
    """Decide a release. Raises Refused if the bucket is another environment's, or too much would be deleted."""
    check_owner(state.manifest, bucket, application, environment)
    listing = state.listing or {}
    known = state.manifest.known() if state.manifest else {}
    puts, unchanged = [], []
    for key, file in sorted(site.files.items()):
        headers = content.headers(key, cache_control)
        reason = reason_to_put(file, headers, known.get(key), listing.get(key))
        if reason:
            puts.append(Put(key, stage_of(key), reason, file.size, headers))
        else:
            unchanged.append(key)
    puts.sort(key=lambda put: STAGES.index(put.stage))
    is_new = not is_live(site, state.manifest, cache_control)
    if not is_new and state.manifest:
        release = next(iter(state.manifest.releases))
    deletes = _deletes(site, state, releases_after(site, state, keep_releases, is_new), keep_releases)
    check_deletes(deletes, state, max_delete_percent, bucket)
    decided = ReleasePlan(
        bucket=bucket,
        release=release,
        puts=tuple(puts),
        blobs=_blobs(site, listing) if keep_releases and (puts or is_new) else (),
        deletes=tuple(deletes),
        unchanged=tuple(unchanged),
        invalidate=_paths(puts, deletes, state.manifest) if distribution else (),
        is_new=is_new,
        total_bytes=sum(file.size for file in site.files.values()),
        requests=0,
    )
    return replace(decided, requests=_requests(decided, site, state))


def is_live(site: Site, manifest: Manifest | None, cache_control: Mapping[str, str]) -> bool:
    """Whether the live release has exactly these files, with the headers that they should have now."""
    live = manifest.files if manifest else {}
    return live.keys() == site.files.keys() and all(
        live[key].sha256 == file.sha256 and live[key].headers == content.headers(key, cache_control)
        for key, file in site.files.items()
    )


def check_owner(manifest: Manifest | None, bucket: str, application: str, environment: str) -> None:
    """Raises Refused if the bucket is another application's or environment's."""
    if manifest and (manifest.application, manifest.environment) != (application, environment):
        raise Refused(
            f"{bucket} holds {manifest.application} of {manifest.environment}, not {application} of {environment}:"
            " check the bucket's name. Nothing was changed."
        )


def check_deletes(deletes: Iterable[Delete], state: State, percent: int, bucket: str) -> None:
    """Raises Refused if a release would delete more of the bucket than the settings allow.

    Files that only earlier releases of ours have are not counted: that they expire is normal.
    """
    releases = state.manifest.releases if state.manifest else {}
    live = state.manifest.files if state.manifest else {}
    retired = {key for release, files in releases.items() if release.at for key in files} - live.keys()
    gone = [d for d in deletes if not d.key.startswith(PREFIX) and d.key not in retired]
    present = sum(1 for key in state.listing or () if not key.startswith(PREFIX))
    if len(gone) * 100 > percent * present:
        foreign = [d.key for d in gone if d.reason == "foreign"]
        shown = ", ".join((foreign or [d.key for d in gone])[:10])
        raise Refused(
            f"This release would delete {len(gone)} of the {present} objects in {bucket}, more than the {percent} %"
            f" that max_delete_percent allows: {shown}{' …' if len(gone) > 10 else ''}. Nothing was changed."
        )


def releases_after(site: Site, state: State, keep_releases: int, is_new: bool) -> dict[Release, Mapping[str, Entry]]:
    """The older releases that are kept beside this one, newest first, with their files.

    What a bucket holds before our first release counts as one, so that its open tabs keep working. One with the very
    same files takes no place, so that a rollback does not push out the releases before it.
    """
    if state.manifest and state.manifest.releases:
        older = list(state.manifest.releases.items())[0 if is_new else 1 :]
        return dict([one for one in older if not _is_same(site, one[1])][:keep_releases])
    others = {key: remote for key, remote in (state.listing or {}).items() if not key.startswith(PREFIX)}
    if not others or not keep_releases:
        return {}
    files = {key: Entry("", found.size, found.etag, {}) for key, found in others.items() if key not in site.files}
    return {Release("before", "", 0, "", ""): files}


def _is_same(site: Site, files: Mapping[str, Entry]) -> bool:
    """Whether a release has exactly the files of a site."""
    return files.keys() == site.files.keys() and all(files[key].sha256 == site.files[key].sha256 for key in files)


def _deletes(site: Site, state: State, kept: Mapping[Release, Mapping[str, Entry]], keep_releases: int) -> list[Delete]:
    """What is to be deleted, foreign keys first. Nothing if the manifest could not be read."""
    if state.unread:
        return []
    known = state.manifest.known() if state.manifest else {}
    listed = sorted(state.listing or ())
    stay = {key for files in (site.files, *kept.values()) for key in files}
    gone = [key for key in listed if key not in stay and not key.startswith(PREFIX)]
    needed = {entry.sha256 for files in kept.values() for entry in files.values()}
    if keep_releases:
        needed |= {file.sha256 for file in site.files.values()}
    stale = [key for key in listed if key.startswith(BLOBS) and key.removeprefix(BLOBS) not in needed]
    foreign = [Delete(key, "foreign") for key in gone if key not in known]
    return foreign + [Delete(key, "expired") for key in gone if key in known] + [Delete(k, "expired") for k in stale]


def _blobs(site: Site, listing: Mapping[str, Remote]) -> tuple[str, ...]:
    """Keys of the unhashed files that are to be copied, for a rollback to this release."""
    unhashed = (key for key in sorted(site.files) if not content.is_hashed(key))
    wanted = {site.files[key].sha256: key for key in unhashed}
    return tuple(key for sha256, key in wanted.items() if blob_key(sha256) not in listing)


def _requests(decided: ReleasePlan, site: Site, state: State) -> int:
    """How many requests S3 gets from a release, if none fails."""
    look = max(1, -(-len(state.listing or ()) // LIST_PAGE)) + 1
    if not decided.is_needed:
        return look
    # The lease is taken with one request and deleted with the others; while it is held, the manifest is read once more.
    locked = 1 if state.unread else 2
    sizes = [put.size for put in decided.puts] + [site.files[key].size for key in decided.blobs]
    manifests = 0 if state.unread else 2 if decided.invalidate else 1
    deletes = -(-(len(decided.deletes) + 1) // DELETE_BATCH)
    return look + locked + sum(map(requests_of, sizes)) + manifests + deletes


def _paths(puts: Iterable[Put], deletes: Iterable[Delete], manifest: Manifest | None) -> tuple[str, ...]:
    """The paths to invalidate: unhashed files that change or go, and what an earlier release did not invalidate."""
    keys = [put.key for put in puts if put.stage != HASHED and put.reason != "new"]
    keys += [d.key for d in deletes if not content.is_hashed(d.key) and not d.key.startswith(PREFIX)]
    paths = {escaped(f"/{key}") for key in keys}
    if f"/{ENTRY}" in paths:
        paths.add("/")
    paths |= set(manifest.pending if manifest else ())
    return ("/*",) if len(paths) > MOST_PATHS or "/*" in paths else tuple(sorted(paths))


def escaped(path: str) -> str:
    """A path, percent-encoded as CloudFront requires it in an invalidation."""
    return quote(path, safe="/~-._")


def next_manifest(
    decided: ReleasePlan,
    site: Site,
    state: State,
    etags: Mapping[str, str],
    *,
    cache_control: Mapping[str, str],
    keep_releases: int,
    application: str,
    environment: str,
) -> Manifest:
    """The manifest after a release. etags: of the objects that were put, as S3 returned them.

    An object without a known ETag is put again by the next release.
    """
    known = {key: entry.etag for key, entry in state.manifest.known().items()} if state.manifest else {}
    files = {
        key: Entry(file.sha256, file.size, etags.get(key) or known.get(key, ""), content.headers(key, cache_control))
        for key, file in site.files.items()
    }
    releases = {decided.release: files, **releases_after(site, state, keep_releases, decided.is_new)}
    return Manifest(application, environment, releases, decided.invalidate)
