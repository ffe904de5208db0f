"""What would be deployed, and the order of versions."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from msgspec import structs

from scripts import preview
from scripts.ecs import gates, order
from scripts.ecs.receipts import Receipt
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.summary import Links
from tests.conftest import EmbeddedCloud, Invoke, commands_clock, git
from tests.stand_in import Reply, stand_in
from tests.test_receipts import receipt


def commit(folder: Path, subject: str, name: str = "") -> str:
    """A commit on the branch that is checked out."""
    (folder / (name or subject)).parent.mkdir(parents=True, exist_ok=True)
    (folder / (name or subject)).write_text(subject)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", subject)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """main: first, second (a migration), third; a branch from second: side. By subject."""
    folder = tmp_path_factory.mktemp("template")
    git(folder, "init", "--quiet", "--initial-branch=main")
    made = {"folder": str(folder)}
    made["first"] = commit(folder, "first")
    made["second"] = commit(folder, "second (#12)", "migrations/V2__second.sql")
    git(folder, "switch", "--quiet", "--create", "side")
    made["side"] = commit(folder, "side")
    git(folder, "switch", "--quiet", "main")
    made["third"] = commit(folder, "third")
    return made


@pytest.fixture
def history(template: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A copy of the template."""
    return {**template, "folder": str(shutil.copytree(template["folder"], tmp_path / "repository"))}


@pytest.mark.parametrize(
    ("wanted", "running", "older"),
    [
        ("first", "third", True),
        ("second", "third", True),
        ("third", "first", False),
        ("third", "third", False),
        ("second", "side", False),
        ("side", "third", False),
        ("third", "side", False),
    ],
    ids=str,
)
def test_an_older_version_never_replaces_a_newer_one(
    wanted: str, running: str, *, older: bool, history: dict[str, str]
) -> None:
    """Of the main branch; it may replace what a pull request has deployed."""
    assert order.is_older(Path(history["folder"]), history[wanted], history[running], "main") is older


@pytest.mark.parametrize("running", ["v0", "HEAD", "", "f" * 40])
def test_what_is_no_commit_is_not_newer(running: str, history: dict[str, str]) -> None:
    """A name such as HEAD is a commit for git, but no answer may be one."""
    assert not order.is_older(Path(history["folder"]), history["first"], running, "main")


