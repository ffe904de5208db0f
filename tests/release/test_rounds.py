"""What a release sends: requests that need no order at the same time, and a manifest that grows with the change."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from scripts import release_static, releases
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import Environment
from scripts.release import history, manifest
from scripts.release import verify as verification
from scripts.release.manifest import Base, Entry, Manifest, Release, State
from tests.release import browser, sites
from tests.release.fault_proxy import Fault, FaultProxy
from tests.release.test_publish import BUCKET, Site, site
from tests.release.test_rules import Local, live, local, proxy, release, roll_back, write

__all__ = ["local", "proxy", "site"]

MANIFEST = "_release/manifest.json"


# What shares a round trip


class Meeting:
    """Holds requests back until all of their group have arrived: only those that are sent at the same time meet."""

    def __init__(self, *groups: tuple[str, ...]) -> None:
        """groups: patterns for method and path. Each is for the next request that it matches."""
        self.barriers = [(list(group), threading.Barrier(len(group))) for group in groups]
        self._choosing = threading.Lock()

    def arrive(self, method: str, path: str) -> Fault | None:
        """A request has arrived."""
        barrier = self._of(f"{method} {path}")
        if barrier:
            barrier.wait(20)
        return None

    def _of(self, request: str) -> threading.Barrier | None:
        with self._choosing:
            for group, barrier in self.barriers:
                found = next((pattern for pattern in group if re.search(pattern, request)), "")
                if found:
                    group.remove(found)
                    return barrier
        return None


def test_requests_that_need_no_order_share_a_round_trip(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path
) -> None:
    """One changed chunk: the look, the lease, the files beside their records, the page, the manifest, the end."""
    folder = write(tmp_path / "build", {"index.html": "1", "assets/a-0a1b2c3d.js": "1"})
    release(local(), folder)
    write(folder, {"index.html": "2", "assets/a-00001b2c.js": "2"})
    (folder / "assets/a-0a1b2c3d.js").unlink()
    proxy.requests.clear()
    compared = f"GET .*{MANIFEST}"
    meeting = Meeting(
        ("GET .*list-type", compared),
        ("PUT .*lease.json", compared),
        ("PUT .*/assets/", "PUT .*/_release/files/", "PUT .*/_release/next.json", compared),
    )
    proxy.fault = meeting.arrive  # type: ignore[method-assign]

    release(local(), folder)

    assert [group for group, _ in meeting.barriers] == [[], [], []]
    ends = [f"{method} {path}" for method, path in proxy.requests[8:]]
    for wanted, request in zip(("/index.html", MANIFEST, "delete"), ends, strict=True):
        assert wanted in request
    assert site.holds(folder)


def test_a_release_that_finishes_while_the_lease_is_taken_is_noticed(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path
) -> None:
    """After the manifest was compared for the first time: the plan is stale, and its page does not become live."""
    environment = local(keep_releases=0, max_delete_percent=100)
    release(environment, sites.build(tmp_path / "old", "one"))
    new = sites.build(tmp_path / "new", "two", chunks=3)
    observed = release_static.observe(environment, BUCKET, new)
    decided = release_static.decide(environment, observed)
    compared = threading.Event()
    handler: Any = proxy.server.RequestHandlerClass if proxy.server else None
    serve = handler._pass_on

    def between(self: Any, body: bytes, kind: str) -> None:
        if self.command == "PUT" and "lease.json" in self.path:
            handler._pass_on = serve_and_tell
            assert compared.wait(20)
            handler._pass_on = serve
            release(environment, sites.build(tmp_path / "theirs", "three"))
        serve_and_tell(self, body, kind)

    def serve_and_tell(self: Any, body: bytes, kind: str) -> None:
        serve(self, body, kind)
        if self.command == "GET" and MANIFEST in self.path:
            compared.set()

    handler._pass_on = between

    with pytest.raises(
        DeployError, match=r"Another release to .* has finished since this one read the bucket"
    ) as failed:
        release_static.release(environment, observed, decided)

    assert failed.value.exit_code == 1
    assert site.holds(tmp_path / "theirs")
    assert browser.problems(site.get) == []
    assert site.get("_release/lease.json") is None
    release(environment, new)
    assert site.holds(new)
    assert site.all_keys() == {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}


# A manifest that grows with the change


def large(folder: Path, version: int, chunks: int = 1) -> Path:
    """A site of a hundred files, of which the page and some chunks differ from version to version."""
    files = {f"static/{number}.txt": str(number) for number in range(98)}
    files |= {f"assets/part{number}-0a1b{number}c{version:03}.js": str(version) for number in range(chunks)}
    return write(folder, {"index.html": f"page {version}", **files})


def stored(site: Site) -> tuple[dict[str, Any], int]:
    """The manifest in the bucket, and its size."""
    body = (site.get(MANIFEST) or ("", b""))[1]
    return json.loads(body), len(body)


def first(environment: Environment, number: int, folder: Path) -> None:
    """Release the first versions of a large site, each from a folder of its own."""
    for version in range(number):
        release(environment, large(folder / str(version), version))


def test_a_small_change_to_a_large_site_is_written_as_one(site: Site, local: Local, tmp_path: Path) -> None:
    """Everything reads it, and every kept release can be restored. A large change is written whole again."""
    environment = local(keep_releases=2)
    release(environment, large(tmp_path / "0", 0))
    whole = stored(site)[1]
    for version in range(1, 6):
        release(environment, large(tmp_path / str(version), version))
        document, size = stored(site)
        # Versions that only know whole manifests refuse it.
        assert (document["format"], size < whole / 5) == (manifest.CHANGES, True)
        assert site.get(f"_release/files/{document['base']}") is not None
        _, state = releases.look(environment, BUCKET)
        current = history.known(state, BUCKET)
        assert verification.compare(state, current, BUCKET).lines() == []
        assert not any(history.lost(state, current).values())

    sent = len(site.cloud.requests("s3"))
    done = release(environment, tmp_path / "5")
    assert (done.puts, len(site.cloud.requests("s3")) - sent) == (0, 3)
    roll_back(environment, tmp_path / "back")
    assert site.holds(tmp_path / "4")

    site.cloud.server.cloud.requests.clear()
    release(environment, large(tmp_path / "6", 6, chunks=40))
    assert stored(site)[0]["format"] == manifest.FORMAT
    assert site.get(f"_release/files/{document['base']}") is None
    assert len(history.known(releases.look(environment, BUCKET)[1], BUCKET).releases) == 3


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "changed"])
def test_a_base_that_is_gone_or_changed_is_refused(site: Site, local: Local, tmp_path: Path, gone: bool) -> None:
    """Nothing is concluded from half a manifest."""
    first(local(), 2, tmp_path)
    key = f"_release/files/{stored(site)[0]['base']}"
    site.s3.delete_object(Bucket=BUCKET, Key=key) if gone else site.put(key)
    before = len(site.puts())

    with pytest.raises(Refused, match=rf"manifest.json is damaged \(its base {key} is gone or changed\)"):
        release(local(), large(tmp_path / "2", 2))
    assert site.puts()[before:] == []


def test_a_base_that_is_deleted_while_it_is_read_is_not_missed(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Another release has written a whole manifest meanwhile."""
    environment = local()
    first(environment, 2, tmp_path)
    base = stored(site)[0]["base"]
    fault = proxy.fault

    def meanwhile(method: str, path: str) -> Fault | None:
        if path.endswith(base) and proxy.fault != fault:
            proxy.fault = fault  # type: ignore[method-assign]
            release(environment, large(tmp_path / "2", 2, chunks=40))
        return None

    proxy.fault = meanwhile  # type: ignore[method-assign]

    before = live(environment)

    assert site.get(f"_release/files/{base}") is None
    assert before == live(environment)
    assert site.holds(tmp_path / "2")


