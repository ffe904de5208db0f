"""The release manifest: what we put into the bucket, and what S3 called it.

An object is unchanged when the manifest agrees with the disk and LIST agrees with the manifest. ETags are
compared as opaque texts, so this is right under KMS and for multipart uploads, and a foreign overwrite shows.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.edges.s3 import Bucket, Remote, S3Error
from scripts.frame.errors import Refused
from scripts.release.site import PREFIX

KEY = f"{PREFIX}manifest.json"
LEASE = f"{PREFIX}lease.json"
BLOBS = f"{PREFIX}files/"
JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a release. etag: as our own PUT got it back, or LIST showed it. size: bytes."""

    sha256: str
    size: int
    etag: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """One release. at: Unix time. run: the URL of the workflow's run, empty on a laptop.

    at is 0 for what the bucket held before the first release of ours: its files are those that we did not replace,
    and nobody knows what is in them.
    """

    id: str
    version: str
    at: int
    actor: str
    run: str


@dataclass(frozen=True)
class Manifest:
    """The state of the bucket as we left it.

    releases: with the files of each, newest first; the newest is live and the others are kept.
    pending: paths that the CDN has not been told of.
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
        """Everything of ours that is in the bucket: each key as the newest release that has it left it."""
        return {key: entry for files in reversed(list(self.releases.values())) for key, entry in files.items()}


@dataclass(frozen=True)
class State:
    """What a bucket holds. listing: None where it could not be read. etag: of the manifest, "" for none."""

    listing: Mapping[str, Remote] | None
    manifest: Manifest | None
    etag: str = ""
    unread: str = ""


def dump(manifest: Manifest) -> bytes:
    """A manifest as JSON: the files of the live release, and of each older one what differs from the one after it."""
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
        releases.append({"release": asdict(release), "files": own, "without": without})
        newer = files
    document = {
        "format": FORMAT,
        "application": manifest.application,
        "environment": manifest.environment,
        "pending": manifest.pending,
        "releases": releases,
        "headers": kinds,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def load(body: bytes) -> Manifest:
    """A manifest from JSON. Raises Refused for what is none, or is of a newer format."""
    try:
        document = json.loads(body)
        if document["format"] != FORMAT:
            raise Refused(f"{KEY} has format {document['format']}: it was written by a newer version of this command.")
        return Manifest(
            application=document["application"],
            environment=document["environment"],
            releases=dict(_releases(document["releases"], document["headers"])),
            pending=tuple(document["pending"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Refused(f"{KEY} is damaged ({error}): delete it, and the next release begins a new one.") from error


def _releases(rows: list[dict[str, Any]], kinds: list[dict[str, str]]) -> Iterator[tuple[Release, dict[str, Entry]]]:
    newer: dict[str, Entry] = {}
    for row in rows:
        own = {key: Entry(sha, size, etag, kinds[kind]) for key, (sha, size, etag, kind) in row["files"].items()}
        without = set(row["without"])
        newer = {key: entry for key, entry in newer.items() if key not in without} | own
        yield Release(**row["release"]), newer


def read(bucket: Bucket) -> tuple[Manifest | None, str, str]:
    """The manifest and its ETag; where GET is not allowed, None and the reason. Raises Refused for a damaged one."""
    try:
        found = bucket.get(KEY)
    except S3Error as error:
        if error.status == 403:
            return None, "", str(error)
        raise
    return (load(found[0]), found[1], "") if found else (None, "", "")


def blob_key(sha256: str) -> str:
    """Where an unhashed file of a kept release is stored, by its content."""
    return f"{BLOBS}{sha256}"
