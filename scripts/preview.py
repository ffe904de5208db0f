"""Shows what a deployment would change, before somebody approves it. Only reads, and says what it could not read."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from scripts import check_image, release_static, verify
from scripts.deploy_service import Wish
from scripts.ecs import gates, order, preflight, promotion, receipts
from scripts.edges import git, github
from scripts.frame import settings, text, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import ROOT, Environment
from scripts.frame.summary import Links, linked

# Commits, files and receipts that are shown; seconds for GitHub.
COMMITS, FILES, RECEIPTS = 100, 30, 5
COMMITS_TITLE = "commits"
TIMEOUT = 10.0


class Section(Struct, frozen=True):
    """One part of what would change. lines: plain text, a fact each."""

    title: str
    lines: tuple[str, ...]


class Preview(Report, Struct, frozen=True):
    """What a deployment would change. running: the version that runs, empty if it is not known."""

    environment: str
    site: str
    version: str
    running: str
    sections: tuple[Section, ...]

    def line(self) -> str:
        now = f"it runs {version.short(self.running)}" if self.running else "what it runs is not known"
        return f"{version.short(self.version)} would be deployed to {self.environment}; {now}"

    def table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("ABOUT", "")]
        for section in self.sections:
            rows += [(section.title if line is section.lines[0] else "", line) for line in section.lines]
        return rows

    def outputs(self) -> dict[str, str]:
        return {"running": self.running}

    def markdown(self, links: Links) -> str:
        """All of it for the page that a reviewer sees, with links to commits and pull requests."""
        parts = [f"### {text.markdown(self.line())}"]
        for section in self.sections:
            lines = [linked(line, links) for line in section.lines]
            if section.title == COMMITS_TITLE:
                lines = [_commit(line, links.commits) for line in lines]
            parts += ["", f"#### {section.title}", "", *(f"- {line}" for line in lines)]
        return "\n".join(parts)


def _commit(line: str, commits: str) -> str:
    """A line of `git log --oneline` in markdown, with links to the commit and to the pull request."""
    line = re.sub(r"^([0-9a-f]{7,39}) ", rf"[\1]({commits}\1) ", line)
    pulls = commits.removesuffix("commit/") + "pull/"
    return re.sub(r"&#40;&#35;&#8203;(\d{1,9})&#41;", rf"&#40;[&#35;\1]({pulls}\1)&#41;", line)


def preview(
    run: Run, *, tag: str | None = None, digest: str | None = None, build_dir: str | None = None
) -> Preview | None:
    """Show it. Raises Refused if what runs is newer: nobody need approve that."""
    env, wanted = run.environment, version.wanted(tag)
    found = run.look("what would change", lambda: look(run, wanted, digest, build_dir))
    if found is None:
        return None
    run.summary = found.markdown(run.links())
    if order.is_older(ROOT, wanted, found.running, env.application.main_branch):
        raise Refused(f"{env.name} runs {version.short(found.running)}, which is newer than {version.short(wanted)}.")
    return found


def look(run: Run, wanted: str, digest: str | None, build_dir: str | None) -> Preview:
    """Read all of it. What cannot be read is said in its place."""
    env = run.environment
    try:
        running, unknown = order.running(env), ""
    except DeployError as error:
        running, unknown = "", str(error)
    parts: dict[str, Callable[[], list[str]]] = {
        COMMITS_TITLE: lambda: commits(ROOT, running, wanted, unknown),
        "migrations": lambda: migrations(env, running, wanted),
        "task definition": lambda: changes(run, wanted, digest),
        "frontend": lambda: frontend(env, wanted, build_dir),
        "findings of the scan": lambda: findings(env, wanted),
        "before": lambda: before(env),
        gates.ABOUT: lambda: [f"{one.result}: {one.text}" for one in gates.check(env)],
        "approvals of this run": approvals,
    }
    sections = tuple(Section(title, tuple(_told(read))) for title, read in parts.items())
    return Preview(env.name, env.site, wanted, running, sections)


def _told(read: Callable[[], list[str]]) -> list[str]:
    try:
        return [text.one_line(line) for line in read()] or ["none"]
    except DeployError as error:
        return [f"not known: {text.one_line(str(error))}"]


def commits(folder: Path, running: str, wanted: str, unknown: str = "") -> list[str]:
    """The commits that are new, newest first, with author and pull request. Raises DeployError if that is not known."""
    between = _range(folder, running, wanted, unknown)
    told = git.run(folder, "log", "--no-decorate", f"--max-count={COMMITS + 1}", "--format=%h%x00%an%x00%s", between)
    lines = [line.split("\0") for line in told.splitlines()]
    shown = [f"{sha} {subject} ({author})" for sha, author, subject in lines[:COMMITS]]
    return [*shown, "… and more"] if len(lines) > COMMITS else shown


def migrations(environment: Environment, running: str, wanted: str) -> list[str]:
    """The files of migrations that differ. Raises DeployError if that is not known."""
    prefix = environment.migrations.folder
    if not prefix:
        return ["the settings have no migrations.folder"]
    old, _, new = _range(ROOT, running, wanted).partition("..")
    return [name for name in git.changes(ROOT, old, new) if name.startswith(prefix)]


def _range(folder: Path, running: str, wanted: str, unknown: str = "") -> str:
    for name in (running, wanted):
        if not (git.HASH.fullmatch(name) and git.commit(folder, name)):
            raise DeployError(unknown or f"{name or 'what runs'} is not a commit of this checkout")
    return f"{running}..{wanted}"


def changes(run: Run, wanted: str, digest: str | None) -> list[str]:
    """What would change in the service's task definition, and what would be refused."""
    env = run.environment
    wish = Wish(tag=None if digest else wanted, digest=digest)
    found = preflight.check(run, verify.call_for(env, wish, env.service.name), supersede=False)
    worse = [f"{one.result}: {one.about}: {one.text}" for one in found.findings if one.result != preflight.OK]
    return [*worse, *found.diff]


