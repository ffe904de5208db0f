"""Requests to S3: what they hold, which are tried again, and what each answer means."""

import base64
import hashlib
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from http.client import parse_headers
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.httpsession import get_cert_path
from msgspec.structs import replace

from scripts.edges import s3
from scripts.edges.s3 import Bucket, Keys, Remote, S3Error, Unanswered, Upload
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from tests.release import certificates
from tests.stand_in import Reply, StandIn, stand_in
from tests.test_http import _no_proxy_of_this_machine, saying, serving

__all__ = ["_no_proxy_of_this_machine"]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture
def server() -> Any:
    """A server that answers as a test sets."""
    with stand_in(lambda *_: Reply(b"")) as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time."""
    found = list[float]()
    monkeypatch.setattr(s3, "time", SimpleNamespace(sleep=found.append))
    return found


def bucket(server: StandIn, name: str = "site/app", **more: Any) -> Bucket:
    return Bucket(name, "us-west-2", f"{server.url}/", Keys("key", "secret"), "dev", use_proxy=False, **more)


def error(code: str, message: str = "said S3") -> bytes:
    """An error as S3 sends it."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def in_turn(*replies: Reply) -> Callable[[str, str], Reply]:
    """One reply after the other; the last one again and again."""
    left = list(replies)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("etag", "reply", "still"),
    [
        ("e", Reply(b"", 304), True),
        ("e", Reply(b"x", 200, {"ETag": '"e"'}), True),
        ("e", Reply(b"x", 200, {"ETag": '"f"'}), False),
        ("e", Reply(error("NoSuchKey"), 404), False),
        ("", Reply(error("NoSuchKey"), 404), True),
        ("", Reply(b"x", 200, {"ETag": '"e"'}), False),
    ],
)
def test_whether_an_object_is_still_the_same(etag: str, reply: Reply, still: bool, server: StandIn) -> None:
    """Or still missing. S3 need not send it again."""
    server.answer = in_turn(reply)

    assert bucket(server).is_still("a b/c.txt", etag, 10) is still
    (asked,) = server.requests
    assert (asked["method"], asked["path"]) == ("GET", "/site/app/a%20b/c.txt")
    assert asked["headers"].get("If-None-Match", "") == (f'"{etag}"' if etag else "")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(b"x" * 10, 200, {"ETag": '"e"'}), (b"x" * 10, "e")),
        (Reply(b"", 200), (b"", "")),
        (Reply(error("NoSuchKey"), 404), None),
        (Reply(b"", 404), None),
        (Reply(b"x" * 11, 200, {"ETag": '"e"'}), "S3's response to reading key in site/app is larger than 10 bytes."),
        (Reply(error("NoSuchBucket"), 404), "NoSuchBucket: said S3"),
        (Reply(b"", 403), "S3 refused reading key in the bucket site/app (dev, us-west-2): AccessDenied"),
        (Reply(b"<html>", 418), "S3 refused reading key in the bucket site/app (dev, us-west-2): 418"),
    ],
)
def test_reading_an_object(reply: Reply, found: Any, server: StandIn) -> None:
    """Its body and ETag, None without one, or an error. What is larger than expected is not read."""
    server.answer = in_turn(reply)

    if isinstance(found, str):
        with pytest.raises(DeployError) as refused:
            bucket(server).get("key", 10)
        assert found in str(refused.value)
    else:
        assert bucket(server).get("key", 10) == found
    assert len(server.requests) == 1


def test_an_answer_that_is_cut_off_is_lost() -> None:
    """Unless it has no body anyway: with status 304 S3 may name the length of the object."""
    cut, still = (
        f"HTTP/1.1 {status}\r\nETag: x\r\nContent-Length: 9\r\n\r\n".encode()
        for status in ("200 OK", "304 Not Modified")
    )
    with serving(saying(cut + b"1234")) as port, pytest.raises(Unanswered, match=r"in 1 tries: "):
        bucket(StandIn(f"http://127.0.0.1:{port}", in_turn())).get("key", 10, tries=1)
    with serving(saying(still)) as port:
        assert bucket(StandIn(f"http://127.0.0.1:{port}", in_turn())).is_still("key", "x", 10)


