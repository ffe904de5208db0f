"""Rollback: which version and which frontend it goes back to, what it asks for, and what it leaves behind."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from scripts import releases, rollback
from scripts.deploy_service import Deployed, Wish
from scripts.ecs import receipts
from scripts.ecs.images import Image, Stored
from scripts.ecs.receipts import Receipt
from scripts.ecs.rollout import Service
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.release import lease
from scripts.release.manifest import Manifest, Release, State
from scripts.rollback import Frontend, Target
from tests.conftest import EmbeddedCloud, Invoke, git
from tests.release import sites
from tests.release.test_publish import Site
from tests.test_receipts import DIGEST, receipt
from tests.test_rollout import DONE, service

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
    kept: list[Receipt],
    running: str,
    to: str | None,
    chosen: str | Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last good one that is not the one that runs, and that was not rolled back from."""
    local, good = settings.find("local"), receipts.good(kept, "mint-app")

    if isinstance(chosen, Refused):
        with pytest.raises(Refused, match=str(chosen)):
            rollback.choose(good, kept, running, to, local)
    else:
        found = rollback.choose(good, kept, running, to, local)
        assert (found.version if found else "") == chosen
        warned = f"no receipt shows that {to} has run well in local" in capsys.readouterr().err
        assert warned is (found is None)


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


TARGET = Target("local", "v2", "v1", "", (), Frontend(), ())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ["local goes back from v2 to v1"]),
        ({"running": ""}, ["local goes back from an unknown version to v1"]),
        ({"running": SHA, "version": "b" * 40}, ["local goes back from 1234567 to bbbbbbb"]),
        ({"frontend": Frontend("r1")}, ["local goes back from v2 to v1", "the frontend goes back to r1"]),
        (
            {"migrations": ("m/1.sql", "m/\x1b2.sql")},
            ["local goes back from v2 to v1", "these migrations are not undone:", "  m/1.sql", r"  m/\x1b2.sql"],
        ),
        (
            {"migrations": None},
            [
                "local goes back from v2 to v1",
                "it is not known which migrations lie between the two versions; none of them is undone",
            ],
        ),
    ],
)
def test_what_it_goes_back_to_is_said_before_it_begins(changes: dict[str, Any], says: list[str]) -> None:
    """From what to what, with what stays."""
    assert replace(TARGET, **changes).says() == says


def test_the_good_versions_are_a_table() -> None:
    """The one that it goes back to and the one that runs are marked."""
    good = (THREE, receipt("v2", actor="octocat\n::x"), receipt("v1", actor="x" * 41))
    day = "2023-11-14"

    rows = replace(TARGET, good=good).table()

    assert rows[0] == ("", "GOOD VERSION", "DEPLOYED", "BY")
    assert [(row[0], row[1], row[2][:10], row[3]) for row in rows[1:]] == [
        ("", "v3", day, ""),
        ("*", "v2", day, "octocat ::x"),
        ("->", "v1", day, f"{'x' * 39}…"),
    ]
    assert TARGET.table() == []


