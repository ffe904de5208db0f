"""A stand-in for AWS and other servers on loopback: records requests and gives the replies that a test sets."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """One response. delay: seconds before it is sent. drop: close the connection instead."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    drop: bool = False


@dataclass
class StandIn:
    """A running stand-in. `requests`: what was requested, in order."""

    url: str
    answer: Callable[[str, str], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def lambda_calls(self) -> list[dict[str, Any]]:
        """The calls of Lambda functions: path, query and payload."""
        return [
            {"path": r["path"], "query": r["query"], "json": json.loads(r["body"])}
            for r in self.requests
            if r["path"].startswith("/2015-03-31/functions/")
        ]


DENIED = Reply(
    json.dumps({"__type": "AccessDeniedException", "message": "not for this role"}).encode(),
    400,
    {"Content-Type": "application/x-amz-json-1.1"},
)


def answering(reply: Reply) -> Callable[[str, str], Reply]:
    """Give the same reply to every call of a function, and deny everything else."""
    return lambda method, path: reply if path.startswith("/2015-03-31/functions/") else DENIED


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Of more connections at the same time, some would be tried again only after a second.
    request_queue_size = 128


@contextmanager
def stand_in(answer: Callable[[str, str], Reply]) -> Iterator[StandIn]:
    """Serve on a free port of 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            here.requests.append(
                {
                    "method": self.command,
                    "path": parts.path,
                    "query": parse_qs(parts.query),
                    "headers": dict(self.headers),
                    "body": body,
                }
            )
            reply = here.answer(self.command, parts.path)
            time.sleep(reply.delay)
            self.close_connection = True
            if reply.drop:
                return
            self.send_response(reply.status)
            # Otherwise a client might send its next request on this connection, and lose a try.
            ends = {"Content-Length": str(len(reply.body)), "Connection": "close"}
            for name, value in {**reply.headers, **ends}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _handle  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

        def handle(self) -> None:
            """A client that went away before a delayed answer is part of the test."""
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

    server = _Server(("127.0.0.1", 0), Handler)
    here = StandIn(f"http://127.0.0.1:{server.server_address[1]}", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
