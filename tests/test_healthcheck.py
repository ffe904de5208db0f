"""Waiting for a version: with real HTTP and a simulated clock. tests/test_rollout.py has the sequences."""

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import healthcheck as command
from scripts.ecs import watch
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import Before, Verdict
from scripts.ecs.watch import Ended
from scripts.edges.http import Unreachable
from scripts.frame import settings, stop, version
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.run import Run
from scripts.healthcheck import Expectation, Healthy, healthcheck
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_destination import certificate as certificate
from tests.test_rollout import DIGEST, Time

NEW, OLD_VERSION = "b" * 40, "a" * 40


def health(version: object) -> Reply:
    """The response of the application's healthcheck."""
    body = {"status": "pass", "datetime": "2021-11-02 17:05:19+00:00", "version": version, "timestamp": "1"}
    return Reply(json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def answers() -> Iterator[tuple[StandIn, list[Reply]]]:
    """A server that gives the replies of a list in order, and keeps repeating the last."""
    replies: list[Reply] = []
    with stand_in(lambda *_: replies.pop(0) if len(replies) > 1 else replies[0]) as server:
        yield server, replies


def wait(url: str, timeout: float = 60) -> Ended:
    """Wait for NEW at the endpoint alone."""
    plan = watch.Plan("dev", "mint-app", Before(NEW, "app"), url, timeout, "invoke healthcheck")
    return watch.watch(plan, None, clock=Time().clock)


def test_the_version_must_answer_three_times_in_a_row(answers: tuple[StandIn, list[Reply]]) -> None:
    """During a rollout, old and new tasks answer in turn. Each request asks for a fresh answer."""
    server, replies = answers
    replies += [health(v) for v in (OLD_VERSION, NEW, OLD_VERSION, NEW, NEW, OLD_VERSION, NEW, NEW, NEW)]

    ended = wait(server.url)

    assert len(server.requests) == 9
    assert {request["headers"]["Cache-Control"] for request in server.requests} == {"no-cache"}
    assert (ended.failure, ended.changed_from) == (None, OLD_VERSION)
    assert ended.proof == ("its endpoint gave 3 answers with it in a row",)
    assert ended.note == "according to its endpoint alone; ECS was not read"


def test_the_time_out_says_how_many_answers_were_old_and_new(
    answers: tuple[StandIn, list[Reply]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while it waits, from time to time. What answers is not said not to run."""
    server, replies = answers
    replies += [health(NEW), health(NEW), health(OLD_VERSION)]

    ended = wait(server.url, 40)

    assert ended.failure
    assert ended.failure.code == 3
    assert "is not proven to run after 40 s" in str(ended.failure)
    assert "answers with aaaaaaa (2 new and" in str(ended.failure)
    assert f"{server.url}: 2 new and 29 old answers so far" in capsys.readouterr().err


def test_a_redirect_to_another_host_is_not_followed(answers: tuple[StandIn, list[Reply]]) -> None:
    """Somebody else's server would answer."""
    server, replies = answers
    with stand_in(lambda *_: health(NEW)) as elsewhere:
        replies.append(Reply(b"", 302, {"Location": elsewhere.url.replace("127.0.0.1", "localhost")}))
        with pytest.raises(DeployError, match="HTTP status 302"):
            version.answering(server.url, 2)
    assert elsewhere.requests == []


def test_no_more_than_64_kib_are_read(answers: tuple[StandIn, list[Reply]]) -> None:
    """A page that never ends does not end the command."""
    server, replies = answers
    replies.append(Reply(health(NEW).body[:-1] + b" " * (64 << 10) + b"}"))

    with pytest.raises(DeployError, match="not JSON with a version"):
        version.answering(server.url, 2)


def test_a_certificate_that_does_not_verify_is_no_answer(certificate: Path) -> None:
    """TLS is verified: whoever answers there counts as nobody."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        context.wrap_socket(listening, server_side=True) as server,
    ):
        port = server.getsockname()[1]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: server.accept()[0].close())
            with pytest.raises(Unreachable, match=r"(?i)certificate"):
                version.answering(f"https://127.0.0.1:{port}/", 5)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        *(
            ("timeout", v, "--timeout must be a number of seconds")
            for v in ("0", "-1", "soon", "nan", "inf", "", "1\n")
        ),
        *(
            ("url", v, "is not the URL of a healthcheck")
            for v in ("", "mint.cms.gov", "ftp://mint.cms.gov/", "https:///x", "http://[::1", "http://a:99999/")
        ),
        *(("digest", v, "--digest must be sha256:") for v in ("<", "sha256:1", f"{DIGEST}\n", "x" * 9999)),
        *(("deployment_id", v, "is not the id of a deployment") for v in ("<", "a\n::error::b", "x" * 999)),
        ("version", "", "The version is empty"),
    ],
)
def test_invalid_flags_are_refused(flag: str, value: str, said: str) -> None:
    """In one sentence, before any request."""
    run = Run("healthcheck", settings.environment("dev", dry_run=True))

    with pytest.raises(Refused, match=said) as refused:
        healthcheck(run, **{"version": "v1", flag: value})

    assert len(str(refused.value).splitlines()) == 1


LOGGED = Reasons(("r",), "the log:", ("its last line",))
URL = "https://dev.mint.cms.gov/api/v1/healthcheck"
PLAN = Expectation("dev", URL, "v1", 300.0, True, "mint-backend", "", "")


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({"version": "v1"}, {}),
        ({"version": "v1", "deployment_id": "", "digest": ""}, {}),
        ({"version": "v1", "timeout": "1.5"}, {"timeout": 1.5}),
        ({"version": "v1", "url": "http://x/"}, {"url": "http://x/", "own_url": False}),
        (
            {"version": "v1", "deployment_id": "ecs-svc/1", "digest": DIGEST},
            {"deployment_id": "ecs-svc/1", "digest": DIGEST},
        ),
    ],
)
@pytest.mark.parametrize("failure", [None, OutcomeUnknown("not proven")], ids=["proven", "not proven"])
def test_what_is_waited_for_follows_from_the_flags(
    flags: dict[str, str], changes: dict[str, Any], failure: DeployError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is that of the step also if it is no success: the receipt and --json have it. Nothing is changed."""
    result = Healthy("dev", "v1", "", "dev")
    monkeypatch.setattr(command, "wait", lambda plan, environment: (result, failure))
    run = Run("healthcheck", settings.environment("dev"))

    if failure:
        with pytest.raises(OutcomeUnknown, match="not proven"):
            healthcheck(run, **flags)
    else:
        assert healthcheck(run, **flags) is result

    assert stop.exit_code() == 2
    (step,) = run.steps
    assert (step.name, step.plan, step.result) == ("wait for the version", replace(PLAN, **changes), result)
    planned = Run("healthcheck", settings.environment("dev", dry_run=True), dry_run=True)
    assert healthcheck(planned, **flags) is None
    assert (planned.steps[0].plan, planned.steps[0].result) == (step.plan, None)


@pytest.mark.parametrize(
    ("changes", "since", "where"),
    [
        ({}, 700.0, "dev"),
        ({"deployment_id": "ecs-svc/1", "digest": DIGEST}, 0.0, "dev"),
        ({"own_url": False, "url": "http://x/", "timeout": 5.0}, 700.0, "http://x/"),
    ],
)
@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(None, None, ("p",), "n", "v0"), {"proof": ("p",), "note": "n", "changed_from": "v0"}),
        (Ended(Verdict.SUCCEEDED, None, ("p",)), {"verdict": "succeeded", "proof": ("p",)}),
        (Ended(Verdict.FAILED, DeployError("f"), reasons=LOGGED), {"verdict": "failed", "reasons": ("r",)}),
        (Ended(None, OutcomeUnknown("u")), {"reasons": ("u",)}),
    ],
)
def test_the_watch_is_that_of_the_plan_and_its_end_the_result(
    changes: dict[str, Any],
    since: float,
    where: str,
    ended: Ended,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without an id, a deployment of the last five minutes is meant. Without credentials ECS is not watched."""
    plan = replace(PLAN, **changes)
    watched: list[Any] = []
    monkeypatch.setattr(watch, "watch", lambda plan, sight, clock: watched.extend((plan, sight)) or ended)
    monkeypatch.setattr(command, "time", SimpleNamespace(time=lambda: 1000.0))

    result, failure = command.wait(plan, settings.environment("dev"))

    before = Before("v1", "mint-backend", plan.deployment_id, plan.digest, since)
    again = "invoke healthcheck --env=dev --version=v1"
    assert watched == [watch.Plan(where, "mint-app", before, plan.url, plan.timeout, again), None]
    whole = Healthy("dev", "v1", "", where)
    assert (result, failure) == (replace(whole, **expected), ended.failure)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "the rollout in ECS is not watched: there are no AWS credentials here"
    assert said[1:] == (["the log:", "  | its last line"] if ended.reasons.log else [])


def test_with_credentials_the_applications_own_service_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may turn out to lack the right: then the watch goes on without it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(command, "Reader", lambda environment, name: (environment.name, name))

    assert command._reader(settings.environment("dev")) == ("dev", "mint-app")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "dev runs v1"),
        ({"changed_from": "v0", "note": "n"}, "dev runs v1 (was v0), n"),
        ({"where": URL, "version": NEW}, f"{URL} runs bbbbbbb"),
        ({"verdict": "nothing to verify", "proof": ("none",)}, "dev has v1 deployed; none, so nothing is verified"),
        ({"verdict": "failed", "reasons": ("r",), "proof": ("p",)}, "dev: v1 failed"),
        ({"verdict": "", "reasons": ("r",)}, "dev: v1 is not proven to run"),
    ],
)
def test_the_result_is_one_line(changes: dict[str, Any], line: str) -> None:
    """The last one of the command. Later jobs get the version."""
    result = replace(Healthy("dev", "v1", "", "dev", "succeeded"), **changes)

    assert (result.line(), result.outputs()) == (line, {"version": result.version})
    assert PLAN.describe() == [f"wait up to 300 s until {URL} answers with version v1 3 times in a row"]


def test_the_time_out_is_that_of_the_flag(answers: tuple[StandIn, list[Reply]], invoke: Invoke) -> None:
    """In the plan and in the run."""
    server, replies = answers
    replies.append(health(OLD_VERSION))

    done = invoke("healthcheck", "--env=dev", "--version=v1", f"--url={server.url}", "--timeout=1.5", "--json")

    step = json.loads(done.stdout)["steps"][0]
    assert step["plan"]["timeout"] == 1.5
    assert done.returncode == 3
    assert f": v1 of mint-app is not proven to run after 1 s: {server.url} answers with aaaaaaa" in done.stderr
    assert step["result"]["reasons"]


def test_the_command_waits_and_says_what_runs_now(answers: tuple[StandIn, list[Reply]], invoke: Invoke) -> None:
    """In the last line, with the URL that was requested, and in --json."""
    server, replies = answers
    replies.append(health(NEW))

    done = invoke("healthcheck", "--env=impl", f"--url={server.url}", "--json", GITHUB_SHA=NEW)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{server.url} runs bbbbbbb, according to its endpoint alone")
    result = json.loads(done.stdout)["steps"][0]["result"]
    assert (result["environment"], result["version"]) == ("impl", NEW)


def test_empty_outputs_of_deploy_service_are_ignored(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """They are empty if ECS or ECR could not be read."""
    done = invoke("healthcheck", "--version=v0", "--deployment-id=", "--digest=", **cloud.env)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("local runs v0 (")


def test_a_role_that_may_not_read_ecs_can_still_wait(invoke: Invoke) -> None:
    """The last line says that ECS was not read."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with stand_in(lambda _, path: health(NEW) if path == "/health" else DENIED) as server:
        words = ("healthcheck", "--env=dev", f"--version={NEW}", f"--url={server.url}/health")
        done = invoke(*words, AWS_ENDPOINT_URL=server.url, AWS_ACCOUNT_ID="123456789012", **keys)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ECS cannot be read") == 1
    assert "according to its endpoint alone; ECS was not read" in done.stderr.splitlines()[-1]
