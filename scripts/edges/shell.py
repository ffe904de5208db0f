"""Runs other programs; the only importer of sh.

Arguments are a list of strings, never a shell line; secrets are passed by `stdin` or `env`, never as arguments. A
program that is missing, fails or is too slow raises a DeployError with its output. Each program gets a process group of
its own, so that everything it starts ends with it or with this process.
"""

import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from scripts.frame import console, stop
from scripts.frame.errors import DeployError, Refused

if TYPE_CHECKING:
    import sh

# Seconds between SIGTERM and SIGKILL.
GRACE = 0.5


def available(program: str) -> bool:
    """Whether a program is on the PATH."""
    return which(program) is not None


def capture(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return what it printed on stdout, without the last newline.

    env: variables added to those of this process; None removes one. timeout: seconds.
    Raises Refused if the program is missing, DeployError if it fails or takes too long.
    """
    return str(_run(arguments, cwd, env, stdin, timeout, {})).rstrip("\n")


def stream(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    codes: Sequence[int] = (0,),
) -> int:
    """Run a program and copy its stdout and stderr to our stderr as they come. Returns its exit code.

    codes: the exit codes that are no failure. Raises as `capture` does.
    """
    redirect = {"_out": console.relay, "_err": console.relay, "_ok_code": list(codes)}
    return int(_run(arguments, cwd, env, stdin, timeout, redirect).exit_code)


def words(arguments: Sequence[str]) -> str:
    """A command as a shell line, for messages."""
    return shlex.join(arguments)


def _run(
    arguments: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str | None] | None,
    stdin: str | None,
    timeout: float | None,
    redirect: Mapping[str, Any],
) -> "sh.RunningCommand":
    import sh

    program = arguments[0]
    if not available(program):
        raise Refused(f"{program} is not installed: it is needed to run `{words(arguments)}`.")
    options: dict[str, Any] = {
        "_tty_out": False,
        "_cwd": str(cwd) if cwd else None,
        "_env": {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None},
        # A session of its own: its children can be ended with it, and Ctrl-C reaches only this process.
        "_new_session": True,
        # File names and commit messages can be in any encoding.
        "_decode_errors": "replace",
        **redirect,
    }
    if stdin is not None:
        options["_in"] = stdin

    def start() -> "sh.RunningCommand":
        running: sh.RunningCommand = sh.Command(program)(
            *arguments[1:], _bg=True, _bg_exc=False, _return_cmd=True, **options
        )
        stop.watch(running.pid)
        return running

    try:
        with stop.owned(start, _end) as running:
            # Not sh's own timeouts: one kills at once, the other does not wait for all output.
            if timeout is not None and not _ends(running, timeout):
                raise DeployError(f"`{words(arguments)}` took longer than {timeout:g} s and was ended.")
            running.wait()
            return running
    except sh.ErrorReturnCode as error:
        said = (error.stderr or error.stdout or b"").decode(errors="replace").strip()
        raise DeployError(
            f"`{words(arguments)}` failed with exit code {error.exit_code}" + (f": {said}" if said else ".")
        ) from error
    except sh.ForkException as error:
        raise DeployError(f"`{words(arguments)}` could not be started: {error}") from error


def _ends(running: "sh.RunningCommand", timeout: float) -> bool:
    """Wait for a program's end. Returns False if it is still running after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while running.is_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _end(running: "sh.RunningCommand") -> None:
    """End a program's process group, unless the program exited with 0: then its background processes may stay."""
    group = running.pid
    if running.is_alive() or running.exit_code != 0:
        deadline = time.monotonic() + GRACE
        there = _signal(group, signal.SIGTERM)
        while there and time.monotonic() < deadline:
            time.sleep(0.02)
            running.is_alive()  # collects it, if it has ended
            there = _signal(group, 0)
        _signal(group, signal.SIGKILL)
    stop.unwatch(group)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group. Returns whether the group exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
