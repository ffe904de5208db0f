"""`invoke revert` on real repositories with a bare remote, and a stand-in for GitHub's API."""

import html
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import revert as command
from scripts.edges import git as edge
from scripts.frame.errors import OutcomeUnknown, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.settings import environment as environment_of
from scripts.revert import Branch, Revert, faults
from tests.conftest import ROOT, Invoke, git
from tests.stand_in import Reply, StandIn, stand_in
from tests.test_revert_plan import OBSERVED


@dataclass
class Checkout:
    """A clone of a bare remote, whose main has a merge commit and a squashed commit."""

    folder: Path
    remote: Path
    merge: str
    squash: str

    def state(self) -> tuple[str, str, str, str]:
        """What must not change: branches (local and remote), worktrees, and uncommitted changes."""
        return (
            git(self.folder, "branch", "--list"),
            git(self.remote, "branch", "--list"),
            git(self.folder, "worktree", "list"),
            git(self.folder, "status", "--porcelain"),
        )


def write(folder: Path, name: str, text: str, message: str) -> None:
    """Commit a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", message)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository whose main has a first commit, a merged branch with a migration, and a squashed change."""
    parent = tmp_path_factory.mktemp("template")
    remote, folder = parent / "remote.git", parent / "checkout"
    git(parent, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
    git(parent, "clone", "--quiet", str(remote), str(folder))
    git(folder, "switch", "--quiet", "-c", "main")
    write(folder, "page.txt", "one\n", "Begin")
    git(folder, "switch", "--quiet", "-c", "feature")
    write(folder, "migrations/V1__plan.sql", "CREATE TABLE plan;\n", "Add a table")
    write(folder, "feature.txt", "feature\n", "Add the feature")
    git(folder, "switch", "--quiet", "main")
    git(folder, "merge", "--quiet", "--no-ff", "feature", "-m", "Merge pull request #12 from owner/feature")
    merge = git(folder, "rev-parse", "HEAD")
    write(folder, "page.txt", "two\n", "Change the page (#13)")
    squash = git(folder, "rev-parse", "HEAD")
    git(folder, "push", "--quiet", "origin", "main")
    # Uncommitted changes.
    (folder / "page.txt").write_text("unfinished\n")
    (folder / "new.txt").write_text("new\n")
    return Checkout(folder, remote, merge, squash)


@pytest.fixture
def checkout(template: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the template."""
    remote = Path(shutil.copytree(template.remote, tmp_path / "remote.git"))
    folder = Path(shutil.copytree(template.folder, tmp_path / "checkout"))
    configuration = folder / ".git" / "config"
    configuration.write_text(configuration.read_text().replace(str(template.remote), str(remote)))
    return Checkout(folder, remote, template.merge, template.squash)


def hook(repository: Path, name: str, script: str) -> Path:
    """Let git run a script of the shell there."""
    folder = Path(git(repository, "rev-parse", "--absolute-git-dir"), "hooks")
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def somebody_pushes(checkout: Checkout, name: str, text: str, message: str) -> None:
    """Push a commit to main from another clone."""
    other = checkout.folder.with_name("other")
    git(other.parent, "clone", "--quiet", str(checkout.remote), str(other))
    write(other, name, text, message)
    git(other, "push", "--quiet", "origin", "main")


@pytest.fixture
def api() -> Iterator[StandIn]:
    """GitHub's API, which opens every pull request."""
    opened = Reply(b'{"html_url": "https://github.com/owner/app/pull/99"}', 201)
    with stand_in(lambda *_: opened) as server:
        yield server


def settings(checkout: Checkout, **sites: str) -> str:
    """A settings file with other sites."""
    path = checkout.folder.parent / "settings.toml"
    text = (ROOT / "environments.toml").read_text()
    # No real healthcheck is requested: nothing listens on port 9.
    for site in (
        "https://dev.mint.cms.gov",
        "https://impl.mint.cms.gov",
        "https://mint.cms.gov",
        "http://127.0.0.1:4566",
    ):
        text = text.replace(f'"{site}"', f'"{sites.get(site, "http://127.0.0.1:9")}"')
    path.write_text(text)
    return str(path)


def revert(
    invoke: Invoke, checkout: Checkout, *words: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """`invoke revert` in the checkout or another folder. env: variables, and sites by their URL in the settings."""
    sites = {name: value for name, value in env.items() if name.startswith("http")}
    variables = {name: value for name, value in env.items() if name not in sites}
    where = {"ENVIRONMENTS_FILE": settings(checkout, **sites), "GITHUB_REPOSITORY": "owner/app"}
    return invoke(f"--search-root={ROOT}", "revert", *words, cwd=cwd or checkout.folder, **{**where, **variables})


def token(api: StandIn) -> dict[str, str]:
    """The variables with which a pull request is opened."""
    return {"GITHUB_TOKEN": "github_pat_x", "GITHUB_API_URL": api.url}


def test_a_squashed_commit_is_reverted_pushed_and_gets_a_pull_request(
    checkout: Checkout, api: StandIn, invoke: Invoke
) -> None:
    """By default the newest commit of main. Uncommitted changes are not touched, and are no obstacle."""
    before = checkout.state()

    done = revert(invoke, checkout, **token(api))

    branch = f"revert-{checkout.squash[:7]}"
    assert done.returncode == 0, done.stderr
    assert git(checkout.remote, "show", f"{branch}:page.txt") == "one"
    assert git(checkout.remote, "log", "-1", "--format=%s", branch) == 'Revert "Change the page (#13)"'
    assert git(checkout.remote, "rev-parse", f"{branch}~1") == checkout.squash
    (request,) = api.requests
    assert request["path"] == "/repos/owner/app/pulls"
    posted = json.loads(request["body"])
    assert posted["title"] == 'Revert "Change the page (#13)"'
    assert (posted["head"], posted["base"]) == (branch, "main")
    assert checkout.squash in posted["body"]
    assert "It came with #13." in posted["body"]
    assert "no environment that answers" in posted["body"]
    assert "https://github.com/owner/app/pull/99" in done.stderr.splitlines()[-1]
    assert checkout.state()[2:] == before[2:]


def test_a_merge_commit_is_reverted_against_its_first_parent(checkout: Checkout, api: StandIn, invoke: Invoke) -> None:
    """The pull request lists its migrations, which a revert does not undo."""
    done = revert(invoke, checkout, f"--commit={checkout.merge[:8]}", **token(api))

    branch = f"revert-{checkout.merge[:7]}"
    assert done.returncode == 0, done.stderr
    files = git(checkout.remote, "ls-tree", "-r", "--name-only", branch).splitlines()
    assert files == ["page.txt"]
    posted = json.loads(api.requests[0]["body"])
    assert "It came with #12." in posted["body"]
    assert "- migrations/V1&#95;&#95;plan.sql" in posted["body"]
    assert "does not undo" in posted["body"]


def test_the_commit_that_an_environment_runs_is_reverted(checkout: Checkout, api: StandIn, invoke: Invoke) -> None:
    """By its healthcheck. The pull request says which environments run it."""
    health = Reply(json.dumps({"version": checkout.merge}).encode())
    with stand_in(lambda *_: health) as site:
        done = revert(invoke, checkout, "--env=impl", **token(api), **{"https://impl.mint.cms.gov": site.url})

    assert done.returncode == 0, done.stderr
    posted = json.loads(api.requests[0]["body"])
    assert posted["head"] == f"revert-{checkout.merge[:7]}"
    assert "Running it now: impl." in posted["body"]


def test_it_fetches_the_newest_commit_first(checkout: Checkout, api: StandIn, invoke: Invoke) -> None:
    somebody_pushes(checkout, "late.txt", "late\n", "Come late")

    done = revert(invoke, checkout, **token(api))

    assert done.returncode == 0, done.stderr
    assert json.loads(api.requests[0]["body"])["title"] == 'Revert "Come late"'


def test_without_a_token_it_prints_the_link_to_open_a_pull_request(checkout: Checkout, invoke: Invoke) -> None:
    """The branch is pushed."""
    done = revert(invoke, checkout)

    branch = f"revert-{checkout.squash[:7]}"
    assert done.returncode == 0, done.stderr
    assert f"https://github.com/owner/app/compare/main...{branch}?expand=1" in done.stderr
    assert branch in git(checkout.remote, "branch", "--list")


@pytest.mark.parametrize(("words", "pushed"), [(["--no-pr"], True), (["--no-push"], False)])
def test_no_pr_only_pushes_and_no_push_only_creates_the_branch(
    checkout: Checkout, api: StandIn, invoke: Invoke, words: list[str], pushed: bool
) -> None:
    done = revert(invoke, checkout, *words, **token(api))

    branch = f"revert-{checkout.squash[:7]}"
    assert done.returncode == 0, done.stderr
    assert api.requests == []
    assert branch in git(checkout.folder, "branch", "--list")
    assert (branch in git(checkout.remote, "branch", "--list")) is pushed


def test_a_dry_run_shows_commands_and_text_and_changes_nothing(
    checkout: Checkout, api: StandIn, invoke: Invoke
) -> None:
    """If the remote cannot be reached, it says that the newest commits could not be read."""
    before = checkout.state()
    git(checkout.folder, "remote", "set-url", "origin", "/nowhere")

    done = revert(invoke, checkout, "--dry-run", f"--commit={checkout.merge}", **token(api))

    assert done.returncode == 0, done.stderr
    assert f"git revert --no-edit -m 1 {checkout.merge}" in done.stderr
    assert f"would post to {api.url}/repos/owner/app/pulls" in done.stderr
    assert "could not read the newest commits" in done.stderr
    assert api.requests == []
    assert checkout.state() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--commit=0123456"], "'0123456' is not a commit of this repository"),
        (["--commit="], "'' is not a commit of this repository"),
        (["--commit=--output=x"], "is not a commit of this repository"),
        (["--base=nowhere"], "There is no branch 'nowhere' on origin"),
        (["--base="], "There is no branch '' on origin"),
        (["--base=main~1"], "There is no branch 'main~1' on origin"),
        (["--commit=main~1..main"], "'main~1..main' is not a commit of this repository"),
        (["--env=dev"], "The healthcheck of dev returns no version"),
        (["--env=staging"], "'staging' is not an environment"),
    ],
)
def test_unknown_commits_branches_and_environments_are_refused(
    checkout: Checkout, invoke: Invoke, words: list[str], said: str
) -> None:
    """Exit code 2, and nothing is left over."""
    before = checkout.state()

    done = revert(invoke, checkout, *words)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert checkout.state() == before


def test_a_folder_outside_a_repository_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(f"--search-root={ROOT}", "revert", cwd=tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))

    assert done.returncode == 2
    assert "is not in a git repository" in done.stderr


