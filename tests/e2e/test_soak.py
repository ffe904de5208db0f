"""Releases that are killed at random instants leave a whole page, and the next one completes."""

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine
from tests.release import browser, sites
from tests.release.rclone import Rclone, rclone

# Kills for each parameter; `make soak` does a hundred.
KILLS = int(os.environ.get("KILLS", "15"))


class Releases:
    """Runs releases one after the other, each in its own process."""

    def __init__(self, command_line: CommandLine, server: Rclone, settings: Path) -> None:
        self._line = command_line
        self._env = {**os.environ, **server.env, "ENVIRONMENTS_FILE": str(settings), "GITHUB_SHA": "abc"}

    def run(self, folder: Path, kill_after: float | None = None) -> tuple[int, float, str]:
        """Release a folder, and kill that after some seconds. Returns exit code (-9 if killed), seconds and stderr."""
        words = ["release-static", "--env=dev", "--no-build", f"--build-dir={folder}"]
        started = time.monotonic()
        running = self._line.start(words, ROOT, self._env)
        with closing(running), ThreadPoolExecutor(1) as pool:
            said = pool.submit(running.stderr.read)
            if kill_after is not None:
                time.sleep(kill_after)
                os.kill(running.pid, signal.SIGKILL)
            code = running.wait()
            return code, time.monotonic() - started, said.result()


@pytest.fixture
def server() -> Iterator[Rclone]:
    """An S3 server that is fast enough for hundreds of releases."""
    with rclone() as running:
        yield running


@pytest.fixture
def releases(command_line: CommandLine, server: Rclone, tmp_path: Path, keep: int) -> Releases:
    """Releases to it. keep: how many old ones are kept."""
    settings = (ROOT / "environments.toml").read_text()
    settings = re.sub("keep_releases = .*", f"keep_releases = {keep}", settings)
    settings = re.sub("max_delete_percent = .*", "max_delete_percent = 100", settings)
    (tmp_path / "settings.toml").write_text(settings)
    return Releases(command_line, server, tmp_path / "settings.toml")


def holds(server: Rclone, folder: Path) -> bool:
    """Whether every file of a folder is in the bucket."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return all((server.get(str(p.relative_to(folder))) or ("", b""))[1] == p.read_bytes() for p in files)


@pytest.mark.parametrize("keep", [2, 0], ids=["two releases kept", "none kept"])
def test_a_killed_release_leaves_a_whole_page_and_the_next_one_completes(
    server: Rclone, releases: Releases, tmp_path: Path, keep: int
) -> None:
    """At random instants, from its first request to its last."""
    rng = random.Random(keep)
    folder = tmp_path / "build"
    duration = 0.0
    for number in range(4):
        code, duration, said = releases.run(sites.build(folder, f"warm {number}", chunks=20))
        assert code == 0, said
    killed, versions = 0, set()
    # Under load a release may end before its kill.
    for number in range(2 * KILLS):
        if killed == KILLS:
            break
        sites.build(folder, f"version {number}", chunks=rng.choice((3, 20)))
        code, _, _ = releases.run(folder, kill_after=rng.uniform(0, duration))
        killed += code == -signal.SIGKILL
        assert browser.problems(server.get) == [], f"after kill {number}"
        page = (server.get("index.html") or ("", b""))[1]
        versions.add(page == (folder / "index.html").read_bytes())

        code, took, said = releases.run(folder)
        duration = (3 * duration + took) / 4
        assert code == 0, said
        assert browser.problems(server.get) == []
        assert holds(server, folder), f"after kill {number}"
    assert killed == KILLS
    # Both pages were seen, so there were kills before and after the commit point.
    assert versions == {True, False}
