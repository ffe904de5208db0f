"""Content types and hashed names, as tables."""

import json
import mimetypes

import pytest

from scripts.release import bundles, content

FOREVER = "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.cjs", "text/javascript; charset=utf-8"),
        ("A.JS", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js.map", "application/json; charset=utf-8"),
        ("manifest.json", "application/json; charset=utf-8"),
        ("a.webmanifest", "application/manifest+json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("favicon.ico", "image/vnd.microsoft.icon"),
        ("a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("index.html", "text/html; charset=utf-8"),
        ("a.vtt", "text/vtt; charset=utf-8"),
        ("a.ics", "text/calendar; charset=utf-8"),
        ("a.geojson", "application/geo+json"),
        ("a.mov", "video/quicktime"),
        ("a.m4a", "audio/mp4"),
        ("feed.atom", "application/atom+xml"),
        ("a.yaml", "application/yaml"),
        ("a.js.br", "text/javascript; charset=utf-8"),
        ("a.js.gz", "application/gzip"),
        ("a.unknown", ""),
        ("LICENSE", ""),
        ("folder.js/file", ""),
        (".js", ""),
        ("a/.js", ""),
        ("a.xml", "application/xml; charset=utf-8"),
    ],
)
def test_the_content_type_of_a_name(key: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not depend on the machine's mime.types."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("text/plain", None))

    assert content.content_type(key, {}) == expected


def test_no_ending_has_two_content_types() -> None:
    endings = [ending for line in content._KINDS.strip().splitlines() for ending in line.split()[1:]]

    assert sorted(endings) == sorted(set(endings))


def test_the_settings_have_the_first_word_on_content_types() -> None:
    """The first pattern that matches is taken as it is."""
    table = {"docs/*.pdf": "application/x-a", "*.pdf": "application/x-b"}

    assert content.content_type("docs/a.pdf", table) == "application/x-a"
    assert content.content_type("a.pdf", table) == "application/x-b"
    assert content.content_type("a.js", table) == "text/javascript; charset=utf-8"


def test_a_file_that_is_compressed_already_is_stored_with_its_encoding() -> None:
    assert content.headers("a.js.br", "text/javascript", {})["Content-Encoding"] == "br"
    assert "Content-Encoding" not in content.headers("a.js.gz", "application/gzip", {})


@pytest.mark.parametrize(
    ("key", "body", "expected"),
    [
        (".well-known/apple-app-site-association", b'{"applinks":{}}', "application/json; charset=utf-8"),
        ("apple-app-site-association", b" {}", "application/json; charset=utf-8"),
        ("app/.well-known/matrix/server", b"[]", "application/json; charset=utf-8"),
        (".well-known/acme-challenge/token", b"token.key", "text/plain; charset=utf-8"),
        ("LICENSE", b"MIT", "text/plain; charset=utf-8"),
        ("docs/README", b"# a", "text/plain; charset=utf-8"),
        ("_redirects", b"/a /b", "text/plain; charset=utf-8"),
        *(
            (name, b"", "text/plain; charset=utf-8")
            for name in ("LICENCE", "COPYING", "NOTICE", "AUTHORS", "CHANGELOG")
        ),
        *((name, b"", "text/plain; charset=utf-8") for name in ("CNAME", "VERSION", "REVISION", "_headers", "license")),
        (".well-known/other", b"text", ""),
        (".well-known/other", b"{" * 100_000, ""),
        (".well-known/other", b"\xff\xfe", ""),
        ("other", b"{}", ""),
        (".well-known/a.json", b"{}", ""),
    ],
)
def test_a_few_names_without_ending_are_known_by_their_content(key: str, body: bytes, expected: str) -> None:
    assert content.type_of(key, body) == expected


@pytest.mark.parametrize(
    "key",
    [
        # Create React App and webpack.
        "static/js/main.0a1b2c3d.js",
        "static/js/787.0a1b2c3d.chunk.js",
        "static/js/main.0a1b2c3d.js.map",
        "static/media/logo.0a1b2c3d.png",
        "static/media/logo.eb36e4cc6fc3ec1ba6c1.png",
        "eb36e4cc6fc3ec1ba6c1.png",
        "main.0a1b2c3d.iframe.bundle.js",
        # Vite.
        "assets/index-DkCqcyWS.js",
        "assets/index-BxYz12aQ.css",
        "assets/02_empty_MTO-C-kTEH3g.png",
        "assets/chunk-_a9-Zk3x.js",
        "assets/vendor-aB-_Xy12.js.map",
        # Next, Angular 16 and later, Astro, SvelteKit.
        "_next/static/chunks/main-ead515a05478a304.js",
        "_next/static/css/5dec4ff7f3e3cc99.css",
        "_next/static/chunks/36wyumjnpvzk-.js",
        "_next/static/chunks/turbopack-2u1d16houkiyo.js",
        "_next/static/media/logo.0r-6c08yaolts.png",
        "main.0123456789abcdef.js",
        "main-5QYJ4FGT.js",
        "chunk-QWERTYUI.js",
        "_astro/hoisted.BxYz12aQ.js",
        "_astro/logo.C1a2B3c4_Zx8Yab.webp",
        "_app/immutable/entry/app.BqhE8hhK.js",
        "_app/immutable/chunks/B-nZ5Vxz.js",
        "_app/immutable/nodes/1.CPHZOINX.js",
    ],
)
def test_names_that_bundlers_write_are_cached_for_ever(key: str) -> None:
    assert content.is_hashed(key)
    assert content.headers(key, "text/css", {})["Cache-Control"] == FOREVER
    assert content.is_immutable(content.headers(key, "text/css", {}))


@pytest.mark.parametrize(
    "key",
    [
        "index.html",
        "assets/page-BxYz12aQ.html",
        "favicon.ico",
        "robots.txt",
        "logo192.png",
        "my-document.pdf",
        "assets/form-BxYz12aQ.pdf",
        "main.0a1b2c3.js",
        "main.0A1B2C3D.js",
        # In Next's folder too.
        "_next/static/chunks/contact-us-12.js",
        "_next/static/QIb8QZlcacTMKAczMydjT/_buildManifest.js",
        # Numbers and words.
        "static/js/main.12345678.js",
        "static/js/main.deadbeef.js",
        "assets/index-12345678.js",
        "icon-dark-128.png",
        "Icon-Dark-128.png",
        "photo-DarkMode.png",
        "help-language.svg",
        "logo-ORIGINAL.png",
        "screen-iPadPro3.png",
        "screen-iPhone12.png",
        "plan-Mk2Draft.png",
        # Dates.
        "report-20210101.pdf",
        "report.20240101.pdf",
        "assets/main-20240131.js",
        "main.2024010a.js",
        "minutes-3Mar2024.pdf",
        "minutes-3Mar2024.png",
        "minutes-1dec2024.png",
        "plan-FY2024Q3.png",
        "a-10_12_21.js",
        # Sizes.
        "img/banner-1920x600.jpg",
        "apple-touch-startup-image-1792x828.png",
        "desktop-1024x768.png",
        "img/banner-800X1200.png",
        "film-MP4_720p.png",
        "film-1080p60f.js",
    ],
)
def test_names_that_may_not_be_hashed_are_not_cached_for_ever(key: str) -> None:
    """A wrong guess would keep an old file in browsers for a year."""
    assert not content.is_hashed(key)
    assert content.headers(key, "text/css", {})["Cache-Control"] == "no-cache"


def test_the_first_matching_override_wins() -> None:
    """Patterns are those of fnmatch."""
    table = {"help/*.pdf": "max-age=60", "*.pdf": "max-age=1"}

    assert content.headers("help/a.pdf", "", table)["Cache-Control"] == "max-age=60"
    assert content.headers("a.pdf", "", table)["Cache-Control"] == "max-age=1"


@pytest.mark.parametrize(
    ("value", "immutable"),
    [
        (FOREVER, True),
        ("immutable", True),
        ("public, max-age=31536000", True),
        ("max-age=600", False),
        ("s-maxage=31536000", False),
        ("no-cache", False),
        ("", False),
    ],
)
def test_what_counts_as_cached_for_ever(value: str, immutable: bool) -> None:
    """A rule of the settings for a folder is as good as a hash in the name."""
    assert content.is_immutable({"Cache-Control": value}) is immutable


VITE = {
    "index.html": {"file": "assets/index-DD6urjyn.js", "name": "index", "css": ["assets/index-pMVRHubt.css"]},
    "src/a.png": {"file": "assets/a-Dk3l_9aZ.png", "src": "src/a.png"},
    "_shared-DlLuYSFW.js": {"file": "assets/shared-DlLuYSFW.js", "name": "shared"},
    "src/b.css": {"file": "assets/b-Standard.css", "src": "src/b.css"},
    "src/c.png": {"file": "assets/c-20240101.png", "src": "src/c.png"},
    "src/d.png": {"file": "assets/d-1920x600.png", "src": "src/d.png"},
    "src/e-Standard.png": {"file": "assets/e-Standard.png", "src": "src/e-Standard.png"},
    "src/f.js": {"file": "assets/f.js", "name": "f"},
}


@pytest.mark.parametrize(
    ("key", "document", "keys"),
    [
        # A word that stands where all others have a hash is one too; what the source has in its name is none.
        (
            ".vite/manifest.json",
            VITE,
            "assets/index-DD6urjyn.js assets/index-pMVRHubt.css assets/a-Dk3l_9aZ.png assets/shared-DlLuYSFW.js"
            " assets/b-Standard.css",
        ),
        ("app/.vite/manifest.json", {"a.js": {"file": "a-Dk3l_9aZ.js"}}, "app/a-Dk3l_9aZ.js"),
        ("app/manifest.json", {"a.js": {"file": "a-Dk3l_9aZ.js"}}, "app/a-Dk3l_9aZ.js"),
        (
            "asset-manifest.json",
            {"files": {"main.js": "/static/js/main.0a1b2c3d.js", "a.svg": "/static/media/a.0a1b2c3d4e5f60718293.svg"}},
            "static/js/main.0a1b2c3d.js static/media/a.0a1b2c3d4e5f60718293.svg",
        ),
        ("asset-manifest.json", {"main.js": "main.Standard.js", "b.js": "b.Original.js"}, ""),
        ("asset-manifest.json", {"main.js": {"src": "main.0a1b2c3d.js", "integrity": "x"}}, "main.0a1b2c3d.js"),
        ("asset-manifest.json", {"a.js.map": "/a.0a1b2c3d.js.map", "b.c.js": "b.c.0a1b2c3d.chunk.js"},
         "a.0a1b2c3d.js.map b.c.0a1b2c3d.chunk.js"),
        # Of most of the names it must be sure.
        ("asset-manifest.json", {"a.js": "a.0a1b2c3d.js", "b.js": "b.Standard.js"}, ""),
        ("asset-manifest.json", {"a.js": "a.0a1b2c3d.js", "b.js": "b.0a1b2c3e.js", "c.js": "c.Standard.js"},
         "a.0a1b2c3d.js b.0a1b2c3e.js c.Standard.js"),
        ("asset-manifest.json", {"a.js": "a.0a1b2c3d.js", "b.js": "b.0a1b2c3e.js"}
         | {f"{name}.js": f"{name}.Standard.js" for name in "cde"}, ""),
        # The name of the source comes before it.
        ("asset-manifest.json", {"x.js": "-0a1b2c3d.js", ".js": "-0a1b2c3e.js"}, ""),
        ("ngsw.json", {"hashTable": {"/main.0a1b2c3d.js": "x"}}, ""),
        ("ngsw.json", {"main.js": "main.0a1b2c3d.js"}, ""),
        ("asset-manifest.json", {"files": 3}, ""),
    ],
)  # fmt: skip
def test_a_bundlers_manifest_says_which_names_are_hashed(key: str, document: object, keys: str) -> None:
    assert bundles.hashed(key, json.dumps(document)) == set(keys.split())


@pytest.mark.parametrize(
    ("key", "may_be"),
    [
        ("a.Standard.js", True),
        ("lib/a-Standard.js", True),
        ("a.0a1b2c3d.js", False),
        ("a.Standard.html", False),
        ("a.12345678.js", False),
        ("a.js", False),
    ],
)
def test_which_names_only_look_as_if_they_had_a_hash(key: str, may_be: bool) -> None:
    """Neither those that surely have one, nor documents and numbers."""
    assert content.may_be_hashed(key) is may_be


@pytest.mark.parametrize(
    ("text", "ordinary"),
    [("20231224ab", True), ("2023dec24", True), ("12345678", True), ("0a1b2c3d", False), ("aB_9Xy1z", False)],
)
def test_numbers_and_dates_are_no_hashes(text: str, ordinary: bool) -> None:
    """Also those of hexadecimal digits."""
    assert content.is_ordinary(text) is ordinary
