"""Reads the folder that is to be released, and refuses what must not be released."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from scripts.frame.errors import Refused
from scripts.release import bundles, content
from scripts.release.manifest import PREFIX

ENTRY = "index.html"
BLOCK = 1 << 20
# A bundler's manifest that is larger is not read, in bytes.
LARGEST_MANIFEST = 8 << 20
# How many files a message names.
SHOWN = 20
# From how many names that may have a hash a hint is worth its line, and how many it shows.
MANY, SAMPLE = 5, 3
# What systems and editors leave behind. Matched against each part of a key.
LITTER = re.compile(
    r"\.DS_Store|\._.*|__MACOSX|Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN|.+~|~\$.*|#.+#|\.#.+|.+\.(?:sw[a-p]"
    r"|orig|rej|bak|tmp)|\.~lock\..*|\.(?:git(?:ignore|keep|attributes|modules)|keep|editorconfig)|\.(?:idea|vscode)|"
    r"(?:npm|yarn)-(?:debug|error)\.log.*",
    re.IGNORECASE,
)
# Repositories, settings of programs with passwords, keys and certificates. Matched against each part of a key.
SECRET = re.compile(
    r"\.(?:git|hg|svn|bzr|ssh|aws|gnupg|kube|docker)|\.env(?:[.-].*)?|\.envrc|\.(?:git-credentials|netrc|npmrc|pgpass|yarnrc"
    r"|my\.cnf|htpasswd|dockercfg|terraformrc)|id_(?:rsa|dsa|ecdsa|ed25519).*|terraform\.tfstate.*|.+\.(?:pem|key|p8|p12|pfx"
    r"|pkcs12|jks|keystore|ppk|kdbx?|crt|cer|der|csr|tfvars)",
    re.IGNORECASE,
)
PRIVATE_KEY = re.compile(rb"\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY")


class File(Struct, frozen=True):
    """A file of the site. path: empty for one that is only in the bucket (see history). size: bytes.

    headers: that it is stored with.
    """

    path: str
    size: int
    sha256: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Rules(Struct, frozen=True):
    """What the settings say about files. Patterns are those of fnmatch, for keys.

    keep: files that others write. publish: files that are released although they look secret. cache_control,
    content_types: pattern -> header, the first match wins.
    """

    keep: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    cache_control: Mapping[str, str] = field(default_factory=dict)
    content_types: Mapping[str, str] = field(default_factory=dict)

    def keeps(self, key: str) -> bool:
        """Whether a key is somebody else's."""
        return matches(key, self.keep)


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Whether a key matches one of some patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


class Site(Struct, frozen=True):
    """A folder, and its files by key. litter, kept: keys in the folder that are not released."""

    folder: str
    files: Mapping[str, File]
    litter: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def read(folder: Path, rules: Rules | None = None) -> Site:
    """Walk and hash a folder. Raises Refused if it is missing, lacks index.html, or holds what must not be released."""
    rules = rules or Rules()
    # Not Path.is_dir, which raises for a name that is too long.
    if not os.path.isdir(folder):
        raise Refused(f"There is no build in {folder}: build it first, or give --build-dir.")
    found = dict(_walk(folder, ""))
    if not found:
        raise Refused(f"{folder} is empty: releasing it would delete the whole site.")
    kept = [key for key in found if rules.keeps(key)]
    litter = [key for key in found if any(map(LITTER.fullmatch, key.split("/"))) and not matches(key, rules.publish)]
    paths = {key: path for key, path in found.items() if key not in {*kept, *litter}}
    if ENTRY not in paths:
        raise Refused(f"{folder} has no {ENTRY}: releasing it would leave no page.")
    for key in paths:
        check_key(key)
    _refuse(folder, (key for key in paths if any(map(SECRET.fullmatch, key.split("/")))), rules.publish)
    hashed = {key: _hash(key, path) for key, path in paths.items()}
    _refuse(folder, (key for key, one in hashed.items() if one.is_private_key), rules.publish)
    emitted = _emitted(paths, hashed)
    files = {}
    for key, one in hashed.items():
        kind = content.content_type(key, rules.content_types) or one.kind or content.UNKNOWN
        headers = content.headers(key, kind, rules.cache_control, emitted)
        files[key] = File(paths[key], one.size, one.sha256, headers)
    return Site(str(folder), files, tuple(litter), tuple(kept))


def _refuse(folder: Path, secret: Iterable[str], publish: Iterable[str]) -> None:
    """Raises Refused if there are secret files, except those that the settings publish."""
    found = [key for key in secret if not matches(key, publish)]
    if found:
        raise Refused(
            f"{folder} holds what must not be public: {shown(found)}. Remove it from the build, or name it in"
            " frontend.publish of the settings."
        )


def _emitted(paths: Mapping[str, str], hashed: Mapping[str, "_Hashed"]) -> frozenset[str]:
    """The keys that bundlers' manifests in the folder list with a hash in the name."""
    found: set[str] = set()
    for key, path in paths.items():
        if bundles.may_list(key) and hashed[key].size <= LARGEST_MANIFEST:
            try:
                text = Path(path).read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise Refused(f"{path} cannot be read: {error.strerror}.") from error
            found |= bundles.hashed(key, text)
    return frozenset(found)


def hints(site: Site) -> Iterator[str]:
    """What a person may want to settle: types that are not known, names that may have a hash."""
    unknown = [key for key, file in site.files.items() if file.headers["Content-Type"] == content.UNKNOWN]
    unknown = [key for key in unknown if not content.content_type(key, {})]
    if unknown:
        yield f"of unknown type, frontend.content_types can name it: {shown(unknown)}"
    maybe = [key for key, file in site.files.items() if not content.is_immutable(file.headers)]
    maybe = [key for key in maybe if content.may_be_hashed(key)]
    if len(maybe) >= MANY:
        folder = maybe[0].rpartition("/")[0]
        yield (
            f"{len(maybe)} names may have a hash, and are not cached forever: {shown(maybe[:SAMPLE])}. If a bundler"
            f' wrote them: frontend.cache_control."{folder}/*" = "{content.FOREVER}"'
        )


def shown(keys: Iterable[str]) -> str:
    """The first keys by name, and how many more there are."""
    named = list(keys)
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ", ".join(named[:SHOWN]) + more


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


class _Hashed(NamedTuple):
    """What was read of a file. kind: the content type by its content, only for a name without an ending."""

    size: int
    sha256: str
    kind: str
    is_private_key: bool


def _hash(key: str, path: str) -> _Hashed:
    digest, size, start = hashlib.sha256(), 0, b""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while block := os.read(file, BLOCK):
                digest.update(block)
                start = start or block
                size += len(block)
        finally:
            os.close(file)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from error
    kind = content.type_of(key, start) if size <= len(start) else ""
    return _Hashed(size, digest.hexdigest(), kind, bool(PRIVATE_KEY.match(start)))
