"""Concurrent releases: one holds the lease, the other stops before its first write; a dead holder blocks nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import release_static
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.release import lease
from scripts.release.lease import Holder
from tests.conftest import ROOT
from tests.release import browser, sites
from tests.release.test_publish import BUCKET, Release, Site, release, site

__all__ = ["release", "site"]

LEASE = "_release/lease.json"
OWN = Holder(id="mine", host="here", pid=os.getpid(), run="https://github.com/o/r/actions/runs/1", expires=0)


# Stands for the pid of a process that has ended. It is only found in the test: pids are used again.
GONE = -1


def gone() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("holder", "over"),
    [
        (Holder(expires=99.0), True),
        (Holder(expires=101.0), False),
        (Holder(expires=101.0, run=OWN.run), True),
        (Holder(expires=101.0, run="https://github.com/o/r/actions/runs/2"), False),
        (Holder(expires=101.0, host="here", pid=GONE), True),
        (Holder(expires=101.0, host="here", pid=os.getpid()), False),
        (Holder(expires=101.0, host="here", pid=1), False),
        (Holder(expires=101.0, host="elsewhere", pid=GONE), False),
        (Holder(expires=101.0, host="here"), False),
    ],
    ids=[
        "its lease has ended",
        "its lease has not ended",
        "an earlier attempt of this workflow run",
        "another workflow run",
        "a process of this machine that is gone",
        "a process of this machine that is there",
        "somebody else's process of this machine",
        "a process of another machine",
        "no pid",
    ],
)
def test_whether_a_holder_is_dead(holder: Holder, over: bool) -> None:
    """When unsure, it counts as alive."""
    if holder.pid == GONE:
        holder = replace(holder, pid=gone())

    assert lease.is_over(holder, OWN, 100.0) is over


def test_two_holders_without_a_workflow_run_are_different() -> None:
    """Two people on laptops both have an empty run."""
    assert not lease.is_over(Holder(expires=101.0), replace(OWN, run=""), 100.0)


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


def test_a_stale_plan_is_refused(site: Site, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release may have deleted its unchanged files. The next run plans again."""
    for name, value in site.cloud.env.items():
        monkeypatch.setenv(name, value)
    local = settings.find("local")
    for version in ("one", "two"):
        release(sites.build(tmp_path / version, version))
    observed = release_static.observe(local, BUCKET, tmp_path / "one")
    stale = release_static.decide(local, observed)
    release(sites.build(tmp_path / "three", "three"))
    before = len(site.puts())

    with pytest.raises(Refused, match=f"Another release to {BUCKET} has finished since this one read the bucket"):
        release_static.release(local, observed, stale)

    assert site.puts()[before:] == []
    assert site.get(LEASE) is None
    release(tmp_path / "one")
    assert site.holds(tmp_path / "one")


@pytest.fixture
def short(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that is renewed at every step."""
    for name, value in site.cloud.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lease, "RENEW_BELOW_SECONDS", lease.SECONDS + 1)


def begin(folder: Path) -> None:
    """Release in this process."""
    local = settings.find("local")
    observed = release_static.observe(local, BUCKET, folder)
    release_static.release(local, observed, release_static.decide(local, observed))


def test_a_long_release_renews_its_lease(site: Site, short: None, tmp_path: Path) -> None:
    """And releases it at the end."""
    begin(sites.build(tmp_path / "one", "one"))

    leases = [r for r in site.cloud.requests("s3", "PutObject") if r["path"].endswith(LEASE)]
    assert len(leases) > 4
    assert site.get(LEASE) is None
    assert site.holds(tmp_path / "one")


def test_a_release_whose_lease_was_broken_stops_before_the_commit_point(
    site: Site, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other holder's lease is kept, and the old page is whole."""
    begin(sites.build(tmp_path / "one", "one"))
    theirs = json.dumps({"id": "theirs", "actor": "octocat", "expires": time.time() + 600}).encode()
    write = lease.Lease._write

    def broken(self: lease.Lease, condition: dict[str, str], *rest: float) -> None:
        if "If-Match" in condition and site.get(LEASE) is not None:
            site.put(LEASE, theirs)
        write(self, condition, *rest)

    monkeypatch.setattr(lease.Lease, "_write", broken)

    with pytest.raises(DeployError, match="Somebody took over the lease of this release"):
        begin(sites.build(tmp_path / "two", "two"))

    assert site.get(LEASE) == ("binary/octet-stream", theirs)
    assert site.holds(tmp_path / "one")
    assert browser.problems(site.get) == []
