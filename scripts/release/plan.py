"""Decides a release: what is put in which stage, what is deleted, and why. Pure."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from scripts.edges.s3 import DELETE_BATCH, LIST_PAGE, Remote, requests_of
from scripts.frame.errors import Refused
from scripts.release import content
from scripts.release.manifest import BLOBS, KEY, PREFIX, Entry, Manifest, Release, State, blob_key, fits
from scripts.release.site import ENTRY, File, Site, shown

# The stages of a release; each starts when the one before has succeeded. In the first are files that nothing in the
# bucket can reference yet.
NEW, OTHER, PAGES, COMMIT = "new files", "changed files", "pages", "the commit point"
# What describes the page comes after it, and a service worker, which may read that, at the end: one that installs
# before the page is there keeps the old page as if it were the new one.
POINTERS, WORKERS = "files that describe the page", "service workers"
STAGES = (NEW, OTHER, PAGES, COMMIT, POINTERS, WORKERS)
POINTER = re.compile(
    r"(?:.*/)?(?:ngsw|version|build-?info|meta|asset-manifest|precache-manifest[^/]*|stories)\.js(?:on)?|(?:.*/)?version\.txt"
    r"|(?:.*/)?\.vite/[^/]*\.json|(?:.*/)?(?:sitemap[^/]*|feed|rss|atom)\.(?:xml|json)(?:\.gz)?|.*\.(?:rss|atom|appcache)",
    re.IGNORECASE,
)
WORKER = re.compile(
    r"(?:.*/)?(?:(?:[^/]*[-_.])?(?:sw|service[-_]?worker)(?:\.min)?|ngsw-worker|safety-worker|OneSignalSDK[^/]*)\.m?js",
    re.IGNORECASE,
)
# More paths than this are invalidated as `/*`, because CloudFront bills each path.
MOST_PATHS = 15
# Reasons to put an object that others may have cached: unless it is new, and if its content is certainly another.
CHANGED, SURELY = ("content", "headers", "foreign", "unknown"), ("content", "foreign")


class Put(Struct, frozen=True):
    """One object to be put.

    reason: new, content, headers, foreign (overwritten by somebody else) or unknown (not in the manifest).
    """

    key: str
    stage: str
    reason: str
    size: int
    headers: Mapping[str, str]


class Delete(Struct, frozen=True):
    """One object to be deleted. reason: foreign (not put by us) or expired (of a release that is no longer kept)."""

    key: str
    reason: str


class ReleasePlan(Struct, frozen=True):
    """Everything that a release is going to do.

    release: the new one, or the live one if it has the same files (is_new is false then). live: the id of the one that
    it replaces, empty for the first. blobs: keys of files to be copied for a rollback. rescues: key -> sha256, of
    objects that are needed and overwritten: they are copied first. invalidate: paths in the CDN. total_bytes: size of
    the whole site. requests: to S3, including LIST and the manifest's GET. allowed_missing: files that pages need, and
    that somebody has allowed to be missing. warnings: what a person should know. repairs: the manifest in the bucket is
    behind (see State). based: the next manifest is written as the difference to the base of the state.
    """

    bucket: str
    release: Release
    live: str
    puts: tuple[Put, ...]
    blobs: tuple[str, ...]
    rescues: Mapping[str, str]
    deletes: tuple[Delete, ...]
    unchanged: tuple[str, ...]
    invalidate: tuple[str, ...]
    is_new: bool
    total_bytes: int
    requests: int
    allowed_missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    repairs: bool = False
    based: bool = False

    @property
    def is_needed(self) -> bool:
        return bool(self.puts or self.deletes or self.invalidate or self.is_new or self.repairs)

    @property
    def is_noted(self) -> bool:
        """Whether the release is noted in the bucket before the commit point (see manifest.NEXT)."""
        return self.is_new and bool(self.puts)

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


def stage_of(key: str, headers: Mapping[str, str], needed: Container[str] = ()) -> str:
    """The stage in which a key is put. needed: keys that pages load themselves, which have to be there before them."""
    if key == ENTRY:
        return COMMIT
    if key.endswith((".html", ".htm")):
        return PAGES
    if content.is_immutable(headers):
        return NEW
    if key in needed:
        return OTHER
    return WORKERS if WORKER.fullmatch(key) else POINTERS if POINTER.fullmatch(key) else OTHER


def reason_to_put(file: File, known: Entry | None, remote: Remote | None) -> str:
    """Why an object has to be put (see Put), empty if it is unchanged in the bucket."""
    if remote is None:
        return "new"
    if known is None:
        return "unknown"
    if known.sha256 != file.sha256 or known.size != file.size:
        return "content"
    if dict(known.headers) != dict(file.headers):
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
    keep_releases: int,
    max_delete_percent: int,
    distribution: str = "",
    base: str = "/",
    needed: Container[str] = (),
) -> ReleasePlan:
    """Decide a release. Raises Refused if the bucket is another environment's, or too much would be deleted.

    base: the path at which the site is served. needed: as for `stage_of`.
    """
    check_owner(state.manifest, bucket, application, environment)
    listing = state.listing or {}
    known = state.manifest.known() if state.manifest else {}
    puts, unchanged = [], []
    for key, file in sorted(site.files.items()):
        reason = reason_to_put(file, known.get(key), listing.get(key))
        if reason:
            stage = stage_of(key, file.headers, needed)
            stage = NEW if stage == OTHER and reason == "new" else stage
            puts.append(Put(key, stage, reason, file.size, file.headers))
        else:
            unchanged.append(key)
    puts.sort(key=lambda put: STAGES.index(put.stage))
    is_new = not is_live(site, state.manifest)
    live = next(iter(state.manifest.releases)) if state.manifest and state.manifest.releases else None
    if not is_new and live:
        release = live
    kept = releases_after(site, state, keep_releases, is_new)
    changed = _changed(site, kept)
    earlier = state.base if _is_based(site, state, release, kept, is_new) else None
    copies = {earlier.sha256} if earlier else set[str]()
    deletes, left = checked(_deletes(site, state, kept, keep_releases, copies), state, max_delete_percent, bucket)
    decided = ReleasePlan(
        bucket=bucket,
        release=release,
        live=live.id if live else "",
        puts=tuple(puts),
        blobs=_blobs(site, listing, changed) if keep_releases and (puts or is_new) else (),
        rescues=_rescues(puts, known, listing, kept)
        | ({KEY: earlier.sha256} if earlier and not earlier.is_stored else {}),
        deletes=tuple(deletes),
        unchanged=tuple(unchanged),
        invalidate=_paths(puts, deletes, state.manifest, base) if distribution else (),
        is_new=is_new,
        total_bytes=sum(file.size for file in site.files.values()),
        requests=0,
        warnings=tuple(_warnings(puts, deletes, left, state, bucket, keep_releases)),
        repairs=state.repaired,
        based=earlier is not None,
    )
    return replace(decided, requests=_requests(decided, site, state))


def _is_based(
    site: Site, state: State, release: Release, kept: Mapping[Release, Mapping[str, Entry]], is_new: bool
) -> bool:
    """Whether the next manifest is to be the difference to the base; without a new release it stays what it is."""
    if not state.base or not is_new:
        return bool(state.base and state.base.is_stored)
    return fits({release: files_after(site, state, {}), **kept}, state.base)


def is_live(site: Site, manifest: Manifest | None) -> bool:
    """Whether the live release has exactly these files, with the headers that they should have now."""
    live = manifest.files if manifest else {}
    return live.keys() == site.files.keys() and all(
        live[key].sha256 == file.sha256 and live[key].headers == file.headers for key, file in site.files.items()
    )


def check_owner(manifest: Manifest | None, bucket: str, application: str, environment: str) -> None:
    """Raises Refused if the bucket is another application's or environment's."""
    if manifest and (manifest.application, manifest.environment) != (application, environment):
        raise Refused(
            f"{bucket} holds {manifest.application} of {manifest.environment}, not {application} of {environment}:"
            " check the bucket's name. Nothing was changed."
        )


def checked(deletes: Iterable[Delete], state: State, percent: int, bucket: str) -> tuple[list[Delete], list[str]]:
    """The deletes that are allowed, and the foreign keys that stay because they are too many.

    Files that only earlier releases of ours have are not counted: that they expire is normal. Raises Refused if a
    release would delete more of its own files than the settings allow, and if the first one would delete too much.
    """
    releases = state.manifest.releases if state.manifest else {}
    live = state.manifest.files if state.manifest else {}
    retired = {key for release, files in releases.items() if release.at for key in files} - live.keys()
    gone = [d for d in deletes if not d.key.startswith(PREFIX) and d.key not in retired]
    present = sum(1 for key in state.listing or () if not key.startswith(PREFIX))
    if len(gone) * 100 <= percent * present:
        return list(deletes), []
    foreign = [d.key for d in gone if d.key not in live]
    if state.manifest is None or (len(gone) - len(foreign)) * 100 > percent * present:
        raise Refused(
            f"This release would delete {len(gone)} of the {present} objects in {bucket}, more than the {percent} %"
            f" that max_delete_percent allows: {shown(foreign or [d.key for d in gone])}. Nothing was changed."
        )
    stay = set(foreign)
    return [delete for delete in deletes if delete.key not in stay], foreign


def _warnings(
    puts: Iterable[Put], deletes: Iterable[Delete], left: list[str], state: State, bucket: str, keep_releases: int
) -> Iterator[str]:
    """What a person should know about a release before it begins."""
    changed = [put.key for put in puts if put.stage == NEW and put.reason == "content"]
    if changed:
        yield (
            f"files have new content under names that browsers keep for a year: {shown(changed)}. Give them other"
            " names, or another frontend.cache_control."
        )
    known = state.manifest.known() if state.manifest else {}
    theirs = [delete.key for delete in deletes if not (known[delete.key].sha256 if delete.key in known else "")]
    theirs = [key for key in theirs if not key.startswith(PREFIX)]
    mine = "what others write belongs into frontend.keep of the settings"
    if theirs:
        yield f"{len(theirs)} objects that no release has put are deleted from {bucket}: {shown(theirs)}; {mine}"
    if left:
        yield (
            f"{len(left)} objects that no release has put stay in {bucket}, because they are more than"
            f" max_delete_percent allows to delete: {shown(left)}; {mine}"
        )
    if state.manifest is None and not state.unread and keep_releases:
        found = [key for key in sorted(state.listing or ()) if not key.startswith(PREFIX)]
        others = [key for key in found if key not in {put.key for put in puts}]
        if others:
            yield (
                f"{bucket} holds {len(others)} objects that no release has put: {shown(others)}. After {keep_releases}"
                f" more releases they are deleted, as far as max_delete_percent allows; {mine}"
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


def _deletes(
    site: Site, state: State, kept: Mapping[Release, Mapping[str, Entry]], keep_releases: int, copies: set[str]
) -> list[Delete]:
    """What is to be deleted, foreign keys first. Nothing if the manifest could not be read.

    copies: sha256 of copies that are needed, beside those of the kept releases.
    """
    if state.unread:
        return []
    known = state.manifest.known() if state.manifest else {}
    listed = sorted(state.listing or ())
    stay = {key for files in (site.files, *kept.values()) for key in files}
    gone = [key for key in listed if key not in stay and not key.startswith(PREFIX)]
    needed = copies | {entry.sha256 for files in kept.values() for entry in files.values()}
    if keep_releases:
        needed |= {file.sha256 for file in site.files.values()}
    stale = [key for key in listed if key.startswith(BLOBS) and key.removeprefix(BLOBS) not in needed]
    foreign = [Delete(key, "foreign") for key in gone if key not in known]
    return foreign + [Delete(key, "expired") for key in gone if key in known] + [Delete(k, "expired") for k in stale]


def _changed(site: Site, kept: Mapping[Release, Mapping[str, Entry]]) -> set[str]:
    """The keys whose content differs between this release and a kept one."""
    return {
        key
        for files in kept.values()
        for key, entry in files.items()
        if key in site.files and entry.sha256 not in ("", site.files[key].sha256)
    }


def _blobs(site: Site, listing: Mapping[str, Remote], changed: Container[str]) -> tuple[str, ...]:
    """Keys of the files that are to be copied, for a rollback to this release: those that a later one may overwrite."""
    keys = (key for key in sorted(site.files) if not content.is_immutable(site.files[key].headers) or key in changed)
    wanted = {site.files[key].sha256: key for key in keys if site.files[key].path}
    return tuple(key for sha256, key in wanted.items() if blob_key(sha256) not in listing)


def _rescues(
    puts: Iterable[Put],
    known: Mapping[str, Entry],
    listing: Mapping[str, Remote],
    kept: Mapping[Release, Mapping[str, Entry]],
) -> dict[str, str]:
    """Objects that are overwritten, that a kept release needs, and of which there is no copy: key -> sha256."""
    found = {}
    for put in puts:
        entry, remote = known.get(put.key), listing.get(put.key)
        if put.reason != "content" or not entry or not remote or not entry.sha256:
            continue
        needed = any(files.get(put.key) and files[put.key].sha256 == entry.sha256 for files in kept.values())
        is_it = (remote.etag, remote.size) == (entry.etag, entry.size)
        if needed and is_it and blob_key(entry.sha256) not in listing:
            found[put.key] = entry.sha256
    return found


def _requests(decided: ReleasePlan, site: Site, state: State) -> int:
    """How many requests S3 gets from a release, if none fails."""
    look = max(1, -(-len(state.listing or ()) // LIST_PAGE)) + 1 + bool(state.base and state.base.is_stored)
    if not decided.is_needed:
        return look
    # The lease is taken with one request and deleted with the others. The manifest is compared beside and after it.
    locked = 1 if state.unread else 3
    sizes = [put.size for put in decided.puts] + [site.files[key].size for key in decided.blobs]
    # Before the CDN is told, the note or the manifest says what it has to be told.
    manifests = 0 if state.unread else 1 + (decided.is_noted or bool(decided.invalidate))
    deletes = -(-(len(decided.deletes) + decided.is_noted + 1) // DELETE_BATCH)
    return look + locked + sum(map(requests_of, sizes)) + len(decided.rescues) + manifests + deletes


def _paths(puts: Iterable[Put], deletes: Iterable[Delete], manifest: Manifest | None, base: str) -> tuple[str, ...]:
    """The paths to invalidate: files that change or go, and what an earlier release did not invalidate.

    Files that are cached forever are among them only if their content has changed all the same.
    """
    known = manifest.known() if manifest else {}
    keys = [put.key for put in puts if put.reason in (SURELY if put.stage == NEW else CHANGED)]
    keys += [d.key for d in deletes if not d.key.startswith(PREFIX) and not _was_immutable(d.key, known)]
    # A page of a folder is also requested by the folder's own name.
    keys += [key.removesuffix(ENTRY) for key in keys if key == ENTRY or key.endswith(f"/{ENTRY}")]
    paths = {escaped(f"/{base.strip('/')}/{key}".replace("//", "/", 1)) for key in keys}
    paths |= set(manifest.pending if manifest else ())
    return ("/*",) if len(paths) > MOST_PATHS or "/*" in paths else tuple(sorted(paths))


def _was_immutable(key: str, known: Mapping[str, Entry]) -> bool:
    stored = known[key].headers if key in known else {}
    return content.is_immutable(stored) if stored else content.is_hashed(key)


def escaped(path: str) -> str:
    """A path, percent-encoded as CloudFront requires it in an invalidation."""
    return quote(path)


def next_manifest(
    decided: ReleasePlan,
    site: Site,
    state: State,
    etags: Mapping[str, str],
    *,
    keep_releases: int,
    application: str,
    environment: str,
) -> Manifest:
    """The manifest after a release. etags: of the objects that were put, as S3 returned them.

    An object without a known ETag is put again by the next release.
    """
    releases = {
        decided.release: files_after(site, state, etags),
        **releases_after(site, state, keep_releases, decided.is_new),
    }
    return Manifest(application, environment, releases, decided.invalidate)


def files_after(site: Site, state: State, etags: Mapping[str, str]) -> dict[str, Entry]:
    """The files of the live release after a release. etags: as for `next_manifest`."""
    known = state.manifest.known() if state.manifest else {}
    return {key: _entry(file, etags.get(key, ""), known.get(key)) for key, file in site.files.items()}


def _entry(file: File, etag: str, known: Entry | None) -> Entry:
    """The entry of a file. An object that was not put stays the same one, which saves comparing it later."""
    etag = etag or (known.etag if known else "")
    made = Entry(file.sha256, file.size, etag, file.headers)
    return known if known == made else made
