"""Where a command's requests go: it is shown first, and prod needs a confirmation for any other destination."""

import json
import os
import pty
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError
from invoke import Context

from scripts.edges import aws, s3
from scripts.frame import console, settings
from scripts.frame.errors import Refused
from tests.conftest import ROOT, Invoke
from tests.stand_in import DENIED, Reply, answering, stand_in
from tests.test_cli import ACCOUNT, KEYS, OK
from tests.test_odd_text import TASKS

CI = {"CI": "true"}
RESTART = ["deploy-service", "--env=prod", "--no-image", "--no-wait"]
SERVICES = ("lambda", "s3", "logs")


def first_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The first three lines of stderr."""
    return done.stderr.splitlines()[:3]


# The endpoint that boto3 uses


CONFIGURATION = """
[default]
endpoint_url = https://default.example
[profile mine]
endpoint_url = https://profile.example
services = ours
[profile logs]
services = ours
[profile none]
region = us-west-2
[profile off]
endpoint_url = https://profile.example
ignore_configured_endpoint_urls = true
[profile broken]
services = nowhere
[services ours]
s3 =
  endpoint_url = https://s3.example
cloudwatch_logs =
  endpoint_url = https://logs.example
"""


@pytest.mark.parametrize("file", ["", CONFIGURATION], ids=["no file", "a file"])
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_ENDPOINT_URL": "https://all.example"},
        {"AWS_ENDPOINT_URL_S3": "https://only.example"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "https://only.example"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "1"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"},
        {"AWS_ENDPOINT_URL_LAMBDA": ""},
        {"AWS_PROFILE": "mine"},
        {"AWS_PROFILE": "logs"},
        {"AWS_PROFILE": "none"},
        {"AWS_PROFILE": "off"},
        {"AWS_PROFILE": "broken"},
        {"AWS_PROFILE": "off", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"},
        {"AWS_PROFILE": "none", "AWS_DEFAULT_PROFILE": "mine"},
        {"AWS_PROFILE": "mine", "AWS_ENDPOINT_URL_LAMBDA": "https://only.example"},
    ],
    ids=str,
)
def test_the_shown_endpoint_is_the_one_that_boto3_uses(
    variables: dict[str, str], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any variables, profile and services section. AWS's own endpoints are not shown."""
    folder = Path.home() / ".aws"
    folder.mkdir()
    names = ("mine", "logs", "none", "off", "broken")
    (folder / "config").write_text(file or "".join(f"[profile {name}]\nregion = us-west-2\n" for name in names))
    for name, value in {**KEYS, **variables}.items():
        monkeypatch.setenv(name, value)
    dev = settings.find("dev")
    try:
        clients = [boto3.Session(region_name="us-west-2").client(service) for service in SERVICES]
        expected = [client.meta.endpoint_url for client in clients]
    except BotoCoreError:
        with pytest.raises(Refused, match=r"has no \[services nowhere\]"):
            aws.destination(dev)
        return

    made = [aws.client(service, dev).meta.endpoint_url for service in SERVICES]
    named = aws.destination(dev).endpoints

    assert made == expected
    assert [named.get(service, expected[n]) for n, service in enumerate(SERVICES)] == expected
    assert [service in named for service in SERVICES] == ["example" in url for url in expected]


def test_releases_use_the_endpoint_of_the_configuration_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They send requests to S3 without a boto3 client."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    folder = Path.home() / ".aws"
    folder.mkdir()
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with stand_in(lambda *_: Reply(listing)) as server:
        (folder / "config").write_text(f"[default]\nservices = x\n[services x]\ns3 =\n  endpoint_url = {server.url}\n")
        assert s3.open_bucket(settings.find("dev"), "a-bucket").list() == {}

    assert [request["path"] for request in server.requests] == ["/a-bucket"]


