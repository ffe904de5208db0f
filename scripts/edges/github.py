"""GitHub's REST API: its address, the token that is sent there, and one request. https://docs.github.com/en/rest"""

import os
from typing import Any, TypeVar

from scripts.edges import http
from scripts.edges.http import Answer
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused

T = TypeVar("T")

# Bytes of an answer that are read: a pull request contains the data of both repositories.
MOST = 1 << 20


def token() -> str:
    """GITHUB_TOKEN, empty if it is not set. Raises Refused for what cannot be one."""
    found = os.environ.get("GITHUB_TOKEN", "").strip()
    console.mask(found)
    if not (found.isascii() and found.isprintable()):
        raise Refused("GITHUB_TOKEN is not a token: it contains characters that a token cannot have.")
    return found


def api() -> str:
    """The address of the API. Raises Refused for an invalid one."""
    return http.checked(os.environ.get("GITHUB_API_URL") or "https://api.github.com", "GITHUB_API_URL").rstrip("/")


def api_for_token() -> str:
    """The address of the API, if a token may be sent there. Raises Refused otherwise."""
    found = api()
    if not http.keeps_secrets(found):
        raise Refused(f"GITHUB_API_URL must begin with https://, because the token is sent there, not {found!r}.")
    return found


def request(method: str, url: str, *, timeout: float, token: str = "", body: bytes | None = None) -> Answer:
    """Send one request. url: below `api`. token: empty for none. Raises Unreachable."""
    headers: dict[str, Any] = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Content-Type": "application/json"} if body is not None else {}
    return http.request(method, url, timeout=timeout, headers=headers, body=body, most=MOST)


def document(answer: Answer, kind: type[T], what: str) -> T:
    """What an answer holds, as a typed record. what: for the message. Raises DeployError for anything else."""
    if not answer.ok:
        raise DeployError(f"GitHub answered with HTTP status {answer.status}")
    try:
        return answer.record(kind)
    except ValueError as error:
        raise DeployError(f"GitHub's answer is not {what}") from error
