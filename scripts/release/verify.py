"""Compares a bucket, and what a URL serves, with the manifest."""

import hashlib
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from msgspec import Struct

from scripts.edges import http
from scripts.frame.report import Report
from scripts.frame.threads import workers
from scripts.release import references
from scripts.release.manifest import PREFIX, Manifest, State
from scripts.release.references import Certainty
from scripts.release.site import ENTRY

# Seconds for one file, and a second more for each so many bytes of it.
TIMEOUT, SLOWEST = 60.0, 16 << 10
AT_THE_SAME_TIME = 8


class Verified(Report, Struct, frozen=True):
    """How a bucket and a URL differ from the manifest. served: how the URL's files differ, as `key: difference`."""

    bucket: str
    files: int
    missing: tuple[str, ...]
    overwritten: tuple[str, ...]
    foreign: tuple[str, ...]
    served: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the page is as released; foreign keys do not change that."""
        return not (self.missing or self.overwritten or self.served)

    def lines(self) -> list[str]:
        found = [f"missing {key}" for key in self.missing]
        found += [f"overwritten {key}" for key in self.overwritten]
        return found + [f"foreign {key}" for key in self.foreign] + [f"served {text}" for text in self.served]

    def table(self) -> list[tuple[str]]:
        return [(line,) for line in self.lines()]

    def line(self) -> str:
        state = "as released" if self.is_whole else "not as released"
        return f"{self.bucket} is {state}: {self.files} files, {len(self.lines())} findings"


def compare(state: State, current: Manifest, bucket: str, served: tuple[str, ...] = ()) -> Verified:
    """Compare LIST with the manifest. served: from the function of that name, empty without a URL."""
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


def served(current: Manifest, url: str, keeps: Callable[[str], bool] = lambda _: False) -> tuple[str, ...]:
    """Fetch the page and every file that it needs. Returns those that differ in status, type or content, with how.

    url: at which the folder of the site is served. keeps: whether a key is one that others write.
    """
    base = urlsplit(url).path
    found: list[str] = []
    bodies: dict[str, bytes] = {}

    def check(key: str) -> None:
        fault, bodies[key] = _fetch(url.rstrip("/") + "/" + quote(key), current, key)
        if fault:
            found.append(f"{key}: {fault}")

    todo, seen = [ENTRY], {ENTRY}
    with workers(AT_THE_SAME_TIME) as pool:
        while todo:
            list(pool.map(check, todo))
            named = {
                one.key
                for key in todo
                for one in references.references_in(key, bodies[key].decode(errors="replace"), base)
                if not keeps(one.key) and (one.key in current.files or one.certainty is Certainty.CERTAIN)
            }
            todo = sorted(named - seen)
            seen |= named
    return tuple(sorted(found))


def _fetch(url: str, current: Manifest, key: str) -> tuple[str, bytes]:
    """How a file differs from the release, empty if it does not, and its body."""
    entry = current.files.get(key)
    if entry is None:
        return "is referenced by the page and was never released", b""
    try:
        # One byte more than was released is enough to see that the file is another one.
        answer = http.request("GET", url, timeout=TIMEOUT + entry.size // SLOWEST, most=entry.size + 1)
    except http.Unreachable as error:
        return str(error), b""
    if answer.status != 200:
        return f"HTTP status {answer.status}", b""
    kind, wanted = answer.headers.get("content-type", ""), entry.headers.get("Content-Type", "")
    if kind.partition(";")[0] != wanted.partition(";")[0]:
        return f"has the type {kind or 'none'} instead of {wanted}", answer.body
    if hashlib.sha256(answer.body).hexdigest() != entry.sha256:
        return "has different content", answer.body
    return "", answer.body
