"""What a terminal shows while a command runs, and what is left on it: on a real pty, seen through an emulator."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, EmbeddedCloud
from tests.terminal import Terminal

# Has three steps, of which the second one waits for the file in argv[1], and then does what argv[2] says.
PROGRAM = r"""
import sys, time
from pathlib import Path
from scripts.edges import shell
from scripts.frame import console, errors, stop
from scripts.frame.report import Bar
from scripts.frame.run import running

def first():
    console.say("a long line " + "x" * 100)
    console.result("a result")

def second():
    console.progress(Bar("new [red]files[/red]", 3, 8, "3 of 8 files"), event="has started\n\x1b[31m1 tasks" * 9)
    console.say("here [bold]it[/bold] \x1b[2J is")
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    console.say("it goes on")
    exec(sys.argv[2])

def third():
    shell.stream(["printf", "relayed 1\nrelayed 2\n"])
    console.progress()
    console.say(f"rich is imported: {'rich' in sys.modules}")

stop.listen()
errors.hook_tracebacks()
with running("test", "dev", embedded=False) as run:
    run.run_steps([("begin", first), ("roll out", second), ("end", third)])
"""
# On the screen once all of the display is there: a pty may give it in pieces.
WHOLE = ("3 of 8 files", "  · end")
LIVE = ("  ✔", "  ▸", "  ·", "      new", "test: dev  step", "deploy: local  step")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d")


def environment(**changes: str) -> dict[str, str]:
    """Variables of a person at a terminal."""
    return {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **changes}


@contextmanager
def program(folder: Path, then: str = "", columns: int = 80, **changes: str) -> Iterator[tuple[Terminal, Path]]:
    """PROGRAM on a terminal, and the file that it waits for. then: what its second step does."""
    go_on = folder / f"go-on-{columns}"
    terminal = Terminal([sys.executable, "-c", PROGRAM, str(go_on), then], environment(**changes), columns, 24)
    try:
        yield terminal, go_on
    finally:
        terminal.process.kill()


def sees(terminal: Terminal, *texts: str) -> Callable[[], bool]:
    """Whether all of these are on the screen."""
    return lambda: all(text in "\n".join(terminal.screen.display) for text in texts)


def wrapped(narration: str, columns: int) -> list[str]:
    """Lines as a terminal wraps them."""
    return [
        line[at : at + columns].rstrip()
        for line in narration.splitlines()
        for at in range(0, max(1, len(line)), columns)
    ]


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What PROGRAM prints without a terminal."""
    go_on = tmp_path_factory.mktemp("piped")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(go_on), ""],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_run_without_a_terminal_imports_nothing_of_rich(piped: str) -> None:
    assert piped.splitlines()[-1] == "rich is imported: False"


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("colour", [True, False])
def test_it_is_live_and_leaves_the_lines_of_a_pipe(columns: int, colour: bool, piped: str, tmp_path: Path) -> None:
    """No markup and no escape of a text from outside has an effect."""
    with program(tmp_path, columns=columns, **({} if colour else {"NO_COLOR": "1"})) as (terminal, go_on):
        terminal.until(sees(terminal, *WHOLE))
        rows = terminal.lines()
        go_on.touch()
        code = terminal.end()

    at = next(number for number, row in enumerate(rows) if row.startswith("test: dev  step 2 of 3, "))
    assert rows[at - 1] == r"here [bold]it[/bold] \x1b[2J is"
    assert re.fullmatch(r"  ✔ begin        0 s", rows[at + 1])
    assert re.fullmatch(r"  ▸ roll out     \d s", rows[at + 2])
    assert rows[at + 3].startswith("      new [red]fi" if columns == 40 else "      new [red]files[/red] ━━")
    assert re.fullmatch(r"      has started \\x1b\[31m1 tasks.*…", rows[at + 4])
    assert rows[at + 5 :] == ["  · end"]
    assert (code, terminal.screen.cursor.hidden) == (0, False)
    assert terminal.lines() == wrapped(piped.replace("False", "True"), columns)
    written = b"".join(chunk for _, chunk in terminal.output).decode()
    assert bool(COLOUR.search(written)) is colour


@pytest.mark.parametrize("variable", ["TERM=dumb", "TERM=", "CI=true", "GITHUB_ACTIONS=true"])
def test_it_is_plain_where_nothing_can_be_drawn_or_nobody_watches(variable: str, piped: str, tmp_path: Path) -> None:
    name, _, value = variable.partition("=")
    with program(tmp_path, **{name: value}) as (terminal, go_on):
        go_on.touch()
        code = terminal.end()

    assert code == 0
    assert b"\x1b" not in b"".join(chunk for _, chunk in terminal.output)
    if name != "GITHUB_ACTIONS":
        assert terminal.lines() == wrapped(piped, 80)
    assert "rich is imported: False" in terminal.lines()


