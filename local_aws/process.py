"""Starts the embedded AWS in the background, says whether it runs, and stops it.

One per port: `.local/<port>.pid` and `.local/<port>.log`.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import ROOT

FOLDER = ROOT / ".local"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
# Kept, because a forgotten process that still runs is warned of.
_started: list[subprocess.Popen[bytes]] = []


def port_of(url: str) -> int:
    """The port of an endpoint's URL."""
    return urlsplit(url).port or 80


def status(port: int) -> dict[str, Any] | None:
    """What the embedded AWS says of itself, None if nothing listens. Raises Refused for somebody else."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/_local/status")
        told = json.loads(connection.getresponse().read())
        if told["name"] == "embedded AWS":
            return dict(told)
    except ConnectionRefusedError:
        return None
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    raise Refused(f"Port {port} is used by something that is not the embedded AWS: give another one with --port.")


def ensure_running(url: str, *, containers: bool = False) -> bool:
    """Start the embedded AWS at a URL and wait until it is seeded. Returns whether it had to be started.

    Raises Refused where something else has the port, DeployError with the log's end if it does not start.
    """
    port = port_of(url)
    with _only_one(port):
        told = status(port)
        if told and told["ready"]:
            return False
        started = None
        if not told:
            console.say(f"starting the embedded AWS on port {port}")
            started = _start(port, containers)
        _wait_until_ready(port, started)
    return True


def _start(port: int, containers: bool) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "local_aws", f"--port={port}", *(["--containers"] if containers else [])]
    # Nobody's own keys or regions reach it; the settings that it is seeded from do.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    own = {"PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with _path(port, "log").open("wb") as log:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**kept, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _path(port, "pid").write_text(str(process.pid))
    _started.append(process)
    return process


def _wait_until_ready(port: int, process: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        told = None
        # While it begins or ends, its port may be open and nobody answers there.
        with suppress(Refused):
            told = status(port)
        if told and told["ready"]:
            return
        if process and process.poll() is not None:
            break
        time.sleep(0.05)
    tail = _path(port, "log").read_text(errors="replace")[-2000:].strip()
    raise DeployError(f"The embedded AWS did not start on port {port}: {tail or 'its log is empty'}")


def stop(port: int) -> bool:
    """Stop the embedded AWS on a port, by the id that it was started with. Returns whether one ran."""
    with _only_one(port):
        pid = _pid(port)
        _path(port, "pid").unlink(missing_ok=True)
        if pid is None or not _alive(pid):
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while _alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        return True


def _pid(port: int) -> int | None:
    try:
        return int(_path(port, "pid").read_text())
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    """Whether a process is ours and runs: an id may belong to another program by now."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return b"\0local_aws\0--port=" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return _answers(pid) if not Path("/proc").is_dir() else False


def _answers(pid: int) -> bool:
    """Whether a process takes signals, where there is no /proc to look into."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _path(port: int, kind: str) -> Path:
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"{port}.{kind}"


@contextmanager
def _only_one(port: int) -> Iterator[None]:
    """Two commands that begin together start one embedded AWS between them."""
    with _path(port, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
