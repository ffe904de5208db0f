"""What was done to an environment: the receipts that its deployments, releases, tasks and rollbacks have left."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.ecs import receipts
from scripts.ecs.receipts import Receipt
from scripts.frame import console, text, version
from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run

ROWS = 20
MOST = 1000


@dataclass(frozen=True)
class History(Report):
    """The receipts of an environment, newest first."""

    is_overview = True
    environment: str
    receipts: tuple[Receipt, ...]

    def line(self) -> str:
        many = len(self.receipts)
        return f"{self.environment} has {many or 'no'} receipt{'s' * (many != 1)}{'' if many else ' yet'}"

    def table(self) -> list[tuple[str, ...]]:
        return table(self.receipts)


def history(run: Run, *, limit: str | None = None) -> History | None:
    """Show the newest receipts."""
    most = _limit(limit)

    def look() -> History:
        found = receipts.read(run.environment, most)
        if found.damaged:
            shown = ", ".join(found.damaged[:3])
            console.warn(f"{len(found.damaged)} receipts are damaged and left out: {shown}")
        return History(run.environment.name, found.receipts)

    return run.look(f"the receipts of {run.environment.name}", look)


def _limit(flag: str | None) -> int:
    if flag is None:
        return ROWS
    if not (flag.isascii() and flag.isdigit() and 0 < int(flag[:9]) <= MOST and len(flag) < 9):
        raise Refused(f"--limit must be a number from 1 to {MOST}, not {flag[:50]!r}.")
    return int(flag)


def table(kept: Sequence[Receipt]) -> list[tuple[str, ...]]:
    """Receipts as rows for a person: when, who, what, version, how it ended, seconds."""
    if not kept:
        return []
    rows: list[tuple[str, ...]] = [("WHEN (UTC)", "WHO", "COMMAND", "VERSION", "TOOK", "VERDICT")]
    for one in kept:
        what = (text.one_line(one.actor, 40), one.command, version.short(one.version) or "-")
        rows.append((text.minute(one.started), *what, f"{one.seconds:.0f} s", _ended(one)))
    return rows


def _ended(receipt: Receipt) -> str:
    """The verdict, and what a reader must know beside it."""
    left = version.short(receipt.rolled_back_from)
    notes = [f"rollback from {left}" if left else "", receipt.promotion, f"exit code {receipt.exit_code}"]
    told = [note for note in notes[: 3 if receipt.exit_code else 2] if note]
    return text.one_line(receipt.verdict + (f" ({', '.join(told)})" if told else ""))
