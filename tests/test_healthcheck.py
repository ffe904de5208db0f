"""Waiting for a version: with real HTTP and a simulated clock."""

import json
from collections.abc import Callable, Iterator

import pytest

from scripts import healthcheck
from scripts.ecs.rollout import Service, Target
from scripts.frame import settings, version
from scripts.frame.errors import DeployError, OutcomeUnknown, RolledBack
from scripts.frame.waiting import Clock
from scripts.healthcheck import BLIND_LOOKS, WATCH_INTERVAL, Expectation, Healthy
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_rollout import BACK, DIGEST, DRAINING, OLD, THEIRS, deployment, service

NEW, OLD_VERSION = "b" * 40, "a" * 40


def health(version: object) -> Reply:
    """The response of the application's healthcheck."""
    body = {"status": "pass", "datetime": "2021-11-02 17:05:19+00:00", "version": version, "timestamp": "1"}
    return Reply(json.dumps(body).encode(), headers={"Content-Type": "application/json"})


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.clock = Clock(now=lambda: self.time, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def answers() -> Iterator[tuple[StandIn, list[Reply]]]:
    """A server that gives the replies of a list in order, and keeps repeating the last."""
    replies: list[Reply] = []
    with stand_in(lambda *_: replies.pop(0) if len(replies) > 1 else replies[0]) as server:
        yield server, replies


def wait(
    url: str, timeout: float = 60, look: Callable[[], Service] | None = None, time: Time | None = None, **target: str
) -> Healthy:
    """Wait for NEW."""
    plan = Expectation("dev", url, NEW, timeout, repository="app", **target)  # type: ignore[arg-type]
    return healthcheck.wait(plan, look, clock=(time or Time()).clock)


def showing(*services: Service | DeployError) -> Callable[[], Service]:
    """The states that ECS shows one after the other; the last is repeated."""
    left = list(services)

    def look() -> Service:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, DeployError):
            raise now
        return now

    return look


def test_the_version_must_answer_three_times_in_a_row(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """Old and new tasks answer in turn during a rollout."""
    server, replies = answers
    replies += [health(v) for v in (OLD_VERSION, NEW, OLD_VERSION, NEW, NEW, OLD_VERSION, NEW, NEW, NEW)]

    healthy = wait(server.url)

    assert len(server.requests) == 9
    assert (healthy.version, healthy.changed_from) == (NEW, OLD_VERSION)
    assert healthy.line() == "dev runs bbbbbbb (was aaaaaaa), according to its endpoint alone; ECS was not read"


def test_after_the_time_out_the_outcome_is_unknown(answers: tuple[StandIn, list[Reply]]) -> None:
    """The message has the version that answers then."""
    server, replies = answers
    replies.append(health(OLD_VERSION))
    time = Time()

    with pytest.raises(OutcomeUnknown, match=r"dev does not run bbbbbbb after 10 s: .* answers with aaaaaaa"):
        wait(server.url, 10, time=time)

    assert time.time <= 10


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"gone", 503), "HTTP status 503"),
        (Reply(b"<html>"), "not JSON with a version"),
        (Reply(b"[]"), "not JSON with a version"),
        (health(None), "version is empty"),
        (health(""), "version is empty"),
        (Reply(b"", drop=True), "closed connection without response"),
    ],
)
def test_a_response_without_a_version_is_no_match(
    answers: tuple[StandIn, list[Reply]], reply: Reply, said: str
) -> None:
    """It says why, and keeps waiting."""
    server, replies = answers
    replies += [reply, health(NEW)]

    with pytest.raises(DeployError, match=said):
        version.answering(server.url, 2)
    replies.insert(0, reply)
    assert wait(server.url).version == NEW


def test_redirects_are_followed() -> None:
    """As by the old script."""

    def answer(method: str, path: str) -> Reply:
        return health(NEW) if path == "/there" else Reply(b"", 302, {"Location": "/there"})

    with stand_in(answer) as server:
        assert version.answering(server.url + "/here", 2) == NEW


def test_a_slow_response_ends_at_the_time_out() -> None:
    with stand_in(lambda *_: Reply(b"", delay=1)) as server, pytest.raises(DeployError, match="no complete response"):
        version.answering(server.url, 0.1)


def test_an_empty_version_is_refused_even_if_the_server_is_down(invoke: Invoke) -> None:
    """There the old script succeeded."""
    done = invoke("healthcheck", "--env=dev", "--version=", "--url=http://127.0.0.1:9")

    assert done.returncode == 2
    assert "The version is empty" in done.stderr


