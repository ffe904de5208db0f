"""What is printed where: on stdout, on stderr, in the files of GitHub Actions, and on a terminal."""

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.frame import console, text
from scripts.frame.report import Bar

OUTSIDE, ACTIONS = "", "true"


@pytest.mark.parametrize(
    ("actions", "say", "printed", "said"),
    [
        (OUTSIDE, lambda: console.say("a"), "", "a\n"),
        (OUTSIDE, lambda: console.say(), "", "\n"),
        (OUTSIDE, lambda: console.relay("a\n"), "", "a\n"),
        (OUTSIDE, lambda: console.relay("a"), "", "a\n"),
        (OUTSIDE, lambda: console.result("a\nb"), "a\nb\n", ""),
        (OUTSIDE, lambda: console.document('{"a": 1}'), '{"a": 1}\n', ""),
        (OUTSIDE, lambda: console.warn("a", title="b"), "", "warning: a\n"),
        (OUTSIDE, lambda: console.error("a"), "", ""),
        (OUTSIDE, lambda: console.mask("a" * 16), "", ""),
        (ACTIONS, lambda: console.say("::a"), "", ": :a\n"),
        (ACTIONS, lambda: console.warn("a"), "", "::warning::a\n"),
        (ACTIONS, lambda: console.warn("a", file="b:c", title="d,e"), "", "::warning file=b%3Ac,title=d%2Ce::a\n"),
        (ACTIONS, lambda: console.error("100 %\nof it", title="a"), "", "::error title=a::100 %25%0Aof it\n"),
        (ACTIONS, lambda: console.mask(""), "", ""),
        (ACTIONS, lambda: console.mask("a%\nb"), "", "::add-mask::a%25\n::add-mask::b\n"),
    ],
)
def test_what_is_printed_where(
    actions: str,
    say: Callable[[], None],
    printed: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Narration on stderr, results on stdout, workflow commands in Actions alone."""
    monkeypatch.setattr(text, "_hidden", set())
    monkeypatch.setenv("GITHUB_ACTIONS", actions)

    say()

    assert capsys.readouterr() == (printed, said)


@pytest.mark.parametrize("actions", [OUTSIDE, ACTIONS])
def test_a_masked_secret_is_never_printed(
    actions: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside Actions either."""
    monkeypatch.setattr(text, "_hidden", set())
    monkeypatch.setenv("GITHUB_ACTIONS", actions)
    console.mask("a-secret-of-the-tests")
    capsys.readouterr()

    console.say("it is a-secret-of-the-tests")
    console.result("it is a-secret-of-the-tests")

    assert capsys.readouterr() == ("it is ***\n", "it is ***\n")


@pytest.mark.parametrize(
    ("actions", "said"), [(OUTSIDE, "a\nb\n"), (ACTIONS, "::group::a\nb\n::endgroup::\n")], ids=["outside", "Actions"]
)
def test_a_group_has_a_title_and_ends_with_its_block(
    actions: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if that fails."""
    monkeypatch.setenv("GITHUB_ACTIONS", actions)
    with suppress(ZeroDivisionError), console.group("a"):
        console.say("b")
        raise ZeroDivisionError

    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("stream", "actions", "say", "there"),
    [
        ("stderr", OUTSIDE, lambda: console.say("a"), "a\n"),
        ("stdout", OUTSIDE, lambda: console.result("a"), "a\n"),
        ("stdout", OUTSIDE, lambda: console.document("{}"), "{}\n"),
        ("stderr", ACTIONS, lambda: console.warn("a"), "::warning::a\n"),
        ("stderr", OUTSIDE, lambda: console.confirm("a?", "b"), "a? "),
    ],
    ids=["narration", "result", "document", "workflow command", "question"],
)
def test_what_is_printed_is_there_at_once(
    stream: str,
    actions: str,
    say: Callable[[], None],
    there: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that is killed after it loses none of it, whatever it writes to."""
    monkeypatch.setenv("GITHUB_ACTIONS", actions)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, stream, file)
        say()

        assert (tmp_path / "file").read_text() == there


@pytest.mark.parametrize(
    ("server", "path", "url"),
    [
        ("", "a/b", "https://github.com/a/b"),
        ("https://git.example:8443", "a/b?c=d", "https://git.example:8443/a/b?c=d"),
        ("javascript:x", "a/b", "https://github.com/a/b"),
        ("https://git.example/ x", "a/b", "https://github.com/a/b"),
        ("", "a b/é#1/%41/\ud800", "https://github.com/a%20b/%C3%A9%231/%41/?"),
    ],
)
def test_where_a_page_on_github_is(server: str, path: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub Enterprise has a server of its own."""
    monkeypatch.setenv("GITHUB_SERVER_URL", server)

    assert console.github(path) == url


def test_the_files_of_actions_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each output, whatever is in it. Outside Actions they are not touched."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for actions in (OUTSIDE, ACTIONS):
        monkeypatch.setenv("GITHUB_ACTIONS", actions)
        console.output("a", f"{actions} é\nb")
        console.output("c", "d" * 5001)
        console.summary(f"# {actions} é\n")
        console.summary("end")

    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"a=true é b\nc={'d' * 4999}…\n"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == "# true é\n\nend\n"
    assert capsys.readouterr() == ("", "")


def test_a_file_of_actions_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's outcome does not depend on it; without the variable nothing is said."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path))

    console.output("a", "b")
    console.summary("c")

    assert capsys.readouterr().err == "::warning::GITHUB_OUTPUT cannot be written: Is a directory\n"


# --- a terminal ---


class Terminal:
    """A pty, and a stream to it."""

    def __init__(self) -> None:
        self._leader, follower = pty.openpty()
        self.stream = open(follower, "w", buffering=1)  # noqa: SIM115

    def close(self) -> str:
        """What was written to it."""
        self.stream.write("<end>\n")
        shown = b""
        while b"<end>" not in shown:
            shown += os.read(self._leader, 1 << 16)
        self.stream.close()
        os.close(self._leader)
        return shown.decode().partition("<end>")[0]


@pytest.fixture
def terminal() -> Terminal:
    """One that nothing was written to."""
    return Terminal()


@pytest.mark.parametrize(
    ("at", "variables", "asks"), [(True, {}, True), (True, {"CI": "true"}, False), (False, {}, False)], ids=str
)
def test_a_person_can_be_asked_at_a_terminal(
    at: bool, variables: dict[str, str], asks: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never in CI."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", terminal.stream if at else io.StringIO())

    assert console.interactive() is asks
    terminal.close()


@pytest.mark.parametrize(("typed", "agreed"), [("prod\n", True), (" prod \n", True), ("yes\n", False), ("", False)])
def test_a_confirmation_is_the_word_itself(
    typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))

    assert console.confirm("Type prod to continue:", "prod") is agreed
    assert capsys.readouterr() == ("", "Type prod to continue: ")


def test_without_a_terminal_there_is_no_width(capfd: pytest.CaptureFixture[str]) -> None:
    assert console.width() == 0


def test_the_width_is_that_of_the_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl.ioctl(terminal.stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    monkeypatch.setattr(sys, "stdout", terminal.stream)

    assert console.width() == 77
    terminal.close()


@pytest.mark.parametrize(
    ("title", "variables", "shown"),
    [
        ("deploy", {}, True),
        ("", {}, False),
        ("deploy", {"TERM": "dumb"}, False),
        ("deploy", {"TERM": "unknown"}, False),
        ("deploy", {"TERM": ""}, False),
        ("deploy", {"CI": "true"}, False),
        ("deploy", {"GITHUB_ACTIONS": "true"}, False),
    ],
    ids=str,
)
def test_steps_and_progress_are_drawn_for_a_person_at_a_terminal(
    title: str, variables: dict[str, str], shown: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the lines, and until the end of the block. Nothing is drawn where it cannot be, and in CI."""
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal.stream)

    with console.live(title):
        console.step(["build", "migrate"], 1)
        console.progress(Bar("files", 3, 8, "3 of 8 files"), event="it goes on")
        console.say("a line")
        # It has the terminal to itself, and all is drawn again after it.
        console.result("a result")
    console.step(["never", "shown"], 0)
    console.progress(Bar("never", 1, 2, "1 of 2"))
    monkeypatch.undo()

    said = terminal.close()
    assert said.count("\x1b[Ja line\r\n") == said.count("\x1b[Ja result\r\n") == shown
    assert "a line\r\n" in said
    assert [one in said for one in ("deploy", "migrate", "3 of 8 files", "it goes on")] == [shown] * 4
    assert "never" not in said
    assert said.endswith("\x1b[J" if shown else "a result\r\n")


def test_without_a_terminal_nothing_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with console.live("deploy"):
        console.step(["build", "migrate"], 1)

    assert capsys.readouterr() == ("", "")
