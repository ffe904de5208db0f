"""Snapshots: one at a time is taken and waited for, and old ones are deleted only once the new one is available."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scripts import backup_database
from scripts.backup_database import BackedUp, Backup, Snapshot
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import Clock
from tests.conftest import ROOT, EmbeddedCloud, Invoke, commands_clock

DATABASE = "mintlocal"
TAGS = {"Environment": "local", "Tool": "backup-database"}


@pytest.fixture
def local(cloud: EmbeddedCloud) -> Environment:
    """The settings of the embedded AWS."""
    return settings.environment("local")


def keeping(environment: Environment, number: int) -> Environment:
    """The environment, keeping this number of snapshots."""
    database = msgspec.structs.replace(environment.database, keep_snapshots=number)
    return msgspec.structs.replace(environment, database=database)


def snapshot(name: str, created: float, **more: Any) -> Snapshot:
    """An available snapshot with this tool's tags."""
    fields = {"status": "available", "percent": 100, "tags": TAGS, "manual": True, **more}
    return Snapshot(id=name, created=created, **fields)


def take(cloud: EmbeddedCloud, name: str, tags: dict[str, str] = TAGS) -> None:
    """Take a snapshot and wait until it is available."""
    cloud.client("rds").create_db_snapshot(
        DBInstanceIdentifier=DATABASE,
        DBSnapshotIdentifier=name,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )
    cloud.advance(60)


def run(cloud: EmbeddedCloud, local: Environment, plan: Backup) -> Any:
    """Act on a plan, with a clock that advances the embedded AWS."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        cloud.advance(seconds / 10)

    with commands_clock(time.monotonic, lambda _: pytest.fail("this sleeps really")):
        return backup_database.backup(local, plan, clock=Clock(lambda: clock[0], sleep))


def there(cloud: EmbeddedCloud) -> list[str]:
    """The manual snapshots of the database."""
    found = cloud.client("rds").describe_db_snapshots(DBInstanceIdentifier=DATABASE, SnapshotType="manual")
    return sorted(item["DBSnapshotIdentifier"] for item in found["DBSnapshots"])


def test_the_command_takes_a_snapshot_and_shows_its_progress(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Its name has the database and the time, and its tags are those of the old script."""
    done = invoke("backup-database", **cloud.env)

    assert done.returncode == 0, done.stderr
    (name,) = there(cloud)
    database, _, stamp = name.rpartition("-")
    assert (database, stamp.isdigit()) == (DATABASE, True)
    found = cloud.client("rds").describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"][0]
    assert {tag["Key"]: tag["Value"] for tag in found["TagList"]} == TAGS
    assert f"{name}: available, 100 %" in done.stderr
    assert f"{name} of {DATABASE} is available" in done.stderr.splitlines()[-1]


