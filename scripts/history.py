"""What was done to an environment: the receipts that its deployments, releases, tasks and rollbacks have left."""

import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from scripts.ecs import page, receipts
from scripts.ecs.page import Lane
from scripts.ecs.receipts import Receipt
from scripts.frame import console, files, settings, text, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment

# Receipts that are shown: in a table, of each environment on a page, and at most.
ROWS, ON_PAGE, MOST = 20, 200, 1000


class History(Report, Struct, frozen=True):
    """The receipts of an environment, newest first."""

    is_overview = True
    environment: str
    receipts: tuple[Receipt, ...]

    def line(self) -> str:
        many = len(self.receipts)
        return f"{self.environment} has {many or 'no'} receipt{'s' * (many != 1)}{'' if many else ' yet'}"

    def table(self) -> list[tuple[str, ...]]:
        return table(self.receipts)


class Page(Struct, frozen=True):
    """The page that is to be written. environments: those on it, with what is known of them."""

    output: str
    environments: tuple[Lane, ...]

    def describe(self) -> list[str]:
        told = (f"  {lane.environment}: {lane.note or f'{len(lane.receipts)} runs'}" for lane in self.environments)
        return [f"write {self.output}", *told]


class Written(Report, Struct, frozen=True):
    """A page that was written."""

    output: str
    runs: int

    def line(self) -> str:
        return f"{self.output} shows {self.runs} {'run' if self.runs == 1 else 'runs'}"


def history(run: Run, *, limit: str | None = None, html: str | None = None) -> Report | None:
    """Show the newest receipts, or write those of all environments to a page."""
    if html is not None:
        return _write(run, Path(html), _limit(limit, ON_PAGE))
    most = _limit(limit, ROWS)

    def look() -> History:
        found = receipts.read(run.environment, most)
        if found.damaged:
            shown = ", ".join(found.damaged[:3])
            console.warn(f"{len(found.damaged)} receipts are damaged and left out: {shown}")
        return History(run.environment.name, found.receipts)

    return run.look(f"the receipts of {run.environment.name}", look)


def _limit(flag: str | None, default: int) -> int:
    if flag is None:
        return default
    if not (flag.isascii() and flag.isdigit() and 0 < int(flag[:9]) <= MOST and len(flag) < 9):
        raise Refused(f"--limit must be a number from 1 to {MOST}, not {flag[:50]!r}.")
    return int(flag)


def _write(run: Run, path: Path, most: int) -> Written | None:
    """Write the page of all environments; it says which ones cannot be read. Raises DeployError if that is all."""
    files.check_target(path)
    lanes = tuple(_lane(environment, most) for environment in _shown(run))
    unread = [lane for lane in lanes if lane.note and not lane.receipts]
    if len(unread) == len(lanes) and not run.dry_run:
        raise DeployError("\n".join(f"{lane.environment}: {lane.note}" for lane in unread))
    for lane in unread:
        console.warn(f"{lane.environment} is not shown: {lane.note}")

    def write(plan: Page) -> Written:
        files.write(path, page.html(run.environment.application.name, plan.environments, time.time()))
        return Written(plan.output, sum(len(lane.receipts) for lane in plan.environments))

    return run.act(Page(str(path), lanes), write, changes=False)


def _shown(run: Run) -> list[Environment]:
    """The environments of a page: all, but an embedded one only if it was asked for."""
    made = [settings.environment(name, dry_run=True) for name in settings.names()]
    return [one for one in made if not one.endpoint_url or one.name == run.environment.name]


def _lane(environment: Environment, most: int) -> Lane:
    try:
        found = receipts.read(environment, most)
    except DeployError as error:
        return Lane(environment.name, (), str(error))
    return Lane(environment.name, found.receipts, f"{len(found.damaged)} receipts are damaged" if found.damaged else "")


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
    code = f"exit code {receipt.exit_code}" if receipt.exit_code else ""
    told = ", ".join(filter(None, (f"rollback from {left}" if left else "", receipt.promotion, code)))
    return text.one_line(receipt.verdict + (f" ({told})" if told else ""))
