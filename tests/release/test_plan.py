"""What a release decides, from a build and what the bucket holds."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from scripts.edges.s3 import Remote
from scripts.frame.errors import Refused
from scripts.release import manifest, plan
from scripts.release.manifest import Base, Entry, Manifest, Release, State
from scripts.release.plan import COMMIT, NEW, OTHER, PAGES, POINTERS, WORKERS, Delete, ReleasePlan
from scripts.release.site import File, Site

FOREVER = {"Content-Type": "text/javascript", "Cache-Control": "public, max-age=31536000, immutable"}
BRIEFLY = {"Content-Type": "text/html", "Cache-Control": "no-cache"}
OWN = {"application": "mint-app", "environment": "prod"}
Files = Mapping[str, str]


def sha(text: str) -> str:
    """The hash of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def headers(key: str) -> Mapping[str, str]:
    """What is in assets/ never changes."""
    return FOREVER if key.startswith("assets/") else BRIEFLY


def site(files: Files) -> Site:
    """A build, by the text of each file."""
    made = {key: File(f"/build/{key}", len(text), sha(text), headers(key)) for key, text in files.items()}
    return Site("/build", made)


def entries(files: Files) -> dict[str, Entry]:
    """Files that were released, and are still as they were put."""
    return {key: Entry(sha(text), len(text), f"etag of {text}", headers(key)) for key, text in files.items()}


def release(number: int) -> Release:
    """A release; a higher number is a newer one."""
    return Release(f"r{number}", str(number), number, "octocat", "")


def state(
    *releases: Files, theirs: Files | None = None, gone: Sequence[str] = (), pending: Sequence[str] = ()
) -> State:
    """A bucket after releases of these files, the newest first.

    theirs: objects that somebody else has put. gone: keys that somebody else has deleted.
    """
    found = {release(len(releases) - number): entries(files) for number, files in enumerate(releases)}
    current = Manifest(*OWN.values(), found, tuple(pending)) if releases else None
    known = current.known() if current else {}
    listing = {key: Remote(entry.etag, entry.size) for key, entry in known.items()}
    listing |= {key: Remote(f"theirs: {text}", len(text)) for key, text in (theirs or {}).items()}
    return State({key: one for key, one in listing.items() if key not in gone}, current, "e" if current else "")


def decide(files: Files, found: State, **other: Any) -> ReleasePlan:
    """The plan of release 9. other: as for `plan.plan`."""
    settings = {"bucket": "b", "keep_releases": 2, "max_delete_percent": 100, **OWN, "distribution": "D", **other}
    return plan.plan(site(files), found, release=release(9), **settings)


PAGE = {"index.html": "page"}


# Why an object is put, and when


@pytest.mark.parametrize(
    ("key", "stage", "paths"),
    [
        ("a.txt", OTHER, ("/a.txt",)),
        ("help/index.html", PAGES, ("/help/", "/help/index.html")),
        ("myindex.html", PAGES, ("/myindex.html",)),
        ("index.html", COMMIT, ("/", "/index.html")),
        ("version.json", POINTERS, ("/version.json",)),
        ("sw.js", WORKERS, ("/sw.js",)),
        ("assets/a.js", NEW, ("/assets/a.js",)),
    ],
)
def test_a_file_that_changes_is_put_in_its_stage_and_invalidated(key: str, stage: str, paths: Sequence[str]) -> None:
    decided = decide({**PAGE, key: "new"}, state({**PAGE, key: "old"}))

    (put,) = decided.puts
    assert (put.key, put.stage, put.reason, put.size, put.headers) == (key, stage, "content", 3, headers(key))
    assert decided.invalidate == paths
    assert decided.unchanged == tuple({"index.html"} - {key})