def test_a_dry_run_takes_no_snapshot(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """It only reads."""
    done = invoke("backup-database", "--dry-run", **cloud.env)

    assert done.returncode == 0, done.stderr
    assert f"would create the snapshot {DATABASE}-" in done.stderr
    assert {r["operation"] for r in cloud.requests("rds")} <= {"DescribeDBInstances", "DescribeDBSnapshots"}


def test_a_missing_database_is_refused(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is created."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text().replace('"mint${name}"', '"elsewhere"'))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))

    with pytest.raises(Refused, match="There is no database elsewhere in local"):
        backup_database.snapshots(settings.environment("local"))

    assert cloud.requests("rds", "CreateDBSnapshot") == []


@pytest.mark.parametrize(
    ("deleted", "line"),
    [
        ((), "s of d is available"),
        (("a",), "s of d is available, 1 old one was deleted"),
        (("a", "b"), "s of d is available, 2 old ones were deleted"),
    ],
)
def test_the_report_counts_what_was_deleted(deleted: tuple[str, ...], line: str) -> None:
    """The new snapshot is an output of the step."""
    done = BackedUp("d", "s", deleted)

    assert (done.line(), done.outputs()) == (line, {"snapshot": "s"})


@pytest.mark.parametrize("readable", [True, False])
def test_a_dry_run_shows_what_would_be_deleted_as_far_as_it_is_known(
    readable: bool, cloud: EmbeddedCloud, local: Environment
) -> None:
    """What could not be read is noted, and the plan is that of a database without snapshots."""
    take(cloud, "one")
    run = Run("backup-database", keeping(local, 1), dry_run=True)
    if not readable:
        cloud.fail(service="rds", operation="DescribeDBSnapshots", status=403, code="AccessDenied")

    assert backup_database.backup_database(run) is None

    (step,) = run.steps
    assert isinstance(step.plan, Backup)
    assert step.plan.expired == (("one",) if readable else ())
    assert [line.partition(":")[0] for line in run.unread] == (
        [] if readable else ["could not read the snapshots of the database"]
    )


def test_another_database_is_left_alone(cloud: EmbeddedCloud, local: Environment) -> None:
    """Its snapshots are not looked at, and its state says nothing."""
    rds = cloud.client("rds")
    made = {"Engine": "postgres", "DBInstanceClass": "db.t3.micro", "MasterUsername": "m", "AllocatedStorage": 20}
    for name in ("aaa", "zzz"):
        rds.create_db_instance(DBInstanceIdentifier=name, MasterUserPassword="p" * 9, **made)
        rds.stop_db_instance(DBInstanceIdentifier=name)
        rds.create_db_snapshot(DBInstanceIdentifier=name, DBSnapshotIdentifier=f"of-{name}")
    take(cloud, "one")

    assert [one.id for one in backup_database.snapshots(local) if one.manual] == ["one"]
    assert [backup_database._status(local, name) for name in (DATABASE, "aaa", "zzz")] == [
        "available",
        *["stopped"] * 2,
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"Status": "creating"}, Snapshot("s", "creating", 0, 0, {}, manual=False)),
        (
            {
                "Status": "available",
                "PercentProgress": 100,
                "SnapshotCreateTime": datetime.fromtimestamp(7, UTC),
                "TagList": [{"Key": "a", "Value": "b"}],
                "SnapshotType": "manual",
            },
            Snapshot("s", "available", 100, 7.0, {"a": "b"}, manual=True),
        ),
    ],
    ids=["that has just begun", "whole"],
)
def test_a_snapshot_is_read_as_rds_describes_it(told: dict[str, Any], expected: Snapshot) -> None:
    """Some fields come only once it is available."""
    assert backup_database._snapshot({"DBSnapshotIdentifier": "s", **told}) == expected


def test_it_first_waits_for_a_snapshot_in_progress(cloud: EmbeddedCloud, local: Environment) -> None:
    """RDS takes only one at a time."""
    cloud.stop_clock()
    cloud.client("rds").create_db_snapshot(DBInstanceIdentifier=DATABASE, DBSnapshotIdentifier="other")
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    cloud.server.cloud.requests.clear()

    run(cloud, local, plan)

    assert plan.busy == ("other",)
    operations = [r["operation"] for r in cloud.requests("rds")]
    assert operations[0] == "DescribeDBSnapshots"
    assert operations.index("CreateDBSnapshot") > operations.index("DescribeDBSnapshots")
    assert there(cloud) == [f"{DATABASE}-1700000000", "other"]


@pytest.mark.parametrize(
    ("keep", "expired"),
    [(0, ()), (1, ("a", "b", "c")), (2, ("a", "b")), (3, ("a",)), (4, ()), (9, ())],
    ids=lambda value: str(value),
)
def test_which_snapshots_are_deleted(local: Environment, keep: int, expired: tuple[str, ...]) -> None:
    """The new one counts as kept, the oldest are deleted, and 0 keeps all."""
    ours = (snapshot("b", 2), snapshot("c", 3), snapshot("a", 1))

    assert backup_database.plan(keeping(local, keep), ours, 9).expired == expired