@pytest.mark.parametrize(
    ("service", "url", "own"),
    [
        ("lambda", "", True),
        ("lambda", "https://lambda.us-west-2.amazonaws.com", True),
        ("lambda", "https://lambda.us-west-2.amazonaws.com:443/", True),
        ("lambda", "https://lambda-fips.us-gov-west-1.amazonaws.com", True),
        ("lambda", "https://lambda.us-west-2.api.aws", True),
        ("lambda", "https://vpce-0a1b-2c3d.lambda.us-west-2.vpce.amazonaws.com", True),
        ("s3", "https://bucket.vpce-0a1b-2c3d.s3.us-west-2.vpce.amazonaws.com", True),
        ("s3", "https://s3.dualstack.us-west-2.amazonaws.com", True),
        ("ecr", "https://api.ecr.us-west-2.amazonaws.com", True),
        ("ecr", "https://vpce-0a1b.api.ecr.us-west-2.vpce.amazonaws.com", True),
        ("sts", "https://sts.amazonaws.com", True),
        ("lambda", "http://lambda.us-west-2.amazonaws.com", False),
        ("lambda", "https://ecs.us-west-2.amazonaws.com", False),
        ("lambda", "https://lambda.s3.amazonaws.com", False),
        ("s3", "https://somebody.s3.us-west-2.amazonaws.com", False),
        ("lambda", "https://lambda-1234.us-west-2.elb.amazonaws.com", False),
        ("lambda", "https://x1.execute-api.us-west-2.amazonaws.com", False),
        ("lambda", "https://ec2-203-0-113-7.us-west-2.compute.amazonaws.com", False),
        ("lambda", "https://vpce-0a1b.vpce-svc-0a1b.us-west-2.vpce.amazonaws.com", False),
        ("lambda", "https://lambda.us-west-2.amazonaws.com.evil.example", False),
        ("lambda", "https://lambda.us-west-2.amazonaws.com@evil.example", False),
        ("lambda", "https://lambda.us-west-2.amazonaws.com/\n", False),
        ("lambda", "https://lambda.us-west-2.amazonaws.com:8443", False),
        ("lambda", "http://127.0.0.1:4566", False),
        ("lambda", "nonsense", False),
        ("lambda", "http://[::1", False),
    ],
)
def test_which_hosts_are_aws(service: str, url: str, own: bool) -> None:
    """Only those of its services: customers can have other names under amazonaws.com."""
    assert aws.is_aws(service, url) is own


# What is shown, and what is refused


@pytest.mark.parametrize("typed", ["prod\n", "\n"])
def test_the_destination_is_part_of_the_confirmation(typed: str) -> None:
    """Without the confirmation nothing is sent."""
    leader, follower = pty.openpty()
    with stand_in(answering(OK)) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", *RESTART],
            cwd=ROOT,
            stdin=follower,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                **ACCOUNT,
                **KEYS,
                **{f"AWS_ENDPOINT_URL_{name}": server.url for name in ("LAMBDA", "ECS", "STS")},
                "AWS_REGION": "eu-west-1",
            },
        )
        os.write(leader, typed.encode())
        said = process.communicate(timeout=60)[1].decode()
    os.close(leader)
    os.close(follower)

    question = next(line for line in said.splitlines() if "Type prod to continue:" in line)
    assert f"requests to lambda go to {server.url} (from AWS_ENDPOINT_URL_LAMBDA)" in question
    assert "the region is eu-west-1 (from AWS_REGION), but the settings say us-west-2" in question
    assert len(server.lambda_calls()) == (typed == "prod\n")
    assert bool(server.requests) == (typed == "prod\n")


CHANGING = {
    "deploy": {"tag": "x", "no_build": True},
    "build-image": {"tag": "x"},
    "deploy-service": {"tag": "x"},
    "run-task": {"service": "x"},
    "migrate-database": {"tag": "x"},
    "clean-database": {},
    "backup-database": {},
    "release-static": {"no_build": True, "bucket": "a-bucket"},
    "release-storybook": {"bucket": "a-bucket"},
    "release.rollback": {"bucket": "a-bucket"},
}
READING = {
    "healthcheck": {"version": "x", "url": "http://127.0.0.1:9/", "timeout": "1"},
    "check-image": {"tag": "x"},
    "release.list": {"bucket": "a-bucket"},
    "release.verify": {"bucket": "a-bucket"},
    "release.diff": {"bucket": "a-bucket"},
}
ELSEWHERE = [
    ({"AWS_ENDPOINT_URL": "{url}"}, "requests to AWS go to {url} (from AWS_ENDPOINT_URL)"),
    ({"AWS_ENDPOINT_URL_S3": "{url}"}, "requests to s3 go to {url} (from AWS_ENDPOINT_URL_S3)"),
    (
        {"AWS_REGION": "eu-west-1", "https_proxy": "{url}"},
        "the region is eu-west-1 (from AWS_REGION), but the settings say us-west-2",
    ),
]


