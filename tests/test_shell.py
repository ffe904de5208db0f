"""Running other programs: with real programs, and every way to fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.edges import shell
from scripts.frame.errors import DeployError, Refused
from tests.conftest import ROOT


def test_capture_returns_what_was_printed_and_passes_input_folder_and_variables(tmp_path: Path) -> None:
    script = "cat; pwd; echo $ADDED $HOME"

    said = shell.capture(["bash", "-c", script], cwd=tmp_path, env={"ADDED": "yes"}, stdin="in\n", timeout=30)

    assert said.splitlines() == ["in", str(tmp_path), f"yes {os.environ['HOME']}"]


def test_a_program_has_no_terminal() -> None:
    """So that it uses no colours and no pager."""
    assert shell.capture(["bash", "-c", "test -t 1 || echo plain"]) == "plain"


def test_arguments_are_not_interpreted_by_a_shell() -> None:
    """Quotes, spaces and dollar signs arrive unchanged."""
    assert shell.capture(["printf", "%s", "a b; $HOME 'c'"]) == "a b; $HOME 'c'"


def test_a_missing_program_is_refused() -> None:
    """With its name and the command that needs it."""
    with pytest.raises(Refused, match=r"no-such-program is not installed: .*`no-such-program --flag`"):
        shell.capture(["no-such-program", "--flag"])


def test_a_failure_has_the_exit_code_and_the_whole_output() -> None:
    """However long it is."""
    with pytest.raises(DeployError) as error:
        shell.capture(["bash", "-c", "printf 'x%.0s' {1..2000} >&2; exit 7"])

    assert "failed with exit code 7: xxx" in str(error.value)
    assert str(error.value).count("x") >= 2000


def test_a_program_that_is_killed_is_a_failure() -> None:
    """With the number of the signal."""
    with pytest.raises(DeployError, match="failed with exit code -9"):
        shell.capture(["bash", "-c", "kill -9 $$"])


def test_a_slow_program_is_stopped() -> None:
    """The message has the time-out; that of sh is empty."""
    with pytest.raises(DeployError, match=r"`sleep 10` took longer than 0.1 s"):
        shell.capture(["sleep", "10"], timeout=0.1)


def test_a_missing_working_directory_is_an_error() -> None:
    """sh would print a traceback of its fork."""
    with pytest.raises(DeployError, match="could not be started"):
        shell.capture(["true"], cwd=Path("/no/such/folder"))


def test_stream_passes_output_on_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams of the program, because stdout is for results."""
    shell.stream(["bash", "-c", "echo out; echo err >&2"])

    captured = capfd.readouterr()
    assert captured.out == ""
    assert sorted(captured.err.split()) == ["err", "out"]


def ends_within(pid: int, seconds: float = 2.0) -> bool:
    """Whether a process ends (or becomes a zombie) within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# A program that starts another one and writes its pid; both ignore SIGTERM.
STUBBORN = "trap '' TERM; (trap '' TERM; echo $BASHPID > {}; sleep 60 & wait; sleep 60) & wait; wait; sleep 60"


def pid_in(path: Path) -> int:
    """The pid that a program wrote into a file."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError("the program has not started")


def test_a_time_out_kills_everything_that_the_program_started(tmp_path: Path) -> None:
    """Also processes that ignore SIGTERM."""
    with pytest.raises(DeployError, match=r"took longer than 0.5 s"):
        shell.capture(["bash", "-c", STUBBORN.format(tmp_path / "pid")], timeout=0.5)

    assert ends_within(pid_in(tmp_path / "pid"))


def test_sigterm_comes_before_sigkill(tmp_path: Path) -> None:
    """So that the program can clean up."""
    script = f"trap 'sleep 0.1; touch {tmp_path / 'clean'}; exit' TERM; while true; do sleep 0.01; done"
    with pytest.raises(DeployError, match="took longer than"):
        shell.capture(["bash", "-c", script], timeout=0.5)

    assert (tmp_path / "clean").exists()


def test_when_a_program_fails_what_it_started_is_killed(tmp_path: Path) -> None:
    """Otherwise it would keep running unnoticed."""
    with pytest.raises(DeployError, match="exit code 7"):
        shell.capture(["bash", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path / 'pid'}; exit 7"])

    assert ends_within(pid_in(tmp_path / "pid"))


def test_when_a_program_succeeds_what_it_started_may_keep_running(tmp_path: Path) -> None:
    """Some programs start a service."""
    shell.capture(["bash", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path / 'pid'}"])
    pid = pid_in(tmp_path / "pid")

    assert not ends_within(pid, 0.2)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("run", ["capture", "stream"])
def test_a_stop_kills_the_program_and_everything_that_it_started(
    run: str, sent: signal.Signals, tmp_path: Path
) -> None:
    """Within two seconds, although they ignore SIGTERM. It is not reported as a failure of the program."""
    script = STUBBORN.format(tmp_path / "pid")
    code = (
        "from scripts.edges import shell; from scripts.frame import run, stop\n"
        "stop.listen()\n"
        f"with run.running('test', 'dev', embedded=False): shell.{run}(['bash', '-c', {script!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    pid = pid_in(tmp_path / "pid")
    process.send_signal(sent)
    began = time.monotonic()
    _, said = process.communicate(timeout=10)

    assert time.monotonic() - began < 2
    assert process.returncode == 2
    assert said.endswith(f"stopped by {sent.name}: nothing was changed.\n")
    assert "Traceback" not in said
    assert ends_within(pid)


def test_a_program_has_its_own_process_group() -> None:
    """Ctrl-C in the terminal reaches only this process, which then ends the program."""
    group = shell.capture(["bash", "-c", "ps -o pgid= -p $$"]).strip()

    assert int(group) != os.getpgid(0)


def test_added_variables_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a variable exists, the added value is used."""
    monkeypatch.setenv("MINE", "old")

    assert shell.capture(["bash", "-c", "echo $MINE $PATH"], env={"MINE": "new"}) == f"new {os.environ['PATH']}"