@pytest.mark.parametrize(
    ("target", "wish", "steps"),
    [
        (TARGET, Wish(tag="v1", version="v1"), ["deploy", "look again"]),
        (
            replace(TARGET, by_digest=DIGEST, frontend=Frontend("r1")),
            Wish(digest=DIGEST, version="v1"),
            ["deploy", "lock", "release r1", "look again"],
        ),
    ],
)
@pytest.mark.parametrize("supersede", [False, True])
def test_the_service_goes_back_first_and_then_its_frontend(
    target: Target, wish: Wish, steps: list[str], supersede: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody has taken the lock over. What was deployed is looked at again."""
    done: list[str] = []
    result = Deployed("mint-app", "c", "", "", "", "", "ecs-svc/1", 0.0)

    def carry_out(run: Run, wished: Wish) -> Deployed:
        assert wished == replace(wish, supersede=supersede)
        done.append("deploy")
        return result

    def still(environment: Environment, deployed: Deployed) -> Deployed:
        assert deployed is result
        done.append("look again")
        return deployed

    monkeypatch.setattr(rollback, "carry_out", carry_out)
    monkeypatch.setattr(rollback, "still", still)
    monkeypatch.setattr(lease, "check", lambda run: done.append("lock"))
    monkeypatch.setattr(releases, "rollback", lambda run, to: done.append(f"release {to}"))
    run = Run("rollback", settings.find("local"))

    rollback._go_back(run, target, supersede)

    assert done == steps
    assert [phase.name for phase in run.phases] == [
        "deploy the service",
        *(["release the frontend"] if target.frontend.release else []),
        "look at the service again",
    ]


SHOWS = ("127.0.0.1:4566/mint-backend:v7", f"127.0.0.1:4566/mint-backend@{DIGEST}", "r.io/sidecar:v8")


@pytest.mark.parametrize(
    ("answer", "images", "kept", "running"),
    [
        ("v9", SHOWS, [ONE], "v9"),
        (None, SHOWS[::2], [ONE], "v7"),
        (None, SHOWS[::-2], [ONE], "v7"),
        (None, SHOWS[1:], [receipt("v1", digest="sha256:b"), receipt("v2", digest=DIGEST)], "v2"),
        (None, SHOWS[1:], [ONE], ""),
        (None, SHOWS[2:], [ONE], ""),
        (None, (), [ONE], ""),
        (None, ("<no image>",), [ONE], ""),
        (None, None, [receipt("v4", service="other"), receipt("", service="mint-app"), TWO, ONE], "v2"),
        (None, None, [], ""),
    ],
    ids=[
        "as it answers",
        "as ECS shows its tag",
        "beside a sidecar",
        "by its digest",
        "a digest that no receipt has",
        "a sidecar alone",
        "no image",
        "no reference",
        "of the newest receipt",
        "not known",
    ],
)
def test_what_runs_is_asked_of_one_after_the_other(
    answer: str | None,
    images: tuple[str, ...] | None,
    kept: list[Receipt],
    running: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The endpoint, ECS, the receipts: whoever knows first. Who did not answer is said."""

    def ask(url: str, timeout: float) -> str:
        assert (url, timeout) == (settings.find("local").healthcheck, 5.0)
        if answer is None:
            raise DeployError("it does not answer")
        return answer

    class Reads:
        def __init__(self, environment: Environment, name: str) -> None:
            assert name == "mint-app"

        def look(self) -> Service:
            if images is None:
                raise Refused("no credentials")
            return service(*([replace(DONE, images=images)] if images else []))

    monkeypatch.setattr(rollback.versions, "ask", ask)
    monkeypatch.setattr(rollback, "Reader", Reads)

    assert rollback._running(settings.find("local"), kept) == running
    unanswered = [f"{settings.find('local').healthcheck} does not answer: it does not answer"] * (answer is None)
    unread = ["ECS cannot be read: no credentials"] * (images is None)
    assert capsys.readouterr().err.splitlines() == [*unanswered, *unread]


@pytest.mark.parametrize(
    ("tagged", "by_digest", "digest", "expected"),
    [
        (DIGEST, False, "", ""),
        (DIGEST, False, DIGEST, ""),
        ("sha256:other", True, DIGEST, DIGEST),
        (None, True, DIGEST, DIGEST),
        ("sha256:other", False, DIGEST, Refused(f"The image of v1 is no longer in ECR ({DIGEST}): build and push it")),
        (None, False, "", Refused("The image of v1 is no longer in ECR (127.0.0.1:4566/mint-backend:v1): build and")),
    ],
    ids=["any", "the same", "the tag has moved", "the tag is gone", "overwritten", "gone"],
)
def test_an_image_is_deployed_by_its_digest_if_its_tag_has_moved(
    tagged: str | None, by_digest: bool, digest: str, expected: str | Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran well is what is deployed, or nothing."""
    local = settings.find("local")

    def look_up(environment: Environment, image: Image) -> Stored | None:
        if image.digest:
            return Stored(image.digest, "") if by_digest and image.digest == DIGEST else None
        assert image.tag == "v1"
        return Stored(tagged, "") if tagged else None

    monkeypatch.setattr(rollback.images, "look_up", look_up)

    if isinstance(expected, Refused):
        with pytest.raises(Refused) as refused:
            rollback._by_digest(local, "v1", digest)
        assert str(refused.value).replace(local.registry.require(), "127.0.0.1:4566").startswith(str(expected))
    else:
        assert rollback._by_digest(local, "v1", digest) == expected
    # A dry run without the account cannot look.
    assert rollback._by_digest(settings.environment("dev", dry_run=True), "v1", digest) == ""


def test_the_records_of_ecs_are_receipts_of_what_ran_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each version once, by the service's own image; none where they cannot be read."""
    found: list[Any] = [
        (30.0, ("r.io/sidecar:v9", "r.io/mint-backend:v2", "<odd>")),
        (20.0, ("r.io/mint-backend:v1",)),
        (10.0, (f"r.io/mint-backend@{DIGEST}", "r.io/mint-backend:v2")),
    ]

    class Reads:
        def __init__(self, environment: Environment, name: str) -> None:
            assert name == "mint-app"

        def succeeded(self, since: float) -> Any:
            assert abs(time.time() - 90 * 86400 - since) < 60
            if not found:
                raise DeployError("throttled")
            return found

    monkeypatch.setattr(rollback, "Reader", Reads)

    made = rollback._by_ecs(settings.find("local"))

    assert [(one.version, one.started, one.digest) for one in made] == [("v2", 30.0, ""), ("v1", 20.0, "")]
    assert all(
        one.id == "ecs" and one.is_good("mint-app") and one.actor == "not known, by ECS's records" for one in made
    )
    assert {(one.application, one.environment, one.command, one.seconds) for one in made} == {
        ("mint-app", "local", "deploy", 0)
    }
    found.clear()
    assert rollback._by_ecs(settings.find("local")) == []
    assert "ECS's records of deployments cannot be read: throttled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kept", "by_ecs", "to", "backend_only", "expected"),
    [
        ([THREE, receipt("v2", digest=DIGEST, release="r2")], [ONE], None, False, (("v2", DIGEST, "r2"), ["v3", "v2"])),
        ([THREE, receipt("v2", digest=DIGEST, release="r2")], [], None, True, (("v2", DIGEST, None), ["v3", "v2"])),
        # Before there were receipts.
        ([THREE], [THREE, TWO, ONE], None, False, (("v2", "", ""), ["v3", "v2", "v1"])),
        ([receipt("v3", left="v2")], [TWO, ONE], None, False, (("v1", "", ""), ["v3", "v1"])),
        ([THREE], [TWO], "v0", False, (("v0", "", ""), ["v3"])),
        (
            [receipt(f"v{n}") for n in range(9, 0, -1)],
            [],
            "v1",
            False,
            (("v1", "", ""), ["v9", "v8", "v7", "v6", "v5"]),
        ),
    ],
    ids=[
        "by its receipt",
        "the backend alone",
        "by ECS",
        "by ECS, but not what was left",
        "asked for",
        "the newest five",
    ],
)
def test_the_target_is_put_together_from_what_is_read(
    kept: list[Receipt],
    by_ecs: list[Receipt],
    to: str | None,
    backend_only: bool,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ECS's records are read only where no receipt shows another version that ran well."""
    local, (version, good) = settings.find("local"), expected
    monkeypatch.setattr(receipts, "read", lambda environment, most: {300: receipts.Kept(tuple(kept))}[most])
    monkeypatch.setattr(rollback, "_running", lambda environment, known: "v3")
    monkeypatch.setattr(rollback, "_by_ecs", lambda environment: by_ecs)
    monkeypatch.setattr(rollback, "_by_digest", lambda environment, *given: str(given))
    monkeypatch.setattr(rollback, "_migrations", lambda environment, *given: given)
    monkeypatch.setattr(rollback, "_frontend", lambda environment, *given: Frontend(str(given)))

    found = rollback.observe(local, to, backend_only)

    frontend = Frontend() if backend_only else Frontend(str((version[0], version[2])))
    assert found == Target("local", "v3", version[0], str(version[:2]), (version[0], "v3"), frontend, found.good)
    assert [one.version for one in found.good] == good


@pytest.mark.parametrize(
    ("bad", "interactive", "confirmed", "failure", "reverted", "says"),
    [
        ("v2", True, True, None, False, ""),
        (
            SHA,
            False,
            True,
            None,
            False,
            f"main still has 1234567: `invoke revert --env=local --commit={SHA}` reverts it",
        ),
        (
            SHA,
            True,
            False,
            None,
            False,
            f"main still has 1234567: `invoke revert --env=local --commit={SHA}` reverts it",
        ),
        (SHA, True, True, None, True, "main still has 1234567"),
        (SHA, True, True, DeployError("a conflict"), True, "1234567 was not reverted: a conflict"),
    ],
)
def test_a_revert_of_the_bad_version_is_offered(
    bad: str,
    interactive: bool,
    confirmed: bool,
    failure: DeployError | None,
    reverted: bool,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a person can answer. The rollback has succeeded, whatever becomes of it."""
    done: list[str] = []
    run = Run("rollback", settings.find("local"))
    run.last_line = "local runs v1"

    def revert(run: Run, commit: str) -> None:
        assert run.progress == "local runs v1. Interrupted: the revert of 1234567."
        done.append(commit)
        run.last_line = "reverted"
        if failure:
            raise failure

    def confirm(question: str, word: str) -> bool:
        assert (question, word) == ("Type revert to do that now:", "revert")
        return confirmed

    monkeypatch.setattr(rollback, "revert", revert)
    monkeypatch.setattr(rollback.console, "interactive", lambda: interactive)
    monkeypatch.setattr(rollback.console, "confirm", confirm)

    rollback._offer_revert(run, replace(TARGET, running=bad))

    assert done == ([bad] if reverted else [])
    assert run.last_line == "local runs v1"
    assert says in (said := capsys.readouterr().err)
    assert bool(said) is bool(says)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("found", [False, True])
def test_a_rollback_is_agreed_to_before_it_begins(
    dry_run: bool, found: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run asks nobody, and offers no revert."""
    done: list[str] = []
    target = replace(TARGET, migrations=None)

    def observe(environment: Environment, *given: Any) -> Target:
        assert given == ("v1", True)
        if not found:
            raise DeployError("S3 is not there") if dry_run else Refused("none")
        return target

    monkeypatch.setattr(rollback, "observe", observe)
    monkeypatch.setattr(rollback, "check", lambda target, yes: done.append(f"check {yes}"))
    monkeypatch.setattr(Run, "confirm", lambda run: done.append("confirm"))
    monkeypatch.setattr(rollback, "_go_back", lambda run, target, supersede: done.append(f"go back {supersede}"))
    monkeypatch.setattr(rollback, "_offer_revert", lambda run, target: done.append("offer"))
    run = Run("rollback", settings.find("local"), dry_run=dry_run, yes=True)
    run.locked = run.recorded = True

    with pytest.raises(Refused) if not (found or dry_run) else nullcontext():
        rollback.rollback(run, to="v1", backend_only=True, supersede=True)

    begun = [*([] if dry_run else ["check True", "confirm"]), "go back True", *([] if dry_run else ["offer"])]
    assert done == (begun if found else [])
    assert run.facts == ({"version": "v1", "rolled_back_from": "v2"} if found else {})
    assert ("local goes back from v2 to v1" in capsys.readouterr().err) is found
    for odd in ("", "<", "v1\n"):
        with pytest.raises(Refused, match=r"\(from --to\)"):
            rollback.rollback(run, to=odd)


def test_by_default_both_halves_go_back_and_nothing_is_superseded(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last good version."""
    asked: list[Any] = []
    monkeypatch.setattr(rollback, "observe", lambda environment, *given: asked.extend(given) or TARGET)
    monkeypatch.setattr(rollback, "_go_back", lambda run, target, supersede: asked.append(supersede))
    run = Run("rollback", settings.find("local"))
    run.locked = run.recorded = True

    rollback.rollback(run)

    assert asked == [None, False, False]


OLD_HASH, NEW_HASH = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("old", "new", "known", "fetched", "expected"),
    [
        (OLD_HASH, NEW_HASH, {OLD_HASH, NEW_HASH}, set(), ("migrations/1.sql",)),
        (OLD_HASH, NEW_HASH, {OLD_HASH}, {NEW_HASH}, ("migrations/1.sql",)),
        (OLD_HASH, NEW_HASH, {NEW_HASH}, set(), None),
        ("v1", NEW_HASH, set(), None, None),
        (OLD_HASH, "--output=x", set(), None, None),
        (OLD_HASH, "", set(), None, None),
    ],
    ids=["known", "fetched", "unknown", "a tag", "a flag", "nobody knows what runs"],
)
def test_commits_that_are_not_here_are_fetched(
    old: str,
    new: str,
    known: set[str],
    fetched: set[str] | None,
    expected: tuple[str, ...] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once, and only if both versions are commits. A repository that cannot be read is said."""
    there, fetches = set(known), list[Path]()

    def fetch(folder: Path) -> None:
        assert fetched is not None
        fetches.append(folder)
        there.update(fetched)

    def commit(folder: Path, name: str) -> str | None:
        assert fetched is not None
        return name if name in there else None

    monkeypatch.setattr(rollback, "top", lambda folder: Path("/top"))
    monkeypatch.setattr(rollback, "fetch", fetch)
    monkeypatch.setattr(rollback.git, "commit", commit)
    changed = {(Path("/top"), OLD_HASH, NEW_HASH): ["migrations/1.sql", "src/migrations/2.sql"]}
    monkeypatch.setattr(rollback.git, "changes", lambda *words: changed[words])

    assert rollback._migrations(settings.environment("dev"), old, new) == expected
    assert len(fetches) == (fetched is not None and {OLD_HASH, NEW_HASH} != known)

    def nowhere(folder: Path) -> Path:
        raise DeployError("it is no repository")

    monkeypatch.setattr(rollback, "top", nowhere)
    assert rollback._migrations(settings.environment("dev"), old, new) is None
    assert capsys.readouterr().err == "the repository cannot be read: it is no repository\n"


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (State({}, Manifest("mint-app", "local", {one: {} for one in KEPT})), Frontend("r1")),
        (State({}, None), Frontend()),
        (State(None, None, unread="it is damaged"), Frontend(missing="it is damaged")),
    ],
    ids=["kept", "never released", "damaged"],
)
def test_the_frontend_is_looked_for_in_the_bucket(
    state: State, found: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is one, and a release in it."""
    monkeypatch.setattr(releases, "look", lambda environment, name: {BUCKET: (None, state)}[name])

    assert rollback._frontend(settings.find("local"), "v1", "") == found
    assert rollback._frontend(settings.environment("dev"), "v1", "") == Frontend()


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
