"""Which releases are kept, how two differ, what a rollback goes back to, and how a bucket and a URL differ from one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from scripts.edges.s3 import Remote
from scripts.frame.errors import Refused
from scripts.release import history, manifest, verify
from scripts.release.manifest import Entry, Manifest, Release, State
from scripts.release.site import File
from tests.release.test_manifest import Stored, stored
from tests.release.test_plan import FOREVER, OWN, PAGE, Files, entries, release, sha, state
from tests.stand_in import Reply, stand_in

__all__ = ["stored"]

BEFORE = Release("before", "", 0, "", "")


def manifest_of(found: State) -> Manifest:
    """The manifest of a bucket that has one."""
    assert found.manifest
    return found.manifest


def with_before(found: State) -> State:
    """The same bucket with what was there before its first release."""
    releases = {**manifest_of(found).releases, BEFORE: {"x.txt": Entry("", 1, "e", {})}}
    return replace(found, manifest=replace(manifest_of(found), releases=releases))


def test_a_bucket_without_releases_or_with_an_unreadable_manifest_is_refused() -> None:
    with pytest.raises(
        Refused, match=r"^b has no releases: it has no _release/manifest\.json\. Release to it first\.$"
    ):
        history.known(State({}, None), "b")
    with pytest.raises(Refused, match=r"^denied$"):
        history.known(State({}, None, unread="denied"), "b")
    assert history.known(state(PAGE), "b") is not None


def test_the_lines_of_a_list() -> None:
    """The live one has a star, one that cannot be restored a dash and the reason; its own losses do not matter."""
    third = replace(release(3), run="https://github.com/r/1")

    assert history.lines({third: ["a.txt"], release(2): ["b.txt", "c.txt"], release(1): [], BEFORE: []}) == [
        "* r3  1970-01-01 00:00:03 UTC  octocat https://github.com/r/1",
        "- r2  1970-01-01 00:00:02 UTC  octocat  cannot be restored, gone or changed: b.txt, c.txt",
        "  r1  1970-01-01 00:00:01 UTC  octocat",
        "  before  earlier",
    ]


OLD, NEW = {**PAGE, "a.txt": "1", "same.txt": "s"}, {**PAGE, "a.txt": "2", "same.txt": "s"}
COPY = {manifest.blob_key(sha("1")): ""}


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (state(NEW, OLD), {"r2": (), "r1": ("a.txt",)}),
        (state(NEW, OLD, theirs=COPY), {"r2": (), "r1": ()}),
        (state(NEW, OLD, theirs=COPY, gone=["same.txt"]), {"r2": ("same.txt",), "r1": ("same.txt",)}),
        (state(NEW, OLD, theirs={**COPY, "same.txt": "s"}), {"r2": ("same.txt",), "r1": ("same.txt",)}),
        (state(PAGE, OLD), {"r2": (), "r1": ()}),
        (with_before(state(PAGE)), {"r1": (), "before": ("x.txt",)}),
        (replace(state(PAGE), listing=None), {"r1": ("index.html",)}),
    ],
)
def test_what_a_release_cannot_be_restored_with(found: State, lost: Mapping[str, Sequence[str]]) -> None:
    """Neither the object as it was put, nor its copy, is there."""
    assert {one.id: keys for one, keys in history.lost(found, manifest_of(found)).items()} == lost


def test_an_object_of_another_size_is_another_one() -> None:
    found = state(PAGE)
    listing = {"index.html": Remote("etag of page", 5)}

    assert [*history.lost(replace(found, listing=listing), manifest_of(found)).values()] == [("index.html",)]


def test_a_release_is_found_by_its_id() -> None:
    """What was there before the first one has no content that is known."""
    current = manifest_of(with_before(state(NEW, OLD)))

    assert history.find(current, "r1", "b") == release(1)
    with pytest.raises(Refused, match=r"^'r' is not a kept release of b: it keeps r2, r1, before\.$"):
        history.find(current, "r", "b")
    with pytest.raises(
        Refused, match=r"^before was there before the first recorded release: its files are not known\.$"
    ):
        history.find(current, "before", "b")


def back(*releases: tuple[int, Files, str]) -> Manifest:
    """A manifest of releases, newest first: number, files, and the one that it was rolled back from."""
    found = {replace(release(n), rolled_back_from=left): entries(files) for n, files, left in releases}
    return Manifest(*OWN.values(), found)


TWO = {"index.html": "2"}
ONE, THREE = {"index.html": "1"}, {"index.html": "3"}


@pytest.mark.parametrize(
    ("current", "to"),
    [
        (back((2, TWO, ""), (1, ONE, "")), "r1"),
        (back((3, THREE, ""), (2, TWO, ""), (1, ONE, "")), "r2"),
        # Back from 3 to 2, the next goes to 1.
        (back((4, TWO, "r3"), (3, THREE, ""), (1, ONE, "")), "r1"),
        (back((4, TWO, "r3"), (3, THREE, ""), (2, TWO, ""), (1, ONE, "")), "r1"),
        # The same files again would change nothing.
        (back((3, TWO, ""), (2, TWO, ""), (1, ONE, "")), "r1"),
        (back((2, TWO, ""),), "It keeps r2: choose one with --to."),
        (back((4, TWO, "r3"), (3, THREE, "")),
         "b keeps no release before r4 that was not rolled back from. It keeps r4, r3"),
    ],
)  # fmt: skip
def test_what_a_rollback_goes_back_to(current: Manifest, to: str) -> None:
    if to.startswith("r"):
        assert history.to_go_back_to(current, "b").id == to
    else:
        with pytest.raises(Refused) as refused:
            history.to_go_back_to(current, "b")
        assert to in str(refused.value)


def test_how_two_releases_differ() -> None:
    """In content or headers, by default the last two."""
    newest = {**entries({"index.html": "page", "b.txt": "b"}), "a.txt": replace(entries(OLD)["a.txt"], headers=FOREVER)}
    current = Manifest(*OWN.values(), {release(3): newest, release(2): entries(OLD), release(1): entries(NEW)})
    found = State({}, current)

    last = history.compare(found, "b", None, None)
    assert (last.old, last.new, last.lines()) == ("r2", "r3", ["+ b.txt", "- same.txt", "~ a.txt"])
    first = history.compare(found, "b", "r1", "r2")
    assert (first.old, first.new, first.lines()) == ("r1", "r2", ["~ a.txt"])
    assert history.compare(state(NEW, OLD), "b", None, None).lines() == ["~ a.txt"]
    with pytest.raises(Refused, match=r"^b has only one release, and no earlier one\.$"):
        history.compare(state(PAGE), "b", None, None)
    with pytest.raises(Refused, match="b has no releases"):
        history.compare(State({}, None), "b", None, None)


def test_a_release_is_restored_from_what_is_there_and_from_copies(stored: Stored, tmp_path: Path) -> None:
    """What is in the bucket as it was put stays there; of what is not, the copy is downloaded."""
    stored.objects[manifest.blob_key(sha("1"))] = b"1"
    found = state(NEW, OLD, theirs=COPY)

    to, site = history.restored(stored.bucket, found, None, tmp_path)

    assert to == release(1)
    assert stored.asked() == [manifest.blob_key(sha("1"))]
    assert (tmp_path / sha("1")).read_bytes() == b"1"
    assert {key: file.path for key, file in site.files.items()} == {
        "index.html": "", "same.txt": "", "a.txt": str(tmp_path / sha("1"))
    }  # fmt: skip
    (before,) = [files for one, files in manifest_of(found).releases.items() if one == to]
    assert site.files["a.txt"] == File(str(tmp_path / sha("1")), 1, sha("1"), before["a.txt"].headers)
    assert site.folder == str(tmp_path)


@pytest.mark.parametrize("copy", [None, b"3"])
def test_a_release_with_a_missing_or_damaged_copy_is_not_restored(
    stored: Stored, tmp_path: Path, copy: bytes | None
) -> None:
    """It says which others are complete."""
    three = {**PAGE, "a.txt": "3"}
    stored.objects |= {manifest.blob_key(sha("1")): copy} if copy else {}
    copies = {manifest.blob_key(sha(text)): "" for text in ("1", "2")}
    found = state(three, NEW, OLD, theirs={**copies, "same.txt": "s"}, gone=[] if copy else [*COPY])

    with pytest.raises(Refused) as refused:
        history.restored(stored.bucket, found, "r1", tmp_path)
    assert str(refused.value) == (
        "r1 cannot be restored: missing or changed in the bucket: a.txt, same.txt. Complete are r3."
    )
    with pytest.raises(Refused, match=r"Complete are none\.$"):
        history.restored(stored.bucket, replace(found, listing={}), "r1", tmp_path)


# How a bucket differs


@pytest.mark.parametrize(
    ("found", "lines", "is_whole"),
    [
        (state(PAGE, OLD), [], True),
        (state(PAGE, theirs={"z.txt": "", "y.txt": "", manifest.LEASE: ""}), ["foreign y.txt", "foreign z.txt"], True),
        (state(NEW, gone=["same.txt", "a.txt"]), ["missing a.txt", "missing same.txt"], False),
        (state(PAGE, OLD, gone=["a.txt"]), [], True),
        (state(NEW, theirs={"same.txt": "s", "a.txt": "2"}), ["overwritten a.txt", "overwritten same.txt"], False),
        (state(PAGE, OLD, theirs={"a.txt": "1"}), ["overwritten a.txt"], False),
        (replace(state(PAGE), listing=None), ["missing index.html"], False),
    ],
)
def test_how_a_bucket_differs_from_its_manifest(found: State, lines: Sequence[str], is_whole: bool) -> None:
    """Objects of others do not change that the page is as released."""
    verified = verify.compare(found, manifest_of(found), "b")

    assert (verified.lines(), verified.is_whole) == (lines, is_whole)
    assert verified.table() == [(line,) for line in lines]
    said = "as released" if is_whole else "not as released"
    assert verified.line() == f"b is {said}: {len(manifest_of(found).files)} files, {len(lines)} findings"


def test_an_object_whose_size_alone_differs_is_overwritten() -> None:
    found = replace(state(PAGE), listing={"index.html": Remote("etag of page", 5)})

    assert verify.compare(found, manifest_of(found), "b", ("a: b",)).lines() == [
        "overwritten index.html",
        "served a: b",
    ]


SERVED = {
    "index.html": '<script src="/app/a.js"></script><img src="/app/theirs/a.png"><a href="/app/never.html"></a>',
    "a.js": 'import "./b.js"',
    "b.js": "b",
    "é.txt": "not referenced",
}


def answering(changes: Mapping[str, Reply]) -> Callable[[str, str], Reply]:
    """Serve SERVED below /app/ but for some paths."""

    def answer(_: str, path: str) -> Reply:
        key = path.removeprefix("/app/")
        kind = "text/html" if key.endswith("html") else "text/javascript; charset=utf-8"
        return changes.get(key) or Reply(SERVED[key].encode(), 200, {"Content-Type": kind})

    return answer


JS = {"Content-Type": "text/javascript"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ()),
        ({"b.js": Reply(b"c", 200, JS)}, ("b.js: has different content",)),
        ({"b.js": Reply(b"b" * 100, 200, JS)}, ("b.js: has different content",)),
        ({"b.js": Reply(b"b", 404, JS), "a.js": Reply(b"x", 200, JS)}, ("a.js: has different content",)),
        ({"b.js": Reply(b"b", 404, JS)}, ("b.js: HTTP status 404",)),
        ({"b.js": Reply(b"b", 200)}, ("b.js: has the type none instead of text/javascript",)),
        ({"b.js": Reply(b"b", 200, {"Content-Type": "text/html"})},
         ("b.js: has the type text/html instead of text/javascript",)),
        ({"a.js": Reply(SERVED["a.js"].encode(), 200, {"Content-Type": "text/plain"}), "b.js": Reply(b"c", 200, JS)},
         ("a.js: has the type text/plain instead of text/javascript", "b.js: has different content")),
    ],
)  # fmt: skip
def test_how_what_is_served_differs(changes: Mapping[str, Reply], found: Sequence[str]) -> None:
    """The page and what it needs, also through other files; each file once, and none of others."""
    files = {
        key: Entry(
            sha(text), len(text.encode()), "e", {"Content-Type": "text/html" if "html" in key else "text/javascript"}
        )
        for key, text in SERVED.items()
    }
    current = Manifest(*OWN.values(), {release(1): files})

    with stand_in(answering(changes)) as server:
        assert verify.served(current, f"{server.url}/app/", lambda key: key.startswith("theirs/")) == found
        paths = [request["path"] for request in server.requests]

    assert paths[:2] == ["/app/index.html", "/app/a.js"]
    assert sorted(paths[2:]) == ["/app/b.js"] * (changes.get("a.js", Reply(b"")).body != b"x")


def test_a_picture_is_compared_too() -> None:
    """It is not text in any encoding."""
    page, picture = b'<img src="/a.png">', b"\xff\xd8"
    bodies = {"index.html": page, "a.png": picture}
    files = {key: Entry(hashlib.sha256(body).hexdigest(), len(body), "e", {}) for key, body in bodies.items()}

    with stand_in(lambda _, path: Reply(bodies[path[1:]])) as server:
        assert verify.served(Manifest(*OWN.values(), {release(1): files}), server.url) == ()
        assert len(server.requests) == 2


def test_what_the_page_needs_and_was_never_released_is_found() -> None:
    """It is not asked for. A page of another folder may be anything."""
    page = '<script src="/a.js"></script>'
    current = Manifest(*OWN.values(), {release(1): {"index.html": Entry(sha(page), len(page), "e", {})}})

    with stand_in(lambda *_: Reply(page.encode())) as server:
        assert verify.served(current, server.url) == ("a.js: is referenced by the page and was never released",)
        assert [request["path"] for request in server.requests] == ["/index.html"]


def test_a_server_that_cannot_be_reached_is_found() -> None:
    current = Manifest(*OWN.values(), {release(1): {"index.html": Entry("", 0, "e", {})}})

    assert verify.served(current, "http://127.0.0.1:9") == ("index.html: Connection refused",)