@pytest.mark.parametrize(
    ("found", "reason", "others_stage", "is_told", "forever_is_told"),
    [
        (state(PAGE), "new", NEW, False, False),
        (state({**PAGE, "KEY": "new"}, gone=["KEY"]), "new", NEW, False, False),
        (state(PAGE, theirs={"KEY": "new"}), "unknown", OTHER, True, False),
        (state({**PAGE, "KEY": "old"}), "content", OTHER, True, True),
        (state({**PAGE, "KEY": "new"}, theirs={"KEY": "new"}), "foreign", OTHER, True, True),
        (state(PAGE, {**PAGE, "KEY": "old"}), "content", OTHER, True, True),
        (state(PAGE, {**PAGE, "KEY": "new"}), "", "", False, False),
        (state({**PAGE, "KEY": "new"}), "", "", False, False),
    ],
)
def test_why_an_object_is_put_and_whether_the_cdn_is_told(
    found: State, reason: str, others_stage: str, is_told: bool, forever_is_told: bool
) -> None:
    """By what the manifest and the listing say of it. What is cached forever is invalidated if its content changed."""
    for key, stage, told in (("a.txt", others_stage, is_told), ("assets/a.js", NEW, forever_is_told)):
        decided = decide({**PAGE, key: "new"}, named(found, key))

        assert [(put.key, put.reason, put.stage) for put in decided.puts] == [(key, reason, stage)] * bool(reason)
        assert decided.invalidate == (f"/{key}",) * told
        assert (key in decided.unchanged) == (not reason)


def named(found: State, key: str) -> State:
    """The state with another name for KEY."""
    current = found.manifest
    assert current
    assert found.listing

    def entry(name: str, one: Entry) -> Entry:
        return replace(one, headers=headers(key)) if name == "KEY" else one

    releases = {
        which: {key if name == "KEY" else name: entry(name, one) for name, one in files.items()}
        for which, files in current.releases.items()
    }
    listing = {key if name == "KEY" else name: one for name, one in found.listing.items()}
    return replace(found, manifest=replace(current, releases=releases), listing=listing)


@pytest.mark.parametrize(("key", "told"), [("a.txt", ("/a.txt",)), ("assets/a.js", ())])
def test_other_headers_alone_are_a_reason(key: str, told: Sequence[str]) -> None:
    found = state({**PAGE, key: "a"})
    assert found.manifest
    files = {**found.manifest.files, key: replace(found.manifest.files[key], headers={"Content-Type": "other"})}
    decided = decide({**PAGE, key: "a"}, replace(found, manifest=Manifest(*OWN.values(), {release(1): files})))

    assert [put.reason for put in decided.puts] == ["headers"]
    assert (decided.invalidate, decided.is_new) == (told, True)


def test_a_changed_size_alone_is_noticed() -> None:
    """Two objects may have the same ETag, and two entries the same hash."""
    found = state({**PAGE, "a.txt": "a"})
    assert found.listing
    assert found.manifest
    of_bucket = replace(found, listing={**found.listing, "a.txt": Remote("etag of a", 2)})
    files = {**found.manifest.files, "a.txt": replace(found.manifest.files["a.txt"], size=2)}
    of_manifest = replace(found, manifest=Manifest(*OWN.values(), {release(1): files}))

    reasons = [[put.reason for put in decide({**PAGE, "a.txt": "a"}, one).puts] for one in (of_bucket, of_manifest)]
    assert reasons == [["foreign"], ["content"]]


def test_what_pages_load_comes_before_them() -> None:
    """Also if its name is that of a file which describes the page, or of a worker."""
    files = {**PAGE, "version.json": "2", "sw.js": "2", "b.txt": "2", "a.html": "2"}
    found = state(dict.fromkeys(files, "1"))

    assert [(put.key, put.stage) for put in decide(files, found, needed={"sw.js"}).puts] == [
        ("b.txt", OTHER),
        ("sw.js", OTHER),
        ("a.html", PAGES),
        ("index.html", COMMIT),
        ("version.json", POINTERS),
    ]


def test_without_a_cdn_nothing_is_invalidated() -> None:
    assert decide({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}), distribution="").invalidate == ()