def test_where_the_main_branch_does_not_exist_the_default_branch_of_the_remote_counts(history: dict[str, str]) -> None:
    """As after a rename that the settings do not have yet."""
    folder = Path(history["folder"])
    assert order.tip(folder, "master") is None
    git(folder, "update-ref", "refs/remotes/origin/trunk", history["third"])
    git(folder, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")

    found = order.tip(folder, "master")

    assert found is not None
    assert found.sha == history["third"]


def test_the_check_refuses_an_older_version_and_says_how_to_go_back(
    history: dict[str, str], cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the healthcheck; where nothing says what runs, it goes on with a warning."""
    folder, wanted = Path(history["folder"]), history["first"]
    with stand_in(lambda *_: Reply(json.dumps({"version": history["third"]}).encode())) as site:
        env = structs.replace(settings.environment("local"), healthcheck=f"{site.url}/health")
        with pytest.raises(Refused, match=r"which is newer than .*invoke rollback --env=local --to="):
            order.check(env, folder, wanted)
        same = order.check(env, folder, history["third"])
        assert same
        assert same.line() == f"local runs {history['third'][:7]}, which is not newer"
        capsys.readouterr()
    assert order.check(env, folder, wanted) is None
    assert "it is not known whether local runs a newer version: its healthcheck does not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "kept", "expected"),
    [
        ("v2", [receipt("v1")], "v2"),
        (DeployError("no answer"), [receipt("v3", verdict="rolled back"), receipt("v1")], "v1"),
        (DeployError("no answer"), [receipt("v1", service="worker")], ""),
        (DeployError("no answer"), [], ""),
    ],
    ids=["its answer", "its newest good receipt", "another service's receipt", "nothing"],
)
def test_what_runs_is_what_answers_else_what_was_deployed_last(
    answers: str | DeployError, kept: list[Receipt], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint gets five seconds."""
    local = settings.environment("local")

    def ask(url: str, seconds: float) -> str:
        assert (url, seconds) == (local.healthcheck, 5.0)
        if isinstance(answers, DeployError):
            raise answers
        return answers

    monkeypatch.setattr(order.version, "ask", ask)
    monkeypatch.setattr(order.receipts, "read", lambda env, most: SimpleNamespace(receipts=kept[:most]))

    if expected:
        assert order.running(local) == expected
    else:
        with pytest.raises(DeployError, match=r"does not answer \(no answer\), and no receipt shows a good deployment"):
            order.running(local)


def test_commits_are_shown_with_author_and_pull_request(history: dict[str, str]) -> None:
    """The newest first."""
    folder = Path(history["folder"])

    shown = preview.commits(folder, history["first"], history["third"])

    assert [line.partition(" ")[2] for line in shown] == ["third (Test)", "second (#12) (Test)"]
    with pytest.raises(DeployError, match="no network"):
        preview.commits(folder, "", history["third"], "no network")
    section = preview.Section(preview.COMMITS_TITLE, tuple(shown))
    links = Links("", "https://github.com/a/b/commit/", commit="", images={}, console=False)
    page = preview.Preview("dev", "", "v1", "v0", (section,)).markdown(links)
    short = shown[1].partition(" ")[0]
    assert (
        f"- [{short}](https://github.com/a/b/commit/{short}) second &#40;[&#35;12](https://github.com/a/b/pull/12)&#41;"
        in page
    )


@pytest.mark.parametrize(
    ("most", "shown"),
    [(1, ["third (Test)", "… and more"]), (2, ["third (Test)", "second (#12) (Test)"])],
    ids=str,
)
def test_only_the_newest_commits_are_shown(
    most: int, shown: list[str], history: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is said if there are more."""
    monkeypatch.setattr(preview, "COMMITS", most)

    found = preview.commits(Path(history["folder"]), history["first"], history["third"])

    assert [re.sub("^[0-9a-f]{7,} ", "", line) for line in found] == shown


@pytest.mark.parametrize(
    ("running", "wanted", "expected"),
    [
        ("first", "third", ["migrations/V2__second.sql"]),
        ("third", "first", ["migrations/V2__second.sql"]),
        ("second", "third", []),
        ("", "third", DeployError("what runs is not a commit of this checkout")),
        ("v0", "third", DeployError("v0 is not a commit of this checkout")),
        ("f" * 40, "third", DeployError("f{40} is not a commit of this checkout")),
        ("first", "HEAD", DeployError("HEAD is not a commit of this checkout")),
    ],
    ids=str,
)
def test_the_migrations_between_two_versions_are_shown(
    running: str,
    wanted: str,
    expected: list[str] | DeployError,
    history: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the folder in the settings, if both versions are commits."""
    monkeypatch.setattr(preview, "ROOT", Path(history["folder"]))
    dev = settings.environment("dev")
    words = history.get(running, running), history.get(wanted, wanted)

    if isinstance(expected, DeployError):
        with pytest.raises(DeployError, match=str(expected)):
            preview.migrations(dev, *words)
    else:
        assert preview.migrations(dev, *words) == expected
    without = structs.replace(dev, migrations=structs.replace(dev.migrations, folder=""))
    assert preview.migrations(without, *words) == ["the settings have no migrations.folder"]


def test_the_report_of_a_preview() -> None:
    """A title stands beside the first line of its section; what runs is an output of the step."""
    sections = (preview.Section("commits", ("a", "b")), preview.Section("frontend", ("c",)))
    found = preview.Preview("dev", "https://x", "1" * 40, "2" * 40, sections)

    assert found.line() == "1111111 would be deployed to dev; it runs 2222222"
    assert structs.replace(found, running="").line() == "1111111 would be deployed to dev; what it runs is not known"
    assert found.outputs() == {"running": "2" * 40}
    assert found.table() == [("ABOUT", ""), ("commits", "a"), ("", "b"), ("frontend", "c")]
    page = found.markdown(Links("", "https://github.com/a/b/commit/", commit="", images={}, console=False))
    assert page.splitlines() == [
        "### 1111111 would be deployed to dev; it runs 2222222",
        *("", "#### commits", "", "- a", "- b"),
        *("", "#### frontend", "", "- c"),
    ]


@pytest.mark.parametrize(("wanted", "refused"), [("first", True), ("third", False)])
def test_a_preview_of_a_version_that_is_older_is_a_refusal(
    wanted: str, refused: bool, history: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is shown all the same."""
    local = settings.environment("local")
    found = preview.Preview("local", local.site, history[wanted], history["third"], ())
    asked: list[object] = []
    monkeypatch.setattr(preview, "ROOT", Path(history["folder"]))
    monkeypatch.setattr(preview, "look", lambda run, *given: asked.extend(given) or found)
    run = Run("preview", local)

    if refused:
        with pytest.raises(Refused, match=f"local runs {history['third'][:7]}, which is newer than "):
            preview.preview(run, tag=history[wanted], digest="d", build_dir="b")
    else:
        assert preview.preview(run, tag=history[wanted], digest="d", build_dir="b") is found

    assert asked == [history[wanted], "d", "b"]
    assert run.summary == found.markdown(run.links())


def test_what_cannot_be_read_is_said_in_its_place(
    cloud: EmbeddedCloud, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part by itself: here what runs is not known, the image does not exist, and the bucket cannot be read."""
    local = structs.replace(settings.environment("local"), healthcheck=f"{cloud.url}/nowhere")
    cloud.fail(service="s3", status=403, code="AccessDenied", times=99)
    cloud.fail(service="lambda", status=403, code="AccessDeniedException", times=99)

    found = preview.look(Run("preview", local), "1" * 40, None, str(build))

    told = {section.title: section.lines for section in found.sections}
    assert (found.environment, found.site, found.version, found.running) == ("local", local.site, "1" * 40, "")
    assert told["commits"][0].startswith("not known: S3 refused listing the bucket ")
    assert told["migrations"] == ("not known: what runs is not a commit of this checkout",)
    assert told["task definition"][0].startswith("refused: image: ")
    assert not [line for line in told["task definition"] if line.startswith("ok: ")]
    assert told["frontend"][0] == f"the build has 1 files ({(build / 'index.html').stat().st_size} bytes)"
    assert told["frontend"][1].startswith("the bucket cannot be read: S3 refused listing ")
    assert told["findings of the scan"][0].startswith("not known: ")
    assert told["before"] == ("there is no environment before it",)
    assert told["approvals of this run"][0].startswith("not known: GITHUB_TOKEN is not set")


@pytest.mark.parametrize(("number", "more"), [(30, []), (31, ["… and more"])])
def test_of_many_files_only_some_are_shown(number: int, more: list[str], cloud: EmbeddedCloud, build: Path) -> None:
    """The sum comes first."""
    for one in range(number - 1):
        (build / f"page{one}.html").write_text("<!doctype html>")

    total, *shown = preview.frontend(settings.environment("local"), "v1", str(build))

    assert re.match(rf"release \S+-v1 to local-mint-app-static: put {number} of {number} files ", total)
    assert shown[30:] == more
    assert all(line.startswith("put ") for line in shown[:30])


def test_the_findings_of_the_scan_are_counted_and_named(cloud: EmbeddedCloud) -> None:
    """With severity and package."""
    attributes = [{"key": "package_name", "value": "zlib"}]
    one = {"name": "CVE-1", "severity": "HIGH", "attributes": attributes}
    cloud.server.cloud.findings["mint-backend", "v0"] = {"status": "COMPLETE", "findings": [one]}

    assert preview.findings(settings.environment("local"), "v0") == [
        "mint-backend:v0 has 1 finding",
        "HIGH CVE-1 in zlib",
    ]


def test_a_scan_that_is_not_complete_is_not_waited_for(cloud: EmbeddedCloud) -> None:
    """A reviewer waits."""
    cloud.server.cloud.findings["mint-backend", "v0"] = {"status": "IN_PROGRESS"}
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with commands_clock(lambda: now, sleep), pytest.raises(DeployError, match=r"not complete after 1 s"):
        preview.findings(settings.environment("local"), "v0")

    assert now <= 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], ["none"]),
        (["a\n\x1bb", "c"], [r"a \x1bb", "c"]),
        (DeployError("gone\nsoon"), ["not known: gone soon"]),
    ],
)
def test_each_part_is_lines_of_text(lines: list[str] | DeployError, told: list[str]) -> None:
    """Also one that is empty, or that cannot be read."""

    def read() -> list[str]:
        if isinstance(lines, DeployError):
            raise lines
        return lines

    assert preview._told(read) == told


