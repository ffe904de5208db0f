"""The rollback of the deployment guide: reverts a commit on a branch of its own and opens a pull request.

Works in a worktree of its own, so that the checkout is not changed, and removes everything when it fails or is stopped.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from scripts.edges import git, github, http
from scripts.edges.git import Commit
from scripts.edges.http import Answer, Unreachable
from scripts.frame import console, files, stop, text
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.status import ask, healthchecks

REQUEST_TIMEOUT = 30.0
REMOTE = "origin"
# git's hash of the empty tree, which stands in for the parent of a first commit.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class Observed(Struct, frozen=True):
    """The state of the repository. branch_exists: where a branch of the new name exists, "" if nowhere."""

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


class Revert(Struct, frozen=True):
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
        lines += ["run git " + " ".join(words) for words in self.commands()]
        if self.api:
            lines += [f"post to {self.api}", json.dumps(self.request())]
        elif self.push:
            lines.append(f"leave the pull request to you: {self.compare or 'on GitHub, at the branch'}")
        return lines

    def commands(self) -> list[list[str]]:
        """What git does, in order."""
        commands = [self.add_branch(), self.add_worktree("WORKTREE"), self.revert()]
        return commands + ([self.push_branch()] if self.push else [])

    def add_branch(self) -> list[str]:
        """Create the branch; git refuses if one of that name exists."""
        return ["branch", "--no-track", self.branch, f"{REMOTE}/{self.base}"]

    def add_worktree(self, path: str) -> list[str]:
        """Add a worktree of the branch, without files at first."""
        return ["worktree", "add", "--quiet", "--no-checkout", path, self.branch]

    def revert(self) -> list[str]:
        """Revert the commit; a merge commit against its first parent."""
        mainline = ["-m", "1"] if len(self.commit.parents) > 1 else []
        return ["revert", "--no-edit", *mainline, self.commit.sha]

    def push_branch(self) -> list[str]:
        """Push the branch."""
        return ["push", REMOTE, f"{self.branch}:{self.branch}"]

    def request(self) -> dict[str, str]:
        """The pull request as GitHub's API takes it."""
        return {"title": self.title, "head": self.branch, "base": self.base, "body": self.body}


class Reverted(Report, Struct, frozen=True):
    """A revert that was committed to its branch. pull_request: its URL, or the link that opens one."""

    commit: str
    branch: str
    pushed: bool
    pull_request: str

    def line(self) -> str:
        done = f"{self.commit[:7]} is reverted on the branch {self.branch}"
        if not self.pushed:
            return f"{done}, which was not pushed"
        return f"{done}: {self.pull_request or f'it was pushed to {REMOTE}'}"

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
    """The top folder of the repository that a folder is in. Raises Refused if it is in none."""
    try:
        return Path(git.run(folder, "rev-parse", "--show-toplevel"))
    except DeployError as error:
        raise Refused(f"{folder} is not in a git repository: {_words(error)}") from error


def fetch(folder: Path) -> None:
    """Fetch the remote's branches with their full history. Raises DeployError if the remote cannot be reached."""
    # A checkout in a workflow has only the newest commit.
    shallow = git.run(folder, "rev-parse", "--is-shallow-repository") == "true"
    git.run(folder, "fetch", "--quiet", "--prune", *(["--unshallow"] if shallow else []), REMOTE)


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
    base = _main_branch(folder, environment.application.main_branch) if base is None else base
    known = _is_branch(folder, f"refs/remotes/{REMOTE}/{base}")
    tip = git.commit(folder, f"refs/remotes/{REMOTE}/{base}") if known else None
    if tip is None:
        raise Refused(f"There is no branch {base!r} on {REMOTE}: give --base.")
    wanted, why = _wanted(commit, base, running, of_environment)
    found = git.commit(folder, wanted)
    if found is None:
        raise Refused(f"{wanted!r} is not a commit of this repository ({why}).")
    branch = f"revert-{found.sha[:7]}"
    if not git.is_whole(folder, found):
        raise Refused(
            f"The parent of {found.sha[:7]} is not in this checkout, which is shallow, so it is not known what the"
            " commit changed. Nothing was changed. Run `git fetch --unshallow` first, or check out with fetch-depth: 0."
        )
    changed = [path for path, (_, new) in _undone(folder, found).items() if git.NOTHING not in new]
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


