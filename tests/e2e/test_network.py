"""Every request of a release, from whichever library, uses the same proxy and trusts the same certificates."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.edges.s3 import OBSTORE_FROM, Bucket, Keys, Upload
from scripts.frame.errors import DeployError
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.release import sites
from tests.release.certificates import make
from tests.release.conftest import a_version
from tests.release.fault_proxy import FaultProxy, fault_proxy
from tests.release.rclone import Rclone, rclone
from tests.stand_in import Reply, stand_in

__all__ = ["a_version"]

# This name has no address: it can be reached only through a proxy.
HOST = "s3.test"
FILES = {"odd name+%25 ü~.txt": "odd", "assets/a&b=c.js": "1"}


def released(invoke: Invoke, folder: Path, env: dict[str, str], code: int = 0) -> subprocess.CompletedProcess[str]:
    """Release a folder to dev."""
    done = invoke("release-static", "--env=dev", "--no-build", f"--build-dir={folder}", **env)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def build(folder: Path, version: str = "one", chunks: int = 20) -> Path:
    """A site with enough hashed files for obstore, and a few others, some with odd names."""
    sites.build(folder, version, chunks=chunks)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def requests_of(done: subprocess.CompletedProcess[str]) -> int:
    """The number of requests that a release reports."""
    found = re.findall(r"(\d+) requests", done.stderr)
    return int(found[-1])


def holds(server: Rclone, folder: Path) -> bool:
    """Whether every file of a folder is in the bucket."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return all((server.get(str(p.relative_to(folder))) or ("", b""))[1] == p.read_bytes() for p in files)


def test_the_body_of_a_request_does_not_wait_for_an_acknowledgement(server: Rclone) -> None:
    """With Nagle's algorithm each PUT takes 40 ms, without it a tenth of that."""
    bucket = Bucket("site", "us-west-2", server.url, Keys("key", "secret"), "dev")

    def seconds() -> float:
        started = time.monotonic()
        bucket.put("key", b"body", {})
        return time.monotonic() - started

    assert min(seconds() for _ in range(15)) < 0.03


# Proxies


@pytest.fixture
def server() -> Iterator[Rclone]:
    """An empty S3 server."""
    with rclone() as running:
        yield running


@pytest.fixture
def proxy(server: Rclone) -> Iterator[FaultProxy]:
    """A proxy that forwards to it."""
    with fault_proxy(server.url) as running:
        yield running


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_every_request_goes_through_the_proxy(
    server: Rclone, proxy: FaultProxy, invoke: Invoke, tmp_path: Path, variable: str
) -> None:
    """LIST, single requests and obstore's uploads; keys arrive unchanged."""
    folder = build(tmp_path / "build")
    env = {**server.env, "AWS_ENDPOINT_URL": f"http://{HOST}", variable: proxy.url}

    done = released(invoke, folder, env)

    answered = sum("/receipts/" not in path for _, path in proxy.requests) - len(proxy.failed)
    assert answered == requests_of(done) > 30, (done.stderr, proxy.failed, sorted(proxy.requests))
    assert all(path.startswith(f"http://{HOST}/site") for _, path in proxy.requests)
    assert sum(method == "PUT" and "/assets/" in path for method, path in proxy.requests) > 20
    assert holds(server, folder)


@pytest.mark.parametrize(
    "direct",
    [{"NO_PROXY": "127.0.0.1"}, {"NO_PROXY": "{netloc}"}, {"no_proxy": "elsewhere.test, 127.0.0.1"}, {"NO_PROXY": "*"}],
    ids=["a host", "a host with its port", "a list", "all"],
)
def test_hosts_in_no_proxy_are_reached_directly(
    server: Rclone, proxy: FaultProxy, invoke: Invoke, tmp_path: Path, direct: dict[str, str]
) -> None:
    """By every request, for each way to write a host in NO_PROXY."""
    folder = build(tmp_path / "build")
    named = {name: value.format(netloc=server.url.partition("//")[2]) for name, value in direct.items()}

    released(invoke, folder, {**server.env, "HTTP_PROXY": proxy.url, **named})

    assert proxy.requests == []
    assert holds(server, folder)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_all_proxy_and_the_proxy_of_another_scheme_are_ignored(
    server: Rclone, proxy: FaultProxy, invoke: Invoke, tmp_path: Path, variable: str
) -> None:
    """botocore ignores ALL_PROXY and obstore would use it; here neither does."""
    folder = build(tmp_path / "build")

    released(invoke, folder, {**server.env, variable: proxy.url})

    assert proxy.requests == []
    assert holds(server, folder)


