"""What is corrected in moto: S3 checksums, invalidations, snapshots, images, and the registry's protocol."""

import base64
import hashlib
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.patches import INVALIDATION_SECONDS, SNAPSHOT_SECONDS
from local_aws.registry import TOKEN, sha256
from tests.conftest import EmbeddedCloud

BUCKET = "local-mint-app-static"


@pytest.mark.parametrize(
    ("parameter", "right"),
    [
        ("ContentMD5", base64.b64encode(hashlib.md5(b"body", usedforsecurity=False).digest()).decode()),
        ("ChecksumSHA256", base64.b64encode(hashlib.sha256(b"body").digest()).decode()),
        ("ChecksumSHA1", base64.b64encode(hashlib.sha1(b"body", usedforsecurity=False).digest()).decode()),
    ],
)
def test_an_upload_with_a_wrong_checksum_is_refused(cloud: EmbeddedCloud, parameter: str, right: str) -> None:
    """Nothing is stored; with the right checksum it is."""
    s3 = cloud.client("s3")
    wrong = base64.b64encode(b"\0" * len(base64.b64decode(right))).decode()

    with pytest.raises(ClientError, match="BadDigest"):
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"body", **{parameter: wrong})
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"body", **{parameter: right})
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"body"


def test_conditional_writes_as_a_lease_needs_them(cloud: EmbeddedCloud) -> None:
    """If-None-Match creates only, If-Match replaces only the version that was read."""
    s3 = cloud.client("s3")
    etag = s3.put_object(Bucket=BUCKET, Key="lease", Body=b"1", IfNoneMatch="*")["ETag"]

    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket=BUCKET, Key="lease", Body=b"2", **condition)
    s3.put_object(Bucket=BUCKET, Key="lease", Body=b"2", IfMatch=etag)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_of_several_conditional_writes_at_once_one_succeeds(cloud: EmbeddedCloud, restless: None) -> None:
    """Whatever their order: nothing comes between the look at the condition and the write."""
    s3, writers = cloud.client("s3"), 6
    begin = threading.Barrier(writers)

    def write(number: int, condition: dict[str, str]) -> str:
        begin.wait(30)
        try:
            return str(s3.put_object(Bucket=BUCKET, Key="lease", Body=str(number).encode(), **condition)["ETag"])
        except ClientError:
            return ""

    with ThreadPoolExecutor(writers) as pool:
        condition = {"IfNoneMatch": "*"}
        for first in range(0, 10 * writers, writers):
            written = [*filter(None, pool.map(write, range(first, first + writers), [condition] * writers))]
            assert len(written) == 1
            condition = {"IfMatch": written[0]}


def test_a_delete_may_have_an_etag_as_condition(cloud: EmbeddedCloud) -> None:
    """An object with another ETag is kept and reported; a missing object is no error."""
    s3 = cloud.client("s3")
    first = s3.put_object(Bucket=BUCKET, Key="lease", Body=b"1")["ETag"]
    second = s3.put_object(Bucket=BUCKET, Key="lease", Body=b"2")["ETag"]

    left = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "lease", "ETag": first}]})
    assert [error["Key"] for error in left["Errors"]] == ["lease"]
    assert s3.head_object(Bucket=BUCKET, Key="lease")["ETag"] == second
    for _ in range(2):
        gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "lease", "ETag": second}]})
        assert "Errors" not in gone
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_an_invalidation_completes_later_and_its_reference_is_idempotent(cloud: EmbeddedCloud) -> None:
    """InProgress, then Completed, so that botocore's waiter ends."""
    client = cloud.client("cloudfront")
    distribution = cloud.distribution()
    cloud.stop_clock()
    batch = {"Paths": {"Quantity": 1, "Items": ["/*"]}, "CallerReference": "once"}

    made = client.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
    again = client.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
    assert made["Status"] == "InProgress"
    assert again["Id"] == made["Id"]

    cloud.advance(INVALIDATION_SECONDS)
    client.get_waiter("invalidation_completed").wait(DistributionId=distribution, Id=made["Id"])


def test_a_snapshot_becomes_available_after_some_time(cloud: EmbeddedCloud) -> None:
    """Until then it is "creating", with a percentage."""
    rds = cloud.client("rds")
    cloud.stop_clock()
    rds.create_db_snapshot(DBInstanceIdentifier="mintlocal", DBSnapshotIdentifier="one")

    def shown() -> tuple[str, int]:
        snapshot = rds.describe_db_snapshots(DBSnapshotIdentifier="one")["DBSnapshots"][0]
        return snapshot["Status"], snapshot["PercentProgress"]

    cloud.advance(SNAPSHOT_SECONDS / 2)
    status, percent = shown()
    assert status == "creating"
    assert 50 <= percent < 100
    cloud.advance(SNAPSHOT_SECONDS)
    assert shown() == ("available", 100)


def test_no_uri_of_a_real_registry_is_returned(cloud: EmbeddedCloud) -> None:
    """Neither for a repository nor for logging in."""
    ecr = cloud.client("ecr")
    token = ecr.get_authorization_token()["authorizationData"][0]
    uris = [r["repositoryUri"] for r in ecr.describe_repositories()["repositories"]]

    assert token["proxyEndpoint"] == cloud.url
    assert token["expiresAt"].timestamp() > cloud.server.cloud.clock.now() + 3600
    assert all(uri.startswith(f"127.0.0.1:{cloud.server.cloud.port}/") for uri in uris)


