"""Receipts: what a run leaves behind, what is read back of it, and which versions count as good."""

import json
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.ecs import receipts
from scripts.ecs.receipts import Phase, Receipt, Service
from scripts.frame import settings, stop
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run, Step
from scripts.frame.stop import Stopped
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
    run.steps = [Step(f"step {number}", None, result, 1.5004) for number, result in enumerate(results)]
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
        ("succeeded", Stopped("SIGTERM"), ("stopped", 2)),
        ("failed", Stopped("SIGTERM"), ("stopped", 2)),
        ("", SystemExit(0), ("failed", 1)),
    ],
)
def test_how_a_run_ended_is_one_word(verdict: str, error: BaseException | None, told: tuple[str, int]) -> None:
    """That of the deployment, unless the exit code says something else of the run."""
    made = receipts.of(run_of(Deployed(verdict=verdict)), error, 1_700_000_000.25, 12.5)

    assert (made.verdict, made.exit_code) == told
    assert made.id.startswith("20231114T221320.250Z-")
    assert made.is_good("mint-app") is (told == ("succeeded", 0))


@dataclass(frozen=True)
class Released(Report):
    """What the step about the frontend reports."""

    release: str

    def line(self) -> str:
        return f"{self.release} https://user:word@host/"


def test_a_receipt_holds_the_services_that_were_deployed_and_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own service first; of two steps about one service the last one counts."""
    for name, value in {"ACTOR": "octocat", "REPOSITORY": "o/r", "RUN_ID": "7"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    started, migrated = Deployed(verdict="has not started", proof=()), Deployed("db", deployment_id="ecs-svc/0")
    results = (migrated, started, Deployed(reasons=("why",)), None, Released("r1"), Released("r2"))
    facts = {"version": "v3", "rolled_back_from": "v4", "promotion": "promotion skipped"}

    made = receipts.of(run_of(*results, **facts), DeployError("x"), 1_700_000_000.2505, 12.5004)

    told: dict[str, Any] = {"digest": DIGEST, "old_revision": "arn:old", "new_revision": "arn:new"}
    told |= {"verdict": "succeeded", "proof": ("2 of 2 tasks",)}
    lines = ("it runs", "it runs", "it runs", "", "r1 https://host/", "r2 https://host/")
    own = {"service": "mint-app", "deployment_id": "ecs-svc/1", "verdict": "failed", "reasons": ("why",)}
    expected = Receipt(
        **told
        | facts
        | own
        | {"id": made.id, "application": "mint-app", "environment": "local", "command": "deploy", "release": "r2"}
        | {"actor": "octocat", "run": "https://github.com/o/r/actions/runs/7", "exit_code": 1},
        started=1_700_000_000.25,
        seconds=12.5,
        phases=tuple(Phase(name=f"step {n}", seconds=1.5, result=line) for n, line in enumerate(lines)),
        services=(Service(**told, service="db", version="v2", deployment_id="ecs-svc/0"),),
    )
    assert made == expected


@pytest.mark.parametrize(
    ("results", "service", "others"),
    [
        ((), "", []),
        ((Deployed("a"),), "a", []),
        ((Deployed("a"), Deployed("b")), "b", ["a"]),
        ((Deployed("a"), Deployed("b"), Deployed("a")), "a", ["b"]),
        ((Deployed("mint-app"), Deployed("b")), "mint-app", ["b"]),
    ],
)
def test_the_receipt_is_about_the_application_else_about_the_last_service(
    results: tuple[Report, ...], service: str, others: list[str]
) -> None:
    """The others are beside it. Without a service there are only the facts."""
    made = receipts.of(run_of(*results, digest=DIGEST, version=""), None, 1.0, 0.0)

    assert (made.service, [one.service for one in made.services]) == (service, others)
    assert (made.digest, made.version) == (DIGEST, "v2" if results else "")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ()),
        (DeployError("AKIAEXAMPLE https://user:word@host/ failed"), ("AKIAEXAMPLE https://host/ failed",)),
        (KeyError("what was in the request"), ("a bug: KeyError",)),
        (Stopped("SIGTERM"), ("stopped by SIGTERM",)),
    ],
)
def test_why_a_run_failed_is_in_its_receipt(error: BaseException | None, expected: tuple[str, ...]) -> None:
    """Unless its deployment says so. What is in a bug's message may be a secret."""
    assert receipts.of(run_of(Deployed()), error, 1.0, 0.0).reasons == expected


def test_what_a_receipt_holds_is_bounded() -> None:
    """It is written where it can be read again: the last steps, the first reasons, the beginning of a text."""
    run = run_of(Deployed(version="x" * 3000, proof=("", *(str(n) for n in range(50)))), *[Released("r")] * 150)

    made = receipts.of(run, None, 1.0, 0.0)

    assert [phase.name for phase in made.phases] == [f"step {n}" for n in range(51, 151)]
    assert made.proof == tuple(str(n) for n in range(40))
    assert len(made.version) == 2000
    assert receipts.load(json.dumps(receipts.msgspec.to_builtins(made)).encode()) == made


