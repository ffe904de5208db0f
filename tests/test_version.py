"""Which version a command uses, and reading it from a healthcheck."""

import time
from contextlib import nullcontext
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


def test_a_refusal_says_where_the_version_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SHA", "a b")

    with pytest.raises(Refused, match=r"'a b' is not a version \(from GITHUB_SHA\)"):
        version.wanted(None)
    with pytest.raises(Refused, match=r"The version is empty \(from the flag\)"):
        version.wanted("")


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


def test_no_cache_in_between_answers_for_the_application() -> None:
    """It would go on giving the old version."""
    with stand_in(lambda *_: Reply(b'{"version": "v1", "status": "pass"}')) as server:
        assert version.answering(server.url, 2) == "v1"

    assert [(one["method"], one["headers"]["Cache-Control"]) for one in server.requests] == [("GET", "no-cache")]


def test_a_healthcheck_is_waited_for_until_its_time_out() -> None:
    """And no longer."""
    with stand_in(lambda *_: Reply(b'{"version": "v1"}', delay=0.1)) as server:
        with pytest.raises(DeployError, match=r"no complete response within 0\.05 s"):
            version.answering(server.url, 0.05)
        assert version.answering(server.url, 5) == "v1"


@pytest.mark.parametrize(
    ("fail", "pause", "tries"),
    [(0, 0.05, 1), (1, 0.05, 2), (1, 5.0, 1), (2, 0.05, 2)],
    ids=["it answers", "once more", "no time is left", "it fails again"],
)
def test_a_version_is_asked_for_once_more_after_a_failure(
    fail: int, pause: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause, if there is time for both within 5 s."""
    monkeypatch.setattr(version, "PAUSE", pause)
    asked = list[float]()

    def answer(*_: str) -> Reply:
        asked.append(time.monotonic())
        return Reply(b'{"version": "v1"}', 503 if len(asked) <= fail else 200)

    with (
        stand_in(answer) as server,
        pytest.raises(DeployError, match="HTTP status 503") if fail >= tries else nullcontext(),
    ):
        assert version.ask(server.url, 5) == "v1"

    assert len(asked) == tries
    assert asked[-1] - asked[0] >= 0.05 * (tries - 1)


def test_an_invalid_url_is_not_tried_again() -> None:
    """It would be refused again."""
    began = time.monotonic()
    with pytest.raises(Refused, match="is not the URL of a healthcheck"):
        version.ask("http://a b/", 60)

    assert time.monotonic() - began < version.PAUSE


@pytest.mark.parametrize(
    ("name", "valid"),
    [("mint-backend", True), ("a/b_c.d-1", True), ("", False), ("UPPER", False), ("a//b", False), ("a:b", False)],
)
def test_which_names_a_repository_of_images_can_have(name: str, valid: bool) -> None:
    if valid:
        assert version.repository(name) == name
    else:
        with pytest.raises(Refused, match=f"'{name}' is not the name of an image's repository"):
            version.repository(name)


@pytest.mark.parametrize("url", ["", "http://[::1", "http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://a b/"])
def test_an_invalid_url_is_refused(url: str) -> None:
    """Before any request."""
    with pytest.raises(Refused, match="is not the URL of a healthcheck"):
        version.answering(url, 2)