def test_writing_an_object(server: StandIn) -> None:
    """With a checksum, which Object Lock demands, and the headers of the settings and of this object."""
    server.answer = in_turn(Reply(b"", 200, {"ETag": '"e"'}))
    writing = bucket(server, put_headers={"x-amz-acl": "private", "x-amz-tagging": "a=1"})

    assert writing.put("key", b"body", {"If-None-Match": "*", "x-amz-tagging": "b=2"}) == "e"

    (asked,) = server.requests
    sent = {name.lower(): value for name, value in asked["headers"].items()}
    assert (asked["method"], asked["path"], asked["body"]) == ("PUT", "/site/app/key", b"body")
    assert sent["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(b"body").digest()).decode()
    assert (sent["if-none-match"], sent["x-amz-acl"], sent["x-amz-tagging"]) == ("*", "private", "b=2")
    assert "Credential=key/" in sent["authorization"]
    assert "/us-west-2/s3/aws4_request" in sent["authorization"]
    assert writing.requests == 1


def test_an_object_without_an_etag_may_not_be_written(server: StandIn) -> None:
    """S3 sends one for each."""
    with pytest.raises(Unanswered, match=r"^S3's response to writing key to site/app \(dev\) has no ETag\.$"):
        bucket(server).put("key", b"", {})


def test_copying_an_object(server: StandIn) -> None:
    """In the folder. S3 may say with status 200 that it failed."""
    server.answer = in_turn(Reply(b"<CopyObjectResult/>"), Reply(error("InternalError")))
    copying = bucket(server, put_headers={"x-amz-acl": "private"})

    copying.copy("a b+~.txt", "to")
    with pytest.raises(DeployError, match=r"^S3's response to copying a in site/app is malformed: Error instead of"):
        copying.copy("a", "to")

    sent = {name.lower(): value for name, value in server.requests[0]["headers"].items()}
    assert (server.requests[0]["method"], server.requests[0]["path"]) == ("PUT", "/site/app/to")
    assert (sent["x-amz-copy-source"], sent["x-amz-acl"]) == ("site/app/a%20b%2B~.txt", "private")


def test_deleting_objects(server: StandIn) -> None:
    """A thousand in a request, each perhaps only with its ETag. What S3 has not deleted is returned."""
    failed = b"<DeleteResult><Error><Key>app/key1000</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    server.answer = in_turn(Reply(b"<DeleteResult/>"), Reply(failed))
    keys = [f"key{number}" for number in range(1001)]

    assert bucket(server).delete(keys, {"key0": "e"}) == {"key1000": "AccessDenied"}

    first, _ = server.requests
    assert (first["method"], first["path"]) == ("POST", "/site")
    assert (
        first["headers"]["Content-MD5"]
        == base64.b64encode(hashlib.md5(first["body"], usedforsecurity=False).digest()).decode()
    )
    asked, last = (ElementTree.fromstring(request["body"]) for request in server.requests)  # noqa: S314 - our own
    assert (asked.tag, asked.findtext("Quiet")) == ("Delete", "true")
    objects = [(item.findtext("Key"), item.findtext("ETag")) for item in asked.iter("Object")]
    assert objects[:2] == [("app/key0", '"e"'), ("app/key1", None)]
    assert len(objects) == 1000
    assert [item.findtext("Key") for item in last.iter("Object")] == ["app/key1000"]


def listing(*keys: str, size: str = "1", more: str = "<IsTruncated>false</IsTruncated>") -> Reply:
    """A page of LIST."""
    item = '<Contents><Key>{}</Key><Size>{}</Size><ETag>"e"</ETag></Contents>'
    items = "".join(item.format(key, size) for key in keys)
    return Reply(f"<ListBucketResult xmlns='http://s3.amazonaws.com/doc/'>{more}{items}</ListBucketResult>".encode())


MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>a+b=</NextContinuationToken>"


def test_listing_objects(server: StandIn) -> None:
    """Page by page, in the folder. The folder itself is no object of it."""
    server.answer = in_turn(listing("app/", "app/a%20b", more=MORE), listing("app/c+d"))

    assert bucket(server).list("x") == {"a b": Remote("e", 1), "c d": Remote("e", 1)}

    first, second = (request["query"] for request in server.requests)
    assert first == {"list-type": ["2"], "encoding-type": ["url"], "prefix": ["app/x"]}
    assert second == {**first, "continuation-token": ["a+b="]}
    server.requests.clear()
    server.answer = in_turn(listing("a"))
    assert bucket(server, "site").list() == {"a": Remote("e", 1)}
    assert "prefix" not in server.requests[0]["query"]


def test_a_deletion_whose_answer_is_not_one(server: StandIn) -> None:
    """Nothing says what is deleted."""
    server.answer = in_turn(Reply(b"<html/>"), Reply(b"", 403))

    said = r"^S3's response to deleting from site/app is malformed: html instead of DeleteResult\.$"
    with pytest.raises(DeployError, match=said):
        bucket(server).delete(["key"], {})
    refused = r"^S3 refused deleting from the bucket site/app \(dev, us-west-2\): AccessDenied\.$"
    with pytest.raises(S3Error, match=refused):
        bucket(server).delete(["key"], {})


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (listing("app/a", size="x"), "is malformed: the object 'app/a' has the size 'x'"),
        (listing("app/a", size="1" * 19), "is malformed: the object 'app/a' has the size '1111111111111111111'"),
        (listing("app/a", size=""), "is malformed: the object 'app/a' has the size ''"),
        (listing(""), "is malformed: the object '' has"),
        (listing("other/a"), "is malformed: the object 'other/a' has"),
        (listing("app/a", more=""), "is incomplete: S3 sent no continuation token"),
        (listing("app/a", more="<IsTruncated>true</IsTruncated>"), "is incomplete: S3 sent no continuation token"),
        (Reply(b"<html/>"), "S3's response to listing site/app is malformed: html instead of ListBucketResult"),
        (Reply(b"<!DOCTYPE x><ListBucketResult/>"), "is malformed: it declares entities"),
        (Reply(b""), "is malformed: no element found"),
    ],
)
def test_a_listing_that_is_not_one(reply: Reply, said: str, server: StandIn) -> None:
    """Whatever is taken for missing might be deleted."""
    server.answer = in_turn(reply)

    with pytest.raises(DeployError) as refused:
        bucket(server).list()
    assert said in str(refused.value)


