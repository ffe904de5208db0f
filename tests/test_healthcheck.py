"""Waiting for a version: real HTTP, a clock of the test's own."""

import json
from collections.abc import Callable, Iterator

import pytest

from scripts import healthcheck
from scripts.ecs.rollout import Service
from scripts.frame import settings, version
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.healthcheck import Expectation, Healthy
from tests.conftest import Invoke
from tests.stand_in import Reply, StandIn, stand_in
from tests.test_rollout import BACK, DRAINING, OLD, deployment, service

NEW, OLD_VERSION = "b" * 40, "a" * 40


def health(version: object) -> Reply:
    """The answer of the application's healthcheck."""
    body = {"status": "pass", "datetime": "2021-11-02 17:05:19+00:00", "version": version, "timestamp": "1"}
    return Reply(json.dumps(body).encode(), headers={"Content-Type": "application/json"})


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def answers() -> Iterator[tuple[StandIn, list[Reply]]]:
    """A server that gives a list's replies in order, and the last one from then on."""
    replies: list[Reply] = []
    with stand_in(lambda *_: replies.pop(0) if len(replies) > 1 else replies[0]) as server:
        yield server, replies


def wait(
    url: str, timeout: float = 60, watch: Callable[[], Service] | None = None, clock: Clock | None = None
) -> Healthy:
    """Wait for NEW."""
    clock = clock or Clock()
    plan = Expectation("dev", url, NEW, timeout)
    return healthcheck.wait(plan, watch, now=clock.now, sleep=clock.sleep)


def test_one_match_while_old_and_new_alternate_proves_nothing(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """Three answers in a row must have the version."""
    server, replies = answers
    replies += [health(v) for v in (OLD_VERSION, NEW, OLD_VERSION, NEW, NEW, OLD_VERSION, NEW, NEW, NEW)]

    healthy = wait(server.url)

    assert len(server.requests) == 9
    assert healthy == Healthy("dev", NEW, OLD_VERSION)
    assert healthy.line() == "dev runs bbbbbbb (was aaaaaaa)"


def test_the_wait_is_bounded_by_the_clock(answers: tuple[StandIn, list[Reply]]) -> None:
    """At the time-out the outcome is unknown, with what answers then."""
    server, replies = answers
    replies.append(health(OLD_VERSION))
    clock = Clock()

    with pytest.raises(OutcomeUnknown, match=r"does not run bbbbbbb after 10 s: .* answers with aaaaaaa"):
        wait(server.url, 10, clock=clock)

    assert clock.time <= 10


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
def test_an_answer_without_a_version_is_no_match(answers: tuple[StandIn, list[Reply]], reply: Reply, said: str) -> None:
    """It says why, and goes on."""
    server, replies = answers
    replies += [reply, health(NEW)]

    with pytest.raises(DeployError, match=said):
        version.answering(server.url, 2)
    replies.insert(0, reply)
    assert wait(server.url).version == NEW


def test_redirects_are_followed() -> None:
    """As the old script did."""

    def answer(method: str, path: str) -> Reply:
        return health(NEW) if path == "/there" else Reply(b"", 302, {"Location": "/there"})

    with stand_in(answer) as server:
        assert version.answering(server.url + "/here", 2) == NEW


def test_a_server_that_does_not_answer_costs_its_time_out_only() -> None:
    """A request is given up after two seconds at most."""
    with stand_in(lambda *_: Reply(b"", delay=1)) as server, pytest.raises(DeployError, match="timed out"):
        version.answering(server.url, 0.1)


def test_nobody_is_asked_when_the_server_is_down_and_the_version_empty(invoke: Invoke) -> None:
    """The old script succeeded there: an empty version is refused."""
    done = invoke("healthcheck", "--env=dev", "--version=", "--url=http://127.0.0.1:9")

    assert done.returncode == 2
    assert "The version is empty" in done.stderr


def test_a_rollback_ends_the_wait_at_once(answers: tuple[StandIn, list[Reply]]) -> None:
    """Exit code 4 with ECS's reason, long before the time-out."""
    server, replies = answers
    replies.append(health(OLD_VERSION))
    shown = [
        service(deployment(NEW, state="IN_PROGRESS"), DRAINING),
        service(
            deployment(OLD_VERSION, id="back", reason=BACK),
            deployment(NEW, status="ACTIVE", state="FAILED"),
        ),
    ]
    clock = Clock()

    with pytest.raises(RolledBack, match=r"was rolled back.*circuit breaker"):
        wait(server.url, 300, lambda: shown.pop(0) if len(shown) > 1 else shown[0], clock)

    assert clock.time < 10


def test_matching_answers_do_not_count_while_ecs_still_rolls_out(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """The load balancer may reach only the new tasks by chance."""
    server, replies = answers
    replies.append(health(NEW))
    shown = [service(deployment(NEW, state="IN_PROGRESS"), DRAINING)] * 3 + [service(deployment(NEW))]

    wait(server.url, watch=lambda: shown.pop(0) if len(shown) > 1 else shown[0])

    assert len(server.requests) > 3


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (service(deployment(NEW, state="FAILED", reason="no memory")), "failed: no memory"),
    ],
)
def test_a_rollout_that_failed_ends_the_wait(answers: tuple[StandIn, list[Reply]], now: Service, said: str) -> None:
    """With ECS's own words."""
    server, replies = answers
    replies.append(health(OLD_VERSION))

    with pytest.raises(DeployError, match=said):
        wait(server.url, watch=lambda: now)


def test_the_answers_alone_decide_where_ecs_may_not_be_asked(
    answers: tuple[StandIn, list[Reply]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A role without ecs:DescribeServices can still wait."""
    server, replies = answers
    replies.append(health(NEW))

    def denied() -> Service:
        raise DeployError("AccessDenied")

    assert wait(server.url, watch=denied).version == NEW
    assert "ECS is not watched any more: AccessDenied" in capsys.readouterr().err


def test_a_version_that_has_not_been_deployed_is_said_at_the_time_out(
    answers: tuple[StandIn, list[Reply]],
) -> None:
    """ECS shows only the old deployment."""
    server, replies = answers
    replies.append(health(OLD_VERSION))

    with pytest.raises(OutcomeUnknown, match="app has not started"):
        wait(server.url, 10, lambda: service(OLD))


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan", "inf", ""])
def test_a_time_out_that_is_no_number_of_seconds_is_refused(timeout: str) -> None:
    """Before anything is asked."""
    with pytest.raises(Refused, match="is not a time-out"):
        healthcheck.plan(settings.find("dev"), wanted=NEW, timeout=timeout)


@pytest.mark.parametrize("url", ["", "mint.cms.gov", "ftp://mint.cms.gov/", "https:///x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """Before anything is asked."""
    with pytest.raises(Refused, match="is not the URL of a healthcheck"):
        healthcheck.plan(settings.find("dev"), wanted=NEW, url=url)


def test_the_command_waits_and_says_what_runs_now(answers: tuple[StandIn, list[Reply]], invoke: Invoke) -> None:
    """The last line is the truth; --json gives it to programs."""
    server, replies = answers
    replies.append(health(NEW))

    done = invoke("healthcheck", "--env=impl", f"--url={server.url}", "--json", GITHUB_SHA=NEW)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("impl runs bbbbbbb (")
    assert json.loads(done.stdout)["steps"][0]["result"]["version"] == NEW
