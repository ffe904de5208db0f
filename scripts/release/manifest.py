"""The release manifest: what was put into the bucket, and the ETags that S3 returned.

An object is unchanged when the manifest agrees with the disk and LIST agrees with the manifest. ETags are only
compared, never computed, so this also holds with KMS and for multipart uploads. An object that somebody else has
overwritten is noticed by its ETag.

A small change to a large site is written as one: as the difference to an earlier whole manifest, its base. That was
copied to the copies of files, and is deleted like them when nothing needs it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from scripts.edges.s3 import Bucket, Remote, S3Error
from scripts.frame.errors import Refused

T = TypeVar("T")

# The keys of the release itself (manifest, lease, copies); no file of a site may begin with it.
PREFIX = "_release/"
KEY = f"{PREFIX}manifest.json"
LEASE = f"{PREFIX}lease.json"
BLOBS = f"{PREFIX}files/"
# What a release is about to put, noted before the commit point: if the manifest is not written after it, the next
# command knows from this note which release is live.
NEXT = f"{PREFIX}next.json"
JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
# The format of a whole manifest, and of one that is the difference to a base.
FORMAT, CHANGES = 1, 2
# A difference is written if the base has so many files in its live release, and at most every fourth one has changed
# since: else it saves less than the further requests cost.
FEWEST_FILES, MOST_CHANGED = 64, 1 / 4
# Bytes of a manifest that are read. One of three releases with 100,000 different files each has 50 MB.
MOST = 256 << 20

Text = Annotated[str, Meta(max_length=2000)]
# Unix time in whole seconds, up to the year 2100.
Moment = Annotated[int, Meta(ge=0, le=4_102_444_800)]
Key = Annotated[str, Meta(min_length=1, max_length=1024)]


class Entry(Struct, frozen=True):
    """One object of a release. size: bytes.

    etag: as our PUT returned it; of an object from before our first release, as LIST showed it. sha256: 64 hexadecimal
    digits, empty for an object from before our first release.
    """

    sha256: str
    size: int
    etag: str
    headers: Mapping[str, str]


class Release(Struct, frozen=True):
    """One release. at: Unix time. run: the URL of the workflow's run, empty on a laptop.

    at is 0 for what the bucket held before our first release: the files that it did not replace, whose content is not
    known. rolled_back_from: of a rollback, the id of the release that was live before it.
    """

    id: Annotated[str, Meta(min_length=1, max_length=2000)]
    version: Text
    at: Moment
    actor: Text
    run: Text
    rolled_back_from: Text = ""


class Manifest(Struct, frozen=True):
    """The state of the bucket as we left it.

    releases: with the files of each, newest first; the newest is live and the others are kept.
    pending: paths that have not been invalidated in the CDN yet.
    """

    application: str
    environment: str
    releases: Mapping[Release, Mapping[str, Entry]]
    pending: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, Entry]:
        """The files of the live release."""
        return next(iter(self.releases.values()), {})

    def known(self) -> dict[str, Entry]:
        """The objects of all releases: each key with its entry in the newest release that has it."""
        return {key: entry for files in reversed(list(self.releases.values())) for key, entry in files.items()}


class Base(Struct, frozen=True):
    """A whole manifest that the next one may be a difference to. sha256: of its document.

    is_stored: the document is among the copies already. Else it is the manifest itself.
    """

    sha256: str
    manifest: Manifest
    is_stored: bool


class State(Struct, frozen=True):
    """What a bucket holds. listing: None if it could not be read. etag: of the manifest, empty if there is none.

    unread: why the manifest could not be read, empty if it was. base: None if there is no manifest. repaired: the live
    release is not in the manifest of the bucket, because it was not written after the commit point.
    """

    listing: Mapping[str, Remote] | None
    manifest: Manifest | None
    etag: str = ""
    unread: str = ""
    base: Base | None = None
    repaired: bool = False


class Stored(NamedTuple):
    """The manifest and its ETag; None and empty if there is none. unread, base: as in State."""

    manifest: Manifest | None
    etag: str = ""
    unread: str = ""
    base: Base | None = None


# The documents in the bucket.


class _Row(Struct, array_like=True, frozen=True, gc=False):
    """An entry. headers: index of its headers in the document's list."""

    sha256: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
    size: Annotated[int, Meta(ge=0, le=1 << 53)]
    etag: Annotated[str, Meta(pattern=r"\A[ -~]{0,1024}\Z")]
    headers: Annotated[int, Meta(ge=0)]