@pytest.fixture(params=ELSEWHERE, ids=["endpoint", "endpoint of S3", "region"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[object]]]:
    """What has to be shown for another destination, and the requests that it received."""
    variables, said = request.param
    with stand_in(lambda *_: Reply(b"", 403)) as server:
        # No credentials: planning needs none, and so nothing is read.
        for name, value in {**ACCOUNT, **variables}.items():
            monkeypatch.setenv(name, value.format(url=server.url))
        yield said.format(url=server.url), server.requests  # type: ignore[misc]


@pytest.mark.parametrize("name", CHANGING)
def test_the_approval_in_ci_does_not_cover_another_destination(
    name: str,
    elsewhere: tuple[str, list[object]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command that changes something in prod is refused before its first request."""
    for variable, value in {**KEYS, **CI}.items():
        monkeypatch.setenv(variable, value)
    given = {flag.name.replace("-", "_"): flag.default for flag in TASKS[name].get_arguments()}
    with pytest.raises(Refused, match="The approval in CI covers prod only as its settings define it"):
        TASKS[name].body(Context(), **{**given, **CHANGING[name], "env": "prod", "json": True})

    printed, said = capsys.readouterr()
    sentence, requests = elsewhere
    assert f"warning: {sentence}" in said.splitlines()[1]
    assert any(one.startswith(sentence) for one in json.loads(printed)["destination"]["elsewhere"])
    assert requests == []


@pytest.mark.parametrize(("name", "flags"), [*((name, CHANGING[name]) for name in CHANGING), *READING.items()])
def test_every_command_that_uses_aws_shows_another_destination(
    name: str, flags: dict[str, object], elsewhere: tuple[str, list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a dry run too: in its second line and in the plan."""
    given = {flag.name.replace("-", "_"): flag.default for flag in TASKS[name].get_arguments()}
    try:
        TASKS[name].body(Context(), **{**given, **flags, "env": "prod", "json": True, "dry_run": True})
    except Refused:
        assert name in ("clean-database", "release-storybook", "migrate-database")

    printed, said = capsys.readouterr()
    assert elsewhere[0] in said.splitlines()[1]
    assert elsewhere[0] in str(json.loads(printed)["destination"])


def test_the_password_in_an_endpoint_is_never_shown(invoke: Invoke) -> None:
    """And no request is made with it."""
    done = invoke(*RESTART, "--yes", "--json", AWS_ENDPOINT_URL="http://me:hunter2@127.0.0.1:9", **ACCOUNT, **KEYS)

    assert done.returncode == 2
    assert "requests to AWS go to http://127.0.0.1:9 (from AWS_ENDPOINT_URL)" in first_lines(done)[1]
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_REGION": "us-west-2"}, []),
        ({"AWS_ACCOUNT_ID": "111111111111"}, []),
        (
            {"AWS_ACCOUNT_ID": "222222222222"},
            ["the account is 222222222222 (from AWS_ACCOUNT_ID), but the settings say 111111111111"],
        ),
        (
            {"AWS_DEFAULT_REGION_PROD": "eu-west-1"},
            ["the region is eu-west-1 (from AWS_DEFAULT_REGION_PROD), but the settings say us-west-2"],
        ),
    ],
    ids=str,
)
def test_a_variable_that_differs_from_the_settings_is_shown(
    variables: dict[str, str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Account and region; not if the value is the same."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text().replace('"${AWS_ACCOUNT_ID}"', '"111111111111"'))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert list(aws.destination(settings.find("prod")).elsewhere) == said


def test_an_account_that_the_settings_read_from_a_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `account = "${AWS_ACCOUNT_ID}"` they are the same."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")

    assert aws.destination(settings.find("prod")).elsewhere == ()


# AWS's own hosts, behind a proxy that terminates TLS


@dataclass
class Amazon:
    """AWS as seen through a proxy. account: what STS returns; if empty, it denies the request."""

    env: dict[str, str]
    account: str = ACCOUNT["AWS_ACCOUNT_ID"]
    asked: list[str] = field(default_factory=list)

    def answer(self, host: str) -> Reply:
        """The response of a service."""
        if host.startswith("lambda."):
            return OK
        if not host.startswith("sts."):
            return DENIED
        if not self.account:
            return Reply(b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", 403)
        result = f"<GetCallerIdentityResult><Account>{self.account}</Account></GetCallerIdentityResult>"
        return Reply(f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>".encode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for AWS's hosts, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = "subjectAltName=DNS:*.us-west-2.amazonaws.com,DNS:sts.amazonaws.com"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=AWS -addext {names} -keyout - -out -"
    path.write_bytes(subprocess.run(["openssl", *words.split()], capture_output=True, check=True).stdout)
    return path


@pytest.fixture
def amazon(certificate: Path) -> Iterator[Amazon]:
    """A stand-in for all of AWS's hosts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
            self.close_connection = False

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            here.asked.append(self.host.partition(".")[0])
            reply = here.answer(self.host)
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = f"http://127.0.0.1:{server.server_address[1]}"
    here = Amazon({**ACCOUNT, **KEYS, "HTTPS_PROXY": proxy, "AWS_CA_BUNDLE": str(certificate)})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("account", [ACCOUNT["AWS_ACCOUNT_ID"], ""], ids=["the right account", "STS denies"])
def test_the_approval_in_ci_covers_the_environment_of_the_settings(
    account: str, amazon: Amazon, invoke: Invoke
) -> None:
    """STS is asked before anything else, and again before the first write. What it denies is a warning."""
    amazon.account = account

    done = invoke(*RESTART, **amazon.env, **CI)

    assert done.returncode == 0, done.stderr
    assert amazon.asked[0] == "sts"
    assert (amazon.asked.count("sts"), amazon.asked.count("lambda")) == (2, 1)
    assert ("The account of the credentials could not be read" in done.stderr) == (not account)
    assert ("warning: identity: it cannot be read" in done.stderr) == (not account)


def test_the_credentials_of_another_account_are_refused(amazon: Amazon, invoke: Invoke) -> None:
    """Before the confirmation, and with --yes before the first write."""
    amazon.account = "999999999999"
    sentence = "the credentials belong to account 999999999999, but prod is account 123456789012"

    refused = invoke(*RESTART, "--json", **amazon.env, **CI)
    asked = list(amazon.asked)
    agreed = invoke(*RESTART, "--yes", **amazon.env, **CI)

    assert (refused.returncode, asked) == (2, ["sts"])
    assert sentence in refused.stderr.splitlines()[1]
    assert json.loads(refused.stdout)["destination"]["elsewhere"] == [sentence]
    assert agreed.returncode == 2, agreed.stderr
    assert f"warning: {sentence}" in agreed.stderr.splitlines()
    assert f"  identity: {sentence}." in agreed.stderr.splitlines()
    assert "lambda" not in amazon.asked


@pytest.mark.parametrize("words", [["--env=dev"], ["--env=prod", "--dry-run"]], ids=str)
def test_whose_account_it_is_is_asked_before_anything_else(words: list[str], amazon: Amazon, invoke: Invoke) -> None:
    """Without a confirmation too, and in a dry run that has credentials."""
    done = invoke("deploy-service", *words, "--no-image", "--no-wait", **amazon.env)

    assert done.returncode == 0, done.stderr
    assert amazon.asked[0] == "sts"
    assert amazon.asked.count("sts") == 1


# CI


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ("true", True),
        ("TRUE", True),
        (" true ", True),
        ("1", True),
        ("yes", True),
        ("on", True),
        ("false", False),
        ("False", False),
        ("0", False),
        ("no", False),
        ("off", False),
        ("", False),
        (" ", False),
        ("none", False),
        (None, False),
    ],
)
def test_only_true_values_of_ci_count_as_ci(value: str | None, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, prod needs no further confirmation, and there is no default environment."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    if value is not None:
        monkeypatch.setenv("CI", value)
    given = {flag.name.replace("-", "_"): flag.default for flag in TASKS["deploy-service"].get_arguments()}
    # A service without an image is refused after the confirmation of prod, and before any request.
    flags = {**given, "service": "other", "env": "prod"}

    assert console.in_ci() is counts
    with pytest.raises(Refused, match="No image is set" if counts else "needs a confirmation, and there is"):
        TASKS["deploy-service"].body(Context(), **flags)
    if counts:
        with pytest.raises(Refused, match="No environment"):
            settings.choose(None)
    else:
        assert settings.choose(None) == ("local", "the default")
