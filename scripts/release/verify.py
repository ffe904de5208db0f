"""Compares a bucket, and the site as it is served, with the manifest."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from scripts.frame.report import Report
from scripts.release import references
from scripts.release.manifest import Manifest, State
from scripts.release.site import ENTRY, PREFIX

TIMEOUT = 10.0


@dataclass(frozen=True)
class Verified(Report):
    """What does not agree. served: keys that the URL answers otherwise, with how."""

    bucket: str
    files: int
    missing: tuple[str, ...]
    overwritten: tuple[str, ...]
    foreign: tuple[str, ...]
    served: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the page is what we have released; other people's keys do not make it less."""
        return not (self.missing or self.overwritten or self.served)

    def lines(self) -> list[str]:
        """For a person."""
        found = [f"missing {key}" for key in self.missing]
        found += [f"overwritten {key}" for key in self.overwritten]
        return found + [f"foreign {key}" for key in self.foreign] + [f"served {text}" for text in self.served]

    def table(self) -> list[tuple[str]]:
        return [(line,) for line in self.lines()]

    def line(self) -> str:
        state = "as released" if self.is_whole else "not as released"
        return f"{self.bucket} is {state}: {self.files} files, {len(self.lines())} findings"


def compare(state: State, current: Manifest, bucket: str, served: tuple[str, ...] = ()) -> Verified:
    """LIST against the manifest."""
    listing = state.listing or {}
    known = current.known()
    return Verified(
        bucket=bucket,
        files=len(current.files),
        missing=tuple(sorted(key for key in current.files if key not in listing)),
        overwritten=tuple(
            sorted(
                key
                for key, entry in known.items()
                if key in listing and (listing[key].etag, listing[key].size) != (entry.etag, entry.size)
            )
        ),
        foreign=tuple(sorted(key for key in listing if key not in known and not key.startswith(PREFIX))),
        served=served,
    )


def served(current: Manifest, url: str) -> tuple[str, ...]:
    """Fetch the page and every file that it needs, and say what is not as released: status, type or content."""
    found: list[str] = []
    bodies: dict[str, bytes] = {}

    def check(key: str) -> None:
        fault, bodies[key] = _fetch(url.rstrip("/") + "/" + quote(key), current, key)
        if fault:
            found.append(f"{key}: {fault}")

    todo, seen = [ENTRY], {ENTRY}
    with ThreadPoolExecutor(8) as pool:
        while todo:
            list(pool.map(check, todo))
            named = {ref for key in todo for ref in references.of(key, bodies[key].decode(errors="replace"))}
            todo = sorted(named - seen)
            seen |= named
    return tuple(sorted(found))


def _fetch(url: str, current: Manifest, key: str) -> tuple[str, bytes]:
    """Why a file is not as released, and its body."""
    import http.client
    import urllib.error
    import urllib.request

    entry = current.files.get(key)
    if entry is None:
        return "is named by the page and was never released", b""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            body, kind = answer.read(), answer.headers.get("Content-Type", "")
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}", b""
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)), b""
    wanted = entry.headers.get("Content-Type", "")
    if kind.partition(";")[0] != wanted.partition(";")[0]:
        return f"has the type {kind or 'none'} instead of {wanted}", body
    if hashlib.sha256(body).hexdigest() != entry.sha256:
        return "has other content", body
    return "", body
