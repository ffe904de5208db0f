"""What all parts of the embedded AWS share: its address, its clock, its record of requests."""

import functools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "123456789012"
# The keys that scripts/edges/aws.py signs with here; nothing checks them.
KEYS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
# Those of the Lambda functions: a role of their own.
FUNCTION_KEYS = {"aws_access_key_id": "lambda", "aws_secret_access_key": "lambda"}

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Clock:
    """Real time plus an offset. All states are computed from it at each request, without a thread."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._stopped_at: float | None = None

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time() + self._offset if self._stopped_at is None else self._stopped_at

    def stop(self, *, stopped: bool = True) -> None:
        """Stop the clock, so that only `advance` moves it. stopped=False: let it run again."""
        self._stopped_at = time.time() + self._offset if stopped else None

    def advance(self, seconds: float) -> None:
        self._offset += seconds
        # Exactly what now() and the same number of seconds were before: a sum of three may be a little less.
        self._stopped_at = None if self._stopped_at is None else self._stopped_at + seconds


@dataclass
class Cloud:
    """One embedded AWS. containers: whether ECS runs real containers, with this machine's Docker engine.

    requests: the record of control.py. failures: its rules. scenario: the current one of scenarios.py, and staged: its
    rules. findings: scan results by repository and tag. blobs: of the registry, by digest. ready: it is seeded.
    written: something may have changed since a test seeded it. token: required by the control paths.
    """

    port: int
    containers: bool = False
    clock: Clock = field(default_factory=Clock)
    lock: threading.RLock = field(default_factory=threading.RLock)
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    scenario: str = "healthy"
    staged: list[dict[str, Any]] = field(default_factory=list)
    findings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    ready: bool = False
    written: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def host(self) -> str:
        """Host and port, which its images' URIs begin with."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The endpoint of every service."""
        return f"http://{self.host}"

    def client(self, service: str, region: str) -> Any:
        """A boto3 client of this cloud."""
        return _client(service, region, self.url)


@functools.cache
def _client(service: str, region: str, url: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"})
    return boto3.client(service, region_name=region, endpoint_url=url, config=config, **KEYS)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def body_of(environ: dict[str, Any]) -> bytes:
    """The request's body. It stays readable for those who handle the request next."""
    from io import BytesIO

    if "local_aws.body" not in environ:
        length = environ.get("CONTENT_LENGTH")
        source = environ["wsgi.input"]
        body = source.read(int(length)) if length else source.read() if environ.get("wsgi.input_terminated") else b""
        environ["local_aws.body"] = body
        environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(environ["local_aws.body"])
    return bytes(environ["local_aws.body"])


def answer(
    start: StartResponse, status: int, body: bytes = b"", content_type: str = "application/json", **headers: str
) -> list[bytes]:
    """Send a whole response. headers: their names with _ instead of -."""
    from http import HTTPStatus

    given = {"Content-Type": content_type, "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    start(f"{status} {HTTPStatus(status).phrase}", list(given.items()))
    return [body]