@pytest.mark.parametrize(
    ("changing", "error", "expected"),
    [
        *((changing, None, True) for changing in (False, True)),
        *((changing, KeyError(), True) for changing in (False, True)),
        *((changing, DeployError("x"), True) for changing in (False, True)),
        *((changing, Refused("x"), False) for changing in (False, True)),
        *((changing, Stopped("SIGINT"), changing) for changing in (False, True)),
    ],
)
def test_only_what_changed_nothing_leaves_no_receipt(
    changing: bool, error: BaseException | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run within it, and a dry run, leave none either. Without a bucket it is in the summary alone."""
    monkeypatch.setattr(stop._state, "changing", changing)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page := tmp_path / "summary.md"))
    dev = settings.environment("dev")

    for run in (Run("deploy", dev, dry_run=True), Run("deploy", dev)):
        with suppress(type(error)) if error else nullcontext(), receipts.kept(run):
            with receipts.kept(run):
                pass
            assert not page.exists()
            if error:
                raise error

    assert (page.read_text().count('"command": "deploy"') if page.exists() else 0) == expected


@pytest.mark.parametrize(
    ("name", "error", "tries"), [("local", None, 3), ("dev", DeployError("x"), 3), ("dev", Stopped("SIGINT"), 1)]
)
def test_a_receipt_is_put_beside_the_releases(
    name: str,
    error: BaseException | None,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Into the environment's own bucket, else that of the release. After a stop nobody has time for a second try.

    That it could not be put is a warning.
    """
    monkeypatch.setattr(stop._state, "changing", True)
    monkeypatch.setattr(receipts, "open_bucket", lambda environment, name: asked.append(name) or Bucket())
    asked: list[Any] = []

    class Bucket:
        def put(self, *words: object, tries: int) -> None:
            asked.extend((*words, tries))
            raise DeployError("S3 is not there")

    with suppress(type(error)) if error else nullcontext(), receipts.kept(Run("deploy", settings.find(name)), "other"):
        if error:
            raise error

    made = receipts.load(asked[2])
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    bucket = BUCKET if name == "local" else "other"
    assert asked == [bucket, f"_release/receipts/{made.id}.json", asked[2], headers, tries]
    assert made.exit_code == (0 if error is None else 3 if isinstance(error, Stopped) else 1)
    assert "the receipt of this run was not kept: S3 is not there" in capsys.readouterr().err


def test_the_summary_shows_what_is_known() -> None:
    """As it is written, in any language, without what is empty."""
    page = receipts.markdown(receipt("v1", actor="Zoë", proof=("2 of 2 tasks",), service=""))

    assert '"actor": "Zoë"' in page
    assert json.loads(page[page.index("{") : page.rindex("}") + 1]) == {
        "format": 1,
        "id": "r-v1",
        "application": "mint-app",
        "environment": "local",
        "command": "deploy",
        "version": "v1",
        "actor": "Zoë",
        "started": 1_700_000_000.0,
        "seconds": 1.0,
        "verdict": "succeeded",
        "proof": ["2 of 2 tasks"],
        "exit_code": 0,
    }


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


@pytest.mark.parametrize(
    ("most", "more"),
    [
        ({"id": "x"}, {"id": ""}),
        ({"id": "x" * 100}, {"id": "x" * 101}),
        ({"verdict": "x" * 2000}, {"verdict": "x" * 2001}),
        ({"started": 0}, {"started": -0.1}),
        ({"started": 4_102_444_800}, {"started": 4_102_444_801}),
        ({"seconds": 0}, {"seconds": -0.1}),
        ({"seconds": 1e9}, {"seconds": 1e9 + 1}),
        ({"exit_code": 0}, {"exit_code": -1}),
        ({"exit_code": 255}, {"exit_code": 256}),
        ({"proof": ["x"] * 40}, {"proof": ["x"] * 41}),
        ({"phases": [{"name": "x", "seconds": 1}] * 200}, {"phases": [{"name": "x", "seconds": 1}] * 201}),
        ({"services": [{"service": "x"}] * 200}, {"services": [{"service": "x"}] * 201}),
    ],
    ids=lambda change: "-".join(change),
)
def test_each_bound_of_a_receipt_is_where_it_is_said_to_be(most: dict[str, Any], more: dict[str, Any]) -> None:
    """Receipts of earlier versions stay readable only while no bound gets tighter."""
    receipts.load(json.dumps(DOCUMENT | most).encode())

    with pytest.raises(ValueError, match=r".+"):
        receipts.load(json.dumps(DOCUMENT | more).encode())


class Stored:
    """A bucket that holds receipts by their number, and how much of one was read."""

    def __init__(self, held: dict[int, bytes | DeployError | None]) -> None:
        self.held, self.most = {f"{receipts.PREFIX}{number}.json": body for number, body in held.items()}, set[int]()

    def list(self, prefix: str) -> dict[str, object]:
        assert prefix == "_release/receipts/"
        return dict.fromkeys(("_release/receipts/9.txt", *self.held))

    def get(self, key: str, most: int) -> tuple[bytes, str] | None:
        found = self.held[key]
        self.most.add(most)
        if isinstance(found, DeployError):
            raise found
        return None if found is None else (found, "etag")


def test_the_newest_receipts_of_the_environment_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is damaged, too large or gone meanwhile is named; what is of another application is not ours."""
    of = {"local": json.dumps(DOCUMENT).encode()}
    of |= {name: json.dumps(DOCUMENT | {name: "other"}).encode() for name in ("application", "environment")}
    stored = Stored(
        {
            1: of["local"],
            2: json.dumps(DOCUMENT | {"id": "r2"}).encode(),
            3: of["application"],
            4: None,
            5: Refused("it is too large"),
            6: b"{}",
            7: of["local"],
            8: of["environment"],
        }
    )
    monkeypatch.setattr(receipts, "open_bucket", lambda environment, name: {BUCKET: stored}[name])

    found = receipts.read(settings.find("local"), 7)

    assert [one.id for one in found.receipts] == ["r1", "r2"]
    assert found.damaged == tuple(f"_release/receipts/{number}.json" for number in (6, 5, 4))
    assert stored.most == {1 << 20}
    stored.held["_release/receipts/6.json"] = DeployError("S3 is not there")
    with pytest.raises(DeployError, match="S3 is not there"):
        receipts.read(settings.find("local"), 7)
    with pytest.raises(Refused, match="STATIC_S3_BUCKET"):
        receipts.read(settings.environment("dev"), 7)


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
