"""What runs where: every environment, the version that answers, and how far it is behind the main branch."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scripts import environments, repository, version
from scripts.errors import DeployError
from scripts.repository import Commit

TIMEOUT = 5.0


@dataclass(frozen=True)
class Answering:
    """What an environment answers: its version, or why there is none."""

    environment: str
    version: str
    why: str


@dataclass(frozen=True)
class Row:
    """One environment. behind: commits of the main branch that it does not have, None where not known."""

    environment: str
    version: str
    subject: str
    age: str
    behind: int | None
    why: str


@dataclass(frozen=True)
class Table:
    """All environments, in the order of the settings."""

    rows: tuple[Row, ...]

    def summary(self) -> str:
        """What is true now, in one line."""
        answering = sum(1 for row in self.rows if row.version)
        return f"{answering} of {len(self.rows)} environments answer"

    def outputs(self) -> dict[str, str]:
        """Nothing that a later step needs."""
        return {}

    def lines(self) -> list[str]:
        """The table for a person."""
        head = ("ENVIRONMENT", "VERSION", "BEHIND", "AGE", "COMMIT")
        cells = [head]
        for row in self.rows:
            behind = "?" if row.behind is None else str(row.behind)
            shown = (
                (version.short(row.version), behind, row.age, row.subject) if row.version else ("-", "-", "-", row.why)
            )
            cells.append((row.environment, *shown))
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        return [
            "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[4]])
            for line in cells
        ]


@dataclass(frozen=True)
class Look:
    """Which healthchecks are to be asked."""

    urls: Mapping[str, str]

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        return [f"ask {url} for the version of {name}" for name, url in self.urls.items()]


def plan(chosen: str | None) -> Look:
    """Which environments: one by its name, else all. Raises Refused for one that is not known."""
    names = environments.names() if chosen is None else (environments.choose(chosen)[0],)
    return Look({name: environments.environment(name, dry_run=True).healthcheck for name in names})


def ask(urls: Mapping[str, str]) -> list[Answering]:
    """Ask all at the same time, so that a slow one delays no other. Takes a few seconds at most."""

    def one(item: tuple[str, str]) -> Answering:
        name, url = item
        try:
            return Answering(name, version.answering(url, TIMEOUT), "")
        except DeployError as error:
            return Answering(name, "", f"does not answer: {error}")

    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        return list(pool.map(one, urls.items()))


def table(plan: Look, folder: Path, main_branch: str, now: float) -> Table:
    """Ask, and look the versions up in the repository. now: Unix time in seconds."""
    tip = repository.commit(folder, f"origin/{main_branch}") or repository.commit(folder, main_branch)
    return Table(tuple(row(answering, folder, tip, now) for answering in ask(plan.urls)))


def row(answering: Answering, folder: Path, tip: Commit | None, now: float) -> Row:
    """One environment's row."""
    known = repository.commit(folder, answering.version) if answering.version else None
    behind = None
    if known and tip:
        behind = int(repository.git(folder, "rev-list", "--count", f"{known.sha}..{tip.sha}"))
    return Row(
        environment=answering.environment,
        version=answering.version,
        subject=known.subject if known else "not a commit of this repository",
        age=age(now - known.at) if known else "-",
        behind=behind,
        why=answering.why,
    )


def age(seconds: float) -> str:
    """A time in its largest whole unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(0, seconds))} s"
