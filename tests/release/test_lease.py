"""Concurrent releases: one holds the lease, the other stops before its first write; a dead holder blocks nobody."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict, replace

from scripts import release_static
from scripts.edges.s3 import S3Error, Unanswered, open_bucket
from scripts.frame import settings, waiting
from scripts.frame.errors import DeployError, Refused
from scripts.release import lease
from scripts.release.lease import Holder
from tests.release import browser, sites
from tests.release.test_publish import BUCKET, Release, Site, changed_settings, release, site
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
        (Holder(expires=100.0), True),
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
        "its lease ends now",
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
    """After every file, and releases it at the end."""
    begin(sites.build(tmp_path / "one", "one"))

    leases = [r for r in site.cloud.requests("s3", "PutObject") if r["path"].endswith(LEASE)]
    assert len(leases) > len(site.all_keys())
    assert site.get(LEASE) is None
    assert site.holds(tmp_path / "one")


@pytest.mark.parametrize("alone", [False, True])
def test_a_release_whose_lease_was_broken_stops_before_the_commit_point(
    site: Site, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """The other holder's lease is kept, and the old page is whole; also if the page is all that changes."""
    if alone:
        for name, value in changed_settings(tmp_path, keep_releases=0, max_delete_percent=100).items():
            monkeypatch.setenv(name, value)
    begin(sites.build(tmp_path / "one", "one"))
    theirs = json.dumps({"id": "theirs", "actor": "octocat", "expires": time.time() + 600}).encode()
    write = lease.Lease._write

    def broken(self: lease.Lease, condition: dict[str, str], *rest: float) -> None:
        if "If-Match" in condition and site.get(LEASE) is not None:
            site.put(LEASE, theirs)
        write(self, condition, *rest)

    monkeypatch.setattr(lease.Lease, "_write", broken)

    two = sites.build(tmp_path / "two", "one" if alone else "two")
    (two / "index.html").write_text((two / "index.html").read_text() + "two")
    with pytest.raises(DeployError, match="Somebody took over the lease of this release"):
        begin(two)

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


class Store:
    """A bucket with at most a lease in it. hook: called before each write; what it returns is raised."""

    name = "b"

    def __init__(self, held: Holder | bytes | None = None, hook: Callable[["Store"], Exception | None] | None = None):
        self.body = msgspec.json.encode(asdict(held)) if isinstance(held, Holder) else held
        self.first, self.deleted, self.tries = self.body, list[object](), set[int]()
        self.etag, self.hook, self.written = "e0" if held else "", hook or (lambda _: None), list[dict[str, str]]()

    def change(self, holder: Holder | None) -> None:
        """Somebody else puts or deletes the lease."""
        self.body = msgspec.json.encode(asdict(holder)) if holder else None
        self.etag = "theirs" if holder else ""

    def get(self, key: str, most: int, *, tries: int = 0) -> tuple[bytes, str] | None:
        assert (key, most) == (LEASE, 64 << 10)
        self.tries.add(tries)
        return (self.body, self.etag) if self.body is not None else None

    def put(self, key: str, body: bytes, headers: dict[str, str]) -> str:
        assert (key, headers.pop("Content-Type")) == (LEASE, "application/json; charset=utf-8")
        self.written.append({name: value for name, value in headers.items() if name.startswith("If")})
        failure = self.hook(self)
        if failure:
            raise failure
        if "If-None-Match" in headers and self.body is not None:
            raise s3_error(412)
        if "If-Match" in headers and headers["If-Match"] != f'"{self.etag}"':
            raise s3_error(412 if self.etag else 404)
        self.body, self.etag = body, f"e{len(self.written)}"
        return self.etag

    def delete(self, keys: list[str], etags: dict[str, str]) -> dict[str, str]:
        self.deleted.append((keys, etags))
        if etags[LEASE] != self.etag:
            return {LEASE: "PreconditionFailed"}
        self.change(None)
        return {}


