"""Looks at the releases of a bucket, goes back to one, and checks the one that is live."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.environments import Environment
from scripts.errors import DeployError, Refused
from scripts.release import content, history, lease, manifest, verify
from scripts.release.bucket import Bucket, open_bucket
from scripts.release.manifest import State
from scripts.release.verify import Verified


@dataclass(frozen=True)
class Look:
    """Something that is only looked at."""

    what: str

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        return [self.what]


@dataclass(frozen=True)
class Seen:
    """What was seen. lines: for a person. data: the same for a program."""

    text: str
    lines: tuple[str, ...]
    data: Any

    def summary(self) -> str:
        """What is true now, in one line."""
        return self.text

    def outputs(self) -> dict[str, str]:
        """Nothing that a later step needs."""
        return {}


def look(environment: Environment, name: str) -> tuple[Bucket, State]:
    """The bucket and its state; says who is releasing to it now. Raises DeployError where it cannot be read."""
    bucket = open_bucket(environment, name)
    old, etag, unread = manifest.read(bucket)
    listing = bucket.list()
    if not unread:
        lease.warn_of_holder(bucket, listing)
    return bucket, State(listing, old, etag, unread)


def releases(environment: Environment, name: str) -> Callable[[Look], Seen]:
    """The kept releases, newest first."""

    def act(plan: Look) -> Seen:
        state = look(environment, name)[1]
        found = list(history.known(state, name).releases)
        return Seen(f"{name} keeps {len(found)} release{'s' * (len(found) != 1)}", tuple(history.lines(found)), found)

    return act


def difference(environment: Environment, name: str, old: str | None, new: str | None) -> Callable[[Look], Seen]:
    """What changed between two releases."""

    def act(plan: Look) -> Seen:
        found = history.compare(look(environment, name)[1], name, old, new)
        return Seen(f"{found.old} -> {found.new}: {len(found.lines())} files", tuple(found.lines()), found)

    return act


def check(environment: Environment, name: str, url: str | None) -> Callable[[Look], Verified]:
    """The live release against LIST, and against what a URL serves. Raises DeployError if it is not whole."""
    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise Refused(f"{url!r} is not the URL of a site: it begins with http:// or https://.")

    def act(plan: Look) -> Verified:
        state = look(environment, name)[1]
        current = history.known(state, name)
        found = verify.compare(state, current, name, verify.served(current, url) if url else ())
        if not found.is_whole:
            raise DeployError("\n".join([found.summary(), *found.lines()]))
        return found

    return act


def restored(environment: Environment, name: str, to: str | None, folder: Path) -> tuple[Any, Bucket, State, str]:
    """The site of an earlier release, its bucket and state, and its version. Raises Refused."""
    bucket, state = look(environment, name)
    headers = lambda key: content.headers(key, environment.cache_control)  # noqa: E731
    release, site = history.restored(bucket, state, to, folder, headers)
    return site, bucket, state, release.version
