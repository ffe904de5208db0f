"""Which version is meant: a commit's hash, which is also the tag of its images."""

import os
import re
import time

from scripts.edges import shell
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import ROOT

# https://docs.docker.com/reference/cli/docker/image/tag/
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REPOSITORY = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Seconds before an endpoint that gave no version is asked again.
PAUSE = 0.5


def wanted(flag: str | None) -> str:
    """The version to work on: the flag, else $GITHUB_SHA, else the commit that is checked out.

    Raises Refused for one that cannot be an image's tag, and where there is none.
    """
    if flag is not None:
        return checked(flag, "the flag")
    if "GITHUB_SHA" in os.environ:
        return checked(os.environ["GITHUB_SHA"], "GITHUB_SHA")
    try:
        return shell.capture(["git", "rev-parse", "HEAD"], cwd=ROOT)
    except DeployError as error:
        raise Refused("No version: give it, set GITHUB_SHA, or work in a git repository with a commit.") from error


def checked(version: str, origin: str) -> str:
    """A version that can be an image's tag. Raises Refused."""
    if not TAG.fullmatch(version):
        what = f"{version!r} is not a version" if version else "The version is empty"
        raise Refused(f"{what} (from {origin}): give a commit's hash or a tag of an image.")
    return version


def short(version: str) -> str:
    """A commit's hash as people write it; any other version as it is."""
    return version[:7] if COMMIT.fullmatch(version) else version


def repository(name: str) -> str:
    """The name of an image's repository. Raises Refused for what cannot be one."""
    if not REPOSITORY.fullmatch(name):
        raise Refused(f"{name!r} is not an image's repository.")
    return name


def ask(url: str, timeout: float) -> str:
    """As `answering`, for whoever asks once only: a moment of trouble is outlived, in the same time."""
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
    """The version that answers at the URL of a healthcheck. timeout: seconds.

    The endpoint answers `{"status": "pass", "version": "<git sha>", …}`. Raises DeployError, which says why there is
    no version, and Refused for what is not a URL.
    """
    from scripts.edges import http

    answer = http.request("GET", http.checked(url, "the URL of a healthcheck"), timeout=timeout)
    if not answer.ok:
        raise DeployError(f"HTTP status {answer.status}")
    try:
        found = answer.json()["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DeployError("the answer is not JSON with a version") from error
    if not isinstance(found, str) or not found:
        raise DeployError("the answer's version is empty")
    return found