class _Files(Struct, frozen=True):
    """A release as its difference to another one. files: those that differ. without: keys that it lacks."""

    release: Release
    files: dict[Key, _Row]
    without: list[Key]


Path = Annotated[str, Meta(pattern=r"\A/[!-~]*\Z", max_length=8192)]


class _Document(Struct, frozen=True):
    """A whole manifest. releases: newest first, each as its difference to the next newer one."""

    format: int
    application: Text
    environment: Text
    pending: tuple[Path, ...]
    releases: list[_Files]
    headers: list[dict[Text, Text]]


class _Changes(Struct, frozen=True):
    """A manifest as its difference to a base. base: the sha256 of that document.

    releases: newest first, each as its difference to the next older one, and the last to the live one of the base.
    kept: ids of the base's releases that are kept too.
    """

    format: int
    application: Text
    environment: Text
    pending: tuple[Path, ...]
    base: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    releases: list[_Files]
    kept: list[Text]
    headers: list[dict[Text, Text]]


class _Next(Struct, frozen=True):
    """A release as its difference to the live one. live: the id of that, empty if there is none.

    last: the keys that are put last before the release is live. pending: as in the manifest.
    """

    format: int
    application: Text
    environment: Text
    live: Text
    release: Release
    files: dict[Key, _Row]
    without: list[Key]
    headers: list[dict[Text, Text]]
    last: list[Key]
    pending: tuple[Path, ...]


class _Format(Struct, frozen=True):
    format: int


def decoded(body: bytes, kind: type[T]) -> T:
    """A JSON document as a typed record. Raises ValueError for everything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


class _Rows:
    """Writes entries. headers: the document's list of headers, which each entry has an index into."""

    def __init__(self) -> None:
        self.headers: list[Mapping[str, str]] = []

    def row(self, entry: Entry, etag: str) -> list[Any]:
        """An entry with an ETag."""
        if entry.headers not in self.headers:
            self.headers.append(entry.headers)
        return [entry.sha256, entry.size, etag, self.headers.index(entry.headers)]

    def difference(self, release: Release, files: Mapping[str, Entry], other: Mapping[str, Entry]) -> dict[str, Any]:
        """A release, as _Files."""
        # Only a rollback has the last field: what else is written stays as it was in the first version.
        told = {name: value for name, value in asdict(release).items() if value or name != "rolled_back_from"}
        own = {key: self.row(entry, entry.etag) for key, entry in files.items() if other.get(key) != entry}
        return {"release": told, "files": own, "without": [key for key in other if key not in files]}


def dump(manifest: Manifest, base: Base | None = None) -> bytes:
    """A manifest as JSON, as its difference to the base if there is one that allows it, else whole."""
    rows, head = _Rows(), dict[str, Any](application=manifest.application, environment=manifest.environment)
    head["pending"] = manifest.pending
    found = _since(manifest.releases, base) if base else None
    if base and found:
        new, kept = found
        older = [*[files for _, files in new[1:]], base.manifest.files]
        releases = [rows.difference(*one, other) for one, other in zip(new, older, strict=True)]
        body = {"format": CHANGES, **head, "base": base.sha256, "releases": releases, "kept": kept}
    else:
        newer = [{}, *manifest.releases.values()]
        releases = [rows.difference(*one, other) for one, other in zip(manifest.releases.items(), newer, strict=False)]
        body = {"format": FORMAT, **head, "releases": releases}
    return msgspec.json.encode({**body, "headers": rows.headers})


def _since(
    releases: Mapping[Release, Mapping[str, Entry]], base: Base
) -> tuple[list[tuple[Release, Mapping[str, Entry]]], list[str]] | None:
    """The releases since a base, and the ids of those that are kept of it. None if it cannot be said so.

    Nor can it if there are none: an object that was put again may have the same ETag as before.
    """
    new, kept = list(releases.items()), list[str]()
    while new and base.manifest.releases.get(new[-1][0]) == new[-1][1]:
        kept.insert(0, new.pop()[0].id)
    # What was there before our first release is the oldest, and inherits nothing.
    return (new, kept) if new and all(release.at for release, _ in new) else None


