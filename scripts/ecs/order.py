"""The order of versions: an older one never replaces a newer one, however long it has waited for its approval."""

from pathlib import Path

from scripts.ecs import receipts
from scripts.edges import git
from scripts.edges.git import Commit
from scripts.frame import console, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.settings import Environment

# Receipts that are looked through, and seconds for the healthcheck.
MOST, TIMEOUT = 20, 5.0


def running(environment: Environment) -> str:
    """The version that runs, as its healthcheck answers, else by its newest good receipt. Raises DeployError."""
    try:
        return version.ask(environment.healthcheck, TIMEOUT)
    except DeployError as error:
        kept = receipts.read(environment, MOST).receipts
        found = next((one.version for one in kept if one.is_good(environment.service.name)), "")
        if not found:
            message = f"its healthcheck does not answer ({error}), and no receipt shows a good deployment"
            raise error.with_message(message) from error
        return found


def tip(folder: Path, main_branch: str) -> Commit | None:
    """The newest commit of the main branch, as the remote has it; of its default branch if there is no such branch."""
    names = (f"origin/{main_branch}", main_branch, "origin/HEAD")
    return next((found for name in names if (found := git.commit(folder, name))), None)


def is_older(folder: Path, wanted: str, now: str, main_branch: str) -> bool:
    """Whether a version is an ancestor of the one that runs, which is on the main branch.

    What a pull request deploys does not count: the main branch may replace it.
    """
    if not (git.HASH.fullmatch(wanted) and git.HASH.fullmatch(now)):
        # For git, names such as HEAD are commits too.
        return False
    old, new, main = git.commit(folder, wanted), git.commit(folder, now), tip(folder, main_branch)
    if old is None or new is None or main is None or old.sha == new.sha:
        return False
    return _is_in(folder, old, new) and _is_in(folder, new, main)


def _is_in(folder: Path, old: Commit, new: Commit) -> bool:
    return git.succeeds(folder, "merge-base", "--is-ancestor", old.sha, new.sha)


class InOrder(Report):
    """A version that may replace the one that runs."""

    def __init__(self, environment: str, now: str) -> None:
        self.environment, self.now = environment, now

    def line(self) -> str:
        return f"{self.environment} runs {version.short(self.now)}, which is not newer"


def check(environment: Environment, folder: Path, wanted: str) -> InOrder | None:
    """Look whether a version may replace the one that runs; None if that is not known, with a warning.

    Raises Refused if what runs is newer.
    """
    try:
        now = running(environment)
    except DeployError as error:
        console.warn(f"it is not known whether {environment.name} runs a newer version: {error}")
        return None
    if is_older(folder, wanted, now, environment.application.main_branch):
        old, new = version.short(wanted), version.short(now)
        raise Refused(
            f"{environment.name} runs {new}, which is newer than {old}. Nothing was changed. To go back, use"
            f" `invoke rollback --env={environment.name} --to={old}`."
        )
    return InOrder(environment.name, now)
