"""What a command reports: one line, a table for a person, outputs for a workflow, data for a program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Plan(Protocol):
    """What a command is about to do: a frozen dataclass whose fields are the plan in --json."""

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        ...


@dataclass(frozen=True)
class Bar:
    """How far something is that is counted, such as the files of a release. note: the same in words."""

    label: str
    done: int
    of: int
    note: str


class Report:
    """The base of all results: frozen dataclasses whose fields are the result in --json."""

    def line(self) -> str:
        """The result in one line."""
        raise NotImplementedError

    def table(self) -> Sequence[Sequence[str]]:
        """A table for a person, on stdout; its first row is the header. Empty for no table."""
        return ()

    def outputs(self) -> Mapping[str, str]:
        """Outputs of the step in GitHub Actions: name -> value."""
        return {}


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines. The last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]