@pytest.mark.parametrize(
    ("changed", "pending", "base", "paths"),
    [
        ("é b.txt", (), "/", ("/%C3%A9%20b.txt",)),
        ("a~-._.txt", (), "/", ("/a~-._.txt",)),
        ("a.txt", (), "/app/", ("/app/a.txt",)),
        ("a.txt", ("/z", "/b"), "/", ("/a.txt", "/b", "/z")),
        ("a.txt", ("/*", "/b"), "/", ("/*",)),
        ("a.txt", tuple(f"/{number:02}" for number in range(14)), "/", (*(f"/{n:02}" for n in range(14)), "/a.txt")),
        ("a.txt", tuple(f"/{number:02}" for number in range(15)), "/", ("/*",)),
    ],
)
def test_the_paths_for_the_cdn(changed: str, pending: Sequence[str], base: str, paths: Sequence[str]) -> None:
    """Encoded, below the folder of the site, with those that an earlier release left; more than 15 are all."""
    found = state({**PAGE, changed: "1"}, pending=pending)

    assert decide({**PAGE, changed: "2"}, found, base=base).invalidate == paths


# What is deleted


OLD = {**PAGE, "old.txt": "old", "assets/old.js": "old"}


@pytest.mark.parametrize(
    ("found", "keep", "deletes", "told"),
    [
        (state(PAGE), 0, [], []),
        (state(OLD), 0, ["assets/old.js expired", "old.txt expired"], ["/old.txt"]),
        (state(OLD), 1, [], []),
        (state(PAGE, OLD), 1, ["assets/old.js expired", "old.txt expired"], ["/old.txt"]),
        (state(PAGE, OLD), 2, [], []),
        (state(PAGE, theirs={"z.txt": "z"}), 2, ["z.txt foreign"], ["/z.txt"]),
        (state(OLD, theirs={"a.txt": "a"}), 0, ["a.txt foreign", "assets/old.js expired", "old.txt expired"],
         ["/a.txt", "/old.txt"]),
        (state(PAGE, theirs={"a//b.txt": "z"}), 2, ["a//b.txt foreign"], ["/a//b.txt"]),
        (state(PAGE, theirs={"main.0a1b2c3d.js": "z"}), 2, ["main.0a1b2c3d.js foreign"], []),
        (state(PAGE, theirs={manifest.blob_key(sha("page")): "", manifest.LEASE: "", manifest.NEXT: ""}), 2, [], []),
        (state(PAGE, theirs={manifest.blob_key("a" * 64): ""}), 2, [f"_release/files/{'a' * 64} expired"], []),
        (state(PAGE, theirs={manifest.blob_key(sha("new")): ""}), 2, [], []),
        (state(PAGE, theirs={manifest.blob_key(sha("new")): ""}), 0,
         [f"{manifest.blob_key(sha('new'))} expired"], []),
        (replace(state(OLD), unread="denied"), 0, [], []),
    ],
)  # fmt: skip
def test_what_is_deleted(found: State, keep: int, deletes: Sequence[str], told: Sequence[str]) -> None:
    """Foreign keys first, then what no kept release has, then copies that none needs. The CDN is told of what it may
    have for long."""
    decided = decide({"index.html": "new"}, found, keep_releases=keep)

    assert [f"{one.key} {one.reason}" for one in decided.deletes] == deletes
    assert decided.invalidate == tuple(sorted(["/", "/index.html", *told]))


def test_a_file_that_was_cached_forever_by_its_headers_is_not_invalidated() -> None:
    """Whatever its name says now."""
    found = state({**PAGE, "assets/a.txt": "a", "main.0a1b2c3d.js": "b"})
    decided = decide(PAGE, found, keep_releases=0)

    assert decided.deletes == (Delete("assets/a.txt", "expired"), Delete("main.0a1b2c3d.js", "expired"))
    assert decided.invalidate == ("/main.0a1b2c3d.js",)


FOUR = {**PAGE, "a.txt": "", "b.txt": "", "c.txt": ""}
THEIRS = {"x.txt": "", "y.txt": ""}


