"""The HTTP client against real servers on loopback: slow, broken, hostile and unreachable ones."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.edges import http
from scripts.edges.http import Unreachable
from scripts.frame.errors import Refused
from tests.stand_in import Reply, stand_in

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def serving(talk: Callable[[socket.socket], None], family: int = socket.AF_INET) -> Iterator[int]:
    """A server that calls `talk` for each connection. Yields its port."""
    listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            talk(connection)

    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def saying(*parts: bytes, pause: float = 0) -> Callable[[socket.socket], None]:
    """Send these bytes as a response, with a pause after each part."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return talk


def get(port: int, timeout: float = 5, most: int = http.MOST, host: str = "127.0.0.1") -> http.Answer:
    """Send a request to a server on loopback."""
    return http.request("GET", f"http://{host}:{port}/path", timeout=timeout, most=most)


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [bytes([byte]) for byte in OK[:17]] + [b"X: y\r\n"] * 1000,
        [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", *([b"x"] * 999)],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *([b"1\r\nx\r\n"] * 999)],
    ],
    ids=["nothing", "headers", "a body", "chunks"],
)
def test_a_slow_response_does_not_extend_the_deadline(parts: list[bytes]) -> None:
    """Not even if a byte arrives now and then."""
    with serving(saying(*parts, pause=0.1 if len(parts) > 1 else 1.2)) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"^no complete response within 0.5 s$"):
            get(port, timeout=0.5)
        assert time.monotonic() - began < 1


def test_the_deadline_includes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is made too late is ended at once."""
    connect = socket.create_connection

    def late(*address: Any, **options: Any) -> socket.socket:
        time.sleep(0.1)
        return connect(*address, **options)

    monkeypatch.setattr(socket, "create_connection", late)
    with serving(saying(*[bytes([byte]) for byte in OK[:17]] * 9, pause=0.04)) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"^no complete response within 0.05 s$"):
            get(port, timeout=0.05)
        assert time.monotonic() - began < 1


def test_a_request_leaves_no_thread_behind() -> None:
    """However long it might have taken."""
    with serving(saying(OK)) as port:
        get(port)

    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(1)
    assert [timer for timer in timers if timer.is_alive()] == []


def test_each_read_of_a_bounded_response_still_has_the_clients_own_time_out() -> None:
    """Also after the first byte, from which on the whole response has more time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        theirs.sendall(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(TimeoutError):
            http.BoundedResponse(ours).begin()


def test_the_deadline_includes_the_tls_handshake() -> None:
    """The server sends one byte at a time."""
    with serving(saying(*([b"\x16"] + [b"\x03"] * 100), pause=0.1)) as port:
        began = time.monotonic()
        with pytest.raises(Unreachable):
            http.request("GET", f"https://127.0.0.1:{port}/", timeout=0.5)
        assert time.monotonic() - began < 1


def test_at_most_the_requested_size_of_a_body_is_read() -> None:
    """However large it is."""
    with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"x" * 5000)) as port:
        assert get(port, most=1000).body == b"x" * 1000
    with serving(saying(OK)) as port:
        assert get(port, most=2).body == b"ok"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "Remote end closed connection without response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "the connection was closed 7 bytes too early"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nok", "the connection was closed 7 bytes too early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH\r\n", "BadStatusLine"),
        (b"HTTP/1.1 abc\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "HTTPException"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n", "LineTooLong"),
        (b"\0" * 100, "BadStatusLine"),
    ],
)
def test_a_broken_response_is_an_error(said: bytes, why: str) -> None:
    """It says briefly what is broken. The server may have processed the request."""
    with serving(saying(said)) as port, pytest.raises(Unreachable) as error:
        get(port)

    assert (str(error.value), error.value.sent, error.value.code) == (why, True, 1)


def test_a_refused_connection_is_an_error() -> None:
    """With the system's message. Nothing was sent."""
    with serving(saying()) as port:
        pass
    with pytest.raises(Unreachable, match=r"^Connection refused$") as error:
        get(port)
    assert not error.value.sent


def test_an_unknown_host_is_an_error() -> None:
    """With the system's message."""
    with pytest.raises(Unreachable, match=r"(?i)name|address"):
        http.request("GET", "http://nowhere.invalid/", timeout=5)


def test_an_error_status_is_a_response_and_no_error() -> None:
    """With its headers, whose names are in lower case, and its body."""
    with stand_in(lambda *_: Reply(b"no", 503, {"Retry-After": "5"})) as server:
        answer = http.request("GET", server.url, timeout=5)

    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "5", b"no")
    assert [status for status in (199, 200, 299, 300, 503) if http.Answer(status, {}, b"").ok] == [200, 299]


@pytest.mark.parametrize(
    ("method", "headers", "agent"),
    [("GET", {}, "deployment"), ("DELETE", {}, "deployment"), ("HEAD", {"User-Agent": "mine"}, "mine")],
)
def test_a_request_has_its_method_and_says_who_asks(method: str, headers: dict[str, str], agent: str) -> None:
    """GitHub answers nobody without a name: https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api#user-agent"""
    with stand_in(lambda *_: Reply(b"")) as server:
        http.request(method, server.url, timeout=5, headers=headers)

    (asked,) = server.requests
    assert (asked["method"], asked["headers"]["User-Agent"]) == (method, agent)


