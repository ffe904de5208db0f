"""Releases in processes of their own: stopped or killed at any request, or two at the same time."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.release.manifest import LEASE
from tests.conftest import ROOT
from tests.release import browser, sites
from tests.release.conftest import a_version
from tests.release.fault_proxy import Fault, fault_proxy
from tests.release.test_publish import BUCKET, Release, Site, release, site

__all__ = ["a_version", "release", "site"]


def stopped(site: Site, folder: Path, number: int, wanted: str, **env: str) -> tuple[int, str, float]:
    """Stop a release as soon as S3 has received a request. Returns exit code, stderr, and seconds until it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", "release-static", "--no-build", f"--build-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, **site.cloud.env, "GITHUB_SHA": "abc", **env},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if any(re.search(wanted, f"{r['operation']} {r['path']}") for r in site.cloud.requests("s3")):
            break
        time.sleep(0.01)
    started = time.monotonic()
    process.send_signal(number)
    said = process.communicate(timeout=30)[1].decode()
    return process.returncode, said, time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "wanted", "delay", "chunks", "code"),
    [
        (signal.SIGINT, "ListObjectsV2", 3, 5, 2),
        (signal.SIGTERM, "GetObject .*manifest.json", 3, 5, 2),
        (signal.SIGINT, "PutObject .*lease.json", 0.4, 5, 3),
        (signal.SIGTERM, "PutObject .*lease.json", 0.4, 5, 3),
        (signal.SIGTERM, "PutObject .*/assets/", 3, 5, 3),
        (signal.SIGINT, "PutObject .*/assets/", 3, 20, 3),
        (signal.SIGTERM, "PutObject .*/assets/", 3, 20, 3),
        (signal.SIGINT, "PutObject .*/robots.txt", 3, 5, 3),
        (signal.SIGINT, "PutObject .*static/index.html", 3, 5, 3),
        (signal.SIGTERM, "PutObject .*manifest.json", 3, 5, 3),
        (signal.SIGINT, "DeleteObjects", 0.4, 5, 3),
    ],
    ids=[
        "at the listing",
        "at the manifest",
        "while the lease is taken",
        "while the lease is taken, by another signal",
        "at a hashed file in a thread",
        "at many hashed files",
        "at many hashed files, by another signal",
        "at another file",
        "at the commit point",
        "after the commit point",
        "while the lease is given back",
    ],
)
def test_a_stopped_release_gives_the_lease_back(
    site: Site, release: Release, tmp_path: Path, number: int, wanted: str, delay: float, chunks: int, code: int
) -> None:
    """At once, wherever it is. The page is the old or the new one, and the next release completes."""
    release(sites.build(tmp_path / "old", "one"))
    site.cloud.server.cloud.requests.clear()
    folder = sites.build(tmp_path / "build", "two", chunks=chunks)
    (folder / "robots.txt").write_text("new")
    operation, _, path = wanted.partition(" ")
    site.cloud.fail(service="s3", operation=operation, path=path.removeprefix(".*"), delay=delay, times=9)

    returned, said, seconds = stopped(site, folder, number, wanted)

    assert returned == code, said
    assert seconds < 2.5
    assert "Traceback" not in said
    assert f"stopped by {signal.Signals(number).name}" in said
    assert ("nothing was changed" in said) is (code == 2)
    time.sleep(delay if delay < 1 else 0)
    site.cloud.server.cloud.failures.clear()
    assert site.get("_release/lease.json") is None
    assert browser.problems(site.get) == []
    release(folder)
    assert site.holds(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lease_whose_put_got_no_response_is_deleted(site: Site, tmp_path: Path, number: int) -> None:
    """S3 has written it, but the release was stopped before it got the response."""
    folder = sites.build(tmp_path / "build", "one")
    with fault_proxy(site.cloud.url) as proxy:
        proxy.faults.append(Fault("PUT", "lease.json", "lost", 1))
        code, said, _ = stopped(site, folder, number, "PutObject .*lease.json", AWS_ENDPOINT_URL=proxy.url)

    assert code == 3, said
    assert site.get("_release/lease.json") is None
    assert site.puts() == []


def start(site: Site, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a release in the background. Returns once it has put a hashed file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", "release-static", "--no-build", f"--build-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, **site.cloud.env, "GITHUB_SHA": "abc"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while not site.puts() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_of_two_concurrent_releases_the_second_is_refused(site: Site, release: Release, tmp_path: Path) -> None:
    """It says who holds the lease, and has written nothing."""
    site.cloud.fail(service="s3", method="PUT", path="robots.txt", delay=3, times=1)
    first = start(site, sites.build(tmp_path / "one", "one"))

    second = release(sites.build(tmp_path / "two", "two"), code=2)
    said = first.communicate(timeout=30)[1].decode()

    assert f"is releasing to {BUCKET}; the lease ends at" in second.stderr
    assert first.returncode == 0, said
    assert site.holds(tmp_path / "one")
    assert {key for key in site.puts() if key.startswith("assets/")} == {
        f"assets/{path.name}" for path in (tmp_path / "one" / "assets").iterdir()
    }


def test_after_a_kill_the_next_run_takes_over_the_lease_and_completes(
    site: Site, release: Release, tmp_path: Path
) -> None:
    """The lease has not expired, but its process no longer exists."""
    folder = sites.build(tmp_path / "one", "one")
    site.cloud.fail(service="s3", method="PUT", path="robots.txt", delay=3, times=1)
    first = start(site, folder)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert site.get(LEASE) is not None
    assert site.get("index.html") is None

    done = release(folder)

    assert "taking over the lease of" in done.stderr
    assert site.holds(folder)
    assert site.get(LEASE) is None
