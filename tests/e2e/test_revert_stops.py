"""A revert that is stopped at any of its steps, in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Invoke
from tests.stand_in import Reply, stand_in
from tests.test_revert import Checkout, checkout, hook, revert, settings, template, token

__all__ = ["checkout", "template"]

# A git that sleeps once, before or after the command that matches $AT.
SLOW_GIT = """#!/bin/sh
case " $* " in *" $AT "*) [ -e "$BEGUN" ] || hit=yes ;; esac
if [ "$hit$WHEN" = yesbefore ]; then touch "$BEGUN"; sleep "$PAUSE"; fi
"$GIT" "$@"
code=$?
if [ "$hit$WHEN" = yesafter ]; then touch "$BEGUN"; sleep "$PAUSE"; fi
exit $code
"""


INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(
    ("at", "when", "pause", "sent", "code"),
    [
        ("fetch", "before", 30, INT, 2),
        ("merge-base", "after", 30, TERM, 2),
        ("branch --no-track", "after", 0.2, INT, 3),
        ("worktree add", "before", 0.2, TERM, 3),
        ("worktree add", "after", 0.2, INT, 3),
        ("reset", "before", 30, TERM, 3),
        ("revert", "before", 30, INT, 3),
        ("revert", "after", 30, TERM, 3),
        ("push", "before", 30, INT, 3),
        ("push", "after", 30, TERM, 3),
        ("worktree remove", "after", 0.2, INT, 3),
        ("the pull request", "", 0, TERM, 3),
    ],
)
def test_a_stop_leaves_nothing_behind(
    checkout: Checkout, tmp_path: Path, at: str, when: str, pause: float, sent: signal.Signals, code: int
) -> None:
    """No branch, worktree or temporary folder, locally or on the remote."""
    begun, folder, programs = tmp_path / "begun", tmp_path / "temporary", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (programs / "git").write_text(SLOW_GIT)
    (programs / "git").chmod(0o755)
    before = checkout.state()

    def answer(*_: str) -> Reply:
        begun.touch()
        return Reply(b"", delay=5)

    with stand_in(answer) as api:
        variables = {
            **token(api),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "GIT": shutil.which("git") or "",
            "AT": at,
            "WHEN": when,
            "PAUSE": str(pause),
            "BEGUN": str(begun),
            "TMPDIR": str(folder),
            "GITHUB_REPOSITORY": "owner/app",
            "ENVIRONMENTS_FILE": settings(checkout),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", f"--search-root={ROOT}", "revert"],
            cwd=checkout.folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        stopped = time.monotonic()
        process.send_signal(sent)
        said = process.communicate(timeout=30)[1]
        took = time.monotonic() - stopped

    assert process.returncode == code, said
    assert took < 2.5
    assert f"stopped by {sent.name}" in said
    assert checkout.state() == before
    assert list(folder.iterdir()) == []
    assert "Traceback" not in said


def test_a_run_after_a_stop_completes(checkout: Checkout, invoke: Invoke) -> None:
    """It was stopped during the push."""
    slow = hook(checkout.remote, "pre-receive", "touch begun\nsleep 30")
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", f"--search-root={ROOT}", "revert"],
        cwd=checkout.folder,
        env={**os.environ, "GITHUB_REPOSITORY": "owner/app", "ENVIRONMENTS_FILE": settings(checkout)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (checkout.remote / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    slow.unlink()

    assert process.returncode == 3
    assert revert(invoke, checkout).returncode == 0
