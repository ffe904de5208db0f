"""What runs where: every environment, the version that answers, and how far it is behind the main branch."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.edges import git
from scripts.edges.git import Commit
from scripts.frame import settings, text, version
from scripts.frame.errors import DeployError
from scripts.frame.report import Report
from scripts.frame.run import Run

# Seconds for a response, and how much longer to wait for the thread: a DNS lookup does not observe the timeout.
TIMEOUT = 5.0
LEEWAY = 0.5


@dataclass(frozen=True)
class Answering:
    """The version that an environment returned, or why there is none."""

    environment: str
    version: str
    why: str


@dataclass(frozen=True)
class Row:
    """One environment. behind: commits of the main branch that it does not have, None if not known."""

    environment: str
    version: str
    subject: str
    age: str
    behind: int | None
    why: str


@dataclass(frozen=True)
class Table(Report):
    """All environments, in the order of the settings."""

    rows: tuple[Row, ...]

    def line(self) -> str:
        answering = sum(1 for row in self.rows if row.version)
        return f"{answering} of {len(self.rows)} environments answer"

    def table(self) -> list[tuple[str, ...]]:
        shown: list[tuple[str, ...]] = [("ENVIRONMENT", "VERSION", "BEHIND", "AGE", "COMMIT")]
        for row in self.rows:
            behind = "?" if row.behind is None else str(row.behind)
            answers = (text.one_line(version.short(row.version), 60), behind, row.age, text.one_line(row.subject))
            shown.append((row.environment, *(answers if row.version else ("-", "-", "-", text.one_line(row.why)))))
        return shown


def status(run: Run) -> Table | None:
    """Ask every environment, or the one that --env names.

    Raises DeployError if that one does not answer, except in a dry run.
    """
    env = run.environment
    urls = healthchecks(env.name if env.origin else None)
    main_branch = env.application.main_branch
    found = run.look("what runs where", lambda: observe(urls, Path.cwd(), main_branch, time.time()))
    if found and env.origin and not (run.dry_run or found.rows[0].version):
        raise DeployError(f"{env.name} {found.rows[0].why}.")
    return found


def healthchecks(name: str | None = None) -> dict[str, str]:
    """The URL that answers with the version, of one environment or of all."""
    names = settings.names() if name is None else (name,)
    return {name: settings.environment(name, dry_run=True).healthcheck for name in names}


def ask(urls: Mapping[str, str]) -> list[Answering]:
    """Request all healthchecks concurrently, so that a slow one does not delay the others. Takes at most 6 seconds."""
    found: dict[str, Answering] = {}

    def one(name: str, url: str) -> None:
        try:
            found[name] = Answering(name, version.ask(url, TIMEOUT), "")
        except DeployError as error:
            found[name] = Answering(name, "", f"does not answer: {error}")

    threads = [threading.Thread(target=one, args=item, daemon=True) for item in urls.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT + LEEWAY
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    late = f"does not answer: no response within {TIMEOUT:g} s"
    return [found.get(name) or Answering(name, "", late) for name in urls]


def observe(urls: Mapping[str, str], folder: Path, main_branch: str, now: float) -> Table:
    """Request the versions, and look them up in the repository. now: Unix time in seconds."""
    tip = git.commit(folder, f"origin/{main_branch}") or git.commit(folder, main_branch)
    return Table(tuple(row(answering, folder, tip, now) for answering in ask(urls)))


def row(answering: Answering, folder: Path, tip: Commit | None, now: float) -> Row:
    """One environment's row."""
    # Names such as HEAD are commits for git, but no answer may be one.
    known = git.commit(folder, answering.version) if git.HASH.fullmatch(answering.version) else None
    behind = None
    if known and tip:
        behind = int(git.run(folder, "rev-list", "--count", f"{known.sha}..{tip.sha}"))
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
