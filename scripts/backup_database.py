"""Takes a snapshot of the application's database and waits until it is available.

Was scripts/rds-snapshot-app-db. Old snapshots are deleted only if the settings say so, only after the new one is
available, and only those with this tool's tags.
"""

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from scripts.edges import aws
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused, unknown_after
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut, wait

TOOL = "backup-database"
INTERVAL = 2.0
# States of a database that do not pass without somebody:
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html
LASTING = re.compile(r"^(stopp|delet|fail|inaccessible|incompatible|insufficient|restore-error|storage-full)")
TIMEOUT = 3600.0


class Snapshot(Struct, frozen=True):
    """One snapshot of a database, as RDS describes it. created: Unix time, 0 while it is being created."""

    id: str
    status: str
    percent: int
    created: float
    tags: Mapping[str, str]
    manual: bool


class Backup(Struct, frozen=True):
    """A snapshot to be taken. busy: snapshots to wait for first. expired: those to delete once it is available."""

    database: str
    snapshot: str
    tags: Mapping[str, str]
    busy: tuple[str, ...]
    expired: tuple[str, ...]

    def describe(self) -> list[str]:
        tags = ", ".join(f"{key}={value}" for key, value in self.tags.items())
        return [
            *(f"wait for the snapshot {name}, which is being taken" for name in self.busy),
            f"create the snapshot {self.snapshot} of {self.database} with the tags {tags}",
            "wait until it is available",
            *(f"delete the snapshot {name}" for name in self.expired),
        ]


class BackedUp(Report, Struct, frozen=True):
    """A snapshot that is available, and those that were deleted after it."""

    database: str
    snapshot: str
    deleted: tuple[str, ...]

    def line(self) -> str:
        number = len(self.deleted)
        deleted = f", {number} old {'one was' if number == 1 else 'ones were'} deleted" if number else ""
        return f"{self.snapshot} of {self.database} is available{deleted}"

    def outputs(self) -> dict[str, str]:
        return {"snapshot": self.snapshot}


def backup_database(run: Run) -> BackedUp | None:
    """Take a snapshot."""
    env = run.environment
    existing = run.read("the snapshots of the database", lambda: snapshots(env))
    return run.act(plan(env, existing or (), time.time()), partial(backup, env), "back up the database")


def snapshots(environment: Environment) -> tuple[Snapshot, ...]:
    """All snapshots of the environment's database. Raises Refused if there is no such database."""
    database = environment.database.name.require()
    client = aws.client("rds", environment)
    with aws.errors(f"reading the database {database}", environment):
        try:
            client.describe_db_instances(DBInstanceIdentifier=database)
        except client.exceptions.DBInstanceNotFoundFault as error:
            raise Refused(f"There is no database {database} in {environment.name}: nothing to back up.") from error
        pages = aws.pages(client, "describe_db_snapshots", DBInstanceIdentifier=database)
        return tuple(_snapshot(item) for page in pages for item in page["DBSnapshots"])


def _snapshot(item: Mapping[str, Any]) -> Snapshot:
    created = item.get("SnapshotCreateTime")
    return Snapshot(
        id=item["DBSnapshotIdentifier"],
        status=item["Status"],
        percent=item.get("PercentProgress", 0),
        created=created.timestamp() if created else 0,
        tags={tag["Key"]: tag["Value"] for tag in item.get("TagList", [])},
        manual=item.get("SnapshotType") == "manual",
    )


def plan(environment: Environment, existing: tuple[Snapshot, ...], now: float) -> Backup:
    """Decide the new snapshot's name, and which old ones to delete. now: Unix time in seconds."""
    database = environment.database.name.require()
    tags = {"Environment": environment.name, "Tool": TOOL}
    ours = [s for s in existing if s.manual and s.status == "available" and tags.items() <= s.tags.items()]
    ours.sort(key=lambda snapshot: (snapshot.created, snapshot.id), reverse=True)
    # The new snapshot counts as one of those to keep.
    expired = ours[environment.database.keep_snapshots - 1 :] if environment.database.keep_snapshots else []
    return Backup(
        database=database,
        snapshot=f"{database}-{int(now)}",
        tags=tags,
        busy=tuple(s.id for s in existing if s.status == "creating"),
        expired=tuple(s.id for s in reversed(expired)),
    )


