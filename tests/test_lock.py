"""The lock of an environment: two commands at once, one that is killed or stopped, and where there can be none."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scripts.edges.s3 import Bucket, S3Error, Unanswered
from scripts.frame import settings
from scripts.frame.errors import REFUSED, DeployError, Refused
from scripts.frame.run import Run
from scripts.release import lease
from tests.conftest import ROOT, CommandLine, EmbeddedCloud, Invoke, Running
from tests.stand_in import Reply, stand_in

BUCKET, LEASE = "local-mint-app-static", "_release/lease.json"
TASK = ("run-task", "--service=mint-app-db-migrate")
Start = Callable[..., Running]


@pytest.fixture
def slow(cloud: EmbeddedCloud, command_line: CommandLine) -> Start:
    """`slow(3)`: a task that takes some seconds, in the background. Returns once it holds the lock."""

    def start(seconds: float) -> Running:
        cloud.fail(service="lambda", delay=seconds, times=1)
        running = command_line.start(TASK, ROOT, {**os.environ, **cloud.env, "USER": "octocat"})
        deadline = time.monotonic() + 30
        while not cloud.requests("lambda") and time.monotonic() < deadline:
            time.sleep(0.02)
        return running

    return start


def receipts(cloud: EmbeddedCloud) -> list[str]:
    """Command and verdict of each receipt, oldest first."""
    stored = sorted(item for item in cloud.objects(BUCKET).items() if item[0].startswith("_release/receipts/"))
    found = [json.loads(body) for _, (_, body) in stored]
    return [f"{one['command']}: {one['verdict']}" for one in found]


def test_of_two_commands_at_once_one_is_refused_or_waits(cloud: EmbeddedCloud, invoke: Invoke, slow: Start) -> None:
    """The refusal names who holds the lock and what it does; a deployment and a release are refused alike."""
    with closing(slow(3)) as first:
        refused = invoke("deploy-service", "--tag=v0", **cloud.env)
        waited = invoke(*TASK, "--lock-wait=30", **cloud.env)
        code = first.wait()

    assert (code, waited.returncode, refused.returncode) == (0, 0, 2), waited.stderr
    assert "octocat (" in refused.stderr
    assert ") is running run-task; the lease ends at " in refused.stderr
    assert "--lock-wait=SECONDS" in refused.stderr
    assert "is running run-task" in waited.stderr
    assert [r["parameters"]["command"] for r in cloud.requests("lambda", "Invoke")] == ["runtask", "runtask"]
    assert LEASE not in cloud.objects(BUCKET)
    # A run that was refused has changed nothing, and leaves no receipt.
    assert receipts(cloud) == ["run-task: succeeded"] * 2


def test_nobody_waits_for_a_command_that_was_killed(cloud: EmbeddedCloud, invoke: Invoke, slow: Start) -> None:
    """Its lock is still there, but its process is gone."""
    with closing(slow(30)) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert LEASE in cloud.objects(BUCKET)
    cloud.server.cloud.failures.clear()

    done = invoke(*TASK, **cloud.env)

    assert done.returncode == 0, done.stderr
    assert "taking over the lease of octocat" in done.stderr
    assert LEASE not in cloud.objects(BUCKET)


def test_a_stop_frees_the_lock_and_is_in_the_receipt(cloud: EmbeddedCloud, slow: Start) -> None:
    """At once, although the task goes on in AWS."""
    with closing(slow(30)) as first:
        os.kill(first.pid, signal.SIGTERM)
        code = first.wait()

    assert code == 3
    assert LEASE not in cloud.objects(BUCKET)
    assert receipts(cloud) == ["run-task: stopped"]


def test_a_holder_whose_workflow_run_is_over_is_not_waited_for(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """GitHub is asked about it. --force-lock takes the lock of one that is alive, too."""
    url = "https://github.com/o/r/actions/runs/7"
    theirs = {"id": "x", "actor": "hubot", "run": url, "host": "runner", "pid": 1, "expires": time.time() + 600}
    put = cloud.client("s3").put_object
    put(Bucket=BUCKET, Key=LEASE, Body=json.dumps(theirs).encode())
    with stand_in(lambda method, path: Reply(b'{"status": "in_progress"}')) as github:
        refused = invoke(*TASK, **cloud.env, GITHUB_API_URL=github.url)
        forced = invoke(*TASK, "--force-lock", **cloud.env, GITHUB_API_URL=github.url)
    put(Bucket=BUCKET, Key=LEASE, Body=json.dumps(theirs).encode())
    with stand_in(lambda method, path: Reply(b'{"status": "completed"}')) as github:
        done = invoke(*TASK, **cloud.env, GITHUB_API_URL=github.url)

    assert refused.returncode == 2
    assert f"hubot (runner, {url}) is releasing to {BUCKET}; the lease ends at" in refused.stderr
    assert (forced.returncode, done.returncode) == (0, 0), done.stderr
    assert "taking over the lease of hubot" in done.stderr


def test_without_the_right_to_a_lock_the_command_goes_on(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """That is said once."""
    cloud.fail(service="s3", method="PUT", path="lease.json", times=9, status=403, code="AccessDenied")

    done = invoke(*TASK, **cloud.env)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("it has no lock: S3 refused writing _release/lease.json") == 1
    assert receipts(cloud) == ["run-task: succeeded"]


@pytest.mark.parametrize(
    ("error", "force", "refused"),
    [
        (S3Error("denied", 403, "AccessDenied"), False, False),
        (S3Error("busy", 503, "SlowDown"), False, True),
        (S3Error("busy", 503, "SlowDown"), True, False),
        (Unanswered("no response"), False, True),
        (Unanswered("no response"), True, False),
        (S3Error("expired", 403, "ExpiredToken", REFUSED), False, True),
        (Refused("somebody holds it"), False, True),
    ],
    ids=["no right", "busy", "busy, forced", "no response", "no response, forced", "credentials", "held"],
)
def test_a_lock_that_cannot_be_taken(error: DeployError, force: bool, refused: bool) -> None:
    """Where it is not known whether somebody holds it, nothing is changed, unless a person says so."""
    run = Run("deploy", settings.find("local"), force_lock=force)

    if refused:
        with pytest.raises((Refused, S3Error)) as raised:
            lease._go_on_without(run, error)
        assert raised.value.code == REFUSED
    else:
        lease._go_on_without(run, error)


class Lock:
    """Stands for the class of leases: what one is made and taken with, and what happens to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happened = list[object]()
        monkeypatch.setattr(lease, "_held", {})
        monkeypatch.setattr(lease, "open_bucket", lambda environment, name: SimpleNamespace(name=name))
        monkeypatch.setattr(lease, "Lease", self)
        monkeypatch.setattr(
            lease, "warn_of_holder", lambda bucket, listing: self.happened.append((bucket.name, listing))
        )
        monkeypatch.setattr(lease, "actor", lambda: ("octocat", "https://github.com/o/r/actions/runs/1"))

    def __call__(self, bucket: SimpleNamespace, own: lease.Holder, shared: bool) -> SimpleNamespace:
        self.happened.append((bucket.name, own.actor, own.run, own.command, own.version, shared))
        return SimpleNamespace(bucket=bucket, take=self.take, renew=lambda: self.happened.append("renewed"))

    def take(self, *, force: bool, wait: float) -> None:
        self.happened.append((force, wait))

    def give_back(self, _: object) -> None:
        self.happened.append("given back")


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    """In place of the real one, whose own tests are those of releases."""
    return Lock(monkeypatch)


