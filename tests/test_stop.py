"""Stops: signals before a command, during its cleanup, and where the exception gets lost."""

import ast
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.frame import stop
from tests.conftest import ROOT

# Seconds that a command may take to end after a signal.
AT_ONCE = 2.0


def program(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this code as its body."""
    start = """
        import os, signal, sys, threading, time
        from contextlib import contextmanager
        from pathlib import Path
        from scripts.edges import shell
        from scripts.frame import files, stop, waiting
        from scripts.frame.errors import DeployError
        from scripts.frame.run import running

        def command(**options):
            stop.listen()
            return running("test", "dev", embedded=False, **options)

        def kill(number=signal.SIGTERM):
            os.kill(os.getpid(), number)
        """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


NOTHING = "stopped by SIGTERM: nothing was changed.\n"
CLEANED = "stopped by SIGTERM; cleanup ran. What was started may still be happening: check it, then run it again.\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_before_a_command_runs_every_signal_ends_invoke_with_one_sentence(name: str) -> None:
    """From the time when tasks.py is loaded."""
    code = f"""
        import invoke.main
        from invoke.program import Program
        Program.execute = lambda self: (kill(signal.{name}), time.sleep(10))
        invoke.main.program.run(["invoke", "status"])
        """
    done = program(code)

    assert (done.returncode, done.stderr) == (2, f"stopped by {name}: nothing was changed\n")


def test_importing_the_tasks_changes_no_signal_handlers() -> None:
    """A test or an editor that imports tasks.py keeps its Ctrl-C."""
    done = program("import tasks; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")

    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(("before", "code", "said"), [("", 2, NOTHING), ("stop.changing()", 3, CLEANED)])
def test_the_exit_code_says_whether_anything_was_changed(before: str, code: int, said: str) -> None:
    """2 before the first change, 3 afterwards, and never a traceback."""
    done = program(f"with command(): {before or 'pass'}; kill(); time.sleep(10)")

    assert (done.returncode, done.stderr.partition("\n")[2]) == (code, said)


@pytest.mark.parametrize(("options", "code", "said"), [("", 3, CLEANED), ("changes=False", 2, NOTHING)])
def test_every_act_counts_as_a_change_unless_it_says_otherwise(options: str, code: int, said: str) -> None:
    """Whether the command needs a confirmation does not matter."""
    code_of = f"""
        def act(plan):
            kill(); time.sleep(10)
        with command(changes=False) as run:
            run.act(None, act, {options})
        """
    done = program(code_of)

    assert (done.returncode, done.stderr.partition("\n")[2]) == (code, said)


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_interrupt_the_cleanup(second: str) -> None:
    """It runs completely, and only once."""
    code = f"""
        def give_back(_):
            print("begins", flush=True); kill(signal.{second}); time.sleep(0.2); print("ends", flush=True)
        with command(), stop.owned(int, give_back):
            stop.changing(); kill(); time.sleep(10)
        """
    done = program(code)

    assert (done.returncode, done.stdout) == (3, "begins\nends\n"), done.stderr
    assert done.stderr.endswith(CLEANED)


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_acquired_is_given_back_after_the_block(fails: bool) -> None:
    """However that ends."""
    given_back = list[str]()
    with suppress(ZeroDivisionError), stop.owned(lambda: "it", given_back.append) as thing:
        assert (thing, given_back) == ("it", [])
        if fails:
            raise ZeroDivisionError

    assert given_back == ["it"]


def test_a_stop_during_acquire_is_raised_in_the_block() -> None:
    """So what was acquired is released."""
    code = """
        def acquire():
            kill(); time.sleep(0.1); print("acquired", flush=True)
        with command(), stop.owned(acquire, lambda _: print("given back", flush=True)):
            time.sleep(10)
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.endswith(NOTHING)) == (2, "acquired\ngiven back\n", True)


