"""The git repository of the application, as far as commands read it."""

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.edges import shell
from scripts.frame.errors import DeployError

# git@github.com:owner/name.git · https://github.com/owner/name · ssh://git@host/owner/name.git
REMOTE = re.compile(r"(?:[\w.-]+@[\w.-]+:|\w+://[^/]+/)(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?")
PULL_REQUEST = re.compile(r"Merge pull request #(\d+)|\(#(\d+)\)")


@dataclass(frozen=True)
class Commit:
    """A commit. at: Unix time of the commit. parents: their hashes."""

    sha: str
    subject: str
    at: int
    parents: tuple[str, ...]

    @property
    def pull_request(self) -> str:
        """The number of the pull request that the subject names, empty if it names none."""
        found = PULL_REQUEST.search(self.subject)
        return (found[1] or found[2]) if found else ""


def run(folder: Path, *words: str) -> str:
    """What git prints. Raises DeployError with git's own words."""
    # They are read by this program, so they must be in English; and nobody is there to type a password.
    return shell.capture(["git", *words], cwd=folder, env={"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"})


def succeeds(folder: Path, *words: str) -> bool:
    """Whether git exits 0."""
    try:
        run(folder, *words)
    except DeployError:
        return False
    return True


def commit(folder: Path, name: str) -> Commit | None:
    """A commit by its name, or None if there is none."""
    try:
        # One commit and not a range or a path, which `show` takes too.
        sha = run(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        told = run(folder, "show", "--no-patch", "--format=%s%x00%ct%x00%P", sha)
    except DeployError:
        return None
    subject, at, parents = told.split("\0")
    return Commit(sha, subject, int(at), tuple(parents.split()))


def name_of_remote(url: str) -> str:
    """owner/name of a remote's URL, empty for a URL that does not end with both."""
    found = REMOTE.fullmatch(url)
    return found["name"] if found else ""
