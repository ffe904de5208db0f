"""The fault matrix: every request of every command, broken in every way, and which exit codes are right then.

The rules: was anything changed, was the command's purpose achieved, and can the command know that?
"""

import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from local_aws.cloud import Cloud
from local_aws.server import Server
from scripts import deploy_service
from scripts.ecs import receipts
from scripts.ecs.receipts import Receipt
from scripts.edges import git
from scripts.edges.s3 import open_bucket
from scripts.frame import settings
from scripts.release import manifest
from tests.conftest import ROOT, EmbeddedCloud
from tests.faults.recorder import GITHUB, REGION, SLACK, Laboratory, Outcome, Request
from tests.release import sites

GONE = 10**6
BUCKET = "local-mint-app-static"
# Seconds that a deployment is watched: more than a rollout takes on the embedded ECS.
TIMEOUT = 20.0
NONSENSE = "<html><body>Please log in to the network.</body></html>"

# What happens to a request and all later ones of its kind, including its retries.
FAULTS: dict[str, dict[str, Any]] = {
    "denied": {"status": 403, "code": "AccessDenied", "message": "not for this role"},
    "expired": {"status": 403, "code": "ExpiredToken", "message": "The security token has expired."},
    "refused": {"status": 400, "code": "ValidationError", "message": "not like this"},
    "5xx": {"status": 500},
    "reset before": {"drop": True},
    "reset after": {"after": True, "drop": True},
    # Longer than any client waits.
    "slow": {"after": True, "delay": 3600, "drop": True},
    "nonsense": {"status": 200, "body": NONSENSE},
    "empty": {"status": 200, "body": "{}", "type": "application/json"},
}
# After these, it is unknown whether AWS carried out the request.
DOUBTFUL = {"5xx", "reset before", "reset after", "slow", "nonsense", "empty"}
# Transient faults: the next request of the kind succeeds.
PASSING = {"5xx once": {"status": 500, "times": 1}, "reset once": {"drop": True, "times": 1}}

# What a request does, if it does not only read. "begins": starts the command's purpose. "prepares": has no effect by
# itself. "tidies": cleans up after the purpose is achieved. "tells": never changes the outcome.
ROLES = (
    (r"lambda Invoke the (manager|cleaner)", "begins"),
    (r"ecs (UpdateService|RunTask)", "begins"),
    (r"rds CreateDBSnapshot", "begins"),
    (r"registry PUT the manifest", "begins"),
    (r"s3 PutObject the page", "begins"),
    (r"http POST GitHub", "begins"),
    (r"ecs RegisterTaskDefinition", "prepares"),
    (r"registry POST a layer", "prepares"),
    (r"s3 PutObject (the lock|the next manifest|a file|a copy for rollbacks)", "prepares"),
    (r"rds DeleteDBSnapshot", "tidies"),
    (r"s3 PutObject the manifest", "tidies"),
    (r"s3 (DeleteObjects|DeleteObject).*", "tidies"),
    (r"cloudfront CreateInvalidation", "tidies"),
    (r"s3 PutObject a receipt", "tells"),
    (r"http .*Slack", "tells"),
    (r"logs .*", "tells"),
)


def role(request: Request) -> str:
    """The role of a request as in ROLES, or "reads"."""
    return next((name for pattern, name in ROLES if re.fullmatch(pattern, request.does)), "reads")


@dataclass(frozen=True)
class Command:
    """A command line to try. prepare: sets up the state before it. env: variables.

    waits: a pattern of the requests that it repeats until its time-out (exit code 3). shows: it says what failed, and
    exits with 0.
    """

    words: tuple[str, ...]
    prepare: Callable[["Bench"], object] = lambda _: None
    env: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    waits: str = "nothing"
    shows: bool = False


