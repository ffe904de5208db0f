"""The door to other programs: real programs, every way to fail."""

import os
from pathlib import Path

import pytest

from scripts.edges import shell
from scripts.frame.errors import DeployError, Refused


def test_capture_returns_what_was_printed_and_passes_input_folder_and_variables(tmp_path: Path) -> None:
    """Standard input, the working directory and added variables reach the program."""
    script = "cat; pwd; echo $ADDED $HOME"

    said = shell.capture(["bash", "-c", script], cwd=tmp_path, env={"ADDED": "yes"}, stdin="in\n")

    assert said.splitlines() == ["in", str(tmp_path), f"yes {os.environ['HOME']}"]


def test_a_program_has_no_terminal() -> None:
    """So that it prints no colours and pages nothing."""
    assert shell.capture(["bash", "-c", "test -t 1 || echo plain"]) == "plain"


def test_arguments_are_never_read_as_shell() -> None:
    """Quotes, spaces and dollars arrive as they are."""
    assert shell.capture(["printf", "%s", "a b; $HOME 'c'"]) == "a b; $HOME 'c'"


def test_a_missing_program_is_refused_by_its_name() -> None:
    """With the command that needed it."""
    with pytest.raises(Refused, match=r"no-such-program is not installed: .*`no-such-program --flag`"):
        shell.capture(["no-such-program", "--flag"])


def test_a_failure_gives_the_exit_code_and_all_that_the_program_said() -> None:
    """However long it is."""
    with pytest.raises(DeployError) as error:
        shell.capture(["bash", "-c", "printf 'x%.0s' {1..2000} >&2; exit 7"])

    assert "failed with exit code 7: xxx" in str(error.value)
    assert str(error.value).count("x") >= 2000


def test_a_program_that_is_killed_has_failed() -> None:
    """By the number of the signal."""
    with pytest.raises(DeployError, match="failed with exit code -9"):
        shell.capture(["bash", "-c", "kill -9 $$"])


def test_a_slow_program_is_stopped() -> None:
    """With the time in the message, which sh itself leaves empty."""
    with pytest.raises(DeployError, match=r"`sleep 10` took longer than 0.1 s"):
        shell.capture(["sleep", "10"], timeout=0.1)


def test_a_folder_that_is_not_there_is_said() -> None:
    """Instead of a traceback of the fork."""
    with pytest.raises(DeployError, match="could not be started"):
        shell.capture(["true"], cwd=Path("/no/such/folder"))


def test_stream_passes_output_on_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams of the program, so that stdout stays for results."""
    shell.stream(["bash", "-c", "echo out; echo err >&2"])

    captured = capfd.readouterr()
    assert captured.out == ""
    assert sorted(captured.err.split()) == ["err", "out"]
