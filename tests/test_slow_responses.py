"""Servers that drip: no single read takes too long, but a response has a bound of its own, whoever reads it."""

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from msgspec.structs import replace

from scripts.edges import aws, http, s3
from scripts.edges.s3 import OBSTORE_FROM, SINGLE_PUT, Bucket, Keys, Unanswered, Upload
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment
from tests.conftest import ROOT, CommandLine
from tests.test_http import saying, serving
from tests.test_stop import AT_ONCE

# Seconds between two bytes, and for a response. Without a bound each drip lasts for six seconds.
PAUSE, LONGEST = 0.02, 0.1
SOON = 3.0
BEGIN = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "the status line": [BEGIN[:15], *[b"x"] * 300],
    "a header": [BEGIN + b"X: ", *[b"x"] * 300],
    "a body": [BEGIN + b"Content-Length: 300\r\n\r\n", *[b"x"] * 300],
    "chunks": [BEGIN + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 300],
    "an error": [b"HTTP/1.1 404 Not Found\r\nContent-Length: 300\r\n\r\n", *[b"x"] * 300],
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response may take a moment, a read much longer; two tries, without pauses."""
    monkeypatch.setattr(http, "LONGEST_RESPONSE", LONGEST)
    monkeypatch.setattr(s3, "TRIES", 2)
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@contextmanager
def dripping(*parts: bytes, pause: float = PAUSE) -> Iterator[tuple[str, list[float]]]:
    """A server that drips. Yields its URL, and when each request arrived."""
    arrived = list[float]()

    def talk(connection: socket.socket) -> None:
        arrived.append(time.monotonic())
        saying(*parts, pause=pause)(connection)

    with serving(talk) as port:
        yield f"http://127.0.0.1:{port}", arrived


def a_bucket(url: str) -> Bucket:
    return Bucket("site", "us-west-2", url, Keys("key", "secret"), "dev", use_proxy=False)


REQUESTS: dict[str, Callable[[Bucket], object]] = {
    "get": lambda bucket: bucket.get("key", 1000),
    "list": lambda bucket: bucket.list(),
    "put": lambda bucket: bucket.put("key", b"body", {}),
    "copy": lambda bucket: bucket.copy("key", "to"),
    "delete": lambda bucket: bucket.delete(["key"], {}),
}


@pytest.mark.parametrize(
    ("request_of", "drip"), [*(("get", drip) for drip in DRIPS), *((name, "a body") for name in list(REQUESTS)[1:])]
)
def test_s3_is_asked_again_as_after_any_time_out(impatient: None, request_of: str, drip: str) -> None:
    """At the end it is doubtful what S3 has done."""
    with dripping(*DRIPS[drip]) as (url, arrived), pytest.raises(Unanswered, match=r"in 2 tries: Read timed out\."):
        REQUESTS[request_of](a_bucket(url))

    assert len(arrived) == 2
    assert arrived[1] - arrived[0] < SOON


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """dev, with credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return settings.find("dev")


@pytest.mark.parametrize(
    ("drip", "starts_something", "kind", "tries"),
    [("a header", False, DeployError, 4), ("a body", False, DeployError, 4), ("a body", True, OutcomeUnknown, 1)],
)
def test_a_client_of_aws_treats_it_as_a_lost_response(
    impatient: None, dev: Environment, drip: str, starts_something: bool, kind: type[DeployError], tries: int
) -> None:
    """A read is repeated; what was started may be happening."""
    with dripping(*DRIPS[drip]) as (url, arrived):
        client = aws.client("sts", replace(dev, endpoint_url=url), once=starts_something)
        lost = pytest.raises(kind, match=r"AWS's response was lost while asking .*: .*Read time")
        with lost as error, aws.errors("asking", dev, starts_something=starts_something):
            client.get_caller_identity()

    assert type(error.value) is kind
    assert len(arrived) == tries