@pytest.mark.parametrize(
    ("then", "keys", "code", "told"),
    [
        ("time.sleep(60)", "\x03", 2, ["stopped by SIGINT: nothing was changed. Done: begin. Interrupted: roll out."]),
        ("with stop.deferred(): time.sleep(60)", "\x03", 2, ["stopped by SIGINT; cleanup did not finish in time."]),
        ("1 / 0", "", 1, ["Traceback"]),
        ("raise errors.DeployError('no')", "", 1, []),
        (
            "import threading; threading.Thread(target=lambda: 1 / 0).start(); time.sleep(0.5)",
            "",
            0,
            ["Traceback (most recent call last):"],
        ),
    ],
    ids=["a stop", "a stop that hangs", "a bug", "a failure", "a bug in a thread"],
)
def test_nothing_is_left_however_it_ends(
    then: str, keys: str, code: int, told: list[str], piped: str, tmp_path: Path
) -> None:
    """Of what was live: every line of it has a sign, a bar or a title. The narration before it is still there."""
    with program(tmp_path, then) as (terminal, go_on):
        terminal.until(sees(terminal, *WHOLE))
        go_on.touch()
        terminal.until(sees(terminal, "it goes on"))
        terminal.type(keys)
        ended = terminal.end()

    lines = terminal.lines()
    before = wrapped(piped, 80)[: piped.count("\n", 0, piped.index("here")) + 2]
    assert ended == code, lines
    assert lines[: len(before)] == before
    assert not [line for line in lines if line.startswith(LIVE)]
    assert all(text in "".join(lines) for text in told), "\n".join(lines)
    assert not terminal.screen.cursor.hidden


def test_a_question_has_the_terminal_to_itself(tmp_path: Path) -> None:
    """Nothing is drawn below it or over what is typed, and the display comes back after the answer."""
    asked = "console.say(str(console.confirm('Type dev to continue:', 'dev'))); time.sleep(0.5)"
    with program(tmp_path, asked) as (terminal, go_on):
        terminal.until(sees(terminal, *WHOLE))
        go_on.touch()
        terminal.until(sees(terminal, "continue:"))
        while_asked = terminal.lines()
        terminal.type("dev\n")
        terminal.until(sees(terminal, "True", "step 2 of 3"))
        code = terminal.end()

    assert while_asked[-1] == "Type dev to continue:"
    assert not [line for line in while_asked if "step 2 of 3" in line]
    assert "Type dev to continue: dev" in terminal.lines()
    assert code == 0


def test_it_follows_the_size_of_the_terminal(piped: str, tmp_path: Path) -> None:
    """And leaves nothing behind in a narrower one. The emulator does not wrap old lines anew."""
    with program(tmp_path, columns=100) as (terminal, go_on):
        terminal.until(sees(terminal, *WHOLE))
        terminal.resize(200, 10)
        terminal.until(lambda: bool(re.search(r"step 2 of 3, [1-9]\d* s", "\n".join(terminal.screen.display))))
        go_on.touch()
        code = terminal.end()

    assert code == 0
    assert [line for line in terminal.lines() if line.startswith(LIVE)] == []


def test_a_deployment_is_seen_as_it_happens(cloud: EmbeddedCloud, build: Path) -> None:
    """The steps, the tasks old and new, the uploads and ECS's last event; afterwards the lines that a pipe gets."""
    for number in range(40):
        (build / f"{number}.js").write_text(f"{number}")
    digest = cloud.push("v1", "mint-backend", "mint-db-migrate")[0]
    words = [str(ROOT / ".venv/bin/invoke"), "deploy", "--no-build", f"--build-dir={build}", "--tag=v1"]
    cloud.fail(service="s3", path=r"\.js$", delay=1.0, times=100)
    terminal = Terminal([*words, f"--digest={digest}"], environment(**cloud.env))

    code = terminal.end()

    assert code == 0, terminal.lines()
    shown = "\n".join(terminal.seen())
    assert re.search(r"^  ✔ clean the database +\d+ s$", shown, re.MULTILINE)
    assert re.search(r"^  ▸ deploy the service +\d+ s$", shown, re.MULTILINE)
    assert re.search(r"^  · look at the service again$", shown, re.MULTILINE)
    assert re.search(r"^      new local-mint-app:\d+ [━╺╸]+ [012] of 2 tasks run$", shown, re.MULTILINE)
    assert re.search(r"^      old local-mint-app:\d+ [━╺╸]+ [012] ", shown, re.MULTILINE)
    assert re.search(r"^      \(service mint-app\) ", shown, re.MULTILINE)
    assert re.search(r"^      [a-z ]+ [━╺╸]+ \d+ of \d+ files$", shown, re.MULTILINE)
    left = terminal.lines()
    assert [line for line in left if line.startswith("== ")][-2:] == [
        "== release the frontend",
        "== look at the service again",
    ]
    assert re.fullmatch(r"local runs v1 \(was v0\) \(\d+ s\)", next(line for line in reversed(left) if "runs" in line))
    assert not [line for line in left if line.startswith(LIVE)]
