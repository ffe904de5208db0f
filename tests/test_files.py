"""Files that commands write: completely or not at all, and never over anything but a regular file."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.frame import files
from scripts.frame.errors import Refused
from tests.conftest import ROOT


def folder(path: Path) -> None:
    """A folder at the file's path."""
    path.mkdir()


def pipe(path: Path) -> None:
    """A named pipe, on which a writer would block."""
    os.mkfifo(path)


def link(path: Path) -> None:
    """A link to a file that must not change."""
    (path.parent / "target").write_text("old")
    path.symlink_to("target")


def dangling_link(path: Path) -> None:
    """A link without a target."""
    path.symlink_to("nowhere")


def link_to_a_device(path: Path) -> None:
    """A link to /dev/full, where every write would fail."""
    path.symlink_to("/dev/full")


@pytest.mark.parametrize("put", [folder, pipe, link, dangling_link, link_to_a_device])
def test_only_a_regular_file_is_replaced(put: Callable[[Path], None], tmp_path: Path) -> None:
    """Anything else is refused with its path before anything is written."""
    path = tmp_path / "it"
    put(path)
    before = [(entry.name, entry.lstat().st_mode) for entry in sorted(tmp_path.iterdir())]

    with pytest.raises(Refused, match="it' is not a regular file and was not overwritten"):
        files.write(path, b"new")

    assert [(entry.name, entry.lstat().st_mode) for entry in sorted(tmp_path.iterdir())] == before
    assert not (tmp_path / "target").exists() or (tmp_path / "target").read_text() == "old"


NO_FOLDER = "give the path of a file in a folder that exists"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", NO_FOLDER),
        (".", NO_FOLDER),
        ("..", "not a regular file"),
        ("/", NO_FOLDER),
        ("nowhere/file", NO_FOLDER),
        ("file.txt/inside", NO_FOLDER),
        ("n\0ul", "embedded null byte"),
        ("n\0ul/file", NO_FOLDER),
        ("\ud800", "surrogates not allowed"),
        ("x" * 256, "cannot be written: File name too long."),
        ("/proc/version2", "cannot be written: "),
        ("/proc/self/mem2", "cannot be written: "),
    ],
    ids=ascii,
)
def test_an_invalid_path_is_refused_in_one_sentence(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, a folder, in a missing folder, with a NUL, too long, or without permission to write."""
    monkeypatch.chdir(tmp_path)
    Path("file.txt").touch()

    with pytest.raises(Refused) as error:
        files.write(Path(path), b"new")

    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "home"] == ["file.txt"]


@pytest.mark.parametrize("name", ["plain", "new\nline", "quo'te", " ", "x" * 255, ".part", "é"])
def test_a_file_is_written_whole_under_any_name(name: str, tmp_path: Path) -> None:
    """Nothing else is left beside it, and an older file is replaced."""
    path = tmp_path / "in" / name
    path.parent.mkdir()
    for content in (b"old" * 100, b"new"):
        files.write(path, content)
        assert path.read_bytes() == content

    assert list(path.parent.iterdir()) == [path]
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask


@pytest.mark.parametrize(("mode", "umask", "found"), [(0o644, 0o022, 0o644), (0o644, 0o077, 0o600), (0o600, 0, 0o600)])
def test_a_file_gets_the_permissions_of_the_umask(mode: int, umask: int, found: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "file", b"", mode=mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == found


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "in" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    # A limit on the size of files has the effect of a full disk.
    code = (
        "import resource, signal; from pathlib import Path; from scripts.frame import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"files.write(Path({str(path)!r}), b'x' * 2000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert "Refused" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_write_that_is_stopped_leaves_the_old_file_or_the_new(sent: signal.Signals, tmp_path: Path) -> None:
    """And no part of the new one beside it."""
    path = tmp_path / "in" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    code = (
        "from pathlib import Path; from scripts.frame import files, run, stop\n"
        "stop.listen()\n"
        "with run.running('test', 'dev', embedded=False):\n"
        "    print('begins', flush=True)\n"
        f"    while True: files.write(Path({str(path)!r}), b'new' * 1000000)\n"
    )
    for wait in (0.0, 0.003, 0.011, 0.02):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(sent)
        process.communicate(timeout=10)

        assert process.returncode == 2
        assert [entry.name for entry in path.parent.iterdir()] == ["file"]
        assert path.read_bytes() in (b"old", b"new" * 1000000)


def test_a_temporary_folder_is_private_and_deleted_after_its_block() -> None:
    """However the block ends."""
    made = []

    def fill() -> None:
        with files.temporary_folder("test-") as path:
            made.append(path)
            assert path.name.startswith("test-")
            (path / "in").mkdir()
            (path / "in" / "file").write_text("x")
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()

    assert not made[0].exists()


def test_a_temporary_folder_may_be_gone_already() -> None:
    """Nothing is left to do then."""
    with files.temporary_folder("test-") as path:
        path.rmdir()


def test_without_a_temporary_folder_a_command_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    with (
        pytest.raises(Refused, match=r"can be created: No such file or directory\. Free space or set TMPDIR\."),
        files.temporary_folder("test-"),
    ):
        pass