@pytest.mark.parametrize(
    ("files", "found", "percent", "refused"),
    [
        (["a.txt", "b.txt"], state(FOUR), 25, ""),
        (["a.txt", "b.txt"], state(FOUR), 24, "delete 1 of the 4 objects in b, more than the 24 %"),
        (["a.txt"], state(FOUR), 49, "delete 2 of the 4 objects in b, more than the 49 % that max_delete_percent"
         " allows: b.txt, c.txt. Nothing was changed."),
        (["a.txt"], state(FOUR), 50, ""),
        (["a.txt"], state(FOUR, theirs={manifest.LEASE: "", manifest.blob_key("a" * 64): ""}), 50, ""),
        (["a.txt"], state(FOUR, theirs={manifest.LEASE: "", manifest.blob_key("a" * 64): ""}), 49, "2 of the 4"),
        (["a.txt", "b.txt", "c.txt"], state(FOUR, theirs=THEIRS), 34, ""),
        ([], state(PAGE, FOUR), 0, ""),
        ([], state(theirs=THEIRS), 100, ""),
        ([], state(theirs=THEIRS), 99, "delete 2 of the 2 objects in b, more than the 99 % that max_delete_percent"
         " allows: x.txt, y.txt."),
        (["a.txt"], state(FOUR, theirs=THEIRS), 34, ""),
        (["a.txt"], state(FOUR, theirs={**THEIRS, "v.txt": "", "w.txt": ""}), 25, ""),
        (["a.txt"], state(FOUR, theirs=THEIRS), 33, "delete 4 of the 6 objects in b, more than the 33 % that"
         " max_delete_percent allows: x.txt, y.txt"),
    ],
)  # fmt: skip
def test_how_much_a_release_may_delete(files: Sequence[str], found: State, percent: int, refused: str) -> None:
    """Of what is there and the live release has: what expires with older releases does not count."""
    build = {**PAGE, **dict.fromkeys(files, "")}
    if refused:
        with pytest.raises(Refused) as told:
            decide(build, found, keep_releases=0, max_delete_percent=percent)
        assert refused in str(told.value)
        return
    decided = decide(build, found, keep_releases=0, max_delete_percent=percent)
    assert not {one.key for one in decided.deletes} & build.keys()


def test_what_somebody_else_put_stays_if_it_is_too_much() -> None:
    decided = decide({**PAGE, "a.txt": ""}, state(FOUR, theirs=THEIRS), keep_releases=0, max_delete_percent=34)

    assert [one.key for one in decided.deletes] == ["b.txt", "c.txt"]
    assert [line for line in decided.warnings if "stay in b" in line] == [
        "2 objects that no release has put stay in b, because they are more than max_delete_percent allows to delete:"
        " x.txt, y.txt; what others write belongs into frontend.keep of the settings"
    ]


MINE = "what others write belongs into frontend.keep of the settings"


@pytest.mark.parametrize(
    ("files", "found", "keep", "said"),
    [
        (PAGE, state(PAGE), 2, ()),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}), 2, ()),
        ({**PAGE, "assets/a.js": "2"}, state({**PAGE, "assets/a.js": "1"}), 2,
         ("files have new content under names that browsers keep for a year: assets/a.js. Give them other names, or"
          " another frontend.cache_control.",)),
        ({**PAGE, "assets/a.js": "2"}, state(PAGE, theirs={"assets/a.js": "1"}), 2, ()),
        (PAGE, state(PAGE, theirs={"x.txt": "", manifest.blob_key("a" * 64): ""}), 2,
         (f"1 objects that no release has put are deleted from b: x.txt; {MINE}",)),
        (PAGE, state(PAGE, OLD), 0, ()),
        (PAGE, state(theirs=THEIRS), 2,
         ("b holds 2 objects that no release has put: x.txt, y.txt. After 2 more releases they are deleted, as far as"
          f" max_delete_percent allows; {MINE}",)),
        (PAGE, state(theirs={**THEIRS, "index.html": "", manifest.LEASE: ""}), 2,
         ("b holds 2 objects that no release has put: x.txt, y.txt. After 2 more releases they are deleted, as far as"
          f" max_delete_percent allows; {MINE}",)),
        (PAGE, state(theirs={"index.html": ""}), 2, ()),
        (PAGE, replace(state(theirs=THEIRS), unread="denied"), 2, ()),
        (PAGE, state(theirs=THEIRS), 0,
         (f"2 objects that no release has put are deleted from b: x.txt, y.txt; {MINE}",)),
        (PAGE, State(None, None, unread="not read"), 2, ()),
    ],
)  # fmt: skip
def test_what_a_person_is_told_before_a_release(files: Files, found: State, keep: int, said: Sequence[str]) -> None:
    assert decide(files, found, keep_releases=keep).warnings == said


