"""The verdict on a rollout, as a table of states that ECS may show."""

import json

import pytest

from scripts.ecs.rollout import Deployment, Event, Service, Target, Verdict, explain, find, observe, start, verdict
from scripts.frame import settings
from scripts.frame.errors import DeployError
from tests.stand_in import Reply, stand_in

# Times in seconds: the day before, the old deployment, ours, and after ours.
YESTERDAY, OLD_AT, NEW_AT, LATER = 100.0, 1000.0, 2000.0, 2100.0
BACK = "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/1."
DIGEST, OTHER_DIGEST = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PINNED_SIDECAR = f"public.ecr.aws/sidecar@{DIGEST}"


def deployment(
    tag: str, id: str = "ecs-svc/new", status: str = "PRIMARY", state: str = "COMPLETED", **more: object
) -> Deployment:
    """A deployment of registry/app:tag beside a sidecar."""
    values: dict[str, object] = {
        "id": id,
        "status": status,
        "task_definition": f"arn:task-definition/app:{tag}",
        "images": (PINNED_SIDECAR, f"registry:5000/app:{tag}"),
        "state": state,
        "reason": "",
        "created": {"ecs-svc/old": OLD_AT, "ecs-svc/new": NEW_AT}.get(id, LATER),
        "desired": 2,
        "running": 2,
        "failed": 0,
    }
    return Deployment(**{**values, **more})  # type: ignore[arg-type]


def service(*deployments: Deployment, events: tuple[tuple[float, str], ...] = (), breaker: bool = True) -> Service:
    """A service with these deployments. events: time and message, newest first."""
    return Service("app", deployments, tuple(Event(f"(service app) {text}", at) for at, text in events), breaker)


OLD = deployment("v1", id="ecs-svc/old")
DRAINING = deployment("v1", id="ecs-svc/old", status="ACTIVE")
NEW = deployment("v2", state="IN_PROGRESS")
FAILED = deployment("v2", status="ACTIVE", state="FAILED")
THEIRS = deployment("v3", id="ecs-svc/theirs", state="IN_PROGRESS")
GOES_BACK = deployment("v1", id="ecs-svc/back", state="IN_PROGRESS", reason=BACK)
BACK_EVENT = "rolling back to deployment ecs-svc/old."
FAILED_EVENT = "(deployment ecs-svc/new) deployment failed: tasks failed to start."

UNKNOWN = Target("v2", "app")
OURS = Target("v2", "app", id="ecs-svc/new")
KNOWN = Target("v2", "app", id="ecs-svc/new", since=NEW_AT)


