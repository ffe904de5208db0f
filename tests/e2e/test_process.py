"""The embedded AWS as a process: it is started once and stopped by its pid."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from local_aws import process
from scripts.frame.errors import DeployError, Refused
from tests.conftest import ROOT, EmbeddedCloud, Invoke


@pytest.fixture
def port() -> Iterator[int]:
    """A free port. What runs on it is stopped after the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    yield free
    process.stop(free)
    assert left(free) == []


def left(port: int) -> list[str]:
    """The files of a port in .local/."""
    return sorted(path.name for path in process.FOLDER.glob(f"*{port}*"))


def test_the_tasks_start_show_and_stop_it(port: int, invoke: Invoke) -> None:
    """On a port other than that of the settings. They say whether they changed anything, and leave no files."""

    def state(task: str) -> tuple[bool, bool, str]:
        done = invoke(task, f"--port={port}", "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)["steps"][0]["result"]
        return result["runs"], result["changed"], done.stderr.splitlines()[-1].rpartition(" (")[0]

    url = f"http://127.0.0.1:{port}"
    assert state("local.status") == (False, False, f"no embedded AWS runs at {url}")
    assert state("local.down") == (False, False, f"no embedded AWS runs at {url}")
    assert state("local.up") == (True, True, f"the embedded AWS at {url} was started")
    pid = (process.status(port) or {})["pid"]
    assert state("local.up") == (True, False, f"the embedded AWS runs at {url}")
    assert (process.status(port) or {})["pid"] == pid
    assert state("local.status") == (True, False, f"the embedded AWS runs at {url}")
    assert state("local.down") == (False, True, f"the embedded AWS at {url} was stopped")
    assert state("local.down") == (False, False, f"no embedded AWS runs at {url}")
    assert left(port) == []


def test_it_is_stopped_from_any_folder(port: int, invoke: Invoke, tmp_path: Path) -> None:
    """Here it was started in another checkout, beside one on another port, which stays."""
    for name in ("scripts", "ecs_manager", "local_aws"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "environments.toml", tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    process.ensure_running(f"http://127.0.0.1:{other}")
    try:
        start = f"from local_aws import process; process.ensure_running('http://127.0.0.1:{port}')"
        subprocess.run([sys.executable, "-c", start], cwd=tmp_path, check=True, timeout=60)
        assert (tmp_path / ".local" / f"{port}.token").exists()

        done = invoke("local.down", f"--port={port}", cwd=ROOT / "docs" / "tasks")

        assert done.returncode == 0, done.stderr
        assert f"the embedded AWS at http://127.0.0.1:{port} was stopped" in done.stderr
        assert process.status(port) is None
        assert not (tmp_path / ".local" / f"{port}.token").exists()
        assert process.status(other)
    finally:
        process.stop(other)


def test_it_ends_itself_when_nobody_asks_it(port: int) -> None:
    """After a day; here after ten seconds, which each request begins again. The log says why it is gone."""
    command = [sys.executable, "-m", "local_aws", f"--port={port}", "--idle=10"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        assert "is ready" in running.stderr.readline()
        last = time.monotonic()
        assert process.status(port)
        assert running.wait(timeout=60) == 0
        assert time.monotonic() - last >= 10
        assert running.stderr.read() == "ended after 10 seconds without a request\n"
    assert left(port) == []


def test_it_outlives_its_parent_and_gets_no_aws_credentials(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real credentials in the shell do not reach it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.setenv(name, "mine")

    process.ensure_running(f"http://127.0.0.1:{port}")

    pid = (process.status(port) or {})["pid"]
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert [one for one in variables if one.startswith("AWS_")] == [f"AWS_ENDPOINT_URL=http://127.0.0.1:{port}"]
    assert "mine" not in variables
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" not in status
    assert os.getsid(pid) != os.getsid(0)


def test_it_is_never_reached_through_a_proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on this machine, whatever HTTP_PROXY says."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert process.ensure_running(f"http://127.0.0.1:{port}") is True


def test_if_it_runs_already_no_file_is_written(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The checkout may be read-only."""
    monkeypatch.setattr(process, "FOLDER", tmp_path / "absent")

    assert process.ensure_running(cloud.url) is False
    assert not (tmp_path / "absent").exists()


def test_a_checkout_that_cannot_be_written_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder cannot be created, or the log cannot be written."""
    file = tmp_path / "file"
    file.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(process, "FOLDER", file / "absent")
        with pytest.raises(Refused, match="cannot be written"):
            process.ensure_running(f"http://127.0.0.1:{port}")
        folder = tmp_path / "folder"
        (folder / f"{port}.log").mkdir(parents=True)
        patch.setattr(process, "FOLDER", folder)
        with pytest.raises(Refused, match="cannot be written"):
            process.ensure_running(f"http://127.0.0.1:{port}")


def test_a_server_inside_another_program_is_not_stopped(cloud: EmbeddedCloud) -> None:
    """For example, the one of these tests."""
    with pytest.raises(Refused, match=f"runs inside another program, process {os.getpid()}"):
        process.stop(cloud.server.cloud.port)


def test_a_server_that_does_not_stop_is_killed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is suspended by SIGSTOP."""
    process.ensure_running(f"http://127.0.0.1:{port}")
    pid = (process.status(port) or {})["pid"]
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.5)
    status = process.status

    def frozen(asked: int) -> dict[str, Any] | None:
        told = status(asked)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return told

    monkeypatch.setattr(process, "status", frozen)
    assert process.stop(port) is True
    monkeypatch.setattr(process, "status", status)

    assert process.status(port) is None


def test_two_commands_at_the_same_time_start_one_server(port: int) -> None:
    """The second waits for the first, and both find it ready."""
    command = [
        sys.executable,
        "-c",
        f"from local_aws import process; print(process.ensure_running('http://127.0.0.1:{port}'))",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(one.communicate(timeout=60)[0].strip() for one in both)

    assert said == ["False", "True"]


def test_another_program_on_the_port_is_refused(invoke: Invoke) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with pytest.raises(Refused, match="is used by another program than the embedded AWS"):
            process.status(server.server_port)
        url = f"http://127.0.0.1:{server.server_port}"
        done = invoke("deploy-service", "--env=local", "--tag=x", AWS_ENDPOINT_URL=url)
        down = invoke("local.down", f"--port={server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    for one in (done, down):
        assert one.returncode == 2
        assert "is used by another program than the embedded AWS" in one.stderr


def test_a_server_that_does_not_start_is_an_error_with_its_log(
    port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At once, and no file is left."""
    settings = tmp_path / "settings.toml"
    text = (ROOT / "environments.toml").read_text()
    settings.write_text(text.replace("[environments.local]", "[environments.local]\nnonsense = 1"))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(settings))

    with pytest.raises(DeployError, match=r"(?s)did not start on port .*nonsense is not a known setting") as error:
        process.ensure_running(f"http://127.0.0.1:{port}")

    assert error.value.code == 1
    assert left(port) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port=x"], "'x' is not a port"),
        (["--port=٤٥٦٦"], "'٤٥٦٦' is not a port"),
        (["--port=65536"], "'65536' is not a port"),
        (["--env=dev"], "dev is not embedded"),
    ],
)
def test_invalid_flags_are_refused(words: list[str], said: str, invoke: Invoke) -> None:
    """Before anything is started."""
    done = invoke("local.up", *words)

    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:x/", "http://localhost:0"])
def test_an_endpoint_that_is_not_a_url_is_refused(url: str, invoke: Invoke) -> None:
    """By every command that needs it."""
    for task in ("local.status", "backup-database"):
        done = invoke(task, AWS_ENDPOINT_URL=url)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
