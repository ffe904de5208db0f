"""Releases to an S3 server other than the embedded one: its ETags have no quotes, and it ignores conditions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Invoke
from tests.release import browser, sites
from tests.release.rclone import Rclone, rclone


@pytest.fixture
def server() -> Iterator[Rclone]:
    """An empty server."""
    with rclone() as running:
        yield running


def test_a_release_to_another_server(server: Rclone, invoke: Invoke, tmp_path: Path) -> None:
    """A full release, one without changes, and one with; then every file is served as released."""
    words = ("release-static", "--env=dev", "--no-build")
    folder = sites.build(tmp_path / "build", "one", chunks=20)

    first = invoke(*words, f"--build-dir={folder}", **server.env)
    again = invoke(*words, f"--build-dir={folder}", **server.env)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "27 files put" in first.stderr
    assert "already holds this build (27 files, 2 requests)" in again.stderr

    changed = invoke(*words, f"--build-dir={sites.build(folder, 'two', chunks=20)}", **server.env)
    assert changed.returncode == 0, changed.stderr
    assert "25 files put" in changed.stderr
    assert browser.problems(server.get) == []
    verified = invoke("release.verify", "--env=dev", f"--url={server.url}/{server.bucket}", **server.env)
    assert verified.returncode == 0, verified.stderr
