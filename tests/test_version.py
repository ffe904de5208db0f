"""Which version is meant."""

from pathlib import Path

import pytest

from scripts.edges import shell
from scripts.frame import version
from scripts.frame.errors import Refused


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty git repository in place of the project's."""
    monkeypatch.setattr(version, "ROOT", tmp_path)
    shell.capture(["git", "init", "--quiet"], cwd=tmp_path)
    return tmp_path


def test_the_flag_comes_first_then_the_variable_then_the_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the old script, with a flag before it."""
    shell.capture(["git", "commit", "--quiet", "--allow-empty", "-m", "one"], cwd=repository)
    head = shell.capture(["git", "rev-parse", "HEAD"], cwd=repository)

    assert version.wanted(None) == head
    monkeypatch.setenv("GITHUB_SHA", "of-the-variable")
    assert version.wanted(None) == "of-the-variable"
    assert version.wanted("of-the-flag") == "of-the-flag"


def test_no_commit_no_version(repository: Path) -> None:
    """With the three ways to give one."""
    with pytest.raises(Refused, match="No version: give it, set GITHUB_SHA"):
        version.wanted(None)


@pytest.mark.parametrize("bad", ["", ".hidden", "-flag", "a b", "a/b", "a:b", "x" * 129, "ü"])
def test_what_cannot_be_an_images_tag_is_refused(bad: str) -> None:
    """Before anything is asked."""
    with pytest.raises(Refused, match="version"):
        version.wanted(bad)


@pytest.mark.parametrize(("full", "shown"), [("a" * 40, "aaaaaaa"), ("v1.2.3", "v1.2.3"), ("a" * 39, "a" * 39)])
def test_a_commit_is_shown_short(full: str, shown: str) -> None:
    """And any other version as it is."""
    assert version.short(full) == shown
