"""The rollback of the deployment guide: reverts a commit on a branch of its own and opens a pull request.

Works in a worktree of its own, so that the checkout is neither touched nor in the way, and leaves nothing
behind when it fails.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.edges import git
from scripts.edges.git import Commit
from scripts.frame import console, text
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.status import ask, healthchecks

REQUEST_TIMEOUT = 30.0
REMOTE = "origin"


@dataclass(frozen=True)
class Observed:
    """What the repository holds. branch_exists: where the new branch's name is taken, "" if it is free."""

    folder: str
    base: str
    commit: Commit
    on_base: bool
    reverted_by: str
    branch_exists: str
    repository: str
    migrations: tuple[str, ...]
    running: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Revert:
    """A commit that is to be reverted. api: URL that the pull request is posted to, "" for none."""

    folder: str
    commit: Commit
    base: str
    branch: str
    title: str
    body: str
    push: bool
    api: str
    compare: str
    why: str

    def describe(self) -> list[str]:
        lines = [f"revert {self.commit.sha} ({self.commit.subject}), {self.why}"]
        lines += ["run " + " ".join(words) for words in self.commands()]
        if self.api:
            lines += [f"post to {self.api}", json.dumps(self.request())]
        elif self.push:
            lines.append(f"leave the pull request to you: {self.compare}")
        return lines

    def commands(self) -> list[list[str]]:
        """The git commands, in order."""
        mainline = ["-m", "1"] if len(self.commit.parents) > 1 else []
        commands = [
            ["git", "worktree", "add", "-b", self.branch, "WORKTREE", f"{REMOTE}/{self.base}"],
            ["git", "revert", "--no-edit", *mainline, self.commit.sha],
        ]
        return commands + ([["git", "push", REMOTE, f"{self.branch}:{self.branch}"]] if self.push else [])

    def request(self) -> dict[str, str]:
        """The pull request as GitHub's API takes it."""
        return {"title": self.title, "head": self.branch, "base": self.base, "body": self.body}


@dataclass(frozen=True)
class Reverted(Report):
    """A revert that is on its branch. pull_request: its URL, or the link that opens one."""

    commit: str
    branch: str
    pushed: bool
    pull_request: str

    def line(self) -> str:
        if not self.pushed:
            return f"{self.commit[:7]} is reverted on the branch {self.branch}, which was not pushed"
        return f"{self.commit[:7]} is reverted on the branch {self.branch}: {self.pull_request}"

    def outputs(self) -> dict[str, str]:
        return {"branch": self.branch, "pull-request": self.pull_request}


def revert(
    run: Run,
    *,
    commit: str | None = None,
    base: str | None = None,
    no_push: bool = False,
    no_pr: bool = False,
) -> Reverted | None:
    """Revert a commit."""
    folder = top(Path.cwd())
    run.read("the newest commits", lambda: fetch(folder))
    running = {one.environment: one.version for one in ask(healthchecks()) if one.version}
    asked = run.environment.name if run.environment.origin else ""
    observed = observe(run.environment, folder, commit=commit, base=base, running=running, of_environment=asked)
    return run.act(plan(observed, push=not no_push, pull_request=not no_pr), act)


def top(folder: Path) -> Path:
    """The repository that a folder is in. Raises Refused for none."""
    try:
        return Path(git.run(folder, "rev-parse", "--show-toplevel"))
    except DeployError as error:
        raise Refused(f"{folder} is not in a git repository: {_words(error)}") from error


def fetch(folder: Path) -> None:
    """Bring the remote's branches here. Raises DeployError where it cannot be reached."""
    git.run(folder, "fetch", "--quiet", "--prune", REMOTE)