@pytest.mark.parametrize("target", [UNKNOWN, OURS, KNOWN], ids=["by its version", "by its id", "by its id and time"])
@pytest.mark.parametrize(
    ("now", "seen", "expected"),
    [
        pytest.param(service(OLD), None, Verdict.ABSENT, id="only the old deployment"),
        pytest.param(service(), None, Verdict.ABSENT, id="ECS lists no deployment"),
        pytest.param(service(NEW, DRAINING), None, Verdict.RUNNING, id="in progress"),
        pytest.param(
            service(deployment("v2"), DRAINING), NEW, Verdict.SUCCEEDED, id="complete while the old one drains"
        ),
        pytest.param(service(deployment("v2", desired=4)), NEW, Verdict.SUCCEEDED, id="complete, then scaled out"),
        pytest.param(service(deployment("v2", desired=1)), NEW, Verdict.SUCCEEDED, id="complete, and scaling in"),
        pytest.param(service(deployment("v2", desired=0, running=0)), NEW, Verdict.SUCCEEDED, id="no task is desired"),
        pytest.param(service(deployment("v2", state="")), NEW, Verdict.SUCCEEDED, id="no state, alone and all running"),
        pytest.param(service(deployment("v2", state="", running=1)), NEW, Verdict.RUNNING, id="no state, one missing"),
        pytest.param(service(deployment("v2", state=""), DRAINING), NEW, Verdict.RUNNING, id="no state, one drains"),
        pytest.param(service(deployment("v2", state="FAILED")), NEW, Verdict.FAILED, id="failed without a rollback"),
        pytest.param(
            service(deployment("v2", state="IN_PROGRESS", failed=40), DRAINING, breaker=False),
            NEW,
            Verdict.FAILED,
            id="40 failed tasks and no breaker",
        ),
        pytest.param(
            service(deployment("v2", state="IN_PROGRESS", failed=40), DRAINING),
            NEW,
            Verdict.RUNNING,
            id="40 failed tasks, but a breaker decides",
        ),
        *(
            pytest.param(
                service(deployment("v2", state="IN_PROGRESS", failed=failed, desired=desired), breaker=False),
                NEW,
                expected,
                id=f"{failed} failed tasks of {desired} and no breaker",
            )
            for failed, desired, expected in (
                (9, 2, Verdict.RUNNING),
                (10, 2, Verdict.FAILED),
                (19, 10, Verdict.RUNNING),
                (20, 10, Verdict.FAILED),
            )
        ),
        pytest.param(service(GOES_BACK, FAILED), NEW, Verdict.ROLLED_BACK, id="the rollback is in progress"),
        pytest.param(
            service(OLD, deployment("v2", status="ACTIVE", state="IN_PROGRESS")),
            NEW,
            Verdict.ROLLED_BACK,
            id="the old deployment is PRIMARY again, without a reason",
        ),
        pytest.param(service(OLD), NEW, Verdict.ROLLED_BACK, id="the same, and ours is no longer listed"),
        pytest.param(
            service(deployment("v1", id="ecs-svc/back"), events=((LATER, BACK_EVENT),)),
            NEW,
            Verdict.ROLLED_BACK,
            id="the rollback is complete, and only an event shows it",
        ),
        pytest.param(
            service(
                deployment("v1", id="ecs-svc/back"),
                events=(*((LATER + n, f"registered 1 targets in {n}") for n in range(9, 0, -1)), (LATER, BACK_EVENT)),
            ),
            NEW,
            Verdict.ROLLED_BACK,
            id="the same, after nine newer events",
        ),
        *(
            pytest.param(
                service(deployment("v1", id="ecs-svc/back", reason=words)), NEW, Verdict.ROLLED_BACK, id=f"'{words}'"
            )
            for words in ("Rolling back.", "ROLLBACK to ecs-svc/old", "was rolled back", "roll-back")
        ),
        pytest.param(service(THEIRS), NEW, Verdict.SUPERSEDED, id="somebody else deployed meanwhile"),
        pytest.param(
            service(deployment("v3", id="ecs-svc/theirs", created=NEW_AT)),
            NEW,
            Verdict.SUPERSEDED,
            id="somebody else deployed in the same moment",
        ),
        pytest.param(service(), NEW, Verdict.SUPERSEDED, id="ECS no longer lists a deployment"),
        pytest.param(service(THEIRS, FAILED), NEW, Verdict.ROLLED_BACK, id="ours failed, then somebody else deployed"),
        pytest.param(
            service(THEIRS, events=((LATER, "has started 2 tasks"), (LATER, "steady state"), (YESTERDAY, BACK_EVENT))),
            NEW,
            Verdict.SUPERSEDED,
            id="somebody else deployed, and yesterday there was a rollback",
        ),
    ],
)
def test_verdict(target: Target, now: Service, seen: Deployment | None, expected: Verdict) -> None:
    """It is the same whether ours is known by version, by id, or by id and time."""
    assert verdict(target, now, seen) is expected


AGAIN = deployment("v2", id="ecs-svc/old")
FAILED_AGAIN = deployment("v2", status="ACTIVE", state="FAILED")