NEW_STARTS = service(deployment(NEW, state="IN_PROGRESS"), DRAINING)
TAKEN_BACK = service(
    deployment(OLD_VERSION, id="ecs-svc/back", reason=BACK), deployment(NEW, status="ACTIVE", state="FAILED")
)
THROTTLED = DeployError("ThrottlingException")


def test_a_rollback_ends_the_wait_at_once(answers: tuple[StandIn, list[Reply]]) -> None:
    """Exit code 4 with ECS's reason, long before the time-out."""
    server, replies = answers
    replies.append(health(OLD_VERSION))
    time = Time()

    with pytest.raises(RolledBack, match=r"was rolled back.*circuit breaker"):
        wait(server.url, 300, showing(NEW_STARTS, TAKEN_BACK), time)

    assert time.time < 10


def test_matching_answers_do_not_count_while_the_rollout_is_in_progress(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """The load balancer may have used only new tasks by chance."""
    server, replies = answers
    replies.append(health(NEW))

    healthy = wait(server.url, look=showing(*[NEW_STARTS] * 3, service(deployment(NEW))))

    assert len(server.requests) > 3
    assert healthy.line() == "dev runs bbbbbbb"


def test_a_rollout_in_progress_at_the_time_out_is_an_unknown_outcome(answers: tuple[StandIn, list[Reply]]) -> None:
    """The message does not say that the version does not answer, because it does."""
    server, replies = answers
    replies.append(health(NEW))

    with pytest.raises(OutcomeUnknown, match=r"its rollout in ECS is not complete after 10 s. In ECS, app is"):
        wait(server.url, 10, showing(NEW_STARTS))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (service(deployment(NEW, state="FAILED", reason="no memory")), "failed: no memory"),
        (
            service(deployment(NEW, state="IN_PROGRESS", failed=40), breaker=False),
            "40 tasks failed. The service has no circuit breaker",
        ),
    ],
    ids=["ECS reports it", "many failed tasks, no breaker"],
)
def test_a_failed_rollout_ends_the_wait(answers: tuple[StandIn, list[Reply]], now: Service, said: str) -> None:
    """With ECS's reason."""
    server, replies = answers
    replies.append(health(OLD_VERSION))

    with pytest.raises(DeployError, match=said):
        wait(server.url, look=showing(now))


def test_with_a_desired_count_of_0_the_rollout_alone_decides(answers: tuple[StandIn, list[Reply]]) -> None:
    """The result says that nothing answers."""
    server, replies = answers
    replies.append(Reply(b"no task runs", 503))

    healthy = wait(server.url, look=showing(service(deployment(NEW, desired=0, running=0))))

    assert healthy.line() == "dev has bbbbbbb deployed; no task is desired, so nothing answers"


def test_if_ecs_cannot_be_read_the_endpoint_alone_decides(
    answers: tuple[StandIn, list[Reply]], capsys: pytest.CaptureFixture[str]
) -> None:
    """After some failed reads. It is reported once, and in the last line."""
    server, replies = answers
    replies.append(health(NEW))
    time = Time()

    healthy = wait(server.url, look=showing(DeployError("AccessDenied")), time=time)

    assert time.time == (BLIND_LOOKS - 1) * WATCH_INTERVAL
    assert healthy.line() == "dev runs bbbbbbb, according to its endpoint alone; ECS was not read"
    assert capsys.readouterr().err.count("ECS cannot be read, trying again in 5 s: AccessDenied") == 1


def test_a_time_out_before_enough_failed_reads_of_ecs_counts_as_success(answers: tuple[StandIn, list[Reply]]) -> None:
    """The version answers, and ECS was never read."""
    server, replies = answers
    replies.append(health(NEW))

    assert wait(server.url, 4, showing(DeployError("AccessDenied"))).note != ""


@pytest.mark.parametrize("before", [[], [NEW_STARTS]], ids=["the first reads", "later reads"])
def test_failed_reads_of_ecs_do_not_end_the_watching(
    answers: tuple[StandIn, list[Reply]], before: list[Service]
) -> None:
    """The version answers all the time, but the next read of ECS shows a rollback."""
    server, replies = answers
    replies.append(health(NEW))
    looks = [*before, THROTTLED, THROTTLED, TAKEN_BACK]

    with pytest.raises(RolledBack):
        wait(server.url, look=showing(*looks))


