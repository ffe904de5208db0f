"""Packs the ecs-manager Lambda into a zip, with the same bytes each time.

The zip does not depend on when, where or by whom it is made: names are sorted, times and modes are fixed, and files are
stored uncompressed, because compressors differ between machines.
"""

import hashlib
import io
import zipfile
from pathlib import Path

from msgspec import Struct

from scripts.frame import files
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import ROOT

PACKAGE = ROOT / "ecs_manager"
HANDLER = "ecs_manager.handler.handler"
# The earliest time that a zip can hold.
TIME = (1980, 1, 1, 0, 0, 0)
UNIX, MODE = 3, 0o100644


class Package(Struct, frozen=True):
    """A zip that is to be written. files: names in it, in order."""

    output: str
    files: tuple[str, ...]
    size: int
    sha256: str

    def describe(self) -> list[str]:
        head = f"write {self.output}: {self.size} bytes, sha256 {self.sha256}"
        return [head, *(f"  {name}" for name in self.files)]


class Packaged(Report, Struct, frozen=True):
    """A zip that was written."""

    output: str
    sha256: str

    def line(self) -> str:
        return f"{self.output} has sha256 {self.sha256}; its handler is {HANDLER}"

    def outputs(self) -> dict[str, str]:
        return {"package": self.output, "sha256": self.sha256}


def package_ecs_manager(run: Run, *, output: str | None = None) -> Packaged | None:
    """Pack the manager."""
    return run.act(plan(output), write)


def plan(output: str | None) -> Package:
    """Decide the content of the zip. Raises Refused if it cannot be written."""
    path = Path("ecs_manager.zip" if output is None else output)
    files.check_target(path)
    data = archive(PACKAGE)
    return Package(str(path), tuple(names(PACKAGE)), len(data), hashlib.sha256(data).hexdigest())


def write(plan: Package) -> Packaged:
    """Write the zip completely or not at all. Raises Refused if the file cannot be written."""
    data = archive(PACKAGE)
    files.write(Path(plan.output), data)
    return Packaged(plan.output, hashlib.sha256(data).hexdigest())


def names(package: Path) -> list[str]:
    """The package's modules as they are named in the zip, sorted."""
    return sorted(path.relative_to(package.parent).as_posix() for path in package.rglob("*.py"))


def archive(package: Path) -> bytes:
    """The zip of a package."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names(package):
            entry = zipfile.ZipInfo(name, TIME)
            entry.create_system, entry.external_attr = UNIX, MODE << 16
            archive.writestr(entry, (package.parent / name).read_bytes())
    return buffer.getvalue()