@pytest.mark.parametrize(
    ("target", "now", "expected"),
    [
        pytest.param(OURS, service(AGAIN), Verdict.ABSENT, id="the same version again, ours is not listed yet"),
        pytest.param(KNOWN, service(AGAIN), Verdict.ABSENT, id="the same with its start time"),
        pytest.param(UNKNOWN, service(AGAIN), Verdict.SUCCEEDED, id="the same without an id"),
        pytest.param(OURS, service(AGAIN, FAILED_AGAIN), Verdict.ROLLED_BACK, id="the same version, rolled back"),
        pytest.param(
            UNKNOWN,
            service(AGAIN, FAILED_AGAIN),
            Verdict.ROLLED_BACK,
            id="the same version, rolled back, without an id",
        ),
        pytest.param(
            UNKNOWN,
            service(deployment("v2", id="ecs-svc/back", reason=BACK), FAILED_AGAIN),
            Verdict.ROLLED_BACK,
            id="rolled back to the same version by a new deployment",
        ),
        pytest.param(
            UNKNOWN,
            service(
                deployment("v2", id="ecs-svc/back", state="IN_PROGRESS", reason=BACK),
                deployment("v3", id="ecs-svc/theirs", status="ACTIVE", state="FAILED"),
                deployment("v2", id="ecs-svc/old", status="ACTIVE"),
            ),
            Verdict.RUNNING,
            id="a rollback from another version to ours is in progress",
        ),
        pytest.param(
            UNKNOWN,
            service(deployment("v2", id="ecs-svc/back"), events=((LATER, BACK_EVENT),)),
            Verdict.SUCCEEDED,
            id="another version was rolled back to ours",
        ),
        pytest.param(
            OURS,
            service(OLD, events=((LATER, FAILED_EVENT),)),
            Verdict.ROLLED_BACK,
            id="ours is not listed, an event has its id, and the old one is PRIMARY",
        ),
        pytest.param(
            OURS,
            service(OLD, events=((LATER, FAILED_EVENT.replace("new)", "news)")),)),
            Verdict.ABSENT,
            id="an event with a longer id that starts with ours",
        ),
        pytest.param(
            OURS,
            service(THEIRS, events=((NEW_AT, FAILED_EVENT),)),
            Verdict.FAILED,
            id="ours failed without a rollback, then somebody else deployed",
        ),
        pytest.param(
            OURS,
            service(THEIRS, events=((NEW_AT, "(deployment ecs-svc/new) deployment completed."),)),
            Verdict.SUPERSEDED,
            id="ours completed, then somebody else deployed",
        ),
        pytest.param(OURS, service(THEIRS), Verdict.SUPERSEDED, id="ours is not listed and another one is in progress"),
        pytest.param(UNKNOWN, service(THEIRS), Verdict.ABSENT, id="the same without an id: it may be older"),
        pytest.param(OURS, service(GOES_BACK), Verdict.ABSENT, id="ours is not listed and another one is rolled back"),
        pytest.param(
            KNOWN,
            service(deployment("v3", id="ecs-svc/theirs", created=NEW_AT)),
            Verdict.ABSENT,
            id="ours is not listed, and the PRIMARY one is not newer",
        ),
        pytest.param(
            KNOWN,
            service(deployment("v1", id="ecs-svc/old", created=NEW_AT), events=((NEW_AT, FAILED_EVENT),)),
            Verdict.ROLLED_BACK,
            id="the same, and an event has our id",
        ),
        pytest.param(
            KNOWN,
            service(deployment("v2", id="ecs-svc/theirs")),
            Verdict.SUPERSEDED,
            id="our version, but by a newer deployment",
        ),
        pytest.param(
            KNOWN,
            service(OLD, events=((LATER, BACK_EVENT),)),
            Verdict.ROLLED_BACK,
            id="never seen, and a rollback since",
        ),
        pytest.param(
            KNOWN, service(OLD, events=((YESTERDAY, BACK_EVENT),)), Verdict.ABSENT, id="never seen, and an old rollback"
        ),
        pytest.param(
            Target("v2", "app", since=NEW_AT),
            service(OLD, events=((LATER, BACK_EVENT),)),
            Verdict.ROLLED_BACK,
            id="no id, never seen, and a rollback to the PRIMARY one",
        ),
        pytest.param(
            Target("v2", "app", since=NEW_AT),
            service(deployment("v3", id="ecs-svc/theirs", created=LATER + 60), events=((LATER, BACK_EVENT),)),
            Verdict.ABSENT,
            id="the same, but the PRIMARY one is newer than the rollback",
        ),
        *(
            pytest.param(
                Target("v2", "app", since=NEW_AT),
                service(deployment("v1", id="ecs-svc/back", created=LATER + later), events=((LATER, BACK_EVENT),)),
                expected,
                id=f"the PRIMARY one is {later} s newer than the rollback",
            )
            for later, expected in ((5, Verdict.ROLLED_BACK), (5.5, Verdict.ABSENT))
        ),
        pytest.param(
            Target("v2", "app", since=NEW_AT),
            service(OLD, events=((NEW_AT, BACK_EVENT),)),
            Verdict.ROLLED_BACK,
            id="a rollback at the start time",
        ),
        pytest.param(
            Target("v2", "app", since=NEW_AT),
            service(OLD, events=((YESTERDAY, BACK_EVENT),)),
            Verdict.ABSENT,
            id="no id, never seen, and an old rollback",
        ),
    ],
)
def test_verdict_at_the_first_look(target: Target, now: Service, expected: Verdict) -> None:
    """Nothing has been seen before, so id, time or state decide."""
    assert verdict(target, now) is expected


