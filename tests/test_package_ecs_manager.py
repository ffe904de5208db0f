"""The Lambda's zip: the same bytes each time, and a handler that Lambda can load from it."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import package_ecs_manager
from scripts.frame.errors import Refused
from tests.conftest import Invoke


def test_the_zip_has_the_same_bytes_whenever_and_wherever_it_is_made(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times and modes of files, and the time zone, do not matter."""
    copy = tmp_path / "ecs_manager"
    copy.mkdir()
    for name in reversed(package_ecs_manager.names(package_ecs_manager.PACKAGE)):
        file = copy.parent / name
        file.write_bytes((package_ecs_manager.PACKAGE.parent / name).read_bytes())
        file.chmod(0o700)
        os.utime(file, (1, 1))
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "handler.cpython-311.pyc").write_bytes(b"x")

    done = invoke("package-ecs-manager", f"--output={tmp_path / 'a.zip'}", TZ="Asia/Tokyo", CI="true")

    assert done.returncode == 0, done.stderr
    data = (tmp_path / "a.zip").read_bytes()
    assert data == package_ecs_manager.archive(copy)
    assert f"sha256 {hashlib.sha256(data).hexdigest()}" in done.stderr


def test_lambda_can_load_the_handler_from_the_zip_alone(tmp_path: Path) -> None:
    """It needs nothing else from this repository."""
    output = tmp_path / "manager.zip"
    package_ecs_manager.write(package_ecs_manager.plan(str(output)))
    assert all(entry.external_attr >> 16 == 0o100644 for entry in zipfile.ZipFile(output).infolist())

    code = "from ecs_manager.handler import handler; print(handler({'command': 'x'}, None)['level'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(output)}, capture_output=True, text=True
    )

    assert done.stdout == "critical\n", done.stderr


def test_a_dry_run_lists_the_files_and_writes_none(invoke: Invoke, tmp_path: Path) -> None:
    """With the hash of the zip that a run would write."""
    done = invoke("package-ecs-manager", "--dry-run", f"--output={tmp_path / 'a.zip'}")

    assert done.returncode == 0
    assert "  ecs_manager/handler.py" in done.stderr
    assert package_ecs_manager.plan(str(tmp_path / "a.zip")).sha256 in done.stderr
    assert list(tmp_path.glob("*.zip")) == []


def test_every_entry_is_that_of_a_file_on_unix_at_a_fixed_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompressed, under its name in the package."""
    monkeypatch.chdir(tmp_path)

    done = package_ecs_manager.write(package_ecs_manager.plan(None))

    assert done.output == "ecs_manager.zip"
    entries = zipfile.ZipFile(tmp_path / "ecs_manager.zip").infolist()
    assert [entry.filename for entry in entries] == sorted(package_ecs_manager.names(package_ecs_manager.PACKAGE))
    assert {(entry.date_time, entry.create_system, entry.external_attr, entry.compress_type) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), 3, 0o100644 << 16, zipfile.ZIP_STORED)
    }


def test_what_would_be_written_and_what_was(tmp_path: Path) -> None:
    """Both with the hash; the handler is what Lambda has to be told."""
    target = str(tmp_path / "a.zip")
    plan = package_ecs_manager.plan(target)
    done = package_ecs_manager.write(plan)

    data = (tmp_path / "a.zip").read_bytes()
    hashed = hashlib.sha256(data).hexdigest()
    head, *rest = plan.describe()
    assert head == f"write {target}: {len(data)} bytes, sha256 {hashed}"
    assert rest == [f"  {name}" for name in package_ecs_manager.names(package_ecs_manager.PACKAGE)]
    assert done.line() == f"{target} has sha256 {hashed}; its handler is ecs_manager.handler.handler"
    assert done.outputs() == {"package": target, "sha256": hashed}


@pytest.mark.parametrize("output", ["", ".", "/", "nowhere/a.zip", "a\0.zip", "x" * 300])
def test_a_path_that_cannot_be_written_is_refused(output: str) -> None:
    """Empty, a folder, in a missing folder, or an invalid file name."""
    with pytest.raises(Refused, match="cannot be written"):
        package_ecs_manager.plan(output)


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_only_a_regular_file_is_replaced(kind: str, tmp_path: Path, invoke: Invoke) -> None:
    """Anything else is left unchanged: exit code 2, in a dry run too."""
    output, target = tmp_path / "a.zip", tmp_path / "precious"
    target.write_text("precious")
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(target), "folder": Path.mkdir}[kind](output)
    before = output.lstat().st_mode

    for words in ([], ["--dry-run"]):
        done = invoke("package-ecs-manager", f"--output={output}", *words)
        assert done.returncode == 2, done.stderr
        assert "is not a regular file and was not overwritten" in done.stderr
    assert output.lstat().st_mode == before
    assert target.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "precious", "home"}


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    """With the usual permissions, and nothing is left beside it."""
    output = tmp_path / "a.zip"
    output.write_text("old")

    done = package_ecs_manager.write(package_ecs_manager.plan(str(output)))

    assert hashlib.sha256(output.read_bytes()).hexdigest() == done.sha256
    assert output.stat().st_mode & 0o600 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "home"}


def test_a_line_break_in_the_name_starts_no_other_output(tmp_path: Path, invoke: Invoke) -> None:
    outputs = tmp_path / "outputs"
    odd = tmp_path / "a\nsha256=x"

    done = invoke("package-ecs-manager", f"--output={odd}", GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(outputs))

    assert done.returncode == 0, done.stderr
    assert odd.is_file()
    assert [line.partition("=")[0] for line in outputs.read_text().splitlines()] == ["package", "sha256"]
