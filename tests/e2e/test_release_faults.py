"""Releases under faults of the network and of S3: they recover, or the old page stays whole."""

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from scripts import release_static
from scripts.edges import s3 as bucket_module
from scripts.edges.s3 import Bucket, Keys, Unanswered, Upload
from scripts.frame import settings
from scripts.frame.errors import DeployError
from tests.conftest import EmbeddedCloud, Invoke
from tests.release import browser, sites
from tests.release.conftest import a_version
from tests.release.fault_proxy import DENIED, INTERNAL, SLOW_DOWN, Fault, FaultProxy, fault_proxy
from tests.release.test_publish import BUCKET, Site, changed_settings, site
from tests.stand_in import Reply, stand_in

__all__ = ["a_version", "site"]

LIST = "list-type=2"
LEASE, MANIFEST, DELETE = "/_release/lease.json", "/_release/manifest.json", r"\?delete"
HASHED, OTHER, PAGE, ENTRY = "/assets/index-[^/]*js", "/robots.txt", "/help/index.html", f"^/{BUCKET}/index.html"


@pytest.fixture
def proxy(cloud: EmbeddedCloud) -> Iterator[FaultProxy]:
    """A proxy in front of the embedded AWS, without faults yet."""
    with fault_proxy(cloud.url) as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tries, shorter pauses and a shorter time-out."""
    monkeypatch.setattr(bucket_module, "TRIES", 3)
    monkeypatch.setattr(bucket_module, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(bucket_module, "TIMEOUT", 0.7)


def release(folder: Path) -> None:
    """Release a folder in this process. Raises DeployError."""
    environment = settings.find("local")
    observed = release_static.observe(environment, BUCKET, folder)
    release_static.release(environment, observed, release_static.decide(environment, observed))


def cases(table: dict[str, Any]) -> list[Any]:
    """Each fault with a few hashed files. Faults of hashed files also with many, which obstore uploads."""
    few = [pytest.param(name, 5, id=name) for name in table]
    return few + [pytest.param(name, 20, id=f"{name}, many") for name in table if "hashed" in name or "every" in name]


@pytest.fixture
def old(site: Site, tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published release; the next one will delete most of its files."""
    for name, value in changed_settings(tmp_path, keep_releases=0, max_delete_percent=100).items():
        monkeypatch.setenv(name, value)
    folder = sites.build(tmp_path / "old", "one")
    (folder / "robots.txt").write_text("old")
    release(folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return folder


PASSING = {
    "reset in a hashed file": Fault("PUT", HASHED, "reset", 2),
    "reset in the page": Fault("PUT", ENTRY, "reset", 2),
    "500 for a hashed file": Fault("PUT", HASHED, times=2, status=500, body=INTERNAL),
    "503 for every file": Fault("PUT", "/assets/", times=2, status=503, body=SLOW_DOWN),
    "503 for the page": Fault("PUT", ENTRY, times=2, status=503, body=SLOW_DOWN),
    "503 for the listing": Fault("GET", LIST, times=2, status=503, body=SLOW_DOWN),
    "the listing is cut off": Fault("GET", LIST, "cut", 2),
    "the listing stalls": Fault("GET", LIST, "stall", 1),
    "a hashed file stalls": Fault("PUT", HASHED, "stall", 1),
    "the answer to the page is lost": Fault("PUT", ENTRY, "lost", 1),
    "the answer to the lease is lost": Fault("PUT", LEASE, "lost", 1),
    "the answer to the manifest is lost": Fault("PUT", MANIFEST, "lost", 1),
    "the answer to the deletes is lost": Fault("POST", DELETE, "lost", 1),
}


@pytest.mark.parametrize(("name", "chunks"), cases(PASSING))
def test_a_transient_fault_is_retried(
    site: Site, old: Path, proxy: FaultProxy, quick: None, tmp_path: Path, name: str, chunks: int
) -> None:
    """The release completes, and only its own files are left."""
    new = sites.build(tmp_path / "new", "two", chunks=chunks)
    fault = PASSING[name]
    proxy.faults.append(Fault(**vars(fault)))

    release(new)

    assert proxy.faults[0].times == 0
    assert browser.problems(site.get) == []
    assert site.all_keys() == {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert site.holds(new)
    assert site.get("_release/lease.json") is None


LASTING = {
    "reset in a hashed file": (Fault("PUT", HASHED, "reset"), "assets/index-"),
    "500 for a hashed file": (Fault("PUT", HASHED, status=500, body=INTERNAL), "InternalError"),
    "503 for the other files": (Fault("PUT", OTHER, status=503, body=SLOW_DOWN), "SlowDown"),
    "403 for a hashed file": (Fault("PUT", HASHED, status=403, body=DENIED), "AccessDenied"),
    "403 for another file": (Fault("PUT", OTHER, status=403, body=DENIED), "AccessDenied"),
    "403 for another page": (Fault("PUT", PAGE, status=403, body=DENIED), "AccessDenied"),
    "403 for the page": (Fault("PUT", ENTRY, status=403, body=DENIED), "AccessDenied"),
    "403 for the lease": (Fault("PUT", LEASE, status=403, body=DENIED), "AccessDenied"),
    "a hashed file stalls": (Fault("PUT", HASHED, "stall"), "timed out"),
    "the page stalls": (Fault("PUT", ENTRY, "stall"), "timed out"),
    "something else answers for a hashed file": (Fault("PUT", HASHED, status=200, body=b"<html/>"), "ETag"),
    "something else answers for the page": (Fault("PUT", ENTRY, status=200, body=b"<html/>"), "ETag"),
    "the listing is cut off": (Fault("GET", LIST, "cut"), "cannot be reached for listing"),
    "the listing stalls": (Fault("GET", LIST, "stall"), "cannot be reached for listing"),
    "the listing is no XML": (Fault("GET", LIST, status=200, body=b"<ListBucketResult>"), "is malformed"),
    "the listing is another page": (Fault("GET", LIST, status=200, body=b"<html/>"), "html instead of ListBucket"),
    "the listing has no next page": (
        Fault("GET", LIST, status=200, body=b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        "is incomplete",
    ),
    "the manifest is damaged": (Fault("GET", MANIFEST, status=200, body=b'{"format": 1'), "is damaged"),
}


@pytest.mark.parametrize(("name", "chunks"), cases(LASTING))
def test_a_permanent_fault_leaves_the_old_page_whole(
    site: Site, old: Path, proxy: FaultProxy, quick: None, tmp_path: Path, name: str, chunks: int
) -> None:
    """Nothing is deleted, the lease is released, and the next run completes the release."""
    new = sites.build(tmp_path / "new", "two", chunks=chunks)
    fault, said = LASTING[name]
    proxy.faults.append(Fault(**vars(fault)))

    with pytest.raises(DeployError) as failed:
        release(new)

    assert said in str(failed.value)
    assert browser.problems(site.get) == []
    assert site.holds(old) or (site.get("index.html") == ("text/html; charset=utf-8", _page(old)))
    assert {str(path.relative_to(old)) for path in old.rglob("*") if path.is_file()} <= site.all_keys()
    assert site.get("_release/lease.json") is None
    proxy.faults.clear()
    release(new)
    assert site.holds(new)
    assert site.all_keys() == {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}


def _alter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[1:] + b"1")


def _page(folder: Path) -> bytes:
    return (folder / "index.html").read_bytes()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("PUT", MANIFEST, status=403, body=DENIED), "AccessDenied"),
        (Fault("POST", DELETE, status=403, body=DENIED), "AccessDenied"),
        (
            Fault(
                "POST",
                DELETE,
                times=1,
                status=200,
                body=b"<DeleteResult><Error><Key>favicon.ico</Key><Code>AccessDenied</Code></Error>"
                b"<Error><Key>_release/lease.json</Key><Code>AccessDenied</Code></Error></DeleteResult>",
            ),
            "1 keys were not deleted: favicon.ico (AccessDenied)",
        ),
    ],
    ids=["the manifest is refused", "the deletes are refused", "deletes are refused one by one"],
)
def test_a_fault_after_the_commit_point_leaves_the_new_page_whole(
    site: Site, old: Path, proxy: FaultProxy, quick: None, tmp_path: Path, fault: Fault, said: str
) -> None:
    """It fails with the reason, and the next run completes the release."""
    new = sites.build(tmp_path / "new", "two")
    proxy.faults.append(Fault(**vars(fault)))

    with pytest.raises(DeployError, match=said.replace("(", r"\(").replace(")", r"\)")):
        release(new)

    assert browser.problems(site.get) == []
    assert site.holds(new)
    proxy.faults.clear()
    release(new)
    assert site.holds(new)
    assert site.all_keys() == {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}