@pytest.mark.parametrize(
    ("images", "digest", "ours"),
    [
        ((f"registry:5000/app@{DIGEST}",), DIGEST, True),
        ((f"registry:5000/app@{DIGEST}",), "", False),
        ((f"registry:5000/app@{OTHER_DIGEST}",), DIGEST, False),
        ((f"registry:5000/app:v2@{DIGEST}",), "", True),
        ((f"registry:5000/app:v1@{DIGEST}",), DIGEST, True),
        ((f"registry:5000/app@{OTHER_DIGEST}", PINNED_SIDECAR), DIGEST, False),
        (("registry:5000/app:v1", "registry/sidecar:v2"), "", False),
        (("registry:5000/v2", "registry:5000/app:xv2", "<not an image>"), "", False),
        (("registry:5000/app", "registry:5000/team/app:v2"), "", False),
    ],
)
def test_ours_is_found_only_by_tag_or_digest_of_the_services_own_image(
    images: tuple[str, ...], digest: str, ours: bool
) -> None:
    """Not by a sidecar's image, and not by a digest that was not given."""
    now = service(deployment("", images=images))

    found = verdict(Target("v2", "app", digest=digest), now)

    assert found is (Verdict.SUCCEEDED if ours else Verdict.ABSENT)


def test_a_rollback_to_the_same_version_is_not_taken_for_ours() -> None:
    """Without an id, a newer deployment of the version is followed, but not one that ECS rolled back to."""
    back = service(deployment("v2", id="ecs-svc/back"), events=((LATER, BACK_EVENT),))
    again = service(deployment("v2", id="ecs-svc/again"))

    assert verdict(UNKNOWN, back, seen=NEW) is Verdict.ROLLED_BACK
    assert find(UNKNOWN, again, seen=NEW) == again.primary
    older = deployment("v2", id="ecs-svc/old", status="ACTIVE", state="FAILED")
    twice = service(deployment("v2", id="ecs-svc/back", reason=BACK), older, FAILED_AGAIN)
    assert find(UNKNOWN, twice) == FAILED_AGAIN


def test_the_explanation_has_only_reasons_and_events_since_the_start() -> None:
    """Failures come before other events, and each text only once."""
    now = service(
        deployment("v2", reason="no capacity", failed=3),
        deployment("v1", id="ecs-svc/old", reason="completed long ago"),
        events=(
            (LATER, "has started 2 tasks"),
            (LATER, "was unable to place a task"),
            (LATER, "was unable to place a task"),
            (YESTERDAY, "deployment failed"),
        ),
    )

    assert explain(now, NEW_AT) == "no capacity · 3 tasks failed · (service app) was unable to place a task"
    assert explain(service(OLD, events=((LATER, "steady"), (YESTERDAY, "old"))), 0) == "(service app) steady"
    assert explain(service(deployment("v1", id="ecs-svc/old", reason=BACK)), NEW_AT) == BACK
    assert explain(service(OLD, events=((NEW_AT, "in that moment"),)), NEW_AT) == "(service app) in that moment"
    failures = tuple((LATER, f"failed {number}") for number in range(9))
    assert explain(service(events=failures), 0).count(" · ") == 4


