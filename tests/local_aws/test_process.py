"""The embedded AWS as a process: started once, whoever asks, and stopped by its id."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from local_aws import process
from scripts.frame.errors import Refused
from tests.conftest import ROOT, Invoke


@pytest.fixture
def port() -> Iterator[int]:
    """A free port; whatever is started on it is stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    yield free
    process.stop(free)
    for kind in ("log", "lock"):
        (process.FOLDER / f"{free}.{kind}").unlink(missing_ok=True)


def test_it_is_started_looked_at_and_stopped(port: int, invoke: Invoke) -> None:
    """By the tasks, on another port than the settings'."""
    words = (f"--port={port}", "--json")

    def runs(task: str) -> bool:
        done = invoke(task, *words)
        assert done.returncode == 0, done.stderr
        return bool(json.loads(done.stdout)["steps"][0]["result"]["runs"])

    assert runs("local.status") is False
    assert runs("local.up") is True
    pid = int((process.FOLDER / f"{port}.pid").read_text())
    assert runs("local.up") is True
    assert int((process.FOLDER / f"{port}.pid").read_text()) == pid
    assert runs("local.status") is True
    assert runs("local.down") is False
    assert not (process.FOLDER / f"{port}.pid").exists()
    assert runs("local.down") is False


def test_two_commands_that_begin_together_start_one(port: int) -> None:
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


def test_a_stale_id_is_no_obstacle(port: int) -> None:
    """The machine was switched off, and another program has the id now."""
    process.FOLDER.mkdir(exist_ok=True)
    (process.FOLDER / f"{port}.pid").write_text(str(os.getpid()))

    assert process.stop(port) is False
    assert process.ensure_running(f"http://127.0.0.1:{port}") is True


def test_somebody_elses_server_is_left_alone(invoke: Invoke) -> None:
    """With one sentence, before anything is sent to it."""

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
        with pytest.raises(Refused, match="is used by something that is not the embedded AWS"):
            process.status(server.server_port)
        url = f"http://127.0.0.1:{server.server_port}"
        done = invoke("deploy-service", "--env=local", "--tag=x", AWS_ENDPOINT_URL=url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert done.returncode == 2
    assert "is used by something that is not the embedded AWS" in done.stderr


def test_a_server_that_does_not_start_says_why(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """With the end of its log."""
    settings = f"{tmp_path}/settings.toml"
    with open(settings, "w") as file:
        file.write(
            (ROOT / "environments.toml")
            .read_text()
            .replace("[environments.local]", "[environments.local]\nnonsense = 1")
        )
    monkeypatch.setenv("ENVIRONMENTS_FILE", settings)

    with pytest.raises(Exception, match=r"(?s)did not start on port .*nonsense is not a known setting"):
        process.ensure_running(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("words", "said"), [(["--port=x"], "'x' is not a port"), (["--env=dev"], "dev is not embedded")]
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, invoke: Invoke) -> None:
    """Before anything is started."""
    done = invoke("local.up", *words)

    assert done.returncode == 2
    assert said in done.stderr