OWNER = (BUCKET, "octocat", "https://github.com/o/r/actions/runs/1", "deploy")


@pytest.mark.parametrize(
    ("given", "version", "credentials", "happens"),
    [
        ({}, "v1", True, [(*OWNER, "v1", True), (False, 0.0), "given back"]),
        ({}, "", False, [(*OWNER, "", True), (False, 0.0), "given back"]),
        ({"force_lock": True, "lock_wait": 9.0}, "", True, [(*OWNER, "", True), (True, 9.0), "given back"]),
        ({"dry_run": True}, "v1", True, [(BUCKET, {LEASE})]),
        ({"dry_run": True}, "v1", False, []),
    ],
    ids=[
        "a run",
        "nothing is known of the version",
        "forced and waiting",
        "a dry run",
        "a dry run without credentials",
    ],
)
def test_the_lock_of_a_run(
    given: dict[str, Any],
    version: str,
    credentials: bool,
    happens: list[object],
    lock: Lock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Taken once for all that the run does, and given back at its end. A dry run only looks, if it can."""
    monkeypatch.setattr(lease.aws, "has_credentials", lambda environment: credentials)
    run = Run("deploy", settings.find("local"), **given)
    run.facts |= {"version": version} if version else {}
    looked = happens if run.dry_run else happens[:2]

    with lease.locked(run):
        assert (run.locked, lock.happened) == (True, looked)
        assert (lease.bucket(BUCKET) is not None) is not run.dry_run
        with lease.locked(run):
            lease.check(run)
        with lease.awaited(run, BUCKET):
            pass
        assert lock.happened == [*looked, *([] if run.dry_run else ["renewed"])]

    assert [one for one in lock.happened if one != "renewed"] == happens
    assert lease.bucket(BUCKET) is None
    lease.check(run)
    assert lock.happened.count("renewed") == (not run.dry_run)


@pytest.mark.parametrize(
    ("given", "held"),
    [({}, False), ({"lock_wait": 1.0}, True), ({"lock_wait": 1.0, "dry_run": True}, False), ({"dry_run": True}, False)],
    ids=str,
)
def test_only_a_release_that_waits_takes_its_lease_before_it_reads(
    given: dict[str, Any], held: bool, lock: Lock
) -> None:
    """It is for the release alone: what else the run does needs none."""
    run = Run("release-static", settings.find("local"), **given)

    with lease.awaited(run, BUCKET):
        assert (lease.bucket(BUCKET) is not None) is held

    taken = [(BUCKET, *OWNER[1:3], "release-static", "", False), (False, 1.0), "given back"]
    assert lock.happened == (taken if held else [])


def test_a_part_of_a_run_needs_no_lease_of_its_own(lock: Lock) -> None:
    """It does not wait for the one that the whole has."""
    here, place = lease.here("octocat", ""), cast("Bucket", SimpleNamespace(name=BUCKET))

    with lease.held(place, here) as whole, lease.held(place, here) as part:
        assert part is whole

    assert lock.happened == [(BUCKET, "octocat", "", "", "", False), (False, 0.0), "given back"]


def test_an_environment_without_a_bucket_has_no_lock(cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path) -> None:
    """Said once, and the command goes on."""
    text = (ROOT / "environments.toml").read_text().replace('bucket = "local-mint-app-static"', 'bucket = ""')
    (tmp_path / "settings.toml").write_text(text)

    done = invoke(*TASK, **cloud.env, ENVIRONMENTS_FILE=str(tmp_path / "settings.toml"))

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("it has no lock: its settings have no bucket") == 1
    assert cloud.requests("s3") == []
