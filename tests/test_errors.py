"""The exit codes that callers rely on, and what is printed of a bug."""

import sys
import threading
from pathlib import Path

import pytest

from scripts.frame import errors, text
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.stop import Stopped

SECRET = "a-secret-of-the-tests"


@pytest.mark.parametrize(
    ("kind", "code"), [(DeployError, 1), (Refused, 2), (OutcomeUnknown, 3), (RolledBack, 4)], ids=lambda one: str(one)
)
def test_every_kind_of_error_has_its_exit_code(kind: type[DeployError], code: int) -> None:
    """With another message too. The message is all of its text."""
    error = kind("it\x1b[31m failed")
    again = error.with_message("because")

    assert (error.code, str(error)) == (code, r"it\x1b[31m failed")
    assert (type(again), again.code, str(again)) == (kind, code, "because")


@pytest.mark.parametrize("kind", [DeployError, Refused, OutcomeUnknown, RolledBack])
def test_an_error_after_something_was_started_leaves_the_outcome_unknown(kind: type[DeployError]) -> None:
    """The message begins with what was started. A bug stays a bug."""
    with pytest.raises(OutcomeUnknown, match=r"^a task was started: no\.$"), errors.unknown_after("a task was started"):
        raise kind("no.")
    with pytest.raises(ZeroDivisionError), errors.unknown_after("a task was started"):
        raise ZeroDivisionError


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bugs are shown as they are in a command, on a terminal where something is drawn."""
    monkeypatch.setattr(text, "_hidden", {SECRET})
    monkeypatch.setattr(errors, "_erase", str)
    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    errors.hook_tracebacks()
    errors.erase_with(lambda: "<erased>")


def fail(error: BaseException) -> None:
    """Fail with an error."""
    raise error


@pytest.mark.usefixtures("hooked")
def test_the_traceback_of_a_bug_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing that acts on a terminal, which the display leaves first. It is there at once."""
    with (tmp_path / "stderr").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        try:
            fail(ValueError(f"{SECRET} \x1b[2J"))
        except ValueError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        said = (tmp_path / "stderr").read_text()

    assert capsys.readouterr() == ("", "")
    assert said.startswith("<erased>Traceback (most recent call last):\n")
    assert said.endswith("in fail\n    raise error\nValueError: *** \\x1b[2J\n")


@pytest.mark.usefixtures("hooked")
@pytest.mark.parametrize(
    ("error", "last"), [(ValueError(SECRET), ["ValueError: ***"]), (Stopped("SIGTERM"), []), (KeyboardInterrupt(), [])]
)
def test_a_bug_in_a_thread_is_shown_and_a_stop_is_not(
    error: BaseException, last: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The main thread says that it was stopped."""
    thread = threading.Thread(target=fail, args=(error,))
    thread.start()
    thread.join()

    assert capsys.readouterr().err.splitlines()[-1:] == last