def _main_branch(folder: Path, known: str) -> str:
    """The main branch: that of the settings, or the remote's default branch if the remote has no such branch."""
    if _is_branch(folder, f"refs/remotes/{REMOTE}/{known}"):
        return known
    try:
        head = git.run(folder, "symbolic-ref", "--quiet", f"refs/remotes/{REMOTE}/HEAD")
    except DeployError:
        return known
    return head.removeprefix(f"refs/remotes/{REMOTE}/")


def _undone(folder: Path, commit: Commit) -> dict[str, tuple[str, str]]:
    """What a commit changed and its revert has to undo: path -> entry before and after."""
    return git.changes(folder, commit.parents[0] if commit.parents else EMPTY_TREE, commit.sha)


def _wanted(flag: str | None, base: str, running: Mapping[str, str], of_environment: str) -> tuple[str, str]:
    """The commit to revert, and how it was chosen."""
    if flag is not None:
        return flag, "from --commit"
    if of_environment:
        found = running.get(of_environment, "")
        if not found:
            raise Refused(f"The healthcheck of {of_environment} returns no version: give --commit.")
        if not git.HASH.fullmatch(found):
            # For git, names such as HEAD or main~1 are commits too.
            said = f"The healthcheck of {of_environment} returns {found[:100]!r}"
            raise Refused(f"{said}, which is not a commit's hash: give --commit.")
        return found, f"which {of_environment} runs"
    return f"{REMOTE}/{base}", f"the newest on {base}"


def _reverted_by(folder: Path, sha: str, tip: str) -> str:
    """The commit of the base branch that reverted this one and was not itself reverted, "" if there is none."""
    message = f"This reverts commit {sha}"
    reverts = git.run(folder, "rev-list", "--fixed-strings", f"--grep={message}", f"{sha}..{tip}").split()
    standing = [one for one in reverts if not _reverted_by(folder, one, tip)]
    return standing[0] if standing else ""


def _branch_exists(folder: Path, branch: str) -> str:
    for where, name in (("here", f"refs/heads/{branch}"), (f"on {REMOTE}", f"refs/remotes/{REMOTE}/{branch}")):
        if _is_branch(folder, name):
            return where
    return ""


def _is_branch(folder: Path, name: str) -> bool:
    """Whether there is a branch of this full name; other names of its commit do not count."""
    return git.succeeds(folder, "show-ref", "--verify", "--quiet", name)


def plan(observed: Observed, *, push: bool = True, pull_request: bool = True) -> Revert:
    """Decide the revert. Raises Refused if the commit cannot be reverted now."""
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
            f"The branch {branch} exists {observed.branch_exists}: a revert of {short} was already started."
            f" Continue with it, or delete the branch first."
        )
    name = observed.repository
    if name and not REPOSITORY.fullmatch(name):
        raise Refused(f"{name!r} is not a repository on GitHub: set GITHUB_REPOSITORY to owner/name.")
    return Revert(
        folder=observed.folder,
        commit=commit,
        base=observed.base,
        branch=branch,
        title=text.one_line(f'Revert "{commit.subject}"', 256),
        body=body(observed),
        push=push,
        api=_api(name) if push and pull_request and github.token() else "",
        compare=console.github(f"{name}/compare/{quote(observed.base)}...{branch}?expand=1") if name else "",
        why=observed.why,
    )


def _api(repository: str) -> str:
    """The API URL for pull requests of the repository. Raises Refused for an invalid or insecure one."""
    if not repository:
        raise Refused(f"The repository on GitHub is not known from the URL of {REMOTE}: set GITHUB_REPOSITORY.")
    return f"{github.api_for_token()}/repos/{repository}/pulls"


def body(observed: Observed) -> str:
    """The pull request's text: what is reverted, which environments run it, and what a revert does not undo."""
    commit = observed.commit
    lines = [f"Reverts {commit.sha}: {text.markdown(commit.subject)}"]
    if commit.pull_request:
        lines.append(f"It came with #{commit.pull_request}.")
    lines += ["", f"Running it now: {', '.join(observed.running) or 'no environment that answers'}."]
    if observed.migrations:
        lines += ["", "It holds migrations, which a revert does not undo in a database that has them:", ""]
        lines += [f"- {text.markdown(name)}" for name in observed.migrations]
    return "\n".join(lines)


