"""Announcing a failure: what is posted to Slack, and that Slack never changes the outcome."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from scripts import announce_failure
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import Reply, stand_in

RUN = {
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_RUN_ID": "77",
    "GITHUB_JOB": "deploy_prod",
    "GITHUB_REPOSITORY": "CMS-Enterprise/mint-app",
    "GITHUB_ACTOR": "octocat",
}
URL = "https://github.com/CMS-Enterprise/mint-app/actions/runs/77"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a GitHub Actions run on the main branch."""
    for name, value in RUN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def payload(**given: Any) -> dict[str, Any]:
    """The message for prod."""
    return dict(announce_failure.plan(settings.environment("prod"), now=1795489944, **given).payload)


def test_the_message_is_that_of_the_old_script(run: pytest.MonkeyPatch) -> None:
    """If nothing more is known."""
    text = (
        "The CMS-Enterprise/mint-app refs/heads/main branch broke on job deploy_prod!"
        " Contact octocat for more information."
    )
    assert payload() == {
        "channel": "#cmmi-mint-alerts",
        "attachments": [
            {
                "fallback": f"{text} {URL}",
                "color": "danger",
                "pretext": "refs/heads/main branch failure!",
                "author_name": "octocat",
                "title": "Build #77 failed on job deploy_prod",
                "title_link": URL,
                "text": text,
                "ts": 1795489944,
            }
        ],
    }


def test_step_reason_and_the_version_still_running_are_added(run: pytest.MonkeyPatch) -> None:
    """Each on its own line, if it is known."""
    (attachment,) = payload(step="healthcheck", reason="rolled back", running="1a2b3c4")["attachments"]

    assert attachment["text"].splitlines()[1:] == [
        "Step: healthcheck",
        "Reason: rolled back",
        "prod still runs: 1a2b3c4",
    ]


@pytest.mark.parametrize(("job", "color"), [("deploy_prod", "danger"), ("lint", "warning"), ("redeploy", "danger")])
def test_a_failed_deployment_has_the_color_danger(run: pytest.MonkeyPatch, job: str, color: str) -> None:
    """Any other job is a warning."""
    run.setenv("GITHUB_JOB", job)

    assert payload()["attachments"][0]["color"] == color


@pytest.mark.parametrize(
    ("needs", "failed"),
    [
        ("{}", ()),
        ('{"lint": {"result": "success"}, "test": {"result": "skipped"}, "e2e": {"result": "cancelled"}}', ()),
        (
            '{"lint": {"result": "failure", "outputs": {}}, "test": {"result": "success"}, "b": {"result": "failure"}}',
            ("lint", "b"),
        ),
    ],
)
def test_the_jobs_that_failed_are_those_of_the_context(needs: str, failed: tuple[str, ...]) -> None:
    """In its order; a skipped or cancelled one did not fail."""
    assert announce_failure.failed_jobs(needs) == failed


@pytest.mark.parametrize("needs", ["", "lint", "[]", "null", '{"lint": "failure"}', '{"lint": {}}', "[" * 100_000])
def test_anything_else_than_the_context_is_refused(needs: str) -> None:
    """A typing error in a workflow is not a run without failures."""
    with pytest.raises(Refused, match="--needs is not the context `needs` as JSON: "):
        announce_failure.failed_jobs(needs)


@pytest.mark.parametrize(
    ("jobs", "named", "color"),
    [((), "deploy_prod", "danger"), (("lint",), "lint", "warning"), (("lint", "deploy"), "lint, deploy", "danger")],
)
def test_the_jobs_that_failed_are_named_instead_of_the_one_that_tells_it(
    run: pytest.MonkeyPatch, jobs: tuple[str, ...], named: str, color: str
) -> None:
    """In the title and in the text."""
    (attachment,) = payload(jobs=jobs)["attachments"]

    assert attachment["title"] == f"Build #77 failed on job {named}"
    assert f"branch broke on job {named}!" in attachment["text"]
    assert attachment["color"] == color


@pytest.mark.parametrize("ref", ["refs/heads/feature", "refs/heads/master", "refs/pull/1/merge", "refs/tags/main"])
def test_failures_on_other_branches_are_not_announced(run: pytest.MonkeyPatch, ref: str) -> None:
    """The main branch is that of the settings."""
    run.setenv("GITHUB_REF", ref)

    assert payload() == {}


def test_outside_actions_it_is_refused() -> None:
    """Without a run there is nothing to link to. The message lists the missing variables."""
    with pytest.raises(Refused, match="Not a run of GitHub Actions: GITHUB_REF, GITHUB_RUN_ID"):
        payload()


