"""What runs where: every environment, the version that answers, and how far it is behind the main branch."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from scripts.ecs import order, receipts
from scripts.edges import aws, git
from scripts.edges.git import Commit
from scripts.frame import settings, text, version
from scripts.frame.errors import DeployError
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.threads import workers

# Seconds for a response, and how much longer to wait for the thread: a DNS lookup does not observe the timeout.
TIMEOUT = 5.0
LEEWAY = 0.5
# Receipts of an environment that are looked through.
RECEIPTS = 20


class Answering(Struct, frozen=True):
    """The version that an environment returned, or why there is none."""

    environment: str
    version: str
    why: str


class Row(Struct, frozen=True):
    """One environment. behind: commits of the main branch that it does not have, None if not known.

    deployed: when the version was deployed, in UTC, by the environment's receipts; empty if they cannot be read.
    """

    environment: str
    version: str
    subject: str
    age: str
    behind: int | None
    why: str
    deployed: str = ""

    def cells(self) -> tuple[str, ...]:
        """The row for a person."""
        if not self.version:
            return (self.environment, "-", "-", "-", "-", text.one_line(self.why))
        behind = "?" if self.behind is None else str(self.behind)
        shown = text.one_line(version.short(self.version), 60)
        return (self.environment, shown, behind, self.age, self.deployed or "-", text.one_line(self.subject, 200))


class Table(Report, Struct, frozen=True):
    """All environments, in the order of the settings."""

    is_overview = True
    rows: tuple[Row, ...]

    def line(self) -> str:
        answering = sum(1 for row in self.rows if row.version)
        return f"{answering} of {len(self.rows)} environments answer"

    def table(self) -> list[tuple[str, ...]]:
        head = ("ENVIRONMENT", "VERSION", "BEHIND", "AGE", "DEPLOYED (UTC)", "COMMIT")
        return [head, *(row.cells() for row in self.rows)]


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
    tip = order.tip(folder, main_branch)
    found = ask(urls)
    with workers(len(found)) as pool:
        times = list(pool.map(deployed, found))
    rows = (replace(row(one, folder, tip, now), deployed=at) for one, at in zip(found, times, strict=True))
    return Table(tuple(rows))


def deployed(answering: Answering) -> str:
    """When the version that answers was deployed, by the receipts; empty if they cannot be read or have none."""
    env = settings.environment(answering.environment, dry_run=True)
    # An embedded AWS that runs no application is not started for this.
    if not (answering.version and env.frontend.bucket.known() and aws.has_credentials(env)):
        return ""
    try:
        kept = receipts.read(env, RECEIPTS).receipts
    except DeployError:
        return ""
    known = (one for one in kept if one.version == answering.version and one.is_good(env.service.name))
    return next((text.minute(one.started) for one in known), "")


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
