"""Starts the embedded AWS in the background, says whether it runs, and stops it.

There is one per port, and the port itself is asked whether it runs. `.local/` has its log and its token meanwhile.
"""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.edges import http
from scripts.edges.http import Unreachable
from scripts.frame import console
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import ROOT
from scripts.frame.waiting import TimedOut, wait

FOLDER = ROOT / ".local"
ANSWER_TIMEOUT = 5.0
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
INTERVAL = 0.05
# How many characters at the end of the log are shown if it does not start.
TAIL = 2000


def port_of(url: str) -> int:
    """The port of an endpoint's URL. Raises Refused for what is not a URL."""
    return urlsplit(http.checked(url, "the URL of an embedded AWS")).port or 80


def status(port: int) -> dict[str, Any] | None:
    """The status of the embedded AWS on a port, None if nothing listens. Raises Refused if another program does."""
    try:
        answer = http.request("GET", f"http://127.0.0.1:{port}/_local/status", timeout=ANSWER_TIMEOUT)
        told = answer.record(dict[str, Any])
        if told.get("name") == "embedded AWS":
            return told
    except Unreachable as error:
        if not error.sent:
            return None
    except ValueError:
        pass
    raise Refused(f"Port {port} is used by another program than the embedded AWS: give another port with --port.")


def ensure_running(url: str, *, idle: float | None = None) -> bool:
    """Start the embedded AWS at a URL and wait until it is seeded. Returns whether it had to be started.

    idle: seconds without a request after which it ends itself, by default a day.
    Raises Refused if another program has the port or `.local/` cannot be written, DeployError with the end of the log
    if it does not start, OutcomeUnknown if that takes too long.
    """
    port = port_of(url)
    # Usually it runs already. Then nothing is written, because the checkout may be read-only.
    if _is_ready(port):
        return False
    with _locked():
        alive = None
        if status(port) is None:
            console.say(f"starting the embedded AWS on port {port}")
            alive = _start(port, idle)
        try:
            _wait_until_ready(port, alive)
        finally:
            if alive is not None:
                os.close(alive)
    return alive is not None


def _is_ready(port: int) -> bool:
    """Whether it runs and is seeded. While it starts or stops, its port may be open without an answer: not ready."""
    with suppress(Refused):
        told = status(port)
        return told is not None and bool(told.get("ready"))
    return False


def _is_free(port: int) -> bool | None:
    """True where nothing listens on a port, else None."""
    with suppress(Refused):
        return True if status(port) is None else None
    return None


def _start(port: int, idle: float | None) -> int:
    """Start it in the background. Returns the reading end of a pipe that is closed when it ends."""
    arguments = [sys.executable, "-m", "local_aws", f"--port={port}", "--background"]
    arguments += [f"--idle={idle:g}"] if idle else []
    # Not the person's AWS_ variables, and no proxy, because it only sends requests to itself. The others stay, because
    # the settings that it is seeded from may use them.
    kept = {name: value for name, value in os.environ.items() if not re.match(r"AWS_|.*_proxy$", name, re.I)}
    own = {"PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    alive, held = os.pipe()
    try:
        with _log(port).open("wb") as log:
            subprocess.run(
                arguments,
                cwd=ROOT,
                env={**kept, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[held],
                check=False,
            )
    except OSError as error:
        os.close(alive)
        raise _not_writable(error) from error
    finally:
        os.close(held)
    return alive


def _wait_until_ready(port: int, alive: int | None) -> None:
    """Wait until it is seeded. alive: the pipe from _start, None if somebody else has started it."""

    def look() -> tuple[str, bool | None]:
        if _is_ready(port):
            return "", True
        if alive is not None and select.select([alive], [], [], 0)[0]:
            why = _log(port).read_text(errors="replace")[-TAIL:].strip()
            _log(port).unlink(missing_ok=True)
            raise DeployError(f"The embedded AWS did not start on port {port}: {why or 'its log is empty'}")
        return "", None

    try:
        wait(look, seconds=START_TIMEOUT, every=INTERVAL)
    except TimedOut as error:
        message = f"The embedded AWS on port {port} is not ready after {START_TIMEOUT:g} s: read {_log(port)}."
        raise OutcomeUnknown(message) from error


def stage(port: int, scenario: str) -> None:
    """Start a scenario of scenarios.py in the embedded AWS on a port. Raises Refused if it does not take it."""
    _control(port, "scenario", {"name": scenario})


def reset(port: int) -> None:
    """Delete everything in the embedded AWS on a port, and seed it again. Raises Refused if it does not do so."""
    _control(port, "reset", {})


def _control(port: int, name: str, given: dict[str, str]) -> None:
    try:
        token = token_path(port).read_text()
    except OSError as error:
        raise Refused(f"{token_path(port)} cannot be read ({error.strerror}): it holds the token to do so.") from error
    url, headers = f"http://127.0.0.1:{port}/_local/{name}", {"X-Local-AWS-Token": token}
    answer = http.request("POST", url, timeout=START_TIMEOUT, headers=headers, body=json.dumps(given).encode())
    if not answer.ok:
        raise Refused(f"The embedded AWS on port {port} does not take the {name}: {answer.body.decode()[:200]}")


def stop(port: int) -> bool:
    """Stop the embedded AWS on a port, whoever has started it. Returns whether one ran.

    Raises Refused if another program has the port, or if it runs inside another program.
    """
    with _locked():
        told = status(port)
        if told is not None:
            _end(port, told.get("pid"))
        for path in (_log(port), token_path(port)):
            path.unlink(missing_ok=True)
    return told is not None


def _end(port: int, pid: Any) -> None:
    """End the process that answers on a port, and wait until it is gone."""
    if type(pid) is not int or not _runs(pid):
        raise Refused(f"The embedded AWS on port {port} runs inside another program, process {pid}: end that program.")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, TimedOut):
            os.kill(pid, number)
            # The port is freed a moment after /proc shows the process as ended.
            wait(lambda: ("", None if _runs(pid) else _is_free(port)), seconds=STOP_TIMEOUT, every=INTERVAL)
            return


def _runs(pid: int) -> bool:
    """Whether a process is an embedded AWS. The pid is not trusted: any program may have answered on the port."""
    # Others mean a group of processes, or all of them.
    if not 1 < pid < 1 << 31:
        return False
    try:
        return b"\0-m\0local_aws\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return _takes_signals(pid) if not Path("/proc").is_dir() else False


def _takes_signals(pid: int) -> bool:
    """Whether a process exists that can be signalled, for a system without /proc."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def token_path(port: int) -> Path:
    """The file of the token that its control paths need."""
    return FOLDER / f"{port}.token"


def _log(port: int) -> Path:
    return FOLDER / f"{port}.log"


@contextmanager
def _locked() -> Iterator[None]:
    """Lock `.local/` itself, so that two commands that begin at the same time start one embedded AWS."""
    try:
        FOLDER.mkdir(exist_ok=True)
        folder = os.open(FOLDER, os.O_RDONLY)
    except OSError as error:
        raise _not_writable(error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _not_writable(error: OSError) -> Refused:
    return Refused(
        f"{FOLDER} cannot be written ({error.strerror}): the embedded AWS keeps its log and its token there. Make it"
        " writable, or give --env."
    )
