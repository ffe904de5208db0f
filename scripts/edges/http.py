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

from scripts.frame import text
from scripts.frame.errors import DeployError, Refused

MOST = 64 << 10
LONGEST = 2048
REDIRECTS = 5
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Letters, digits and what RFC 3986 allows besides; anything else has to come percent-encoded.
URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")


class Unreachable(DeployError):
    """No answer came: not connected, cut off, or later than the deadline. Its text says why, without the URL.

    sent: whether a connection was made, so that the server may have done what was asked for.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status. headers: names in lower case. body: up to the bound that was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked for."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises ValueError for what is none, and for nesting too deep to be read."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def checked(url: str, what: str) -> str:
    """A URL that can be asked. what: what it should be, such as "the URL of a healthcheck". Raises Refused."""
    try:
        why = _flaw(url)
    except ValueError as error:
        why = str(error)
    if why:
        raise Refused(f"{text.without_credentials(url)[:200]!r} is not {what}: {why}.")
    return url


def _flaw(url: str) -> str:
    """What is wrong with a URL, empty for nothing. Raises ValueError, whose text says it too."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not URL.fullmatch(url) or not host:
        return "it begins with http:// or https:// and a host"
    if "@" in parts.netloc:
        return "a user name or password does not belong in it"
    if not AUTHORITY.fullmatch(parts.netloc):
        return "its host is a name or an address, and after it comes at most a port"
    if parts.port == 0 or len(url) > LONGEST:
        return f"its port is 1 to 65535, and it has at most {LONGEST} characters"
    if ":" in host:
        ipaddress.IPv6Address(host)
    else:
        host.encode("idna")
    return ""


def keeps_secrets(url: str) -> bool:
    """Whether a secret may be sent to a URL: what is sent is encrypted, or stays on this machine."""
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
    """Ask a server once. timeout: seconds until the whole answer has to be there. most: bytes of it that are read.

    Raises Unreachable; an answer with an error status is an answer.
    """
    for _ in range(REDIRECTS + 1):
        answer = _once(method, url, timeout, headers or {}, body, most)
        target = _redirect(url, answer) if method == "GET" else ""
        if not target:
            return answer
        url = target
    raise Unreachable(f"more than {REDIRECTS} redirects")


def _redirect(url: str, answer: Answer) -> str:
    """Where a redirect leads, if that is the same host and no less protected; else empty."""
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
    """Ends a connection when its time is over, however slowly it still delivers."""

    def __init__(self, seconds: float) -> None:
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
        """Connect as http.client does, and keep a second handle: it also ends a handshake of TLS or of a proxy."""
        made = socket.create_connection(*address, **options)
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
    """Hands a redirect over as an answer."""

    def _leave(self, *_: Any) -> None:
        """Leave it to the handler of errors."""

    http_error_301 = http_error_302 = http_error_303 = http_error_307 = http_error_308 = _leave  # type: ignore[assignment]


def _opener(deadline: _Deadline, url: str) -> urllib.request.OpenerDirector:
    """An opener whose connections the deadline can end. No proxy leads back to this machine."""

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


def _once(method: str, url: str, timeout: float, headers: Mapping[str, str], body: bytes | None, most: int) -> Answer:
    sent = {"User-Agent": "deployment", **headers}
    with _Deadline(timeout) as deadline:
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
        return f"no whole answer after {timeout:g} s"
    if isinstance(reason, OSError):
        return reason.strerror or str(reason) or type(reason).__name__
    return type(error).__name__
