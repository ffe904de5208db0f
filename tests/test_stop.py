"""A stop is a stop: signals at every step of a deployment, before it, while it cleans up, and where they get lost."""

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

# Seconds that a stopped command may take, from the signal to its end.
AT_ONCE = 2.0
LANES = 4
STOPS_PER_STEP = 5
CHANGES = {"Invoke", "PutObject", "DeleteObjects", "PutImage", "CreateDBSnapshot"}


# --- a deployment, stopped at every one of its steps ---


@dataclass(frozen=True)
class Lane:
    """An embedded environment of its own, so that several deployments can be stopped at the same time."""

    name: str
    env: dict[str, str]
    temporary: Path


@dataclass(frozen=True)
class Stopped:
    """How a deployment ended that was sent a signal. seconds: from the signal to the end."""

    where: str
    code: int
    seconds: float
    said: str
    left: tuple[str, ...]


@pytest.fixture
def lanes(
    tmp_path: Path, clean_environment: None, embedded_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Lane]]:
    """Several environments like `local` in one embedded AWS, whose clock goes faster so that rollouts are short."""
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
    """The command lines of the processes that have a word in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return tuple(found)


def stopped(line: CommandLine, lane: Lane, number: int, step: str, after: float, sent: signal.Signals) -> Stopped:
    """Start a deployment, and send it a signal some seconds after it has begun a step."""
    marker = f"stopped-{lane.name}-{number}"
    words, version = ["deploy"], f"{number:040x}"
    if "build" not in step:
        # What has been built takes less time, and there is a version in the registry from the beginning.
        build = lane.temporary.with_name(f"{lane.name}-page")
        build.mkdir(exist_ok=True)
        (build / "index.html").write_text(f"<!doctype html><title>{number}</title>")
        words, version = ["deploy", "--no-build", f"--build-dir={build}"], "v0"
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
    """What a stop should not have left behind or said; empty where all is well."""
    last = end.said.splitlines()[-1]
    if end.code == 0:
        # The signal came when everything was done.
        return "" if re.match(r"lane\d runs ", last) else "it went on"
    flaws = {
        f"exit code {end.code}": end.code not in (2, 3),
        # Several run at the same time, and this process serves them all.
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
    """At several instants of every step: no child, no folder, no lease is left, and it says how far it came."""
    plan = invoke("deploy", "--dry-run", APP_ENV="lane0", GITHUB_SHA="0" * 40)
    steps = ["deploy: ", *(line for line in plan.stderr.splitlines() if line.startswith("== "))]
    # Steps that wait for ECS take seconds, those that compute a moment.
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
            # Both signals at each step: the lanes take turns.
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
    done = invoke("deploy", **lanes[0].env | {"GITHUB_SHA": "f" * 40})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lane0 runs fffffff (")


# --- a stop in the code of a command: small programs that stop themselves ---


def program(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose body is given."""
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
    """From the moment on at which tasks.py is loaded."""
    code = f"""
        import invoke.main
        from invoke.program import Program
        Program.execute = lambda self: (kill(signal.{name}), time.sleep(10))
        invoke.main.program.run(["invoke", "status"])
        """
    done = program(code)

    assert (done.returncode, done.stderr) == (2, f"stopped by {name}: nothing was changed\n")


def test_the_tasks_can_be_imported_without_a_change_of_the_signals() -> None:
    """A test or an editor that imports tasks.py keeps its Ctrl-C."""
    done = program("import tasks; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")

    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(("before", "code", "said"), [("", 2, NOTHING), ("stop.changing()", 3, CLEANED)])
def test_the_exit_code_says_whether_anything_was_changed(before: str, code: int, said: str) -> None:
    """2 before the first change, 3 from there on; never a traceback."""
    done = program(f"with command(): {before or 'pass'}; kill(); time.sleep(10)")

    assert (done.returncode, done.stderr.partition("\n")[2]) == (code, said)


