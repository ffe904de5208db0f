"""Tells the team's Slack channel that a job on the main branch failed.

Was scripts/github-action-announce-broken-branch. An error of Slack never changes the outcome of the job.
"""

import json
import os
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from scripts.edges import http
from scripts.edges.http import Unreachable
from scripts.frame import console, settings, text
from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.status import ask, healthchecks

REQUEST_TIMEOUT = 10.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# Characters of a value from outside: Slack folds long messages, and the log has the rest.
LONGEST = 1000


class Announcement(Struct, frozen=True):
    """What is to be posted. payload: empty for nothing, and then `why` gives the reason."""

    why: str
    payload: Mapping[str, Any]

    def describe(self) -> list[str]:
        if not self.payload:
            return [f"announce nothing: {self.why}"]
        return ["post to SLACK_WEBHOOK_URL", json.dumps(self.payload)]


class Announced(Report, Struct, frozen=True):
    """Whether it was posted. why: the reason if it was not."""

    posted: bool
    why: str

    def line(self) -> str:
        return "the failure was announced" if self.posted else f"nothing was announced: {self.why}"


def announce_failure(
    run: Run, *, step: str | None = None, reason: str | None = None, needs: str | None = None
) -> Announced | None:
    """Announce the failure of a job, or of the jobs that failed among those that it needs."""
    name = run.environment.name if run.environment.origin else os.environ.get("APP_ENV", "")
    known = name in settings.names()
    asked = [] if run.dry_run or not known else ask(healthchecks(name))
    running = next((one.version for one in asked), "")
    environment = settings.environment(name, dry_run=run.dry_run) if known else run.environment
    failed = failed_jobs(needs) if needs is not None else ()
    # What failed has a page of its own.
    run.summary = ""
    return run.act(plan(environment, step=step, reason=reason, running=running, jobs=failed), announce)


class Need(Struct):
    """The result of a job that another one needs."""

    result: str


def failed_jobs(needs: str) -> tuple[str, ...]:
    """The jobs that failed, from the context `needs` as JSON. Raises Refused for anything else.

    https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#needs-context
    """
    try:
        found = msgspec.json.decode(needs, type=dict[str, Need])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(f"--needs is not the context `needs` as JSON: {error}") from error
    return tuple(name for name, job in found.items() if job.result == "failure")


def plan(
    environment: Environment,
    *,
    step: str | None = None,
    reason: str | None = None,
    running: str = "",
    jobs: tuple[str, ...] = (),
    now: float | None = None,
) -> Announcement:
    """Decide what to post, from what GitHub says of the run.

    step, reason: of the failure, if known. jobs: that failed, if it is not the one that runs this.
    running: the version that the environment still runs.
    now: Unix time in seconds. Raises Refused outside GitHub Actions.
    """
    names = ("REF", "RUN_ID", "JOB", "REPOSITORY", "ACTOR")
    github = {name: os.environ.get(f"GITHUB_{name}", "") for name in names}
    missing = [f"GITHUB_{name}" for name, value in github.items() if not value]
    if missing and not environment.dry_run:
        raise Refused(f"Not a run of GitHub Actions: {', '.join(missing)} not set.")
    github = {name: value or f"<GITHUB_{name}>" for name, value in github.items()}
    github["JOB"] = ", ".join(jobs) or github["JOB"]
    main = f"refs/heads/{environment.application.main_branch}"
    if github["REF"] not in (main, "<GITHUB_REF>"):
        return Announcement(f"{github['REF']} is not {main}", {})
    url = console.github(f"{github['REPOSITORY']}/actions/runs/{github['RUN_ID']}")
    shown = {name: quoted(value) for name, value in github.items()}
    message = (
        f"The {shown['REPOSITORY']} {shown['REF']} branch broke on job {shown['JOB']}!"
        f" Contact {shown['ACTOR']} for more information."
    )
    details = {"Step": step, "Reason": reason, f"{environment.name} still runs": running}
    told = "\n".join([message, *(f"{name}: {quoted(value)}" for name, value in details.items() if value)])
    attachment = {
        "fallback": f"{told} {url}",
        "color": "danger" if "deploy" in github["JOB"] else "warning",
        "pretext": f"{shown['REF']} branch failure!",
        "author_name": shown["ACTOR"],
        "title": f"Build #{shown['RUN_ID']} failed on job {shown['JOB']}",
        "title_link": url,
        "text": told,
        "ts": int(time.time() if now is None else now),
    }
    return Announcement("", {"channel": environment.application.slack_channel, "attachments": [attachment]})


def quoted(value: str) -> str:
    """A value from outside as one line of a Slack message."""
    return text.slack(" ".join(value.split())[:LONGEST])


def announce(plan: Announcement) -> Announced:
    """Post it. An error of Slack is only a warning."""
    if not plan.payload:
        return Announced(False, plan.why)
    why = post(plan.payload)
    if why:
        console.warn(f"the message was not posted to Slack: {why}")
    return Announced(not why, why)


def post(payload: Mapping[str, Any]) -> str:
    """Post a payload as Slack's form field to $SLACK_WEBHOOK_URL. Returns why that failed, or ""."""
    url = os.environ.get("SLACK_WEBHOOK_URL", "").strip()
    console.mask(url)
    try:
        # The error is not shown: the whole URL is a secret.
        usable = http.keeps_secrets(http.checked(url, "a webhook"))
    except Refused:
        usable = False
    if not usable:
        return "SLACK_WEBHOOK_URL is not set to an https URL"
    body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
    try:
        answer = http.request("POST", url, timeout=REQUEST_TIMEOUT, headers=FORM, body=body)
    except Unreachable as error:
        return str(error)
    if answer.status != 200:
        said = text.one_line(answer.body.decode(errors="replace"), 100)
        return f"it answered with HTTP status {answer.status}{f': {said}' if said else ''}"
    # https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors
    return "" if answer.body.strip() == b"ok" else "its response is not ok: check that SLACK_WEBHOOK_URL is Slack's"