def test_a_commit_that_is_not_on_main_is_refused(checkout: Checkout, invoke: Invoke) -> None:
    """There is nothing to revert on main."""
    git(checkout.folder, "stash", "--quiet")
    git(checkout.folder, "switch", "--quiet", "-c", "aside")
    write(checkout.folder, "aside.txt", "aside\n", "Go aside")
    before = checkout.state()

    done = revert(invoke, checkout, "--commit=aside")

    assert done.returncode == 2
    assert "(Go aside) is not on main" in done.stderr
    assert checkout.state() == before


def test_a_commit_that_is_already_reverted_is_refused(checkout: Checkout, invoke: Invoke, tmp_path: Path) -> None:
    """Once the revert is reverted, the commit can be reverted again."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(checkout.remote), str(other))
    git(other, "revert", "--no-edit", checkout.squash)
    git(other, "push", "--quiet", "origin", "main")
    before = checkout.state()

    done = revert(invoke, checkout, f"--commit={checkout.squash}")
    assert done.returncode == 2
    assert "is already reverted on main" in done.stderr
    assert checkout.state() == before

    undoing = git(other, "rev-parse", "HEAD")
    done = revert(invoke, checkout, f"--commit={undoing}")
    assert done.returncode == 0, done.stderr
    git(other, "pull", "--quiet", "--no-rebase", "origin", f"revert-{undoing[:7]}")
    assert git(other, "show", "HEAD:page.txt") == "two"
    git(other, "push", "--quiet", "origin", "main")
    assert revert(invoke, checkout, f"--commit={checkout.squash}").returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("page.txt", "one\n", "A revert of {sha} changes nothing on main: it is already undone."),
        (
            "page.txt",
            "three\n",
            "{sha} cannot be reverted by itself: later commits changed the same lines of page.txt. Nothing was",
        ),
    ],
    ids=["undone by hand", "changed again"],
)
def test_a_revert_that_git_cannot_make_is_refused(name: str, text: str, said: str, checkout: Checkout) -> None:
    """With the files, and the commands with which a person does it. Nothing is left over."""
    somebody_pushes(checkout, name, text, "Change it again")
    command.fetch(checkout.folder)
    before = checkout.state()

    with pytest.raises(Refused) as refused:
        command.act(planned(checkout))

    assert str(refused.value).startswith(said.format(sha=checkout.squash[:7]))
    assert ("git revert --continue" in str(refused.value)) is ("by itself" in said)
    assert checkout.state() == before


def test_a_rejected_push_leaves_nothing_behind(checkout: Checkout, invoke: Invoke) -> None:
    """The message has the remote's reason."""
    hook(checkout.remote, "pre-receive", "echo branches are protected >&2; exit 1")
    before = checkout.state()

    done = revert(invoke, checkout)

    assert done.returncode == 2
    assert "was rejected" in done.stderr
    assert "branches are protected" in done.stderr
    assert checkout.state() == before


