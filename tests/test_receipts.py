"""Receipts: what a run leaves behind, what is read back of it, and which versions count as good."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from scripts.ecs import receipts
from scripts.ecs.receipts import Receipt
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run, Step
from tests.conftest import EmbeddedCloud, Invoke

DIGEST = "sha256:" + "a" * 64
BUCKET = "local-mint-app-static"


@dataclass(frozen=True)
class Deployed(Report):
    """What a step about a service reports, in the fields that a receipt keeps."""

    service: str = "mint-app"
    version: str = "v2"
    digest: str = DIGEST
    task_definition: str = "arn:new"
    before: str = "arn:old"
    deployment_id: str = "ecs-svc/1"
    verdict: str = "succeeded"
    proof: tuple[str, ...] = ("2 of 2 tasks",)
    reasons: tuple[str, ...] = ()

    def line(self) -> str:
        return "it runs"


def run_of(*results: Report | None, **facts: str) -> Run:
    """A run on the embedded AWS whose steps had these results."""
    run = Run("deploy", settings.find("local"))
    run.steps = [Step(f"step {number}", None, result, 1.5) for number, result in enumerate(results)]
    run.facts = facts
    return run


@pytest.mark.parametrize(
    ("verdict", "error", "told"),
    [
        ("succeeded", None, ("succeeded", 0)),
        ("nothing to verify", None, ("nothing to verify", 0)),
        ("in progress", None, ("in progress", 0)),
        ("succeeded", DeployError("the frontend"), ("failed", 1)),
        ("failed", DeployError("x"), ("failed", 1)),
        ("superseded", DeployError("x"), ("superseded", 1)),
        ("in progress", OutcomeUnknown("x"), ("unknown", 3)),
        ("rolling back", RolledBack("x"), ("rolled back", 4)),
        ("succeeded", KeyError("x"), ("failed", 1)),
        ("", None, ("succeeded", 0)),
        ("", DeployError("x"), ("failed", 1)),
    ],
)
def test_how_a_run_ended_is_one_word(verdict: str, error: Exception | None, told: tuple[str, int]) -> None:
    """That of the deployment, unless the exit code says something else of the run."""
    made = receipts.of(run_of(Deployed(verdict=verdict)), error, 1_700_000_000.25, 12.5)

    assert (made.verdict, made.exit_code) == told
    assert made.id.startswith("20231114T221320.250Z-")
    assert made.is_good("mint-app") is (told == ("succeeded", 0))


def test_a_receipt_holds_the_services_that_were_deployed_and_the_steps() -> None:
    """The application's own service first; of two steps about one service the last one counts."""
    started = Deployed(verdict="has not started", proof=())
    run = run_of(started, Deployed(), Deployed("mint-app-db-migrate", deployment_id="ecs-svc/0"), None, version="v3")

    made = receipts.of(run, DeployError("AKIAEXAMPLE https://user:word@host/ failed"), 1_700_000_000.0, 12.5)

    assert (made.service, made.deployment_id, made.proof) == ("mint-app", "ecs-svc/1", ("2 of 2 tasks",))
    assert (made.version, made.digest, made.old_revision, made.new_revision) == ("v3", DIGEST, "arn:old", "arn:new")
    assert [one.service for one in made.services] == ["mint-app-db-migrate"]
    assert [(phase.name, phase.seconds, phase.result) for phase in made.phases][-1] == ("step 3", 1.5, "")
    assert made.reasons == ("AKIAEXAMPLE https://host/ failed",)


def receipt(version: str, *, left: str = "", verdict: str = "succeeded", **changes: Any) -> Receipt:
    """A receipt of a deployment, or of a rollback from a version."""
    given = {"id": f"r-{version}", "application": "mint-app", "environment": "local", "command": "deploy"}
    given |= {"version": version, "service": "mint-app", "verdict": verdict, "rolled_back_from": left}
    given |= {"exit_code": 0 if verdict == "succeeded" else 1, "started": 1_700_000_000.0, "seconds": 1.0}
    return Receipt(**(given | changes))


