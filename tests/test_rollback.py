"""Rollback: which version and which frontend it goes back to, what it asks for, and what it leaves behind."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from scripts import rollback
from scripts.ecs import receipts
from scripts.ecs.receipts import Receipt
from scripts.edges.git import run as git
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.release.manifest import Manifest, Release
from scripts.rollback import Frontend, Target
from tests.conftest import EmbeddedCloud, Invoke
from tests.release import sites
from tests.release.test_publish import Site
from tests.test_receipts import DIGEST, receipt

BUCKET = "local-mint-app-static"
ONE, TWO, THREE = receipt("v1"), receipt("v2"), receipt("v3")
SHA, SAME = "1234567" + "a" * 33, "1234567" + "b" * 33


@pytest.mark.parametrize(
    ("kept", "running", "to", "chosen"),
    [
        ([THREE, TWO, ONE], "v3", None, "v2"),
        ([THREE, TWO, ONE], "v2", None, "v3"),
        ([receipt("v2", left="v3"), THREE, TWO, ONE], "v2", None, "v1"),
        ([receipt("v1", left="v2"), receipt("v2", left="v3"), THREE, TWO, ONE], "v1", None, Refused(r"\(v2, v3\)")),
        ([receipt("v4"), receipt("v2", left="v3"), THREE, TWO, ONE], "v4", None, "v2"),
        ([receipt("v3", verdict="rolled back"), TWO, ONE], "v2", None, "v1"),
        ([TWO, ONE], "", None, "v2"),
        ([TWO], "v2", None, Refused("choose one with --to=VERSION")),
        ([], "v2", None, Refused("no receipt of a good version before v2")),
        ([THREE, TWO, ONE], "v3", "v1", "v1"),
        ([receipt("v2", left="v3"), THREE, TWO, ONE], "v2", "v3", "v3"),
        ([THREE, TWO], "v3", "v3", Refused("runs v3 already")),
        ([THREE, TWO], "v3", "v0", ""),
        ([THREE, receipt(SHA)], "v3", SHA[:7], SHA),
        ([THREE, receipt(SHA)], "v3", SHA[:6], ""),
        ([THREE, receipt(SHA), receipt(SAME)], "v3", SHA[:7], Refused("more than one version")),
        ([THREE, receipt(SHA)], SHA, SHA[:7], Refused("already")),
    ],
    ids=[
        "the last one",
        "one is newer than the one that runs",
        "after a rollback",
        "after two rollbacks",
        "after a rollback and a deployment",
        "after one that ECS took back",
        "nobody knows what runs",
        "there is only one",
        "there are no receipts",
        "asked for",
        "asked for although it was rolled back from",
        "it runs already",
        "no receipt shows it",
        "by the beginning of its hash",
        "by too little of its hash",
        "by the beginning of two hashes",
        "by the beginning of the hash that runs",
    ],
)
def test_which_version_it_goes_back_to(
    kept: list[Receipt], running: str, to: str | None, chosen: str | Refused
) -> None:
    """The last good one that is not the one that runs, and that was not rolled back from."""
    local, good = settings.find("local"), receipts.good(kept, "mint-app")

    if isinstance(chosen, Refused):
        with pytest.raises(Refused, match=str(chosen)):
            rollback.choose(good, kept, running, to, local)
    else:
        found = rollback.choose(good, kept, running, to, local)
        assert (found.version if found else "") == chosen


def release(name: str, version: str, at: int = 1) -> Release:
    """A kept release."""
    return Release(name, version, at, "octocat", "")


KEPT = [release("r4", "v3"), release("r3", "v2"), release("r2", "v2"), release("r1", "v1"), release("before", "", 0)]


@pytest.mark.parametrize(
    ("version", "of_receipt", "found"),
    [
        ("v1", "r1", Frontend("r1")),
        ("v1", "", Frontend("r1")),
        ("v2", "r2", Frontend("r2")),
        ("v2", "gone", Frontend("r3")),
        ("v3", "r4", Frontend()),
        ("v3", "", Frontend()),
        ("v9", "r4", Frontend()),
        ("v0", "", Frontend(missing="its frontend is not among the kept releases (r4, r3, r2, r1)")),
        ("", "before", Frontend(missing="its frontend is not among the kept releases (r4, r3, r2, r1)")),
    ],
)
def test_which_frontend_belongs_to_a_version(version: str, of_receipt: str, found: Frontend) -> None:
    """The one that its receipt names, else the newest of that version; the live one stays as it is."""
    known = Manifest("mint-app", "local", {one: {} for one in KEPT})

    assert rollback.matching(known, version, of_receipt) == found


@pytest.mark.parametrize(
    ("migrations", "missing", "yes", "said"),
    [
        ((), "", False, ""),
        (("migrations/7.sql",), "", False, "keeps the migrations after v1 (migrations/7.sql)"),
        (("migrations/7.sql",), "", True, ""),
        (None, "", False, "it is not known which ones"),
        (None, "", True, ""),
        ((), "not kept", True, "would run with another version's frontend: not kept"),
    ],
)
def test_what_a_person_has_to_agree_to(migrations: tuple[str, ...] | None, missing: str, yes: bool, said: str) -> None:
    """To migrations that stay, whether they are known or not; two halves that do not match are refused."""
    target = Target("local", "v2", "v1", "", migrations, Frontend(missing=missing), ())

    if said:
        with pytest.raises(Refused) as refused:
            rollback.check(target, yes=yes)
        assert said in str(refused.value)
    else:
        rollback.check(target, yes=yes)
    assert all(name in "\n".join(target.says()) for name in migrations or ())


def test_the_migrations_between_two_versions_are_those_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their folder, added or changed; not known for a version that is no commit of it."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    commits = []
    for number, name in enumerate(("migrations/1.sql", "migrations/ü 2.sql", "src/app.go")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "-m", str(number))
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    dev = settings.environment("dev", dry_run=True)
    without = structs.replace(dev, migrations=structs.replace(dev.migrations, service=""))

    assert rollback._migrations(dev, commits[0], commits[2]) == ("migrations/ü 2.sql",)
    assert rollback._migrations(dev, commits[1], commits[2]) == ()
    assert rollback._migrations(dev, commits[1], "1" * 40) is None
    assert rollback._migrations(dev, commits[1], "--output=x") is None
    assert rollback._migrations(dev, commits[1], "") is None
    assert rollback._migrations(without, commits[1], "v0") == ()


def test_two_rollbacks_in_a_row_go_further_back_with_both_halves(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """v0 runs and is bad; v2 was good, and v1 before it. Each is one command and one receipt."""
    site = Site(cloud)
    made = {version: sites.build(tmp_path / version, version) for version in ("v1", "v2", "v0")}
    for version, folder in made.items():
        words = ("release-static", "--no-build", f"--build-dir={folder}")
        assert invoke(*words, **cloud.env, GITHUB_SHA=version).returncode == 0
    digests = {version: cloud.push(version, "mint-backend")[0] for version in ("v1", "v2")}
    _keep(cloud, receipt("v1", digest=DIGEST, id="20200101T000000.000Z-v1"))
    _keep(cloud, receipt("v2", digest=digests["v2"], id="20200101T000000.000Z-v2"))

    refused = invoke("rollback", **cloud.env)
    first = invoke("rollback", "--yes", **cloud.env)
    after_one = cloud.health()["version"], site.holds(made["v2"])
    gone = invoke("rollback", "--yes", **cloud.env)
    _keep(cloud, receipt("v1", digest=digests["v1"], id="20200101T000000.000Z-v1"))
    planned = invoke("rollback", "--dry-run", "--json", **cloud.env)
    second = invoke("rollback", "--yes", **cloud.env)
    third = invoke("rollback", "--yes", **cloud.env)

    assert refused.returncode == 2
    assert "local goes back from v0 to v2" in refused.stderr
    assert "it is not known which ones" in refused.stderr
    assert first.returncode == 0, first.stderr
    assert after_one == ("v2", True)
    assert first.stderr.splitlines()[-1].startswith("local runs v2 (was v0) (")
    assert gone.returncode == 2
    assert f"The image of v1 is no longer in ECR ({DIGEST})" in gone.stderr
    assert json.loads(planned.stdout)["steps"][0]["result"]["version"] == "v1"
    assert second.returncode == 0, second.stderr
    assert (cloud.health()["version"], site.holds(made["v1"])) == ("v1", True)
    assert third.returncode == 2
    assert "no receipt of a good version before v1 that was not rolled back from (v0, v2)" in third.stderr
    left = [one for one in _kept(cloud) if one["command"] == "rollback"]
    assert [(one["version"], one["rolled_back_from"], one["verdict"]) for one in left] == [
        ("v2", "v0", "succeeded"),
        ("v1", "v2", "succeeded"),
    ]
    assert all(one["new_revision"] and one["release"].endswith(f"-{one['version']}") for one in left)


def test_before_there_are_receipts_the_records_of_ecs_show_what_ran(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """v0 was rolled out, then v1 by somebody else's means."""
    cloud.push("v1", "mint-backend")
    ecs = cloud.client("ecs")
    found = ecs.describe_task_definition(taskDefinition="local-mint-app")["taskDefinition"]
    given = {key: found[key] for key in ("family", "containerDefinitions", "networkMode", "cpu", "memory")}
    new = json.loads(json.dumps(given).replace("mint-backend:v0", "mint-backend:v1"))
    made = ecs.register_task_definition(**new)["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster="local-mint-app", service="mint-app", taskDefinition=made)
    cloud.advance(600)

    done = invoke("rollback", "--dry-run", **cloud.env)

    assert "local goes back from v1 to v0" in done.stderr, done.stderr
    assert "->  v0" in done.stdout
    assert cloud.requests("s3", "PutObject") == []


def _keep(cloud: EmbeddedCloud, one: Receipt) -> None:
    """Put a receipt into the bucket."""
    body = json.dumps(structs.asdict(one)).encode()
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"{receipts.PREFIX}{one.id}.json", Body=body)


def _kept(cloud: EmbeddedCloud) -> list[dict[str, object]]:
    """The receipts in the bucket, oldest first."""
    stored = {key: value for key, value in cloud.objects(BUCKET).items() if key.startswith(receipts.PREFIX)}
    return [json.loads(stored[key][1]) for key in sorted(stored)]