@pytest.mark.parametrize("chunks", [5, 20])
@pytest.mark.parametrize(("change", "said"), [(Path.unlink, "can no longer be read"), (_alter, "changed during")])
def test_a_build_that_changes_during_the_release_is_not_published(
    site: Site, old: Path, tmp_path: Path, chunks: int, change: Callable[[Path], None], said: str
) -> None:
    """Only the bytes that were hashed and checked are ever put."""
    new = sites.build(tmp_path / "new", "two", chunks=chunks)
    (new / "film.mp4").write_bytes(bytes(17 << 20))
    environment = settings.find("local")
    observed = release_static.observe(environment, BUCKET, new)
    decided = release_static.decide(environment, observed)

    for victim in (new / "film.mp4", new / "help" / "index.html"):
        change(victim)
        with pytest.raises(DeployError, match=f"{victim.name} {said}"):
            release_static.release(environment, observed, decided)
        victim.write_bytes(bytes(17 << 20))
    assert browser.problems(site.get) == []
    assert (site.get("index.html") or ("", b""))[1] == _page(old)


def test_tries_are_bounded_with_pauses_that_grow_and_none_after_the_last(
    site: Site, old: Path, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is multiplied by a random factor between 0.5 and 1."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: high if (low, high) == (0.5, 1.0) else 1 / 0)
    proxy.faults.append(Fault("GET", LIST, status=503, body=SLOW_DOWN))

    with pytest.raises(DeployError):
        release(old)

    assert sum(LIST in path for _, path in proxy.requests) == bucket_module.TRIES
    assert len(pauses) == bucket_module.TRIES - 1
    assert pauses == sorted(pauses)
    assert max(pauses) == 5.0
    assert sum(pauses) / 2 > 5


def test_uploads_are_tried_a_bounded_number_of_times(
    site: Site, old: Path, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    """Single requests, and obstore's uploads."""
    for chunks in (5, 20):
        proxy.requests.clear()
        proxy.faults[:] = [Fault("PUT", HASHED, status=503, body=SLOW_DOWN)]
        with pytest.raises(DeployError, match="SlowDown"):
            release(sites.build(tmp_path / "new", "two", chunks=chunks))
        assert sum("/assets/index-" in path and path.endswith("js") for _, path in proxy.requests) == 3


@pytest.mark.parametrize(
    ("seconds", "tries", "said"),
    [([0.2], 1, ""), ([10], 2, ""), ([10, 10], 2, r"for writing to a-bucket \(dev\) in 2 tries: .*: timed out\.$")],
    ids=["late", "too late", "never"],
)
def test_an_upload_has_a_time_out_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: list[float], tries: int, said: str
) -> None:
    """obstore's, by Rust's clock: after twice the time-out it gives up, and the error says how often it has tried.

    seconds: that the server takes for each request for one of the files.
    """
    monkeypatch.setattr(bucket_module, "TIMEOUT", 1.0)
    monkeypatch.setattr(bucket_module, "FIRST_PAUSE", 0.05)
    (body := tmp_path / "body").write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    uploads = [Upload(f"key{number}", str(body), 1, digest, {}) for number in range(bucket_module.OBSTORE_FROM)]
    asked, put, over = list[str](), list[str](), threading.Event()

    def answer(_: str, path: str) -> Reply:
        asked.append(path)
        if path.endswith("key0") and asked.count(path) <= len(seconds):
            over.wait(seconds[asked.count(path) - 1])
        return Reply(b"", headers={"ETag": '"x"'})

    with stand_in(answer) as server:
        bucket = Bucket("a-bucket", "us-west-2", server.url, Keys("x", "y"), "dev", use_proxy=False)
        with pytest.raises(Unanswered, match=said) if said else nullcontext():
            bucket.put_all(uploads, lambda upload, _: put.append(upload.key))
        over.set()

    assert asked.count("/a-bucket/key0") == tries
    assert sorted(put) == [upload.key for upload in uploads][bool(said) :]


def test_a_response_that_comes_after_a_refusal_meets_an_open_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """obstore's threads hand it on, although its upload was cancelled; on a closed loop they print a traceback."""
    monkeypatch.setattr(bucket_module, "UNWIND", 1.0)
    (body := tmp_path / "body").write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    uploads = [Upload(f"key{number}", str(body), 1, digest, {}) for number in range(bucket_module.OBSTORE_FROM)]
    loops: list[asyncio.AbstractEventLoop] = []
    put, closed = threading.Event(), list[bool]()
    # The requests whose response is late, with the one that is refused, and with the test itself.
    sent, told = threading.Barrier(len(uploads) - 1), threading.Barrier(len(uploads) - 1)

    def answer(_: str, path: str) -> Reply:
        if path.endswith("key0"):
            return Reply(b"", headers={"ETag": '"x"'})
        assert put.wait(10)
        sent.wait(10)
        if path.endswith("key1"):
            return Reply(b"<Error><Code>AccessDenied</Code></Error>", 403)
        time.sleep(0.2)
        closed.append(loops[0].is_closed())
        told.wait(10)
        return Reply(b"", headers={"ETag": '"x"'})

    def done(*_: object) -> None:
        loops.append(asyncio.get_running_loop())
        put.set()

    with stand_in(answer) as server:
        bucket = Bucket("a-bucket", "us-west-2", server.url, Keys("x", "y"), "dev", use_proxy=False)
        with pytest.raises(DeployError, match="AccessDenied"):
            bucket.put_all(uploads, done)
        told.wait(10)

    assert closed == [False] * (len(uploads) - 2)


def test_an_outage_of_five_seconds_during_the_uploads_is_survived(
    site: Site, proxy: FaultProxy, invoke: Invoke, tmp_path: Path
) -> None:
    """Every connection is refused meanwhile."""
    first = invoke("release-static", "--no-build", f"--build-dir={sites.build(tmp_path / 'old', 'one')}")
    assert first.returncode == 0, first.stderr
    new = sites.build(tmp_path / "new", "two", chunks=20)
    gone = proxy.fault

    def leave(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/assets/" in path:
            proxy.fault = gone  # type: ignore[method-assign]
            proxy.leave_for(5)
            return Fault(method, path, "reset")
        return None

    proxy.fault = leave  # type: ignore[method-assign]
    started = time.monotonic()
    done = invoke("release-static", "--no-build", f"--build-dir={new}", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started > 5
    assert site.holds(new)


def test_an_unreachable_server_is_an_error(proxy: FaultProxy, quick: None, old: Path) -> None:
    """With the environment and the operation."""
    proxy.leave()

    with pytest.raises(DeployError, match=f"S3 cannot be reached for .* {BUCKET} .local. in 3 tries: .*refused"):
        release(old)