def test_the_embedded_aws_is_never_reached_through_a_proxy(
    cloud: EmbeddedCloud, invoke: Invoke, proxy: FaultProxy, tmp_path: Path
) -> None:
    folder = build(tmp_path / "build")

    done = invoke("release-static", "--no-build", f"--build-dir={folder}", HTTP_PROXY=proxy.url, **cloud.env)

    assert done.returncode == 0, done.stderr
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://user:secret@127.0.0.1:1", 1, "S3 cannot be reached for listing site (dev)"),
        ("::::", 2, "HTTP_PROXY is not the URL of a proxy"),
        ("http://user:secret@proxy:99999", 2, "HTTP_PROXY is not the URL of a proxy"),
    ],
)
def test_an_unreachable_proxy_is_an_error_without_its_password(
    server: Rclone, invoke: Invoke, tmp_path: Path, url: str, code: int, said: str
) -> None:
    done = released(invoke, build(tmp_path / "build"), {**server.env, "HTTP_PROXY": url}, code)

    assert any(said in line for line in done.stderr.splitlines())
    assert "secret" not in done.stderr


def test_the_users_session_token_is_not_sent_to_the_embedded_aws(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request uses the embedded AWS's own keys."""
    seen: list[str] = []
    outermost = cloud.server._outermost

    def watched(environ: dict[str, str], start: object) -> object:
        seen.append(environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "") + environ.get("HTTP_AUTHORIZATION", ""))
        return outermost(environ, start)

    monkeypatch.setattr(cloud.server, "_outermost", watched)
    theirs = {"AWS_ACCESS_KEY_ID": "THEIRS", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "THEIRS"}
    folder = build(tmp_path / "build")

    done = invoke("release-static", "--no-build", f"--build-dir={folder}", **theirs, **cloud.env)

    assert done.returncode == 0, done.stderr
    assert len(seen) > 30
    assert all("THEIRS" not in one and "Credential=local/" in one for one in seen if one)


# Credentials, regions and hosts


def test_credentials_that_expire_during_a_release_are_renewed(
    server: Rclone, proxy: FaultProxy, invoke: Invoke, tmp_path: Path
) -> None:
    """By the program that the profile names; each request, also of obstore, gets those that are valid at the moment."""
    counter = tmp_path / "counter"
    program = tmp_path / "credentials"
    program.write_text(
        "#!/bin/sh\n"
        f"echo x >> {counter}\n"
        "date=$(date -u -d '+ 5 seconds' +%Y-%m-%dT%H:%M:%SZ)\n"
        f"n=$(wc -l < {counter})\n"
        'echo "{\\"Version\\": 1, \\"AccessKeyId\\": \\"KEY$n\\", \\"SecretAccessKey\\": \\"secret-key-of-role\\",'
        ' \\"SessionToken\\": \\"session-token-of-role\\", \\"Expiration\\": \\"$date\\"}"\n'
    )
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile role]\ncredential_process = {program}\n")
    env = {name: value for name, value in server.env.items() if not name.endswith("_KEY_ID") and "SECRET" not in name}
    env |= {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "role", "AWS_ENDPOINT_URL": proxy.url}

    released(invoke, build(tmp_path / "build"), env)

    used = {re.search(r"Credential=(KEY\d+)/", text)[1] for text in proxy.signed}  # type: ignore[index]
    assert len(used) > 3
    assert holds(server, tmp_path / "build")


