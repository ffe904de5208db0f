"""What a command reports: one line, a table for a person, outputs for a workflow, data for a program."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from unicodedata import combining, east_asian_width

from msgspec import Struct

# What is between two columns of a table, and the least that a cell is cut to.
GAP, NARROWEST = "  ", 9


class Plan(Protocol):
    """What a command is about to do: a frozen record whose fields are the plan in --json."""

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        ...


class Bar(Struct, frozen=True):
    """How far something is that is counted, such as the files of a release. note: the same in words."""

    label: str
    done: int
    of: int
    note: str


class Report:
    """The base of all results: frozen records whose fields are the result in --json."""

    def line(self) -> str:
        """The result in one line."""
        raise NotImplementedError

    # Whether the cells of the table may be cut where the terminal is too narrow for them.
    is_overview = False

    def table(self) -> Sequence[Sequence[str]]:
        """A table for a person, on stdout; its first row is the header. Empty for no table."""
        return ()

    def outputs(self) -> Mapping[str, str]:
        """Outputs of the step in GitHub Actions: name -> value."""
        return {}


def aligned(rows: Sequence[Sequence[str]], most: int = 0) -> list[str]:
    """Rows as aligned lines; the first row is the header. The last column is not padded.

    most: columns that a line may take, 0 for no limit. The last cell is cut first, then the widest ones. Where that
    would leave too little of them, each row becomes a block of lines, one for each cell, with its header before it.
    """
    if not rows:
        return []
    widths = [max(columns(row[index]) for row in rows) for index in range(len(rows[0]))]
    free = most - len(GAP) * (len(widths) - 1)
    if most and _sum(widths, NARROWEST) > free:
        return _blocks(rows, most)
    if most:
        widths = _narrowed(widths, free)
    return [GAP.join(_cell(*both) for both in zip(row, widths, strict=True)).rstrip() for row in rows]


def _narrowed(widths: Sequence[int], free: int) -> list[int]:
    """Widths that add up to at most `free`, which is enough for the narrowest cells."""
    *others, last = widths
    last = min(last, max(NARROWEST, free - sum(others)))
    cap = max(others, default=0)
    while _sum(others, cap) + last > free:
        cap -= 1
    return [*(min(width, cap) for width in others), last]


def _sum(widths: Sequence[int], cap: int) -> int:
    return sum(min(width, cap) for width in widths)


def _blocks(rows: Sequence[Sequence[str]], most: int) -> list[str]:
    head, *others = rows
    broad = max(columns(name) for name in head)
    lines = []
    for row in others:
        named = zip(head, row, strict=True)
        lines += ["", *(cut(f"{_cell(name, broad)}{GAP}{value}".rstrip(), most) for name, value in named)]
    return lines[1:]


def _cell(value: str, width: int) -> str:
    shown = cut(value, width)
    return shown + " " * (width - columns(shown))


def cut(value: str, most: int) -> str:
    """A text in at most so many columns of a terminal."""
    if columns(value) <= most:
        return value
    while value and columns(value) > most - 1:
        value = value[:-1]
    return f"{value.rstrip()}…"


def columns(value: str) -> int:
    """How many columns of a terminal a text takes up: two for a wide character, none for an accent of its own."""
    if value.isascii():
        return len(value)
    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in value)
