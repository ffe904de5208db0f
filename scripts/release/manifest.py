"""The release manifest: what was put into the bucket, and the ETags that S3 returned.

An object is unchanged when the manifest agrees with the disk and LIST agrees with the manifest. ETags are only
compared, never computed, so this also holds with KMS and for multipart uploads. An object that somebody else has
overwritten is noticed by its ETag.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from scripts.edges.s3 import Bucket, Remote, S3Error
from scripts.frame.errors import Refused
from scripts.release.site import PREFIX

T = TypeVar("T")

KEY = f"{PREFIX}manifest.json"
LEASE = f"{PREFIX}lease.json"
BLOBS = f"{PREFIX}files/"
# What a release is about to put, noted before the commit point: if the manifest is not written after it, the next
# command knows from this note which release is live.
NEXT = f"{PREFIX}next.json"
JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
FORMAT = 1
# Bytes of a manifest that are read. One of three releases with 100,000 different files each has 50 MB.
MOST = 256 << 20

Text = Annotated[str, Meta(max_length=2000)]
# Unix time in whole seconds, up to the year 2100.
Moment = Annotated[int, Meta(ge=0, le=4_102_444_800)]
Key = Annotated[str, Meta(min_length=1, max_length=1024)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a release. size: bytes.

    etag: as our PUT returned it; of an object from before our first release, as LIST showed it. sha256: 64 hexadecimal
    digits, empty for an object from before our first release.
    """

    sha256: str
    size: int
    etag: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Release:
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


@dataclass(frozen=True)
class Manifest:
    """The state of the bucket as we left it.

    releases: with the files of each, newest first; the newest is live and the others are kept.
    pending: paths that have not been invalidated in the CDN yet.
    """

    application: str
    environment: str
    releases: Mapping[Release, Mapping[str, Entry]] = field(default_factory=dict)
    pending: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, Entry]:
        """The files of the live release."""
        return next(iter(self.releases.values()), {})

    def known(self) -> dict[str, Entry]:
        """The objects of all releases: each key with its entry in the newest release that has it."""
        return {key: entry for files in reversed(list(self.releases.values())) for key, entry in files.items()}


@dataclass(frozen=True)
class State:
    """What a bucket holds. listing: None if it could not be read. etag: of the manifest, empty if there is none.

    unread: why the manifest could not be read, empty if it was. repaired: the live release is not in the manifest of
    the bucket, because it was not written after the commit point.
    """

    listing: Mapping[str, Remote] | None
    manifest: Manifest | None
    etag: str = ""
    unread: str = ""
    repaired: bool = False


class Stored(NamedTuple):
    """The manifest and its ETag; None and empty if there is none. unread: why it could not be read, else empty."""

    manifest: Manifest | None
    etag: str = ""
    unread: str = ""


# The document in the bucket, in FORMAT 1.


class _Row(Struct, array_like=True, frozen=True, gc=False):
    """An entry. headers: index of its headers in the document's list."""

    sha256: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
    size: Annotated[int, Meta(ge=0, le=1 << 53)]
    etag: Annotated[str, Meta(pattern=r"\A[ -~]{0,1024}\Z")]
    headers: Annotated[int, Meta(ge=0)]


class _Files(Struct, frozen=True):
    """A release as its difference to the next newer one. files: those that differ. without: keys that it lacks."""

    release: Release
    files: dict[Key, _Row]
    without: list[Key]


class _Document(Struct, frozen=True):
    format: int
    application: Text
    environment: Text
    pending: tuple[Annotated[str, Meta(pattern=r"\A/[!-~]*\Z", max_length=8192)], ...]
    releases: list[_Files]
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
    pending: tuple[Annotated[str, Meta(pattern=r"\A/[!-~]*\Z", max_length=8192)], ...]


class _Format(Struct, frozen=True):
    format: int


def decoded(body: bytes, kind: type[T]) -> T:
    """A JSON document as a typed record. Raises ValueError for everything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def dump(manifest: Manifest) -> bytes:
    """A manifest as JSON: the files of the live release, and each older one as its difference to the next newer one."""
    kinds: list[Mapping[str, str]] = []

    def row(entry: Entry) -> list[Any]:
        if entry.headers not in kinds:
            kinds.append(entry.headers)
        return [entry.sha256, entry.size, entry.etag, kinds.index(entry.headers)]

    releases = []
    newer: Mapping[str, Entry] = {}
    for release, files in manifest.releases.items():
        own = {key: row(entry) for key, entry in files.items() if newer.get(key) != entry}
        without = [key for key in newer if key not in files]
        # Only a rollback has the last field: what else is written stays as it was in the first version.
        told = {name: value for name, value in asdict(release).items() if value or name != "rolled_back_from"}
        releases.append({"release": told, "files": own, "without": without})
        newer = files
    document = {
        "format": FORMAT,
        "application": manifest.application,
        "environment": manifest.environment,
        "pending": manifest.pending,
        "releases": releases,
        "headers": kinds,
    }
    return msgspec.json.encode(document)


def load(body: bytes) -> Manifest:
    """A manifest from JSON. Raises Refused if the document is damaged or has another format."""
    try:
        written = decoded(body, _Format).format
        if written != FORMAT:
            raise Refused(f"{KEY} has format {written}: it was written by a newer version of this command.")
        document = decoded(body, _Document)
        releases = dict(_releases(document))
    except ValueError as error:
        raise Refused(f"{KEY} is damaged ({error}): delete it, and the next release starts a new one.") from error
    return Manifest(document.application, document.environment, releases, document.pending)


def _releases(document: _Document) -> Iterator[tuple[Release, dict[str, Entry]]]:
    """The releases with all their files. Raises ValueError."""
    newer: dict[str, Entry] = {}
    for number, row in enumerate(document.releases):
        # What was there before our first release is the oldest, so that no release inherits files of unknown content.
        if not row.release.at and number != len(document.releases) - 1:
            raise ValueError(f"{row.release.id} is not the oldest release")
        own = {key: _entry(key, one, document.headers, row.release) for key, one in row.files.items()}
        without = set(row.without)
        newer = {key: entry for key, entry in newer.items() if key not in without} | own
        yield row.release, newer


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
    kinds: list[Mapping[str, str]] = []
    old = live.files if live else {}
    release, files = next(iter(new.releases.items()))
    rows = {}
    for key, entry in files.items():
        if key in old and (old[key].sha256, dict(old[key].headers)) == (entry.sha256, dict(entry.headers)):
            continue
        if entry.headers not in kinds:
            kinds.append(entry.headers)
        rows[key] = [entry.sha256, entry.size, "", kinds.index(entry.headers)]
    document = {
        "format": FORMAT,
        "application": new.application,
        "environment": new.environment,
        "live": _live(live),
        "release": asdict(release),
        "files": rows,
        "without": [key for key in old if key not in files],
        "headers": kinds,
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
    try:
        found = bucket.get(KEY, MOST)
    except S3Error as error:
        if error.status == 403:
            return Stored(None, unread=str(error))
        raise
    return Stored(load(found[0]), found[1]) if found else Stored(None)


def blob_key(sha256: str) -> str:
    """The key of the copy of an unhashed file, which a rollback restores it from."""
    return f"{BLOBS}{sha256}"