def test_a_listing_that_does_not_end(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGES", 2)
    server.answer = in_turn(listing("app/a", more=MORE))

    with pytest.raises(DeployError, match=r"^The listing of site/app does not end: S3 sent more than 2 pages\.$"):
        bucket(server).list()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [
        (500, "InternalError", 6),
        (503, "SlowDown", 6),
        (429, "TooManyRequests", 6),
        (400, "RequestTimeout", 6),
        (409, "ConditionalRequestConflict", 6),
        (409, "OperationAborted", 1),
        (412, "PreconditionFailed", 1),
        (403, "AccessDenied", 1),
        (400, "InvalidRequest", 1),
    ],
)
def test_which_errors_pass(status: int, code: str, tries: int, server: StandIn, pauses: list[float]) -> None:
    """They are tried again for longer than five seconds, the pauses growing; then the last one is raised."""
    server.answer = in_turn(Reply(error(code), status))

    with pytest.raises(S3Error) as failed:
        bucket(server).put("key", b"", {})

    assert (failed.value.status, failed.value.s3_code, failed.value.code) == (status, code, 1)
    assert len(server.requests) == tries
    longest = [1.1, 2.2, 4.4, 5.0, 5.0][: tries - 1]
    assert len(pauses) == len(longest)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


@pytest.mark.parametrize(
    ("dropped", "given", "tries"), [(Reply(b"", drop=True), {}, 6), (Reply(b"", drop=True), {"tries": 2}, 2)]
)
def test_a_lost_answer_is_asked_for_again(
    dropped: Reply, given: dict[str, int], tries: int, server: StandIn, pauses: list[float]
) -> None:
    """One that came after all counts; at the end it is doubtful what S3 has done."""
    server.answer = in_turn(dropped, Reply(b"", 200, {"ETag": '"e"'}))
    assert bucket(server).put("key", b"", {}) == "e"

    server.answer, server.requests[:] = in_turn(dropped), []
    lost = rf"^S3 cannot be reached for writing key to site/app \(dev\) in {tries} tries: "
    with pytest.raises(Unanswered, match=lost) as unanswered:
        bucket(server).put("key", b"", {}, **given)
    assert s3.is_doubtful(unanswered.value)
    with pytest.raises(Unanswered, match=lost.replace("writing key to", "reading key in")):
        bucket(server).get("key", 10, **given)
    assert len(server.requests) == 2 * tries


@pytest.mark.parametrize(
    ("raised", "doubtful"),
    [
        (Unanswered("x"), True),
        (S3Error("x", 500, ""), True),
        (S3Error("x", 499, ""), False),
        (DeployError("x"), False),
        (Refused("x"), False),
    ],
)
def test_after_which_errors_s3_may_have_done_it(raised: DeployError, doubtful: bool) -> None:
    assert s3.is_doubtful(raised) is doubtful


LOGIN = "S3 rejected the credentials for listing the bucket site/app (dev, us-west-2): {}. Log in again and run"
REGION = "Wrong region for listing the bucket site/app (dev, us-west-2): {}. Check AWS_REGION and the settings."


@pytest.mark.parametrize(
    ("status", "code", "headers", "said"),
    [
        (403, "InvalidAccessKeyId", {}, LOGIN),
        (400, "ExpiredToken", {}, LOGIN),
        (400, "InvalidToken", {}, LOGIN),
        (403, "SignatureDoesNotMatch", {}, LOGIN),
        (400, "TokenRefreshRequired", {}, LOGIN),
        (400, "PermanentRedirect", {}, REGION),
        (400, "AuthorizationHeaderMalformed", {}, REGION),
        (400, "TemporaryRedirect", {}, REGION),
        (307, "x", {}, REGION),
        (301, "", {}, REGION.format("PermanentRedirect")),
        (301, "x", {"x-amz-bucket-region": "eu-west-1"}, REGION.format("the bucket is in eu-west-1")),
        (403, "RequestTimeTooSkewed", {}, "RequestTimeTooSkewed: this machine's clock is wrong. Set the clock, and"),
    ],
)
def test_a_refusal_for_which_somebody_has_to_do_something(
    status: int, code: str, headers: dict[str, str], said: str, server: StandIn
) -> None:
    """It says what, in place of S3's message, and nothing was changed."""
    server.answer = in_turn(Reply(error(code), status, headers))

    with pytest.raises(S3Error) as refused:
        bucket(server).list()

    assert said.format(code) in str(refused.value)
    assert (refused.value.code, len(server.requests)) == (2, 1)
    assert "said S3" not in str(refused.value)


