"""The door to other programs: real programs, every way to fail."""

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


def ends_within(pid: int, seconds: float = 2.0) -> bool:
    """Whether a process is gone, or only waits to be collected, within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# A program that starts another one and says its id; neither listens to SIGTERM.
STUBBORN = "trap '' TERM; (trap '' TERM; echo $BASHPID > {}; sleep 60 & wait; sleep 60) & wait; wait; sleep 60"


def pid_in(path: Path) -> int:
    """The process id that a program has written down."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError("the program has not started")


def test_a_time_out_ends_all_that_the_program_has_started(tmp_path: Path) -> None:
    """Also what does not listen to SIGTERM."""
    with pytest.raises(DeployError, match=r"took longer than 0.5 s"):
        shell.capture(["bash", "-c", STUBBORN.format(tmp_path / "pid")], timeout=0.5)

    assert ends_within(pid_in(tmp_path / "pid"))


def test_a_program_gets_a_moment_to_clean_up(tmp_path: Path) -> None:
    """SIGTERM comes before SIGKILL."""
    script = f"trap 'sleep 0.1; touch {tmp_path / 'clean'}; exit' TERM; while true; do sleep 0.01; done"
    with pytest.raises(DeployError, match="took longer than"):
        shell.capture(["bash", "-c", script], timeout=0.5)

    assert (tmp_path / "clean").exists()


def test_a_program_that_fails_takes_along_what_it_has_started(tmp_path: Path) -> None:
    """What it leaves running would go on unseen."""
    with pytest.raises(DeployError, match="exit code 7"):
        shell.capture(["bash", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path / 'pid'}; exit 7"])

    assert ends_within(pid_in(tmp_path / "pid"))


def test_a_program_that_ends_well_may_leave_another_one_behind(tmp_path: Path) -> None:
    """As those do that start a service."""
    shell.capture(["bash", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path / 'pid'}"])
    pid = pid_in(tmp_path / "pid")

    assert not ends_within(pid, 0.2)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("run", ["capture", "stream"])
def test_a_stop_ends_the_program_and_all_that_it_has_started(run: str, sent: signal.Signals, tmp_path: Path) -> None:
    """Within two seconds, although none of them listens to SIGTERM; a failure of the program is not reported."""
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


def test_a_program_is_not_in_our_group() -> None:
    """So that a Ctrl-C at the terminal reaches us alone, and we end it in order."""
    group = shell.capture(["bash", "-c", "ps -o pgid= -p $$"]).strip()

    assert int(group) != os.getpgid(0)


def test_added_variables_take_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is given twice is the one that was added."""
    monkeypatch.setenv("MINE", "old")

    assert shell.capture(["bash", "-c", "echo $MINE $PATH"], env={"MINE": "new"}) == f"new {os.environ['PATH']}"
