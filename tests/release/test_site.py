"""What a folder must not hold to be released."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from scripts.frame.errors import Refused
from scripts.release import site


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