@pytest.mark.parametrize("where", ["here", "on origin"])
def test_a_branch_that_exists_is_refused(checkout: Checkout, invoke: Invoke, where: str) -> None:
    """Somebody else's revert is in progress, and is not touched."""
    branch = f"revert-{checkout.squash[:7]}"
    git(checkout.folder if where == "here" else checkout.remote, "branch", branch, "main")
    before = checkout.state()

    done = revert(invoke, checkout)

    assert done.returncode == 2
    assert f"The branch {branch} exists {where}" in done.stderr
    assert checkout.state() == before


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Reply(b'{"message": "Validation Failed", "errors": [{"message": "No commits between"}]}', 422),
            "HTTP 422: Validation Failed: No commits between",
        ),
        (Reply(b'{"message": "Moved"}', 307, {"Location": "http://localhost:9/"}), "HTTP 307: Moved"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pull_request_that_github_refuses_leaves_nothing_behind(
    checkout: Checkout, invoke: Invoke, reply: Reply, said: str
) -> None:
    """The branch is deleted again, locally and on the remote. The token is sent to no other host."""
    before = checkout.state()
    with stand_in(lambda *_: reply) as api:
        done = revert(invoke, checkout, **token(api))

    assert done.returncode == 2
    assert said in done.stderr
    assert "was removed again" in done.stderr
    assert checkout.state() == before
    assert len(api.requests) == 1


def test_an_unreachable_github_leaves_nothing_behind(checkout: Checkout, invoke: Invoke) -> None:
    """Nothing was sent, so no pull request can be open."""
    before = checkout.state()

    done = revert(invoke, checkout, GITHUB_TOKEN="github_pat_x", GITHUB_API_URL="http://127.0.0.1:9")

    assert done.returncode == 2
    assert "GitHub cannot be reached for the pull request: Connection refused" in done.stderr
    assert checkout.state() == before


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", drop=True),
        Reply(b"<html>", 502),
        Reply(b"{}", 201),
    ],
    ids=lambda reply: f"{reply.status} {reply.body!r}",
)
def test_a_pull_request_that_may_be_open_keeps_its_branch(checkout: Checkout, invoke: Invoke, reply: Reply) -> None:
    """The outcome is unknown (exit code 3). Without the branch GitHub would close the pull request."""
    with stand_in(lambda *_: reply) as api:
        done = revert(invoke, checkout, **token(api))

    branch = f"revert-{checkout.squash[:7]}"
    assert done.returncode == 3, done.stderr
    assert f"the branch {branch} stays" in done.stderr
    assert "Traceback" not in done.stderr
    assert branch in git(checkout.remote, "branch", "--list")
    assert branch in git(checkout.folder, "branch", "--list")


