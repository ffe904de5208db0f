"""Reads what the registry's scanner found in an image, and decides whether that is acceptable.

Was scripts/check_ecr_findings and scripts/check_deployed_image_findings. An image that was not scanned fails.
"""

import datetime
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct, field

from scripts import announce_failure
from scripts.announce_failure import Announcement, quoted
from scripts.ecs import images, manager
from scripts.ecs.manager import Invocation
from scripts.edges import aws
from scripts.frame import console, text, version, waiting
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report, aligned
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut, wait

# From harmless to bad. A severity that the scanner does not know counts as the worst.
SEVERITIES = ("INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL")
DONE = {"COMPLETE", "ACTIVE"}
UNDER_WAY = {"IN_PROGRESS", "PENDING"}
# Not a status of ECR: there is no scan of the image.
NOT_SCANNED = "NOT_SCANNED"
INTERVAL = 2.0
ANSWER_TIMEOUT = 5.0
SCAN_TIMEOUT = 300.0
# Seconds to wait for a scan to appear: a scan on push starts shortly after the push.
GRACE = 30.0
# Bytes of a file of waivers.
MOST = 1 << 20
# GitHub shows no more of one step.
ANNOTATIONS = 10


class Waiver(Struct, frozen=True):
    """A finding that is accepted until the end of a day. Empty repository or package: any."""

    finding: str
    expires: datetime.date
    reason: str
    repository: str = ""
    package: str = ""

    def covers(self, repository: str, finding: "Finding") -> bool:
        """Whether the waiver is for this finding, expired or not."""
        return (
            self.finding == finding.name
            and self.repository in ("", repository)
            and self.package in ("", finding.package)
        )


Text = Annotated[str, msgspec.Meta(min_length=1)]


class WaiverTable(msgspec.Struct, forbid_unknown_fields=True):
    """A table [[waiver]] of the file: unknown, missing, empty and mistyped keys are refused by name."""

    finding: Text
    expires: datetime.date
    reason: Text
    repository: str = ""
    package: str = ""


class WaiverFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file of waivers."""

    waiver: list[WaiverTable] = []


class Finding(Struct, frozen=True):
    """One vulnerability of one package in an image."""

    name: str
    severity: str
    package: str = ""
    installed: str = ""
    fixed_in: str = ""
    url: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same finding in another image."""
        return self.name, self.package


class Check(Struct, frozen=True):
    """What to check. call: of the Lambda that counts, None for ECR. running: version to compare with, or empty."""

    repository: str
    tag: str
    call: Invocation | None
    fail_on: str = SEVERITIES[0]
    running: str = ""
    waivers: tuple[Waiver, ...] = ()
    timeout: float = SCAN_TIMEOUT

    def describe(self) -> list[str]:
        if self.call:
            return self.call.describe()
        image = f"{self.repository}:{self.tag}"
        lines = [f"read what the scan of {image} found, and wait up to {self.timeout:g} s for it"]
        if self.running:
            lines.append(f"ignore findings that {self.repository}:{self.running}, which runs, has too")
        lines += [f"accept {w.finding} until {w.expires}: {w.reason}" for w in self.waivers]
        return [*lines, f"fail for every other finding of severity {self.fail_on} or higher"]


class Judged(Struct, frozen=True):
    """A finding and whether it counts; if not, why."""

    finding: Finding
    counts: bool
    why: str = ""


class Checked(Report, Struct, frozen=True):
    """What was found. total: number of findings that count."""

    image: str
    total: int
    findings: tuple[Judged, ...] = field(default=())

    def line(self) -> str:
        left = len(self.findings) - self.total
        rest = f" ({left} more do not count)" if left > 0 else ""
        return f"{self.image} has {self.total or 'no'} finding{'' if self.total == 1 else 's'}{rest}"

    def outputs(self) -> dict[str, str]:
        return {"findings": str(self.total)}


