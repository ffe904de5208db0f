"""Writes files: first a temporary file beside the target, then a rename, over a regular file or nothing alone."""

import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from scripts.frame import stop
from scripts.frame.errors import Refused


def check_target(path: Path) -> None:
    """Raises Refused if the folder does not exist, or if the path is a device, pipe, link or folder."""
    try:
        if not path.name or not path.parent.is_dir():
            raise Refused(f"{str(path)!r} cannot be written: give the path of a file in a folder that exists.")
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise Refused(f"{str(path)!r} cannot be written: {why}.") from error
    if not stat.S_ISREG(mode):
        raise Refused(f"{str(path)!r} is not a regular file and was not overwritten. Give the path of a file.")


def write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file completely or not at all. mode: its permissions, less the umask. Raises Refused if it cannot."""
    check_target(path)
    # Not derived from the file's name, which may already have the maximum length.
    part = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with stop.owned(lambda: os.open(part, flags, mode), lambda _: part.unlink(missing_ok=True)) as descriptor:
            with open(descriptor, "wb") as file:
                file.write(content)
            part.replace(path)
    except OSError as error:
        raise Refused(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def temporary_folder(prefix: str) -> stop.owned[Path]:
    """A folder that only this user can read; it is removed however the block ends.

    Raises Refused where there is none to be had.
    """

    def make() -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix=prefix))
        except OSError as error:
            raise Refused(f"No temporary folder can be created: {error.strerror}. Free space or set TMPDIR.") from error

    return stop.owned(make, lambda path: shutil.rmtree(path, ignore_errors=True))