def observe(
    environment: Environment,
    folder: Path,
    *,
    commit: str | None,
    base: str | None,
    running: Mapping[str, str],
    of_environment: str = "",
) -> Observed:
    """Read what is to be reverted. running: environment -> version that answers there.

    commit: the flag, else the version that `of_environment` runs, else the newest on the base branch.
    Raises Refused for an unknown commit or base.
    """
    base = environment.application.main_branch if base is None else base
    tip = git.commit(folder, f"{REMOTE}/{base}") if base else None
    if tip is None:
        raise Refused(f"There is no branch {base!r} on {REMOTE}: give --base.")
    wanted, why = _wanted(commit, base, running, of_environment)
    found = git.commit(folder, wanted) if wanted and not wanted.startswith("-") else None
    if found is None:
        raise Refused(f"{wanted!r} is not a commit of this repository ({why}).")
    branch = f"revert-{found.sha[:7]}"
    parent = found.parents[0] if found.parents else "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    changed = git.run(folder, "diff", "--name-only", "--diff-filter=AMR", parent, found.sha).splitlines()
    prefix = environment.migrations.folder
    url = git.run(folder, "config", "--get", f"remote.{REMOTE}.url")
    return Observed(
        folder=str(folder),
        base=base,
        commit=found,
        on_base=git.succeeds(folder, "merge-base", "--is-ancestor", found.sha, tip.sha),
        reverted_by=_reverted_by(folder, found.sha, tip.sha),
        branch_exists=_branch_exists(folder, branch),
        repository=os.environ.get("GITHUB_REPOSITORY") or git.name_of_remote(url),
        migrations=tuple(name for name in changed if prefix and name.startswith(prefix)),
        running=tuple(name for name, version in running.items() if version == found.sha),
        why=why,
    )


def _wanted(flag: str | None, base: str, running: Mapping[str, str], of_environment: str) -> tuple[str, str]:
    """The commit that is meant, and why that one."""
    if flag is not None:
        return flag, "from --commit"
    if of_environment:
        if of_environment not in running:
            raise Refused(f"{of_environment} does not say which version it runs: give --commit.")
        return running[of_environment], f"which {of_environment} runs"
    return f"{REMOTE}/{base}", f"the newest on {base}"


def _reverted_by(folder: Path, sha: str, tip: str) -> str:
    """The commit of the base branch that has reverted this one and was not itself reverted, "" for none."""
    reverts = git.run(folder, "log", "--format=%H", f"--grep=This reverts commit {sha}", f"{sha}..{tip}").split()
    standing = [one for one in reverts if not _reverted_by(folder, one, tip)]
    return standing[0] if standing else ""


def _branch_exists(folder: Path, branch: str) -> str:
    for where, name in (("here", f"refs/heads/{branch}"), (f"on {REMOTE}", f"refs/remotes/{REMOTE}/{branch}")):
        if git.succeeds(folder, "show-ref", "--verify", "--quiet", name):
            return where
    return ""


def plan(observed: Observed, *, push: bool = True, pull_request: bool = True) -> Revert:
    """Decide the revert. Raises Refused where it makes no sense; nothing has been changed then."""
    commit = observed.commit
    short, branch = commit.sha[:7], f"revert-{commit.sha[:7]}"
    if not observed.on_base:
        raise Refused(f"{short} ({commit.subject}) is not on {observed.base}: there is nothing to revert there.")
    if observed.reverted_by:
        raise Refused(
            f"{short} ({commit.subject}) is already reverted on {observed.base}, by {observed.reverted_by[:7]}."
        )
    if observed.branch_exists:
        raise Refused(
            f"The branch {branch} exists {observed.branch_exists}: a revert of {short} is under way."
            f" Go on with it, or delete the branch first."
        )
    name = observed.repository
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    opens = push and pull_request and bool(os.environ.get("GITHUB_TOKEN"))
    if opens and not name:
        raise Refused(f"The repository on GitHub is not known from the url of {REMOTE}: set GITHUB_REPOSITORY.")
    return Revert(
        folder=observed.folder,
        commit=commit,
        base=observed.base,
        branch=branch,
        title=f'Revert "{commit.subject}"',
        body=body(observed),
        push=push,
        api=f"{api}/repos/{name}/pulls" if opens else "",
        compare=console.github(f"{name}/compare/{observed.base}...{branch}?expand=1"),
        why=observed.why,
    )


def body(observed: Observed) -> str:
    """The pull request's text: what is reverted, who runs it now, and what a revert does not undo."""
    commit = observed.commit
    lines = [f"Reverts {commit.sha}: {commit.subject}"]
    if commit.pull_request:
        lines.append(f"It came with #{commit.pull_request}.")
    lines += ["", f"Running it now: {', '.join(observed.running) or 'no environment that answers'}."]
    if observed.migrations:
        lines += ["", "It holds migrations, which a revert does not undo in a database that has them:", ""]
        lines += [f"- `{name}`" for name in observed.migrations]
    return "\n".join(lines)