def test_where_the_start_time_is_taken_from() -> None:
    """From ECS's deployment, else from the caller, else from the first event with its id."""
    now = service(OLD, events=((LATER, FAILED_EVENT), (NEW_AT, FAILED_EVENT)))

    assert start(OURS, now, NEW) == NEW_AT
    assert start(Target("v2", "app", since=5.0), now) == 5.0
    assert start(OURS, now) == NEW_AT
    assert start(UNKNOWN, now) == 0.0
    assert start(KNOWN, now, deployment("v2", created=0.0)) == NEW_AT


DEFINITION = {"taskDefinitionArn": "arn:app:1", "containerDefinitions": [{"name": "app", "image": "r.io/app:v2"}]}
BARE = {"id": "ecs-svc/new", "status": "PRIMARY", "taskDefinition": "arn:app:1"}
WHOLE = BARE | {"rolloutState": "FAILED", "rolloutStateReason": "why", "createdAt": NEW_AT} | {
    "desiredCount": 4,
    "runningCount": 3,
    "failedTasks": 2,
}  # fmt: skip
ONE = {"id": "ecs-svc/new", "status": "PRIMARY", "task_definition": "arn:app:1", "images": ("r.io/app:v2",)}
NOTHING = {"state": "", "reason": "", "created": 0.0, "desired": 0, "running": 0, "failed": 0}
ALL = {"state": "FAILED", "reason": "why", "created": NEW_AT, "desired": 4, "running": 3, "failed": 2}
BREAKER = {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True}}}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, Service("app", (), (), breaker=False)),
        ({"deployments": [BARE]}, Service("app", (Deployment(**ONE, **NOTHING),), (), breaker=False)),  # type: ignore[arg-type]
        (
            {"deployments": [WHOLE], "deploymentConfiguration": {}},
            Service("app", (Deployment(**ONE, **ALL),), (), breaker=False),  # type: ignore[arg-type]
        ),
        ({"deploymentConfiguration": {"deploymentCircuitBreaker": {}}}, Service("app", (), (), breaker=False)),
        (
            BREAKER | {"events": [{}, {"message": "a", "createdAt": OLD_AT}, {"message": "b", "createdAt": NEW_AT}]},
            Service("app", (), (Event("b", NEW_AT), Event("a", OLD_AT), Event("", 0.0)), breaker=True),
        ),
    ],
    ids=["nothing", "a deployment", "with all its fields", "no breaker", "unordered events, and a breaker"],
)
def test_a_service_is_parsed_from_what_ecs_returns(
    shown: dict[str, object], expected: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields that ECS leaves out are empty. A deleted service of the same name is ignored."""
    gone = {"status": "INACTIVE", "deployments": [WHOLE, WHOLE]}
    body = json.dumps({"services": [gone, shown], "taskDefinition": DEFINITION}).encode()
    with stand_in(lambda *_: Reply(body, headers={"Content-Type": "application/x-amz-json-1.1"})) as aws:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        assert observe(settings.environment("dev"), "app") == expected
    assert json.loads(aws.requests[0]["body"]) == {"cluster": "dev-mint-app", "services": ["app"]}
    assert all(json.loads(r["body"]) == {"taskDefinition": "arn:app:1"} for r in aws.requests[1:])


def test_a_deleted_service_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """ECS still describes it for a while."""
    with stand_in(lambda *_: Reply(b'{"services": [{"status": "INACTIVE"}]}')) as aws:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        with pytest.raises(DeployError, match="There is no service app in the cluster dev-mint-app"):
            observe(settings.environment("dev"), "app")