@pytest.mark.parametrize(
    ("size", "requests"),
    [(0, 1), (16 << 20, 1), ((16 << 20) + 1, 5), (24 << 20, 5), ((24 << 20) + 1, 6)],
)
def test_how_many_requests_an_upload_takes(size: int, requests: int) -> None:
    """A large one is begun, sent in parts of 8 MB, and completed."""
    assert s3.requests_of(size) == requests


@pytest.mark.parametrize(
    ("name", "endpoint", "virtual", "url"),
    [
        ("site", "", False, "https://site.s3.us-west-2.amazonaws.com/a"),
        ("site/app", "", False, "https://site.s3.us-west-2.amazonaws.com/app/a"),
        ("www.site", "", False, "https://s3.us-west-2.amazonaws.com/www.site/a"),
        ("site", "http://127.0.0.1:9/", False, "http://127.0.0.1:9/site/a"),
        ("site", "https://site.s3.example.org", True, "https://site.s3.example.org/a"),
    ],
)
def test_where_an_object_is(name: str, endpoint: str, virtual: bool, url: str) -> None:
    """The host names the bucket, unless it has a dot, which no certificate covers."""
    where = Bucket(name, "us-west-2", endpoint, Keys("key", "secret"), "dev", virtual=virtual)

    assert where._url("a", {}) == url


def upload(folder: Path, key: str, size: int) -> Upload:
    """A file of a build, unlike every other one."""
    body = (key.encode() * size)[:size]
    (folder / key).write_bytes(body)
    headers = {"Content-Type": "text/x", "Cache-Control": "no-cache"}
    return Upload(key, str(folder / key), size, hashlib.sha256(body).hexdigest(), headers)


def storing(method: str, path: str) -> Reply:
    """What S3 answers to each request of an upload, also of one in parts."""
    return Reply(
        b'<Done><UploadId>u</UploadId><ETag>"e"</ETag></Done>' if method == "POST" else b"", 200, {"ETag": '"e"'}
    )


