"""Stops: signals at every step of a deployment, before it, during cleanup, and where the exception gets lost."""

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_aws.server import Server
from tests.conftest import ROOT, CommandLine, EmbeddedCloud, Invoke

# Seconds that a command may take to end after a signal.
AT_ONCE = 2.0
LANES = 4
STOPS_PER_STEP = 5
CHANGES = {"Invoke", "PutObject", "DeleteObjects", "PutImage", "CreateDBSnapshot"}


# --- a deployment, stopped at each of its steps ---


@dataclass(frozen=True)
class Lane:
    """An embedded environment of its own, so that several deployments can be stopped at the same time."""

    name: str
    env: dict[str, str]
    temporary: Path


@dataclass(frozen=True)
class Stopped:
    """How a deployment ended after a signal. seconds: from the signal to the end."""

    where: str
    code: int
    seconds: float
    said: str
    left: tuple[str, ...]


@pytest.fixture
def lanes(
    tmp_path: Path, clean_environment: None, embedded_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Lane]]:
    """Several environments like `local` in one embedded AWS, whose clock is fast so that rollouts are short."""
    common, _, local = (ROOT / "environments.toml").read_text().partition("[environments.local]")
    own = ["[environments.local]" + local.replace("mint-app-db-clean-tmp", "local-db-clean-tmp")]
    names = [f"lane{number}" for number in range(LANES)]
    for name in names:
        path = own[0].replace('site = "${endpoint_url}"', f'site = "${{endpoint_url}}/{name}"')
        own.append(re.sub(r"\blocal(?=[\]\.-])", name, path))
    settings = tmp_path / "environments.toml"
    settings.write_text(common + "\n".join(own))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(settings))
    monkeypatch.setenv("AWS_ENDPOINT_URL", embedded_server.cloud.url)
    embedded_server.cloud.clock.stop(stopped=False)
    embedded_server.reset()
    here = []
    for name in names:
        temporary = tmp_path / name
        temporary.mkdir()
        env = {"APP_ENV": name, "TMPDIR": str(temporary), "BUILD_PATH": str(tmp_path / f"{name}-build")}
        here.append(Lane(name, {**os.environ, **env, "DOCKER_HOST": "unix:///nowhere"}, temporary))
    yield here
    monkeypatch.undo()
    embedded_server.reset()


def children(marker: str) -> tuple[str, ...]:
    """The command lines of all processes with this text in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return tuple(found)


def stopped(line: CommandLine, lane: Lane, number: int, step: str, after: float, sent: signal.Signals) -> Stopped:
    """Start a deployment, and send it a signal some seconds after the beginning of a step."""
    marker = f"stopped-{lane.name}-{number}"
    # A deployment that was stopped may still be rolling out.
    words, version = ["deploy", "--supersede"], f"{number:040x}"
    if "build" not in step:
        # Steps after the builds: use an existing build and image to save time.
        build = lane.temporary.with_name(f"{lane.name}-page")
        build.mkdir(exist_ok=True)
        (build / "index.html").write_text(f"<!doctype html><title>{number}</title>")
        words, version = ["deploy", "--supersede", "--no-build", f"--build-dir={build}"], "v0"
    with closing(line.start(words, ROOT, {**lane.env, "GITHUB_SHA": version, "MARKER": marker})) as running:
        said = []
        for text in running.stderr:
            said.append(text)
            if text.startswith(step):
                break
        time.sleep(after)
        os.kill(running.pid, sent)
        began = time.monotonic()
        code = running.wait()
        seconds = time.monotonic() - began
        said.append(running.stderr.read())
    left = children(marker) + tuple(str(path) for path in lane.temporary.iterdir())
    return Stopped(f"{step!r} + {after:.2f} s, {sent.name}", code, seconds, "".join(said), left)


def wrong_with(end: Stopped) -> str:
    """What is wrong after a stop, or empty."""
    last = end.said.splitlines()[-1]
    if end.code == 0:
        # The signal came after the last step.
        return "" if re.match(r"lane\d runs ", last) else "it went on"
    flaws = {
        f"exit code {end.code}": end.code not in (2, 3),
        # Several deployments run at the same time, and this process serves all their requests.
        f"it took {end.seconds:.2f} s": end.seconds > AT_ONCE + 0.5,
        "a traceback": "Traceback" in end.said,
        f"left over: {end.left}": bool(end.left),
        "it does not say by what it was stopped": "stopped by SIG" not in end.said,
        "it does not say what was done": not re.search(r"Done: .+ Interrupted: .+ Not done: |nothing was", last),
        "it says that nothing was changed": end.code == 3 and "nothing was changed" in last,
        "it does not say that nothing was changed": end.code == 2 and "nothing was changed" not in last,
    }
    return ", ".join(flaw for flaw, found in flaws.items() if found)


def test_a_deployment_that_is_stopped_ends_at_once_and_the_next_one_completes(
    lanes: list[Lane], embedded_server: Server, command_line: CommandLine, invoke: Invoke
) -> None:
    """At several instants of every step: no process, folder or lease is left, and it says which steps were done."""
    plan = invoke("deploy", "--dry-run", APP_ENV="lane0", GITHUB_SHA="0" * 40)
    steps = ["deploy: ", *(line for line in plan.stderr.splitlines() if line.startswith("== "))]
    # Only steps that wait for ECS or build something take long.
    length = {"== clean": 1.2, "== migrate": 1.2, "== wait": 2.4, "== build the s": 0.6, "== build the m": 0.6}
    instants = [
        (step, next((s for start, s in length.items() if step.startswith(start)), 0.3) * number / STOPS_PER_STEP)
        for step in steps
        for number in range(STOPS_PER_STEP)
    ]
    assert len(instants) >= 50

    def one_after_the_other(number: int) -> list[Stopped]:
        ends = []
        for at in range(number, len(instants), LANES):
            # Alternate the signals, so that each step gets both.
            sent = signal.SIGINT if (at + at // LANES) % 2 else signal.SIGTERM
            ends.append(stopped(command_line, lanes[number], at + 1, *instants[at], sent))
        return ends

    clock = embedded_server.cloud.clock
    with ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(one_after_the_other, number) for number in range(LANES)]
        while not all(future.done() for future in running):
            clock.advance(0.2)
            time.sleep(0.1)
        ends = [end for future in running for end in future.result()]

    cloud = EmbeddedCloud(embedded_server)
    assert [f"{end.where}: {flaw}\n{end.said}" for end in ends if (flaw := wrong_with(end))] == []
    assert sum(end.code != 0 for end in ends) >= 0.8 * len(ends)
    for lane in lanes:
        keys = cloud.client("s3").list_objects_v2(Bucket=f"{lane.name}-mint-app-static").get("Contents", [])
        assert "_release/lease.json" not in [key["Key"] for key in keys]
    assert {end.code for end in ends if end.where.startswith("'deploy: ' + 0.00")} == {2}
    assert {end.code for end in ends if end.where.startswith("'== release the frontend' + 0.00")} == {3}
    done = invoke("deploy", "--supersede", **lanes[0].env | {"GITHUB_SHA": "f" * 40})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lane0 runs fffffff (")


# --- a stop in the code of a command: small programs that stop themselves ---


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
            time.sleep(10)
        """
    done = program(code)

    assert (done.returncode, done.stderr.partition("\n")[2]) == (2, NOTHING)


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
