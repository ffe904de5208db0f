"""The commands against recordings of the old scripts: same function, qualifier, payload, and outcome.

recordings.json was made by running the old scripts against a stand-in AWS. It has their arguments and environment, the
reply that they were given, the requests that they sent, and their exit status.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.conftest import Invoke
from tests.stand_in import Reply, answering, stand_in

RECORDINGS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recordings.json").read_text())
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def words(script: str, argv: list[str]) -> list[str]:
    """The new command line for an old one, as in docs/migrating.md."""
    if script == "deploy_service":
        names = ("--service", "--function-name", "--qualifier", "--image", "--image-uri")
        given = [f"{name}={value}" for name, value in zip(names, argv, strict=False)]
        # The old script's first argument had no default. Without an image it restarted the service.
        return ["deploy-service", *(given or ["--service="]), *([] if len(argv) > 3 else ["--no-image"]), "--no-wait"]
    if script == "db_lambda_invoke":
        function, qualifier, service = argv
        return ["run-task", f"--service={service}", f"--function-name={function}", f"--qualifier={qualifier}"]
    if script == "check_ecr_findings":
        repository, tag, qualifier = argv
        image = [f"--image={repository}", f"--tag={tag}"]
        return ["check-image", *image, "--via=lambda", "--env=dev", f"--qualifier={qualifier}"]
    assert script == "github-action-announce-broken-branch"
    return ["announce-failure", "--env=prod"]


def reply_of(recording: dict[str, Any]) -> Reply:
    """The reply that the old script was given."""
    reply, error = recording["reply"], recording["function_error"]
    body = reply if isinstance(reply, str) else json.dumps(reply)
    return Reply(body.encode(), headers={"X-Amz-Function-Error": error} if error else {})


SETTINGS = Path(__file__).parent.parent / "environments.toml"


def answer(recording: dict[str, Any]) -> Callable[[str, str], Reply]:
    """Slack accepts everything, ECR has the image of a scan, and Lambda gives the recorded reply."""
    aws = answering(reply_of(recording))
    image = Reply(json.dumps({"imageDetails": [{"imageDigest": f"sha256:{'0' * 64}"}]}).encode())
    scan = recording["script"] == "check_ecr_findings"
    others = {"/slack": Reply(b"ok"), **({"/": image} if scan else {})}
    return lambda method, path: others[path] if path in others else aws(method, path)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording["name"])
def test_the_command_does_what_the_old_script_did(recording: dict[str, Any], invoke: Invoke, tmp_path: Path) -> None:
    """The same requests in the same order; it succeeds or fails as the script did."""
    # In the recordings the main branch is called master.
    settings = tmp_path / "settings.toml"
    with stand_in(answer(recording)) as aws:
        text = SETTINGS.read_text().replace('main_branch = "main"', 'main_branch = "master"')
        # The healthcheck must not be requested from the internet.
        settings.write_text(text.replace('"${site}/api/v1/healthcheck"', f'"{aws.url}/api/v1/healthcheck"'))
        # Nothing listens on port 9 (discard).
        endpoint = "http://127.0.0.1:9" if recording["unreachable"] else aws.url
        fixed = {
            **KEYS,
            "CI": "true",
            "AWS_ENDPOINT_URL": endpoint,
            "SLACK_WEBHOOK_URL": f"{aws.url}/slack",
            "ENVIRONMENTS_FILE": str(settings),
        }
        done = invoke(*words(recording["script"], recording["argv"]), **{**fixed, **recording["env"]})

    expected = [r for r in recording["requests"] if "json" in r]
    assert aws.lambda_calls() == [{key: r[key] for key in ("path", "query", "json")} for r in expected]
    announced = [announcement(r["body"]) for r in recording["requests"] if "body" in r]
    assert [announcement(r["body"].decode()) for r in aws.requests if r["path"] == "/slack"] == announced
    assert (done.returncode == 0) == (recording["exit"] == 0), done.stderr
    assert "Traceback" not in done.stderr


def announcement(body: str) -> dict[str, Any]:
    """What a posted form shows in Slack, without the time. Texts may be longer than those of the old script."""
    payload = json.loads(parse_qs(body)["payload"][0])
    (attachment,) = payload.pop("attachments")
    assert attachment.pop("ts") > 0
    for key in ("text", "fallback"):
        attachment[key] = attachment[key].partition(" Contact octocat for more information.")[0]
    return {**payload, **attachment}