def stored(server: StandIn) -> dict[str, tuple[dict[str, str], bytes]]:
    """What a server was sent, by key: headers with names in lower case, and the body, joined from its parts."""
    found, parts = dict[str, tuple[dict[str, str], bytes]](), dict[str, dict[int, bytes]]()
    for asked in server.requests:
        key = asked["path"].removeprefix("/site/app/")
        if number := asked["query"].get("partNumber"):
            parts.setdefault(key, {})[int(number[0])] = asked["body"]
        elif "uploadId" not in asked["query"]:
            found[key] = {name.lower(): value for name, value in asked["headers"].items()}, asked["body"]
    for key, of_one in parts.items():
        found[key] = found[key][0], b"".join(of_one[number] for number in sorted(of_one))
    return found


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are large from 101 bytes on, and tries follow each other at once."""
    for name, value in {"SMALL": 50, "SINGLE_PUT": 100, "PART": 64, "FIRST_PAUSE": 1e-3, "LONGEST_PAUSE": 1e-3}.items():
        monkeypatch.setattr(s3, name, value)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("headers", [{}, {"x-amz-acl": "private"}], ids=["", "with headers"])
@pytest.mark.parametrize(
    "sizes",
    [[0], [100], [101], [10] * 3, [10, 51], [50] * 9, [10, 100, 101, 150, 64], []],
    ids=["empty", "one", "a large one", "a few", "a middling one", "many", "all kinds", "none"],
)
def test_many_objects_are_put_whole(sizes: list[int], headers: dict[str, str], server: StandIn, tmp_path: Path) -> None:
    """However many and large they are: each with its headers, those of the settings, and checksums."""
    server.answer = storing
    uploads = [upload(tmp_path, f"key{number}", size) for number, size in enumerate(sizes)]
    done: list[tuple[Upload, str]] = []
    putting = bucket(server, put_headers=headers)

    putting.put_all(uploads, lambda *one: done.append(one))

    assert sorted(done, key=lambda one: one[0].key) == [(one, "e") for one in uploads]
    assert putting.requests == len(server.requests)
    found = stored(server)
    assert {key: body for key, (_, body) in found.items()} == {one.key: Path(one.path).read_bytes() for one in uploads}
    for one in uploads:
        sent = found[one.key][0]
        assert sent.items() >= {**headers, "content-type": "text/x", "cache-control": "no-cache"}.items()
        assert "/us-west-2/s3/aws4_request" in sent["authorization"]
        if "x-amz-checksum-algorithm" not in sent:
            assert sent["x-amz-checksum-sha256"] == base64.b64encode(bytes.fromhex(one.sha256)).decode()
    parts = [asked for asked in server.requests if "partNumber" in asked["query"]]
    assert len(parts) == (0 if headers else sum(-(-size // 64) for size in sizes if size > 100))
    assert all("x-amz-checksum-sha256" in asked["headers"] for asked in parts)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("many", [1, 2, 9], ids=["one", "a few", "many"])
@pytest.mark.parametrize(
    ("reply", "kind", "code", "said"),
    [
        (Reply(error("AccessDenied"), 403), S3Error, 1, "the bucket site/app (dev, us-west-2): AccessDenied: said S3."),
        (Reply(error("NoSuchBucket"), 404), S3Error, 1, "the bucket site/app (dev, us-west-2): NoSuchBucket: said S3."),
        (Reply(error("ExpiredToken"), 400), S3Error, 2, "S3 rejected the credentials for writing "),
        (Reply(error("SlowDown"), 503), S3Error, 1, "the bucket site/app (dev, us-west-2): SlowDown: said S3."),
        (Reply(b"", drop=True), Unanswered, 1, "site/app (dev) in 6 tries: "),
        (Reply(b""), Unanswered, 1, ""),
    ],
    ids=["denied", "no bucket", "expired", "slow down", "dropped", "no ETag"],
)
def test_an_upload_that_fails_ends_them_all(
    many: int,
    reply: Reply,
    kind: type[DeployError],
    code: int,
    said: str,
    server: StandIn,
    pauses: list[float],
    tmp_path: Path,
) -> None:
    """In the same words, however many there are; what passes is tried six times."""
    server.answer = in_turn(reply)

    with pytest.raises(kind) as failed:
        bucket(server).put_all([upload(tmp_path, f"key{number}", 10) for number in range(many)], lambda *_: None)

    assert (type(failed.value), failed.value.code) == (kind, code)
    assert said in str(failed.value)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("size", "many"), [(10, 1), (10, 3), (10, 9), (101, 1)])
@pytest.mark.parametrize("headers", [{}, {"x-amz-acl": "private"}], ids=["", "with headers"])
def test_a_file_that_is_no_longer_what_was_released_is_not_put(
    size: int, many: int, headers: dict[str, str], server: StandIn, tmp_path: Path
) -> None:
    """Another one, or none."""
    server.answer = storing
    uploads = [upload(tmp_path, f"key{number}", size) for number in range(many)]
    putting = bucket(server, put_headers=headers)

    (tmp_path / "key0").write_bytes(b"x" * size)
    with pytest.raises(
        DeployError, match=r"key0 changed during the release: build again, and release the new build\.$"
    ):
        putting.put_all(uploads, lambda *_: None)
    (tmp_path / "key0").unlink()
    with pytest.raises(DeployError, match=r"key0 can no longer be read: No such file or directory\.$"):
        putting.put_all(uploads, lambda *_: None)

    assert "key0" not in stored(server)


@pytest.mark.usefixtures("small_parts")
def test_what_the_caller_raises_after_an_upload_is_not_taken_for_an_error_of_s3(
    server: StandIn, tmp_path: Path
) -> None:
    """A bug keeps its traceback."""
    server.answer = storing

    with pytest.raises(ExceptionGroup) as raised:
        bucket(server).put_all([upload(tmp_path, f"key{n}", 10) for n in range(9)], lambda *_: 1 // 0)

    assert {type(one) for one in raised.value.exceptions} == {ZeroDivisionError}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("many", [1, 9])
@pytest.mark.parametrize("token", ["", "session"])
def test_each_upload_is_signed_with_the_keys_that_are_valid_then(
    many: int, token: str, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of a role are renewed. obstore's own variables, and a token of other keys, change nothing."""
    monkeypatch.setattr(s3, "ASK_AGAIN", timedelta(0))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    server.answer, now = storing, ["one"]
    given = Bucket("site/app", "us-west-2", server.url, lambda: Keys(now[0], "s", token), "dev", use_proxy=False)
    uploads = [upload(tmp_path, f"key{number}", 10) for number in range(many)]

    given.put_all(uploads, lambda *_: None)
    now[0] = "two"
    given.put_all(uploads, lambda *_: None)

    headers = [{name.lower(): value for name, value in asked["headers"].items()} for asked in server.requests]
    keys = [sent["authorization"].partition("Credential=")[2].partition("/")[0] for sent in headers]
    assert (keys[:many], keys[many:]) == (["one"] * many, ["two"] * many)
    assert {sent.get("x-amz-security-token", "") for sent in headers} == {token}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("many", [1, 9])
def test_where_the_host_names_the_bucket_the_path_does_not(many: int, server: StandIn, tmp_path: Path) -> None:
    """Nor with many uploads."""
    server.answer = storing

    bucket(server, virtual=True).put_all([upload(tmp_path, f"key{n}", 10) for n in range(many)], lambda *_: None)

    assert sorted(asked["path"] for asked in server.requests) == [f"/app/key{number}" for number in range(many)]


def test_an_endpoint_that_cannot_be_one_is_an_error(tmp_path: Path) -> None:
    """In one line."""
    odd = Bucket("site", "us-west-2", "http://a b", Keys("key", "secret"), "dev", use_proxy=False)

    with pytest.raises(DeployError, match=r"^Uploads to site cannot start: .*$"):
        odd.put_all([upload(tmp_path, f"key{number}", 10) for number in range(9)], lambda *_: None)


