"""The release manifest: what we put into the bucket, and what S3 called it.

An object is unchanged when the manifest agrees with the disk and LIST agrees with the manifest. ETags are
compared as opaque texts, so this is right under KMS and for multipart uploads, and a foreign overwrite shows.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scripts.errors import Refused
from scripts.release.bucket import Bucket, Remote, S3Error
from scripts.release.site import PREFIX

KEY = f"{PREFIX}manifest.json"
LEASE = f"{PREFIX}lease.json"
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
    """One release. at: Unix time. run: the URL of the workflow's run, empty on a laptop."""

    id: str
    version: str
    at: int
    actor: str
    run: str


@dataclass(frozen=True)
class Manifest:
    """The state of the bucket as we left it.

    files: of the newest release. kept: those of older releases that stay, each with the id of the last
    release that had it. releases: newest first. pending: paths that the CDN has not been told of.
    """

    application: str
    environment: str
    releases: tuple[Release, ...] = ()
    files: Mapping[str, Entry] = field(default_factory=dict)
    kept: Mapping[str, tuple[Entry, str]] = field(default_factory=dict)
    pending: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """What a bucket holds. listing: None where it could not be read. etag: of the manifest, "" for none."""

    listing: Mapping[str, Remote] | None
    manifest: Manifest | None
    etag: str = ""
    unread: str = ""


def dump(manifest: Manifest) -> bytes:
    """A manifest as JSON; headers, which are few, once each."""
    kinds: list[dict[str, str]] = []

    def row(entry: Entry) -> list[Any]:
        headers = dict(entry.headers)
        if headers not in kinds:
            kinds.append(headers)
        return [entry.sha256, entry.size, entry.etag, kinds.index(headers)]

    document = {
        "format": FORMAT,
        "application": manifest.application,
        "environment": manifest.environment,
        "releases": [asdict(release) for release in manifest.releases],
        "pending": list(manifest.pending),
        "files": {key: row(entry) for key, entry in manifest.files.items()},
        "kept": {key: [*row(entry), last] for key, (entry, last) in manifest.kept.items()},
        "headers": kinds,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def load(body: bytes) -> Manifest:
    """A manifest from JSON. Raises Refused for what is none, or is of a newer format."""
    try:
        document = json.loads(body)
        if document["format"] != FORMAT:
            raise Refused(f"{KEY} has format {document['format']}: it was written by a newer version of this command.")
        kinds = document["headers"]

        def entry(row: list[Any]) -> Entry:
            return Entry(row[0], row[1], row[2], kinds[row[3]])

        return Manifest(
            application=document["application"],
            environment=document["environment"],
            releases=tuple(Release(**item) for item in document["releases"]),
            files={key: entry(row) for key, row in document["files"].items()},
            kept={key: (entry(row), row[4]) for key, row in document["kept"].items()},
            pending=tuple(document["pending"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Refused(f"{KEY} is damaged ({error}): delete it, and the next release begins a new one.") from error


def read(bucket: Bucket) -> tuple[Manifest | None, str, str]:
    """The manifest and its ETag; where GET is not allowed, None and the reason. Raises Refused for a damaged one."""
    try:
        found = bucket.get(KEY)
    except S3Error as error:
        if error.status == 403:
            return None, "", str(error)
        raise
    return (load(found[0]), found[1], "") if found else (None, "", "")


def record_key(release: str) -> str:
    """Where the files of one release are recorded."""
    return f"{PREFIX}releases/{release}.json"


def blob_key(sha256: str) -> str:
    """Where an unhashed file of a kept release is stored, by its content."""
    return f"{PREFIX}files/{sha256}"


def record(manifest: Manifest) -> Manifest:
    """What is recorded of the newest release alone: its files, so that it can be rolled back to."""
    return replace(manifest, releases=manifest.releases[:1], kept={}, pending=())
