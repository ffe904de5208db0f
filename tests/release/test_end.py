"""The end of a release: the manifest replaces the one that was read, what has no place goes, and what is said."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.edges.s3 import S3Error
from scripts.frame.errors import DeployError
from scripts.release import manifest, publish
from scripts.release.manifest import KEY
from scripts.release.publish import Released
from tests.release.fault_proxy import Fault, FaultProxy
from tests.release.test_manifest import Stored, manifest_of, stored
from tests.release.test_plan import PAGE
from tests.release.test_publish import BUCKET, Site, site
from tests.release.test_rules import Local, local, proxy, release, write
from tests.stand_in import Reply
from tests.test_s3 import error

__all__ = ["local", "proxy", "site", "stored"]

WRITTEN = manifest.dump(manifest_of(PAGE))


@pytest.mark.parametrize(("etag", "header"), [("e", ("If-Match", '"e"')), ("", ("If-None-Match", "*"))])
def test_a_manifest_is_written_if_it_is_still_the_one_that_was_read(
    stored: Stored, etag: str, header: tuple[str, str]
) -> None:
    """Or if there is still none. It is never cached."""
    stored.replies[KEY] = Reply(b"", 200, {"ETag": '"new"'})

    assert publish.write(stored.bucket, manifest_of(PAGE), etag, None) == "new"

    (request,) = stored.server.requests
    assert (request["method"], request["body"]) == ("PUT", WRITTEN)
    headers = {name.lower(): value for name, value in request["headers"].items()}
    wanted = {header[0].lower(): header[1], "content-type": "application/json; charset=utf-8"}
    assert headers.items() >= {**wanted, "cache-control": "no-store"}.items()


REFUSED = Reply(error("PreconditionFailed"), 412)


@pytest.mark.parametrize(
    ("put", "there", "end"),
    [
        # The first response was lost, and the second try met what the first had written.
        (REFUSED, Reply(WRITTEN, 200, {"ETag": '"ours"'}), "ours"),
        (REFUSED, Reply(b"theirs", 200, {"ETag": '"e"'}), "Another release to b has finished since this one read the"),
        (REFUSED, Reply(error("NoSuchKey"), 404), "Another release to b has finished"),
        (Reply(error("AccessDenied"), 403), Reply(WRITTEN, 200, {"ETag": '"ours"'}), "AccessDenied"),
    ],
)
def test_a_manifest_that_somebody_else_has_written_is_not_replaced(
    stored: Stored, put: Reply, there: Reply, end: str
) -> None:
    """Its own first try may have been somebody else's for the second one."""
    stored.server.answer = lambda method, _: put if method == "PUT" else there
    if end == "ours":
        assert publish.write(stored.bucket, manifest_of(PAGE), "e", None) == end
        return
    with pytest.raises(DeployError, match=end) as failed:
        publish.write(stored.bucket, manifest_of(PAGE), "e", None)
    assert isinstance(failed.value, S3Error) == (put is not REFUSED)


def refused(*keys: str) -> bytes:
    """S3's answer to deletes of which some were refused."""
    errors = (f"<Error><Key>{key}</Key><Code>AccessDenied</Code></Error>" for key in keys)
    return f"<DeleteResult>{''.join(errors)}</DeleteResult>".encode()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([manifest.LEASE], ""),
        ([manifest.NEXT], ""),
        ([manifest.NEXT, manifest.LEASE], ""),
        (["a.txt", manifest.LEASE], "1 keys were not deleted: a.txt (AccessDenied)."),
        (["a.txt", "b.txt", manifest.NEXT], "2 keys were not deleted: a.txt (AccessDenied), b.txt (AccessDenied)."),
    ],
)
def test_what_could_not_be_deleted_is_said(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path, keys: list[str], said: str
) -> None:
    """Except the note and the lease, which say nothing more by then; the lease is deleted alone afterwards."""
    environment = local(keep_releases=0, max_delete_percent=100)
    release(environment, write(tmp_path / "1", {"index.html": "1", "a.txt": "", "b.txt": ""}))
    proxy.requests.clear()
    proxy.faults.append(Fault("POST", "delete", times=1, status=200, body=refused(*keys)))

    if said:
        with pytest.raises(DeployError) as failed:
            release(environment, write(tmp_path / "2", {"index.html": "2"}))
        assert f"{BUCKET} holds the new release, but {said}" in str(failed.value)
    else:
        release(environment, write(tmp_path / "2", {"index.html": "2"}))

    assert [method for method, _ in proxy.requests].count("POST") == 1 + (manifest.LEASE in keys)
    assert (site.get(manifest.LEASE) is None) == (manifest.LEASE in keys)


@pytest.mark.parametrize(("many", "named"), [(10, 10), (11, 10)])
def test_ten_keys_that_could_not_be_deleted_are_named(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path, many: int, named: int
) -> None:
    environment = local(keep_releases=0, max_delete_percent=100)
    keys = [f"{number:02}.txt" for number in range(many)]
    release(environment, write(tmp_path / "1", {"index.html": "1", **dict.fromkeys(keys, "")}))
    proxy.faults.append(Fault("POST", "delete", times=1, status=200, body=refused(*keys)))

    with pytest.raises(DeployError, match=f"but {many} keys were not deleted: 00.txt") as failed:
        release(environment, write(tmp_path / "2", {"index.html": "2"}))
    assert str(failed.value).count(".txt (AccessDenied)") == named


def released(**other: object) -> Released:
    """A release that did nothing but what is given."""
    nothing = {"environment": "dev", "bucket": "b", "release": "r1", "puts": 0, "bytes": 0, "deletes": 0}
    made: Callable[..., Released] = Released
    return made(**{**nothing, "unchanged": 3, "requests": 2, **other})


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (released(), "b already holds this build (3 files, 2 requests)"),
        (released(allowed_missing=("a", "b")),
         "b already holds this build (3 files, 2 requests); missing, and allowed: a, b"),
        (released(deletes=1), "b holds release r1: 0 files put (0 bytes), 3 unchanged, 1 deleted, 2 requests"),
        (released(puts=2, bytes=12345, allowed_missing=("a",)),
         "b holds release r1: 2 files put (12,345 bytes), 3 unchanged, 0 deleted, 2 requests; missing, and allowed: a"),
    ],
)  # fmt: skip
def test_what_a_release_says_at_the_end(done: Released, line: str) -> None:
    assert done.line() == line
    assert done.outputs() == {"release-id": "r1"}