def test_a_push_whose_response_is_lost_is_undone(checkout: Checkout, invoke: Invoke) -> None:
    """The remote accepted the branch, then the connection broke: the branch is deleted again, with exit code 3."""
    receiver = 'kill -9 "$(ps -o ppid= -p "$PPID" | tr -d " ")"'
    hook(checkout.remote, "post-update", f"[ -e cut ] || {{ touch cut; {receiver}; }}")
    before = checkout.state()

    done = revert(invoke, checkout)

    assert done.returncode == 3, done.stderr
    assert "origin may have it: check there" in done.stderr
    assert checkout.state() == before


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"GITHUB_API_URL": "http://example.org"}, "GITHUB_API_URL must begin with https://"),
        ({"GITHUB_API_URL": "http://[::1"}, "is not GITHUB_API_URL"),
        ({"GITHUB_TOKEN": "hid\nden"}, "GITHUB_TOKEN is not a token"),
        ({"GITHUB_TOKEN": "hiddén"}, "GITHUB_TOKEN is not a token"),
        ({"GITHUB_REPOSITORY": "owner/app/../x"}, "is not a repository on GitHub"),
        ({"GITHUB_REPOSITORY": ""}, "is not known from the URL of origin"),
    ],
)
def test_an_invalid_token_repository_or_api_url_is_refused(
    checkout: Checkout, invoke: Invoke, variables: dict[str, str], said: str
) -> None:
    """Before anything is changed, and without showing the token."""
    before = checkout.state()

    done = revert(invoke, checkout, **{"GITHUB_TOKEN": "hidden", **variables})

    assert done.returncode == 2
    assert said in done.stderr
    assert "hid" not in done.stderr
    assert checkout.state() == before