def s3_error(status: int) -> S3Error:
    """S3 answers with an error."""
    return S3Error(f"HTTP status {status}", status, "Code")


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("attempt", 0, 2**31 - 1),
        ("pid", 0, 2**31 - 1),
        ("began", 0, 2**53 - 1),
        ("expires", 0, 4_102_444_800),
    ],
)
def test_a_lease_whose_numbers_cannot_be_is_damaged(field: str, least: int, most: int) -> None:
    """It is somebody else's text, and its pid is going to be asked for."""
    for number in (least, most):
        assert getattr(lease.load(json.dumps({"expires": 1, field: number}).encode()), field) == number
    for number in (least - 1, most + 1):
        with pytest.raises(Refused, match=r"_release/lease\.json is damaged"):
            lease.load(json.dumps({"expires": 1, field: number}).encode())


def test_of_what_a_lease_does_not_say_nothing_is_known() -> None:
    """Earlier versions named less."""
    found = lease.load(b'{"expires": 1}')

    assert (found.id, found.actor, found.run, found.command, found.version) == ("",) * 5
    assert (found.host, found.machine, found.boot, found.space) == ("",) * 4
    assert (found.attempt, found.pid, found.began, found.expires) == (0, 0, 0, 1.0)


NEW, LIVE = {"If-None-Match": "*"}, theirs(expires=4e9, actor="octocat", command="deploy", version="v1")


def over(etag: str) -> dict[str, str]:
    """The condition that the lease is still the one that was read."""
    return {"If-Match": f'"{etag}"'}


def first(*results: Exception | None, then: Holder | None = None, at: int = 0) -> Callable[[Store], Exception | None]:
    """These failures of the first writes; before the write of this number the lease becomes another one."""

    def hook(store: Store) -> Exception | None:
        if at and len(store.written) == at:
            store.change(then)
        return results[len(store.written) - 1] if len(store.written) <= len(results) else None

    return hook


EXPIRED = replace(LIVE, expires=1.0)
DOES = "octocat (here) is running deploy of v1; the lease ends at"


