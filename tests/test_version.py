"""Which version a command uses, and reading it from a healthcheck."""

from pathlib import Path

import pytest

from scripts.edges import shell
from scripts.frame import version
from scripts.frame.errors import DeployError, Refused
from tests.stand_in import Reply, stand_in


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty git repository in place of the project's."""
    monkeypatch.setattr(version, "ROOT", tmp_path)
    shell.capture(["git", "init", "--quiet"], cwd=tmp_path)
    return tmp_path


def test_the_flag_comes_first_then_the_variable_then_the_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old script had no flag."""
    shell.capture(["git", "commit", "--quiet", "--allow-empty", "-m", "one"], cwd=repository)
    head = shell.capture(["git", "rev-parse", "HEAD"], cwd=repository)

    assert version.wanted(None) == head
    monkeypatch.setenv("GITHUB_SHA", "of-the-variable")
    assert version.wanted(None) == "of-the-variable"
    assert version.wanted("of-the-flag") == "of-the-flag"


def test_without_a_commit_there_is_no_version(repository: Path) -> None:
    """The message says how to give one."""
    with pytest.raises(Refused, match="No version: give one, set GITHUB_SHA"):
        version.wanted(None)


@pytest.mark.parametrize("bad", ["", ".hidden", "-flag", "a b", "a/b", "a:b", "x" * 129, "ü"])
def test_a_version_that_cannot_be_an_image_tag_is_refused(bad: str) -> None:
    with pytest.raises(Refused, match="version"):
        version.wanted(bad)


@pytest.mark.parametrize(("full", "shown"), [("a" * 40, "aaaaaaa"), ("v1.2.3", "v1.2.3"), ("a" * 39, "a" * 39)])
def test_a_commit_is_shown_short(full: str, shown: str) -> None:
    """Any other version is shown in full."""
    assert version.short(full) == shown


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b'{"version": "v1"}', 503), "HTTP status 503"),
        (Reply(b"", 301, {"Location": "http://localhost:9/"}), "HTTP status 301"),
        (Reply(b"<html>"), "not JSON with a version"),
        (Reply(b"[]"), "not JSON with a version"),
        (Reply(b"[" * 60000), "not JSON with a version"),
        (Reply(b'{"version": null}'), "the response's version is empty"),
        (Reply(b'{"version": ""}'), "the response's version is empty"),
        (Reply(b'{"version": "' + b"v" * 70000 + b'"}'), "not JSON with a version"),
        (Reply(b"", drop=True), "closed connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_response_without_a_version_is_an_error_with_the_reason(reply: Reply, said: str) -> None:
    """One sentence, whatever the server sends. No other host is requested."""
    with stand_in(lambda *_: reply) as server, pytest.raises(DeployError, match=said) as error:
        version.answering(server.url, 2)

    assert len(str(error.value)) < 100
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["", "http://[::1", "http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://a b/"])
def test_an_invalid_url_is_refused(url: str) -> None:
    """Before any request."""
    with pytest.raises(Refused, match="is not the URL of a healthcheck"):
        version.answering(url, 2)
