"""What every test runs in: no credentials, no home, no CI of the machine that it runs on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own settings, keys or CI change what a test sees."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GITHUB_", "GIT_", "INVOKE_", "STATIC_", "STORYBOOK_", "OKTA_", "LD_")):
            monkeypatch.delenv(name)
    for name in ("APP_ENV", "CI", "ENVIRONMENTS_FILE", "SLACK_WEBHOOK_URL", "RUNNER_TEMP"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


class Invoke(Protocol):
    """Runs the real command line in a process of its own."""

    def __call__(self, *words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def invoke() -> Invoke:
    """`invoke("deploy-service", "--env=dev", APP_ENV="dev")`: exit code, stdout and stderr of a run."""

    def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
