"""What a folder must not hold to be released."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from scripts.frame.errors import Refused
from scripts.release import content, site
from scripts.release.site import File, Rules, Site


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"logo-\xff.png", "is not a name in UTF-8"),
        (b"/".join([b"a" * 200] * 6), "is longer than the 1,024 bytes that S3 takes"),
        (b"new\nline.txt", "contains a character that a browser cannot request"),
        (b"back\\slash.txt", "contains a character that a browser cannot request"),
        (b"_release/manifest.json", "is reserved for the release's own files"),
    ],
    ids=["not UTF-8", "too long", "control character", "backslash", "reserved"],
)
def test_a_file_that_cannot_be_a_key_is_refused(tmp_path: Path, name: bytes, said: str) -> None:
    """With its name."""
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).touch()
    (tmp_path / "index.html").touch()

    with pytest.raises(Refused, match=said):
        site.read(tmp_path)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "odd is a link"),
        (lambda path: path.symlink_to("/etc"), "odd is a link"),
        (lambda path: path.symlink_to("index.html"), "odd is a link"),
        (os.mkfifo, "odd is neither a file nor a folder"),
    ],
    ids=["a link out of the folder", "a link to a folder", "a link inside", "a pipe"],
)
def test_only_regular_files_are_released(tmp_path: Path, add: Callable[[Path], None], said: str) -> None:
    """A link may lead out of the folder, and a pipe never ends."""
    (tmp_path / "index.html").touch()
    add(tmp_path / "odd")

    with pytest.raises(Refused, match=said):
        site.read(tmp_path)


def test_a_folder_without_a_build_is_refused(tmp_path: Path) -> None:
    """Releasing it would delete the site."""
    with pytest.raises(Refused, match=r"There is no build in .*nowhere"):
        site.read(tmp_path / "nowhere")
    with pytest.raises(Refused, match="is empty: releasing it would delete the whole site"):
        site.read(tmp_path)
    (tmp_path / "page.html").touch()
    with pytest.raises(Refused, match=r"has no index\.html: releasing it would leave no page"):
        site.read(tmp_path)


@pytest.mark.parametrize("call", ["scandir", "open"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, mocker: MockerFixture, call: str) -> None:
    """With its path and the system's reason. root reads everything, so the system's answer is made up."""
    (tmp_path / "index.html").touch()
    mocker.patch(f"scripts.release.site.os.{call}", side_effect=PermissionError(13, "Permission denied"))

    with pytest.raises(Refused, match=f"{tmp_path}.* cannot be read: Permission denied"):
        site.read(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.production",
        "app/.env.local",
        ".git/config",
        "app/.git/HEAD",
        ".hg/store",
        ".ssh/known_hosts",
        ".aws/credentials",
        ".npmrc",
        ".htpasswd",
        "id_rsa",
        "id_ed25519.pub",
        "server.key",
        "server.PEM",
        "cert.crt",
        "store.p12",
        "store.pfx",
        "store.jks",
        "terraform.tfstate.backup",
    ],
)
def test_secrets_keys_and_repositories_are_refused(tmp_path: Path, name: str) -> None:
    """Unless the settings publish them."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    (tmp_path / "index.html").touch()

    with pytest.raises(Refused, match=re.escape(f"holds what must not be public: {name}. Remove it")):
        site.read(tmp_path)
    assert name in site.read(tmp_path, Rules(publish=(name,))).files
    assert name not in site.read(tmp_path, Rules(keep=(name,))).files


def test_a_private_key_is_refused_whatever_its_name(tmp_path: Path) -> None:
    """A script that only contains such a text is not."""
    (tmp_path / "index.html").touch()
    begin = "-----BEGIN RSA PRIVATE" + " KEY-----"
    (tmp_path / "a.js").write_text(f"const begin = '{begin}'")
    assert set(site.read(tmp_path).files) == {"index.html", "a.js"}

    (tmp_path / "notes.txt").write_text(f"\n{begin}\nabc")
    with pytest.raises(Refused, match=r"must not be public: notes\.txt"):
        site.read(tmp_path)