@pytest.mark.parametrize(
    ("kept", "good", "left"),
    [
        ([], [], set()),
        ([receipt("v2"), receipt("v1")], ["v2", "v1"], set()),
        ([receipt("v2", verdict="rolled back"), receipt("v1")], ["v1"], set()),
        ([receipt("v2", exit_code=1), receipt("v1")], ["v1"], set()),
        ([receipt("v2", service=""), receipt("v1")], ["v1"], set()),
        ([receipt("v1", left="v2"), receipt("v2"), receipt("v1")], ["v1"], {"v2"}),
        (
            [receipt("v1", left="v2"), receipt("v2", left="v3"), receipt("v3"), receipt("v2"), receipt("v1")],
            ["v1"],
            {"v2", "v3"},
        ),
        ([receipt("v2"), receipt("v1", left="v2"), receipt("v2"), receipt("v1")], ["v2", "v1"], set()),
        ([receipt("v1", left="v2", verdict="failed"), receipt("v2"), receipt("v1")], ["v1"], {"v2"}),
        ([receipt("v2", verdict="failed"), receipt("v1", left="v2"), receipt("v1")], ["v1"], {"v2"}),
        ([receipt("v2", left="v2"), receipt("v2")], ["v2"], set()),
    ],
    ids=[
        "none",
        "two",
        "taken back by ECS",
        "the frontend failed",
        "a release alone",
        "rolled back from",
        "two rollbacks",
        "deployed again since",
        "a rollback that failed",
        "deployed again in vain",
        "to another build of the same",
    ],
)
def test_which_versions_are_good(kept: list[Receipt], good: list[str], left: set[str]) -> None:
    """Those that ran well, without those that a rollback has left; newest first."""
    assert [one.version for one in receipts.good(kept, "mint-app")] == good
    assert receipts.rolled_back_from(kept) == left


DOCUMENT = json.loads(
    '{"format": 1, "id": "r1", "application": "mint-app", "environment": "local", "command": "deploy", "started": 1,'
    ' "seconds": 2, "verdict": "succeeded", "exit_code": 0}'
)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"id": ""},
        {"verdict": None},
        {"verdict": "x" * 3000},
        {"started": -1},
        {"started": "soon"},
        {"seconds": 1e300},
        {"exit_code": 256},
        {"phases": [{"name": "x"}]},
        {"phases": [{"name": "x", "seconds": 1}] * 300},
        {"reasons": ["x"] * 100},
        {"services": [{}]},
    ],
    ids=str,
)
def test_a_damaged_receipt_is_none(change: dict[str, Any]) -> None:
    """What is in the bucket is somebody else's text."""
    assert receipts.load(json.dumps(DOCUMENT).encode()).verdict == "succeeded"

    with pytest.raises(ValueError, match=r".+"):
        receipts.load(json.dumps(DOCUMENT | change).encode())


def put(cloud: EmbeddedCloud, name: str, body: bytes) -> None:
    """Somebody puts a receipt into the bucket."""
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"{receipts.PREFIX}{name}.json", Body=body)


def test_history_shows_what_was_done_and_leaves_out_what_is_no_receipt(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Newest first, rollbacks marked; what a receipt says acts on no terminal."""
    put(cloud, "20260101T000000.000Z-1", json.dumps(DOCUMENT | {"version": "v1", "actor": "octocat"}).encode())
    back = {"command": "rollback", "version": "v1", "rolled_back_from": "v2", "actor": "\x1b[31mhubot\n::error::x"}
    put(cloud, "20260103T000000.000Z-3", json.dumps(DOCUMENT | back).encode())
    put(cloud, "20260102T000000.000Z-2", json.dumps(DOCUMENT | {"environment": "prod"}).encode())
    put(cloud, "20260104T000000.000Z-4", b"[" * 100_000)

    shown = invoke("history", **cloud.env)
    document = json.loads(invoke("history", "--limit=2", "--json", **cloud.env).stdout)
    refused = invoke("history", "--limit=0", **cloud.env)

    assert shown.returncode == 0, shown.stderr
    rows = shown.stdout.splitlines()
    assert [row.split()[-1] for row in rows] == ["VERDICT", "v2)", "succeeded"]
    assert "rollback  v1       2 s   succeeded (rollback from v2)" in rows[1]
    assert "\x1b" not in shown.stdout
    assert "1 receipts are damaged and left out: _release/receipts/20260104T000000.000Z-4.json" in shown.stderr
    assert [one["command"] for one in document["steps"][0]["result"]["receipts"]] == ["rollback"]
    assert refused.returncode == 2