def test_ipv6_addresses_work() -> None:
    """In brackets, as URLs require."""
    with serving(saying(OK), socket.AF_INET6) as port:
        assert get(port, host="[::1]").body == b"ok"


# --- redirects ---


def redirecting(*targets: str) -> Callable[[str, str], Reply]:
    """Responds to /0, /1 … with redirects, and to the path after the last with a text."""

    def answer(_: str, path: str) -> Reply:
        number = int(path[1:]) if path[1:].isdigit() else len(targets)
        return Reply(b"", 302, {"Location": targets[number]}) if number < len(targets) else Reply(b"here")

    return answer


def test_a_redirect_on_the_same_host_is_followed() -> None:
    """Relative or absolute, and several in a row."""
    with stand_in(redirecting("/1", "2", "//{host}/3", "?x")) as server:
        host = server.url.removeprefix("http://")
        server.answer = redirecting("/1", "2", f"//{host}/3", f"http://{host}/end")
        answer = http.request("GET", f"{server.url}/0", timeout=5)

    assert (answer.status, answer.body) == (200, b"here")
    assert [request["path"] for request in server.requests] == ["/0", "/1", "/2", "/3", "/end"]


@pytest.mark.parametrize(
    ("status", "followed"),
    [(301, True), (302, True), (303, True), (307, True), (308, True), (300, False), (304, False), (309, False)],
)
def test_which_statuses_are_redirects(status: int, followed: bool) -> None:
    to = Reply(b"", status, {"Location": "/1"})
    with stand_in(lambda _, path: to if path == "/0" else Reply(b"here")) as server:
        answer = http.request("GET", f"{server.url}/0", timeout=5)

    assert answer.status == (200 if followed else status)


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/1",
        "http://127.0.0.1:1/1",
        "http://evil.example/",
        "//evil.example/",
        "http://user:secret@127.0.0.1:{port}/1",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "/with a blank",
    ],
)
def test_other_redirects_are_not_followed(target: str) -> None:
    """To another host, port or scheme, with a user, or to an invalid URL."""
    with stand_in(redirecting("")) as server:
        server.answer = redirecting(target.format(port=server.url.rpartition(":")[2]), "never")
        answer = http.request("GET", f"{server.url}/0", timeout=5)

    assert answer.status == 302
    assert {request["path"] for request in server.requests} == {"/0"}


def test_too_many_redirects_are_an_error() -> None:
    with stand_in(redirecting("/0")) as server, pytest.raises(Unreachable, match=r"^more than 5 redirects$"):
        http.request("GET", f"{server.url}/0", timeout=5)

    assert len(server.requests) == 6


def test_redirects_do_not_extend_the_deadline() -> None:
    """Each of them in time, but not all of them."""
    slow = redirecting("/1", "/2", "/3", "/4")
    late = pytest.raises(Unreachable, match=r"^no complete response within 0.5 s$")
    with stand_in(lambda method, path: replace(slow(method, path), delay=0.2)) as server, late:
        http.request("GET", f"{server.url}/0", timeout=0.5)

    assert len(server.requests) < 5


def test_only_reading_requests_follow_redirects() -> None:
    """A POST is never sent twice."""
    with stand_in(redirecting("/1", "/2")) as server:
        answer = http.request("POST", f"{server.url}/0", timeout=5, body=b"x")

    assert (answer.status, len(server.requests)) == (302, 1)


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = "subjectAltName=DNS:localhost,DNS:site.example"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext {names}"
    done = subprocess.run(
        ["openssl", *words.split(), "-keyout", "-", "-out", "-"], capture_output=True, check=True, env=os.environ
    )
    path.write_bytes(done.stdout)
    return path