def test_the_token_is_masked_before_anything_else(checkout: Checkout, api: StandIn, invoke: Invoke) -> None:
    """In Actions. It is never shown."""
    done = revert(invoke, checkout, **{**token(api), "GITHUB_TOKEN": "hidden"}, GITHUB_ACTIONS="true")

    assert done.returncode == 0, done.stderr
    assert {line for line in done.stderr.splitlines() if "hidden" in line} == {"::add-mask::hidden"}
    assert "hidden" not in done.stdout


def test_the_password_in_a_remotes_url_is_not_shown(checkout: Checkout, invoke: Invoke) -> None:
    """git's own error message contains the URL."""
    git(checkout.folder, "remote", "set-url", "origin", "http://user:hidden@127.0.0.1:9/owner/app.git")

    done = revert(invoke, checkout)

    assert done.returncode == 1
    assert "http://127.0.0.1:9/owner/app.git" in done.stderr
    assert "hidden" not in done.stderr


def test_text_of_a_commit_is_escaped_in_the_pull_request(
    checkout: Checkout, api: StandIn, invoke: Invoke, tmp_path: Path
) -> None:
    """It makes no mention, link, picture or "closes #1", neither in the subject nor in file names."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(checkout.remote), str(other))
    write(other, "migrations/`x` @all <b>\n# ü.sql", "x", "@all closes #1 ![x](https://example.org) <img> ::error::")
    git(other, "push", "--quiet", "origin", "main")

    done = revert(invoke, checkout, **token(api), GITHUB_ACTIONS="true")

    assert done.returncode == 0, done.stderr
    posted = json.loads(api.requests[0]["body"])
    assert not set("@`<>[]!") & set(posted["body"])
    assert "closes #1" not in posted["body"]
    shown = html.unescape(posted["body"]).replace("\u200b", "").splitlines()
    assert "@all closes #1 ![x](https://example.org) <img>" in shown[0]
    assert shown[-1] == "- migrations/`x` @all <b> # ü.sql"
    assert not [line for line in done.stderr.splitlines() if line.startswith("::error")]


def test_a_missing_identity_is_refused_with_gits_message(
    checkout: Checkout, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to configure."""
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{who}_{what}")
    git(checkout.folder, "config", "user.useConfigOnly", "true")
    before = checkout.state()

    done = revert(invoke, checkout)

    assert done.returncode == 2
    assert "user.email" in done.stderr
    assert checkout.state() == before


@pytest.fixture
def dev() -> Environment:
    """The settings of dev."""
    return environment_of("dev", dry_run=True)


@pytest.mark.parametrize(
    ("commit", "answers", "of_environment", "expected"),
    [
        (None, {}, "", {"why": "the newest on main"}),
        (None, {"dev": "squash", "impl": "merge", "prod": "squash"}, "", {"running": ("dev", "prod")}),
        ("merge", {"impl": "merge"}, "", {"commit": "merge", "why": "from --commit", "running": ("impl",)}),
        (None, {"impl": "merge"}, "impl", {"commit": "merge", "why": "which impl runs", "running": ("impl",)}),
    ],
)
def test_what_is_observed_of_a_commit(
    commit: str | None,
    answers: dict[str, str],
    of_environment: str,
    expected: dict[str, Any],
    checkout: Checkout,
    dev: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its migrations too. answers: which commit each environment runs."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/app")
    running = {name: getattr(checkout, which) for name, which in answers.items()}
    given = getattr(checkout, commit)[:8] if commit else None

    found = command.observe(
        dev, checkout.folder, commit=given, base=None, running=running, of_environment=of_environment
    )

    which = expected.get("commit", "squash")
    named = edge.commit(checkout.folder, getattr(checkout, which))
    assert named
    migrations = ("migrations/V1__plan.sql",) if which == "merge" else ()
    plain = replace(OBSERVED, folder=str(checkout.folder), migrations=migrations, why="the newest on main")
    assert found == replace(plain, **{**expected, "commit": named})


@pytest.mark.parametrize(
    ("folder", "migrations"),
    [("migrations/", ("migrations/V2.sql",)), ("elsewhere/", ()), ("", ())],
    ids=["the folder", "another one", "none"],
)
def test_migrations_that_a_commit_leaves_are_those_in_the_folder_of_the_settings(
    folder: str, migrations: tuple[str, ...], checkout: Checkout, dev: Environment
) -> None:
    """One that it removed is none of them."""
    git(checkout.folder, "rm", "--quiet", "migrations/V1__plan.sql")
    (checkout.folder / "src").mkdir()
    (checkout.folder / "src/migrations").write_text("x")
    git(checkout.folder, "add", "src")
    write(checkout.folder, "migrations/V2.sql", "ALTER TABLE plan;\n", "Change the table")
    env = replace(dev, migrations=replace(dev.migrations, folder=folder))

    assert command.observe(env, checkout.folder, commit="HEAD", base=None, running={}).migrations == migrations


