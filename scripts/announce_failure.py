"""Tells the team's Slack channel that a job of the main branch has failed.

Was scripts/github-action-announce-broken-branch. The announcement is a courtesy: whatever Slack does, it
never changes the outcome of the job.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.frame import console
from scripts.frame.errors import Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.status import ask, healthchecks

REQUEST_TIMEOUT = 10.0


@dataclass(frozen=True)
class Announcement:
    """What is to be posted. payload: empty where nothing is to be said, and `why` says why."""

    why: str
    payload: Mapping[str, Any]

    def describe(self) -> list[str]:
        if not self.payload:
            return [f"announce nothing: {self.why}"]
        return ["post to SLACK_WEBHOOK_URL", json.dumps(self.payload)]


@dataclass(frozen=True)
class Announced(Report):
    """Whether it was posted, and if not why."""

    posted: bool
    why: str

    def line(self) -> str:
        return "the failure was announced" if self.posted else f"nothing was announced: {self.why}"


def announce_failure(run: Run, *, step: str | None = None, reason: str | None = None) -> Announced | None:
    """Announce the failure of a job."""
    name = run.environment.name
    asked = [] if run.dry_run else ask(healthchecks(name))
    running = next((one.version for one in asked), "")
    return run.act(plan(run.environment, step=step, reason=reason, running=running), announce)


def plan(
    environment: Environment,
    *,
    step: str | None = None,
    reason: str | None = None,
    running: str = "",
    now: float | None = None,
) -> Announcement:
    """Decide what to post, from what GitHub says of the run.

    step, reason: of the failure, where they are known. running: the version that still answers.
    now: Unix time in seconds. Raises Refused where this is no run of GitHub Actions.
    """
    names = ("REF", "RUN_ID", "JOB", "REPOSITORY", "ACTOR")
    github = {name: os.environ.get(f"GITHUB_{name}", "") for name in names}
    missing = [f"GITHUB_{name}" for name, value in github.items() if not value]
    if missing and not environment.dry_run:
        raise Refused(f"Not a run of GitHub Actions: {', '.join(missing)} not set.")
    github = {name: value or f"<GITHUB_{name}>" for name, value in github.items()}
    main = f"refs/heads/{environment.application.main_branch}"
    if github["REF"] not in (main, "<GITHUB_REF>"):
        return Announcement(f"{github['REF']} is not {main}", {})
    message = (
        f"The {github['REPOSITORY']} {github['REF']} branch broke on job {github['JOB']}!"
        f" Contact {github['ACTOR']} for more information."
    )
    details = {"Step": step, "Reason": reason, f"{environment.name} still runs": running}
    text = "\n".join([message, *(f"{name}: {value}" for name, value in details.items() if value)])
    url = console.github(f"{github['REPOSITORY']}/actions/runs/{github['RUN_ID']}")
    attachment = {
        "fallback": f"{text} {url}",
        "color": "danger" if "deploy" in github["JOB"] else "warning",
        "pretext": f"{github['REF']} branch failure!",
        "author_name": github["ACTOR"],
        "title": f"Build #{github['RUN_ID']} failed on job {github['JOB']}",
        "title_link": url,
        "text": text,
        "ts": int(time.time() if now is None else now),
    }
    return Announcement("", {"channel": environment.application.slack_channel, "attachments": [attachment]})


def announce(plan: Announcement) -> Announced:
    """Post it. Never raises for what Slack does: that is a warning."""
    if not plan.payload:
        return Announced(False, plan.why)
    why = post(plan.payload)
    if why:
        console.warn(f"Slack was not told: {why}")
    return Announced(not why, why)


def post(payload: Mapping[str, Any]) -> str:
    """Post a payload as Slack's form field to $SLACK_WEBHOOK_URL. Returns why it was not taken, or ""."""
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request

    url = os.environ.get("SLACK_WEBHOOK_URL", "")
    console.mask(url)
    if not url.startswith(("https://", "http://127.0.0.1:")):
        return "SLACK_WEBHOOK_URL is not set to an https URL"
    body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
    try:
        with urllib.request.urlopen(url, data=body, timeout=REQUEST_TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"it answered with HTTP status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", "") or error or type(error).__name__)
    except (ValueError, http.client.HTTPException) as error:
        # Its text may hold a part of the URL, which is the secret.
        return type(error).__name__
