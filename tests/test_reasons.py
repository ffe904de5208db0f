"""Why a deployment did not succeed: what is told of tasks that died, of events and of log lines, and what is masked."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from scripts.ecs import logs, reasons
from scripts.ecs.logs import Source, sources
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import Before, Container, Service
from scripts.frame import settings, text
from tests.conftest import EmbeddedCloud
from tests.stand_in import Reply, stand_in
from tests.test_rollout import (
    BACK,
    CANNOT_PULL,
    FAILED,
    LATER,
    NEW,
    NEW_AT,
    OLD,
    OURS,
    STARTED,
    WENT_BACK,
    YESTERDAY,
    Time,
    dead,
    rolls,
    service,
)

INIT = "ResourceInitializationError: unable to pull secrets or registry auth: AccessDeniedException"


@pytest.mark.parametrize(
    ("code", "reason", "stopped", "meant"),
    [
        (137, "OutOfMemoryError: Container killed due to memory usage", "", "the container needs more memory"),
        (137, "", "", "it was killed: out of memory, or it did not stop in time"),
        (139, "", "", "it crashed: segmentation fault"),
        (143, "", "", "it was told to stop (SIGTERM)"),
        (127, "", "", "its command was not found in the image"),
        (126, "", "", "its command cannot be run"),
        (134, "", "", "it aborted"),
        (1, "", "", ""),
        (None, CANNOT_PULL, CANNOT_PULL, "the registry has no such image for this platform"),
        (None, "CannotPullImageManifestError: denied", "", "the registry has no such image for this platform"),
        (None, "", INIT, "a secret or parameter is missing"),
        (255, "exec /app: exec format error", "", "the image is for another CPU architecture"),
        (None, "", "Task failed ELB health checks in (target-group arn:x)", "the load balancer's health check got no"),
        (0, "", "Task failed container health checks", "the health check in the task definition failed"),
        (None, "", "Capacity is unavailable at this time", "there is no capacity for the task"),
    ],
)
def test_what_a_task_died_of_has_a_hint(code: int | None, reason: str, stopped: str, meant: str) -> None:
    """From AWS's words, else from the exit code."""
    task = dead(reason=stopped, containers=(Container("app", exit_code=code, reason=reason),))

    (told,) = reasons.grouped([task])

    assert told.startswith("1 task died: EssentialContainerExited")
    assert ("–" in told, meant in told) == (bool(meant), True)


def test_tasks_that_died_for_the_same_reason_are_one_sentence() -> None:
    """Ids and addresses differ from task to task. The most frequent reason comes first, and at most three are told."""
    pulls = [
        dead(n, stop_code="TaskFailedToStart", reason=f"CannotPull: request {n}f00ba4{n}: 10.0.0.{n}", containers=())
        for n in range(3)
    ]
    others = [dead(n, reason="x" * n, containers=()) for n in range(5)]

    told = reasons.grouped([*others, *pulls])

    assert len(told) == 3
    assert told[0].startswith("3 tasks died: TaskFailedToStart: CannotPull: request 0f00ba40: 10.0.0.0 –")