def test_what_was_there_before_the_first_release_is_deleted_with_a_warning_when_it_expires() -> None:
    """The bucket's first release noted it, without its content."""
    before = {Release("before", "", 0, "", ""): {"x.txt": Entry("", 1, "theirs: x", {})}}
    current = Manifest(*OWN.values(), {release(1): entries(PAGE), **before})
    found = State({"index.html": Remote("etag of page", 4), "x.txt": Remote("theirs: x", 1)}, current, "e")

    decided = decide({"index.html": "new"}, found, keep_releases=1)

    assert decided.deletes == (Delete("x.txt", "expired"),)
    assert decided.warnings == (f"1 objects that no release has put are deleted from b: x.txt; {MINE}",)


# Which releases are kept, and what a rollback needs


@pytest.mark.parametrize(
    ("files", "found", "keep", "kept"),
    [
        (PAGE, State({}, None), 2, []),
        (PAGE, state(theirs={manifest.LEASE: ""}), 2, []),
        (PAGE, state(theirs=THEIRS), 1, [("before", ["x.txt", "y.txt"])]),
        (PAGE, state(theirs={**THEIRS, "index.html": ""}), 1, [("before", ["x.txt", "y.txt"])]),
        (PAGE, state(theirs=THEIRS), 0, []),
        ({"index.html": "3"}, state(PAGE, OLD), 1, [("r2", ["index.html"])]),
        ({"index.html": "3"}, state(PAGE, OLD), 2, [("r2", ["index.html"]), ("r1", [*OLD])]),
        (PAGE, state(PAGE, OLD), 2, [("r1", [*OLD])]),
        (PAGE, state(OLD, PAGE), 2, [("r2", [*OLD])]),
        (PAGE, state(OLD, {"index.html": "1"}), 2, [("r2", [*OLD]), ("r1", ["index.html"])]),
    ],
)
def test_which_older_releases_are_kept(files: Files, found: State, keep: int, kept: Sequence[tuple[str, Any]]) -> None:
    """Not those with the very same files, nor more than the settings say; the first keeps what was there before it."""
    decided = decide(files, found, keep_releases=keep)
    after = plan.next_manifest(decided, site(files), found, {}, keep_releases=keep, **OWN)

    live, *older = [(one.id, [*kept_files]) for one, kept_files in after.releases.items()]
    assert live == (decided.release.id, [*files])
    assert older == kept
    assert all(bool(one.at) == (one.id != "before") for one in after.releases)


def test_the_same_build_again_is_no_new_release() -> None:
    """It has the id of the live one, and nothing is to be done."""
    decided = decide(PAGE, state(PAGE, OLD))

    assert (decided.release, decided.live, decided.is_new, decided.is_needed) == (release(2), "r2", False, False)
    assert (decided.blobs, decided.requests) == ((), 2)


@pytest.mark.parametrize(
    ("files", "found", "other", "is_needed", "is_noted"),
    [
        ({"index.html": "2"}, state(PAGE), {}, True, True),
        (PAGE, state(PAGE, gone=["index.html"]), {}, True, False),
        (PAGE, state(PAGE, pending=["/a"]), {}, True, False),
        (PAGE, state(PAGE, pending=["/a"]), {"distribution": ""}, False, False),
        (PAGE, replace(state(PAGE), repaired=True), {}, True, False),
        (PAGE, state(PAGE, theirs={"x.txt": ""}), {}, True, False),
        (PAGE, state({**PAGE, "a.txt": "a"}), {"distribution": ""}, True, False),
    ],
)
def test_what_makes_a_release_needed(
    files: Files, found: State, other: Mapping[str, str], is_needed: bool, is_noted: bool
) -> None:
    """One that puts nothing new, or is not new, needs no note."""
    decided = decide(files, found, **other)

    assert (decided.is_needed, decided.is_noted) == (is_needed, is_noted)


