"""What git is asked, in real repositories: of whoever runs it, whatever they have configured."""

from pathlib import Path

import pytest

from scripts.edges import git
from scripts.edges.git import NOTHING, Commit
from scripts.frame.errors import DeployError
from tests import conftest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with one commit on main."""
    made = tmp_path / "repository"
    made.mkdir()
    conftest.git(made, "init", "--quiet", "--initial-branch=main")
    committed(made, "first", **{"one.txt": "1\n"})
    return made


def committed(folder: Path, message: str, *words: str, **files: str) -> str:
    """Commit some files, and return the hash."""
    for name, content in files.items():
        (folder / name).write_text(content)
    conftest.git(folder, "add", "--all")
    conftest.git(folder, "commit", "--quiet", "--allow-empty", "--message", message, *words)
    return conftest.git(folder, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("Merge pull request #12 from owner/branch", "12"),
        ("Show the version (#7)", "7"),
        ("Fix #7", ""),
        ("Show (#x)", ""),
        ("", ""),
    ],
)
def test_the_pull_request_of_a_commit(subject: str, number: str) -> None:
    """As GitHub writes it when it merges or squashes one."""
    assert Commit("x", subject, 0, ()).pull_request == number


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@github.com:owner/name.git", "owner/name"),
        ("https://github.com/owner/name", "owner/name"),
        ("https://user@github.com/owner/name.git/", "owner/name"),
        ("ssh://git@host:22/owner/na.me-2.git", "owner/na.me-2"),
        ("me-2@my.host:owner/name", "owner/name"),
        ("https://github.com/name", ""),
        ("https://github.com/a/owner/name", ""),
        ("/srv/owner/name.git", ""),
        ("../owner/name", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_remote(url: str, name: str) -> None:
    """In each form in which GitHub gives one."""
    assert git.name_of_remote(url) == name


def test_a_commit_has_its_subject_time_and_parents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge has two. Any name of a commit will do."""
    first = conftest.git(folder, "rev-parse", "HEAD")
    conftest.git(folder, "switch", "--quiet", "--create", "side")
    side = committed(folder, "side")
    conftest.git(folder, "switch", "--quiet", "main")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1700000000 +0200")
    second = committed(folder, "Übertrag (#7)\n\nparent of nothing")
    conftest.git(folder, "merge", "--quiet", "--no-edit", "side")
    conftest.git(folder, "tag", "-m", "x", "v1")

    assert git.commit(folder, "main~1") == Commit(second, "Übertrag (#7)", 1_700_000_000, (first,))
    merge = git.commit(folder, "v1")
    assert merge is not None
    assert (merge.subject, merge.parents) == ("Merge branch 'side'", (second, side))
    assert git.commit(folder, first[:10]) == git.commit(folder, first)


def test_a_commit_without_a_time(folder: Path, tmp_path: Path) -> None:
    """Some old programs made such."""
    tree = conftest.git(folder, "rev-parse", "HEAD^{tree}")
    (tmp_path / "commit").write_text(f"tree {tree}\nauthor a <a@b> x\ncommitter a <a@b> x\n\nold\n")
    sha = conftest.git(folder, "hash-object", "-t", "commit", "--literally", "-w", str(tmp_path / "commit"))

    assert git.commit(folder, sha) == Commit(sha, "old", 0, ())


@pytest.mark.parametrize("name", ["nothing", "main..main", "^main", "--all", "-1", "HEAD:one.txt", "HEAD^{tree}", ""])
def test_what_is_no_commit(name: str, folder: Path) -> None:
    """A range, an option, a file or a folder is none."""
    assert git.commit(folder, name) is None


def test_a_shallow_clone_is_not_whole(folder: Path, tmp_path: Path) -> None:
    """Only where parents are hidden; what a message says does not matter."""
    committed(folder, "second")
    committed(folder, f"third\n\nparent {'0' * 40}\nparent x")
    conftest.git(tmp_path, "clone", "--quiet", "--depth=2", f"file://{folder}", "clone")
    third, second = (git.commit(tmp_path / "clone", name) for name in ("main", "main~1"))
    first = git.commit(folder, "main~2")

    assert third
    assert second
    assert first
    assert git.is_whole(tmp_path / "clone", third)
    assert not git.is_whole(tmp_path / "clone", second)
    assert git.is_whole(folder, first)


def test_what_differs_between_two_commits(folder: Path) -> None:
    """A rename is two entries, in the order of names, which may have any characters."""
    old = committed(folder, "old", **{"ü\n .txt": "a\n", "gone.txt": "b\n", "same.txt": "c\n"})
    (folder / "gone.txt").rename(folder / "moved.txt")
    (folder / "ü\n .txt").chmod(0o755)
    new = committed(folder, "new", **{"one.txt": "2\n"})

    def entry(name: str, mode: str = "100644") -> str:
        return f"{mode} {conftest.git(folder, 'rev-parse', name)}"

    none = f"000000 {NOTHING}"
    assert git.changes(folder, old, new) == {
        "gone.txt": (entry(f"{old}:gone.txt"), none),
        "moved.txt": (none, entry(f"{new}:moved.txt")),
        "one.txt": (entry(f"{old}:one.txt"), entry(f"{new}:one.txt")),
        "ü\n .txt": (entry(f"{old}:ü\n .txt"), entry(f"{new}:ü\n .txt", "100755")),
    }
    assert git.changes(folder, new, new) == {}


def test_an_error_has_gits_own_message(folder: Path) -> None:
    """And the command as a person would type it."""
    with pytest.raises(
        DeployError, match=r"^`git rev-parse --verify nothing` failed with exit code 128: fatal: Needed"
    ):
        git.run(folder, "rev-parse", "--verify", "nothing")
    assert git.succeeds(folder, "rev-parse", "--verify", "main")
    assert not git.succeeds(folder, "rev-parse", "--verify", "nothing")


def test_what_somebody_has_configured_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Neither what git says, nor what it runs or writes. What a revert sends is in test_revert.py."""
    (folder / "ü.txt").write_text("x")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    for name, value in {
        "core.quotePath": "true",
        "core.fsmonitor": str(hook),
        "color.ui": "always",
        "i18n.logOutputEncoding": "ISO-8859-1",
        "i18n.commitEncoding": "ISO-8859-1",
    }.items():
        conftest.git(folder, "config", name, value)

    assert git.run(folder, "status", "--short") == "?? ü.txt"
    git.run(folder, "commit", "--quiet", "--allow-empty", "--message", "Größe")
    found = git.commit(folder, "main")
    assert found is not None
    assert found.subject == git.run(folder, "log", "-1", "--format=%s") == "Größe"
    assert git.run(folder, "cat-file", "commit", "main").endswith("\n\nGröße")
    assert not (tmp_path / "ran").exists()


def test_what_git_inherits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a hook that started us, and no question that nobody can answer. Its messages are in English."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec /usr/bin/env\n")
    program.chmod(0o755)
    of_a_hook = (
        *("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
        "GIT_EXTERNAL_DIFF",
    )
    for name in of_a_hook:
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    seen = dict(line.split("=", 1) for line in git.run(folder, "status").splitlines() if "=" in line)

    assert "elsewhere" not in seen.values()
    given = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_NO_REPLACE_OBJECTS": "1"}
    assert given.items() <= seen.items()
