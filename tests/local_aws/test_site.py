"""What a browser gets from the embedded AWS: the released page, the service behind it, and nothing else."""

import gzip
from pathlib import Path

import pytest

from tests.conftest import ROOT, EmbeddedCloud
from tests.local_aws.test_gate import ask

BUCKET = "local-mint-app-static"
PAGE, SCRIPT = b"<!doctype html><title>page</title>", b"export const plans = 1;"
HTML = {"ContentType": "text/html; charset=utf-8", "CacheControl": "no-cache"}
OBJECTS = {
    "index.html": (PAGE, HTML),
    "help/index.html": (b"help", HTML),
    "assets/plans-12345678.js": (
        gzip.compress(SCRIPT),
        {"ContentType": "text/javascript", "ContentEncoding": "gzip", "CacheControl": "max-age=31536000, immutable"},
    ),
    "a b/é.txt": (b"odd", {"ContentType": "text/plain"}),
    "_release/manifest.json": (b"{}", {"ContentType": "application/json"}),
    ".well-known/security": (b"known", {"ContentType": "text/plain"}),
}


@pytest.fixture
def site(cloud: EmbeddedCloud) -> EmbeddedCloud:
    """A bucket with a released page."""
    for key, (body, headers) in OBJECTS.items():
        cloud.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body, **headers)
    return cloud


def test_a_visitor_gets_the_page_and_its_files(site: EmbeddedCloud) -> None:
    """At their paths, and the page at paths that only its script knows; whatever the service says at /api/."""
    page, api = (200, "text/html; charset=utf-8", PAGE), "application/json"
    for path, expected in {
        "/": page,
        "/?from=mail": page,
        "/index.html": page,
        "/plans": page,
        "/plans/7/edit": page,
        "/help/": page,
        "/help/index.html": (200, "text/html; charset=utf-8", b"help"),
        "/assets/plans-12345678.js": (200, "text/javascript", OBJECTS["assets/plans-12345678.js"][0]),
        "/a%20b/%C3%A9.txt": (200, "text/plain", b"odd"),
        "/.well-known/security": (200, "text/plain", b"known"),
        "/api/v1/plans": (404, api, b'{"status": "not found"}'),
        "/assets/plans-87654321.js": (404, "text/plain; charset=utf-8", None),
        "/favicon.ico": (404, "text/plain; charset=utf-8", None),
        "/_release/manifest.json": (404, "text/plain; charset=utf-8", None),
        "/_release/": (404, "text/plain; charset=utf-8", None),
        "/moto-api/data.json": (404, "text/plain; charset=utf-8", None),
        "/latest/meta-data/": page,
    }.items():
        status, headers, body = ask(site, "GET", path, {})
        assert (status, headers["content-type"], body) == (*expected[:2], body if expected[2] is None else expected[2])
        assert ask(site, "HEAD", path, {})[::2] == (status, b""), path
    assert b'"version": "v0"' in ask(site, "GET", "/api/v1/healthcheck", {})[2]
    assert ask(site, "HEAD", "/api/v1/healthcheck", {})[::2] == (200, b"")


def test_an_object_keeps_its_headers_and_is_revalidated(site: EmbeddedCloud) -> None:
    """As S3 does it, through CloudFront."""
    path = "/assets/plans-12345678.js"
    whole = ask(site, "GET", path, {})[1]
    kept = {name: whole[name] for name in ("content-encoding", "cache-control", "accept-ranges")}
    assert kept == {
        "content-encoding": "gzip",
        "cache-control": "max-age=31536000, immutable",
        "accept-ranges": "bytes",
    }
    for header, value, status in (
        ("If-None-Match", whole["etag"], 304),
        ("If-None-Match", '"other"', 200),
        ("If-Modified-Since", whole["last-modified"], 304),
        ("Range", "bytes=0-3", 206),
    ):
        assert ask(site, "GET", path, {header: value})[0] == status, (header, value)
    # That of the page, which is the answer at a route.
    assert ask(site, "GET", "/plans/7", {"If-None-Match": ask(site, "GET", "/", {})[1]["etag"]})[0] == 304