def test_what_would_change_is_that_of_the_wanted_image(cloud: EmbeddedCloud) -> None:
    """By its tag, or by the digest that was built. Somebody else's rollout would be refused."""
    (digest,) = cloud.push("v1", "mint-backend")
    run = Run("preview", settings.environment("local"))

    by_tag, by_digest = preview.changes(run, "v1", None), preview.changes(run, "v1", digest)
    cloud.client("ecs").update_service(cluster="local-mint-app", service="mint-app", forceNewDeployment=True)
    meanwhile = preview.changes(run, "v1", None)

    assert [line.rpartition("/")[2] for line in by_tag if "mint-backend:v0 ->" in line] == ["mint-backend:v1"]
    assert [line.rpartition("/")[2] for line in by_digest if "mint-backend:v0 ->" in line] == [f"mint-backend@{digest}"]
    assert [line for line in by_tag + by_digest if line.startswith("refused: ")] == []
    assert [line.split(": ")[:2] for line in meanwhile if line.startswith("refused: ")] == [["refused", "rollout"]]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("dev", ["there is no environment before it"]),
        ("impl", [f"2023-11-14 22:13 UTC dev: deploy v{n} by octocat: succeeded" for n in (7, 6, 5, 4, 3)]),
    ],
)
def test_the_last_deployments_to_the_environment_before_are_shown(
    env: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its receipts. Its other settings need not be known."""
    text, head = (settings.ROOT / "environments.toml").read_text(), "[environments.dev]\nsite = "
    (tmp_path / "settings.toml").write_text(text.replace(head, f'{head}"https://${{HOST_OF_DEV}}" # '))
    kept = [receipt(f"v{n}", actor="octocat") for n in range(7, 0, -1)]
    monkeypatch.setattr(
        preview.receipts, "read", lambda env, most: SimpleNamespace(receipts={"dev": kept}[env.name][:most])
    )

    environment = settings.environment(env)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(tmp_path / "settings.toml"))

    assert preview.before(environment) == expected


def test_a_preview_of_the_embedded_environment_reads_everything(
    invoke: Invoke, cloud: EmbeddedCloud, build: Path, tmp_path: Path
) -> None:
    """It shows what changes in the task definition, the files, and the findings, and changes nothing."""
    (digest,) = cloud.push("1" * 40, "mint-backend")
    summary = tmp_path / "summary"
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(tmp_path / "output")}
    before = len(cloud.requests("s3", "PutObject"))

    done = invoke(
        "preview",
        "--env=local",
        f"--tag={'1' * 40}",
        f"--digest={digest}",
        f"--build-dir={build}",
        **cloud.env,
        **actions,
    )

    assert done.returncode == 0, done.stderr
    page = summary.read_text()
    for part in (
        "commits",
        "migrations",
        "task definition",
        "frontend",
        "findings of the scan",
        "before",
        "gate",
        "approvals",
    ):
        assert f"#### {part}" in page
    assert "put 1 of 1 files" in page
    assert "mint-backend" in page
    assert f"site={cloud.url}\n" in (tmp_path / "output").read_text()
    assert len(cloud.requests("s3", "PutObject")) == before
    assert cloud.requests("ecs", "RegisterTaskDefinition") == []


def test_who_approved_what_is_read_from_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the workflow's token; what GitHub refuses is said."""
    reviews = [
        {"state": "approved", "user": {"login": "octocat"}, "environments": [{"name": "impl_gate"}], "comment": "ok"}
    ]
    for name, value in {"REPOSITORY": "a/b", "RUN_ID": "7", "TOKEN": "token"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    with stand_in(lambda *_: Reply(json.dumps(reviews).encode())) as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        assert preview.approvals() == ["octocat approved impl_gate: ok"]
    assert api.requests[0]["path"] == "/repos/a/b/actions/runs/7/approvals"
    assert api.requests[0]["headers"]["Authorization"] == "Bearer token"
    with stand_in(lambda *_: Reply(b"{}", status=403)) as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        with pytest.raises(DeployError, match="HTTP status 403"):
            preview.approvals()
        for name in ("REPOSITORY", "RUN_ID", "TOKEN"):
            with monkeypatch.context() as without:
                without.delenv(f"GITHUB_{name}")
                with pytest.raises(DeployError, match="GITHUB_TOKEN is not set, or this is no run of a workflow"):
                    preview.approvals()
    assert len(api.requests) == 1


APPROVED = {"state": "approved", "user": {"login": "a"}}


@pytest.mark.parametrize(
    ("review", "line"),
    [
        ({**APPROVED, "state": "rejected", "environments": []}, "a rejected "),
        ({**APPROVED, "environments": [{"name": "x"}]}, "a approved x"),
        ({**APPROVED, "environments": [{"name": "x"}, {"name": "y"}], "comment": "c"}, "a approved x, y: c"),
        (APPROVED, "a approved "),
    ],
)
def test_a_review_is_one_line(review: dict[str, object], line: str) -> None:
    """A comment may be missing."""
    assert msgspec.convert(review, preview.Review).line() == line


REVIEWERS = {"type": "required_reviewers", "reviewers": [{"type": "User", "reviewer": {"login": "octocat"}}]}
REVIEWERS["reviewers"] += [{"type": "Team", "reviewer": {"slug": "leads", "name": "Leads"}}]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("env", "known", "expected"),
    [
        ("prod", {"prod_gate": [REVIEWERS]}, ["ok: prod_gate waits for octocat or leads"]),
        ("prod", {"prod": [{"type": "wait_timer"}, REVIEWERS]}, ["ok: prod waits for octocat or leads"]),
        ("prod", {}, ["warning: prod_gate has no reviewers on GitHub, so nobody has to approve a deployment"]),
        ("impl", {"impl_gate": [{"type": "branch_policy"}]}, ["warning: impl_gate has no reviewers on GitHub"]),
        ("impl", None, ["warning: the reviewers of impl_gate cannot be read: GitHub answered with HTTP status 403"]),
        ("dev", {}, []),
        ("local", {}, []),
    ],
    ids=["gate", "environment", "neither exists", "no reviewers", "may not ask", "the first", "embedded"],
)
def test_a_gate_without_reviewers_is_noticed(
    env: str, known: dict[str, object] | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub creates what a workflow names without any protection."""

    def answer(_: str, path: str) -> Reply:
        rules = (known or {}).get(path.rpartition("/")[2])
        return Reply(
            json.dumps({"protection_rules": rules or []}).encode(), 403 if known is None else 200 if rules else 404
        )

    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    assert list(gates.check(settings.environment(env, dry_run=True))) == []
    monkeypatch.setenv("GITHUB_TOKEN", "token")
    with stand_in(answer) as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        found = [f"{one.result}: {one.text}" for one in gates.check(settings.environment(env, dry_run=True))]

    assert [one.startswith(start) for one, start in zip(found, expected, strict=True)] == [True] * len(expected)
    assert all(request["path"].startswith("/repos/a/b/environments/") for request in api.requests)
    assert all(request["headers"]["Authorization"] == "Bearer token" for request in api.requests)
