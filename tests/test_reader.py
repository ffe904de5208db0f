"""Reading a service from ECS: over real HTTP, from a stand-in that answers as AWS documents it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from scripts.ecs import reader, reasons
from scripts.ecs.reader import Reader, steadily
from scripts.ecs.rollout import TOGETHER, Before, Container, Deployment, Event, Record, Service, Task, Verdict, verdict
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_rollout import DIGEST, NEW_AT, OLD_AT, STARTED, Time

JSON = {"Content-Type": "application/x-amz-json-1.1"}
ARN = "arn:aws:ecs:us-west-2:1"
DEFINITION = {
    "taskDefinitionArn": f"{ARN}:task-definition/app:2",
    "containerDefinitions": [{"name": "app", "image": "r.io/app:v2"}],
}
BARE = {"id": "ecs-svc/7", "status": "PRIMARY", "taskDefinition": DEFINITION["taskDefinitionArn"]}
WHOLE = BARE | {"rolloutState": "FAILED", "rolloutStateReason": "why", "createdAt": NEW_AT} | {
    "desiredCount": 4,
    "runningCount": 3,
    "pendingCount": 1,
    "failedTasks": 2,
}  # fmt: skip
ONE: dict[str, Any] = {"id": "ecs-svc/7", "status": "PRIMARY", "images": ("r.io/app:v2",)}
ONE["task_definition"] = DEFINITION["taskDefinitionArn"]
NOTHING = {"state": "", "reason": "", "created": 0.0, "desired": 0, "running": 0, "failed": 0}
ALL = {"state": "FAILED", "reason": "why", "created": NEW_AT, "desired": 4, "running": 3, "failed": 2, "pending": 1}
BREAKER = {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True}}}
CANARY = {
    "strategy": "CANARY",
    "bakeTimeInMinutes": 10,
    "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 5},
}
SMALLEST = {"stepPercent": 1.0}
LINEAR: dict[str, Any] = {
    "strategy": "LINEAR",
    "bakeTimeInMinutes": 10,
    "linearConfiguration": {"stepPercent": 25.0, "stepBakeTimeInMinutes": 2},
}


def error(code: str) -> Reply:
    """An error as ECS reports it."""
    return Reply(json.dumps({"__type": code, "message": "not now"}).encode(), 400, JSON)


@contextmanager
def ecs(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> Iterator[tuple[Reader, StandIn]]:
    """A reader of the service app, and what AWS answers: operation -> body, reply, or a function of the request."""

    def answer(*_: str) -> Reply:
        request = aws.requests[-1]
        name = request["headers"]["X-Amz-Target"].rpartition(".")[2]
        found = answers.get(name, DENIED)
        found = found(json.loads(request["body"])) if isinstance(found, Callable) else found  # type: ignore[arg-type]
        return found if isinstance(found, Reply) else Reply(json.dumps(found).encode(), headers=JSON)

    with stand_in(answer) as aws:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        yield Reader(settings.environment("dev"), "app"), aws


def operations(aws: StandIn) -> list[str]:
    """What AWS was asked, in order."""
    return [request["headers"]["X-Amz-Target"].rpartition(".")[2] for request in aws.requests]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, Service("app", (), (), breaker=False)),
        ({"deployments": [BARE]}, Service("app", (Deployment(**ONE, **NOTHING),), (), breaker=False)),
        (
            {"deployments": [WHOLE], "deploymentConfiguration": {}},
            Service("app", (Deployment(**ONE, **ALL),), (), breaker=False),
        ),
        (
            BREAKER
            | {"events": [{}, {"message": "a", "createdAt": OLD_AT}, {"message": "b", "createdAt": NEW_AT, "id": "1"}]},
            Service("app", (), (Event("b", NEW_AT, "1"), Event("a", OLD_AT), Event("", 0.0)), breaker=True),
        ),
        (
            {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}},
            Service("app", (), (), breaker=True, takes_back=True),
        ),
        (
            {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": False, "rollback": True}}},
            Service("app", (), (), breaker=False),
        ),
        ({"status": "DRAINING"}, Service("app", (), (), breaker=False, status="DRAINING")),
        # Neither has deployments; a service of the controller EXTERNAL has no task definition either.
        (
            {"deploymentController": {"type": "EXTERNAL"}, "taskSets": [{"id": "ecs-svc/1"}]},
            Service("app", (), (), breaker=False, controller="EXTERNAL"),
        ),
        ({"deploymentConfiguration": CANARY}, Service("app", (), (), False, strategy="CANARY", bake=15.0)),
        ({"deploymentConfiguration": LINEAR}, Service("app", (), (), False, strategy="LINEAR", bake=18.0)),
        (
            {"deploymentConfiguration": LINEAR | {"linearConfiguration": {"stepBakeTimeInMinutes": 2}}},
            Service("app", (), (), False, strategy="LINEAR", bake=12.0),
        ),
        (
            {"deploymentConfiguration": LINEAR | {"linearConfiguration": LINEAR["linearConfiguration"] | SMALLEST}},
            Service("app", (), (), False, strategy="LINEAR", bake=210.0),
        ),
        # ECS names a task definition by its ARN, whatever the request did.
        (
            {"deployments": [BARE | {"taskDefinition": "app:2"}]},
            Service("app", (Deployment(**ONE, **NOTHING),), (), breaker=False),
        ),
    ],
)
def test_a_service_is_read_with_whatever_ecs_tells_of_it(
    shown: dict[str, object], expected: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted under the name is another one; what ECS leaves out is empty."""
    gone = {"status": "INACTIVE", "deployments": [WHOLE, WHOLE]}
    answers = {
        "DescribeServices": {"services": [gone, shown]},
        "DescribeTaskDefinition": {"taskDefinition": DEFINITION},
    }
    with ecs(monkeypatch, answers) as (found, aws):
        assert found.look() == expected
        assert found.look() == expected
    assert json.loads(aws.requests[0]["body"]) == {"cluster": "dev-mint-app", "services": ["app"]}
    # A task definition never changes.
    assert operations(aws).count("DescribeTaskDefinition") == bool(expected.deployments)


