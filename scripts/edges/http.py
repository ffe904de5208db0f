"""The one door to HTTP servers other than AWS: the healthcheck, the site, GitHub, Slack, a registry.

Built on the standard library, which honours the standard proxy variables. An answer has one deadline and a bound on
its size; a redirect is followed to the same host alone; whatever goes wrong on the way is `Unreachable`.
"""

import http.client
import ipaddress
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from scripts.frame.errors import DeployError, Refused

MOST = 64 << 10
REDIRECTS = 5
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Letters, digits and what RFC 3986 allows besides; anything else has to come percent-encoded.
URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")


class Unreachable(DeployError):
    """No answer came: not connected, cut off, or later than the deadline. Its text says why, without the URL."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status. headers: names in lower case. body: up to the bound that was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError for what is none, and for nesting too deep to be read."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def checked(url: str, what: str) -> str:
    """A URL that can be asked. what: what it should be, such as "the URL of a healthcheck". Raises Refused."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            ipaddress.IPv6Address(host)
        if URL.fullmatch(url) and host and port != 0 and len(url) < 2048:
            host.encode("idna")
            return url
        why = "it begins with http:// or https:// and a host"
    except ValueError as error:
        why = str(error)
    raise Refused(f"{url[:200]!r} is not {what}: {why}.")


def request(
    method: str,
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    most: int = MOST,
) -> Answer:
    """Ask a server once. timeout: seconds until the whole answer has to be there. most: bytes of it that are read.

    Raises Unreachable; an answer with an error status is an answer.
    """
    for _ in range(REDIRECTS):
        answer = _once(method, url, timeout, headers or {}, body, most)
        target = urljoin(url, answer.headers.get("location", ""))
        if answer.status not in (301, 302, 303, 307, 308) or method != "GET" or not _same_host(url, target):
            return answer
        url = target
    raise Unreachable(f"more than {REDIRECTS} redirects")


def _same_host(url: str, other: str) -> bool:
    """Whether both are one host, and the second is not less protected."""
    try:
        old, new = urlsplit(url), urlsplit(other)
        return old.hostname == new.hostname and (new.scheme == old.scheme or new.scheme == "https")
    except ValueError:
        return False


class _Deadline:
    """Ends a connection when its time is over, however slowly it still delivers."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self.socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.over = True
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Hand the redirect over as an answer."""


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """An opener whose connections tell the deadline of their socket."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.socket = self.sock

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            deadline.socket = self.sock

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request)

    return urllib.request.build_opener(PlainHandler, SecureHandler, _NoRedirect)


def _once(method: str, url: str, timeout: float, headers: Mapping[str, str], body: bytes | None, most: int) -> Answer:
    sent = {"User-Agent": "deployment", **headers}
    asked = urllib.request.Request(url, body, sent, method=method)
    with _Deadline(timeout) as deadline:
        try:
            try:
                answer = _opener(deadline).open(asked, timeout=timeout)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                status, content = answer.status, answer.read(most)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(_why(error, deadline.over, timeout)) from error
        if deadline.over:
            raise Unreachable(_why(None, True, timeout))
        return Answer(status, found, content)


def _why(error: Exception | None, late: bool, timeout: float) -> str:
    """A reason without the URL, which may hold a secret."""
    reason = getattr(error, "reason", None) or error
    if late or isinstance(reason, TimeoutError):
        return f"no whole answer after {timeout:g} s"
    if isinstance(reason, OSError):
        return reason.strerror or str(reason) or type(reason).__name__
    return type(error).__name__
