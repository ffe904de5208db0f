"""A proxy on loopback between a release and S3 that breaks chosen requests as networks and servers do.

It can also be the proxy in HTTP_PROXY and HTTPS_PROXY: it sends requests for any host to its target.
"""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ALWAYS = 10**6
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Fault:
    """What happens to the next `times` requests with this method whose path matches `path`, a regular expression.

    kind: "reset": the connection is reset in the middle of the request's body. "lost": S3 carries out the request, but
    the response is lost. "cut": the connection ends in the middle of the response's body. "stall": there is never a
    response. Without a kind, status and body are the response.
    """

    method: str
    path: str
    kind: str = ""
    times: int = ALWAYS
    status: int = 0
    body: bytes = b""


@dataclass
class FaultProxy:
    """A running proxy. `requests`: method and path of each request, in order. `signed`: their signatures.

    `failed`: requests that the server itself did not answer, or with an error of its own; clients send them again.
    """

    port: int
    target: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault for a request; its `times` is counted down."""
        for fault in self.faults:
            if fault.times and method == fault.method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def listen(self) -> None:
        """Accept connections until `leave`."""
        here = self

        class Handler(_Handler):
            proxy = here

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def leave(self) -> None:
        """Refuse new connections, and close existing ones at their next request."""
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()

    def leave_for(self, seconds: float) -> None:
        """Refuse connections for some seconds."""
        self.leave()
        threading.Thread(target=lambda: (time.sleep(seconds), self.listen()), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def _handle(self) -> None:
        fault = self.proxy.fault(self.command, self.path)
        self.proxy.requests.append((self.command, self.path))
        self.proxy.signed.append(self.headers.get("Authorization", ""))
        length = int(self.headers.get("Content-Length", 0))
        if self.proxy.server is None or (fault and fault.kind == "reset"):
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self.rfile.read(length)
        if fault and fault.kind == "stall":
            self.proxy.stopping.wait(60)
            self.close_connection = True
        elif fault and fault.status:
            self._answer(fault.status, [("Content-Type", "application/xml")], fault.body)
        else:
            self._pass_on(body, fault.kind if fault else "")

    def _pass_on(self, body: bytes, kind: str) -> None:
        there = http.client.HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=30)
        try:
            path = urlsplit(self.path)._replace(scheme="", netloc="").geturl()
            there.request(self.command, path, body=body, headers=dict(self.headers.items()))
            answer = there.getresponse()
            received, headers = answer.read(), answer.getheaders()
        except (OSError, http.client.HTTPException) as error:
            self.proxy.failed.append(f"{self.command} {self.path}: {error!r}")
            raise
        finally:
            there.close()
        if answer.status >= 500:
            self.proxy.failed.append(f"{self.command} {self.path}: {answer.status} {received!r}")
        if kind == "lost":
            self._reset()
            return
        self._answer(answer.status, headers, received, cut=kind == "cut")

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def do_CONNECT(self) -> None:
        """Relay bytes in both directions until one side ends."""
        self.proxy.requests.append((self.command, self.path))
        target = urlsplit(self.proxy.target)
        with socket.create_connection((target.hostname or "", target.port or 443)) as there:
            self.send_response_only(200)
            self.end_headers()
            back = threading.Thread(target=_relay, args=(there, self.connection), daemon=True)
            back.start()
            _relay(self.connection, there)
            back.join()
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Keep the output of tests clean."""

    def handle(self) -> None:
        """A test may close the connection at any time."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """A proxy for an S3 server's URL, until the block ends."""
    proxy = FaultProxy(0, target)
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.leave()