def act(plan: Revert) -> Reverted:
    """Revert, push, and open the pull request.

    Raises Refused, with everything undone, for conflicts, a rejected push and a rejected pull request; OutcomeUnknown
    if the pull request may exist: then the branch stays.
    """
    folder = Path(plan.folder)
    with stop.owned(lambda: _branch(folder, plan), Branch.take_back) as branch:
        with _worktree(folder, plan) as work:
            _revert(work, plan)
            _check(work, plan)
            if plan.push:
                _push(work, plan, branch)
        url = _pull_request(plan, branch) if plan.push else ""
        branch.stays = True
    return Reverted(plan.commit.sha, plan.branch, plan.push, url)


class Branch(Struct):
    """The new branch. pushed: the commit that was pushed, "" for none. stays: it must not be removed."""

    folder: Path
    name: str
    pushed: str = ""
    stays: bool = False

    def take_back(self) -> None:
        """Remove it locally and on the remote, unless it stays; on the remote only if nobody has changed it."""
        if self.stays:
            return
        git.succeeds(self.folder, "branch", "--quiet", "-D", self.name)
        if self.pushed:
            lease = f"--force-with-lease={self.name}:{self.pushed}"
            git.succeeds(self.folder, "push", "--quiet", lease, REMOTE, f":{self.name}")


def _branch(folder: Path, plan: Revert) -> Branch:
    git.run(folder, *plan.add_branch())
    return Branch(folder, plan.branch)


@contextmanager
def _worktree(folder: Path, plan: Revert) -> Iterator[Path]:
    """A worktree of the new branch, which is removed when the block ends."""
    with files.temporary_folder("revert-") as home:
        work = home / "work"

        def add() -> None:
            # Quick, because a stop waits for it: the files are checked out afterwards.
            git.run(folder, *plan.add_worktree(str(work)))

        def remove(_: None) -> None:
            git.succeeds(folder, "worktree", "remove", "--force", "--force", str(work))

        with stop.owned(add, remove):
            git.run(work, "reset", "--quiet", "--hard")
            yield work


def _revert(work: Path, plan: Revert) -> None:
    try:
        git.run(work, *plan.revert())
    except DeployError as error:
        conflicts = git.run(work, "diff", "--name-only", "-z", "--diff-filter=U").split("\0")
        if any(conflicts):
            raise Refused(_conflict(plan, [name for name in conflicts if name])) from error
        said = _words(error)
        if "nothing to commit" in said or "--allow-empty" in said:
            raise Refused(
                f"A revert of {plan.commit.sha[:7]} changes nothing on {plan.base}: it is already undone."
            ) from error
        raise Refused(f"git could not revert {plan.commit.sha[:7]}: {said}") from error


def _check(work: Path, plan: Revert) -> None:
    """Check before the push that the revert undoes the commit and nothing else. Raises Refused."""
    made = git.commit(work, "HEAD")
    base = git.commit(work, f"refs/remotes/{REMOTE}/{plan.base}")
    if made is None or base is None or made.parents != (base.sha,):
        raise Refused(f"The revert of {plan.commit.sha[:7]} is not one commit on {plan.base}. Nothing was pushed.")
    since = git.changes(work, plan.commit.sha, base.sha)
    wrong = faults(_undone(work, plan.commit), since, git.changes(work, base.sha, made.sha))
    if wrong:
        names = ", ".join(text.one_line(name, 100) for name in wrong[:10]) + (" …" if len(wrong) > 10 else "")
        raise Refused(
            f"git's revert of {plan.commit.sha[:7]} does not exactly undo it: check {names}. Nothing was pushed:"
            f" revert it by hand. {_by_hand(plan, wrong)}"
        )


Changes = Mapping[str, tuple[str, str]]


def faults(commit: Changes, since: Changes, revert: Changes) -> list[str]:
    """The paths at which a revert does not undo a commit, or changes something else.

    All arguments: path -> entry before and after. since: changes between the commit and the base of the revert. A file
    that was changed since then too was merged by git: it must still exist, unless the commit added it.
    """
    wrong = [path for path in revert if path not in commit]
    for path, (before, after) in commit.items():
        if path not in since:
            is_undone = revert.get(path) == (after, before)
        else:
            is_undone = git.NOTHING not in revert.get(path, ("", ""))[1] or git.NOTHING in before
        if not is_undone:
            wrong.append(path)
    return sorted(wrong)