def registry(cloud: EmbeddedCloud, method: str, path: str, body: bytes = b"", token: str = TOKEN) -> tuple[int, Any]:
    """A request to the registry. Returns status and body, or the error codes."""
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(cloud.url + path, body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            told = error.read()
            return error.code, [item["code"] for item in json.loads(told)["errors"]] if told else []


def manifest(layer: bytes) -> bytes:
    """A manifest with one layer, which is also its configuration."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    part = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(layer), "digest": sha256(layer)}
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": part, "layers": [part]}).encode()


def test_a_pushed_image_is_in_ecr(cloud: EmbeddedCloud) -> None:
    """With its digest and size, and it can be pulled by tag and by digest."""
    layer = b"layer"
    path = f"/v2/mint-backend/blobs/uploads/?digest={sha256(layer)}"
    assert registry(cloud, "POST", path, layer)[0] == 201
    assert registry(cloud, "PUT", "/v2/mint-backend/manifests/v1", manifest(layer))[0] == 201

    image = {"imageTag": "v1"}
    details = cloud.client("ecr").describe_images(repositoryName="mint-backend", imageIds=[image])["imageDetails"][0]
    assert details["imageDigest"] == sha256(manifest(layer))
    assert details["imageSizeInBytes"] == 2 * len(layer)
    for reference in ("v1", sha256(manifest(layer))):
        assert registry(cloud, "GET", f"/v2/mint-backend/manifests/{reference}") == (200, manifest(layer))
    assert registry(cloud, "GET", f"/v2/mint-backend/blobs/{sha256(layer)}") == (200, layer)


def test_a_layer_has_a_url_for_whoever_may_read_it(cloud: EmbeddedCloud) -> None:
    """Its signature is for this layer alone, and only to read it."""
    ecr = cloud.client("ecr")
    image = ecr.batch_get_image(repositoryName="mint-backend", imageIds=[{"imageTag": "v0"}])["images"][0]
    digest = json.loads(image["imageManifest"])["config"]["digest"]
    url = ecr.get_download_url_for_layer(repositoryName="mint-backend", layerDigest=digest)["downloadUrl"]
    signed = url.removeprefix(cloud.url)

    assert json.loads(registry(cloud, "GET", signed, token="")[1])["architecture"] == "amd64"
    for method, path in (
        ("GET", signed.replace(digest, "sha256:" + "0" * 64)),
        ("GET", signed.partition("?")[0]),
        ("PUT", signed),
    ):
        assert registry(cloud, method, path, token="") == (401, ["UNAUTHORIZED"]), path
    for name, layer, code in (
        ("none", digest, "RepositoryNotFoundException"),
        ("mint-backend", "sha256:" + "0" * 64, "LayersNotFoundException"),
    ):
        with pytest.raises(ClientError, match=code):
            ecr.get_download_url_for_layer(repositoryName=name, layerDigest=layer)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v2/nobody/blobs/uploads/", b"", (404, ["NAME_UNKNOWN"])),
        ("POST", f"/v2/mint-backend/blobs/uploads/?digest={sha256(b'x')}", b"y", (400, ["DIGEST_INVALID"])),
        ("PUT", "/v2/mint-backend/manifests/v1", manifest(b"absent"), (400, ["MANIFEST_BLOB_UNKNOWN"])),
        ("GET", "/v2/mint-backend/manifests/none", b"", (404, ["MANIFEST_UNKNOWN"])),
        ("GET", f"/v2/mint-backend/blobs/{sha256(b'none')}", b"", (404, ["BLOB_UNKNOWN"])),
        ("PATCH", "/v2/mint-backend/blobs/uploads/0-0", b"x", (404, ["BLOB_UPLOAD_UNKNOWN"])),
    ],
)
def test_the_registry_refuses_invalid_requests(
    cloud: EmbeddedCloud, method: str, path: str, body: bytes, expected: tuple[int, list[str]]
) -> None:
    """With the error codes of the distribution specification."""
    assert registry(cloud, method, path, body) == expected


def test_a_tag_is_immutable(cloud: EmbeddedCloud) -> None:
    """The same image is accepted again, another one is refused."""
    for layer in (b"one", b"two"):
        registry(cloud, "POST", f"/v2/mint-backend/blobs/uploads/?digest={sha256(layer)}", layer)
    put = "/v2/mint-backend/manifests/v1"

    assert [registry(cloud, "PUT", put, manifest(layer))[0] for layer in (b"one", b"one", b"two")] == [201, 201, 400]


def test_a_wrong_password_is_refused(cloud: EmbeddedCloud) -> None:
    """With status 401, so that docker logs in."""
    wrong = base64.b64encode(b"AWS:guessed").decode()

    assert registry(cloud, "GET", "/v2/", token=wrong) == (401, ["UNAUTHORIZED"])


def test_a_fault_may_come_after_the_request_was_carried_out(cloud: EmbeddedCloud) -> None:
    """The response is lost or replaced; `skip` spares the first requests of the kind."""
    s3, bucket = cloud.client("s3"), "local-mint-app-static"
    cloud.fail(service="s3", operation="PutObject", skip=1, after=True, drop=True)

    for key in ("one", "two", "three"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    cloud.fail(service="s3", operation="GetObject", status=200, body="something else")

    assert [r["path"].rpartition("/")[2] for r in cloud.requests("s3", "PutObject")] == ["one", "two", "two", "three"]
    assert s3.get_object(Bucket=bucket, Key="one")["Body"].read() == b"something else"
    assert s3.get_object(Bucket=bucket, Key="two")["Body"].read() == b"x"


def test_a_fault_breaks_as_many_requests_as_its_rule_says(cloud: EmbeddedCloud) -> None:
    s3 = cloud.client("s3")
    cloud.fail(service="s3", operation="PutObject", status=403, code="AccessDenied", times=1)

    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"")
    assert [r["status"] for r in cloud.requests("s3", "PutObject")] == [403, 200]