UNTRUSTED = "The certificate of h:1 is not trusted, for writing to site (dev): set AWS_CA_BUNDLE to a file with the"
UNTRUSTED += " certificate of its CA."
UNKNOWN = "S3 cannot be reached for writing to site (dev) in {} tries: {}."


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("Generic S3 error: PUT u\n\nDebug source:\nmore", UNKNOWN.format(1, "Generic S3 error: PUT u")),
        (
            "PUT u in 1s, after 5 retries, max_retries: 5, retry_timeout: 40s  - HTTP error: x",
            UNKNOWN.format(6, "PUT u in 1s - HTTP error: x"),
        ),
        ("PUT u - HTTP error\n\nHttpError { kind: Timeout }", UNKNOWN.format(1, "PUT u - HTTP error: timed out")),
        ("x" * 400, UNKNOWN.format(1, "x" * 300)),
        ("PUT u\nsource: invalid peer certificate: UnknownIssuer", UNTRUSTED),
        ("PUT u\nsource: InvalidCertificate(Expired)", UNTRUSTED),
        (
            "PUT u\n<Error><Code>KMS.Disabled</Code><Message>the key is off</Message></Error>",
            "S3 refused writing to the bucket site (dev, us-west-2): KMS.Disabled: the key is off.",
        ),
        ("<Error><Code>C</Code></Error>", "S3 refused writing to the bucket site (dev, us-west-2): C."),
    ],
    ids=["a line", "tried often", "timed out", "long", "unknown CA", "expired", "with a code", "without a message"],
)
def test_what_an_error_of_many_uploads_means(told: str, said: str) -> None:
    """Of its many lines, the one that says why."""
    there = Bucket("site", "us-west-2", "https://h:1", Keys("key", "secret"), "dev")

    found = there._translated(RuntimeError(told))

    assert str(found) == said
    assert isinstance(found, Unanswered) == said.startswith("S3 cannot be reached")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.3, "0 s behind"), (99.8, "100 s ahead of"), (-99.8, "100 s behind"), (1234.8, "1,235 s ahead of")],
)
def test_how_wrong_this_machines_clock_is(seconds: float, said: str) -> None:
    """By S3's own time."""
    now = datetime.now(UTC) - timedelta(seconds=seconds)

    assert s3._skew(now.isoformat()) == f"this machine's clock is {said} S3's"
    for odd in ("", "today", now.replace(tzinfo=None).isoformat()):
        assert s3._skew(odd) == "this machine's clock is wrong"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"<Error><Code>PermanentRedirect</Code><Region>r1</Region></Error>", 301), "the bucket is in r1"),
        (
            Reply(b"<Error><Code>C</Code><Region>r1</Region></Error>", 307, {"x-amz-bucket-region": "r2"}),
            "the bucket is in r2",
        ),
        (Reply(f"<Error><Code>C</Code><Region>{'r' * 31}</Region></Error>".encode(), 301), f"in {'r' * 30}. "),
        (Reply(b"", 301, {"x-amz-bucket-region": "r" * 31}), f"in {'r' * 30}. "),
        (Reply(error("c" * 2001, "m" * 2001), 400), f": {'c' * 2000}: {'m' * 2000}."),
        (Reply(b"<Error><Code>C</Code></Error>", 400), "(dev, us-west-2): C."),
        (
            Reply(
                b"<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2020-01-01T00:00:00Z</ServerTime></Error>", 403
            ),
            "s ahead of S3's. Set the clock, and run this again.",
        ),
        (Reply(b"<!DOCTYPE x><Error><Code>C</Code></Error>", 403), "(dev, us-west-2): AccessDenied."),
    ],
)
def test_what_is_shown_of_a_refusal(reply: Reply, said: str, server: StandIn) -> None:
    """S3's own words, at no length."""
    server.answer = in_turn(reply)

    with pytest.raises(S3Error) as refused:
        bucket(server).list()

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError("gone"), "gone"),
        (OSError(), "OSError"),
        (EndpointConnectionError(endpoint_url="u", error=ValueError("why")), "why"),
        (EndpointConnectionError(endpoint_url="u"), 'Could not connect to the endpoint URL: "u"'),
        (
            EndpointConnectionError(endpoint_url="u", error=OSError("AWSHTTPSConnection(host='h', port=1): refused")),
            "refused",
        ),
        (ValueError("AWSHTTPConnectionPool(host='h', port=1): Read timed out."), "Read timed out."),
    ],
)
def test_why_a_connection_failed_is_said_without_pythons_objects(raised: Exception, said: str) -> None:
    assert s3._reason(raised) == said