def _push(work: Path, plan: Revert, branch: Branch) -> None:
    """Push the branch. Raises Refused if the remote rejects it, OutcomeUnknown if the remote may have it."""
    branch.pushed = git.run(work, "rev-parse", "HEAD")
    try:
        git.run(work, *plan.push_branch())
    except DeployError as error:
        try:
            there = git.run(work, "ls-remote", REMOTE, f"refs/heads/{plan.branch}")
        except DeployError:
            there = "unknown"
        if there:
            raise OutcomeUnknown(
                f"The push of {plan.branch} failed, but {REMOTE} may have it: check there. {_words(error)}"
            ) from error
        raise Refused(f"The push of {plan.branch} was rejected: {_words(error)}") from error


def _by_hand(plan: Revert, names: list[str]) -> str:
    """The commands with which a person reverts the commit by hand."""
    lines = [
        f"git switch -c {plan.branch} {REMOTE}/{plan.base}",
        "git " + " ".join(plan.revert()),
        "# correct the files, then",
        f"git add {shlex.join(names)}",
        "git revert --continue",
        f"git push {REMOTE} {plan.branch}",
    ]
    return "By hand:\n  " + "\n  ".join(lines)


def _conflict(plan: Revert, names: list[str]) -> str:
    return (
        f"{plan.commit.sha[:7]} cannot be reverted by itself: later commits changed the same lines of"
        f" {', '.join(names)}. Nothing was changed. {_by_hand(plan, names)}"
    )


def _pull_request(plan: Revert, branch: Branch) -> str:
    """Open the pull request, if requested, and return its URL, or else the link that opens one.

    Raises Refused if GitHub rejects it, OutcomeUnknown if it may be open: then the branch stays.
    """
    if not plan.api:
        console.say(f"no pull request was opened: open it {'with the link' if plan.compare else 'on GitHub'}")
        return plan.compare
    undone = f"The branch {plan.branch} was removed again; to keep it, use --no-pr."
    unknown = f"It may be open, so the branch {plan.branch} stays. Check there: {plan.compare}"
    try:
        answer = _ask_github(plan)
    except Unreachable as error:
        if not error.sent:
            raise Refused(f"GitHub cannot be reached for the pull request: {error}. {undone}") from error
        branch.stays = True
        raise OutcomeUnknown(f"GitHub's response to the pull request was lost: {error}. {unknown}") from error
    url = _url(answer)
    if url:
        return url
    said = f"GitHub did not confirm the pull request: HTTP {answer.status}: {_reason(answer)}"
    if 300 <= answer.status < 500:
        raise Refused(f"{said} {undone}")
    branch.stays = True
    raise OutcomeUnknown(f"{said} {unknown}")


def _ask_github(plan: Revert) -> Answer:
    """https://docs.github.com/en/rest/pulls/pulls#create-a-pull-request. Raises Unreachable."""
    token = github.token()
    if text.in_actions() or token.startswith("ghs_"):
        console.warn(
            "GITHUB_TOKEN is the workflow's own: the pull request starts no workflow until somebody pushes to it."
        )
    body = json.dumps(plan.request()).encode()
    return github.request("POST", plan.api, timeout=REQUEST_TIMEOUT, token=token, body=body)


class Opened(Struct):
    """GitHub's response to a pull request that it opened."""

    html_url: str


def _url(answer: Answer) -> str:
    """The URL of the opened pull request, "" if the response has none."""
    try:
        return http.checked(answer.record(Opened).html_url, "a URL") if answer.ok else ""
    except (ValueError, Refused):
        return ""


def _reason(answer: Answer) -> str:
    """GitHub's reason for a rejection, in one line."""
    try:
        told = answer.record(dict[str, Any])
    except ValueError:
        told = {}
    errors = told.get("errors")
    details = [one.get("message") for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    said = text.one_line(": ".join(str(one) for one in (told.get("message"), *details) if one))
    return f"{said or 'no reason given'}."


def _words(error: DeployError) -> str:
    """git's own message in an error of `shell`."""
    return str(error).partition("exit code")[2].partition(": ")[2] or str(error)