def check_image(
    run: Run,
    *,
    image: str | None = None,
    tag: str | None = None,
    running: bool = False,
    against_running: bool = False,
    via: str | None = None,
    fail_on: str | None = None,
    waivers: str | None = None,
    announce: bool = False,
    timeout: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> Checked | None:
    """Check an image. Raises DeployError for findings that count, unless they are announced."""
    env = run.environment
    check_flags(tag, running, against_running)
    answers = ""
    if running or against_running:
        answers = run.read("the version that runs", lambda: running_version(env)) or "unknown"
    decided = plan(
        env,
        image=image,
        tag=answers if running else tag,
        running=answers if against_running else "",
        via=via,
        fail_on=fail_on,
        waivers=waivers,
        timeout=timeout,
        function_name=function_name,
        qualifier=qualifier,
    )
    checked = run.act(decided, partial(check, env), changes=False)
    if checked and announce and checked.total:
        run.act(Announcement("", message(env, checked)), announce_failure.announce, "announce the findings")
    elif checked and not announce:
        require_clean(checked)
    return checked


def check_flags(tag: str | None, running: bool, against_running: bool) -> None:
    """Raises Refused for flags that contradict each other."""
    if running and (tag is not None or against_running):
        raise Refused("--running checks the running version: leave out --tag and --against-running.")


def running_version(environment: Environment) -> str:
    """The version that the environment's healthcheck returns. Raises DeployError if there is none."""
    url = environment.healthcheck
    try:
        return version.ask(url, ANSWER_TIMEOUT)
    except DeployError as error:
        message = f"The running version of {environment.name} is not known: {url}: {error}."
        raise error.with_message(message) from error


def plan(
    environment: Environment,
    *,
    image: str | None = None,
    tag: str | None = None,
    via: str | None = None,
    fail_on: str | None = None,
    running: str = "",
    waivers: str | None = None,
    timeout: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> Check:
    """Decide what to ask. running: the version to compare with, empty for none. Raises Refused for bad input."""
    repository = version.repository(environment.service.image if image is None else image)
    tag = version.wanted(tag)
    if via not in (None, "ecr", "lambda"):
        raise Refused(f"--via must be ecr or lambda, not {via!r}.")
    if via == "lambda":
        if running or fail_on is not None or waivers is not None:
            raise Refused("The Lambda only counts: --fail-on, --waivers and --against-running need --via=ecr.")
        return Check(repository, tag, _call(environment, repository, tag, function_name, qualifier))
    if function_name is not None or qualifier is not None:
        raise Refused("--function-name and --qualifier name a Lambda: give --via=lambda too.")
    level = SEVERITIES[0] if fail_on is None else fail_on.upper()
    if level not in SEVERITIES:
        raise Refused(f"{fail_on!r} is not a severity: give one of {', '.join(SEVERITIES)}.")
    seconds = waiting.seconds(timeout, SCAN_TIMEOUT)
    accepted = read_waivers(Path(waivers)) if waivers is not None else ()
    return Check(repository, tag, None, level, running, accepted, seconds)


def _call(
    environment: Environment, repository: str, tag: str, function_name: str | None, qualifier: str | None
) -> Invocation:
    if function_name is None:
        function_name = environment.scan.function.require()
        qualifier = environment.scan.qualifier if qualifier is None else qualifier
    payload = {"repository": repository, "imageTag": tag}
    return manager.planned(environment, function_name, qualifier, payload)


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a TOML file: tables [[waiver]] with finding, expires (a date), reason.

    They may also name the repository and the package that they are for. Raises Refused for any fault.
    """
    try:
        with path.open("rb") as file:
            body = file.read(MOST + 1)
        if len(body) > MOST:
            raise ValueError(f"it is larger than {MOST:,} bytes")
        content = msgspec.toml.decode(body, type=WaiverFile)
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"The waivers cannot be read: {str(path)!r}: {text.one_line(str(error))}.") from error
    return tuple(Waiver(**msgspec.structs.asdict(table)) for table in content.waiver)


def check(
    environment: Environment,
    plan: Check,
    *,
    today: datetime.date | None = None,
    clock: Clock = CLOCK,
) -> Checked:
    """Read the findings and decide which count. `require_clean` fails for them.

    Raises DeployError for an image that does not exist or is not scanned, OutcomeUnknown for a scan that is not
    complete in time.
    """
    image = f"{plan.repository}:{plan.tag}"
    if plan.call:
        # The Lambda may count none for an image that is not there.
        if not images.find(environment, plan.repository, plan.tag):
            raise DeployError(f"There is no {image} in the registry of {environment.name}.")
        return Checked(image, _count(_asked(environment, plan.call), plan.call.function))
    found = _read(environment, plan.repository, plan.tag, plan.timeout, clock)
    known: Sequence[Finding] = found if plan.running == plan.tag else ()
    if plan.running not in ("", plan.tag):
        try:
            known = _read(environment, plan.repository, plan.running, 0, clock)
        except DeployError as error:
            console.warn(f"The findings of the running version cannot be read, so all findings count: {error}")
    today = today or datetime.datetime.now(datetime.UTC).date()
    judged = judge(plan, found, known, today)
    for waiver in plan.waivers:
        if waiver.expires < today and any(waiver.covers(plan.repository, one) for one in found):
            console.warn(f"The waiver of {waiver.finding} ended on {waiver.expires}: it counts again.")
    show(image, judged)
    return Checked(image, sum(one.counts for one in judged), judged)


def _asked(environment: Environment, call: Invocation) -> Any:
    """The reply of the Lambda. It changes nothing, so a lost response is a plain failure. Raises DeployError."""
    try:
        return manager.invoke(environment, call, reads=True)
    except OutcomeUnknown as error:
        raise DeployError(str(error)) from error


def _count(reply: Any, function: str) -> int:
    total = reply.get("totalFindings") if isinstance(reply, dict) else None
    if type(total) is not int or total < 0:
        raise DeployError(f"{function} did not return the number of findings (totalFindings).")
    return total


def require_clean(checked: Checked) -> None:
    """Raises DeployError if any finding counts, naming the worst ones."""
    if not checked.total:
        return
    worst = [one.finding for one in checked.findings if one.counts][:5]
    names = ", ".join(f"{one.name} ({one.severity})" for one in worst)
    more = ", …" if worst and checked.total > len(worst) else ""
    raise DeployError(f"{checked.line()}{': ' if names else ''}{names}{more}.")


def judge(plan: Check, found: Sequence[Finding], known: Sequence[Finding], today: datetime.date) -> tuple[Judged, ...]:
    """Which findings count, the worst first."""
    running = {one.key for one in known}

    def one(finding: Finding) -> Judged:
        waiver = next((w for w in plan.waivers if w.covers(plan.repository, finding) and w.expires >= today), None)
        if waiver:
            return Judged(finding, False, f"accepted until {waiver.expires}")
        if rank(finding.severity) < rank(plan.fail_on):
            return Judged(finding, False, f"below {plan.fail_on}")
        if finding.key in running:
            return Judged(finding, False, "runs already")
        return Judged(finding, True)

    ordered = sorted(found, key=lambda finding: (-rank(finding.severity), finding.key))
    return tuple(one(finding) for finding in ordered)


def rank(severity: str) -> int:
    """How bad a severity is."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _read(environment: Environment, repository: str, tag: str, seconds: float, clock: Clock) -> list[Finding]:
    """All findings of an image, once its scan is complete. seconds: how long to wait for that."""
    image = f"{repository}:{tag}"
    client = aws.client("ecr", environment)
    graced = clock.now() + min(GRACE, seconds)

    def look() -> tuple[str, list[Finding] | None]:
        status, findings, why = _pages(client, environment, repository, tag)
        if status in DONE:
            return "", findings
        late = clock.now() + INTERVAL > graced
        if status not in UNDER_WAY and (status != NOT_SCANNED or late):
            raise DeployError(f"{image} has no complete scan: {status}{why}. Scan it, then run this again.")
        return f"waiting for the scan of {image}: {status}", None

    try:
        return wait(look, seconds=seconds, every=INTERVAL, clock=clock)
    except TimedOut as error:
        message = f"The scan of {image} is not complete after {seconds:g} s. Run this again, or give --timeout."
        raise OutcomeUnknown(message) from error


def _pages(client: Any, environment: Environment, repository: str, tag: str) -> tuple[str, list[Finding], str]:
    """The scan's status, all findings, and what ECR says about the status."""
    status, why, findings = NOT_SCANNED, "", list[Finding]()
    with aws.errors(f"reading the findings of {repository}:{tag}", environment):
        asked = {"repositoryName": repository, "imageId": {"imageTag": tag}}
        pages = aws.pages(client, "describe_image_scan_findings", **asked)
        try:
            for page in pages:
                scan = page["imageScanStatus"]
                status, why = scan["status"], scan.get("description", "")
                found = page.get("imageScanFindings", {})
                findings += [_basic(item) for item in found.get("findings", [])]
                findings += [one for item in found.get("enhancedFindings", []) for one in _enhanced(item)]
        except client.exceptions.ScanNotFoundException:
            pass
        except (client.exceptions.ImageNotFoundException, client.exceptions.RepositoryNotFoundException) as error:
            raise DeployError(f"There is no {repository}:{tag} in the registry of {environment.name}.") from error
    return status, list(dict.fromkeys(findings)), f" ({why})" if why else ""


def _basic(item: Mapping[str, Any]) -> Finding:
    """A finding of ECR's basic scanning."""
    attributes = {one["key"]: one.get("value", "") for one in item.get("attributes", [])}
    return Finding(
        name=item.get("name", "?"),
        severity=item.get("severity", "UNDEFINED"),
        package=attributes.get("package_name", ""),
        installed=attributes.get("package_version", ""),
        url=item.get("uri", ""),
    )


def _enhanced(item: Mapping[str, Any]) -> list[Finding]:
    """A finding of Amazon Inspector as one for each package; empty if it is suppressed or closed there."""
    if item.get("status", "ACTIVE") != "ACTIVE":
        return []
    details = item.get("packageVulnerabilityDetails", {})
    return [
        Finding(
            name=details.get("vulnerabilityId") or item.get("title", "?"),
            severity=item.get("severity", "UNTRIAGED"),
            package=package.get("name", ""),
            installed=package.get("version", ""),
            fixed_in=package.get("fixedInVersion", ""),
            url=details.get("sourceUrl", ""),
        )
        for package in details.get("vulnerablePackages") or [{}]
    ]


def show(image: str, judged: Sequence[Judged]) -> None:
    """The findings as a table, and those that count as annotations in Actions."""
    for line in aligned(rows(judged)):
        console.say(f"  {line}")
    counting = [one.finding for one in judged if one.counts]
    for finding in counting[:ANNOTATIONS]:
        fixed = f", fixed in {finding.fixed_in}" if finding.fixed_in else ""
        what = text.one_line(f"{image}: {f'{finding.package} {finding.installed}'.strip()}{fixed} {finding.url}")
        console.annotate("error", what, title=text.one_line(f"{finding.severity} {finding.name}"))


def rows(judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    """The findings as rows of a table, the header first; empty if there are none."""
    rows: list[tuple[str, ...]] = [("SEVERITY", "FINDING", "PACKAGE", "INSTALLED", "FIXED IN", "")]
    for one in judged:
        f = one.finding
        cells = (f.severity, f.name, f.package, f.installed, f.fixed_in or "-", "counts" if one.counts else one.why)
        rows.append(tuple(text.one_line(cell, 100) for cell in cells))
    return rows if judged else []


def message(environment: Environment, checked: Checked, now: float | None = None) -> dict[str, Any]:
    """The Slack message about the findings. now: Unix time in seconds."""
    worst = [one.finding for one in checked.findings if one.counts][:ANNOTATIONS]
    lines = [quoted(f"{one.severity} {one.name} {one.package} {one.installed}") for one in worst]
    attachment = {
        "fallback": checked.line(),
        "color": "warning",
        "pretext": f"Findings in the image that runs in {environment.name}",
        "title": checked.line(),
        "text": "\n".join(lines) or checked.line(),
        "ts": int(time.time() if now is None else now),
    }
    return {"channel": environment.application.slack_channel, "attachments": [attachment]}