COPY = {"_release/files/" + sha("1"): ""}


@pytest.mark.parametrize(
    ("files", "found", "keep", "blobs", "rescues"),
    [
        ({**PAGE, "a.txt": "2", "assets/a.js": "a"}, state(PAGE), 1, ["a.txt", "index.html"], {}),
        ({**PAGE, "a.txt": "2"}, state(PAGE), 0, [], {}),
        ({**PAGE, "a.txt": "page"}, state(PAGE), 1, ["index.html"], {}),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}), 1, ["a.txt", "index.html"], {"a.txt": sha("1")}),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}), 0, [], {}),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}, theirs=COPY), 1, ["a.txt", "index.html"], {}),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}, theirs={"a.txt": "1"}), 1, ["a.txt", "index.html"], {}),
        ({**PAGE, "a.txt": "2"}, state({**PAGE, "a.txt": "1"}, gone=["a.txt"]), 1, ["a.txt", "index.html"], {}),
        ({**PAGE, "a.txt": "1"}, state({**PAGE, "a.txt": "1"}, theirs={"a.txt": "x", **COPY}), 1, ["index.html"], {}),
        ({**PAGE, "assets/a.js": "2"}, state({**PAGE, "assets/a.js": "1"}), 1, ["assets/a.js", "index.html"],
         {"assets/a.js": sha("1")}),
        ({**PAGE, "a.txt": "2"}, state(PAGE, {**PAGE, "a.txt": "1"}), 1, ["a.txt", "index.html"], {}),
        (PAGE, state(PAGE), 1, [], {}),
    ],
)  # fmt: skip
def test_what_is_copied_for_a_rollback(
    files: Files, found: State, keep: int, blobs: Sequence[str], rescues: Mapping[str, str]
) -> None:
    """Files that a later release may overwrite, once each; and what is overwritten now, if no copy of it is there."""
    decided = decide(files, found, keep_releases=keep)

    assert (list(decided.blobs), decided.rescues) == (blobs, rescues)


def test_an_entry_of_a_file_that_was_not_put_stays_the_same() -> None:
    """One that was put has the ETag that S3 returned; without one it is put again by the next release."""
    found, files = state({**PAGE, "a.txt": "1"}), {**PAGE, "a.txt": "2", "b.txt": "b"}
    decided = decide(files, found)
    after = plan.next_manifest(decided, site(files), found, {"a.txt": "new"}, keep_releases=2, **OWN)

    assert found.manifest
    assert after.files["index.html"] is found.manifest.files["index.html"]
    assert [after.files[key].etag for key in ("a.txt", "b.txt")] == ["new", ""]
    assert (after.pending, after.application, after.environment) == (decided.invalidate, "mint-app", "prod")


# What is said, and counted


def test_a_plan_in_words() -> None:
    """Keys of others that would be deleted come first, and it says what another tool would put."""
    found = state({**PAGE, "same.txt": "same", "old.txt": "old"}, theirs={"x.txt": ""})
    decided = decide({"index.html": "new page", "same.txt": "same"}, found, keep_releases=0)

    assert decided.describe() == [
        "delete x.txt, which was not put there by a release",
        "put index.html (content, 8 bytes, text/html, no-cache)",
        "delete old.txt (expired)",
        "invalidate / /index.html /old.txt /x.txt",
        "release r9 to b: put 1 of 2 files (8 of 12 bytes), leave 1, delete 2, with 9 requests; `aws s3 sync` would put"
        " all 2 (12 bytes)",
    ]
    assert len(decide(PAGE, state(PAGE)).describe()) == 1


