"""HTTP requests to servers other than AWS: the healthcheck, the site, GitHub, Slack, a registry.

Built on the standard library, which honours the standard proxy variables. A response has one deadline and a maximum
size; a redirect is followed only to the same host; every connection error is `Unreachable`.
"""

import http.client
import io
import ipaddress
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from scripts.frame import text
from scripts.frame.errors import DeployError, Refused

T = TypeVar("T")

MOST = 64 << 10
LONGEST = 2048
REDIRECTS = 5
# Seconds that a response of AWS may take from its first byte on, and the bytes for each of which it may take a second
# more: S3 sends blanks while it copies a large object, and a slow line is no reason to give up.
LONGEST_RESPONSE, SLOWEST = 60.0, 16 << 10
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# The characters that RFC 3986 allows; all others have to be percent-encoded.
URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")


class Unreachable(DeployError):
    """No complete response: not connected, cut off, or too late. The message says why, without the URL.

    sent: whether a connection was made, so that the server may have processed the request.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Answer(Struct, frozen=True):
    """An HTTP response of any status. headers: names in lower case. body: at most as many bytes as were requested."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def record(self, kind: type[T]) -> T:
        """The body, which is JSON, as a typed record. Raises ValueError for anything else."""
        try:
            # Not msgspec's own parser: half of a surrogate pair would make an error's text unreadable.
            return msgspec.convert(json.loads(self.body), kind)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def checked(url: str, what: str) -> str:
    """The URL, if it is valid. what: for the message, such as "the URL of a healthcheck". Raises Refused."""
    try:
        why = _flaw(url)
    except ValueError as error:
        why = str(error)
    if why:
        raise Refused(f"{text.without_credentials(url)[:200]!r} is not {what}: {why}.")
    return url


def _flaw(url: str) -> str:
    """What is wrong with a URL, empty if it is valid. May raise ValueError instead, with the reason as its message."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not URL.fullmatch(url) or not host:
        return "it must begin with http:// or https:// and a host"
    if "@" in parts.netloc:
        return "it must not contain a user name or password"
    if not AUTHORITY.fullmatch(parts.netloc):
        return "its host must be a name or an address, followed by nothing but a port"
    if parts.port == 0 or len(url) > LONGEST:
        return f"its port must be 1 to 65535, and its length at most {LONGEST} characters"
    if ":" in host:
        ipaddress.IPv6Address(host)
    else:
        host.encode("idna")
    return ""


def keeps_secrets(url: str) -> bool:
    """Whether a secret may be sent to a URL: the connection is encrypted, or stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def request(
    method: str,
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    most: int = MOST,
) -> Answer:
    """Send a request once. timeout: seconds for the complete response, redirects included. most: bytes of the body that
    are read.

    Raises Unreachable. A response with an error status is returned like any other.
    """
    with _Deadline(timeout) as deadline:
        for _ in range(REDIRECTS + 1):
            answer = _once(deadline, method, url, headers or {}, body, most)
            target = _redirect(url, answer) if method == "GET" else ""
            if not target:
                return answer
            url = target
    raise Unreachable(f"more than {REDIRECTS} redirects")


def _redirect(url: str, answer: Answer) -> str:
    """The target of a redirect if it is on the same host and not a downgrade to http; else empty."""
    if answer.status not in (301, 302, 303, 307, 308):
        return ""
    try:
        target = urljoin(url, answer.headers["location"])
        old, new = urlsplit(url), urlsplit(target)
        better = (old.scheme, new.scheme) == ("http", "https")
        same = old.hostname == new.hostname and (better or (old.scheme, old.port) == (new.scheme, new.port))
        return target if same and not _flaw(target) else ""
    except (KeyError, ValueError):
        return ""


class _Deadline:
    """Closes connections, one after the other, at a deadline, even if data still arrives slowly."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self.connected = False
        self._connection: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._connection is not None:
            self._connection.close()

    def connect(self, *address: Any, **options: Any) -> socket.socket:
        """Connect as http.client does, and keep a second handle, which can also end a TLS or proxy handshake."""
        made = socket.create_connection(*address, **options)
        if self._connection is not None:
            self._connection.close()
        self._connection = made.dup()
        if self.over:
            self._end()
        return made

    def _end(self) -> None:
        self.over = True
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirect as a response instead of following it."""

    def _leave(self, *_: Any) -> None:
        """Do not follow: the default handler raises HTTPError, which `_once` returns as the response."""

    http_error_301 = http_error_302 = http_error_303 = http_error_307 = http_error_308 = _leave  # type: ignore[assignment]


def _opener(deadline: _Deadline, url: str) -> urllib.request.OpenerDirector:
    """An opener whose connections the deadline can close. Without a proxy for this machine."""

    def ended(kind: type[http.client.HTTPConnection]) -> Any:
        def connection(*address: Any, **options: Any) -> http.client.HTTPConnection:
            made: Any = kind(*address, **options)
            made._create_connection = deadline.connect
            connect = made.connect

            def connected() -> None:
                connect()
                deadline.connected = True

            made.connect = connected
            return made  # type: ignore[no-any-return]

        return connection

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(ended(http.client.HTTPConnection), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(ended(http.client.HTTPSConnection), request)

    direct = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return urllib.request.build_opener(Plain, Secure, _NoRedirect, *direct)


def _once(
    deadline: _Deadline, method: str, url: str, headers: Mapping[str, str], body: bytes | None, most: int
) -> Answer:
    sent, timeout = {"User-Agent": "deployment", **headers}, deadline.seconds
    try:
        asked = urllib.request.Request(url, body, sent, method=method)
        try:
            answer: Any = _opener(deadline, url).open(asked, timeout=timeout)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            found = {name.lower(): value for name, value in answer.headers.items()}
            status, content = answer.status, answer.read(most)
            missing = (getattr(answer, "length", None) or 0) if len(content) < most else 0
    except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
        raise Unreachable(_why(error, deadline.over, timeout), sent=deadline.connected) from error
    if deadline.over:
        raise Unreachable(_why(None, True, timeout))
    if missing:
        raise Unreachable(f"the connection was closed {missing} bytes too early")
    return Answer(status, found, content)


def _why(error: Exception | None, late: bool, timeout: float) -> str:
    """A reason without the URL, which may hold a secret."""
    reason = getattr(error, "reason", None) or error
    if late or isinstance(reason, TimeoutError):
        return f"no complete response within {timeout:g} s"
    if isinstance(reason, OSError):
        return reason.strerror or str(reason) or type(reason).__name__
    return type(error).__name__


class BoundedResponse(http.client.HTTPResponse):
    """A response with a deadline, headers included, for clients that have a time-out only for each read."""

    def __init__(self, sock: Any, *given: Any, **options: Any) -> None:
        super().__init__(sock, *given, **options)
        self.fp = io.BufferedReader(_Reads(sock, self.fp.detach()))


class _Reads(io.RawIOBase):
    """What a socket receives, as long as that is fast enough. Raises TimeoutError, as the socket does."""

    def __init__(self, sock: Any, source: Any) -> None:
        self._sock, self._source, self._timeout = sock, source, sock.gettimeout()
        self._began, self._received = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        # Before its first byte AWS may be at work, for which each client has a time-out of its own.
        if self._received:
            left = self._began + LONGEST_RESPONSE + self._received / SLOWEST - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(min(left, self._timeout or left))
        count: int | None = self._source.readinto(buffer)
        self._began = self._began or time.monotonic()
        self._received += count or 0
        return count

    def close(self) -> None:
        self._source.close()
        super().close()