def test_a_sidecar_that_ended_well_is_not_named() -> None:
    """And what the task and its container say alike is said once."""
    others = (Container("proxy", exit_code=0), Container("log"), Container("router", exit_code=143))
    task = dead(
        stop_code="TaskFailedToStart", reason=CANNOT_PULL, containers=(Container("app", reason=CANNOT_PULL), *others)
    )
    stopped = dead(containers=(Container("router", exit_code=143), Container("app", exit_code=1)))

    (told,), (other,) = reasons.grouped([task]), reasons.grouped([stopped])

    assert told.count("CannotPull") == 1
    assert not any(name in told for name in ("proxy", "log", "router"))
    assert other.endswith("; app exited with 1")


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (
            STARTED,
            service(
                replace(NEW, reason="no capacity", failed=3),
                replace(OLD, reason="completed long ago"),
                events=[
                    (LATER, "has started 2 tasks"),
                    (LATER, "was unable to place a task"),
                    (LATER, "was unable to place a task"),
                    (YESTERDAY, "deployment failed"),
                ],
            ),
            ("no capacity", "3 tasks failed", "(service app) was unable to place a task"),
        ),
        (
            STARTED,
            service(NEW, events=[(LATER, "has started 2 tasks"), (YESTERDAY, "old")]),
            ("(service app) has started 2 tasks",),
        ),
        (STARTED, service(WENT_BACK, FAILED), (BACK,)),
        (OURS, service(), ()),
        (STARTED, service(replace(NEW, state="COMPLETED", reason="deployment completed.")), ()),
        # Nothing is known of it: what ECS shows since its newest deployment.
        (
            Before("v9", "app"),
            service(replace(NEW, reason="no capacity"), events=[(LATER, "has started"), (YESTERDAY, "old")]),
            ("no capacity", "(service app) has started"),
        ),
        (
            STARTED,
            service(NEW, events=[(LATER, f"failed {number}") for number in range(9)]),
            tuple(f"(service app) failed {number}" for number in range(5)),
        ),
        (
            STARTED,
            service(
                NEW,
                record=rolls(
                    reason="why", rollback_reason="Alarm detected", failures=3, threshold=4, alarms=("a", "b")
                ),
            ),
            ("why", "Alarm detected", "ECS's circuit breaker counts 3 of 4 failures", "alarms: a, b"),
        ),
        (
            STARTED,
            service(NEW, events=[(NEW_AT, "cannot connect with DB_PASSWORD=hunter2 and AKIAABCDEFGHIJKLMNOP")]),
            ("(service app) cannot connect with DB_PASSWORD=*** and ***",),
        ),
    ],
    ids=[
        "trouble since the start",
        "no trouble",
        "a rollback",
        "nothing",
        "completed",
        "never seen",
        "five",
        "ECS's record",
        "secrets",
    ],
)
def test_ecs_own_reasons_are_told(before: Before, now: Service, expected: tuple[str, ...]) -> None:
    """Only those since the start, each once."""
    assert reasons.explain(before, now) == expected


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("password=hunter2 ok", "password=*** ok"),
        ('{"db_password": "hun ter2", "user": "app"}', '{"db_password": ***, "user": "app"}'),
        ("POSTGRES_PASSWORD: 'a b'", "POSTGRES_PASSWORD: ***"),
        ("api-key=abc&x=1", "api-key=***&x=1"),
        ("Authorization: Bearer abcdef.ghi-jkl", "Authorization: Bearer ***"),
        ("postgres://app:hunter2@db:5432/app", "postgres://db:5432/app"),
        ("key AKIAABCDEFGHIJKLMNOP used", "key *** used"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "jwt ***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz", "***"),
        ("-----BEGIN RSA PRIVATE KEY----- MIIE", "***"),
        ("the token has expired", "the token has expired"),
        ("panic: no such table: secrets", "panic: no such table: secrets"),
    ],
)
def test_what_looks_like_a_secret_is_masked(line: str, shown: str) -> None:
    """Lines of a log are somebody else's."""
    assert reasons.masked(line) == shown


def test_the_secret_variables_of_a_task_definition_are_hidden() -> None:
    """Wherever their values appear."""
    value = "a-long-enough-password"
    reasons.hide({"containerDefinitions": [{"environment": [{"name": "DB_PASSWORD", "value": value}]}]})
    try:
        assert text.plain(f"cannot log in with {value}") == "cannot log in with ***"
    finally:
        text._hidden.discard(value)


def container(name: str, **options: str) -> dict[str, Any]:
    """A container of a task definition that logs to CloudWatch."""
    return {"name": name, "logConfiguration": {"logDriver": "awslogs", "options": options}}


def test_the_log_options_of_a_task_definition_say_where_its_lines_are() -> None:
    """Also in another region. Without a prefix the name of a stream cannot be known; other drivers log elsewhere."""
    env = settings.environment("dev", dry_run=True)
    found = sources(
        env,
        {
            "containerDefinitions": [
                container(
                    "app", **{"awslogs-group": "/a", "awslogs-stream-prefix": "p", "awslogs-region": "eu-west-1"}
                ),
                container("own", **{"awslogs-group": "/b", "awslogs-stream-prefix": "p"}),
                container("bare", **{"awslogs-group": "/c"}),
                {"name": "splunk", "logConfiguration": {"logDriver": "splunk"}},
                {"name": "silent"},
            ]
        },
    )

    assert found == [Source("app", "/a", "eu-west-1", "p/app/"), Source("own", "/b", "us-west-2", "p/own/")]
    assert sources(env, {}) == []