@pytest.mark.parametrize(
    "answer",
    [{"services": [{"status": "INACTIVE"}]}, {"services": [], "failures": [{"reason": "MISSING"}]}],
    ids=["inactive", "missing"],
)
def test_a_service_that_was_deleted_is_not_there(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """ECS goes on showing it for a while. While it is watched, there is nothing left to verify."""
    with ecs(monkeypatch, {"DescribeServices": answer}) as (found, _):
        with pytest.raises(Refused, match="There is no service app in the cluster dev-mint-app"):
            found.look()
        now = found.look(STARTED)
        assert now == Service("app", (), (), breaker=False, status="INACTIVE")
        assert verdict(STARTED, now) is Verdict.NOTHING


def test_an_answer_without_the_service_is_no_sign_that_it_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from it, also while a deployment is watched."""
    with ecs(monkeypatch, {"DescribeServices": {}}) as (found, _):
        for before in (None, STARTED):
            with pytest.raises(DeployError, match="says nothing of the service app") as error:
                found.look(before)
            assert not isinstance(error.value, Refused)


def test_a_read_whose_response_is_lost_is_a_plain_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has started nothing, so that nothing is unknown after it."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with ecs(monkeypatch, {"DescribeServices": Reply(b"", drop=True)}) as (found, _):
        with pytest.raises(DeployError) as error:
            found.look()
        assert type(error.value) is DeployError


TASK = {
    "taskArn": f"{ARN}:task/dev/t1",
    "taskDefinitionArn": f"{ARN}:task-definition/app:2",
    "startedBy": "ecs-svc/7",
    "lastStatus": "STOPPED",
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
    "stoppedAt": NEW_AT,
    "containers": [{"name": "app", "image": "r.io/app:v2", "imageDigest": DIGEST, "exitCode": 1, "reason": "why"}, {}],
}


def test_tasks_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """DescribeTasks takes a hundred at a time. A task that only starts does not run yet."""
    wanted = []

    def list_tasks(given: dict[str, Any]) -> dict[str, Any]:
        assert given["serviceName"] == "app"
        wanted.append(given["desiredStatus"])
        arns = [f"t{n}" for n in range(60)]
        return {"taskArns": arns, **({} if given.get("nextToken") else {"nextToken": "2"})}

    def describe(given: dict[str, Any]) -> dict[str, Any]:
        assert given["cluster"] == "dev-mint-app"
        assert len(given["tasks"]) in (100, 20)
        return {"tasks": [TASK, TASK | {"lastStatus": "RUNNING"}, TASK | {"lastStatus": "PENDING"}]}

    with ecs(monkeypatch, {"ListTasks": list_tasks, "DescribeTasks": describe}) as (found, _):
        running, stopped = found.running(), found.stopped()

    assert wanted == ["RUNNING", "RUNNING", "STOPPED", "STOPPED"]
    containers = (Container("app", "r.io/app:v2", DIGEST, 1, "why"), Container(""))
    expected = Task(
        "t1",
        f"{ARN}:task-definition/app:2",
        "ecs-svc/7",
        "STOPPED",
        "EssentialContainerExited",
        "Essential container in task exited",
        containers,
        NEW_AT,
    )
    assert stopped[0] == expected
    assert len(stopped) == 6
    assert running is not None
    assert [task.status for task in running] == ["RUNNING"] * 2


def brief(name: str, revision: str, created: float) -> dict[str, Any]:
    """A service deployment as ListServiceDeployments shows it."""
    arn = f"{ARN}:service-deployment/dev/app/{name}"
    return {
        "serviceDeploymentArn": arn,
        "targetServiceRevisionArn": f"{ARN}:service-revision/dev/app/{revision}",
        "createdAt": created,
    }


def described(given: dict[str, Any]) -> dict[str, Any]:
    """The service deployments that are asked for, each with all that ECS may say of it."""
    return {
        "serviceDeployments": [
            {
                "serviceDeploymentArn": arn,
                "targetServiceRevision": {
                    "arn": f"{ARN}:service-revision/dev/app/1",
                    "requestedProductionTrafficWeight": 10.0,
                },
                "status": "ROLLBACK_IN_PROGRESS",
                "statusReason": "why",
                "lifecycleStage": "POST_TEST_TRAFFIC_SHIFT",
                "lifecycleHookDetails": [
                    {"hookId": "a", "status": "SUCCEEDED"},
                    {"hookId": "b", "targetType": "PAUSE", "status": "AWAITING_ACTION"},
                ],
                "rollback": {"reason": "because"},
                "deploymentCircuitBreaker": {"failureCount": 2, "threshold": 3},
                "alarms": {"triggeredAlarmNames": ["5xx"]},
                "createdAt": NEW_AT,
            }
            for arn in given["serviceDeploymentArns"]
        ]
    }


def revisions(given: dict[str, Any]) -> dict[str, Any]:
    """Revision 9 is of another task definition. ECS takes twenty at a time."""
    assert len(given["serviceRevisionArns"]) <= 20
    return {
        "serviceRevisions": [
            {"serviceRevisionArn": arn, "taskDefinition": f"{ARN}:task-definition/app:{9 if arn[-1] == '9' else 2}"}
            for arn in given["serviceRevisionArns"]
        ]
    }


# The task definition that runs is deployed again, and ECS does not list that deployment yet.
THEN = Service("app", (Deployment(**ONE, **ALL),), (), breaker=False)
AGAIN = Before("v2", "app", id="ecs-svc/8", task_definition=DEFINITION["taskDefinitionArn"], service=THEN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "listed", "expected"),
    [
        (Before("v2", "app", id="ecs-svc/7"), [brief("a", "1", NEW_AT), brief("b", "7", OLD_AT)], "b"),
        (Before("v2", "app", id="ecs-svc/7"), [brief("a", "1", NEW_AT - 90), brief("b", "2", NEW_AT)], "b"),
        (Before("v2", "app", id="ecs-svc/7"), [brief("a", "9", NEW_AT)], ""),
        (Before("v2", "app"), [brief("a", "1", OLD_AT), brief("b", "9", NEW_AT)], "a"),
        (Before("v3", "app"), [brief("a", "1", NEW_AT), brief("b", "2", OLD_AT)], ""),
        (Before("v2", "app"), [], ""),
        (AGAIN, [brief("a", "1", OLD_AT), brief("b", "2", NEW_AT + 1)], ""),
        (AGAIN, [brief("a", "1", NEW_AT + 1), brief("b", "2", NEW_AT + 90)], "b"),
        (AGAIN, [brief("a", "1", NEW_AT + TOGETHER)], "a"),
    ],
    ids=[
        "its number",
        "of two, the one that began with it",
        "another's",
        "its task definition",
        "no image",
        "none",
        "an earlier one",
        "ours",
        "ours at once",
    ],
)
def test_the_record_is_that_of_the_deployment(
    before: Before, listed: list[dict[str, Any]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its revision, else by its task definition and time, never by being the newest."""
    pages = [{"serviceDeployments": listed[:1], "nextToken": "2"}, {"serviceDeployments": listed[1:]}]
    answers = {
        "DescribeServices": {"services": [{"deployments": [WHOLE]}]},
        "DescribeTaskDefinition": {"taskDefinition": DEFINITION},
        "ListServiceDeployments": lambda given: pages[1 if "nextToken" in given else 0],
        "DescribeServiceDeployments": described,
        "DescribeServiceRevisions": revisions,
    }
    with ecs(monkeypatch, answers) as (found, _):
        record = found.look(before).record

    assert (record.arn.rpartition("/")[2] if record else "") == expected
    if record:
        assert record == Record(
            arn=record.arn,
            status="ROLLBACK_IN_PROGRESS",
            task_definition=f"{ARN}:task-definition/app:2",
            reason="why",
            rollback_reason="because",
            stage="POST_TEST_TRAFFIC_SHIFT",
            traffic=10.0,
            hook="b",
            failures=2,
            threshold=3,
            alarms=("5xx",),
            created=NEW_AT,
        )


@pytest.mark.parametrize(
    ("before", "listed", "expected"),
    [
        (Before("v2", "app"), [brief("a", "1", OLD_AT), brief("b", "2", NEW_AT), brief("c", "9", NEW_AT + 1)], "b"),
        (Before("v2", "app"), [brief("b", "2", NEW_AT), brief("a", "1", OLD_AT)], "b"),
        (Before("v1", "app"), [brief("a", "1", OLD_AT), brief("b", "2", NEW_AT), brief("c", "9", OLD_AT)], "c"),
        (Before("v3", "app"), [brief("a", "1", OLD_AT), brief("c", "9", NEW_AT)], ""),
        (Before("v2", "app", id="ecs-svc/8"), [brief("a", "1", OLD_AT)], ""),
        (Before("v2", "app"), [], ""),
    ],
    ids=[
        "the newest with its image",
        "in any order",
        "another's image",
        "nobody's",
        "of an id that is not there",
        "none",
    ],
)
def test_a_deployment_that_ecs_does_not_show_has_the_newest_record_with_its_image(
    before: Before, listed: list[dict[str, Any]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its id is known: then a record without it is another's."""

    images = {"app:2": "r.io/app:v2", "app:9": "r.io/app:v1"}

    def definition(taskDefinition: str) -> dict[str, Any]:  # noqa: N803 - as boto3 names it
        image = images[taskDefinition.rpartition("/")[2]]
        return {"taskDefinition": {"containerDefinitions": [{"image": image}]}}

    client = SimpleNamespace(
        describe_task_definition=definition, describe_service_revisions=lambda **given: revisions(given)
    )
    monkeypatch.setattr(reader.aws, "client", lambda *_: client)
    briefs = [one | {"createdAt": datetime.fromtimestamp(one["createdAt"], UTC)} for one in listed]

    found = Reader(settings.environment("dev"), "app")._by_definition(before, None, briefs)

    assert found.rpartition("/")[2] == expected


# It stands for the time of the test.
NOW = -1.0


@pytest.mark.parametrize(
    ("before", "deployments", "since"),
    [
        (Before("v2", "app", id="ecs-svc/7"), [WHOLE], NEW_AT),
        (Before("v3", "app"), [WHOLE, BARE | {"createdAt": 1_700_000_000}], 1_700_000_000 - 3600),
        (Before("v3", "app"), [], NOW),
    ],
    ids=["when it began", "an hour before the newest", "an hour ago"],
)
def test_records_are_read_since_the_deployment_can_have_started(
    before: Before, deployments: list[dict[str, Any]], since: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is not known when, those of the last hour before the newest deployment; all of their revisions, once."""
    listed = [brief("a", f"{number}9", NEW_AT) for number in range(30)]
    del listed[7]["targetServiceRevisionArn"]
    answers = {
        "DescribeServices": {"services": [{"deployments": deployments}]},
        "DescribeTaskDefinition": {"taskDefinition": DEFINITION},
        "ListServiceDeployments": {"serviceDeployments": listed},
        "DescribeServiceRevisions": revisions,
    }
    with ecs(monkeypatch, answers) as (found, aws):
        for _ in range(2):
            assert found.look(before).record is None

    asked = [(name, json.loads(request["body"])) for name, request in zip(operations(aws), aws.requests, strict=True)]
    after = next(given["createdAt"]["after"] for name, given in asked if name == "ListServiceDeployments")
    if since == NOW:
        assert abs(datetime.now(UTC).timestamp() - 3600 - TOGETHER - after) < 60
    else:
        assert after == max(0.0, since - TOGETHER)
    arns = [arn for name, given in asked if name == "DescribeServiceRevisions" for arn in given["serviceRevisionArns"]]
    assert arns == [one["targetServiceRevisionArn"] for one in listed if "targetServiceRevisionArn" in one]


def test_a_list_of_records_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After twenty further pages."""
    with ecs(monkeypatch, {"ListServiceDeployments": {"serviceDeployments": [], "nextToken": "2"}}) as (found, aws):
        assert found.succeeded(OLD_AT) == ()

    assert operations(aws) == ["ListServiceDeployments"] * 21


RECORD = {"serviceDeploymentArn": "arn", "status": "IN_PROGRESS"}


@pytest.mark.parametrize(
    ("hooks", "waits_for"),
    [
        ([], ""),
        ([{"hookId": "h", "status": "SUCCEEDED"}], ""),
        ([{"hookId": "h", "status": "IN_PROGRESS", "targetType": "AWS_LAMBDA", "targetArn": "arn:f"}], "arn:f"),
        ([{"hookId": "h", "status": "AWAITING_ACTION", "targetType": "PAUSE"}], "h"),
        ([{"targetType": "PAUSE", "status": "AWAITING_ACTION"}], "PAUSE"),
        ([{"status": "IN_PROGRESS"}], ""),
        ([{"hookId": "a", "status": "IN_PROGRESS"}, {"hookId": "b", "status": "IN_PROGRESS"}], "a"),
    ],
    ids=["none", "one that is over", "a function", "a pause", "a pause without a name", "no name", "two"],
)
def test_a_record_names_the_hook_that_it_waits_for(hooks: list[dict[str, str]], waits_for: str) -> None:
    """By its target, else its name, else its kind. What ECS leaves out is empty."""
    found = reader.record({**RECORD, "lifecycleHookDetails": hooks}, "app:2")

    assert found == Record("arn", "IN_PROGRESS", "app:2", hook=waits_for)
    assert (found.failures, found.threshold) == (0, 0)


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnknownOperationException", "InvalidAction"])
def test_a_right_that_is_missing_is_said_once_and_the_rest_goes_on(
    code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also an operation that this ECS does not have. What was read before is not left out for a denial."""
    answers: dict[str, Any] = {
        "DescribeServices": {"services": [{"deployments": [BARE]}]},
        "ListServiceDeployments": error(code),
        "DescribeTaskDefinition": error(code),
        "ListTasks": error(code),
    }
    with ecs(monkeypatch, answers) as (found, aws):
        for _ in range(3):
            now = found.look(Before("v2", "app", id="ecs-svc/7"))
        assert (now.record, now.deployments[0].task_definition, now.deployments[0].images) == (
            None,
            BARE["taskDefinition"],
            (),
        )
        assert (found.running(), found.stopped()) == (None, ())
        assert operations(aws).count("ListServiceDeployments") == 1
        said = capsys.readouterr().err
        assert said.count("app is judged without") == 3

        answers["ListTasks"] = {"taskArns": ["arn:task/1"]}
        answers["DescribeTasks"] = {"tasks": [{"taskArn": "arn:task/1", "lastStatus": "RUNNING"}]}
        for _ in range(9):  # The tenth was the read of the stopped ones.
            assert found.running() is None
        assert operations(aws).count("ListTasks") == 1
        assert [task.status for task in found.running() or ()] == ["RUNNING"]
        answers["ListTasks"] = error(code)
        with pytest.raises(DeployError):
            found.running()


def test_tasks_that_may_be_listed_but_not_described_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list without a task does not show that tasks may be read."""

    def list_tasks(given: dict[str, Any]) -> dict[str, Any]:
        return {"taskArns": ["t1"] if given["desiredStatus"] == "RUNNING" else []}

    with ecs(monkeypatch, {"ListTasks": list_tasks, "DescribeTasks": DENIED}) as (found, _):
        assert found.stopped() == ()
        assert found.running() is None

    assert capsys.readouterr().err.count("app is judged without its tasks") == 1


@pytest.mark.parametrize(
    ("failures", "tries"),
    [
        ([], 1),
        ([DeployError("throttled")] * 3, 4),
        ([DeployError("throttled")] * 4, 4),
        ([Refused("no credentials")], 1),
    ],
)
def test_a_read_that_a_decision_depends_on_is_repeated(failures: list[DeployError], tries: int) -> None:
    """With growing pauses; what no repetition helps is not."""
    left, time, done = list(failures), Time(), []

    def read() -> str:
        done.append(time.time)
        if left:
            raise left.pop(0)
        return "it"

    if len(failures) < tries:
        assert steadily(read, clock=time.clock) == "it"
    else:
        with pytest.raises(DeployError):
            steadily(read, clock=time.clock)
    assert done == [0.0, 0.5, 1.5, 3.5][:tries]


def test_the_images_of_an_index_are_variants_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may run one of them; anything else has none."""
    index = json.dumps({"manifests": [{"digest": DIGEST}]})
    answers: dict[str, Any] = {"BatchGetImage": {"images": [{"imageManifest": index}]}}
    with ecs(monkeypatch, answers) as (found, aws):
        assert found.variants("app", "sha256:b") == {DIGEST}
        assert json.loads(aws.requests[-1]["body"])["imageIds"] == [{"imageDigest": "sha256:b"}]
        answers["BatchGetImage"] = {"images": [{"imageManifest": "{}"}]}
        assert found.variants("app", "sha256:b") == frozenset()
        del answers["BatchGetImage"]
        assert found.variants("app", "sha256:b") == frozenset()


@pytest.mark.parametrize(
    ("now", "definition", "expected"),
    [
        (replace(THEN, deployments=()), {"taskDefinition": DEFINITION}, {}),
        (THEN, {"taskDefinition": DEFINITION}, DEFINITION),
        (
            replace(THEN, deployments=(), record=Record("arn", "FAILED", DEFINITION["taskDefinitionArn"])),  # type: ignore[arg-type]
            {"taskDefinition": DEFINITION},
            DEFINITION,
        ),
        (THEN, error("ServerException"), {}),
        (THEN, DENIED, {}),
    ],
    ids=["nothing is known", "its deployment", "its record", "cannot be read", "may not be read"],
)
def test_why_a_deployment_failed_is_read_from_the_log_of_its_task_definition(
    now: Service, definition: Any, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, the reasons are those of ECS alone."""
    before, why = Before("v2", "app", id="ecs-svc/7"), reasons.Reasons(("why",))
    collected: list[Any] = []
    monkeypatch.setattr(reasons, "collect", lambda *words: collected.extend(words) or why)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with ecs(monkeypatch, {"DescribeTaskDefinition": definition}) as (found, _):
        assert found.explain(before, now) is why

    assert collected == [settings.environment("dev"), before, now, expected]


def test_a_deployment_is_stopped_with_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which needs ECS's record of it."""
    answers = {
        "DescribeServices": {"services": [{"deployments": [WHOLE]}]},
        "DescribeTaskDefinition": {"taskDefinition": DEFINITION},
        "ListServiceDeployments": {"serviceDeployments": [brief("a", "7", NEW_AT)]},
        "DescribeServiceDeployments": described,
        "DescribeServiceRevisions": revisions,
        "StopServiceDeployment": {},
    }
    with ecs(monkeypatch, answers) as (found, aws):
        with pytest.raises(DeployError, match="record of the deployment of app cannot be read, so it is not stopped"):
            found.stop()
        found.look(Before("v2", "app", id="ecs-svc/7"))
        found.stop()

        assert json.loads(aws.requests[-1]["body"]) == {
            "serviceDeploymentArn": f"{ARN}:service-deployment/dev/app/a",
            "stopType": "ROLLBACK",
        }
        monkeypatch.setattr("time.sleep", lambda _: None)
        answers["StopServiceDeployment"] = Reply(b"", drop=True)
        with pytest.raises(OutcomeUnknown):
            found.stop()


def test_what_ecs_calls_successful_is_what_ran_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first, with the images; none without the right to the records."""
    status = {"a": "SUCCESSFUL", "b": "SUCCESSFUL", "c": "ROLLBACK_SUCCESSFUL"}
    listed = [brief("a", "1", OLD_AT), brief("b", "2", NEW_AT), brief("c", "2", NEW_AT + 1)]
    answers: dict[str, Any] = {
        "ListServiceDeployments": {
            "serviceDeployments": [one | {"status": status[one["serviceDeploymentArn"][-1]]} for one in listed]
        },
        "DescribeServiceRevisions": revisions,
        "DescribeTaskDefinition": {"taskDefinition": DEFINITION},
    }
    with ecs(monkeypatch, answers) as (found, aws):
        images = DEFINITION["containerDefinitions"][0]["image"]  # type: ignore[index]
        assert found.succeeded(OLD_AT) == ((NEW_AT, (images,)), (OLD_AT, (images,)))
        assert json.loads(aws.requests[0]["body"])["createdAt"] == {"after": OLD_AT}
    with ecs(monkeypatch, {}) as (found, _):
        assert found.succeeded(OLD_AT) == ()