def backup(environment: Environment, plan: Backup, *, clock: Clock = CLOCK) -> BackedUp:
    """Take the snapshot, wait for it, then delete the expired ones.

    Raises DeployError if it fails, OutcomeUnknown if it is not available after an hour or its status cannot be read:
    RDS may still finish it. In both cases nothing is deleted.
    """
    client = aws.client("rds", environment, once=True)
    deadline = clock.now() + TIMEOUT
    for name in plan.busy:
        _wait(environment, name, deadline, clock)
    _create(environment, client, plan, deadline, clock)
    with unknown_after(f"RDS is taking the snapshot {plan.snapshot}; check it before you run this again"):
        status = _wait(environment, plan.snapshot, deadline, clock)
    if status != "available":
        raise DeployError(f"The snapshot {plan.snapshot} is {status}, not available. No snapshot was deleted.")
    for name in plan.expired:
        _delete(environment, client, name, plan.snapshot)
    return BackedUp(plan.database, plan.snapshot, plan.expired)


def _create(environment: Environment, client: Any, plan: Backup, deadline: float, clock: Clock) -> None:
    """Have RDS take the snapshot. It refuses while the database is being modified, backed up or restarted.

    Raises TimedOut if that does not end; DeployError for a state that does not pass by itself, and for other errors.
    """

    def look() -> tuple[str, bool | None]:
        with aws.errors(f"creating the snapshot {plan.snapshot}", environment, starts_something=True):
            try:
                client.create_db_snapshot(
                    DBInstanceIdentifier=plan.database,
                    DBSnapshotIdentifier=plan.snapshot,
                    Tags=[{"Key": key, "Value": value} for key, value in plan.tags.items()],
                )
            except client.exceptions.InvalidDBInstanceStateFault:
                status = _status(environment, plan.database)
                if LASTING.search(status):
                    raise
                return f"{plan.database} is {status}: waiting until a snapshot can be taken", None
        return "", True

    try:
        wait(look, seconds=deadline - clock.now(), every=INTERVAL, clock=clock)
    except TimedOut as error:
        raise DeployError(f"{error}: no snapshot was taken within {TIMEOUT:g} s.") from error


def _status(environment: Environment, database: str) -> str:
    """What a database is doing, such as modifying."""
    with aws.errors(f"reading the database {database}", environment):
        found = aws.client("rds", environment).describe_db_instances(DBInstanceIdentifier=database)
        return str(found["DBInstances"][0]["DBInstanceStatus"])


def _delete(environment: Environment, client: Any, name: str, taken: str) -> None:
    """Delete an old snapshot. Raises DeployError, OutcomeUnknown for a lost response. taken: the new one, to report."""
    try:
        with aws.errors(f"deleting the snapshot {name}", environment, starts_something=True):
            client.delete_db_snapshot(DBSnapshotIdentifier=name)
    except DeployError as error:
        message = f"The snapshot {taken} is available, but the old one {name} may still be there: {error}"
        if error.code == Refused.exit_code:
            # The credentials expired meanwhile. A snapshot was taken, so this is a failure, not a refusal.
            raise DeployError(message) from error
        raise error.with_message(message) from error
    console.say(f"deleted the snapshot {name}")


def _wait(environment: Environment, name: str, deadline: float, clock: Clock) -> str:
    """Wait until a snapshot is no longer being created, and return its status; "gone" if it does not exist."""
    client = aws.client("rds", environment)

    def look() -> tuple[str, str | None]:
        with aws.errors(f"reading the snapshot {name}", environment):
            try:
                found = client.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"]
            except client.exceptions.DBSnapshotNotFoundFault:
                found = []
        if not found:
            return f"{name}: gone", "gone"
        snapshot = _snapshot(found[0])
        line = f"{name}: {snapshot.status}, {snapshot.percent} %"
        return line, None if snapshot.status == "creating" else snapshot.status

    try:
        return wait(look, seconds=deadline - clock.now(), every=INTERVAL, clock=clock)
    except TimedOut as error:
        raise TimedOut(f"{error} after {TIMEOUT:g} s: RDS may still finish it. No snapshot was deleted.") from error