def frontend(environment: Environment, wanted: str, build_dir: str | None) -> list[str]:
    """Files and bytes that would be put and deleted; only those of the build if the bucket cannot be read."""
    folder = release_static.folder(environment.frontend.folder, build_dir)
    try:
        name = release_static.bucket_name(environment.frontend.bucket, None)
        seen = release_static.observe(environment, name, folder)
        decided = release_static.decide(environment, seen, of_version=wanted)
    except DeployError as error:
        files = release_static.observe_folder(environment, "", folder).site.files
        size = sum(file.size for file in files.values())
        return [f"the build has {len(files)} files ({size:,} bytes)", f"the bucket cannot be read: {error}"]
    *details, total = decided.describe()
    return [total, *details[:FILES], *(["… and more"] if len(details) > FILES else [])]


def findings(environment: Environment, wanted: str) -> list[str]:
    """What the scanner found in the image. Raises DeployError if it cannot be read, or is not complete."""
    checked = check_image.check(environment, check_image.plan(environment, tag=wanted, timeout="1"))
    shown = [f"{one.finding.severity} {one.finding.name} in {one.finding.package}" for one in checked.findings]
    return [checked.line(), *shown[:FILES]]


def before(environment: Environment) -> list[str]:
    """The last deployments to the environment before, by its receipts."""
    name = promotion.environment_before(environment)
    if not name:
        return ["there is no environment before it"]
    kept = receipts.read(settings.environment(name, dry_run=True), RECEIPTS).receipts
    return [
        f"{text.minute(one.started)} UTC {name}: {one.command}"
        f" {version.short(one.version)} by {one.actor}: {one.verdict}"
        for one in kept
    ]


def approvals() -> list[str]:
    """Who approved what in this run of the workflow. Raises DeployError if GitHub cannot be asked.

    https://docs.github.com/en/rest/actions/workflow-runs#get-the-review-history-for-a-workflow-run
    """
    repository, number, token = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_RUN_ID"), github.token()
    if not (repository and number and token):
        raise DeployError("GITHUB_TOKEN is not set, or this is no run of a workflow")
    url = f"{github.api_for_token()}/repos/{repository}/actions/runs/{number}/approvals"
    answer = github.request("GET", url, timeout=TIMEOUT, token=token)
    return [review.line() for review in github.document(answer, list[Review], "a list of reviews")]


class Named(Struct):
    """An environment of a review."""

    name: str


class Reviewer(Struct):
    """Who reviewed."""

    login: str


class Review(Struct):
    """One review of a run: state is approved or rejected."""

    state: str
    user: Reviewer
    comment: str = ""
    environments: list[Named] = []

    def line(self) -> str:
        """Who, what and where, and the comment."""
        names = ", ".join(one.name for one in self.environments)
        return f"{self.user.login} {self.state} {names}{f': {self.comment}' if self.comment else ''}"
