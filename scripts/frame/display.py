"""What is live on a terminal while a command runs: its steps and how far they are, below the narration.

Lines of narration scroll by above, printed as everywhere else. The lines below are drawn anew in place, and removed at
the end, so that the screen then holds the narration alone. rich lays them out. They are not placed by its Live:
the terminal's state must not change (the cursor stays visible, because a process that is killed could not show it
again), and what was drawn must also go from a terminal that has become narrower since.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scripts.frame import errors, stop, text
from scripts.frame.report import Bar

# Seconds between two looks at whether there is something new to draw.
EVERY = 0.2
# Columns: of the widest display, of the narrowest with bars, and of a bar. The size of a terminal that tells none.
WIDEST, WITH_BARS, BAR = 90, 60, 20
UNKNOWN = (80, 24)
# What a step is: done, running, to come.
SIGNS = {"✔": "green", "▸": "bold cyan", "·": "dim"}
DONE, RUNNING, TO_COME = SIGNS
ASCII = str.maketrans({DONE: "+", RUNNING: ">", TO_COME: "-"})


class Row(Struct, frozen=True):
    """A step as it is shown. seconds: that it has taken so far, None if it has not begun."""

    sign: str
    name: str
    seconds: float | None = None


def folded(rows: Sequence[Row], most: int) -> list[Row]:
    """A pipeline in at most `most` lines, from three. What is done is folded first, then what is to come."""
    done, running, left = ([row for row in rows if row.sign == sign] for sign in SIGNS)
    over = len(rows) - most
    if over > 0 and len(done) > 1:
        some = done[: over + 1]
        done = [Row(DONE, f"{len(some)} steps", sum(row.seconds or 0 for row in some)), *done[over + 1 :]]
        over -= len(some) - 1
    if over > 0 and len(left) > 1:
        some = left[-over - 1 :]
        left = [*left[: -over - 1], Row(TO_COME, f"{len(some)} more steps")]
    return [*done, *running, *left]


def rows_of(widths: Sequence[int], columns: int) -> int:
    """How many rows of a terminal lines of these widths take up: it wraps them when it becomes narrower."""
    return sum(max(1, -(-width // columns)) for width in widths)


class Display:
    """The live lines at the bottom of a terminal. stream: to it. title: of the command.

    Its methods may be called from any thread.
    """

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream, self._title, self._began = stream, title, time.monotonic()
        self._console = Console(file=stream, force_terminal=True)
        self._lock = threading.RLock()
        self._names: Sequence[str] = ()
        self._begun: list[float] = []
        self._bars: Sequence[Bar] = ()
        self._event = ""
        # The lines as they were last rendered, and the width of each one that is on the screen.
        self._rendered: list[str] = []
        self._drawn: Sequence[int] = ()
        self._paused = False
        self._over = threading.Event()
        errors.erase_with(self.erase)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def write(self, lines: str) -> None:
        """Print whole lines above. lines: sanitized, each with its newline."""
        with stop.deferred(), self._lock:
            self._put(self.erase() + lines + self._lines())

    def step(self, names: Sequence[str], number: int) -> None:
        """The step of this number, among these names, begins now."""
        with stop.deferred(), self._lock:
            self._names = names
            self._begun = [*self._begun[:number], time.monotonic()]
            self._bars, self._event = (), ""
            self._draw()

    def progress(self, bars: Sequence[Bar], event: str) -> None:
        """How far the step is, and the last event that the narration does not tell. It is drawn at the next tick."""
        with stop.deferred(), self._lock:
            self._bars, self._event = bars, event

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to the block."""
        with stop.deferred(), self._lock:
            self._put(self.erase())
            self._paused = True
        try:
            yield
        finally:
            with stop.deferred(), self._lock:
                self._paused = False
                self._draw()

    def close(self) -> None:
        """Remove the lines for good."""
        with stop.deferred():
            with self._lock:
                self._over.set()
                self._put(self.erase())
            errors.erase_with(str)
            self._ticker.join(EVERY)

    def erase(self) -> str:
        """What removes the lines from the screen when it is written. Waits for no lock: the process may be ending."""
        drawn, self._drawn = self._drawn, ()
        up = rows_of(drawn, self._size()[0]) - 1
        return ("\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J") if drawn else ""

    def _put(self, out: str) -> None:
        if out:
            self._stream.write(out)
            self._stream.flush()

    def _size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return UNKNOWN
        return columns or UNKNOWN[0], rows or UNKNOWN[1]

    def _tick(self) -> None:
        """Draw when a time, a bar or the size of the terminal has changed."""
        while not self._over.wait(EVERY):
            with self._lock:
                before = self._rendered
                if self._render() != before:
                    self._put(self.erase() + self._lines())

    def _draw(self) -> None:
        self._render()
        self._put(self.erase() + self._lines())

    def _lines(self) -> str:
        """The lines as they were last rendered, which are on the screen once this is written."""
        if self._paused or self._over.is_set() or not self._rendered:
            return ""
        self._drawn = [Text.from_ansi(line).cell_len for line in self._rendered]
        return "\n".join(self._rendered)

    def _render(self) -> list[str]:
        """The lines in the current size. One column stays free: a cursor behind the last one would wrap."""
        columns, rows = self._size()
        width = min(columns - 1, WIDEST)
        with self._console.capture() as captured:
            self._console.print(self._layout(width, rows // 2), width=width)
        lines = captured.get().splitlines()[: max(1, rows - 1)]
        if self._console.options.ascii_only:
            lines = [line.translate(ASCII).encode("ascii", "replace").decode() for line in lines]
        self._rendered = [line.rstrip() for line in lines]
        return self._rendered

    def _layout(self, width: int, most: int) -> Group:
        """most: lines that it should not exceed; three steps are shown in any case."""
        steps = [*self._begun, time.monotonic()]
        rows = [
            Row(DONE if number + 2 < len(steps) else RUNNING, name, steps[number + 1] - steps[number])
            if number < len(self._begun)
            else Row(TO_COME, name)
            for number, name in enumerate(self._names)
        ]
        below: list[RenderableType] = [*_bars(self._bars, width)]
        below += [_line(f"      {self._event}", "dim")] if self._event else []
        shown = folded(rows, max(3, most - 1 - len(below)))
        here = next((number for number, row in enumerate(shown) if row.sign == RUNNING), len(shown) - 1) + 1
        of = f"step {len(self._begun)} of {len(rows)}, " if rows else ""
        took = f"  {of}{time.monotonic() - self._began:.0f} s"
        title = Text.assemble((self._title, "bold"), (took, "dim"), no_wrap=True, overflow="ellipsis")
        broad = max((cell_len(row.name) for row in shown), default=0)
        lines = [_step(row, broad) for row in shown]
        return Group(title, *lines[:here], *below, *lines[here:])


def _line(shown: str, style: str = "") -> Text:
    """A text from anywhere in one line. rich finds no markup in a Text."""
    indent = len(shown) - len(shown.lstrip())
    return Text(" " * indent + text.one_line(shown), style, no_wrap=True, overflow="ellipsis")


def _step(row: Row, broad: int) -> Text:
    """Not across the whole terminal, which may become narrower. broad: columns of the names."""
    line = _line(f"  {row.sign} {row.name}", SIGNS[row.sign])
    took = "" if row.seconds is None else f"{row.seconds:6.0f} s"
    line.append(" " * (broad - cell_len(row.name)))
    return line.append(took, "dim" if row.sign == DONE else SIGNS[row.sign])


def _bars(bars: Sequence[Bar], width: int) -> Iterator[Table]:
    if bars:
        table = Table.grid(padding=(0, 1))
        table.add_column(max_width=width // 2)
        for bar in bars:
            drawn = [ProgressBar(max(bar.of, 1), bar.done, BAR)] if width >= WITH_BARS else []
            table.add_row(_line(f"      {bar.label}"), *drawn, _line(bar.note))
        yield table
