"""Machines as they are: a checkout that cannot be written, no home, no space, closed streams, odd folders."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import EmbeddedCloud, copy_of_project

# Root may write everywhere: without this it is held to the permissions like everybody.
HELD = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@dataclass(frozen=True)
class Machine:
    """What is different on a machine. folder: of the checkout. begin: runs in the process before the command."""

    folder: str = "checkout"
    read_only: bool = False
    without: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    begin: Callable[[], object] = lambda: None


MACHINES = {
    "a checkout that cannot be written": Machine(read_only=True),
    "a folder with spaces": Machine(folder="my check out é (1)"),
    "no HOME": Machine(without=("HOME",)),
    "a HOME that is not there": Machine(env={"HOME": "/nonexistent/home"}),
    "umask 077": Machine(begin=lambda: os.umask(0o077)),
    "stdin closed": Machine(begin=lambda: os.close(0)),
    "stdout closed": Machine(begin=lambda: os.close(1)),
    "stderr closed": Machine(begin=lambda: os.close(2)),
    "no language": Machine(env={"LANG": "C", "LC_ALL": "C"}),
    "no TERM and no PATH but the system's": Machine(without=("TERM",), env={"PATH": "/usr/bin:/bin"}),
}
# No file may grow, as on a full disk.
FULL = {"full": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)), "usual": lambda: None}


@dataclass
class Checkout:
    """A copy of the project on a machine."""

    machine: Machine
    folder: Path
    env: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, from another folder."""
        env = {**os.environ, **self.env, **self.machine.env}
        return subprocess.run(
            [*HELD, sys.executable, "-m", "invoke", f"--search-root={self.folder}", *words],
            cwd=self.folder,
            env={name: value for name, value in env.items() if name not in self.machine.without},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=self.machine.begin,
        )


def checkout(machine: Machine, cloud: EmbeddedCloud, tmp_path: Path) -> Checkout:
    """The project, copied to a machine."""
    folder = copy_of_project(tmp_path / machine.folder, ".*", "docs", "benchmarks")
    if machine.read_only:
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    return Checkout(machine, folder, {**cloud.env, "GITHUB_SHA": "v0"})


@pytest.mark.parametrize("name", MACHINES)
def test_a_frontend_is_released_on_every_machine(name: str, cloud: EmbeddedCloud, build: Path, tmp_path: Path) -> None:
    """And a deployment is planned, on stdout for a program: the narration never gets there."""
    there = checkout(MACHINES[name], cloud, tmp_path)
    planned = there.run("deploy", "--no-build", f"--build-dir={build}", "--dry-run", "--json")
    released = there.run("release-static", "--no-build", f"--build-dir={build}")

    for done in (planned, released):
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    if name != "stdout closed":
        assert json.loads(planned.stdout)["exit_code"] == 0
    assert released.stdout == ""
    assert cloud.objects("local-mint-app-static")["index.html"][1] == (build / "index.html").read_bytes()


def test_what_would_be_written_into_a_read_only_checkout_is_refused(cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """With the system's own words."""
    there = checkout(MACHINES["a checkout that cannot be written"], cloud, tmp_path)

    done = there.run("package-ecs-manager")

    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "'ecs_manager.zip' cannot be written: Permission denied.",
    )


def test_no_space_is_left(cloud: EmbeddedCloud, build: Path, tmp_path: Path) -> None:
    """What only tells warns; what has to be written is refused or has failed, in one sentence, and leaves nothing."""
    full, usual = (checkout(Machine(folder=name, begin=begin), cloud, tmp_path) for name, begin in FULL.items())
    summary = tmp_path / "summary"
    full.env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    for version in ("one", "two"):
        (build / "index.html").write_text(version)
        assert usual.run("release-static", "--no-build", f"--build-dir={build}").returncode == 0
    package = tmp_path / "manager.zip"

    released = full.run("release-static", "--no-build", f"--build-dir={build}")
    packed = full.run("package-ecs-manager", f"--output={package}")
    rolled_back = full.run("release.rollback")

    assert released.returncode == 0, released.stderr
    assert "GITHUB_STEP_SUMMARY cannot be written" in released.stderr
    assert (packed.returncode, rolled_back.returncode) == (2, 2)
    assert packed.stderr.splitlines()[-1] == f"'{package}' cannot be written: File too large."
    assert rolled_back.stderr.splitlines()[-1].startswith("No temporary folder can be created: ")
    assert not package.exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(("manager", "rollback"))] == []
    assert cloud.objects("local-mint-app-static")["index.html"][1] == b"two"