def test_whatever_was_acquired_is_released_once_at_any_instant() -> None:
    """Thousands of stops at any instruction of nested context managers."""
    code = """
        import random
        @contextmanager
        def wrapped(things):
            with stop.owned(lambda: things.append(1), lambda _: things.pop()):
                yield
        signal.signal(signal.SIGALRM, stop._handle)
        stop._state.alarm, stop._state.phase = os.open("/dev/null", os.O_WRONLY), "running"
        stops, lost = 0, 0
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            things = []
            stop._state.signal, stop._state.raised = "", False
            try:
                # The signal is repeated until it is raised, as by the watchdog.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-4), 1e-4)
                while True:
                    with wrapped(things), stop.owned(lambda: things.append(2), lambda _: things.pop()):
                        pass
            except stop.Stopped:
                signal.setitimer(signal.ITIMER_REAL, 0)
                stops, lost = stops + 1, lost + bool(things)
        print(stops > 500, lost, stop._state.deferred)
        """
    done = program(code)

    assert done.stdout == "True 0 0\n", done.stdout + done.stderr


def test_a_deferred_stop_is_raised_at_the_end_of_the_outermost_block() -> None:
    """`check` does not raise it inside the block."""
    code = """
        with command():
            with stop.deferred():
                with stop.deferred():
                    kill(); time.sleep(0.1); stop.check()
                print("whole", flush=True)
            print("never")
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.endswith(NOTHING)) == (2, "whole\n", True)


def test_a_stop_that_is_lost_in_a_finalizer_is_raised_again() -> None:
    """Python would print a traceback and continue."""
    code = """
        class Lost:
            def __del__(self):
                kill(); time.sleep(0.1)
        with command():
            Lost()
            began = time.monotonic()
            try:
                time.sleep(10)
            finally:
                print(time.monotonic() - began < 0.9)
        """
    done = program(code)

    assert (done.returncode, done.stderr.partition("\n")[2], done.stdout) == (2, NOTHING, "True\n")


def test_another_error_in_a_finalizer_is_shown() -> None:
    """As without a command."""
    code = """
        class Wrong:
            def __del__(self):
                int("x")
        with command():
            Wrong()
        """
    done = program(code)

    assert done.returncode == 0
    assert "Exception ignored in" in done.stderr
    assert "ValueError: invalid literal" in done.stderr


@pytest.mark.parametrize(
    "stopped",
    [
        "kill(); time.sleep(10)",
        "with stop.deferred(): kill()",
        "with stop.owned(kill, int.__bool__): pass",
        "Lost(); stop.check()",
    ],
    ids=["at once", "deferred", "acquiring", "lost"],
)
def test_a_stop_is_raised_once(stopped: str) -> None:
    """What cleans up after it is not interrupted again."""
    code = f"""
        class Lost:
            def __del__(self):
                kill(); time.sleep(0)
        with command():
            try:
                {stopped}
            finally:
                time.sleep(0.1); print("ends", flush=True)
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.partition("\n")[2]) == (2, "ends\n", NOTHING)


def test_a_change_does_not_begin_after_a_stop_that_was_swallowed() -> None:
    """So that nothing was changed."""
    code = """
        with command():
            try:
                kill(); time.sleep(10)
            except BaseException:
                pass
            stop.changing()
            print("never")
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.partition("\n")[2]) == (2, "", NOTHING)


def test_programs_that_have_ended_are_not_killed() -> None:
    """Their number may be somebody else's by now."""
    code = """
        with command():
            from subprocess import DEVNULL, Popen
            child = Popen(["sleep", "30"], start_new_session=True, stdout=DEVNULL, stderr=DEVNULL)
            stop.watch(child.pid)
            stop.unwatch(child.pid)
            stop.unwatch(child.pid)
            print(child.pid, flush=True)
            kill(); time.sleep(10)
        """
    done = program(code)
    pid = int(done.stdout)
    runs = Path(f"/proc/{pid}/cwd").exists()
    os.kill(pid, signal.SIGKILL)

    assert runs