def test_the_last_lines_of_the_container_that_died_are_shown(cloud: EmbeddedCloud) -> None:
    """The last twenty of the last task, without secrets."""
    env, cloudwatch = settings.find("local"), cloud.client("logs")
    cloudwatch.create_log_group(logGroupName="/app")
    cloudwatch.create_log_stream(logGroupName="/app", logStreamName="p/app/t1")
    lines = [{"timestamp": 1795669377000 + n, "message": f"line {n} password=x{n}"} for n in range(30)]
    cloudwatch.put_log_events(logGroupName="/app", logStreamName="p/app/t1", logEvents=lines)
    options = {"awslogs-group": "/app", "awslogs-stream-prefix": "p"}
    definition = {"containerDefinitions": [container("proxy", **options), container("app", **options)]}

    where, found = reasons.last_lines(env, definition, [dead(1), dead(0)])
    silent, none = reasons.last_lines(env, definition, [dead(7)], clock=Time().clock)
    elsewhere, _ = reasons.last_lines(env, {}, [dead(1)])

    assert where == "the last lines of app, task t1"
    assert found == [f"line {n} password=***" for n in range(10, 30)]
    assert (silent, none) == ("app of task t7 has logged nothing", [])
    assert elsewhere == "its containers do not log to CloudWatch"
    assert reasons.last_lines(env, definition, []) == ("", [])


def test_the_last_lines_are_read_in_the_region_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only as many as are wanted, from the end."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    answer = Reply(json.dumps({"events": [{"message": "one \n"}, {"message": "two"}]}).encode())
    with stand_in(lambda *_: answer) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        found = logs.last(settings.environment("dev"), Source("app", "/app", "eu-west-1", "p/app/"), "t1", 20)

    assert found == ["one", "two"]
    (request,) = aws.requests
    assert json.loads(request["body"]) == {
        "logGroupName": "/app",
        "logStreamName": "p/app/t1",
        "limit": 20,
        "startFromHead": False,
    }
    assert "/eu-west-1/logs/" in request["headers"]["Authorization"]


def test_logs_that_cannot_be_read_hide_no_other_reason(cloud: EmbeddedCloud) -> None:
    """It says so."""
    cloud.fail(service="logs", operation="GetLogEvents", status=400, code="AccessDeniedException", times=9)
    definition = {"containerDefinitions": [container("app", **{"awslogs-group": "/app", "awslogs-stream-prefix": "p"})]}
    now = service(replace(NEW, reason="no capacity"), stopped=(dead(0),))

    found = reasons.collect(settings.find("local"), STARTED, now, definition)

    assert found.logged.startswith("its logs cannot be read: AWS refused reading the log group /app")
    assert "no capacity" in found.lines


def test_all_reasons_are_collected_without_the_values_of_secret_variables(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CloudWatch gets four seconds for the lines: it is late with them."""
    monkeypatch.setattr(text, "_hidden", set())
    cloud.client("logs").create_log_group(logGroupName="/app")
    app = container("app", **{"awslogs-group": "/app", "awslogs-stream-prefix": "p"})
    app["environment"] = [{"name": "DB_PASSWORD", "value": "a-long-enough-password"}]
    now, time = service(replace(NEW, reason="no a-long-enough-password"), stopped=(dead(7),)), Time()

    found = reasons.collect(settings.find("local"), STARTED, now, {"containerDefinitions": [app]}, clock=time.clock)

    assert (found.logged, found.log, time.time) == ("app of task t7 has logged nothing", (), 4.0)
    assert "no ***" in found.lines


@pytest.mark.parametrize(
    ("found", "printed"),
    [
        (Reasons(("why",)), ""),
        (Reasons(("why",), "app has logged nothing"), "app has logged nothing\n"),
        (Reasons((), "the last lines of app", ("one", "two")), "the last lines of app\n  | one\n  | two\n"),
    ],
    ids=["no task died", "no lines", "lines"],
)
def test_the_log_of_a_task_that_died_is_printed(
    found: Reasons, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else why there is none. The reasons themselves are in the error."""
    reasons.show(found)

    assert capsys.readouterr().err == printed
