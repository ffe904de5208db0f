"""The note of a release that nobody finished, a manifest that cannot be read, and keys of others."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from scripts.edges.s3 import Bucket, Keys, Remote, S3Error
from scripts.frame.errors import Refused
from scripts.release import manifest
from scripts.release.manifest import BLOBS, FORMAT, KEY, NEXT, Entry, Manifest, Release, State
from tests.release.test_plan import BRIEFLY, OWN, PAGE, Files, entries, release, sha, state
from tests.stand_in import Reply, StandIn, stand_in
from tests.test_s3 import error

LIVE, NEW = (
    {**PAGE, "same.txt": "same", "a.txt": "1", "gone.txt": ""},
    {**PAGE, "same.txt": "same", "a.txt": "2", "b.txt": "b"},
)


class Stored:
    """A bucket by its objects, over HTTP. replies: what is answered for a key instead."""

    def __init__(self, server: StandIn) -> None:
        self.objects, self.replies = dict[str, bytes](), dict[str, Reply]()
        self.bucket = Bucket("b", "us-west-2", server.url, Keys("key", "secret"), "prod", use_proxy=False)
        self.server = server
        server.answer = self._answer

    def _answer(self, _: str, path: str) -> Reply:
        key = path.removeprefix("/b/")
        body = self.objects.get(key)
        missing = Reply(error("NoSuchKey"), 404)
        return self.replies.get(key) or (missing if body is None else Reply(body, 200, {"ETag": f'"etag of {key}"'}))

    def asked(self) -> list[str]:
        """The keys that were read."""
        return [request["path"].removeprefix("/b/") for request in self.server.requests]


@pytest.fixture
def stored() -> Iterator[Stored]:
    """An empty bucket."""
    with stand_in(lambda *_: Reply(b"")) as server:
        yield Stored(server)


def manifest_of(files: Files, number: int = 1, pending: tuple[str, ...] = ()) -> Manifest:
    """A manifest of one release."""
    return Manifest(*OWN.values(), {release(number): entries(files)}, pending)


# A release that is live, although its manifest was not written


def test_a_note_says_what_a_release_is_about_to_put() -> None:
    """Its difference to the live one, without ETags, and which files tell that it is live."""
    note = json.loads(manifest.note(manifest_of(LIVE), manifest_of(NEW, 9, ("/a.txt",)), ["index.html"]))

    assert note == {
        "format": 1,
        "application": "mint-app",
        "environment": "prod",
        "live": "r1",
        "release": {
            "id": "r9", "version": "9", "at": 9, "actor": "octocat", "run": "", "rolled_back_from": ""
        },
        "files": {"a.txt": [sha("2"), 1, "", 0], "b.txt": [sha("b"), 1, "", 0]},
        "without": ["gone.txt"],
        "headers": [BRIEFLY],
        "last": ["index.html"],
        "pending": ["/a.txt"],
    }  # fmt: skip
    first = json.loads(manifest.note(None, manifest_of(PAGE), []))
    assert (first["live"], [*first["files"]], first["without"]) == ("", ["index.html"], [])


def test_a_note_has_what_differs_only_in_its_headers() -> None:
    new = manifest_of(PAGE, 9)
    files = {"index.html": replace(new.files["index.html"], headers={"Content-Type": "other"})}

    note = json.loads(manifest.note(manifest_of(PAGE), replace(new, releases={release(9): files}), []))

    assert [*note["files"]] == ["index.html"]


def noted(stored: Stored, **changes: Any) -> State:
    """What is read of a bucket after the commit point of release 9, with other fields in the note."""
    new = manifest_of(NEW, 9, ("/a.txt", "/c"))
    note = json.loads(manifest.note(manifest_of(LIVE), new, ["a.txt", "b.txt"]))
    stored.objects |= {NEXT: json.dumps(note | changes).encode(), "a.txt": b"2", "b.txt": b"b"}
    put = {"a.txt": Remote("new etag of 2", 1), "b.txt": Remote("new etag of b", 1), NEXT: Remote("n", 1)}
    found = state(LIVE, pending=("/c", "/d"))
    return replace(found, listing={**(found.listing or {}), **put})


def test_a_release_that_was_noted_and_whose_last_files_are_there_is_live(stored: Stored) -> None:
    """With the ETags that the bucket shows, and what neither has been invalidated. The one before it is kept."""
    found = noted(stored)

    now = manifest.repaired(stored.bucket, found)

    assert stored.asked() == [NEXT, "a.txt", "b.txt"]
    assert (now.repaired, now.listing, now.etag) == (True, found.listing, found.etag)
    assert now.manifest
    assert (now.manifest.application, now.manifest.environment) == ("mint-app", "prod")
    assert [one.id for one in now.manifest.releases] == ["r9", "r1"]
    assert {key: entry.etag for key, entry in now.manifest.files.items()} == {
        "index.html": "etag of page", "same.txt": "etag of same", "a.txt": "new etag of 2", "b.txt": "new etag of b"
    }  # fmt: skip
    assert {key: entry.sha256 for key, entry in now.manifest.files.items()} == {k: sha(v) for k, v in NEW.items()}
    assert now.manifest.pending == ("/a.txt", "/c", "/d")


@pytest.mark.parametrize(
    ("remote", "etag"),
    [
        (Remote("etag of 1", 1), ""),
        (Remote("another", 1), "another"),
        (Remote("another", 2), ""),
        (None, ""),
    ],
)
def test_a_noted_file_has_the_etag_that_the_bucket_shows_if_it_was_put(
    stored: Stored, remote: Remote | None, etag: str
) -> None:
    """Else it is put again: without an ETag it counts as changed."""
    found = noted(stored, last=["b.txt"])
    listing = {key: one for key, one in (found.listing or {}).items() if key != "a.txt"}
    now = manifest.repaired(stored.bucket, replace(found, listing=listing | ({"a.txt": remote} if remote else {})))

    assert now.manifest
    assert now.manifest.files["a.txt"].etag == etag


def test_a_noted_file_whose_headers_alone_change_has_the_etag_of_its_content(stored: Stored) -> None:
    """S3 gives the same bytes the same ETag again."""
    row = [sha("1"), 1, "", 0]
    found = noted(stored, files={"a.txt": row, "b.txt": [sha("b"), 1, "", 0]}, last=["b.txt"])
    listing = {**(found.listing or {}), "a.txt": Remote("etag of 1", 1)}

    now = manifest.repaired(stored.bucket, replace(found, listing=listing))

    assert now.manifest
    assert now.manifest.files["a.txt"].etag == "etag of 1"


def test_the_first_release_of_a_bucket_may_be_noted_too(stored: Stored) -> None:
    stored.objects |= {NEXT: manifest.note(None, manifest_of(PAGE), ["index.html"]), "index.html": b"page"}
    found = State({NEXT: Remote("n", 1), "index.html": Remote("e", 4)}, None)

    now = manifest.repaired(stored.bucket, found)

    assert now.manifest
    assert (now.repaired, [one.id for one in now.manifest.releases]) == (True, ["r1"])
    assert now.manifest.files["index.html"].etag == "e"


@pytest.mark.parametrize(
    "change",
    [
        {"live": "r0"},
        {"live": ""},
        {"format": FORMAT + 1},
        {"last": []},
        {"last": ["a.txt", "missing.txt"]},
        {"last": ["gone.txt"]},
        {"files": {"a.txt": [sha("3"), 1, "", 0]}, "last": ["a.txt"]},
        {"files": {"a.txt": [sha("2"), 0, "", 0]}, "last": ["a.txt"]},
        {"files": {"_release/x": [sha("2"), 1, "", 0], "a.txt": [sha("2"), 1, "", 0]}},
        {"files": "a.txt"},
        {"headers": []},
    ],
    ids=str,
)
def test_a_note_that_does_not_say_what_is_there_changes_nothing(stored: Stored, change: Mapping[str, Any]) -> None:
    """Of another release before it, of another format or damaged, or of one whose last files were not put."""
    found = noted(stored, **change)

    assert manifest.repaired(stored.bucket, found) is found


def test_a_note_is_only_read_where_it_can_be_there(stored: Stored) -> None:
    """One that was deleted since says nothing."""
    found = noted(stored)
    unlisted = replace(found, listing={key: one for key, one in (found.listing or {}).items() if key != NEXT})
    for one in (unlisted, replace(found, listing=None), replace(found, unread="denied")):
        assert manifest.repaired(stored.bucket, one) is one
    assert stored.asked() == []

    del stored.objects[NEXT]
    assert manifest.repaired(stored.bucket, found) is found


# Reading


def test_a_bucket_without_a_manifest(stored: Stored) -> None:
    assert manifest.read(stored.bucket) == (None, "", "", None)


def test_a_manifest_is_read_with_its_etag(stored: Stored) -> None:
    stored.objects[KEY] = manifest.dump(manifest_of(PAGE))

    found = manifest.read(stored.bucket)

    assert (found.manifest, found.etag, found.unread) == (manifest_of(PAGE), f"etag of {KEY}", "")
    assert found.base
    assert (found.base.manifest, found.base.is_stored) == (manifest_of(PAGE), False)


def test_a_manifest_that_s3_denies_is_none_with_the_reason(stored: Stored) -> None:
    """Any other error is one of the release."""
    stored.replies[KEY] = Reply(error("AccessDenied"), 403)
    found = manifest.read(stored.bucket)
    assert (found.manifest, found.etag, found.base) == (None, "", None)
    assert "AccessDenied" in found.unread

    stored.replies[KEY] = Reply(error("InvalidRequest"), 400)
    with pytest.raises(S3Error, match="InvalidRequest"):
        manifest.read(stored.bucket)


def test_a_manifest_of_a_newer_version_is_refused(stored: Stored) -> None:
    stored.objects[KEY] = b'{"format": 3}'

    with pytest.raises(Refused, match=r"^_release/manifest.json has format 3: it was written by a newer version"):
        manifest.read(stored.bucket)


def test_a_difference_is_read_with_its_base(stored: Stored) -> None:
    """One whose base is gone is damaged, unless the manifest is another one by now."""
    old = manifest.dump(manifest_of(LIVE))
    base = manifest.Base(hashlib.sha256(old).hexdigest(), manifest_of(LIVE), is_stored=False)
    new = replace(manifest_of(NEW, 9), releases={release(9): entries(NEW), release(1): entries(LIVE)})
    stored.objects |= {KEY: manifest.dump(new, base), f"{BLOBS}{base.sha256}": old}

    found = manifest.read(stored.bucket)
    assert (found.manifest, found.base) == (new, replace(base, is_stored=True))

    del stored.objects[f"{BLOBS}{base.sha256}"]
    del stored.server.requests[:]
    with pytest.raises(Refused, match="is gone or changed"):
        manifest.read(stored.bucket)
    assert stored.asked() == [KEY, f"{BLOBS}{base.sha256}"] * 2


@pytest.mark.parametrize(
    ("releases", "kept"),
    [
        ([(9, NEW), (2, PAGE), (1, LIVE)], ["r2", "r1"]),
        ([(9, NEW), (2, PAGE)], ["r2"]),
        ([(9, NEW), (1, LIVE)], ["r1"]),
        ([(9, NEW)], []),
        ([(9, NEW), (8, PAGE), (2, PAGE), (1, LIVE)], ["r2", "r1"]),
    ],
)
def test_a_difference_names_what_is_kept_of_its_base(releases: list[tuple[int, Files]], kept: list[str]) -> None:
    """In its order: what is kept is the end of it."""
    old = {release(2): entries(PAGE), release(1): entries(LIVE)}
    base = manifest.Base("b" * 64, Manifest(*OWN.values(), old), is_stored=True)
    new = replace(manifest_of(NEW), releases={release(number): entries(files) for number, files in releases})

    written = json.loads(manifest.dump(new, base))

    assert (written["format"], written["base"], written["kept"]) == (2, "b" * 64, kept)
    assert [one["release"]["id"] for one in written["releases"]] == [
        f"r{n}" for n, _ in releases if f"r{n}" not in kept
    ]


def test_a_manifest_without_a_new_release_is_written_whole() -> None:
    """An object that was put again may have the same ETag as before."""
    base = manifest.Base("b" * 64, manifest_of(LIVE), is_stored=False)

    assert manifest.load(manifest.dump(manifest_of(LIVE), base)) == manifest_of(LIVE)
    assert not manifest.fits(base.manifest.releases, base)


def test_what_was_there_before_the_first_release_is_written_whole() -> None:
    """It inherits no files, so nothing can be a difference to it."""
    before = {Release("before", "", 0, "", ""): {"x.txt": Entry("", 1, "e", {})}}
    base = manifest.Base("b" * 64, manifest_of(LIVE), is_stored=True)
    new = replace(manifest_of(NEW, 9), releases={release(9): entries(NEW), **before})

    assert json.loads(manifest.dump(new, base))["format"] == 1
    assert not manifest.fits(new.releases, base)


def test_a_rollback_is_written_with_what_it_went_back_from() -> None:
    """Other releases have no such field, as in the first version."""
    back = replace(release(9), rolled_back_from="r1")
    new = replace(manifest_of(NEW), releases={back: entries(NEW), release(1): entries(LIVE)})

    told = [one["release"] for one in json.loads(manifest.dump(new))["releases"]]

    assert told[0]["rolled_back_from"] == "r1"
    assert told[1] == {"id": "r1", "version": "1", "at": 1, "actor": "octocat", "run": ""}
    assert manifest.load(manifest.dump(new)) == new


@pytest.mark.parametrize(
    ("body", "kind"), [(b"[" * 100_000, list[Any]), (b"{", dict[str, Any]), (b'{"a": 1}', list[int])]
)
def test_a_document_of_another_kind_is_a_value_error(body: bytes, kind: type[Any]) -> None:
    with pytest.raises(ValueError, match=r"\S") as told:
        manifest.decoded(body, kind)
    assert not isinstance(told.value, msgspec.MsgspecError)


# Keys of others


def test_keys_of_others_are_in_neither_the_listing_nor_the_manifest() -> None:
    """The keys of the release itself are always ours."""
    found = state({**PAGE, "env.js": "1"}, theirs={"docs/a": "", manifest.LEASE: ""})

    ours = manifest.without(found, lambda key: key != "index.html")

    assert ours.listing
    assert ours.manifest
    assert [*ours.listing] == ["index.html", manifest.LEASE]
    assert [*ours.manifest.files] == ["index.html"]
    assert manifest.without(State(None, None), lambda _: True) == State(None, None)