@pytest.mark.parametrize(
    ("region", "env", "config", "url"),
    [
        ("us-west-2", {}, "", "https://a-bucket.s3.us-west-2.amazonaws.com"),
        ("us-west-2", {"AWS_USE_FIPS_ENDPOINT": "true"}, "", "https://a-bucket.s3-fips.us-west-2.amazonaws.com"),
        ("us-west-2", {}, "use_fips_endpoint = true", "https://a-bucket.s3-fips.us-west-2.amazonaws.com"),
        (
            "us-west-2",
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "",
            "https://a-bucket.s3.dualstack.us-west-2.amazonaws.com",
        ),
        ("us-west-2", {}, "s3 =\n  use_accelerate_endpoint = true", "https://a-bucket.s3-accelerate.amazonaws.com"),
        ("cn-north-1", {}, "", "https://a-bucket.s3.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", {}, "", "https://a-bucket.s3.us-gov-west-1.amazonaws.com"),
        ("us-iso-east-1", {}, "", "https://a-bucket.s3.us-iso-east-1.c2s.ic.gov"),
        ("cn-north-1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "", "http://127.0.0.1:1/a-bucket"),
    ],
    ids=[
        *("ordinary", "FIPS", "FIPS in the profile", "dual-stack", "accelerated"),
        *("China", "a government's", "isolated", "an endpoint of one's own"),
    ],
)
def test_the_host_is_the_one_that_botocore_chooses(
    region: str, env: dict[str, str], config: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the bucket. What is written there gets the headers of the settings."""
    (tmp_path / "config").write_text(f"[default]\n{config}\n")
    for name, value in {**KEYS, "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_REGION": region, **env}.items():
        monkeypatch.setenv(name, value)

    dev, wanted = settings.find("dev"), {"x-amz-acl": "private"}

    found = s3.open_bucket(replace(dev, frontend=replace(dev.frontend, put_headers=wanted)), "a-bucket/app")

    assert (found._url("a b", {}), found._put_headers) == (f"{url}/app/a%20b", wanted)


@pytest.mark.parametrize("env", [{}, {"AWS_USE_FIPS_ENDPOINT": "true"}], ids=["ordinary", "FIPS"])
def test_a_bucket_with_a_dot_is_in_the_path(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate has such a host."""
    for name, value in {**KEYS, **env}.items():
        monkeypatch.setenv(name, value)

    found = s3.open_bucket(settings.find("dev"), "www.site")

    assert found._url("a", {}) == f"https://s3{'-fips' if env else ''}.us-west-2.amazonaws.com/www.site/a"


PROFILE = "[work]\naws_access_key_id = theirs\naws_secret_access_key = s\naws_session_token = t\n"


@pytest.mark.parametrize(
    ("env", "keys", "renewed"),
    [
        (KEYS, Keys("key", "secret"), False),
        ({**KEYS, "AWS_SESSION_TOKEN": "token"}, Keys("key", "secret", "token"), False),
        ({"AWS_PROFILE": "work"}, Keys("theirs", "s", "t"), True),
    ],
    ids=["keys", "a session", "a profile"],
)
def test_the_keys_are_those_of_this_machine(
    env: dict[str, str], keys: Keys, renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a profile may be renewed meanwhile."""
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws" / "credentials").write_text(PROFILE)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    found = s3.open_bucket(settings.find("dev"), "site")

    assert (found._keys(), found._renews) == (keys, renewed)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "No AWS credentials for "),
        ({"AWS_ACCESS_KEY_ID": "key"}, "No AWS credentials for "),
        ({"AWS_SECRET_ACCESS_KEY": "secret"}, "No AWS credentials for "),
        ({**KEYS, "AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        ({**KEYS, "AWS_ENDPOINT_URL_S3": "ftp://127.0.0.1"}, "is not the endpoint of S3 (AWS_ENDPOINT_URL_S3)"),
        ({**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, "is not the endpoint of S3 (AWS_ENDPOINT_URL)"),
    ],
    ids=["nothing", "half of the keys", "the other half", "no such profile", "another scheme", "no port"],
)
def test_a_bucket_that_could_not_be_reached_is_not_opened(
    env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is said before the first request."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(Refused) as refused:
        s3.open_bucket(settings.find("dev"), "site")

    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["local", "dev"])
def test_the_headers_of_the_settings_are_those_of_everything_that_is_written(
    name: str, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedded AWS gets keys of its own, and is asked directly."""
    for variable, value in {**KEYS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(variable, value)
    if name == "local":
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    env = settings.find(name)
    wanted = replace(env, frontend=replace(env.frontend, put_headers={"x-amz-acl": "private", "x-amz-meta-n": "1"}))
    server.answer = storing

    s3.open_bucket(wanted, "site").put("a", b"", {})

    sent = {key.lower(): value for key, value in server.requests[0]["headers"].items()}
    assert (sent["x-amz-acl"], sent["x-amz-meta-n"]) == ("private", "1")
    assert f"Credential={'local' if name == 'local' else 'key'}/" in sent["authorization"]
    for odd in ("Host", "x-amz-", "X-Amz-Acl", "x-amz-a\n", "ax-amz-acl"):
        wrong = replace(env, frontend=replace(env.frontend, put_headers={odd: "v"}))
        with pytest.raises(Refused, match=rf"^frontend\.put_headers of {name}: .* does not begin with x-amz-\.$"):
            s3.open_bucket(wrong, "site")


@pytest.mark.parametrize("many", [1, 9])
@pytest.mark.parametrize(
    ("endpoint", "env", "use_proxy"),
    [
        ("http://s3.test", {"http_proxy": "{url}"}, True),
        ("http://s3.test", {"HTTP_PROXY": "{url}"}, True),
        ("http://s3.test", {"HTTP_PROXY": "{url}", "NO_PROXY": "127.0.0.1"}, True),
        ("{url}", {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, True),
        ("{url}", {"HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}, True),
        ("{url}", {"HTTP_PROXY": "http://127.0.0.1:9"}, False),
    ],
    ids=["a proxy", "in upper case", "of others", "not for this host", "of another scheme", "none wanted"],
)
def test_every_request_takes_the_same_way(
    endpoint: str,
    env: dict[str, str],
    use_proxy: bool,
    many: int,
    server: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through the proxy, or directly."""
    server.answer = storing
    for name, value in env.items():
        monkeypatch.setenv(name, value.format(url=server.url))
    monkeypatch.setattr(s3, "TRIES", 1)
    where = endpoint.format(url=server.url)
    there = Bucket("site/app", "us-west-2", where, Keys("key", "secret"), "dev", use_proxy=use_proxy)

    there.put_all([upload(tmp_path, f"key{number}", 10) for number in range(many)], lambda *_: None)

    assert sorted(stored(server)) == [f"key{number}" for number in range(many)]
    hosts = {value for asked in server.requests for name, value in asked["headers"].items() if name.lower() == "host"}
    assert hosts == {where.removeprefix("http://")}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxy", ["::::", "http://user:hidden@proxy:99999", "http://user:hidden@proxy:0", "http://"])
def test_a_proxy_that_is_none_is_refused(scheme: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password."""
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    there = Bucket("site", "us-west-2", f"{scheme}://s3.test", Keys("key", "secret"), "dev")

    with pytest.raises(Refused) as refused:
        there.list()

    said = f"{scheme.upper()}_PROXY is not the URL of a proxy: it must begin with http:// and a host."
    assert str(refused.value) == said


ADVICE = "Check AWS_CA_BUNDLE, ca_bundle in the AWS profile, and REQUESTS_CA_BUNDLE."


@pytest.mark.parametrize(
    ("set_in", "used"),
    [
        (["AWS_CA_BUNDLE"], "AWS_CA_BUNDLE"),
        (["the profile"], "the profile"),
        (["REQUESTS_CA_BUNDLE"], "REQUESTS_CA_BUNDLE"),
        (["AWS_CA_BUNDLE", "the profile", "REQUESTS_CA_BUNDLE"], "AWS_CA_BUNDLE"),
        (["the profile", "REQUESTS_CA_BUNDLE"], "the profile"),
        ([], ""),
    ],
    ids=str,
)
def test_which_certificates_are_trusted(
    set_in: list[str], used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every request alike, and none without TLS."""
    usual = get_cert_path(True)
    for where in set_in:
        file = tmp_path / where
        file.write_bytes(Path(usual).read_bytes() if where == used else b"nonsense")
        if where == "the profile":
            (tmp_path / "config").write_text(f"[default]\nca_bundle = {file}\n")
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        else:
            monkeypatch.setenv(where, str(file))
    secure = Bucket("site", "us-west-2", "https://s3.test", Keys("key", "secret"), "dev")
    open_to_all = Bucket("site", "us-west-2", "http://s3.test", Keys("key", "secret"), "dev")

    assert secure._network.certificates == (str(tmp_path / used) if used else usual)
    assert secure._client_options()["root_certificate"] == Path(usual).read_bytes()
    assert open_to_all._network.certificates is None
    # obstore takes no proxy from the environment for a host that is excluded.
    assert open_to_all._client_options() == {"proxy_url": "http://s3.test", "proxy_excludes": "s3.test"}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown"])
@pytest.mark.parametrize("many", [1, 9])
def test_only_a_server_with_a_trusted_certificate_is_sent_anything(
    many: int, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error says at once what to set, for one upload and for many."""
    made = certificates.make(tmp_path, "s3.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made / "server.pem")
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(made / "ca.pem"))

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure, secure.makefile("rb") as sent:
            sent.readline()
            head = parse_headers(sent)
            sent.read(int(head.get("content-length", "0")))
            secure.sendall(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')

    with serving(talk) as port:
        there = Bucket("site", "us-west-2", f"https://127.0.0.1:{port}", Keys("key", "secret"), "dev")
        uploads, done = [upload(tmp_path, f"key{number}", 10) for number in range(many)], list[str]()
        wanted = rf"^The certificate of 127\.0\.0\.1:{port} is not trusted, for writing .*: set AWS_CA_BUNDLE"
        with nullcontext() if trusted else pytest.raises(DeployError, match=wanted):
            there.put_all(uploads, lambda one, _: done.append(one.key))

    assert len(done) == (many if trusted else 0)


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("nonsense", "")])
def test_a_file_without_certificates_is_refused(
    content: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any request."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file))

    with pytest.raises(Refused) as refused:
        Bucket("site", "us-west-2", "https://s3.test", Keys("key", "secret"), "dev").list()

    assert str(refused.value).startswith(f"{file} is not a file of CA certificates: {why}")
    assert str(refused.value).endswith(f". {ADVICE}")