@pytest.mark.parametrize(
    ("variable", "url", "repository"),
    [
        ("owner/app", "git@github.com:other/name.git", "owner/app"),
        ("", "git@github.com:other/name.git", "other/name"),
        ("", "/srv/name.git", ""),
    ],
)
def test_the_repository_on_github_is_that_of_the_variable_or_of_the_remote(
    variable: str,
    url: str,
    repository: str,
    checkout: Checkout,
    dev: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", variable)
    git(checkout.folder, "remote", "set-url", "origin", url)

    assert command.observe(dev, checkout.folder, commit=None, base=None, running={}).repository == repository


@pytest.mark.parametrize(
    ("flags", "origin", "expected"),
    [
        ({}, "", ("squash", True, True)),
        ({"no_pr": True}, "", ("squash", True, False)),
        ({"no_push": True}, "", ("squash", False, False)),
        ({"commit": "origin/main~1"}, "", ("merge", True, True)),
        ({}, "--env", ("merge", True, True)),
        ({"commit": "origin/main", "base": "main"}, "--env", ("squash", True, True)),
    ],
)
def test_what_is_reverted_follows_from_the_flags(
    flags: dict[str, Any],
    origin: str,
    expected: tuple[str, bool, bool],
    checkout: Checkout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An environment counts only if it was asked for: dev runs the merge commit here, the others what is no commit."""
    answers = {"/dev/api/v1/healthcheck": checkout.merge}
    health = {path: Reply(json.dumps({"version": version}).encode()) for path, version in answers.items()}
    with stand_in(lambda _, path: health.get(path, Reply(b'{"version": "v1"}'))) as server:
        names = {"https://dev.mint.cms.gov": "dev", "https://impl.mint.cms.gov": "impl", "https://mint.cms.gov": "prod"}
        sites = {site: f"{server.url}/{name}" for site, name in names.items()}
        file = settings(checkout, **sites, **{"http://127.0.0.1:4566": server.url})
        for name, value in {"ENVIRONMENTS_FILE": file, "GITHUB_REPOSITORY": "owner/app", "GITHUB_TOKEN": "t"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(checkout.folder / ".git/..")
        run = Run("revert", environment_of("dev", origin, dry_run=True), dry_run=True)
        assert command.revert(run, **flags) is None

    (step,) = run.steps
    plan = step.plan
    assert isinstance(plan, Revert)
    which, push, opens = expected
    assert (plan.commit.sha, plan.push, bool(plan.api)) == (getattr(checkout, which), push, opens)
    assert f"Running it now: {'dev' if which == 'merge' else 'no environment that answers'}." in plan.body


@pytest.mark.parametrize("depth", [1, 0], ids=["shallow", "whole"])
def test_the_whole_history_is_fetched(depth: int, checkout: Checkout, tmp_path: Path) -> None:
    """With what is new on the remote, and without the branches that are gone there."""
    git(checkout.remote, "branch", "gone", "main")
    folder = tmp_path / "clone"
    words = [f"--depth={depth}", "--no-single-branch"] if depth else []
    git(tmp_path, "clone", "--quiet", *words, checkout.remote.as_uri(), str(folder))
    git(checkout.remote, "branch", "-D", "gone")
    git(checkout.remote, "branch", "new", "main")

    command.fetch(folder)

    branches = git(folder, "branch", "--remotes", "--format=%(refname)").splitlines()
    assert {"refs/remotes/origin/main", "refs/remotes/origin/new"} == {*branches} - {"refs/remotes/origin/HEAD"}
    assert git(folder, "rev-list", "--count", "origin/main") == git(checkout.remote, "rev-list", "--count", "main")


def test_the_first_commit_of_all_added_everything_that_it_has(checkout: Checkout) -> None:
    """It has no parent to be compared with."""
    first = edge.commit(checkout.folder, "main~2")
    assert first
    assert first.parents == ()

    undone = command._undone(checkout.folder, first)

    assert {path: before for path, (before, _) in undone.items()} == {"page.txt": GONE}


def planned(checkout: Checkout, **changes: Any) -> Revert:
    """The revert of the newest commit, without a pull request."""
    found = edge.commit(checkout.folder, changes.pop("commit", checkout.squash))
    assert found
    observed = replace(OBSERVED, folder=str(checkout.folder), commit=found)
    return replace(command.plan(observed), **changes)


@pytest.mark.parametrize("push", [True, False])
def test_the_result_is_the_branch_with_the_revert(checkout: Checkout, push: bool) -> None:
    """The checkout stays as it is, and no worktree is left over."""
    before = checkout.state()
    plan = planned(checkout, push=push)

    done = command.act(plan)

    assert done == command.Reverted(checkout.squash, plan.branch, push, plan.compare if push else "")
    for where, there in ((checkout.folder, True), (checkout.remote, push)):
        assert (plan.branch in git(where, "branch", "--list")) is there
    assert git(checkout.folder, "show", f"{plan.branch}:page.txt") == "one"
    assert checkout.state()[2:] == before[2:]


@pytest.mark.parametrize(
    ("stays", "pushed", "moved", "left"),
    [
        (True, True, False, (True, True)),
        (False, False, False, (False, True)),
        (False, True, False, (False, False)),
        (False, True, True, (False, True)),
    ],
    ids=["stays", "was not pushed", "was pushed", "somebody has changed it since"],
)
def test_a_branch_is_taken_back_unless_it_stays(
    stays: bool, pushed: bool, moved: bool, left: tuple[bool, bool], checkout: Checkout
) -> None:
    """Here, and on the remote as long as it is the one that was pushed. left: where it is then."""
    git(checkout.folder, "branch", "mine", "main")
    git(checkout.folder, "push", "--quiet", "origin", "mine")
    if moved:
        git(checkout.remote, "branch", "--force", "mine", checkout.merge)

    Branch(checkout.folder, "mine", checkout.squash if pushed else "", stays).take_back()

    assert tuple("mine" in git(where, "branch", "--list") for where in (checkout.folder, checkout.remote)) == left


@pytest.mark.parametrize(
    ("script", "url", "error", "said"),
    [
        ("exit 0", "", None, ""),
        ("echo not today >&2; exit 1", "", Refused, "The push of mine was rejected: remote: not today"),
        ("exit 0", "/nowhere.git", OutcomeUnknown, "The push of mine failed, but origin may have it: check there. "),
    ],
    ids=["accepted", "rejected", "not known"],
)
def test_a_push_that_fails_is_looked_up_on_the_remote(
    script: str, url: str, error: type[Exception] | None, said: str, checkout: Checkout
) -> None:
    """It was rejected only if the remote says that it has no such branch."""
    hook(checkout.remote, "pre-receive", script)
    git(checkout.folder, "branch", "mine", "main")
    if url:
        git(checkout.folder, "remote", "set-url", "origin", url)
    branch, plan = Branch(checkout.folder, "mine"), planned(checkout, branch="mine")

    if error:
        with pytest.raises(error) as raised:
            command._push(checkout.folder, plan, branch)
        assert str(raised.value).startswith(said)
    else:
        command._push(checkout.folder, plan, branch)

    assert branch.pushed == checkout.squash


def test_a_revert_that_is_not_the_next_commit_of_the_base_is_not_pushed(checkout: Checkout) -> None:
    """For example, none at all."""
    with pytest.raises(Refused, match=f"The revert of {checkout.squash[:7]} is not one commit on main. Nothing was"):
        command._check(checkout.folder, planned(checkout))


@pytest.mark.parametrize(("number", "names"), [(10, "f0, f1, f2, f3, f4, f5, f6, f7, f8, page.txt"), (11, "f9 …")])
def test_the_first_files_that_a_revert_leaves_wrong_are_named(number: int, names: str, checkout: Checkout) -> None:
    """All of them are in the commands with which a person does it."""
    for count in range(number - 1):
        (checkout.folder / f"f{count}").write_text("x")
        git(checkout.folder, "add", f"f{count}")
    git(checkout.folder, "commit", "--quiet", "-m", "Wrong")

    with pytest.raises(Refused) as refused:
        command._check(checkout.folder, planned(checkout))

    assert f"{names}. Nothing was pushed: revert it by hand. By hand:" in str(refused.value)
    assert f"f{number - 2} page.txt" in str(refused.value)


A, B, C, GONE = "100644 a", "100644 b", "100644 c", f"000000 {'0' * 40}"


@pytest.mark.parametrize(
    ("commit", "since", "made", "wrong"),
    [
        ({"x": (A, B)}, {}, {"x": (B, A)}, []),
        ({"x": (GONE, B)}, {}, {"x": (B, GONE)}, []),
        ({"x": (A, GONE)}, {}, {"x": (GONE, A)}, []),
        ({"x": (A, B)}, {"x": (B, A)}, {}, []),
        ({"x": (A, B)}, {"x": (B, C)}, {"x": (C, "100644 d")}, []),
        ({"x": (A, B)}, {"y": (A, B)}, {"x": (B, A)}, []),
        ({"x": (A, B)}, {}, {}, ["x"]),
        ({"x": (A, B)}, {}, {"x": (B, C)}, ["x"]),
        ({"x": (A, B)}, {}, {"x": (B, GONE)}, ["x"]),
        ({"x": (A, B)}, {"x": (B, C)}, {"x": (C, GONE)}, ["x"]),
        ({"x": (A, B)}, {}, {"x": (B, A), "y": (A, GONE)}, ["y"]),
        ({}, {}, {"x": (A, GONE), "y": (A, GONE)}, ["x", "y"]),
        ({"x": (A, "100755 a")}, {}, {"x": ("100755 a", A)}, []),
        ({"x": (A, "100755 a")}, {}, {"x": ("100755 a", "120000 a")}, ["x"]),
    ],
)
def test_a_revert_is_compared_with_what_it_undoes(
    commit: dict[str, tuple[str, str]],
    since: dict[str, tuple[str, str]],
    made: dict[str, tuple[str, str]],
    wrong: list[str],
) -> None:
    """Every file of the commit is as before it, later changes of other files are kept, and nothing else changed."""
    assert faults(commit, since, made) == wrong


def test_a_revert_that_does_something_else_is_not_pushed(checkout: Checkout) -> None:
    """For example, if a hook changed it."""
    more = "echo more > more.txt; git add more.txt; git commit -q --amend --no-edit"
    hook(checkout.folder, "post-commit", f"test -f more.txt || {{ {more}; }}")
    before = checkout.state()

    with pytest.raises(Refused, match=r"does not exactly undo it: check more\.txt\. Nothing was pushed"):
        command.act(planned(checkout))

    assert checkout.state() == before


@pytest.mark.parametrize(
    ("known", "head", "found"),
    [("main", "trunk", "main"), ("master", "trunk", "trunk"), ("master", "", "master"), ("main~1", "", "main~1")],
)
def test_the_main_branch_is_that_of_the_settings_if_there_is_one(
    known: str, head: str, found: str, checkout: Checkout
) -> None:
    """Else the one that the remote has by default, if that is known."""
    if head:
        git(checkout.folder, "symbolic-ref", "refs/remotes/origin/HEAD", f"refs/remotes/origin/{head}")

    assert command._main_branch(checkout.folder, known) == found


@pytest.mark.parametrize(
    ("local", "remote", "where"),
    [("mine", "mine", "here"), ("other", "mine", "on origin"), ("other", "other", ""), ("mine/x", "a/mine", "")],
)
def test_where_a_branch_exists(local: str, remote: str, where: str, checkout: Checkout) -> None:
    """Here, or else on the remote."""
    git(checkout.folder, "update-ref", f"refs/heads/{local}", "main")
    git(checkout.folder, "update-ref", f"refs/remotes/origin/{remote}", "main")

    assert command._branch_exists(checkout.folder, "mine") == where


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_a_commit_is_reverted_unless_its_revert_is_reverted_too(number: int, checkout: Checkout) -> None:
    """number: reverts, each of the one before."""
    made = [checkout.squash]
    for _ in range(number):
        message = f"Revert something\n\nThis reverts commit {made[-1]}."
        git(checkout.folder, "commit", "--quiet", "--allow-empty", "-m", message)
        made.append(git(checkout.folder, "rev-parse", "HEAD"))

    found = command._reverted_by(checkout.folder, checkout.squash, made[-1])

    assert found == (made[1] if number % 2 else "")


def test_without_the_main_branch_of_the_settings_the_default_branch_of_the_remote_counts(
    checkout: Checkout, invoke: Invoke
) -> None:
    """As after a rename that the settings do not have yet."""
    git(checkout.remote, "branch", "--move", "main", "trunk")
    git(checkout.remote, "symbolic-ref", "HEAD", "refs/heads/trunk")
    git(checkout.folder, "fetch", "--quiet", "--prune")
    git(checkout.folder, "remote", "set-head", "origin", "--auto")

    done = revert(invoke, checkout, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert "origin/trunk" in done.stderr


def test_a_dry_run_needs_no_network(checkout: Checkout, invoke: Invoke) -> None:
    """And says what it could not read, and that GitHub's page is not known."""
    git(checkout.folder, "remote", "set-url", "origin", "https://127.0.0.1:9/nowhere.git")

    done = revert(invoke, checkout, "--dry-run", "--no-pr", GITHUB_REPOSITORY="")

    assert done.returncode == 0, done.stderr
    assert "could not read the newest commits" in done.stderr
    assert "https://github.com//compare" not in done.stderr
