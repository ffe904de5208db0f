"""The git repository of the application, as far as commands read it.

git is asked so that nobody's configuration, language or environment alters what is read: plumbing commands where there
are some, names ended by NUL, and settings that would change an answer set here.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.edges import shell
from scripts.frame.errors import DeployError

# git@github.com:owner/name.git · https://github.com/owner/name · ssh://git@host/owner/name.git
REMOTE = re.compile(r"(?:[\w.-]+@[\w.-]+:|\w+://[^/]+/)(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?")
# What a user's configuration may say otherwise, and an answer depends on.
SETTINGS = {
    "core.quotePath": "false",
    "core.fsmonitor": "false",
    "color.ui": "false",
    "log.showSignature": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "i18n.commitEncoding": "UTF-8",
    # A revert names the whole hash of what it reverts: that is how another one finds it.
    "revert.reference": "false",
    "submodule.recurse": "false",
}
ENVIRONMENT: dict[str, str | None] = {
    # git's words are read by this program, so they must be in English; and nobody is there to type a password.
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    # Pointers to large files are reverted as what they are.
    "GIT_LFS_SKIP_SMUDGE": "1",
    # A hook of git that runs this program would have it work on the hook's own repository.
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF")),
}
NOTHING = "0" * 40
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
    given = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    try:
        return shell.capture(["git", *given, *words], cwd=folder, env=ENVIRONMENT)
    except DeployError as error:
        # The settings say nothing to a reader of the message.
        raise error.with_message(str(error).replace(f"{shell.words(given)} ", "")) from error


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


def is_whole(folder: Path, commit: Commit) -> bool:
    """Whether the parents that a commit names are here: in a shallow clone git takes the oldest one for the first."""
    named = [
        line.split()[1] for line in run(folder, "cat-file", "commit", commit.sha).splitlines() if line[:7] == "parent "
    ]
    return tuple(named) == commit.parents


def changes(folder: Path, old: str, new: str) -> dict[str, tuple[str, str]]:
    """What differs between two commits: each path with its entry before and after, as mode and hash.

    An entry that is not there has the hash NOTHING. Renames are two entries.
    """
    told = run(folder, "diff-tree", "-r", "-z", "--raw", "--full-index", "--no-renames", "--no-ext-diff", old, new)
    found: dict[str, tuple[str, str]] = {}
    words = iter(told.split("\0"))
    for entry in words:
        if entry:
            old_mode, new_mode, old_hash, new_hash, _ = entry.lstrip(":").split(" ")
            found[next(words)] = (f"{old_mode} {old_hash}", f"{new_mode} {new_hash}")
    return found


def name_of_remote(url: str) -> str:
    """owner/name of a remote's URL, empty for a URL that does not end with both."""
    found = REMOTE.fullmatch(url)
    return found["name"] if found else ""