def act(plan: Revert) -> Reverted:
    """Revert, push, and open the pull request.

    Raises Refused, with nothing left behind, for conflicts, a push that is rejected and a pull request that
    GitHub does not take.
    """
    folder = Path(plan.folder)
    with _worktree(folder, plan) as work:
        _revert(work, plan)
        if not plan.push:
            return Reverted(plan.commit.sha, plan.branch, False, "")
        try:
            git.run(work, "push", REMOTE, f"{plan.branch}:{plan.branch}")
        except DeployError as error:
            raise Refused(f"The push of {plan.branch} was rejected: {_words(error)}") from error
        if not plan.api:
            console.say("no pull request was opened: open it with the link")
            return Reverted(plan.commit.sha, plan.branch, True, plan.compare)
        try:
            url = _open_pull_request(plan)
        except DeployError:
            git.run(work, "push", REMOTE, f":{plan.branch}")
            raise
    return Reverted(plan.commit.sha, plan.branch, True, url)


@contextmanager
def _worktree(folder: Path, plan: Revert) -> Iterator[Path]:
    """A worktree with the new branch; both are gone again if anything fails, the worktree in any case."""
    home = Path(tempfile.mkdtemp(prefix="revert-"))
    work = home / "work"
    done = False
    try:
        git.run(folder, "worktree", "add", "--quiet", "-b", plan.branch, str(work), f"{REMOTE}/{plan.base}")
        yield work
        done = True
    finally:
        shutil.rmtree(home, ignore_errors=True)
        git.run(folder, "worktree", "prune")
        if not done:
            git.succeeds(folder, "branch", "-D", plan.branch)


def _revert(work: Path, plan: Revert) -> None:
    words = plan.commands()[1][1:]
    try:
        git.run(work, *words)
    except DeployError as error:
        conflicts = git.run(work, "diff", "--name-only", "--diff-filter=U").splitlines()
        git.succeeds(work, "revert", "--abort")
        if conflicts:
            raise Refused(_conflict(plan, conflicts)) from error
        said = _words(error)
        if "nothing to commit" in said or "--allow-empty" in said:
            raise Refused(
                f"{plan.commit.sha[:7]} changes nothing any more on {plan.base}: it is already undone."
            ) from error
        raise Refused(f"git could not revert {plan.commit.sha[:7]}: {said}") from error


def _conflict(plan: Revert, files: list[str]) -> str:
    by_hand = [
        f"git switch -c {plan.branch} {REMOTE}/{plan.base}",
        " ".join(plan.commands()[1]),
        "# put the files right, then",
        f"git add {' '.join(files)}",
        "git revert --continue",
        f"git push {REMOTE} {plan.branch}",
    ]
    return (
        f"{plan.commit.sha[:7]} cannot be reverted by itself: later commits changed the same lines of"
        f" {', '.join(files)}. Nothing was changed. By hand:\n  " + "\n  ".join(by_hand)
    )


def _open_pull_request(plan: Revert) -> str:
    """Open the pull request through GitHub's REST API and return its URL."""
    import urllib.error
    import urllib.request

    token = os.environ["GITHUB_TOKEN"]
    console.mask(token)
    if text.in_actions() or token.startswith("ghs_"):
        console.warn(
            "The token is the workflow's own: the pull request starts no workflow until somebody pushes to it."
        )
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": "2022-11-28",
        "Content-Type": "application/json",
    }
    if urlsplit(plan.api).scheme not in ("https", "http"):
        raise Refused(f"GITHUB_API_URL is no URL: {plan.api!r}.")
    request = urllib.request.Request(plan.api, json.dumps(plan.request()).encode(), headers, method="POST")
    undone = f"The branch {plan.branch} was removed again; to keep it, use --no-pr."
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as answer:
            return str(json.load(answer)["html_url"])
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(
                f"GitHub did not open the pull request: HTTP {error.code}: {_reason(error)} {undone}"
            ) from error
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"GitHub did not open the pull request: {error}. {undone}") from error


def _reason(error: Any) -> str:
    try:
        told = json.load(error)
        details = "; ".join(item.get("message", "") for item in told.get("errors", []) if isinstance(item, dict))
        return f"{told['message']}{': ' + details if details else ''}."
    except (ValueError, KeyError, AttributeError):
        return "no reason given."


def _words(error: DeployError) -> str:
    """git's own words in an error of the shell."""
    return str(error).partition("exit code")[2].partition(": ")[2] or str(error)
