"""Decides from a file's name: its content type, whether the name holds a hash, and how long it may be cached."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache

# Pinned, because mimetypes differ between machines, and a browser refuses a module with the wrong type.
# Source: https://www.iana.org/assignments/media-types, RFC 9239 for JavaScript.
TYPES = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "css": "text/css",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "eot": "application/vnd.ms-fontobject",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "map": "application/json",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "otf": "font/otf",
    "pdf": "application/pdf",
    "png": "image/png",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "svg": "image/svg+xml",
    "ttf": "font/ttf",
    "txt": "text/plain",
    "wasm": "application/wasm",
    "webm": "video/webm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}
UNKNOWN = "application/octet-stream"
UTF8 = {"application/json", "application/manifest+json", "application/xml", "image/svg+xml"}

FOREVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"

# Create React App: name.0123abcd.js, name.0123abcd.chunk.js; the hash is eight hexadecimal digits.
CRA = re.compile(r"\.[0-9a-f]{8}(\.chunk)?\.[A-Za-z0-9]+(\.map)?$")
# Vite: name-AbCd_-09.js; eight of the 64 characters of base64url, of which - and _ may be any.
VITE = re.compile(r"[^/]-(?P<hash>[A-Za-z0-9_-]{8})\.[A-Za-z0-9]+(\.map)?$")
# Ordinary names: numbers and words, each in one case or in camel case. A random hash rarely looks like that.
WORD = r"(?:\d+|[A-Z]+\d*|[A-Z]?[a-z]+\d*|(?:[A-Z]?[a-z]{2,})(?:[A-Z][a-z]{2,})*\d*)"
WORDS = re.compile(rf"[-_]*{WORD}(?:[-_]+{WORD})*[-_]*")


def content_type(key: str) -> str:
    """The Content-Type of a key, with the charset for text."""
    kind = TYPES.get(key.rpartition("/")[2].rpartition(".")[2].lower(), UNKNOWN)
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in UTF8 else kind


def is_hashed(key: str) -> bool:
    """Whether a name contains a hash of the content, so that it may be cached forever. False when unsure."""
    if key.endswith((".html", ".htm")):
        return False
    if CRA.search(key):
        return True
    found = VITE.search(key)
    return bool(found and not WORDS.fullmatch(found["hash"]))


def headers(key: str, cache_control: Mapping[str, str]) -> dict[str, str]:
    """The headers that a key is stored with. cache_control: pattern -> value, the first match wins."""
    value = next((value for pattern, value in cache_control.items() if fnmatchcase(key, pattern)), None)
    if value is None:
        value = FOREVER if is_hashed(key) else ASK_FIRST
    # A setting is a str subclass that knows where it came from; only the plain text is stored.
    return _headers(content_type(key), str(value))


@cache
def _headers(kind: str, cache_control: str) -> dict[str, str]:
    """The same dict for all files with the same headers, to save memory."""
    return {"Content-Type": kind, "Cache-Control": cache_control}
