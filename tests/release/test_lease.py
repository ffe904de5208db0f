"""Concurrent releases: one holds the lease, the other stops before its first write; a dead holder blocks nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from scripts import release_static
from scripts.edges.s3 import open_bucket
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.release import lease
from scripts.release.lease import Holder
from tests.conftest import ROOT
from tests.release import browser, sites
from tests.release.test_publish import BUCKET, Release, Site, release, site
from tests.stand_in import Reply, stand_in

__all__ = ["release", "site"]

LEASE = "_release/lease.json"
RUN = "https://github.com/o/r/actions/runs/1"
OWN = Holder(id="mine", host="here", pid=os.getpid(), run=RUN, expires=0)
# As a process of today describes itself; OWN is as those of earlier versions did.
PLACE = {"host": "here", "machine": "m1", "boot": "b1", "space": "pid:[1]"}
MINE = Holder(**PLACE, id="mine", pid=os.getpid(), run=RUN, attempt=2, expires=0)


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


def theirs(**changes: object) -> Holder:
    """A process of this machine that is alive and holds a lease, but for some changes."""
    alive = Holder(**PLACE, id="theirs", pid=os.getpid(), began=lease._began(os.getpid()), expires=101.0)
    return replace(alive, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "over"),
    [
        ({}, False),
        ({"pid": GONE}, True),
        ({"began": 1}, True),
        ({"pid": GONE, "host": "elsewhere"}, False),
        ({"pid": GONE, "space": "pid:[2]"}, False),
        ({"boot": "b0"}, True),
        ({"boot": "b0", "machine": "m2"}, False),
        ({"boot": "b0", "run": "https://github.com/o/r/actions/runs/2"}, False),
        ({"run": RUN, "attempt": 1}, True),
        ({"run": RUN, "attempt": 2}, False),
        ({"run": RUN, "attempt": 2, "pid": GONE}, True),
        ({"expires": 99.0}, True),
    ],
    ids=[
        "alive",
        "its process is gone",
        "another process has its pid",
        "on another host",
        "in another container of this host",
        "this machine was started anew",
        "another machine of this name",
        "another runner of this name",
        "an earlier attempt",
        "another job of this attempt",
        "another job of this attempt, gone",
        "it has expired",
    ],
)
def test_whether_the_holder_of_a_lock_is_gone(changes: dict[str, object], over: bool) -> None:
    """Only what is known counts: another machine's processes are not."""
    if changes.get("pid") == GONE:
        changes = changes | {"pid": gone()}

    assert lease.is_over(theirs(**changes), MINE, 100.0) is over


@pytest.mark.parametrize(
    ("url", "reply", "completed"),
    [
        ("/o/r/actions/runs/7", Reply(b'{"status": "completed"}'), True),
        ("/o/r/actions/runs/7", Reply(b'{"status": "in_progress"}'), False),
        ("/o/r/actions/runs/7", Reply(b'{"status": "completed"}', 404), False),
        ("/o/r/actions/runs/7", Reply(b"[]"), False),
        ("/o/r/actions/runs/7", Reply(b"", drop=True), False),
        ("/o/r/actions/runs/7/../8", Reply(b'{"status": "completed"}'), False),
        ("/o/../actions/runs/7", Reply(b'{"status": "completed"}'), False),
        ("", Reply(b'{"status": "completed"}'), False),
    ],
    ids=["completed", "in progress", "not found", "no document", "no answer", "no run", "no repository", "no path"],
)
def test_github_says_whether_a_run_is_over(
    url: str, reply: Reply, completed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not say, is not known. The URL stands in the bucket: only GitHub itself is asked."""
    with stand_in(lambda method, path: reply) as github:
        monkeypatch.setenv("GITHUB_API_URL", f"{github.url}/api")
        monkeypatch.setenv("GITHUB_TOKEN", "a-token-of-the-job")

        assert lease.is_completed(f"https://github.com{url}") is completed
        assert not lease.is_completed(f"https://elsewhere.example{url}")

    asked = {request["path"] for request in github.requests}
    assert asked <= {"/api/repos/o/r/actions/runs/7"}
    assert {request["headers"]["Authorization"] for request in github.requests} <= {"Bearer a-token-of-the-job"}


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


def test_a_thread_renews_the_lease_and_notices_its_loss(
    site: Site, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run waits for. It stops at its next step, and the other one's lease stays."""
    monkeypatch.setattr(lease, "BEAT", 0.01)
    bucket = open_bucket(settings.find("local"), BUCKET)
    theirs = json.dumps({"id": "theirs", "actor": "octocat", "expires": time.time() + 600}).encode()

    def until(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with lease.held(bucket, lease.here("hubot", "")) as mine:
        first = mine.etag
        until(lambda: mine.etag not in ("", first))
        with lease.held(bucket, lease.here("hubot", "")) as again:
            assert again is mine
        assert site.get(LEASE) is not None
        site.put(LEASE, theirs)
        until(lambda: bool(mine._lost))
        with pytest.raises(DeployError, match="so it stops here"):
            mine.renew()

    assert site.get(LEASE) == ("binary/octet-stream", theirs)