@pytest.mark.parametrize(
    ("held", "force", "written", "says"),
    [
        ((), False, [NEW], ""),
        ((EXPIRED,), False, [NEW, over("e0")], ""),
        ((replace(EXPIRED, actor=""),), False, [NEW, over("e0")], ""),
        ((LIVE,), True, [NEW, over("e0")], ""),
        ((b"{",), True, [NEW, over("e0")], ""),
        ((LIVE,), False, [NEW], DOES),
        ((b"{",), False, [NEW], "_release/lease.json is damaged"),
        # Ours, whose response was lost.
        ((replace(LIVE, id="mine"),), False, [NEW], ""),
        # Others at the same time.
        ((None, first(s3_error(409))), False, [NEW, NEW], ""),
        ((EXPIRED, first(at=2)), False, [NEW, over("e0"), NEW], ""),
        ((EXPIRED, first(at=2, then=LIVE)), False, [NEW, over("e0")], DOES),
        ((EXPIRED, first(at=2, then=EXPIRED)), False, [NEW, over("e0"), over("theirs")], ""),
        ((None, first(*[s3_error(409)] * 3)), False, [NEW] * 3, "Several runs on b are starting at the same time"),
        # What is no answer about the lease.
        ((None, first(s3_error(403))), False, [NEW], "HTTP status 403"),
        ((None, first(s3_error(500))), False, [NEW], "HTTP status 500"),
        ((None, first(Unanswered("lost"))), False, [NEW], "lost"),
    ],
    ids=[
        "free",
        "expired",
        "of somebody unknown",
        "forced",
        "damaged and forced",
        "held",
        "damaged",
        "ours",
        "a conflict",
        "given back meanwhile",
        "taken meanwhile",
        "taken meanwhile, and expired",
        "conflicts without end",
        "denied",
        "S3 fails",
        "S3 does not answer",
    ],
)
def test_a_lease_is_taken_only_under_the_condition_that_nobody_else_has_it(
    held: tuple[Any, ...],
    force: bool,
    written: list[dict[str, str]],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """That it does not exist, or that it is still the one whose holder is gone. Only then a thread renews it."""
    threads: list[object] = []

    def thread(*, target: Callable[[], None], daemon: bool) -> Any:
        threads.append((target, daemon))
        return SimpleNamespace(start=lambda: threads.append("started"))

    monkeypatch.setattr(lease.threading, "Thread", thread)
    store = Store(*held)
    mine = lease.Lease(store, replace(MINE, run=""), False)  # type: ignore[arg-type]

    if says:
        with pytest.raises(DeployError) as error:
            mine.take(force=force)
        assert str(error.value).startswith(says)
        assert not mine.etag
    else:
        mine.take(force=force)
        assert mine.etag == store.etag
        assert lease.load(store.body or b"").id == "mine"
    # Only then the lease may have been written all the same.
    assert mine._unanswered is (says in ("HTTP status 500", "lost"))
    assert threads == ([] if says else [(mine._beat, True), "started"])
    assert store.written == written
    whose = "somebody unknown" if store.first in (b"{", None) or b"octocat" not in store.first else "octocat"
    assert (f"taking over the lease of {whose}\n" in capsys.readouterr().err) is (over("e0") in written)


@pytest.mark.parametrize(("wait", "every"), [(0.0, 3.0), (2.0, 1.0), (6.0, 3.0), (100.0, 3.0)])
def test_a_lease_that_is_held_is_tried_again_until_the_time_is_over(
    wait: float, every: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice at least if it is waited for at all, which alone is said while it waits."""
    asked: list[object] = []

    def waits(look: Callable[[], tuple[str, object]], *, say: Callable[[str], None], **given: float) -> None:
        line, taken = look()
        asked.extend((given, taken))
        say(line)
        raise waiting.TimedOut(line)

    monkeypatch.setattr(waiting, "wait", waits)
    with pytest.raises(Refused) as error:
        lease.Lease(Store(LIVE), MINE, False).take(wait=wait)  # type: ignore[arg-type]

    assert asked == [{"seconds": wait, "every": every}, None]
    assert (DOES in capsys.readouterr().err) is (wait > 0)
    assert re.fullmatch(
        rf"{re.escape(DOES)} [0-9:]+ UTC\. Wait for it with --lock-wait=SECONDS, or break it with --force-lock if that"
        r" run is dead\. Nothing was changed\.",
        str(error.value),
    )


@pytest.mark.parametrize(
    ("left", "held", "written", "etag", "says"),
    [
        (601.0, (LIVE,), [], "e0", ""),
        (599.0, (LIVE,), [over("e0")], "e1", ""),
        (599.0, (LIVE, first(s3_error(412))), [over("e0")], "", "Somebody took over the lock of b from this run,"),
        (599.0, (replace(LIVE, id="mine"), first(s3_error(412))), [over("e0")], "e0", ""),
        (599.0, (None, first(s3_error(404))), [over("e0")], "", "Somebody took over the lock of b from this run,"),
        (599.0, (LIVE, first(s3_error(409))), [over("e0")], "e0", "HTTP status 409"),
        (599.0, (LIVE, first(s3_error(403))), [over("e0")], "e0", "HTTP status 403"),
    ],
    ids=["lasts long enough", "renewed", "somebody else's", "renewed before", "gone", "a conflict", "denied"],
)
def test_a_lease_is_renewed_while_it_is_ours(
    left: float, held: tuple[Any, ...], written: list[dict[str, str]], etag: str, says: str
) -> None:
    """It lasts a quarter of an hour from then. One that was lost stays lost, and nothing more is written."""
    store = Store(*held)
    mine = lease.Lease(store, replace(MINE, expires=time.time() + left, command="deploy"), False)  # type: ignore[arg-type]
    mine.etag = "e0"

    if says:
        with pytest.raises(DeployError, match=f"^{says}"):
            mine.renew()
        if not etag:
            with pytest.raises(DeployError, match=f"^{says}"):
                mine.renew()
    else:
        mine.renew()
    assert (store.written, mine.etag) == (written, etag)
    if etag == "e1":
        assert 890 < lease.load(store.body or b"").expires - time.time() <= 900


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("", "the lease of this release to b"),
        ("release-static", "the lease of this release to b"),
        ("release-storybook", "the lease of this release to b"),
        ("release.rollback", "the lease of this release to b"),
        ("deploy", "the lock of b from this run"),
    ],
)
def test_a_run_whose_lease_was_taken_over_says_what_it_was_for(command: str, what: str) -> None:
    """A release's, or that of the environment."""
    store = Store(LIVE, first(s3_error(412)))
    mine = lease.Lease(store, replace(MINE, expires=time.time(), command=command), False)  # type: ignore[arg-type]

    with pytest.raises(DeployError, match=f"^Somebody took over {what}, so it stops here. Run it again.$"):
        mine.renew()


@pytest.mark.parametrize(
    ("etag", "unanswered", "held", "deleted", "written"),
    [
        ("e0", False, (replace(LIVE, id="mine"),), "e0", []),
        ("", False, (LIVE,), "", []),
        ("", True, (replace(LIVE, id="mine"),), "e0", []),
        ("e0", True, (replace(LIVE, id="mine"),), "e0", []),
        ("", True, (LIVE,), "", []),
        # No right to delete, or somebody else's.
        ("old", False, (LIVE,), "old", [over("old")]),
        ("old", False, (None,), "old", [over("old")]),
        ("old", False, (LIVE, first(s3_error(403))), "old", [over("old")]),
    ],
    ids=[
        "ours",
        "never taken",
        "taken unnoticed",
        "renewed unnoticed",
        "not taken",
        "somebody else's",
        "gone",
        "no right",
    ],
)
def test_only_our_own_lease_is_given_back(
    etag: str,
    unanswered: bool,
    held: tuple[Any, ...],
    deleted: str,
    written: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However much is known of it. Nobody renews it after that."""
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    store = Store(*held)
    mine = lease.Lease(store, MINE, False)  # type: ignore[arg-type]
    mine.etag = etag
    if unanswered:
        mine._unanswered = True

    mine.give_back()

    # A request that S3 has not answered may be late: it is asked often, and each time once.
    assert store.tries == ({1} if unanswered else set())

    assert store.deleted == ([([LEASE], {LEASE: deleted})] if deleted else [])
    assert store.written == written
    assert (mine.etag, mine._ended.is_set(), mine._writing.locked()) == ("", True, False)
    assert capsys.readouterr().err.count("expires by itself") == (len(held) > 1)


def test_a_lease_is_given_back_although_its_thread_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a request that S3 does not answer. What it holds stays its own."""
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.01)
    store = Store(replace(LIVE, id="mine"))
    mine = lease.Lease(store, MINE, False)  # type: ignore[arg-type]
    mine.etag = "e0"

    with mine._writing:
        mine.give_back()
        assert mine._writing.locked()

    assert store.deleted == [([LEASE], {LEASE: "e0"})]


@pytest.mark.parametrize("failure", [None, S3Error("denied", 403, "AccessDenied")], ids=["the object", "the request"])
def test_without_the_right_to_delete_a_lease_that_is_over_is_written(
    failure: S3Error | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to wait for it."""

    def delete(keys: list[str], etags: dict[str, str]) -> dict[str, str]:
        if failure:
            raise failure
        return {LEASE: "AccessDenied"}

    store = Store(replace(LIVE, id="mine"))
    monkeypatch.setattr(store, "delete", delete)
    mine = lease.Lease(store, MINE, False)  # type: ignore[arg-type]
    mine.etag = "e0"

    mine.give_back()

    left = lease.load(store.body or b"")
    assert (left.id, lease.is_over(left, LIVE, time.time()), store.written) == ("mine", True, [over("e0")])


@pytest.mark.parametrize("completed", [False, True])
def test_github_is_asked_about_a_run_once_a_minute(completed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody waits for the lease of that run."""
    asked: list[str] = []
    now = [1000.0]
    monkeypatch.setattr(lease, "is_completed", lambda run: asked.append(run) or completed)
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    mine = lease.Lease(Store(), MINE, False)  # type: ignore[arg-type]

    first_time, again = mine._is_completed(RUN), mine._is_completed(RUN)
    now[0] += 60.0
    later, other = mine._is_completed(RUN), mine._is_completed("another")

    assert (first_time, again, later, other) == (completed, False, completed, completed)
    assert asked == [RUN, RUN, "another"]


def test_a_thread_that_cannot_renew_says_so_once_and_ends_when_the_lease_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure may pass: it looks again a minute later, and says it again only if it had worked in between."""
    mine = lease.Lease(Store(), MINE, False)  # type: ignore[arg-type]
    said, waited = list[int](), list[float]()
    outcomes = iter([S3Error("busy", 503, "SlowDown"), Unanswered("late"), None, DeployError("again"), "lost"])

    def renew() -> None:
        said.append(capsys.readouterr().err.count("the lease of b could not be renewed: "))
        outcome = next(outcomes)
        if outcome == "lost":
            mine._lost = "Somebody took over the lease"
            raise DeployError(mine._lost)
        if outcome:
            raise outcome  # type: ignore[misc]

    monkeypatch.setattr(mine, "renew", renew)
    monkeypatch.setattr(mine, "_ended", SimpleNamespace(wait=lambda seconds: waited.append(seconds)))
    mine._beat()

    assert (said, waited) == ([0, 1, 0, 0, 1], [60.0] * 5)
    assert capsys.readouterr().err == ""


def test_a_thread_ends_when_the_lease_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """And renews nothing more."""
    mine = lease.Lease(Store(), MINE, False)  # type: ignore[arg-type]
    monkeypatch.setattr(mine, "renew", lambda: pytest.fail("it was renewed"))
    mine._ended.set()

    mine._beat()


@pytest.mark.parametrize(
    ("found", "etag", "asked"),
    [([True], "ours", 1), ([False, False, True], "ours", 3), ([False] * 99, "", 10)],
    ids=["there", "late", "not written"],
)
def test_a_lease_whose_put_was_not_answered_is_looked_for(
    found: list[bool], etag: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For less than a second, because a stop waits for it; somebody else's is not it."""
    clock, slept = [0.0], list[float]()
    monkeypatch.setattr(
        lease, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: (slept.append(s), advance(s)))
    )

    def advance(seconds: float) -> None:
        clock[0] += seconds

    answers, bodies = iter(found), [msgspec.json.encode(asdict(one)) for one in (LIVE, replace(LIVE, id="mine"))]
    got: list[int] = []

    def get(key: str, most: int, tries: int) -> tuple[bytes, str]:
        got.append(tries)
        ours = next(answers)
        return bodies[ours], "ours" if ours else "theirs"

    mine = lease.Lease(SimpleNamespace(get=get, name="b"), MINE, False)  # type: ignore[arg-type]

    assert mine._look() == etag
    assert got == [1] * asked
    assert slept == [0.1] * (asked - 1)


def test_a_holder_is_this_process_with_all_that_identifies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt counts only for a workflow's run, and only if it is a number. Each holder has an id of its own."""
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "3")

    found = lease.here("octocat", RUN, command="deploy", version="v1")

    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    own = (os.uname().nodename, boot, os.readlink("/proc/self/ns/pid"), os.getpid())
    assert (found.host, found.boot, found.space, found.pid) == own
    assert (found.actor, found.run, found.attempt, found.command, found.version) == ("octocat", RUN, 3, "deploy", "v1")
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert (found.began, found.expires) == (started, 0)
    assert re.fullmatch("[0-9a-f]{16}|", found.machine)
    assert found.id != lease.here("octocat", RUN).id
    for run, attempt, expected in (
        ("", "3", 0),
        (RUN, "", 0),
        (RUN, "3x", 0),
        (RUN, "1" * 10, 0),
        (RUN, "1" * 9, 111111111),
    ):
        monkeypatch.setenv("GITHUB_RUN_ATTEMPT", attempt)
        assert lease.here("octocat", run).attempt == expected


def test_a_machine_is_told_by_a_hash_of_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id itself is not for others. Where there is none, nothing is said."""
    texts = {"/etc/machine-id": "0123456789abcdef\n"}
    monkeypatch.setattr(lease, "_read", lambda path: texts.get(path, "").strip())

    assert lease.here("", "").machine == "9f9f5111f7b27a78"
    texts.clear()
    assert lease.here("", "").machine == ""


@pytest.mark.parametrize(
    ("content", "read"), [(b" id \n", "id"), (b"x" * 101, "x" * 100), (b"\xff", ""), (None, "")], ids=str
)
def test_a_line_of_the_system_is_empty_where_there_is_none(content: bytes | None, read: str, tmp_path: Path) -> None:
    """As on macOS."""
    if content is not None:
        (tmp_path / "id").write_bytes(content)

    assert lease._read(str(tmp_path / "id")) == read


@pytest.mark.parametrize(
    ("stat", "began"),
    [
        ("7 (a) b) S " + " ".join(map(str, range(4, 53))), 22),
        ("7 (a) S " + " ".join(map(str, range(4, 23))), 22),
        ("7 (a) S " + " ".join(map(str, range(4, 22))), 0),
        ("7 (a) S 1 2", 0),
        ("7 (a) S " + "x " * 49, 0),
        ("", 0),
    ],
    ids=["whole", "just enough", "one too few", "short", "no number", "none"],
)
def test_when_a_process_began(stat: str, began: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may hold anything. 0 if it is not known."""
    monkeypatch.setattr(lease, "_read_stat", lambda pid: stat)

    assert lease._began(7) == began


def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    """Also one that is no text."""
    program = os.fsencode(tmp_path) + b"/a) S \xff"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "60"])
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        assert lease._began(process.pid) == int(fields[19]) > 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (None, ""),
        (EXPIRED, ""),
        (LIVE, f"{DOES} "),
        (b"{", "_release/lease.json is damaged"),
        (Unanswered("no response"), "it is not known whether another run holds b: no response"),
    ],
    ids=["free", "expired", "held", "damaged", "not read"],
)
def test_a_dry_run_warns_of_whoever_holds_the_lease(
    stored: Holder | bytes | Exception | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for this process itself. It asks once, and only if the bucket has one."""
    store = Store(None if isinstance(stored, Exception) else stored)
    if isinstance(stored, Exception):
        monkeypatch.setattr(store, "get", lambda *_, **__: (_ for _ in ()).throw(stored))

    lease.warn_of_holder(store, {LEASE})  # type: ignore[arg-type]

    assert store.tries <= {1}
    said = capsys.readouterr().err
    assert says in said
    assert bool(said) is bool(says)
    lease.warn_of_holder(store, {"index.html"})  # type: ignore[arg-type]
    monkeypatch.setitem(lease._held, "b", lease.Lease(Store(), MINE, False))  # type: ignore[arg-type]
    if isinstance(stored, Holder):
        lease.warn_of_holder(store, {LEASE})  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_a_refusal_while_the_holder_is_looked_for_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials a dry run says so."""
    store = Store()
    monkeypatch.setattr(store, "get", lambda *_, **__: (_ for _ in ()).throw(Refused("no credentials")))

    with pytest.raises(Refused, match="no credentials"):
        lease.warn_of_holder(store, {LEASE})  # type: ignore[arg-type]