@pytest.mark.parametrize(
    ("last", "said"),
    [(NEW_STARTS, "is rolling out"), (service(OLD), "has not started")],
    ids=["in progress", "not started"],
)
def test_once_ecs_was_read_the_endpoint_alone_does_not_decide(
    answers: tuple[StandIn, list[Reply]], last: Service, said: str
) -> None:
    """Much may have happened since the last successful read, so the outcome is unknown."""
    server, replies = answers
    replies.append(health(NEW))

    with pytest.raises(OutcomeUnknown, match=f"in ECS is not complete after 60 s. In ECS, app {said}"):
        wait(server.url, look=showing(last, *[THROTTLED] * 20))


def test_at_the_time_out_it_says_that_the_deployment_has_not_started(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """ECS lists only the old deployment."""
    server, replies = answers
    replies.append(health(OLD_VERSION))

    with pytest.raises(OutcomeUnknown, match="app has not started"):
        wait(server.url, 10, showing(service(OLD)))


def test_redeploying_the_running_version_waits_for_the_deployment_with_the_id(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """The version answers already, so that proves nothing."""
    server, replies = answers
    replies.append(health(NEW))
    before = service(deployment(NEW, id="ecs-svc/old"))

    with pytest.raises(OutcomeUnknown, match="app has not started"):
        wait(server.url, 10, showing(before), deployment_id="ecs-svc/new")
    assert wait(server.url, look=showing(before, service(deployment(NEW))), deployment_id="ecs-svc/new").note == ""


def test_another_deployment_in_place_of_the_one_with_the_id_ends_the_wait(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """Without an id, it may be an older one."""
    server, replies = answers
    replies.append(health(NEW))

    with pytest.raises(DeployError, match="app was superseded"):
        wait(server.url, look=showing(service(THEIRS)), deployment_id="ecs-svc/new")
    assert wait(server.url, look=showing(service(THEIRS))).version == NEW


@pytest.mark.parametrize(("id", "looks"), [("", 0), ("ecs-svc/new", 1)])
def test_a_healthy_deployment_stays_healthy_if_ecs_cannot_be_read(
    id: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an id, ECS is not read at all."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    healthy = Healthy("dev", NEW, "", "dev")
    with stand_in(lambda *_: DENIED) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        assert healthcheck.still(settings.environment("dev"), Target(NEW, "app", id=id), healthy) is healthy

    assert len(aws.requests) == looks


def test_a_deployment_by_digest_is_ours_only_with_its_id_or_digest(answers: tuple[StandIn, list[Reply]]) -> None:
    """The failure of another one does not matter."""
    server, replies = answers
    replies.append(health(NEW))
    failed = deployment("", images=(f"registry:5000/app@{DIGEST}",), state="FAILED")

    assert wait(server.url, look=showing(service(failed))).version == NEW
    with pytest.raises(DeployError, match="app failed"):
        wait(server.url, look=showing(service(failed)), digest=DIGEST)
    with pytest.raises(DeployError, match="app failed"):
        wait(server.url, look=showing(service(failed)), deployment_id="ecs-svc/new")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        *(
            (f"--timeout={value}", "--timeout must be a number of seconds")
            for value in ("0", "-1", "soon", "nan", "inf", "", "1\n")
        ),
        *(
            (f"--url={value}", "is not the URL of a healthcheck")
            for value in ("", "mint.cms.gov", "ftp://mint.cms.gov/", "https:///x", "http://[::1", "http://a:99999/")
        ),
        *((f"--digest={value}", "--digest must be sha256:") for value in ("<", "sha256:1", f"{DIGEST}\n", "x" * 9999)),
        *((f"--deployment-id={value}", "is not the id of a deployment") for value in ("<", "a\n::error::b", "x" * 999)),
        ("--version=", "The version is empty"),
    ],
)
def test_invalid_flags_are_refused(flag: str, said: str, invoke: Invoke) -> None:
    """In one sentence, before any request."""
    done = invoke("healthcheck", "--env=dev", *([] if "--version" in flag else ["--version=v1"]), flag)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_the_time_out_is_that_of_the_flag(answers: tuple[StandIn, list[Reply]], invoke: Invoke) -> None:
    """In the plan and in the run."""
    server, replies = answers
    replies.append(health(OLD_VERSION))
    words = ("healthcheck", "--env=dev", "--version=v1", f"--url={server.url}", "--timeout=1.5")

    plan = json.loads(invoke(*words, "--dry-run", "--json").stdout)["steps"][0]["plan"]
    done = invoke(*words)

    assert plan["timeout"] == 1.5
    assert done.returncode == 3
    assert f"{server.url} does not run v1 after 1.5 s" in done.stderr


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
