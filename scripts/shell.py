"""The one door to other programs, and the only importer of sh.

Arguments are a list of strings, never a shell line; secrets go in by `stdin` or `env`, never as
arguments. A program that is missing, fails or is too slow is a DeployError with its own words.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

from scripts.errors import DeployError, Refused


def available(program: str) -> bool:
    """Whether a program is on the PATH."""
    return which(program) is not None


def capture(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return what it printed on stdout, without the last newline.

    env: variables added to those of this process. timeout: seconds.
    Raises Refused if the program is missing, DeployError if it fails or takes too long.
    """
    return str(_run(arguments, cwd, env, stdin, timeout, {})).rstrip("\n")


def stream(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> None:
    """Run a program whose output, stdout and stderr both, passes to our stderr as it comes.

    Raises as `capture` does.
    """
    redirect = {"_out": _to_stderr, "_err": _to_stderr}
    _run(arguments, cwd, env, stdin, timeout, redirect)


def words(arguments: Sequence[str]) -> str:
    """Show a command as a person could paste it."""
    return shlex.join(arguments)


def _to_stderr(chunk: str) -> None:
    print(chunk, end="", file=sys.stderr, flush=True)


def _run(
    arguments: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: str | None,
    timeout: float | None,
    redirect: Mapping[str, Any],
) -> object:
    import sh

    program = arguments[0]
    if not available(program):
        raise Refused(f"{program} is not installed: it is needed to run `{words(arguments)}`.")
    options: dict[str, Any] = {
        "_tty_out": False,
        "_cwd": str(cwd) if cwd else None,
        "_env": {**os.environ, **(env or {})},
        "_timeout": timeout,
        **redirect,
    }
    if stdin is not None:
        options["_in"] = stdin
    running = None
    try:
        running = sh.Command(program)(*arguments[1:], _bg=True, _bg_exc=False, _return_cmd=True, **options)
        return running.wait()
    except sh.TimeoutException as error:
        raise DeployError(f"`{words(arguments)}` took longer than {timeout} s.") from error
    except sh.ErrorReturnCode as error:
        said = (error.stderr or error.stdout or b"").decode(errors="replace").strip()
        raise DeployError(
            f"`{words(arguments)}` failed with exit code {error.exit_code}" + (f": {said}" if said else ".")
        ) from error
    except sh.ForkException as error:
        raise DeployError(f"`{words(arguments)}` could not be started: {error}") from error
    except BaseException:
        # A signal ended the wait: the program must not go on without us.
        if running is not None and running.is_alive():
            running.terminate()
        raise