def test_what_nobody_needs_is_left_out(tmp_path: Path) -> None:
    """What systems and editors leave behind; and what others write."""
    litter = [
        ".DS_Store",
        "a/.DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "index.html~",
        ".index.html.swp",
        "#a.js#",
        ".#a.js",
    ]
    litter += ["a.js.orig", "a.css.bak", "__MACOSX/a.js", "._a.js", ".gitkeep", ".vscode/settings.json"]
    kept = ["index.html", "a.js", ".well-known/security.txt", "~a.js", "a/thumbs.js", "bak.js", "a.bak.js"]
    for name in [*litter, *kept, "env.js"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    found = site.read(tmp_path, Rules(keep=("env.js",)))

    assert sorted(found.files) == sorted(kept)
    assert sorted(found.litter) == sorted(litter)
    assert found.kept == ("env.js",)
    assert ".DS_Store" in site.read(tmp_path, Rules(publish=(".DS_Store",))).files


def test_the_headers_of_each_file(tmp_path: Path) -> None:
    """From the settings, a bundler's manifest, the name, or the content."""
    files = {
        "index.html": "<p>",
        "assets/a-Standard.js": "",
        "assets/b-Dk3l_9aZ.js": "",
        ".well-known/apple-app-site-association": "{}",
        "a.odd": "",
        "b.odd": "",
        ".vite/manifest.json": json.dumps(
            {
                "a.js": {"file": "assets/a-Standard.js"},
                "b.js": {"file": "assets/b-Dk3l_9aZ.js"},
                "c.js": {"file": "assets/c-aB_9Xy1z.js"},
            }
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    read = site.read(tmp_path, Rules(content_types={"a.odd": "text/x-odd"}, cache_control={"b.*": "max-age=1"})).files
    found = {key: tuple(file.headers.values()) for key, file in read.items()}

    forever, no_cache = "public, max-age=31536000, immutable", "no-cache"
    assert found == {
        "index.html": ("text/html; charset=utf-8", no_cache),
        "assets/a-Standard.js": ("text/javascript; charset=utf-8", forever),
        "assets/b-Dk3l_9aZ.js": ("text/javascript; charset=utf-8", forever),
        ".well-known/apple-app-site-association": ("application/json; charset=utf-8", no_cache),
        "a.odd": ("text/x-odd", no_cache),
        "b.odd": ("application/octet-stream", "max-age=1"),
        ".vite/manifest.json": ("application/json; charset=utf-8", no_cache),
    }


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a", ""),
        ("a b/~\x80é", ""),
        ("a" * 1024, ""),
        ("é" * 512, ""),
        ("a" * 1025, "is longer than the 1,024 bytes that S3 takes"),
        ("é" * 513, "is longer than the 1,024 bytes"),
        *((f"a{character}", "a character that a browser cannot request") for character in "\0\x1f\x7f\\"),
        ("\udc80", "is not a name in UTF-8"),
        ("_release/x", "is reserved"),
        ("a/_release/x", ""),
    ],
)
def test_which_keys_can_be_requested(key: str, said: str) -> None:
    if not said:
        site.check_key(key)
        return
    with pytest.raises(Refused, match=said):
        site.check_key(key)


def test_a_file_is_hashed_as_a_whole(tmp_path: Path) -> None:
    """However large it is, and without keeping it open. Only a small one's content says its type."""
    film = b"{}" + b" " * (1 << 20) + b"end"
    (tmp_path / ".well-known").mkdir()
    for name, body in {"index.html": b"", ".well-known/film": film, ".well-known/small": b"{}"}.items():
        (tmp_path / name).write_bytes(body)
    opened = len(os.listdir("/proc/self/fd"))

    found = site.read(tmp_path).files

    assert (found[".well-known/film"].sha256, found[".well-known/film"].size) == (
        hashlib.sha256(film).hexdigest(),
        len(film),
    )
    assert found[".well-known/film"].path == str(tmp_path / ".well-known/film")
    kinds = [found[f".well-known/{name}"].headers["Content-Type"] for name in ("film", "small")]
    assert kinds == [content.UNKNOWN, "application/json; charset=utf-8"]
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_bundlers_manifest_may_be_unreadable_but_not_too_large(tmp_path: Path) -> None:
    """It is only read for the names that it lists. Bytes that are no text are none of them."""
    listed = {"a": "Standard", "b": "Dk3l_9aZ", "c": "aB_9Xy1z"}
    chunks = {f"{name}.js": {"file": f"assets/{name}-{part}.js"} for name, part in listed.items()}
    named = json.dumps(chunks).encode()
    for name, body in {"index.html": b"", "assets/a-Standard.js": b"", ".vite/manifest.json": named}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    assert content.is_immutable(site.read(tmp_path).files["assets/a-Standard.js"].headers)

    (tmp_path / ".vite/manifest.json").write_bytes(named[:-1] + b" " * (8 << 20) + named[-1:])
    assert not content.is_immutable(site.read(tmp_path).files["assets/a-Standard.js"].headers)
    (tmp_path / ".vite/manifest.json").write_bytes(b"\xff")
    assert not content.is_immutable(site.read(tmp_path).files["assets/a-Standard.js"].headers)


def hinted(**kinds: str) -> list[str]:
    """What a site of these files hints at, by content type."""
    files = {key: File("", 0, "", {"Content-Type": kind}) for key, kind in kinds.items()}
    return list(site.hints(Site("", files)))


def test_what_a_person_may_want_to_settle() -> None:
    """Types that nobody knows, and from five on, names that may have a hash."""
    odd = {"a.unknown": content.UNKNOWN, "b.unknown": "text/x-odd", "c.bin": content.UNKNOWN, "index.html": "text/html"}
    assert hinted(**odd) == ["of unknown type, frontend.content_types can name it: a.unknown"]

    maybe = {f"lib/part{number}.Standard.js": "text/javascript" for number in range(5)}
    assert hinted(**maybe) == [
        "5 names may have a hash, and are not cached forever: lib/part0.Standard.js, lib/part1.Standard.js,"
        ' lib/part2.Standard.js. If a bundler wrote them: frontend.cache_control."lib/*" ='
        ' "public, max-age=31536000, immutable"'
    ]
    assert hinted(**dict([*maybe.items()][1:])) == []
    settled = {key: File("", 0, "", {"Content-Type": "", "Cache-Control": content.FOREVER}) for key in maybe}
    assert list(site.hints(Site("", settled))) == []


@pytest.mark.parametrize(("many", "shown"), [(0, ""), (1, "0"), (20, "18, 19"), (21, "18, 19 and 1 more")])
def test_a_message_names_twenty_files(many: int, shown: str) -> None:
    assert site.shown(str(number) for number in range(many)).endswith(shown)
    assert site.shown(str(number) for number in range(many)).count(",") == max(0, min(many, 20) - 1)