def signed_in(tmp_path: Path, url: str, how: str) -> dict[str, str]:
    """Variables for somebody who has logged in. url: of the server that hands out the credentials."""
    home = Path(os.environ["HOME"])
    if how == "web identity":
        (tmp_path / "token").write_text("token-of-the-workflow")
        role = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/deploy", "AWS_ROLE_SESSION_NAME": "deploy"}
        return {**role, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ENDPOINT_URL_STS": url}
    start = "https://login.example/start"
    (tmp_path / "config").write_text(
        f"[profile person]\nsso_start_url = {start}\nsso_region = us-west-2\n"
        "sso_account_id = 123456789012\nsso_role_name = deploy\n"
    )
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "token-of-a-person", "expiresAt": "2099-01-01T00:00:00Z", "startUrl": start}
    (cache / f"{hashlib.sha1(start.encode(), usedforsecurity=False).hexdigest()}.json").write_text(json.dumps(token))
    chosen = {"AWS_PROFILE": "person", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    return {**chosen, "AWS_ENDPOINT_URL_SSO": url}


@pytest.mark.parametrize("how", ["web identity", "single sign-on"])
def test_whoever_has_logged_in_can_release(server: Rclone, proxy: FaultProxy, tmp_path: Path, how: str) -> None:
    """A workflow by its token, a person by the profile: a server gives the credentials."""

    def answer(method: str, path: str) -> Reply:
        until = "2099-01-01T00:00:00Z"
        if how == "single sign-on":
            role = {
                "accessKeyId": "KEY-OF-ROLE",
                "secretAccessKey": "secret-of-role",
                "sessionToken": "session-of-role",
            }
            body = json.dumps({"roleCredentials": {**role, "expiration": 4070908800000}})
            return Reply(body.encode(), headers={"Content-Type": "application/json"})
        given = "<AccessKeyId>KEY-OF-ROLE</AccessKeyId><SecretAccessKey>secret-of-role</SecretAccessKey>"
        given += f"<SessionToken>session-of-role</SessionToken><Expiration>{until}</Expiration>"
        action = "AssumeRoleWithWebIdentity"
        text = (
            f"<{action}Response xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><{action}Result><Credentials>{given}"
        )
        text += f"</Credentials></{action}Result></{action}Response>"
        return Reply(text.encode(), headers={"Content-Type": "text/xml"})

    env = {name: value for name, value in server.env.items() if not name.endswith("_KEY_ID") and "SECRET" not in name}
    with stand_in(answer) as login:
        env |= {**signed_in(tmp_path, login.url, how), "AWS_ENDPOINT_URL_S3": proxy.url}
        env.pop("AWS_ENDPOINT_URL")
        # A process of its own: botocore looks at $HOME when it is imported.
        words = ["release-static", "--env=dev", "--no-build", f"--build-dir={build(tmp_path / 'build')}"]
        command = [sys.executable, "-m", "invoke", *words]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(login.requests) == 1
    assert {re.search(r"Credential=([^/]+)/", text)[1] for text in proxy.signed} == {"KEY-OF-ROLE"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Reply(b"<Error><Code>PermanentRedirect</Code></Error>", 301, {"x-amz-bucket-region": "eu-west-1"}),
            "Wrong region for listing the bucket site (dev, us-west-2): the bucket is in eu-west-1.",
        ),
        (
            Reply(b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>", 400),
            "the bucket is in eu-west-1.",
        ),
        (
            Reply(
                b"<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2026-01-01T00:00:00Z</ServerTime></Error>", 403
            ),
            "s ahead of S3's. Set the clock",
        ),
        (
            Reply(
                b"<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2099-01-01T00:00:00Z</ServerTime></Error>", 403
            ),
            "s behind S3's. Set the clock",
        ),
    ],
    ids=["a redirect", "another signature", "a clock that is ahead", "a clock that is behind"],
)
def test_a_wrong_region_and_a_wrong_clock_are_named(reply: Reply, said: str) -> None:
    """With exit code 2: nothing was changed."""
    with stand_in(lambda method, path: reply) as server:
        bucket = Bucket("site", "us-west-2", server.url, Keys("key", "secret"), "dev")
        with pytest.raises(DeployError) as failed:
            bucket.list()

    assert said in str(failed.value)
    assert failed.value.exit_code == 2


# Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem (a private CA) and server.pem (a certificate that it signed, and its key)."""
    return make(tmp_path_factory.mktemp("certificates"), HOST)


@pytest.fixture
def secure(certificates: Path) -> Iterator[Rclone]:
    """An empty S3 server with TLS, whose certificate was signed by a private CA."""
    with rclone(certificate=certificates / "server.pem") as running:
        yield running


@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "the profile"])
def test_a_private_ca_is_trusted_for_every_request(
    secure: Rclone, certificates: Path, invoke: Invoke, tmp_path: Path, where: str
) -> None:
    """With many uploads and with few, and for each way to configure the bundle."""
    bundle = certificates / "ca.pem"
    env = {**secure.env, where: str(bundle)}
    if where == "the profile":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {bundle}\n")
        env = {**secure.env, "AWS_CONFIG_FILE": str(tmp_path / "config")}
    folder = build(tmp_path / "build")
    released(invoke, folder, env)
    (folder / "robots.txt").write_text("changed")

    done = released(invoke, folder, env)

    assert "1 files put" in done.stderr
    assert holds(secure, folder)


def test_https_goes_through_the_proxy(secure: Rclone, certificates: Path, invoke: Invoke, tmp_path: Path) -> None:
    """Through CONNECT tunnels; certificates are verified end to end."""
    folder = build(tmp_path / "build")
    with fault_proxy(secure.url) as proxy:
        env = {**secure.env, "AWS_ENDPOINT_URL": f"https://{HOST}", "HTTPS_PROXY": proxy.url}
        released(invoke, folder, {**env, "AWS_CA_BUNDLE": str(certificates / "ca.pem")})

        assert set(proxy.requests) == {("CONNECT", f"{HOST}:443")}
    assert holds(secure, folder)


def test_an_untrusted_certificate_is_an_error(secure: Rclone, invoke: Invoke, tmp_path: Path) -> None:
    """In one sentence and without retries, for every kind of request."""
    done = released(invoke, build(tmp_path / "build"), secure.env, code=1)
    assert done.stderr.splitlines()[-1].startswith(f"The certificate of {secure.url[8:]} is not trusted, for listing")

    bucket = Bucket("site", "us-west-2", secure.url, Keys("key", "secret"), "dev")
    with pytest.raises(DeployError, match=r"is not trusted, for writing a .*: set AWS_CA_BUNDLE to a file"):
        bucket.put("a", b"", {})
    body = tmp_path / "body"
    body.write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    uploads = [Upload(f"key{number}", str(body), 1, digest, {}) for number in range(OBSTORE_FROM)]
    with pytest.raises(DeployError, match=r"is not trusted, for writing to .*: set AWS_CA_BUNDLE to a file"):
        bucket.put_all(uploads, lambda upload, etag: None)


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_an_invalid_ca_bundle_is_refused(secure: Rclone, invoke: Invoke, tmp_path: Path, content: str | None) -> None:
    """Before any request."""
    bundle = tmp_path / "bundle.pem"
    if content:
        bundle.write_text(content)

    done = released(invoke, build(tmp_path / "build"), {**secure.env, "AWS_CA_BUNDLE": str(bundle)}, code=2)

    assert f"{bundle} is not a file of CA certificates" in done.stderr


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "http://[::1", "ftp://127.0.0.1", "nonsense"])
def test_an_invalid_endpoint_is_refused(invoke: Invoke, tmp_path: Path, endpoint: str) -> None:
    """With exit code 2, before any request."""
    env = {**Rclone("http://127.0.0.1:1").env, "AWS_ENDPOINT_URL_S3": endpoint}

    done = released(invoke, build(tmp_path / "build"), env, code=2)

    assert "is not the endpoint of S3 (AWS_ENDPOINT_URL_S3)" in done.stderr