@pytest.mark.parametrize(("options", "code", "said"), [("", 3, CLEANED), ("changes=False", 2, NOTHING)])
def test_what_a_command_acts_on_counts_as_changed_unless_it_says_otherwise(options: str, code: int, said: str) -> None:
    """Whether prod asks first for the command has nothing to do with it."""
    code_of = f"""
        def act(plan):
            kill(); time.sleep(10)
        with command(changes=False) as run:
            run.act(None, act, {options})
        """
    done = program(code_of)

    assert (done.returncode, done.stderr.partition("\n")[2]) == (code, said)


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_while_cleaning_up_changes_nothing(second: str) -> None:
    """What is given back is given back whole, once."""
    code = f"""
        def give_back(_):
            print("begins", flush=True); kill(signal.{second}); time.sleep(0.2); print("ends", flush=True)
        with command(), stop.owned(int, give_back):
            stop.changing(); kill(); time.sleep(10)
        """
    done = program(code)

    assert (done.returncode, done.stdout) == (3, "begins\nends\n"), done.stderr
    assert done.stderr.endswith(CLEANED)


def test_what_is_just_being_acquired_is_acquired_and_given_back() -> None:
    """A stop while it is acquired reaches the block, and so what gives back."""
    code = """
        def acquire():
            kill(); time.sleep(0.1); print("acquired", flush=True)
        with command(), stop.owned(acquire, lambda _: print("given back", flush=True)):
            time.sleep(10)
        """
    done = program(code)

    assert (done.returncode, done.stdout, done.stderr.endswith(NOTHING)) == (2, "acquired\ngiven back\n", True)


def test_nothing_that_is_acquired_is_lost_at_any_instant() -> None:
    """Thousands of stops at any instruction of nested context managers: each thing acquired is given back once."""
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
                # Goes on until it is raised, as the watchdog does.
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


def test_a_block_that_defers_is_left_first() -> None:
    """Nested too; the stop comes at the end of the outermost, and `check` waits for it."""
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
    """Python would print a traceback and go on."""
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
    """At the next check, at the command's end, and where something else has failed because of it."""
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
    ids=["gives back", "cleans up", "defers"],
)
def test_a_cleanup_that_hangs_is_ended(hanging: str) -> None:
    """With all that the command has started, within the limit."""
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


def test_a_reader_that_has_stalled_does_not_hold_it_up() -> None:
    """Where nobody reads what is printed, a stop ends the command all the same."""
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


def test_a_thread_does_not_take_the_stop_away() -> None:
    """A thread that checks is ended by it, and so is the command."""
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


def test_a_signal_after_the_end_of_a_command_leaves_its_outcome() -> None:
    """What was done is done; the next command of the same line does not begin."""
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
def test_a_signal_while_python_ends_leaves_the_outcome(name: str) -> None:
    """The process takes a moment to end, in which the signals are not Python's any more."""
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
    """As `nohup` and background jobs want it."""
    code = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with command():
            kill(signal.SIGHUP); print("goes on", flush=True)
        """
    done = program(code)

    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_a_stop_is_reported_where_a_failure_is(tmp_path: Path) -> None:
    """As the error of the JSON document, and as an annotation and on the step's page in Actions."""
    page = tmp_path / "page"
    code = "with command(json=True): stop.changing(); kill(); time.sleep(10)"
    done = program(code, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))

    assert '"exit_code": 3' in done.stdout
    assert "::error title=test::stopped by SIGTERM; cleanup ran." in done.stderr
    assert "stopped by SIGTERM; cleanup ran." in page.read_text()


# --- the code itself ---


def catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes a stop and keeps it."""
    caught = ast.unparse(handler.type) if handler.type else "BaseException"
    if not re.search(r"\b(BaseException|KeyboardInterrupt|Stopped|CancelledError|BaseExceptionGroup)\b", caught):
        return False
    last = handler.body[-1]
    return not (isinstance(last, ast.Raise) and last.exc is None)


@pytest.mark.parametrize("folder", ["scripts", "ecs_manager", "local_aws", "tasks.py"])
def test_nothing_but_the_frame_catches_a_stop(folder: str) -> None:
    """Whoever catches everything raises it again; `finally` with a return would lose it too."""
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
