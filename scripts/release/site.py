"""Reads the folder that is to be released, and refuses what must not be released."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.frame.errors import Refused

ENTRY = "index.html"
# The keys of the release itself (manifest, lease, copies); no file of a site may begin with it.
PREFIX = "_release/"
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file of the site. path: empty for one that is only in the bucket (see history). size: bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Site:
    """A folder, and its files by key."""

    folder: str
    files: Mapping[str, File]


def read(folder: Path) -> Site:
    """Walk and hash a folder. Raises Refused if it is missing, lacks index.html, or holds what must not be released."""
    # Not Path.is_dir, which raises for a name that is too long.
    if not os.path.isdir(folder):
        raise Refused(f"There is no build in {folder}: build it first, or give --build-dir.")
    found = list(_walk(folder, ""))
    if not found:
        raise Refused(f"{folder} is empty: releasing it would delete the whole site.")
    if not any(key == ENTRY for key, _ in found):
        raise Refused(f"{folder} has no {ENTRY}: releasing it would leave no page.")
    return Site(str(folder), {key: _hash(path) for key, path in found})


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and path of every file, in the order of their names."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise Refused(f"{folder} cannot be read: {error.strerror}.") from error
    for entry in entries:
        key = prefix + entry.name
        if entry.is_symlink():
            raise Refused(f"{entry.path} is a link: only regular files can be released.")
        if entry.is_dir():
            yield from _walk(Path(entry.path), key + "/")
        elif stat.S_ISREG(entry.stat().st_mode):
            check_key(key)
            yield key, entry.path
        else:
            raise Refused(f"{entry.path} is neither a file nor a folder.")


def check_key(key: str) -> None:
    """Raises Refused for a key that S3 or a browser does not accept, and for one that begins with PREFIX."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise Refused(f"{key!r} is not a name in UTF-8.") from error
    if size > 1024:
        raise Refused(f"{key!r} is longer than the 1,024 bytes that S3 takes.")
    if any(ord(character) < 32 or ord(character) == 127 for character in key) or "\\" in key:
        raise Refused(f"{key!r} contains a character that a browser cannot request.")
    if key.startswith(PREFIX):
        raise Refused(f"{key!r} cannot be released: {PREFIX} is reserved for the release's own files.")


def _hash(path: str) -> File:
    digest, size = hashlib.sha256(), 0
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while block := os.read(file, BLOCK):
                digest.update(block)
                size += len(block)
        finally:
            os.close(file)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from error
    return File(path, size, digest.hexdigest())