@pytest.mark.parametrize(
    "after",
    [
        "stop.check()",
        "waiting.wait(lambda: ('', None), seconds=9, every=9)",
        "pass",
        "raise DeployError('it failed')",
        "int('x')",
    ],
)
def test_a_stop_that_was_swallowed_still_ends_the_command(after: str) -> None:
    """At the next check, at the end of the command, or when something else fails because of it."""
    code = f"""
        with command():
            stop.changing()
            try:
                kill(); time.sleep(10)
            except BaseException:
                pass
            {after}
        """
    done = program(code)

    assert (done.returncode, done.stderr.partition("\n")[2]) == (3, CLEANED)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[('one', end), ('two', int)]", ": nothing was changed. Done: nothing. Interrupted: one. Not done: two."),
        (
            "[('one', stop.changing), ('two', end), ('three', int)]",
            "; cleanup ran. Done: one. Interrupted: two. Not done: three.",
        ),
        # What it swallowed is noticed before the next step.
        ("[('one', swallow), ('two', int)]", ": nothing was changed. Done: one. Interrupted: two. Not done: nothing."),
        (
            "[('one', stop.changing), ('two', int)]); end(",
            "; cleanup ran. Done: one, two. Interrupted: the end of the command. Not done: nothing.",
        ),
    ],
    ids=["the first", "the second", "swallowed", "after the last"],
)
def test_a_stop_says_which_step_it_interrupted(steps: str, said: str) -> None:
    """And which were done and which were not."""
    code = f"""
        def end():
            kill(); time.sleep(10)
        def swallow():
            try:
                end()
            except BaseException:
                pass
        with command() as run:
            run.run_steps({steps})
        """
    done = program(code)

    assert done.stderr.splitlines()[-1] == f"stopped by SIGTERM{said}"


@pytest.mark.parametrize(
    ("ending", "code"), [("pass", 0), ("raise DeployError('it failed')", 1)], ids=["success", "failure"]
)
def test_a_signal_during_the_report_does_not_change_the_outcome(ending: str, code: int) -> None:
    """It is known by then."""
    code_of = f"""
        class Killing:
            def write(self, text):
                kill(); time.sleep(0.1)
            def flush(self):
                pass
        with command(json=True):
            stop.changing()
            sys.stdout = Killing()
            {ending}
        """
    done = program(code_of)

    assert (done.returncode, "stopped" in done.stderr) == (code, False), done.stderr


def test_a_signal_after_a_bug_does_not_hide_it() -> None:
    """The traceback is still to be written."""
    code = """
        try:
            with command():
                int("x")
        except ValueError as error:
            kill(); time.sleep(0.1); print(error)
        """
    done = program(code)

    assert (done.returncode, done.stdout.startswith("invalid literal")) == (0, True), done.stderr


def test_a_stop_is_named_after_its_signal() -> None:
    """Although a codec raises the exception again with a text of its own."""
    code = """
        with command():
            try:
                kill(); time.sleep(10)
            except stop.Stopped as error:
                raise type(error)("decoding failed")
        """
    done = program(code)

    assert (done.returncode, done.stderr.endswith(NOTHING)) == (2, True), done.stderr


@pytest.mark.parametrize(
    "hanging",
    [
        "stop.owned(int, lambda _: time.sleep(30))",
        "hanging()",
        "stop.deferred()",
    ],
    ids=["owned", "finally", "deferred"],
)
def test_a_cleanup_that_hangs_is_killed(hanging: str) -> None:
    """Together with every program that the command started, within the limit."""
    code = f"""
        @contextmanager
        def hanging():
            try:
                yield
            finally:
                time.sleep(30)
        with command(), {hanging}:
            stop.changing()
            child = __import__("subprocess").Popen(["sleep", "30"], start_new_session=True)
            stop.watch(child.pid)
            print(child.pid, time.monotonic(), flush=True)
            kill(); time.sleep(10); time.sleep(10)
        """
    done = program(code)
    pid, began = done.stdout.split()

    assert time.monotonic() - float(began) < AT_ONCE
    assert done.returncode == 3
    assert "stopped by SIGTERM; cleanup did not finish in time" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(f"/proc/{pid}/cwd").exists()


