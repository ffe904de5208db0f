"""Manifest and lease are parsed into typed records: a damaged document is refused in one sentence."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.frame.errors import Refused
from scripts.frame.run import plain
from scripts.release import lease, manifest
from scripts.release.lease import Holder
from scripts.release.manifest import Entry, Manifest, Release
from tests.conftest import Invoke
from tests.release import sites
from tests.release.test_publish import BUCKET, Site, release, site
from tests.release.test_publish import Release as Released

__all__ = ["release", "site"]

SHA = "0123456789abcdef" * 4
HEADERS = {"Content-Type": "text/css", "Cache-Control": "no-cache"}
# As written by the first version of this command: buckets have such manifests.
WRITTEN: dict[str, Any] = {
    "format": 1,
    "application": "mint-app",
    "environment": "prod",
    "pending": ["/", "/*", "/help/%C3%A9.html"],
    "releases": [
        {
            "release": {"id": "r2", "version": "abc", "at": 1700000000, "actor": "octocat", "run": "https://x/1"},
            "files": {"index.html": [SHA, 10, "e1-3", 0], "new é.css": [SHA, 0, "e2", 1]},
            "without": [],
        },
        {
            "release": {"id": "before", "version": "", "at": 0, "actor": "", "run": ""},
            "files": {"old\n.js": ["", 3, "e3", 2]},
            "without": ["new é.css"],
        },
    ],
    "headers": [HEADERS, {"Content-Type": "text/html"}, {}],
}
HELD = {"id": "x", "actor": "octocat", "run": "", "host": "h", "pid": 12, "expires": 1700000000}


def encoded(document: Any) -> bytes:
    """A document as JSON."""
    return json.dumps(document).encode()


def test_documents_of_the_first_version_are_read_and_written_unchanged() -> None:
    read = manifest.load(encoded(WRITTEN))

    live, before = read.releases
    assert (live.id, before.at, read.pending) == ("r2", 0, ("/", "/*", "/help/%C3%A9.html"))
    assert read.releases[live]["index.html"] == Entry(SHA, 10, "e1-3", HEADERS)
    assert set(read.releases[before]) == {"index.html", "old\n.js"}
    assert manifest.load(manifest.dump(read)) == read
    assert json.loads(manifest.dump(read)) == WRITTEN
    assert lease.load(encoded(HELD)) == Holder(**HELD)


# A path in the document, and the value to put there.
DAMAGES: list[tuple[tuple[Any, ...], Any]] = [
    *((("releases", 0, "files", "index.html", 0), sha) for sha in ("../../x", SHA.upper(), SHA[1:], f"{SHA}\n", "", 1)),
    *((("releases", 0, "files", "index.html", 1), size) for size in (-1, 1.5, "10", None, 10**30)),
    *((("releases", 0, "files", "index.html", 2), etag) for etag in ("e\r\nX: y", "é", "e" * 2000, 3)),
    *((("releases", 0, "files", "index.html", 3), number) for number in (-1, 3, "0")),
    *((("releases", 0, "files", key), [SHA, 1, "e", 0]) for key in ("", "a" * 2000, "_release/lease.json")),
    (("releases", 0, "files", "index.html"), [SHA, 10]),
    (("releases", 0, "files"), []),
    *((("releases", 0, "release", "at"), at) for at in (-1, 10**12, "1", 1.5, 0)),
    *((("releases", 0, "release", "id"), text) for text in ("", 1, None, "r" * 3000)),
    (("releases", 0, "without"), [1]),
    (("releases",), {}),
    *((("pending",), paths) for paths in (["no path"], ["/a b"], ["/é"], [f"/{'a' * 9000}"], [1], "/")),
    *((("headers",), kinds) for kinds in ([{"Content-Type": 1}], [], {}, ["x"])),
    *((("format",), number) for number in (2, "1", None)),
    (("application",), 3),
]


@pytest.mark.parametrize(("path", "value"), DAMAGES)
def test_a_damaged_manifest_is_refused(path: tuple[Any, ...], value: Any) -> None:
    """In one sentence that says what to do."""
    document = copy.deepcopy(WRITTEN)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(Refused, match=r"^_release/manifest.json (is damaged \(.*\): delete it|has format 2: it was)"):
        manifest.load(encoded(document))


@pytest.mark.parametrize(
    "change",
    [
        *({"expires": value} for value in (-1, 10**12, "soon", None, float("inf"))),
        *({"pid": value} for value in (-1, 1 << 31, "x", 1.5, None)),
        *({"actor": value} for value in (1, "a" * 3000)),
    ],
    ids=str,
)
def test_a_damaged_lease_is_refused(change: dict[str, Any]) -> None:
    """In one sentence that says what to do."""
    with pytest.raises(Refused, match=r"^_release/lease.json is damaged \(.*take it over with --force-lock"):
        lease.load(encoded(HELD | change))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([SHA, "../../x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def altered(draw: st.DrawFn, document: Any) -> bytes:
    """A document with something replaced, removed or added at any depth, or with some bytes changed."""
    changed = copy.deepcopy(document)
    place: Any = changed
    while isinstance(place, (dict, list)) and place:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    what = draw(st.sampled_from(["replace", "remove", "add", "bytes"]))
    if what == "remove":
        del place[key]
    elif what == "add" and isinstance(place, dict):
        place[draw(st.text(max_size=20))] = draw(JSON)
    elif what != "bytes":
        place[key] = draw(JSON)
    body = json.dumps(changed).encode()
    if what == "bytes":
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=6)) + body[at + draw(st.integers(0, 4)) :]
    return body


HOSTILE = st.sampled_from(
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 200_000,
        b'{"x":' * 100_000,
        b'{"format": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"format": 1' + b"0" * 10_000 + b"}",
        b'{"expires": 1' + b"0" * 10_000 + b"}",
        b'{"expires": 1e999, "pid": 1e999}',
        b'{"id": "\\ud800", "expires": 1}',
        b'{"id": "\\u0000\\u202e", "expires": 1}',
    ]
)


def outcome(read: Callable[[bytes], object], body: bytes) -> object:
    """The record, or the message of the refusal."""
    try:
        return read(body)
    except Refused as error:
        return str(error)


@pytest.mark.parametrize(
    ("read", "document", "record"),
    [(manifest.load, WRITTEN, Manifest), (lease.load, HELD, Holder)],
    ids=["manifest", "lease"],
)
def test_any_document_is_refused_or_becomes_a_usable_record(
    read: Callable[[bytes], object], document: Any, record: type[object]
) -> None:
    """Odd, huge and hostile documents too."""

    @given(st.one_of(altered(document), st.binary(max_size=50), JSON.map(encoded), HOSTILE))
    @hypothesis.settings(max_examples=400)
    def check(body: bytes) -> None:
        found = outcome(read, body)
        if isinstance(found, str):
            assert "is damaged" in found or "has format" in found
            return
        assert isinstance(found, record)
        if isinstance(found, Manifest):
            entries = [entry for files in found.releases.values() for entry in files.values()]
            assert all(len(entry.sha256) in (0, 64) and entry.size >= 0 for entry in entries)
            assert manifest.load(manifest.dump(found)) == found
        if isinstance(found, Holder):
            time.gmtime(found.expires)
            assert lease.is_over(found, Holder(host="h", expires=0), time.time()) in (True, False)

    check()


def test_a_manifest_with_keys_outside_the_site_is_refused(site: Site, invoke: Invoke, tmp_path: Path) -> None:
    """By every command that reads it. Nothing is written to the bucket or the disk."""
    hostile = copy.deepcopy(WRITTEN)
    hostile["releases"][1]["release"] |= {"at": 1}
    hostile["releases"][1]["files"] = {"robots.txt": ["../../x", 3, "e", 0]}
    site.put("_release/manifest.json", encoded(hostile))
    site.put("_release/files/../../x", b"bad")
    folder = sites.build(tmp_path / "build", "one")
    before = len(site.cloud.requests("s3", "PutObject"))

    for words in (
        ("release-static", "--no-build", f"--build-dir={folder}"),
        *((f"release.{name}",) for name in ("list", "diff", "rollback", "verify")),
    ):
        done = invoke(*words, **site.cloud.env)

        assert done.returncode == 2, done.stderr
        assert "_release/manifest.json is damaged" in done.stderr.splitlines()[-1]
    assert len(site.cloud.requests("s3", "PutObject")) == before


@pytest.mark.parametrize("body", [b"other", b"longer than the file that was released", None])
def test_a_stored_copy_with_another_hash_is_not_restored(
    site: Site, release: Released, invoke: Invoke, tmp_path: Path, body: bytes | None
) -> None:
    """Somebody with write access to the bucket may have changed it. Nothing is changed."""
    for version in ("one", "two"):
        release(sites.build(tmp_path / version, version))
    copies = [
        item["Key"]
        for item in site.s3.list_objects_v2(Bucket=BUCKET, Prefix="_release/files/")["Contents"]
        if b"one" in (site.get(item["Key"]) or ("", b""))[1]
    ]
    for key in copies:
        site.put(key, body) if body is not None else site.s3.delete_object(Bucket=BUCKET, Key=key)

    done = invoke("release.rollback", **site.cloud.env)

    assert copies
    assert done.returncode == 2, done.stderr
    assert site.holds(tmp_path / "two")


def test_release_records_appear_in_json_with_their_fields() -> None:
    released = {"id": "r", "version": "v", "at": 1, "actor": "a", "run": "", "rolled_back_from": ""}
    assert plain(Release("r", "v", 1, "a", "")) == released
