"""What is drawn below the narration, as a terminal shows it. tests/e2e/test_display.py runs whole commands on one."""

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace

import pyte
import pytest

from scripts.ecs import watch
from scripts.ecs.rollout import Before, Deployment, Service
from scripts.frame import display, errors
from scripts.frame.display import DONE, RUNNING, TO_COME, Display, Row, folded, rows_of
from scripts.frame.report import Bar


class Shown:
    """A display whose clock stands still. output: all that was written to its terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 80, rows: int = 24, encoding: str = "utf-8"):
        self.columns, self.rows, self.now = columns, rows, 100.0
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((self.columns, self.rows)))
        monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._bytes = io.BytesIO()
        stream = io.TextIOWrapper(self._bytes, encoding=encoding, newline="\r\n")
        monkeypatch.setattr(stream, "fileno", lambda: 1)
        self.display = Display(stream, "deploy: dev")

    @property
    def output(self) -> str:
        return self._bytes.getvalue().decode()

    def screen(self) -> list[str]:
        """The rows of the terminal, without the empty ones at the end."""
        screen = pyte.Screen(self.columns, self.rows)
        pyte.Stream(screen).feed(self.output)
        return "\n".join(row.rstrip() for row in screen.display).rstrip("\n").split("\n")

    def until(self, *rows: str) -> None:
        """Wait until the terminal shows these rows: what is no step or line is drawn a moment later."""
        deadline = time.monotonic() + 10
        while self.screen() != list(rows):
            assert time.monotonic() < deadline, "\n".join(self.screen())
            time.sleep(0.005)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shown]]:
    """`shown(columns=40)`: a display that looks often whether there is something to draw."""
    made = list[Shown]()
    monkeypatch.setattr(display, "EVERY", 0.005)

    def make(columns: int = 80, rows: int = 24, encoding: str = "utf-8") -> Shown:
        made.append(Shown(monkeypatch, columns, rows, encoding))
        return made[-1]

    yield make
    for one in made:
        one.display.close()


STEPS = ("build", "migrate", "roll out")
FILES = Bar("new files", 3, 8, "3 of 8 files")
HALF = "━━━━━━━╸"


@pytest.mark.parametrize(
    ("columns", "rows", "names", "begun", "bars", "event", "lines"),
    [
        (80, 24, STEPS, 2, [], "", [
            "deploy: dev  step 2 of 3, 7 s", "  ✔ build        3 s", "  ▸ migrate      4 s", "  · roll out"]),
        (80, 24, STEPS, 3, [], "", [
            "deploy: dev  step 3 of 3, 10 s", "  ✔ build        3 s", "  ✔ migrate      3 s", "  ▸ roll out     4 s"]),
        # Below the step that runs, and each in one line.
        (80, 24, STEPS, 1, [FILES, Bar("old", 0, 0, "0 tasks\ndrain")], "has\nstarted [b]1[/b]", [
            "deploy: dev  step 1 of 3, 4 s", "  ▸ build        4 s",
            f"      new files {HALF}━━━━━━━━━━━━ 3 of 8 files", "      old       ━━━━━━━━━━━━━━━━━━━━ 0 tasks drain",
            "      has started [b]1[/b]", "  · migrate", "  · roll out"]),
        # Without bars where there is no room for them.
        (60, 24, STEPS, 1, [FILES], "", [
            "deploy: dev  step 1 of 3, 4 s", "  ▸ build        4 s", "      new files 3 of 8 files",
            "  · migrate", "  · roll out"]),
        (61, 24, STEPS, 1, [FILES], "", [
            "deploy: dev  step 1 of 3, 4 s", "  ▸ build        4 s", f"      new files {HALF}━━━━━━━━━━━━ 3 of 8 files",
            "  · migrate", "  · roll out"]),
        # What is too long is cut: a name at the end of a line, a label at half of it.
        (40, 24, ("x" * 50,), 1, [Bar("y" * 50, 1, 2, "z" * 50)], "e" * 50, [
            "deploy: dev  step 1 of 1, 4 s", f"  ▸ {'x' * 34}…", f"      {'y' * 12}… {'z' * 18}…",
            f"      {'e' * 32}…"]),
        (200, 24, ("x" * 100,), 1, [], "", ["deploy: dev  step 1 of 1, 4 s", f"  ▸ {'x' * 85}…"]),
        # In half of the terminal, or in three lines, but never in all of it.
        (80, 8, (*STEPS, "verify"), 3, [], "", [
            "deploy: dev  step 3 of 4, 10 s", "  ✔ 2 steps      6 s", "  ▸ roll out     4 s", "  · verify"]),
        (80, 6, (*STEPS, "verify", "tell"), 3, [], "", [
            "deploy: dev  step 3 of 5, 10 s", "  ✔ 2 steps          6 s", "  ▸ roll out         4 s",
            "  · 2 more steps"]),
        (80, 12, (*STEPS, "verify", "tell"), 3, [], "", [
            "deploy: dev  step 3 of 5, 10 s", "  ✔ build        3 s", "  ✔ migrate      3 s", "  ▸ roll out     4 s",
            "  · verify", "  · tell"]),
        (80, 12, (*STEPS, "verify", "tell"), 3, [FILES], "an event", [
            "deploy: dev  step 3 of 5, 10 s", "  ✔ 2 steps          6 s", "  ▸ roll out         4 s",
            f"      new files {HALF}━━━━━━━━━━━━ 3 of 8 files", "      an event", "  · 2 more steps"]),
        (80, 14, (*STEPS, "verify", "tell"), 3, [FILES], "an event", [
            "deploy: dev  step 3 of 5, 10 s", "  ✔ 2 steps      6 s", "  ▸ roll out     4 s",
            f"      new files {HALF}━━━━━━━━━━━━ 3 of 8 files", "      an event", "  · verify", "  · tell"]),
        (80, 2, STEPS, 1, [], "", ["deploy: dev  step 1 of 3, 4 s"]),
        (80, 3, STEPS, 1, [], "", ["deploy: dev  step 1 of 3, 4 s", "  ▸ build        4 s"]),
        (80, 1, STEPS, 1, [], "", ["deploy: dev  step 1 of 3, 4 s"]),
        (20, 24, STEPS, 1, [], "", ["deploy: dev  step …", "  ▸ build        4…", "  · migrate", "  · roll out"]),
    ],
)  # fmt: skip
def test_a_display_in_lines(
    columns: int, rows: int, names: Sequence[str], begun: int, bars: Sequence[Bar], event: str, lines: list[str],
    shown: Callable[..., Shown],
) -> None:  # fmt: skip
    """Each step has begun 3 s after the one before, and the last one 4 s ago."""
    terminal = shown(columns, rows)
    for number in range(begun):
        terminal.now = 100.0 + 3 * number
        terminal.display.step(names, number)
    terminal.display.progress(bars, event)
    terminal.now += 4

    terminal.until(*lines)


def test_the_colours_of_a_display(shown: Callable[..., Shown]) -> None:
    """Of a terminal with eight: what is done is green, what runs is bold, what is to come is dim."""
    terminal = shown()
    for number in range(2):
        terminal.display.step(STEPS, number)
    terminal.display.progress([], "an event")
    terminal.until("deploy: dev  step 2 of 3, 0 s", "  ✔ build        0 s", "  ▸ migrate      0 s", "      an event",
                   "  · roll out")  # fmt: skip

    assert terminal.output.rpartition("\x1b[J")[2].split("\r\n") == [
        "\x1b[1mdeploy: dev\x1b[0m\x1b[2m  step 2 of 3, 0 s\x1b[0m",
        "\x1b[32m  ✔ build   \x1b[0m\x1b[2;32m     0 s\x1b[0m",
        "\x1b[1;36m  ▸ migrate \x1b[0m\x1b[1;36m     0 s\x1b[0m",
        "\x1b[2m      an event\x1b[0m",
        "\x1b[2m  · roll out\x1b[0m",
    ]


def test_what_is_printed_stands_above(shown: Callable[..., Shown]) -> None:
    """And the next step begins without the bars of the one before."""
    terminal = shown()
    terminal.display.write("one\n")
    terminal.until("one", "deploy: dev  0 s")
    terminal.display.step(STEPS, 0)
    terminal.display.progress([FILES], "an event")
    bar = f"      new files {HALF}━━━━━━━━━━━━ 3 of 8 files"
    steps = (
        "deploy: dev  step 1 of 3, 0 s",
        "  ▸ build        0 s",
        bar,
        "      an event",
        "  · migrate",
        "  · roll out",
    )
    terminal.until("one", *steps)
    terminal.display.step(STEPS, 1)
    terminal.display.write("two\nthree\n")

    terminal.until("one", "two", "three", "deploy: dev  step 2 of 3, 0 s", "  ✔ build        0 s",
                   "  ▸ migrate      0 s", "  · roll out")  # fmt: skip


def test_it_is_gone_while_the_terminal_is_somebody_elses(shown: Callable[..., Shown]) -> None:
    """What changes meanwhile is drawn afterwards, also if the block fails."""
    terminal = shown()
    terminal.display.step(STEPS, 0)
    with suppress(ZeroDivisionError), terminal.display.hidden():
        assert terminal.screen() == [""]
        before = terminal.output
        terminal.now += 9
        terminal.display.step(STEPS, 1)
        time.sleep(0.03)
        assert terminal.output == before
        terminal.display.write("asks\n")
        assert terminal.screen() == ["asks"]
        raise ZeroDivisionError

    assert terminal.screen()[:2] == ["asks", "deploy: dev  step 2 of 3, 9 s"]


def test_nothing_is_written_while_nothing_changes(shown: Callable[..., Shown]) -> None:
    """Not at each look; but where the seconds or the size are others."""
    terminal = shown()
    terminal.display.step(STEPS, 0)
    before = terminal.output
    time.sleep(0.03)
    assert terminal.output == before
    terminal.now += 0.4
    time.sleep(0.03)
    assert terminal.output == before
    terminal.now += 0.6
    terminal.until("deploy: dev  step 1 of 3, 1 s", "  ▸ build        1 s", "  · migrate", "  · roll out")
    terminal.columns = 30
    terminal.until("deploy: dev  step 1 of 3, 1 s", "  ▸ build        1 s", "  · migrate", "  · roll out")


def test_at_the_end_it_is_gone_for_good(shown: Callable[..., Shown]) -> None:
    """No traceback erases anything then."""
    terminal = shown()
    terminal.display.step(STEPS, 0)
    terminal.display._put(errors._erase())
    assert terminal.screen() == [""]
    terminal.display.write("said\n")
    terminal.display.close()
    before = terminal.output
    terminal.now += 5
    time.sleep(0.03)

    assert terminal.screen() == ["said"]
    assert terminal.output == before
    assert errors._erase() == ""
    terminal.display.close()
    assert terminal.output == before


def test_lines_that_a_narrower_terminal_has_wrapped_are_erased_too(shown: Callable[..., Shown]) -> None:
    """From where the first one begins; the second time nothing is there any more."""
    terminal = shown()
    terminal.display.step(["x" * 40], 0)
    widths = [len(row) for row in terminal.screen()]
    terminal.columns = 20

    assert terminal.display.erase() == f"\r\x1b[{rows_of(widths, 20) - 1}A\x1b[J"
    assert terminal.display.erase() == ""


def test_one_line_is_erased_without_going_up(shown: Callable[..., Shown]) -> None:
    terminal = shown(rows=2)
    terminal.display.step(["x"], 0)

    assert terminal.display.erase() == "\r\x1b[J"


def test_a_terminal_without_unicode_gets_other_signs(shown: Callable[..., Shown]) -> None:
    terminal = shown(encoding="ascii")
    for number in range(2):
        terminal.display.step(["bâtir", *STEPS[1:]], number)

    terminal.until("deploy: dev  step 2 of 3, 0 s", "  + b?tir        0 s", "  > migrate      0 s", "  - roll out")


@pytest.mark.parametrize("size", [(0, 0), (80, 0), (0, 24), OSError(), ValueError()], ids=repr)
def test_a_terminal_that_does_not_tell_its_size_has_the_usual_one(
    size: tuple[int, int] | Exception, shown: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = shown()

    def told(_: int) -> os.terminal_size:
        if isinstance(size, Exception):
            raise size
        return os.terminal_size(size)

    monkeypatch.setattr(os, "get_terminal_size", told)
    assert terminal.display._size() == (80, 24)


def steps(done: int, left: int) -> list[Row]:
    """A pipeline: steps that are done and took 2 s each, the one that runs, and those to come."""
    rows = [Row(DONE, f"done {number}", 2.0) for number in range(done)]
    return [*rows, Row(RUNNING, "now", 1.0), *(Row(TO_COME, f"left {number}") for number in range(left))]


@pytest.mark.parametrize(
    ("done", "left", "most", "shown"),
    [
        (2, 2, 5, "done 0 2, done 1 2, now 1, left 0 None, left 1 None"),
        (4, 1, 5, "2 steps 4.0, done 2 2, done 3 2, now 1, left 0 None"),
        (4, 1, 3, "4 steps 8.0, now 1, left 0 None"),
        (4, 4, 5, "4 steps 8.0, now 1, left 0 None, left 1 None, 2 more steps None"),
        (0, 9, 3, "now 1, left 0 None, 8 more steps None"),
        (1, 3, 3, "done 0 2, now 1, 3 more steps None"),
        (9, 0, 3, "8 steps 16.0, done 8 2, now 1"),
    ],
)
def test_a_pipeline_fits_the_screen(done: int, left: int, most: int, shown: str) -> None:
    found = folded(steps(done, left), most)

    assert ", ".join(f"{row.name} {row.seconds}" for row in found) == re.sub(r"\b([12])(?=,|$)", r"\1.0", shown)
    assert len(found) <= most


@pytest.mark.parametrize(
    ("widths", "columns", "rows"), [([], 80, 0), ([10, 80, 0], 80, 3), ([79, 40, 0], 40, 4), ([79], 20, 4)]
)
def test_lines_take_more_rows_of_a_terminal_that_becomes_narrower(widths: list[int], columns: int, rows: int) -> None:
    """As terminals do that wrap them anew (tmux, VTE, iTerm)."""
    assert rows_of(widths, columns) == rows


def deployment(name: str, status: str, desired: int, running: int, failed: int = 0) -> Deployment:
    """A deployment of a service: its tasks."""
    return Deployment(name, status, f"arn:x/app:{name}", (), "", "", 1.0, desired, running, failed)


@pytest.mark.parametrize(
    ("deployments", "bars"),
    [
        ([deployment("2", "PRIMARY", 2, 0)], [Bar("new app:2", 0, 2, "0 of 2 tasks run")]),
        (
            [deployment("2", "PRIMARY", 2, 1, 3), deployment("1", "ACTIVE", 0, 2)],
            [Bar("new app:2", 1, 2, "1 of 2 tasks run, 3 failed"), Bar("old app:1", 2, 2, "2 tasks drain")],
        ),
        (
            [deployment("3", "PRIMARY", 2, 1), deployment("2", "ACTIVE", 0, 0), deployment("1", "ACTIVE", 2, 1)],
            [
                Bar("old app:3", 1, 2, "1 of 2 tasks run"),
                Bar("new app:2", 0, 2, "0 tasks drain"),
                Bar("old app:1", 1, 2, "1 of 2 tasks run"),
            ],
        ),
    ],
)
def test_the_tasks_of_a_rollout_are_told_apart(deployments: list[Deployment], bars: list[Bar]) -> None:
    ours = next(one for one in deployments if one.id == "2")
    now = Service("app", tuple(deployments), (), breaker=True)

    assert watch._tasks(Before("v2", "app", seen=ours), now) == bars