def test_a_full_pipe_does_not_delay_a_stop() -> None:
    """Nothing reads stderr, so writing to it blocks."""
    code = "from scripts.frame import console, stop, run\nstop.listen()\n"
    code += "with run.running('test', 'dev', embedded=False):\n  while True: console.say('x' * 1000)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    unread = bytearray(4)
    # A pipe holds 64 KiB.
    while int.from_bytes(unread, sys.byteorder) < 60_000:
        time.sleep(0.05)
        fcntl.ioctl(process.stderr, termios.FIONREAD, unread)
    process.terminate()
    began = time.monotonic()
    try:
        assert process.wait(10) == 2
    finally:
        process.kill()
        process.communicate()

    assert time.monotonic() - began < AT_ONCE


def test_a_stop_raised_in_a_thread_also_ends_the_command() -> None:
    code = """
        ended = []
        def work():
            try:
                while True:
                    stop.check()
            except stop.Stopped:
                ended.append(1)
        with command(), stop.deferred():
            thread = threading.Thread(target=work); thread.start()
            kill(); thread.join(); print(ended, flush=True)
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.endswith(NOTHING)) == (2, "[1]\n", True)


def test_a_signal_after_a_command_does_not_change_its_outcome() -> None:
    """The next command on the same command line does not start."""
    code = """
        with command():
            stop.changing()
        kill(); time.sleep(0.1)
        print("done", flush=True)
        with command():
            print("never")
        """
    done = program(code)

    assert (done.returncode, done.stdout) == (3, "done\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_python_exits_does_not_change_the_exit_code(name: str) -> None:
    """During the exit, Python's handlers no longer run."""
    code = f"""
        class Last:
            def __del__(self, kill=os.kill, me=os.getpid()):
                kill(me, {getattr(signal, name).value})
        signal.last = Last()
        with command():
            stop.changing()
        """
    done = program(code)

    assert (done.returncode, done.stderr.count("stopped")) == (0, 0)


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    """As nohup and background jobs need it."""
    code = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with command():
            kill(signal.SIGHUP); print("goes on", flush=True)
        """
    done = program(code)

    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_a_stop_is_reported_like_a_failure(tmp_path: Path) -> None:
    """In the JSON document, and in Actions as an annotation and in the step's summary."""
    page = tmp_path / "page"
    code = "with command(json=True): stop.changing(); kill(); time.sleep(10)"
    done = program(code, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))

    assert '"exit_code": 3' in done.stdout
    assert "::error title=test::stopped by SIGTERM; cleanup ran." in done.stderr
    assert "stopped by SIGTERM; cleanup ran." in page.read_text()


# --- the code itself ---


def catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches a stop and does not raise it again."""
    caught = ast.unparse(handler.type) if handler.type else "BaseException"
    if not re.search(r"\b(BaseException|KeyboardInterrupt|Stopped|CancelledError|BaseExceptionGroup)\b", caught):
        return False
    last = handler.body[-1]
    return not (isinstance(last, ast.Raise) and last.exc is None)


@pytest.mark.parametrize("folder", ["scripts", "ecs_manager", "local_aws", "tasks.py"])
def test_nothing_but_the_frame_catches_a_stop(folder: str) -> None:
    """A `return` in `finally` would lose it too."""
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and catches(node):
                found.add(path.relative_to(ROOT).as_posix())
            if isinstance(node, ast.Call) and re.search(r"suppress\(.*(BaseException|Interrupt)", ast.unparse(node)):
                found.add(path.relative_to(ROOT).as_posix())
            if isinstance(node, ast.Try) and any(
                isinstance(inner, (ast.Return, ast.Break, ast.Continue))
                for one in node.finalbody
                for inner in ast.walk(one)
            ):
                found.add(path.relative_to(ROOT).as_posix())

    assert found - {"scripts/frame/run.py"} == set()
