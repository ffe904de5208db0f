"""Who may send requests to the embedded AWS: programs on this machine, but no web page of another origin."""

import http.client
import itertools
import json

import pytest

from local_aws import control, gate
from tests.conftest import EmbeddedCloud

PATHS = ["/", "/_local/status", "/_local/failures", "/local-mint-app-static/index.html", "/v2/", "/api/v1/healthcheck"]


def ask(
    cloud: EmbeddedCloud, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with these headers. Returns status, headers (names in lower case) and body."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.server.cloud.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in {**headers, "Content-Length": headers.get("Content-Length", str(len(body)))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        found = connection.getresponse()
        return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "attacker.example:4566"},
        {"Host": "127.0.0.1.attacker.example"},
        {"Host": "[::1"},
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_requests_of_another_origin_are_refused_on_every_path(cloud: EmbeddedCloud, headers: dict[str, str]) -> None:
    """By Host, Origin or Sec-Fetch-Site; the request is neither recorded nor carried out."""
    token = {"X-Local-AWS-Token": cloud.server.cloud.token}
    for path, method in itertools.product(PATHS, ("GET", "POST", "OPTIONS")):
        status, _, body = ask(cloud, method, path, {**headers, **token, "Content-Type": "text/plain"}, b"{}")
        assert status == 403, (method, path)
        assert set(json.loads(body)) == {"error"}
    assert cloud.requests() == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_every_host_name_of_this_machine_is_accepted(cloud: EmbeddedCloud, name: str) -> None:
    """With any port, because a proxy may listen on another one."""
    status, _, body = ask(cloud, "GET", "/_local/status", {"Host": f"{name}:1234"})

    assert status == 200
    assert json.loads(body)["name"] == "embedded AWS"


def test_no_response_has_cors_headers(cloud: EmbeddedCloud) -> None:
    """moto's S3 alone would echo any Origin."""
    own = f"http://127.0.0.1:{cloud.server.cloud.port}"
    for path in PATHS:
        headers = ask(cloud, "GET", path, {"Origin": own})[1]
        assert [name for name in headers if name.startswith("access-control-")] == []


@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_the_control_paths_need_the_token(cloud: EmbeddedCloud, token: str) -> None:
    """All except the status, whether the path exists or not."""
    headers = {"X-Local-AWS-Token": token} if token else {}
    paths = ["requests", "clock", "failures", "findings", "functions", "reset", "nothing", "../_local/reset"]
    for path, method in itertools.product(paths, ("GET", "POST")):
        assert ask(cloud, method, f"/_local/{path}", headers, b"{}")[0] == 403, (method, path)


@pytest.mark.parametrize("body", [b"[", b"[]", b'"x"', b"[" * 100_000, b"\xff", b'{"advance": "x"}', b"{}"])
def test_an_invalid_control_request_is_refused_with_the_reason(cloud: EmbeddedCloud, body: bytes) -> None:
    status, _, told = ask(cloud, "POST", "/_local/clock", {"X-Local-AWS-Token": cloud.server.cloud.token}, body)

    assert status == 400
    assert "error" in json.loads(told)


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/_local/failures", gate.MOST_OF_CONTROL + 1, 413),
        ("/local-mint-app-static/x", gate.MOST + 1, 413),
        ("/v2/x/blobs/uploads/", gate.MOST_OF_A_LAYER + 1, 413),
        ("/local-mint-app-static/x", -1, 403),
    ],
)
def test_a_body_that_is_too_large_is_refused(cloud: EmbeddedCloud, path: str, length: int, status: int) -> None:
    """Before it is read."""
    token = {"X-Local-AWS-Token": cloud.server.cloud.token}

    assert ask(cloud, "PUT", path, {**token, "Content-Length": str(length)})[0] == status


def test_no_request_can_add_a_function(cloud: EmbeddedCloud) -> None:
    """Functions come from the settings. No control path adds one, not even with the token."""
    token = {"X-Local-AWS-Token": cloud.server.cloud.token}
    body = json.dumps({"name": "evil", "handler": "os:getcwd"}).encode()

    assert ask(cloud, "POST", "/_local/functions", token, body)[0] == 404
    assert "evil" not in cloud.server.functions.functions


def test_no_code_of_a_request_is_run(cloud: EmbeddedCloud) -> None:
    """The services that could run it are missing, and so are moto's own paths."""
    for service, operation, given in (
        ("lambda", "create_function", {"FunctionName": "x", "Role": "x", "Code": {"ZipFile": b"x"}, "Handler": "a.b"}),
        ("lambda", "invoke", {"FunctionName": "x"}),
        ("batch", "submit_job", {"jobName": "x", "jobQueue": "x", "jobDefinition": "x"}),
        ("events", "list_rules", {}),
        ("stepfunctions", "list_state_machines", {}),
    ):
        client = cloud.client(service)
        with pytest.raises(client.exceptions.ClientError, match="ResourceNotFoundException"):
            getattr(client, operation)(**given)
    assert ask(cloud, "POST", "/moto-api/reset", {})[0] == 404


def test_the_record_of_requests_has_an_end(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that stays open asks again and again."""
    monkeypatch.setattr(control, "REMEMBERED", 3)
    for number in range(5):
        ask(cloud, "GET", f"/{number}", {})

    assert [request["path"] for request in cloud.requests()] == ["/2", "/3", "/4"]