@dataclass
class Bench:
    """A laboratory with its own folder."""

    laboratory: Laboratory
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    ready: str = ""

    @property
    def cloud(self) -> Cloud:
        return self.laboratory.server.cloud

    def site(self, version: str) -> str:
        """A built frontend with so few files that each is put by a single request."""
        return str(sites.build(self.folder / version, version, chunks=1))

    def do(self, *words: str) -> None:
        """Run a command that must succeed."""
        done = self.laboratory.run(words)
        assert done.code == 0, done.said

    def images(self) -> None:
        """A version that can be deployed, and a frontend."""
        EmbeddedCloud(self.laboratory.server).push("v1", "mint-backend", "mint-db-migrate")
        self.site("two")

    def release(self) -> None:
        """A published release, and the build of the next one."""
        self.do("release-static", "--no-build", f"--build-dir={self.site('one')}")
        self.site("two")
        self.laboratory.slept += 3600

    def releases(self) -> None:
        """Two releases."""
        self.release()
        self.do("release-static", "--no-build", f"--build-dir={self.site('two')}")

    def deployments(self) -> None:
        """A version to go back to: by a receipt it ran well, its image is there, and its frontend is kept."""
        self.images()
        self.releases()
        kept = manifest.read(open_bucket(settings.environment("local"), BUCKET)).manifest
        assert kept is not None
        self.receipt("v1", release=[one.id for one in kept.releases if one.at][1])

    def receipt(self, version: str = "v1", release: str = "") -> None:
        """The receipt of a good deployment."""
        kept = Receipt(
            id=f"20260101T000000.000Z-{version}",
            application="mint-app",
            environment="local",
            command="deploy",
            version=version,
            service="mint-app",
            release=release,
            actor="octocat",
            started=1767225600.0,
            seconds=60.0,
            verdict="succeeded",
            exit_code=0,
        )
        self.cloud.client("s3", REGION).put_object(
            Bucket=BUCKET, Key=f"{receipts.PREFIX}{kept.id}.json", Body=msgspec.json.encode(kept)
        )

    def repository(self) -> None:
        """A checkout with a commit to revert, and its remote."""
        remote, checkout = self.folder / "remote.git", self.folder / "checkout"
        for folder in (remote, checkout):
            shutil.rmtree(folder, ignore_errors=True)
        git.run(self.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
        git.run(self.folder, "clone", "--quiet", str(remote), str(checkout))
        git.run(checkout, "switch", "--quiet", "-c", "main")
        for text in ("one", "two"):
            (checkout / "page.txt").write_text(text)
            git.run(checkout, "add", "page.txt")
            git.run(checkout, "commit", "--quiet", "-m", f"Change the page to {text}")
        git.run(checkout, "push", "--quiet", "origin", "main")
        self.laboratory.repositories = {"remote": remote, "checkout": checkout / ".git"}
        self.monkeypatch.chdir(checkout)

    def snapshot(self) -> None:
        """An old snapshot with this tool's tags."""
        tags = [{"Key": "Environment", "Value": "local"}, {"Key": "Tool", "Value": "backup-database"}]
        self.cloud.client("rds", "us-west-2").create_db_snapshot(
            DBInstanceIdentifier="mintlocal", DBSnapshotIdentifier="old", Tags=tags
        )
        self.laboratory.slept += 3600


@contextmanager
def bench(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench around a running embedded AWS, in a clean environment. folder: for builds."""
    programs = folder / "bin"
    programs.mkdir()
    # No docker on the PATH: without an engine the images are assembled, with the same requests to the registry.
    (programs / "git").symlink_to(str(shutil.which("git")))
    laboratory = Laboratory(server)
    values = {
        "PATH": str(programs),
        "HOME": str(folder),
        "APP_ENV": "local",
        "AWS_ENDPOINT_URL": server.cloud.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SLACK_WEBHOOK_URL": f"{server.cloud.url}{SLACK}",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENTS_FILE", shutil.copy(ROOT / "environments.toml", folder))
    monkeypatch.setattr(deploy_service, "TIMEOUT", TIMEOUT)
    laboratory.install(monkeypatch)
    try:
        yield Bench(laboratory, folder, monkeypatch)
    finally:
        laboratory.uninstall()


# Fixed dates, so that the reverted commit has the same hash each time.
WHO = {"NAME": "Test", "EMAIL": "test@example.org", "DATE": "2026-01-01T00:00:00Z"}
ACTIONS = {
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_RUN_ID": "1",
    "GITHUB_JOB": "deploy",
    "GITHUB_REPOSITORY": "owner/app",
    "GITHUB_ACTOR": "octocat",
}
GITHUB_ACCESS = {
    "GITHUB_TOKEN": "github_pat_x",
    "GITHUB_API_URL": f"{{url}}{GITHUB}",
    "GITHUB_REPOSITORY": "owner/app",
    **{f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in WHO.items()},
}
# The embedded AWS answers every healthcheck.
SITES = {f'"https://{name}mint.cms.gov"': '"{url}"' for name in ("dev.", "impl.", "")}
# No old release is kept, so that the next one has files to delete.
ONE = {"keep_releases = 2": "keep_releases = 0", "max_delete_percent = 50": "max_delete_percent = 100"}
# With headers of its own, a release does not use obstore, whose time-outs follow no clock of Python.
SLOW = {"[defaults.frontend]": '[defaults.frontend]\nput_headers = { x-amz-meta-of = "mint" }'}
COMMANDS: dict[str, Command] = {
    "status": Command(("status", "--env=local")),
    "check-image": Command(("check-image", "--tag=v0")),
    "check-image --running": Command(("check-image", "--running")),
    "check-image --via=lambda": Command(("check-image", "--tag=v0", "--via=lambda")),
    "announce-failure": Command(("announce-failure",), env=ACTIONS, shows=True),
    "backup-database": Command(
        ("backup-database",), Bench.snapshot, settings={"keep_snapshots = 0": "keep_snapshots = 1"}
    ),
    "build-image": Command(("build-image", "--tag=v1")),
    "healthcheck": Command(("healthcheck", "--version=v0", "--timeout=20"), waits=".*"),
    "verify": Command(("verify", "--tag=v1"), Bench.images),
    "preview": Command(
        ("preview", "--tag=v1", "--build-dir={folder}/two"), Bench.images, ACTIONS | GITHUB_ACCESS, shows=True
    ),
    "history": Command(("history",), Bench.receipt),
    "deploy-service": Command(("deploy-service", "--tag=v1"), Bench.images),
    "deploy-service --via=ecs": Command(("deploy-service", "--tag=v1", "--via=ecs"), Bench.images),
    "deploy-service --resume": Command(("deploy-service", "--tag=v0", "--resume"), waits=".*"),
    "run-task": Command(("run-task",)),
    "run-task --via=ecs": Command(("run-task", "--via=ecs")),
    "clean-database": Command(("clean-database",)),
    "migrate-database": Command(("migrate-database", "--tag=v1"), Bench.images),
    "deploy": Command(("deploy", "--tag=v1", "--no-build", "--build-dir={folder}/two"), Bench.images),
    "rollback": Command(("rollback", "--yes"), Bench.deployments),
    "release-static": Command(
        ("release-static", "--no-build", "--build-dir={folder}/two"), Bench.release, settings=ONE
    ),
    "release-storybook": Command(("release-storybook", "--build-dir={folder}/two"), Bench.images),
    "release.list": Command(("release.list",), Bench.release),
    "release.diff": Command(("release.diff",), Bench.releases),
    "release.verify": Command(("release.verify",), Bench.release),
    "release.rollback": Command(("release.rollback",), Bench.releases),
    "revert": Command((f"--search-root={ROOT}", "revert"), Bench.repository, GITHUB_ACCESS, SITES),
}


@dataclass(frozen=True)
class Cell:
    """A fault of one request of a command. begun: whether its step has started something before this request."""

    command: str
    request: Request
    begun: bool
    fault: str

    @property
    def passes(self) -> bool:
        return self.fault in PASSING

    @property
    def row(self) -> str:
        """The request, as the document shows it."""
        step = f"{self.request.step}: " if self.request.step else ""
        return f"{step}{self.request.name}{', after it has begun' if self.begun else ''}"

    def __str__(self) -> str:
        return f"{self.command} | {self.row} | {self.fault}"


def cells(name: str, clean: Outcome) -> Iterator[Cell]:
    """The cells to try for a command: each request with each fault.

    Of each kind only the first in a step before something was started, and the first after that.
    """
    met = set[str]()
    for request in clean.requests:
        begun = begins_before(request, clean)
        for fault in (*FAULTS, *PASSING):
            if fault in PASSING and role(request) != "reads":
                continue
            cell = Cell(name, request, begun, fault)
            if str(cell) not in met:
                met.add(str(cell))
                yield cell


def sampled(cell: Cell, every: int) -> bool:
    """Whether a cell is one of the sample of every n-th; the sample is always the same."""
    return zlib.crc32(str(cell).encode()) % every == 0


def configure(bench: Bench, name: str, more: Mapping[str, str]) -> None:
    """Write the settings for a command. more: replacements beside its own."""
    text = (ROOT / "environments.toml").read_text()
    for old, new in {**COMMANDS[name].settings, **more}.items():
        assert old in text
        text = text.replace(old, new.replace("{url}", bench.cloud.url))
    (bench.folder / "environments.toml").write_text(text)


def begin(bench: Bench, name: str, fault: str = "") -> None:
    """Set up the state before a command, unless nothing was changed since the last time."""
    bench.laboratory.mend()
    configure(bench, name, SLOW if fault == "slow" else {})
    if bench.ready == name:
        return
    command = COMMANDS[name]
    for key in {key for other in COMMANDS.values() for key in other.env}:
        bench.monkeypatch.delenv(key, raising=False)
    for key, value in command.env.items():
        bench.monkeypatch.setenv(key, value.format(url=bench.cloud.url))
    bench.laboratory.reset()
    bench.monkeypatch.chdir(ROOT)
    command.prepare(bench)
    bench.ready = name


def run(bench: Bench, name: str) -> Outcome:
    """Run a command in the state that `begin` set up."""
    bench.ready = ""
    done = bench.laboratory.run(tuple(word.format(folder=bench.folder) for word in COMMANDS[name].words))
    if not done.wrote:
        bench.ready = name
    return done


def record(bench: Bench, name: str) -> Outcome:
    """Run a command without faults."""
    begin(bench, name)
    return run(bench, name)


def tried(bench: Bench, cell: Cell) -> Outcome | None:
    """Run a command with a fault. Returns None if it did not send the request."""
    begin(bench, cell.command, cell.fault)
    rule = {"times": GONE, **cell.request.rule, **(FAULTS | PASSING)[cell.fault]}
    times = rule["times"]
    bench.laboratory.break_next(rule, cell.request.step)
    done = run(bench, cell.command)
    return done if rule["times"] < times else None


def right(cell: Cell, clean: Outcome, broken: Outcome) -> set[int]:
    """The exit codes that are right for a run with a broken request.

    0 only if the state is what was promised; 2 only if nothing was written; 3 only if something may have begun whose
    end is not known.
    """
    command, does = COMMANDS[cell.command], role(cell.request)
    done = promised(broken.changed, broken.said)
    unproven = broken.said.count(UNPROVEN) > clean.said.count(UNPROVEN)
    kept = promised(clean.changed, broken.said) == done and not unproven
    codes = set[int]()
    if kept and (clean.changed or report(clean) == report(broken) or UNREAD.search(broken.said + broken.printed)):
        codes.add(0)
    if cell.passes:
        return codes
    if command.shows:
        return {0}
    if does == "tells":
        return {0} if kept else set()
    lost = cell.fault in DOUBTFUL
    unknown = (does == "begins" and lost) or (does in ("reads", "begins") and (cell.begun or begun(cell, broken)))
    if unknown or (does == "tidies" and lost) or re.fullmatch(command.waits, cell.request.name):
        codes.add(3)
    # The same request of a later step fails too, and that step has started nothing.
    again = any(one.name == cell.request.name and one.step > cell.request.step for one in clean.requests)
    # Without a response a request has failed if a later read shows that nothing was changed.
    looked = any(role(one) == "reads" for one in broken.requests[after(cell.request, broken) :])
    if not unknown or again or (looked and not done and not cell.begun):
        codes |= {1} if broken.wrote else {1, 2}
    return codes


def after(request: Request, broken: Outcome) -> int:
    """The index after the last request of a kind."""
    return max((number for number, one in enumerate(broken.requests, 1) if one.name == request.name), default=0)


def begins_before(request: Request, clean: Outcome) -> bool:
    """Whether an earlier request of the step has started something: one of a Lambda function, not its Invoke."""
    before = clean.requests[: clean.requests.index(request)]
    return any(role(one) == "begins" and one.service != "lambda" and one.step == request.step for one in before)


def begun(cell: Cell, broken: Outcome) -> bool:
    """Whether the step in which a run ended has started something, other than by the broken request.

    A read that fails from the first on may be one that a command does without, until it watches what it has started.
    """
    last = broken.requests[-1].step
    return any(
        role(one) == "begins" and one.service != "lambda" and one.step == last and one.name != cell.request.name
        for one in broken.requests
    )


def promised(changed: list[str], said: str) -> list[str]:
    """The changes that are the purpose of a command, without those that prepare them, tell of them or hold the lock.

    said: stderr; a release that may not read its manifest says that it deletes nothing.
    """
    aside = "revision |(no )?object [^ ]+/_release/" + ("|no object " if "deletes nothing" in said else "")
    return [one for one in changed if not re.match(aside, one)]


def report(done: Outcome) -> str:
    """The last line of stderr, and stdout, without durations."""
    return re.sub(r"\(\d+ s\)", "", f"{done.said.splitlines()[-1:]}{done.printed}")


# How a command says that it has not seen whether a deployment succeeded.
UNPROVEN = "so nothing is verified"
# How a report says that something could not be read.
UNREAD = re.compile(
    r"cannot (longer )?be (read|asked|compared)|can no longer be read|(not|n't|without) (known|read|reached|watched)"
    r"|judged without|left out"
)
# How a failed write is told of that changes nothing.
TOLD = re.compile(r"^warning: |could not|cannot|ECS shows that it was started", re.MULTILINE)
UNREADABLE = re.compile(r"Traceback|NoneType| object at 0x|<class|\[Errno")


def fault_of(cell: Cell, clean: Outcome, broken: Outcome) -> str:
    """What is wrong with how a run ended, or empty."""
    codes = right(cell, clean, broken)
    last = next(iter(reversed(broken.said.strip().splitlines())), "")
    if broken.code not in codes:
        return f"{broken.code} instead of {sorted(codes)}; changed: {broken.changed}: {last}"
    if UNREADABLE.search(broken.said):
        return f"unreadable: {broken.said}"
    if broken.code == 0 and role(cell.request) in ("prepares", "tells") and not TOLD.search(broken.said):
        return f"nothing is said of the request that failed: {broken.said}"
    if len(last.split()) < 4:
        return f"no sentence at the end: {last!r}"
    return ""


HEAD = """# Faults

The exit code of each command when one of its requests fails. `make faults` tries all of them on the embedded AWS and
writes this file; `make e2e` tries some of them again.

0 done · 1 failed · 2 refused, and nothing was changed · 3 unknown, it may still be happening · 4 rolled back

The columns say what happens to a request and to all later ones of its kind: it is denied (403), the credentials have
expired, it is refused (400), AWS fails (500), the connection is reset before AWS has received it, or after AWS has
carried it out, the response is so slow that the command does not wait for it, although AWS has carried out the request,
the response is a web page, or an empty JSON object. The last two are transient: only the first request of the kind
fails, and only reads are tried with them.

A request *begins* what the command is for, *prepares* it, *tidies* up after it, *tells* about it, or *reads*. Requests
of a Lambda function count for themselves, because it has rights of its own. A 0 means that what was promised has
happened: a read that failed was repeated, or something else proves the same, or a warning says what was done without.
"""


def document(results: Mapping[Cell, int | None], before: str = "") -> str:
    """docs/faults.md: a table for each command. before: the document whose other commands stay as they are."""
    faults = [*FAULTS, *PASSING]
    tables = dict(part.split("\n", 1) for part in before.split("\n## ")[1:])
    for command in dict.fromkeys(cell.command for cell in results):
        own = {(cell.row, cell.fault): code for cell, code in results.items() if cell.command == command}
        does = {cell.row: role(cell.request) for cell in results if cell.command == command}
        text = f"\n| request | does | {' | '.join(faults)} |\n|---|---|{'---|' * len(faults)}\n"
        for row, what in does.items():
            codes = [own.get((row, fault)) for fault in faults]
            text += f"| {row} | {what} | {' | '.join('' if code is None else str(code) for code in codes)} |\n"
        tables[command] = text
    return HEAD + "".join(f"\n## {name}\n{tables[name].rstrip()}\n" for name in COMMANDS if name in tables)


def documented(text: str) -> dict[str, str]:
    """The exit codes in a document, by cell."""
    found, command = dict[str, str](), ""
    for line in text.splitlines():
        command = line.removeprefix("## ") if line.startswith("## ") else command
        if line.startswith("| ") and not line.startswith("| request"):
            row, _, *codes = (part.strip() for part in line.strip("|").split("|"))
            found |= {f"{command} | {row} | {name}": c for name, c in zip([*FAULTS, *PASSING], codes, strict=True)}
    return found
