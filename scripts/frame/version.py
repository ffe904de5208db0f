"""Versions: a commit's hash, which is also the tag of its images."""

import os
import re
import time

from msgspec import Struct

from scripts.edges import shell
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import ROOT

# https://docs.docker.com/reference/cli/docker/image/tag/
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REPOSITORY = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Seconds before a healthcheck that returned no version is requested again.
PAUSE = 0.5


class Health(Struct):
    """What a healthcheck returns: `{"status": "pass", "version": "<git sha>", …}`."""

    version: str | None


def wanted(flag: str | None) -> str:
    """The version to work on: the flag, else $GITHUB_SHA, else the checked-out commit.

    Raises Refused for a version that cannot be an image's tag, and if there is none.
    """
    if flag is not None:
        return checked(flag, "the flag")
    if "GITHUB_SHA" in os.environ:
        return checked(os.environ["GITHUB_SHA"], "GITHUB_SHA")
    try:
        return shell.capture(["git", "rev-parse", "HEAD"], cwd=ROOT)
    except DeployError as error:
        raise Refused("No version: give one, set GITHUB_SHA, or work in a git repository with a commit.") from error


def checked(version: str, origin: str) -> str:
    """The version, if it can be an image's tag. Raises Refused."""
    if not TAG.fullmatch(version):
        what = f"{version!r} is not a version" if version else "The version is empty"
        raise Refused(f"{what} (from {origin}): give a commit's hash or a tag of an image.")
    return version


def short(version: str) -> str:
    """A commit's hash in its short form; any other version unchanged."""
    return version[:7] if COMMIT.fullmatch(version) else version


def repository(name: str) -> str:
    """The name of an image's repository. Raises Refused for an invalid one."""
    if not REPOSITORY.fullmatch(name):
        raise Refused(f"{name!r} is not the name of an image's repository.")
    return name


def ask(url: str, timeout: float) -> str:
    """As `answering`, with one retry after a failure, within the same timeout. For callers that do not poll."""
    begun = time.monotonic()
    try:
        return answering(url, timeout)
    except DeployError as error:
        left = timeout - PAUSE - (time.monotonic() - begun)
        if isinstance(error, Refused) or left <= 0:
            raise
        time.sleep(PAUSE)
        return answering(url, left)


def answering(url: str, timeout: float) -> str:
    """The version that a healthcheck URL returns. timeout: seconds.

    Raises DeployError if there is no version, and Refused for an invalid URL.
    """
    from scripts.edges import http

    # What lies between may keep answers, and would go on giving those of the old version.
    fresh = {"Cache-Control": "no-cache"}
    answer = http.request("GET", http.checked(url, "the URL of a healthcheck"), timeout=timeout, headers=fresh)
    if not answer.ok:
        raise DeployError(f"HTTP status {answer.status}")
    try:
        found = answer.record(Health).version
    except ValueError as error:
        raise DeployError("the response is not JSON with a version") from error
    if not found:
        raise DeployError("the response's version is empty")
    return found