def test_after_a_lost_difference_the_next_release_repairs_it(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The note says which release is live, whatever form the manifest before has."""
    environment = local()
    first(environment, 3, tmp_path)
    proxy.faults.append(Fault("PUT", "/manifest.json", status=403, body=b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(DeployError, match="is live"):
        release(environment, large(tmp_path / "3", 3))
    proxy.faults.clear()

    now = live(environment)
    done = release(environment, tmp_path / "3")

    assert (done.release, done.puts) == (now, 0)
    assert site.holds(tmp_path / "3")
    assert verification.compare(*_seen(environment)).is_whole


def test_an_object_of_a_large_site_that_somebody_overwrote_is_put_again(
    site: Site, local: Local, tmp_path: Path
) -> None:
    """S3 gives it its old ETag, so that the manifest stays as it is."""
    release(local(), large(tmp_path / "1", 1))
    site.put("static/1.txt", b"theirs")

    done = release(local(), tmp_path / "1")

    assert (done.puts, done.deletes) == (1, 0)
    assert site.holds(tmp_path / "1")
    assert verification.compare(*_seen(local())).is_whole


def _seen(environment: Any) -> tuple[State, Manifest, str]:
    _, state = releases.look(environment, BUCKET)
    return state, history.known(state, BUCKET), BUCKET


SHA = "0123456789abcdef" * 4
KINDS = ({"Content-Type": "text/css"}, {"Content-Type": "text/html", "Cache-Control": "no-cache"})
FILES = st.dictionaries(
    st.sampled_from([f"{number}.js" for number in range(8)]),
    st.builds(lambda n, kind: Entry(f"{n:064x}", n, f"e{n}", kind), st.integers(0, 3), st.sampled_from(KINDS)),
    max_size=8,
)


def after(before: Manifest, files: Mapping[str, Entry], keep: int) -> Manifest:
    """The manifest after a release of these files. keep: how many older ones are kept."""
    number, kept = len(before.pending), dict(list(before.releases.items())[:keep])
    made = Release(f"r{number}", "", number + 1, "", "")
    return replace(before, releases={made: files, **kept}, pending=(*before.pending, "/a"))


@given(versions=st.lists(FILES, min_size=2, max_size=7), keep=st.integers(0, 3), first=st.booleans())
@hypothesis.settings(max_examples=200)
def test_any_manifest_is_read_as_it_was_written(versions: list[Mapping[str, Entry]], keep: int, first: bool) -> None:
    """As the difference to a base, release after release."""
    before = {Release("before", "", 0, "", ""): {"old.js": Entry("", 1, "e", {})}} if first else {}
    current = after(Manifest("mint-app", "prod", before), versions[0], keep)
    document = manifest.dump(current)
    base = Base(hashlib.sha256(document).hexdigest(), manifest.load(document), is_stored=False)

    for files in versions[1:]:
        current = after(current, files, keep)
        written = manifest.dump(current, base)
        assert json.loads(written)["format"] == manifest.CHANGES
        assert manifest.load(written, {base.sha256: document}.get) == current
        with pytest.raises(Refused, match="is gone or changed"):
            manifest.load(written)
    assert manifest.load(manifest.dump(base.manifest, base), {base.sha256: document}.get) == base.manifest


WRITTEN = manifest.dump(Manifest("mint-app", "prod", {Release("r1", "", 1, "", ""): {"a.js": Entry(SHA, 1, "e", {})}}))
OF_WRITTEN = hashlib.sha256(WRITTEN).hexdigest()
CHANGED: dict[str, Any] = {
    "format": 2,
    "application": "mint-app",
    "environment": "prod",
    "pending": [],
    "base": OF_WRITTEN,
    "releases": [
        {
            "release": {"id": "r2", "version": "", "at": 2, "actor": "", "run": ""},
            "files": {"a.js": [SHA, 2, "e2", 0]},
            "without": [],
        }
    ],
    "kept": ["r1"],
    "headers": [{}],
}


@pytest.mark.parametrize(
    "change",
    [
        *({"base": base} for base in ("", SHA, SHA.upper(), "../../x", None)),
        *({"kept": kept} for kept in (["r0"], ["r1", "r1"], "r1", [1])),
        {"headers": []},
        {"releases": [CHANGED["releases"][0] | {"files": {"_release/x": [SHA, 2, "e2", 0]}}]},
        {"releases": [CHANGED["releases"][0] | {"files": {"a.js": ["", 2, "e2", 0]}}]},
        {"releases": [CHANGED["releases"][0] | {"release": CHANGED["releases"][0]["release"] | {"at": 0}}]},
    ],
    ids=str,
)
def test_a_damaged_difference_is_refused(change: dict[str, Any]) -> None:
    """In one sentence that says what to do."""
    find = {OF_WRITTEN: WRITTEN, SHA: b"{}"}.get

    assert [one.id for one in manifest.load(json.dumps(CHANGED).encode(), find).releases] == ["r2", "r1"]
    with pytest.raises(Refused, match=r"^_release/manifest.json is damaged \(.*\): delete it"):
        manifest.load(json.dumps(CHANGED | change).encode(), find)


def test_a_base_that_is_no_whole_manifest_is_refused() -> None:
    body = json.dumps(CHANGED).encode()
    sha256 = hashlib.sha256(body).hexdigest()

    with pytest.raises(Refused, match="is damaged"):
        manifest.load(json.dumps(CHANGED | {"base": sha256}).encode(), {sha256: body}.get)


@pytest.mark.parametrize(
    ("files", "changed", "fits"),
    [(63, 1, False), (64, 1, True), (100, 10, True), (100, 12, True), (100, 13, False), (1000, 100, True)],
)
def test_when_a_difference_is_written(files: int, changed: int, fits: bool) -> None:
    """A changed chunk counts twice, as its name changes. For a small site it saves nothing."""
    old = {f"{number}.js": Entry(SHA, 1, "e", {}) for number in range(files)}
    base = Base(SHA, Manifest("", "", {Release("r1", "", 1, "", ""): old}), is_stored=True)
    new = dict(list(old.items())[changed:]) | {f"new{n}.js": Entry(SHA, 1, "", {}) for n in range(changed)}

    assert manifest.fits({Release("r2", "", 2, "", ""): new, **base.manifest.releases}, base) is fits
    assert not manifest.fits({Release("r2", "", 2, "", ""): new}, None)
