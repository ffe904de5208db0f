"""Content types and hashed names, as tables."""

import mimetypes

import pytest

from scripts.release import content


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
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
        ("a.unknown", "application/octet-stream"),
        ("LICENSE", "application/octet-stream"),
        ("folder.js/file", "application/octet-stream"),
    ],
)
def test_the_content_type_of_a_name(key: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not depend on the machine's mime.types."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("text/plain", None))

    assert content.content_type(key) == expected


@pytest.mark.parametrize(
    "key",
    [
        "static/js/main.0a1b2c3d.js",
        "static/js/787.0a1b2c3d.chunk.js",
        "static/js/main.0a1b2c3d.js.map",
        "static/media/logo.0a1b2c3d.png",
        "assets/index-DkCqcyWS.js",
        "assets/index-BxYz12aQ.css",
        "assets/02_empty_MTO-C-kTEH3g.png",
        "assets/chunk-_a9-Zk3x.js",
        "assets/vendor-aB-_Xy12.js.map",
    ],
)
def test_hashed_names_are_cached_for_ever(key: str) -> None:
    """In the formats of Create React App and Vite."""
    assert content.is_hashed(key)
    assert content.headers(key, {})["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "key",
    [
        "index.html",
        "assets/page-BxYz12aQ.html",
        "favicon.ico",
        "robots.txt",
        "logo192.png",
        "report-20210101.pdf",
        "icon-dark-128.png",
        "Icon-Dark-128.png",
        "photo-DarkMode.png",
        "my-document.pdf",
        "help-language.svg",
        "main.0a1b2c3.js",
        "main.0A1B2C3D.js",
    ],
)
def test_names_that_may_not_be_hashed_are_not_cached_for_ever(key: str) -> None:
    """A wrong guess would keep an old file in browsers for a year."""
    assert not content.is_hashed(key)
    assert content.headers(key, {})["Cache-Control"] == "no-cache"


def test_the_first_matching_override_wins() -> None:
    """Patterns are those of fnmatch."""
    table = {"help/*.pdf": "max-age=60", "*.pdf": "max-age=1"}

    assert content.headers("help/a.pdf", table)["Cache-Control"] == "max-age=60"
    assert content.headers("a.pdf", table)["Cache-Control"] == "max-age=1"