def test_whoever_has_the_credentials_may_not_drip_either(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's own clients ask for them."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.RETRY_ATTEMPTS", 1)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with dripping(*DRIPS["a body"]) as (url, arrived):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        with pytest.raises(Refused, match="could not be sent"):
            aws.credentials(settings.find("dev"))

        assert time.monotonic() - arrived[0] < SOON


def test_other_servers_may_not_drip_either(impatient: None) -> None:
    """Each request has its own time-out; more of them in test_http.py."""
    with dripping(*DRIPS["a body"]) as (url, arrived):
        with pytest.raises(http.Unreachable, match=r"^no complete response within 0.1 s$"):
            http.request("GET", url, timeout=LONGEST)

        assert time.monotonic() - arrived[0] < SOON


@pytest.mark.parametrize("size", [1, SINGLE_PUT + 1])
def test_many_uploads_have_a_time_out_for_the_whole_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """obstore's, which is not one for each read. A large file takes several requests, of which the first one drips."""
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "TIMEOUT", LONGEST if size == 1 else LONGEST / 15)
    body = tmp_path / "body"
    body.write_bytes(bytes(size))
    digest = hashlib.sha256(bytes(size)).hexdigest()
    uploads = [Upload(f"key{number}", str(body), size, digest, {}) for number in range(1 if size > 1 else OBSTORE_FROM)]

    with dripping(*DRIPS["a header" if size == 1 else "a body"]) as (url, arrived):
        with pytest.raises(Unanswered, match="in 1 tries"):
            a_bucket(url).put_all(uploads, lambda *_: None)

        assert time.monotonic() - arrived[0] < SOON


@pytest.mark.parametrize(("slowest", "fits"), [(1 << 10, True), (1 << 30, False)])
def test_a_large_object_may_take_as_long_as_its_bytes_keep_coming(
    impatient: None, monkeypatch: pytest.MonkeyPatch, slowest: int, fits: bool
) -> None:
    """At a minimal rate."""
    monkeypatch.setattr(http, "SLOWEST", slowest)
    part = bytes(2 << 10)
    head = BEGIN + f"ETag: x\r\nContent-Length: {10 * len(part)}\r\n\r\n".encode()
    with dripping(head, *[part] * 10) as (url, _), nullcontext() if fits else pytest.raises(Unanswered):
        assert a_bucket(url).get("key", 1 << 20) == (part * 10, "x")


def test_before_the_first_byte_only_the_time_out_of_a_client_counts(impatient: None) -> None:
    """A function of Lambda may run for minutes."""
    answered = threading.Event()

    def talk(connection: socket.socket) -> None:
        answered.wait(2 * LONGEST)
        saying(BEGIN + b"ETag: x\r\nContent-Length: 2\r\n\r\nok")(connection)

    with serving(talk) as port:
        assert a_bucket(f"http://127.0.0.1:{port}").get("key", 10) == (b"ok", "x")


def test_after_the_first_byte_no_read_outlasts_the_bound(impatient: None) -> None:
    """However long the client would wait for a first one."""
    over, arrived = threading.Event(), list[float]()

    def talk(connection: socket.socket) -> None:
        arrived.append(time.monotonic())
        saying(BEGIN)(connection)
        over.wait(10)

    with serving(talk) as port:
        with pytest.raises(Unanswered):
            a_bucket(f"http://127.0.0.1:{port}").get("key", 10)
        over.set()

    assert arrived[1] - arrived[0] < SOON


def test_a_stop_ends_a_command_while_a_response_drips(command_line: CommandLine) -> None:
    """At once."""
    with dripping(*DRIPS["a body"]) as (url, arrived):
        env = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": url}
        env["STATIC_S3_BUCKET"] = "site"
        with closing(command_line.start(["release.list", "--env=dev"], ROOT, env)) as running:
            deadline = time.monotonic() + 10
            while not arrived and time.monotonic() < deadline:
                time.sleep(PAUSE)
            time.sleep(2 * PAUSE)
            os.kill(running.pid, signal.SIGTERM)
            began = time.monotonic()
            code = running.wait()

            assert (code, time.monotonic() - began < AT_ONCE) == (2, True)
            assert "stopped by SIGTERM: nothing was changed." in running.stderr.read()