def fits(releases: Mapping[Release, Mapping[str, Entry]], base: Base | None) -> bool:
    """Whether a manifest of these releases is to be written as the difference to a base."""
    found = _since(releases, base) if base else None
    if not base or not found or len(base.manifest.files) < FEWEST_FILES:
        return False
    changed, older = 0, base.manifest.files
    for _, files in reversed(found[0]):
        changed += sum(older.get(key) != entry for key, entry in files.items()) + len(older.keys() - files.keys())
        older = files
    return changed <= len(base.manifest.files) * MOST_CHANGED


def load(body: bytes, find: Callable[[str], bytes | None] = lambda _: None) -> Manifest:
    """A manifest from JSON. find: returns the document of a base by its sha256, or None.

    Raises Refused if the document is damaged or has another format.
    """
    return _loaded(body, find)[0]


def _loaded(body: bytes, find: Callable[[str], bytes | None]) -> tuple[Manifest, Base]:
    """As `load`, with the base for the next manifest."""
    try:
        written = decoded(body, _Format).format
        if written == CHANGES:
            return _changed(decoded(body, _Changes), find)
        if written != FORMAT:
            raise Refused(f"{KEY} has format {written}: it was written by a newer version of this command.")
        whole = _whole(body)
    except ValueError as error:
        raise Refused(f"{KEY} is damaged ({error}): delete it, and the next release starts a new one.") from error
    return whole, Base(hashlib.sha256(body).hexdigest(), whole, is_stored=False)


def _whole(body: bytes) -> Manifest:
    """A whole manifest. Raises ValueError."""
    document = decoded(body, _Document)
    if document.format != FORMAT:
        raise ValueError(f"its base has format {document.format}")
    releases: dict[Release, Mapping[str, Entry]] = {}
    newer: Mapping[str, Entry] = {}
    for number, row in enumerate(document.releases):
        # What was there before our first release is the oldest, so that no release inherits files of unknown content.
        if not row.release.at and number != len(document.releases) - 1:
            raise ValueError(f"{row.release.id} is not the oldest release")
        newer = releases[row.release] = _applied(row, newer, document.headers)
    return Manifest(document.application, document.environment, releases, document.pending)


def _changed(document: _Changes, find: Callable[[str], bytes | None]) -> tuple[Manifest, Base]:
    """A manifest that is the difference to a base. Raises ValueError."""
    body = find(document.base)
    if body is None or hashlib.sha256(body).hexdigest() != document.base:
        raise ValueError(f"its base {blob_key(document.base)} is gone or changed")
    base = Base(document.base, _whole(body), is_stored=True)
    older, new = base.manifest.files, list[tuple[Release, Mapping[str, Entry]]]()
    for row in reversed(document.releases):
        if not row.release.at:
            raise ValueError(f"{row.release.id} is not the oldest release")
        older = _applied(row, older, document.headers)
        new.insert(0, (row.release, older))
    kept = [(release, files) for release, files in base.manifest.releases.items() if release.id in document.kept]
    if [release.id for release, _ in kept] != document.kept:
        raise ValueError("its base has other releases")
    return Manifest(document.application, document.environment, dict(new + kept), document.pending), base


def _applied(row: _Files, other: Mapping[str, Entry], headers: list[dict[str, str]]) -> dict[str, Entry]:
    """All files of a release. other: those of the one that it is the difference to. Raises ValueError."""
    own = {key: _entry(key, one, headers, row.release) for key, one in row.files.items()}
    without = set(row.without)
    return {key: entry for key, entry in other.items() if key not in without} | own


def _entry(key: str, row: _Row, headers: list[dict[str, str]], release: Release) -> Entry:
    if key.startswith(PREFIX):
        raise ValueError(f"{key} is one of the release's own files")
    if not row.sha256 and release.at:
        raise ValueError(f"{key} has no sha256")
    if row.headers >= len(headers):
        raise ValueError(f"{key} has no headers")
    return Entry(row.sha256, row.size, row.etag, headers[row.headers])