@pytest.mark.parametrize(
    "foreign",
    [
        snapshot("x", 1, manual=False),
        snapshot("x", 1, tags={}),
        snapshot("x", 1, tags={"Environment": "local"}),
        snapshot("x", 1, tags={**TAGS, "Environment": "prod"}),
        snapshot("x", 1, tags={**TAGS, "Tool": "by hand"}),
        snapshot("x", 0, status="creating"),
        snapshot("x", 1, status="failed"),
    ],
    ids=["automated", "untagged", "without a tool", "of prod", "of another tool", "being taken", "failed"],
)
def test_a_snapshot_that_is_not_ours_is_never_deleted(local: Environment, foreign: Snapshot) -> None:
    """Only manual, available snapshots with both of our tags are."""
    assert backup_database.plan(keeping(local, 1), (foreign,), 9).expired == ()


def test_old_snapshots_are_deleted_after_the_new_one_is_available(
    cloud: EmbeddedCloud, local: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oldest first, and never one that somebody took by hand."""
    cloud.stop_clock()
    for name in ("one", "two", "three"):
        take(cloud, name)
    take(cloud, "by-hand", {})
    local = keeping(local, 2)
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    cloud.server.cloud.requests.clear()

    done = run(cloud, local, plan)

    assert done.deleted == ("one", "two")
    assert there(cloud) == ["by-hand", f"{DATABASE}-1700000000", "three"]
    (new,) = (one for one in backup_database.snapshots(local) if one.id == plan.snapshot)
    assert (new.status, new.tags) == ("available", TAGS)
    said = [line for line in capsys.readouterr().err.splitlines() if "deleted" in line]
    assert said == ["deleted the snapshot one", "deleted the snapshot two"]
    changes = [r["operation"] for r in cloud.requests("rds") if not r["operation"].startswith("Describe")]
    assert changes == ["CreateDBSnapshot", "DeleteDBSnapshot", "DeleteDBSnapshot"]


def stay(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """Make every snapshot show this status."""
    from moto.rds.models import DBSnapshot

    monkeypatch.setattr(DBSnapshot, "status", property(lambda _: status, lambda *_: None))


def test_a_snapshot_that_takes_too_long_deletes_nothing(
    cloud: EmbeddedCloud, local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is unknown (exit code 3): RDS may still complete it."""
    take(cloud, "one")
    local = keeping(local, 1)
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    stay(monkeypatch, "creating")
    monkeypatch.setattr(backup_database, "TIMEOUT", 60.0)

    with pytest.raises(OutcomeUnknown, match=r"creating, .* % after 60 s: RDS may still finish it") as error:
        run(cloud, local, plan)

    assert error.value.code == 3
    assert cloud.requests("rds", "DeleteDBSnapshot") == []


def test_a_snapshot_that_fails_deletes_nothing(
    cloud: EmbeddedCloud, local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is neither "creating" nor "available"."""
    take(cloud, "one")
    local = keeping(local, 1)
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    stay(monkeypatch, "failed")

    with pytest.raises(DeployError, match="is failed, not available") as error:
        run(cloud, local, plan)

    assert error.value.code == 1
    assert cloud.requests("rds", "DeleteDBSnapshot") == []


def test_the_create_is_not_retried_if_its_response_is_lost(cloud: EmbeddedCloud, local: Environment) -> None:
    """A retry would only report that the name exists. The outcome is unknown."""
    plan = backup_database.plan(local, (), 1700000000)
    cloud.fail(service="rds", operation="CreateDBSnapshot", drop=True, times=9)

    with pytest.raises(OutcomeUnknown, match="AWS's response was lost while creating the snapshot"):
        run(cloud, local, plan)

    assert len(cloud.requests("rds", "CreateDBSnapshot")) == 1


@pytest.mark.parametrize(
    ("status", "times", "ends"),
    [
        ("modifying", 2, ""),
        ("backing-up", 1, ""),
        ("stopped", 1, "InvalidDBInstanceState"),
        ("modifying", 99, "10 s"),
    ],
)
def test_a_database_that_is_busy_is_waited_for(
    cloud: EmbeddedCloud,
    local: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: str,
    times: int,
    ends: str,
) -> None:
    """RDS refuses a snapshot meanwhile, and does nothing. One that is stopped does not start by itself."""
    monkeypatch.setattr(backup_database, "_status", lambda *_: status)
    monkeypatch.setattr(backup_database, "TIMEOUT", 10.0 if ends else backup_database.TIMEOUT)
    plan = backup_database.plan(local, (), 1700000000)
    cloud.fail(service="rds", operation="CreateDBSnapshot", status=400, code="InvalidDBInstanceState", times=times)

    if ends:
        with pytest.raises(DeployError, match=ends) as error:
            run(cloud, local, plan)
        assert error.value.code == 1
    else:
        assert run(cloud, local, plan).snapshot == plan.snapshot
        assert f"{DATABASE} is {status}: waiting until a snapshot can be taken" in capsys.readouterr().err
    assert there(cloud) == ([] if ends else [plan.snapshot])


def test_a_snapshot_that_is_gone_is_not_waited_for(cloud: EmbeddedCloud, local: Environment) -> None:
    """Another one that was being taken no longer matters; without the new one the backup has failed."""
    plan = backup_database.plan(local, (), 1700000000)
    run(cloud, local, msgspec.structs.replace(plan, busy=("other",)))
    cloud.fail(service="rds", operation="DescribeDBSnapshots", status=404, code="DBSnapshotNotFound")

    with pytest.raises(DeployError, match="-1700000001 is gone, not available") as error:
        run(cloud, local, backup_database.plan(local, (), 1700000001))

    assert error.value.code == 1


def test_what_a_database_is_doing_is_read_from_rds(cloud: EmbeddedCloud, local: Environment) -> None:
    """For the message while it is waited for."""
    assert backup_database._status(local, DATABASE) == "available"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's retries without pauses."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.mark.usefixtures("impatient")
def test_a_read_after_the_create_is_retried(cloud: EmbeddedCloud, local: Environment) -> None:
    """A transient error does not end the wait."""
    plan = backup_database.plan(local, (), 1700000000)
    cloud.fail(service="rds", operation="DescribeDBSnapshots", status=500, times=3)

    assert run(cloud, local, plan).snapshot == plan.snapshot


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "rule",
    [{"status": 500}, {"drop": True}, {"status": 403, "code": "AccessDenied"}, {"status": 403, "code": "ExpiredToken"}],
    ids=str,
)
def test_a_snapshot_that_cannot_be_described_is_an_unknown_outcome(
    cloud: EmbeddedCloud, local: Environment, rule: dict[str, Any]
) -> None:
    """It is being taken anyway: exit code 3 with its name, and nothing is deleted."""
    take(cloud, "one")
    local = keeping(local, 1)
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    cloud.fail(service="rds", operation="DescribeDBSnapshots", times=99, **rule)

    with pytest.raises(OutcomeUnknown, match=f"RDS is taking the snapshot {plan.snapshot}") as error:
        run(cloud, local, plan)

    assert error.value.code == 3
    assert cloud.requests("rds", "DeleteDBSnapshot") == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [({"status": 403, "code": "AccessDenied"}, 1), ({"status": 403, "code": "ExpiredToken"}, 1), ({"drop": True}, 3)],
    ids=str,
)
def test_an_old_snapshot_that_cannot_be_deleted_does_not_hide_the_new_one(
    cloud: EmbeddedCloud, local: Environment, rule: dict[str, Any], code: int
) -> None:
    """The message says that the new one is available. If the response was lost, the deletion is unknown."""
    take(cloud, "one")
    local = keeping(local, 1)
    plan = backup_database.plan(local, backup_database.snapshots(local), 1700000000)
    cloud.fail(service="rds", operation="DeleteDBSnapshot", **rule)

    with pytest.raises(DeployError, match=f"{plan.snapshot} is available, but the old one one may still") as error:
        run(cloud, local, plan)

    assert error.value.code == code