@pytest.mark.parametrize(
    ("files", "found", "other", "requests"),
    [
        # LIST and the manifest; the lease, the manifest twice; the page, its copy, the note, the manifest; the deletes.
        ({"index.html": "2"}, state(PAGE), {"keep_releases": 0}, 2 + 3 + 1 + 2 + 1),
        ({"index.html": "2"}, state(PAGE), {}, 2 + 3 + 2 + 2 + 1 + 1),
        # The CDN is told of nothing new by the note alone.
        (PAGE, state(PAGE, pending=["/a"]), {}, 2 + 3 + 0 + 2 + 1),
        (PAGE, replace(state(PAGE), repaired=True), {"distribution": ""}, 2 + 3 + 0 + 1 + 1),
        # Without the manifest nothing is compared and written.
        ({"index.html": "2"}, State({"index.html": Remote("e", 4)}, None, unread="denied"), {"keep_releases": 0},
         2 + 1 + 1 + 0 + 1),
        (PAGE, state(PAGE, theirs={f"{number:04}": "" for number in range(999)}), {"distribution": ""}, 2 + 3 + 1 + 1),
        (PAGE, state(PAGE, theirs={f"{number:04}": "" for number in range(1000)}), {"distribution": ""}, 3 + 3 + 1 + 2),
        ({"index.html": "2"}, state(PAGE, theirs={f"{number:04}": "" for number in range(998)}),
         {"distribution": "", "keep_releases": 0}, 2 + 3 + 1 + 2 + 1),
        ({"index.html": "2"}, state(PAGE, theirs={f"{number:04}": "" for number in range(999)}),
         {"distribution": "", "keep_releases": 0}, 2 + 3 + 1 + 2 + 2),
        ({**PAGE, "index.html": "p" * (17 << 20)}, state(PAGE), {"keep_releases": 0}, 2 + 3 + (2 + 3) + 2 + 1),
    ],
)  # fmt: skip
def test_how_many_requests_a_release_takes(files: Files, found: State, other: Mapping[str, Any], requests: int) -> None:
    assert decide(files, found, **other).requests == requests


@pytest.mark.parametrize(
    ("is_stored", "files", "is_based", "rescued", "requests"),
    [
        (False, {}, False, False, 2),
        (True, {}, True, False, 3),
        (False, {"a.txt": "new"}, True, True, 2 + 3 + 3 + 2 + 1),
        (True, {"a.txt": "new"}, True, False, 3 + 3 + 2 + 2 + 1),
        (True, {f"{number:02}.txt": "new" for number in range(17)}, False, False, 3 + 3 + 17 + 1 + 2 + 1),
    ],
)
def test_when_the_next_manifest_is_a_difference(
    is_stored: bool, files: Files, is_based: bool, rescued: bool, requests: int
) -> None:
    """To a small change of many files. Its base is copied first, and the copy stays while something needs it."""
    live = {**PAGE, **{f"{number:02}.txt": str(number) for number in range(64)}}
    copies = {manifest.blob_key(sha(text)): "" for text in live.values()}
    stored = {manifest.blob_key("b" * 64): ""} if is_stored else {}
    found = state(live, theirs={**copies, **stored})
    assert found.manifest
    found = replace(found, base=Base("b" * 64, found.manifest, is_stored))

    decided = decide({**live, **files}, found, keep_releases=1, distribution="")

    assert decided.based == is_based
    assert (manifest.KEY in decided.rescues) == rescued
    assert [one.key for one in decided.deletes] == ([*stored] if is_stored and not is_based else [])
    assert decided.requests == requests


@pytest.mark.parametrize("other", [{"application": "easi"}, {"environment": "impl"}])
def test_the_bucket_of_another_application_or_environment_is_refused(other: Mapping[str, str]) -> None:
    with pytest.raises(
        Refused, match=r"^b holds mint-app of prod, not .*: check the bucket's name\. Nothing was changed\.$"
    ):
        decide(PAGE, state(PAGE), **other)
