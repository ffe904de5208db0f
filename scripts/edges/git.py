"""Reads and changes the git repository of the application.

git runs so that a user's configuration, language and environment do not change its output: plumbing commands where
possible, names that end with NUL, and fixed values for the settings that matter.
"""

import re
from pathlib import Path

from msgspec import Struct

from scripts.edges import shell
from scripts.frame.errors import DeployError

# git@github.com:owner/name.git · https://github.com/owner/name · ssh://git@host/owner/name.git
REMOTE = re.compile(r"(?:[\w.-]+@[\w.-]+:|\w+://[^/]+/)(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?")
# Settings that git's output depends on and that a user's configuration may change.
SETTINGS = {
    "core.quotePath": "false",
    "core.fsmonitor": "false",
    "color.ui": "false",
    "log.showSignature": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "i18n.commitEncoding": "UTF-8",
    # A revert's message holds the full hash of the reverted commit: `revert` looks for it.
    "revert.reference": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    # A push sends the branch that it names, and no tags or submodules with it.
    "push.followTags": "false",
    "push.recurseSubmodules": "no",
}
ENVIRONMENT: dict[str, str | None] = {
    # This program reads git's messages, so they must be in English; and nobody can type a password.
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    # Git LFS pointers are reverted as pointers, without their content.
    "GIT_LFS_SKIP_SMUDGE": "1",
    # The commits as everybody has them, not those that `git replace` has put in their place here.
    "GIT_NO_REPLACE_OBJECTS": "1",
    # Set inside a git hook: they would make git work on the hook's repository.
    **dict.fromkeys(("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE")),
    **dict.fromkeys(("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE")),
    "GIT_EXTERNAL_DIFF": None,
}
# Hash, subject, Unix time and parents of a commit.
FORMAT = "%H%x00%s%x00%ct%x00%P"
NOTHING = "0" * 40
# Of a commit, at least as long as git abbreviates it.
HASH = re.compile(r"[0-9a-f]{7,40}")
PULL_REQUEST = re.compile(r"Merge pull request #(\d+)|\(#(\d+)\)")


class Commit(Struct, frozen=True):
    """A commit. at: Unix time of the commit, 0 if it is malformed. parents: their hashes."""

    sha: str
    subject: str
    at: int
    parents: tuple[str, ...]

    @property
    def pull_request(self) -> str:
        """The number of the pull request in the subject, empty if there is none."""
        found = PULL_REQUEST.search(self.subject)
        return (found[1] or found[2]) if found else ""


def run(folder: Path, *words: str) -> str:
    """Run git and return its output. Raises DeployError with git's own message."""
    given = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    try:
        return shell.capture(["git", *given, *words], cwd=folder, env=ENVIRONMENT)
    except DeployError as error:
        # The fixed settings would only clutter the message.
        raise error.with_message(str(error).replace(f"{shell.words(given)} ", "")) from error


def succeeds(folder: Path, *words: str) -> bool:
    """Whether git exits 0."""
    try:
        run(folder, *words)
    except DeployError:
        return False
    return True


def commit(folder: Path, name: str) -> Commit | None:
    """A commit by its name, None if it does not exist, or if it is a range."""
    if ".." in name or name.startswith("^"):
        return None
    try:
        told = run(folder, "show", "--no-patch", f"--format={FORMAT}", "--end-of-options", f"{name}^{{commit}}", "--")
    except DeployError:
        return None
    sha, subject, at, parents = told.split("\0")
    return Commit(sha, subject, int(at[:18] or 0), tuple(parents.split()))


def is_whole(folder: Path, commit: Commit) -> bool:
    """Whether a commit's parents are in this clone: a shallow clone hides those of its oldest commits."""
    # The message comes after a blank line, and may hold such lines too.
    header = run(folder, "cat-file", "commit", commit.sha).partition("\n\n")[0]
    named = [line.removeprefix("parent ") for line in header.split("\n") if line.startswith("parent ")]
    return tuple(named) == commit.parents


def changes(folder: Path, old: str, new: str) -> dict[str, tuple[str, str]]:
    """What differs between two commits: path -> entry before and after, each as "mode hash".

    A missing entry has the hash NOTHING. A rename is two entries.
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
    """owner/name from a remote's URL, empty if the URL does not end with both."""
    found = REMOTE.fullmatch(url)
    return found["name"] if found else ""