def test_clients_of_aws_reach_aws_at_the_same_address(site: EmbeddedCloud) -> None:
    """By a signature, the headers of an SDK, or the name of a bucket, whose objects need a signature."""
    s3 = site.client("s3")
    assert BUCKET in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    presigned = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "index.html"})
    assert ask(site, "GET", presigned.removeprefix(site.url), {})[::2] == (200, PAGE)
    for path, headers, status, said in (
        ("/", {"X-Amz-Date": "20261126T000000Z"}, 200, b"<ListAllMyBucketsResult"),
        ("/", {"amz-sdk-request": "attempt=1"}, 200, b"<ListAllMyBucketsResult"),
        ("/?Action=GetCallerIdentity", {}, 200, b"<ListAllMyBucketsResult"),
        ("/?AWSAccessKeyId=local&Expires=1&Signature=x", {}, 200, b"<ListAllMyBucketsResult"),
        (f"/{BUCKET}/index.html", {}, 403, b""),
        ("/v2/", {}, 401, b"UNAUTHORIZED"),
    ):
        answered, _, body = ask(site, "GET", path, headers)
        assert answered == status, (path, headers)
        assert said in body, (path, headers)


def test_a_page_of_the_site_reaches_the_site_alone(site: EmbeddedCloud) -> None:
    """A script in it may be anybody's, and the keys of this AWS are no secret."""
    own = {"Origin": f"http://127.0.0.1:{site.server.cloud.port}"}
    for page in (own, {"Sec-Fetch-Site": "same-origin"}, {**own, "Sec-Fetch-Site": "same-origin"}):
        forged = {**page, "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-west-2/s3/aws4_request, x"}
        token = {**page, "X-Local-AWS-Token": site.server.cloud.token}
        assert ask(site, "GET", "/", forged)[::2] == (200, PAGE)
        assert ask(site, "GET", f"/{BUCKET}/_release/manifest.json", forged)[0] == 404
        assert ask(site, "GET", "/v2/", forged)[::2] == (200, PAGE)
        for method, path in (("PUT", f"/{BUCKET}/index.html"), ("POST", "/"), ("DELETE", f"/{BUCKET}/index.html")):
            assert ask(site, method, path, forged)[0] == 403
        for method, path in (("GET", "/_local/requests"), ("GET", "/_local/status"), ("POST", "/_local/reset")):
            assert ask(site, method, path, token)[0] == 403
    assert site.objects(BUCKET)["index.html"][1] == PAGE


def test_each_environment_has_its_own_site(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At its name; the first one also at this machine's. One may be in a folder of a bucket, served at a path."""
    text = (ROOT / "environments.toml").read_text()
    local = text[text.index("[environments.local]") :]
    second = local.replace("environments.local", "environments.second").replace("local-mint-app", "second-mint-app")
    second = second.replace("local-db", "second-db").replace("mint-app-db-clean-tmp", "second-clean")
    second = second.replace('site = "${endpoint_url}"', 'site = "${endpoint_url}/second"')
    second = second.replace("[environments.second.frontend]\n", '[environments.second.frontend]\nbase = "/app/"\n')
    (tmp_path / "settings.toml").write_text(text + second)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(tmp_path / "settings.toml"))
    cloud.server.reset()
    for name in ("local", "second"):
        cloud.client("s3").put_object(Bucket=f"{name}-mint-app-static", Key="index.html", Body=name.encode())
    for host, path, status, body in (
        ("127.0.0.1", "/", 200, b"local"),
        ("local.localhost", "/", 200, b"local"),
        ("second.localhost:1234", "/app/", 200, b"second"),
        ("Second.Localhost", "/app/plans", 200, b"second"),
        ("second.localhost", "/", 404, None),
        ("second.localhost", "/second/api/v1/healthcheck", 200, None),
        ("localhost", "/second/api/v1/healthcheck", 200, None),
        ("third.localhost", "/", 403, None),
    ):
        answered = ask(cloud, "GET", path, {"Host": host})
        assert answered[::2] == (status, answered[2] if body is None else body), (host, path)