def note(live: Manifest | None, new: Manifest, last: Iterable[str]) -> bytes:
    """The note of a release before its commit point. new: the manifest after it, whose ETags are not known yet.

    last: the keys that are put last before it is live.
    """
    rows, old = _Rows(), live.files if live else {}
    release, files = next(iter(new.releases.items()))

    def is_same(key: str, entry: Entry) -> bool:
        return key in old and (old[key].sha256, dict(old[key].headers)) == (entry.sha256, dict(entry.headers))

    document = {
        "format": FORMAT,
        "application": new.application,
        "environment": new.environment,
        "live": _live(live),
        "release": asdict(release),
        "files": {key: rows.row(entry, "") for key, entry in files.items() if not is_same(key, entry)},
        "without": [key for key in old if key not in files],
        "headers": rows.headers,
        "last": list(last),
        "pending": new.pending,
    }
    return msgspec.json.encode(document)


def _live(current: Manifest | None) -> str:
    """The id of the live release, empty if there is none."""
    return next(iter(current.releases)).id if current and current.releases else ""


def repaired(bucket: Bucket, state: State) -> State:
    """The state with the release that is live by its note, although the manifest was not written after it.

    Raises DeployError if the bucket cannot be read.
    """
    listing = state.listing or {}
    if state.unread or NEXT not in listing:
        return state
    found = bucket.get(NEXT, MOST)
    try:
        noted = decoded(found[0], _Next) if found else None
        files = {k: _entry(k, row, noted.headers, noted.release) for k, row in noted.files.items()} if noted else {}
    except ValueError:
        return state
    if not noted or noted.format != FORMAT or noted.live != _live(state.manifest) or not noted.last:
        return state
    if not all(_holds(bucket, key, files.get(key)) for key in noted.last):
        return state
    old = state.manifest.files if state.manifest else {}
    known = state.manifest.known() if state.manifest else {}
    without = set(noted.without)
    now = {key: entry for key, entry in old.items() if key not in without}
    for key, entry in files.items():
        now[key] = replace(entry, etag=_put_etag(entry, known.get(key), listing.get(key)))
    releases = {noted.release: now, **(state.manifest.releases if state.manifest else {})}
    pending = (*noted.pending, *(state.manifest.pending if state.manifest else ()))
    current = Manifest(noted.application, noted.environment, releases, tuple(dict.fromkeys(pending)))
    return replace(state, manifest=current, repaired=True)


def _holds(bucket: Bucket, key: str, entry: Entry | None) -> bool:
    """Whether the bucket holds an object with this content."""
    if entry is None:
        return False
    try:
        found = bucket.get(key, entry.size)
    except Refused:
        return False
    return found is not None and hashlib.sha256(found[0]).hexdigest() == entry.sha256


def _put_etag(entry: Entry, known: Entry | None, remote: Remote | None) -> str:
    """The ETag of an object of a noted release, if it was put; else empty."""
    if remote is None or remote.size != entry.size:
        return ""
    was_put = known is None or remote.etag != known.etag or known.sha256 == entry.sha256
    return remote.etag if was_put else ""


def without(state: State, keeps: Callable[[str], bool]) -> State:
    """The state without the keys that others write. keeps: whether a key is one of them."""

    def ours(key: str) -> bool:
        return key.startswith(PREFIX) or not keeps(key)

    listing, current = state.listing, state.manifest
    if listing is not None:
        listing = {key: remote for key, remote in listing.items() if ours(key)}
    if current is not None:
        kept = {release: {k: e for k, e in files.items() if ours(k)} for release, files in current.releases.items()}
        current = replace(current, releases=kept)
    return replace(state, listing=listing, manifest=current)


def read(bucket: Bucket) -> Stored:
    """Read the manifest of a bucket. If S3 denies it (403): none, and the reason. Raises Refused if it is damaged."""

    gone = set[str]()

    def find(sha256: str) -> bytes | None:
        stored = bucket.get(blob_key(sha256), MOST)
        gone.update(() if stored else (sha256,))
        return stored[0] if stored else None

    try:
        while found := bucket.get(KEY, MOST):
            missed = frozenset(gone)
            try:
                current, base = _loaded(found[0], find)
                return Stored(current, found[1], base=base)
            except Refused:
                # A release that has finished since may have deleted the base: then the manifest is another one now.
                if gone == missed:
                    raise
        return Stored(None)
    except S3Error as error:
        if error.status == 403:
            return Stored(None, unread=str(error))
        raise


def blob_key(sha256: str) -> str:
    """The key of the copy of an unhashed file, which a rollback restores it from."""
    return f"{BLOBS}{sha256}"