@contextmanager
def serving_tls(certificate: Path, said: bytes = OK) -> Iterator[int]:
    """A server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as safe:
            saying(said)(safe)

    with serving(talk) as port:
        yield port


def test_a_redirect_to_tls_is_followed_and_one_from_it_is_not(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same host, whose port is another one then."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    redirect = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {}://localhost:{}/\r\n\r\n"
    with serving_tls(certificate) as safe, serving(saying(redirect.format("https", safe).encode())) as plain:
        assert get(plain, host="localhost").body == b"ok"
    with serving(saying(OK)) as plain, serving_tls(certificate, redirect.format("http", plain).encode()) as safe:
        assert http.request("GET", f"https://localhost:{safe}/", timeout=5).status == 302


def test_an_untrusted_certificate_is_an_error(certificate: Path) -> None:
    """With the reason."""
    with serving_tls(certificate) as port, pytest.raises(Unreachable, match="certificate verify failed"):
        http.request("GET", f"https://localhost:{port}/", timeout=5)


def test_a_bundle_of_the_user_is_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In SSL_CERT_FILE, as for curl and OpenSSL. The host name must still match."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving_tls(certificate) as port:
        assert http.request("GET", f"https://localhost:{port}/", timeout=5).body == b"ok"
        with pytest.raises(Unreachable, match="certificate verify failed"):
            http.request("GET", f"https://127.0.0.1:{port}/", timeout=5)


def test_plain_http_behind_an_https_url_is_an_error() -> None:
    with serving(saying(OK)) as port, pytest.raises(Unreachable, match=r"(?i)wrong.version|record"):
        http.request("GET", f"https://127.0.0.1:{port}/", timeout=5)


# --- proxies ---


def test_the_proxy_of_the_standard_variables_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for this machine, and not for hosts in no_proxy."""
    with stand_in(lambda *_: Reply(b"by proxy")) as proxy, stand_in(lambda *_: Reply(b"direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "direct.invalid")
        assert http.request("GET", "http://site.example/x", timeout=5).body == b"by proxy"
        assert http.request("GET", server.url, timeout=5).body == b"direct"
        with pytest.raises(Unreachable, match=r"(?i)name|address"):
            http.request("GET", "http://direct.invalid/", timeout=5)

    assert len(proxy.requests) == len(server.requests) == 1


def test_tls_goes_through_a_tunnel_of_the_proxy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy receives only the host name. Its password is never shown."""
    asked: list[bytes] = []

    def tunnel(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with context.wrap_socket(connection, server_side=True) as safe:
            saying(OK)(safe)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(tunnel) as port:
        monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{port}")
        assert http.request("GET", "https://site.example/x?token=secret", timeout=5).body == b"ok"
    with pytest.raises(Unreachable) as error:
        http.request("GET", "https://site.example/x?token=secret", timeout=5)

    assert asked[0].startswith(b"CONNECT site.example:443 HTTP/1.")
    assert b"token" not in asked[0]
    assert "secret" not in str(error.value)


def test_the_deadline_includes_the_proxys_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sends one byte at a time."""
    with serving(saying(b"HTTP/1.1 200 OK\r\n", *([b"X: y\r\n"] * 90), pause=0.1)) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no complete response within 0.5 s"):
            http.request("GET", "https://site.example/", timeout=0.5)
        assert time.monotonic() - began < 1


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h/",
        "http://127.0.0.1:1/a%20b?q=(x)#f",
        "http://[::1]:65535/",
        "https://a-b.example.org./~x;y,z",
        "https://hooks.example/services/T0/B0/x!y*z'@w",
        pytest.param("http://h/".ljust(2048, "x"), id="the longest"),
    ],
)
def test_a_valid_url_is_returned_unchanged(url: str) -> None:
    assert http.checked(url, "a URL") == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "h",
            "//h/",
            "http:",
            "http:///",
            "http://",
            "http://:80/",
            "http://?x",
            "ftp://h/",
            "file:///etc/passwd",
        ),
        *("http://[::1", "http://::1]/", "http://[]/", "http://[x]/", "http://[::1]x/", "http://[127.0.0.1]/"),
        *("http://h:0/", "http://h:65536/", "http://h:99999/", "http://h:x/", "http://h:-1/", "http://h:8 0/"),
        *(
            "http://h/a b",
            "http://h/\n",
            "\nhttp://h/",
            "http://h\r\nX: y/",
            "http://h/\0",
            "http://h/<x>",
            'http://"/',
        ),
        *("http://é/", "http://h/é", "http://h/\u202e", "http://h/\ud800", "http://" + "x" * 300 + "/", "http://a..b/"),
        *(
            "http://h/".ljust(2049, "x"),
            "http://user@h/",
            "http://user:secret@h/",
            "http://user:secret@h:99999/",
            "HTTP//h",
        ),
    ],
    ids=ascii,
)
def test_an_invalid_url_is_refused(url: str) -> None:
    """In one short sentence that says what it should be, without its password."""
    with pytest.raises(Refused) as error:
        http.checked(url, "the URL of a site")

    said = str(error.value)
    assert " is not the URL of a site: " in said
    assert said.splitlines() == [said]
    assert len(said) < 500
    assert "secret" not in said


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://h/", True),
        ("http://h/", False),
        ("ftp://h/", False),
        ("http://127.0.0.1:8080/", True),
        ("http://localhost/", True),
        ("http://[::1]:8080/", True),
        ("http://localhost.example.org/", False),
        ("http://128.0.0.1/", False),
    ],
)
def test_where_a_secret_may_be_sent(url: str, kept: bool) -> None:
    """Encrypted, or to this machine."""
    assert http.keeps_secrets(url) is kept


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[" * 100000, b"\xff", b"NaN" * 2, b'["x"]', b'{"x": "1"}'])
def test_a_body_that_is_not_the_expected_json_raises_value_error(body: bytes) -> None:
    """Also if it is nested too deeply."""
    with pytest.raises(ValueError):  # noqa: PT011 - its text is the parser's
        http.Answer(200, {}, body).record(dict[str, int])
