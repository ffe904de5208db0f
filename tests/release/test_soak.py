"""A release that is killed at any instant leaves a whole page, and the next one completes it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.release import browser, sites
from tests.release.rclone import Rclone, rclone

KILLS = 100


class Releases:
    """Releases one after the other, each in a process of its own."""

    def __init__(self, server: Rclone, log: Path, settings: Path) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.release.fork_release"],
            cwd=ROOT,
            env={**os.environ, **server.env, "PYTHONPATH": str(ROOT), "ENVIRONMENTS_FILE": str(settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def run(self, folder: Path, kill_after: float | None = None) -> tuple[int, float]:
        """Release a folder, and kill that after some seconds. Returns exit code, -9 if killed, and seconds."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        started = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, time.monotonic() - started

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.log.close()


@pytest.fixture
def server() -> Iterator[Rclone]:
    """An S3 server that is fast enough for hundreds of releases."""
    with rclone() as running:
        yield running


@pytest.fixture
def releases(server: Rclone, tmp_path: Path, keep: int) -> Iterator[Releases]:
    """Releases to it, of which some are kept."""
    settings = (ROOT / "environments.toml").read_text()
    settings = re.sub("keep_releases = .*", f"keep_releases = {keep}", settings)
    settings = re.sub("max_delete_percent = .*", "max_delete_percent = 100", settings)
    (tmp_path / "settings.toml").write_text(settings)
    running = Releases(server, tmp_path / "log", tmp_path / "settings.toml")
    yield running
    running.close()


def holds(server: Rclone, folder: Path) -> bool:
    """Whether every file of a folder is in the bucket."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return all((server.get(str(p.relative_to(folder))) or ("", b""))[1] == p.read_bytes() for p in files)


@pytest.mark.parametrize("keep", [2, 0], ids=["two releases kept", "none kept"])
def test_a_release_that_is_killed_leaves_a_whole_page_and_the_next_completes_it(
    server: Rclone, releases: Releases, tmp_path: Path, keep: int
) -> None:
    """At two hundred random instants in all, from its first request to its last."""
    rng = random.Random(keep)
    folder = tmp_path / "build"
    duration = 0.0
    for number in range(4):
        code, duration = releases.run(sites.build(folder, f"warm {number}", chunks=20))
        assert code == 0, (tmp_path / "log").read_text()
    killed, versions = 0, set()
    for number in range(KILLS):
        sites.build(folder, f"version {number}", chunks=rng.choice((3, 20)))
        code, _ = releases.run(folder, kill_after=rng.uniform(0, duration))
        killed += code == -signal.SIGKILL
        assert browser.problems(server.get) == [], f"after kill {number}"
        page = (server.get("index.html") or ("", b""))[1]
        versions.add(page == (folder / "index.html").read_bytes())

        code, took = releases.run(folder)
        duration = (3 * duration + took) / 4
        assert code == 0, (tmp_path / "log").read_text()[-2000:]
        assert browser.problems(server.get) == []
        assert holds(server, folder), f"after kill {number}"
    assert killed > KILLS / 2
    # The old page and the new one were both seen: kills fell before the commit point and after it.
    assert versions == {True, False}