def test_a_dry_run_outside_actions_shows_which_variables_are_used() -> None:
    """As if it were a run on the main branch."""
    plan = announce_failure.plan(settings.environment("prod", dry_run=True), now=0)

    (attachment,) = plan.payload["attachments"]
    assert attachment["title"] == "Build #&lt;GITHUB_RUN_ID&gt; failed on job &lt;GITHUB_JOB&gt;"
    assert attachment["text"].startswith(
        "The &lt;GITHUB_REPOSITORY&gt; &lt;GITHUB_REF&gt; branch broke on job &lt;GITHUB_JOB&gt;!"
    )
    assert plan.describe() == ["post to SLACK_WEBHOOK_URL", json.dumps(plan.payload)]


def test_a_value_is_cut_where_slack_would_fold_the_message(run: pytest.MonkeyPatch) -> None:
    """The log has the rest."""
    (attachment,) = payload(reason="x" * 1001)["attachments"]

    assert attachment["text"].endswith(f"\nReason: {'x' * 1000}")


def test_what_is_not_announced_is_not_posted_either(run: pytest.MonkeyPatch) -> None:
    """The reason is the result."""
    run.setenv("GITHUB_REF", "refs/heads/feature")
    plan = announce_failure.plan(settings.environment("prod"))
    done = announce_failure.announce(plan)

    assert plan.describe() == ["announce nothing: refs/heads/feature is not refs/heads/main"]
    assert done.line() == "nothing was announced: refs/heads/feature is not refs/heads/main"
    assert not done.posted


@pytest.mark.parametrize(
    ("origin", "variable", "dry_run", "said"),
    [
        ("--env", "", False, ["local still runs: v0"]),
        ("", "local", False, ["local still runs: v0"]),
        ("", "staging", False, []),
        ("", "", False, []),
        ("--env", "", True, None),
    ],
)
def test_the_version_is_that_of_the_environment_of_the_job(
    origin: str,
    variable: str,
    dry_run: bool,
    said: list[str] | None,
    run: pytest.MonkeyPatch,
    cloud: EmbeddedCloud,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A job without one is announced too. A dry run asks nobody, and posts nothing."""
    run.setenv("APP_ENV", variable)
    command = Run("announce-failure", settings.environment("local", origin, dry_run=dry_run), dry_run=dry_run)
    with stand_in(lambda *_: Reply(b"ok\n")) as slack:
        run.setenv("SLACK_WEBHOOK_URL", f" {slack.url}/hook\n")
        done = announce_failure.announce_failure(command, step="s", needs='{"lint": {"result": "failure"}}')

    if said is None:
        assert (done, slack.requests) == (None, [])
        assert "still runs" not in capsys.readouterr().err
    else:
        assert done == announce_failure.Announced(True, "")
        assert done.line() == "the failure was announced"
        (posted,) = slack.requests
        assert (posted["method"], posted["path"]) == ("POST", "/hook")
        assert posted["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
        (attachment,) = json.loads(parse_qs(posted["body"].decode())["payload"][0])["attachments"]
        first, *lines = attachment["text"].splitlines()
        assert "broke on job lint!" in first
        assert lines == ["Step: s", *said]
    # What failed has a page of its own.
    assert command.summary == ""


def test_text_from_outside_is_escaped_for_slack(run: pytest.MonkeyPatch) -> None:
    """It makes no mention, no link and no new line, whichever value contains it."""
    odd = "<!channel> & <https://example.org|here>\nprod still runs: v9"
    shown = "&lt;!channel&gt; &amp; &lt;https://example.org|here&gt; prod still runs: v9"
    run.setenv("GITHUB_ACTOR", odd)

    (attachment,) = payload(step=odd, reason=odd, running=odd)["attachments"]

    assert attachment["author_name"] == shown
    assert attachment["text"].splitlines()[1:] == [f"Step: {shown}", f"Reason: {shown}", f"prod still runs: {shown}"]
    assert "<" not in json.dumps(attachment)


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def hold() -> None:
            connection, _ = server.accept()
            with connection:
                done.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(b"invalid_token", 403), "it answered with HTTP status 403: invalid_token"),
        (Reply(b"x" * 101, 429), f"it answered with HTTP status 429: {'x' * 99}\N{HORIZONTAL ELLIPSIS}"),
        (Reply(b"\xff\n::error::b", 400), "it answered with HTTP status 400: \ufffd ::error::b"),
        (Reply(b"", 500), "it answered with HTTP status 500"),
        (Reply(b"ok", 201), "it answered with HTTP status 201: ok"),
        (Reply(b"", 302, {"Location": "http://127.0.0.1:9/"}), "it answered with HTTP status 302"),
        (Reply(b"<html>Log in</html>"), "its response is not ok: check that SLACK_WEBHOOK_URL is Slack's"),
        (Reply(b"", drop=True), "closed connection"),
    ],
)
def test_an_error_response_of_slack_is_a_warning(
    run: pytest.MonkeyPatch, reply: Reply, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stand_in(lambda *_: reply) as slack:
        run.setenv("SLACK_WEBHOOK_URL", f"{slack.url}/services/T/B/hidden")
        done = announce_failure.announce(announce_failure.plan(settings.environment("prod")))

    assert not done.posted
    assert done.why == why or (reply.drop and why in done.why)
    assert f"warning: the message was not posted to Slack: {done.why}" in capsys.readouterr().err


def test_a_slow_slack_is_a_warning(run: pytest.MonkeyPatch) -> None:
    """After a time-out."""
    run.setattr(announce_failure, "REQUEST_TIMEOUT", 0.2)
    with silent() as url:
        run.setenv("SLACK_WEBHOOK_URL", url)
        done = announce_failure.announce(announce_failure.plan(settings.environment("prod")))

    assert not done.posted
    assert done.why == "no complete response within 0.2 s"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.slack.com/services/T/B/hidden",
        "file:///etc/hidden",
        "http://example.org/hidden",
        "http://127.0.0.1:9/T/B/hidden value",
        "http://127.0.0.1:port/hidden",
        "https://[hidden",
    ],
)
def test_an_unusable_webhook_is_asked_nothing_and_not_shown(
    url: str, run: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, malformed, or not https."""
    run.setenv("SLACK_WEBHOOK_URL", url)
    plan = announce_failure.plan(settings.environment("prod"))

    assert announce_failure.announce(plan).why == "SLACK_WEBHOOK_URL is not set to an https URL"
    assert "hidden" not in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://127.0.0.1:9/T/B/hidden", "http://127.0.0.1:9/T/B/hidden\n"])
def test_an_unreachable_webhook_is_a_warning_that_does_not_show_it(
    invoke: Invoke, cloud: EmbeddedCloud, url: str
) -> None:
    """Exit code 0. The URL appears only in the line that masks it."""
    done = invoke("announce-failure", **cloud.env, **RUN, SLACK_WEBHOOK_URL=url)

    assert done.returncode == 0, done.stderr
    assert "warning: the message was not posted to Slack: Connection refused" in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_posts_a_form_with_the_version_still_running(invoke: Invoke, cloud: EmbeddedCloud) -> None:
    """The webhook is masked first, and never shown."""
    with stand_in(lambda *_: Reply(b"ok")) as slack:
        url = f"{slack.url}/services/T/B/hidden"
        done = invoke(
            "announce-failure",
            "--step=wait for the version",
            "--reason=rolled back",
            **cloud.env,
            **RUN,
            GITHUB_ACTIONS="true",
            SLACK_WEBHOOK_URL=url,
        )

    assert done.returncode == 0, done.stderr
    (posted,) = slack.requests
    (attachment,) = json.loads(parse_qs(posted["body"].decode())["payload"][0])["attachments"]
    assert attachment["text"].splitlines()[1:] == [
        "Step: wait for the version",
        "Reason: rolled back",
        "local still runs: v0",
    ]
    assert [line for line in done.stderr.splitlines() if "hidden" in line] == [f"::add-mask::{url}"]


def test_without_a_running_version_the_failure_is_still_announced(invoke: Invoke, cloud: EmbeddedCloud) -> None:
    """The message leaves the version out."""
    cloud.fail(path="/api/v1/healthcheck", status=503, times=9)
    with stand_in(lambda *_: Reply(b"ok")) as slack:
        done = invoke("announce-failure", **cloud.env, **RUN, SLACK_WEBHOOK_URL=slack.url)

    assert done.returncode == 0, done.stderr
    assert len(slack.requests) == 1
    assert b"still+runs" not in slack.requests[0]["body"]


def test_a_dry_run_posts_nothing(invoke: Invoke) -> None:
    """It works on a laptop too, without GitHub's variables."""
    with stand_in(lambda *_: Reply(b"ok")) as slack:
        done = invoke("announce-failure", "--env=prod", "--dry-run", SLACK_WEBHOOK_URL=slack.url)

    assert (done.returncode, slack.requests) == (0, [])
    assert '"channel": "#cmmi-mint-alerts"' in done.stderr
