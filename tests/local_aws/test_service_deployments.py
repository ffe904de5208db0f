"""Service deployments and revisions of the embedded ECS: every strategy, by a simulated clock, in the shapes of AWS."""

import json
import urllib.request
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local_aws.cloud import Clock
from local_aws.deployments import DRAIN, HOOK, REQUESTED, RETRY, ROLLBACK, SHIFT, START, Stage, stages, threshold
from tests.conftest import EmbeddedCloud
from tests.local_aws.test_ecs import CLUSTER, SERVICE, deploy, described, push

MODEL = botocore.session.get_session().get_service_model("ecs")
KINDS = {"string": str, "boolean": bool, "integer": int, "long": int, "double": (int, float), "timestamp": (int, float)}
PAUSE = {"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}
BLUE_GREEN = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5}


@pytest.fixture(autouse=True)
def stopped_clock(cloud: EmbeddedCloud) -> None:
    """Time passes only when a test advances it."""
    cloud.stop_clock()


def ask(cloud: EmbeddedCloud, operation: str, **given: Any) -> dict[str, Any]:
    """The answer of an operation as it is sent: boto3 would drop what is not in its model."""
    headers = {"X-Amz-Target": f"AmazonEC2ContainerServiceV20141113.{operation}"}
    request = urllib.request.Request(cloud.url, json.dumps({"cluster": CLUSTER, **given}).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def faults(shape: Shape, value: Any, where: str) -> list[str]:
    """What is not as the service model says: unknown members, other types, values that are not in an enumeration."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{where} is no structure"]
        unknown = [f"{where}.{name} is unknown" for name in value.keys() - shape.members.keys()]
        known = value.keys() & shape.members.keys()
        return unknown + [one for key in known for one in faults(shape.members[key], value[key], f"{where}.{key}")]
    if isinstance(shape, ListShape):
        return [one for item in value for one in faults(shape.member, item, f"{where}[]")]
    if isinstance(shape, MapShape):
        return [one for item in value.values() for one in faults(shape.value, item, f"{where}{{}}")]
    if not isinstance(value, KINDS[shape.type_name]) or (isinstance(value, bool) and shape.type_name != "boolean"):
        return [f"{where} is {value!r}, not a {shape.type_name}"]
    allowed = getattr(shape, "enum", [])
    return [f"{where} is {value!r}, not one of {allowed}"] if allowed and value not in allowed else []


def change(cloud: EmbeddedCloud) -> dict[str, Any]:
    """The newest service deployment, described."""
    newest = ask(cloud, "ListServiceDeployments", service=SERVICE)["serviceDeployments"][0]
    arns = [newest["serviceDeploymentArn"]]
    (found,) = ask(cloud, "DescribeServiceDeployments", serviceDeploymentArns=arns)["serviceDeployments"]
    return dict(found)


def begin(cloud: EmbeddedCloud, tag: str = "v1", **configuration: Any) -> str:
    """Start a rollout with a configuration. Returns the id of its deployment."""
    old = described(cloud)["deploymentConfiguration"]
    ask(cloud, "UpdateService", service=SERVICE, deploymentConfiguration={**old, **configuration})
    push(cloud, "v1")
    return str(deploy(cloud, f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:{tag}")["deployments"][0]["id"])


def everything(cloud: EmbeddedCloud) -> list[tuple[str, dict[str, Any]]]:
    """Each operation that shows a service, its changes or its tasks, and its answer."""
    service = ask(cloud, "DescribeServices", services=[SERVICE])
    changes = ask(cloud, "ListServiceDeployments", service=SERVICE)
    arns = [one["serviceDeploymentArn"] for one in changes["serviceDeployments"]]
    revisions = [one["targetServiceRevisionArn"] for one in changes["serviceDeployments"]]
    listed = [ask(cloud, "ListTasks", serviceName=SERVICE, desiredStatus=status) for status in ("RUNNING", "STOPPED")]
    names = [arn for answer in listed for arn in answer["taskArns"]]
    return [
        ("DescribeServices", service),
        ("ListServiceDeployments", changes),
        ("DescribeServiceDeployments", ask(cloud, "DescribeServiceDeployments", serviceDeploymentArns=arns)),
        ("DescribeServiceRevisions", ask(cloud, "DescribeServiceRevisions", serviceRevisionArns=revisions)),
        *(("ListTasks", answer) for answer in listed),
        ("DescribeTasks", ask(cloud, "DescribeTasks", tasks=names)),
    ]


@pytest.mark.parametrize(
    ("tag", "configuration"),
    [
        ("v1", {}),
        ("absent", {}),
        ("v1", {**BLUE_GREEN, "lifecycleHooks": [PAUSE]}),
        ("v1", {"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 1}}),
    ],
    ids=["a rollout", "a rollback", "blue/green with a pause", "canary"],
)
def test_every_answer_is_of_the_shape_of_the_service_model(
    cloud: EmbeddedCloud, tag: str, configuration: dict[str, Any]
) -> None:
    """At every moment of a rollout, in what UpdateService answers too."""
    begin(cloud, tag, **configuration)
    seen = [("UpdateService", ask(cloud, "UpdateService", service=SERVICE))]
    for _ in range(6):
        seen += everything(cloud)
        cloud.advance(RETRY + 0.01)

    wrong = {fault for name, answer in seen for fault in faults(MODEL.operation_model(name).output_shape, answer, name)}
    assert wrong == set()
    assert all(answer.get("failures", []) == [] for _, answer in seen)


def test_the_checks_find_what_is_wrong() -> None:
    """Unknown members, other types and other values are seen."""
    shape = MODEL.operation_model("DescribeServices").output_shape
    answer = {"services": [{"status": 1, "launchType": "MOON", "made": "up", "events": [{"createdAt": "now"}]}]}

    assert sorted(faults(shape, answer, "")) == [
        ".services[].events[].createdAt is 'now', not a timestamp",
        ".services[].launchType is 'MOON', not one of ['EC2', 'FARGATE', 'EXTERNAL', 'MANAGED_INSTANCES']",
        ".services[].made is unknown",
        ".services[].status is 1, not a string",
    ]


def test_a_change_is_pending_in_progress_and_successful(cloud: EmbeddedCloud) -> None:
    """It leads from the source revision to the target, whose task definition is the new one."""
    ours = begin(cloud)
    service = described(cloud)
    assert change(cloud)["status"] == "PENDING"
    assert service["currentServiceDeployment"] == change(cloud)["serviceDeploymentArn"]

    cloud.advance(START + 0.01)
    begun = change(cloud)
    assert (begun["status"], begun["targetServiceRevision"]["runningTaskCount"]) == ("IN_PROGRESS", 2)
    assert "finishedAt" not in begun
    cloud.advance(DRAIN + 0.01)
    assert change(cloud)["status"] == "SUCCESSFUL"
    assert change(cloud)["finishedAt"] > begun["startedAt"] > begun["createdAt"]

    arn = begun["targetServiceRevision"]["arn"]
    (revision,) = ask(cloud, "DescribeServiceRevisions", serviceRevisionArns=[arn])["serviceRevisions"]
    primary = described(cloud)["deployments"][0]
    assert (primary["id"], primary["taskDefinition"]) == (ours, revision["taskDefinition"])
    (task, _) = tasks(cloud, desiredStatus="RUNNING")
    assert revision["containerImages"][0]["imageDigest"] == task["containers"][0]["imageDigest"]


def tasks(cloud: EmbeddedCloud, **given: Any) -> list[dict[str, Any]]:
    """Tasks that ListTasks lists, described, the oldest first."""
    arns = ask(cloud, "ListTasks", **{"serviceName": SERVICE, **given})["taskArns"]
    found: list[dict[str, Any]] = ask(cloud, "DescribeTasks", tasks=arns)["tasks"]
    return found


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({}, [("SCALE_UP", START, None), ("CLEAN_UP", DRAIN, None)]),
        (
            {"earlySuccessCriteria": {"enable": True, "sourceServiceRevisionCleanup": "DEFERRED"}},
            [("SCALE_UP", START, None)],
        ),
        (
            {"earlySuccessCriteria": {"enable": True, "sourceServiceRevisionCleanup": "BLOCKING"}},
            [("SCALE_UP", START, None), ("CLEAN_UP", DRAIN, None)],
        ),
        ({"bakeTimeInMinutes": 2}, [("SCALE_UP", START, None), ("BAKE_TIME", 120, None), ("CLEAN_UP", DRAIN, None)]),
        (
            {"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 40.0, "stepBakeTimeInMinutes": 1}},
            [
                ("PRODUCTION_TRAFFIC_SHIFT", SHIFT + 60, 40),
                ("PRODUCTION_TRAFFIC_SHIFT", SHIFT + 60, 80),
                ("PRODUCTION_TRAFFIC_SHIFT", SHIFT, 100),
            ],
        ),
        (
            {"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 5.0, "canaryBakeTimeInMinutes": 3}},
            [("PRODUCTION_TRAFFIC_SHIFT", SHIFT + 180, 5), ("PRODUCTION_TRAFFIC_SHIFT", SHIFT, 100)],
        ),
        (
            BLUE_GREEN,
            [
                ("RECONCILE_SERVICE", 0, 0),
                ("PRE_SCALE_UP", 0, 0),
                ("SCALE_UP", START, 0),
                ("POST_SCALE_UP", 0, 0),
                ("TEST_TRAFFIC_SHIFT", 0, 0),
                ("POST_TEST_TRAFFIC_SHIFT", 0, 0),
                ("PRE_PRODUCTION_TRAFFIC_SHIFT", 0, 0),
                ("PRODUCTION_TRAFFIC_SHIFT", SHIFT, 100),
                ("POST_PRODUCTION_TRAFFIC_SHIFT", 0, 100),
                ("BAKE_TIME", 300, 100),
                ("CLEAN_UP", DRAIN, 100),
            ],
        ),
    ],
    ids=["rolling", "early success", "early success, cleaned up first", "baking", "linear", "canary", "blue/green"],
)
def test_a_strategy_has_its_stages(configuration: dict[str, Any], expected: list[tuple[str, float, Any]]) -> None:
    """Their names, seconds and share of the traffic; of linear and canary, those in which it shifts."""
    found = stages(configuration)
    if configuration.get("strategy") in ("LINEAR", "CANARY"):
        found = tuple(stage for stage in found if stage.name == "PRODUCTION_TRAFFIC_SHIFT")

    assert found == tuple(Stage(*one) for one in expected)


@pytest.mark.parametrize(
    ("kind", "value", "desired", "expected"),
    [
        ("BOUNDED_PERCENT", 50, 2, 3),
        ("BOUNDED_PERCENT", 50, 10, 5),
        ("BOUNDED_PERCENT", 50, 1000, 200),
        ("UNBOUNDED_PERCENT", 50, 2, 1),
        ("COUNT", 7, 2, 7),
    ],
)
def test_the_circuit_breaker_has_a_threshold(kind: str, value: int, desired: int, expected: int) -> None:
    """As the documentation of ThresholdConfiguration and ServiceDeploymentCircuitBreaker computes it."""
    configuration = {"deploymentCircuitBreaker": {"thresholdConfiguration": {"type": kind, "value": value}}}

    assert threshold(configuration, desired) == expected


def test_early_success_comes_before_all_tasks_have_started_and_the_old_ones_drained(cloud: EmbeddedCloud) -> None:
    """Since September 2026: SUCCESSFUL and COMPLETED, with one task of two, beside two old ones."""
    early = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "DEFERRED"}
    begin(cloud, earlySuccessCriteria=early)

    cloud.advance(START + 0.01)
    assert change(cloud)["status"] == "SUCCESSFUL"
    shown = [(d["status"], d["rolloutState"], d["runningCount"]) for d in described(cloud)["deployments"]]
    assert shown == [("PRIMARY", "COMPLETED", 1), ("ACTIVE", "COMPLETED", 2)]
    cloud.advance(DRAIN + 0.01)
    assert [d["runningCount"] for d in described(cloud)["deployments"]] == [2]


def test_blue_green_shifts_traffic_bakes_and_cleans_up(cloud: EmbeddedCloud) -> None:
    """Both revisions run while it bakes, and all traffic reaches the new one."""
    begin(cloud, **BLUE_GREEN)
    cloud.advance(START / 2)
    assert {cloud.health()["version"] for _ in range(4)} == {"v0"}

    cloud.advance(START + SHIFT)
    baking = change(cloud)
    assert (baking["status"], baking["lifecycleStage"]) == ("IN_PROGRESS", "BAKE_TIME")
    assert baking["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100
    assert [d["runningCount"] for d in described(cloud)["deployments"]] == [2, 2]
    assert {cloud.health()["version"] for _ in range(4)} == {"v1"}

    cloud.advance(300)
    assert change(cloud)["lifecycleStage"] == "CLEAN_UP"
    cloud.advance(DRAIN)
    assert change(cloud)["status"] == "SUCCESSFUL"
    assert len(described(cloud)["deployments"]) == 1


def test_a_canary_gets_its_share_of_the_traffic_first(cloud: EmbeddedCloud) -> None:
    """A quarter of the answers, and after its bake time all."""
    begin(cloud, strategy="CANARY", canaryConfiguration={"canaryPercent": 25.0, "canaryBakeTimeInMinutes": 1})
    cloud.advance(START + SHIFT)

    assert sorted(cloud.health()["version"] for _ in range(8)) == ["v0"] * 6 + ["v1"] * 2
    cloud.advance(60 + SHIFT / 2)
    assert {cloud.health()["version"] for _ in range(8)} == {"v1"}


@pytest.mark.parametrize(
    ("timeout", "action", "seconds", "status", "version"),
    [
        ({}, "CONTINUE", 0, "IN_PROGRESS", "v1"),
        ({}, "ROLLBACK", 0, "ROLLBACK_IN_PROGRESS", "v0"),
        ({"timeoutInMinutes": 10, "action": "CONTINUE"}, "", 101, "IN_PROGRESS", "v1"),
        ({"timeoutInMinutes": 10}, "", 101, "ROLLBACK_IN_PROGRESS", "v0"),
    ],
    ids=["continued", "taken back", "continued by its time-out", "taken back by its time-out"],
)
def test_a_pause_waits_for_somebody(
    cloud: EmbeddedCloud, timeout: dict[str, Any], action: str, seconds: float, status: str, version: str
) -> None:
    """ContinueServiceDeployment resolves it, or its time-out."""
    begin(cloud, **BLUE_GREEN, lifecycleHooks=[{**PAUSE, "timeoutConfiguration": timeout}])
    cloud.advance(500)
    paused = change(cloud)
    (hook,) = paused["lifecycleHookDetails"]
    assert (paused["status"], paused["lifecycleStage"]) == ("IN_PROGRESS", "POST_TEST_TRAFFIC_SHIFT")
    assert (hook["status"], hook["targetType"]) == ("AWAITING_ACTION", "PAUSE")
    assert cloud.health()["version"] == "v0"

    if action:
        arn = paused["serviceDeploymentArn"]
        ask(cloud, "ContinueServiceDeployment", serviceDeploymentArn=arn, hookId=hook["hookId"], action=action)
    cloud.advance(seconds)
    assert change(cloud)["status"] == status
    assert cloud.health()["version"] == version


def test_a_stopped_clock_moves_by_exactly_the_seconds_that_were_asked_for() -> None:
    """What is due then has ended, and is not a rounding error away from it."""
    clock = Clock()
    for number in range(1000):
        clock.stop()
        now = clock.now()
        clock.advance(HOOK)
        assert clock.now() == now + HOOK
        clock.stop(stopped=False)
        clock.advance(0.1 * number)


def test_a_lambda_hook_takes_a_moment(cloud: EmbeddedCloud) -> None:
    """It is not called here: it succeeds."""
    hook = {"hookTargetArn": "arn:aws:lambda:us-west-2:1:function:check", "lifecycleStages": ["PRE_SCALE_UP"]}
    begin(cloud, **BLUE_GREEN, lifecycleHooks=[hook])
    assert change(cloud)["lifecycleHookDetails"][0]["status"] == "IN_PROGRESS"

    cloud.advance(HOOK)
    assert change(cloud)["lifecycleHookDetails"][0]["status"] == "SUCCEEDED"
    assert change(cloud)["lifecycleStage"] == "SCALE_UP"


@pytest.mark.parametrize(
    ("breaker", "ends"),
    [
        ({"enable": True, "rollback": True}, ["ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL"]),
        ({"enable": True, "rollback": False}, ["STOPPED", "STOPPED"]),
        ({"enable": False, "rollback": False}, ["IN_PROGRESS", "IN_PROGRESS"]),
    ],
    ids=["rolls back", "only stops", "is off"],
)
def test_the_circuit_breaker_ends_a_change(cloud: EmbeddedCloud, breaker: dict[str, bool], ends: list[str]) -> None:
    """At the third failed task, with how many it counted and what it went back to."""
    source = change(cloud)["targetServiceRevision"]["arn"]
    begin(cloud, "absent", deploymentCircuitBreaker=breaker)
    cloud.advance(3 * RETRY + 0.01)
    first = change(cloud)
    cloud.advance(ROLLBACK)

    assert [first["status"], change(cloud)["status"]] == ends
    trips = {"status": "TRIGGERED", "failureCount": 3, "threshold": 3}
    off = {"status": "DISABLED", "failureCount": 0, "threshold": 0}
    assert first["deploymentCircuitBreaker"] == (trips if breaker["enable"] else off)
    assert first.get("rollback", {}).get("serviceRevisionArn") == (source if breaker["rollback"] else None)
    assert ("stoppedAt" in first) == (ends[0] == "STOPPED")


def test_a_service_that_never_ran_has_nothing_to_go_back_to(cloud: EmbeddedCloud) -> None:
    """ROLLBACK_FAILED, and the deployment stays PRIMARY."""
    never_ran = "mint-app-db-migrate"
    container = {"name": "app", "image": f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:absent"}
    ask(cloud, "RegisterTaskDefinition", family="absent", containerDefinitions=[container])
    ask(cloud, "UpdateService", service=never_ran, taskDefinition="absent", desiredCount=1)
    cloud.advance(3 * RETRY + 0.01)

    ended = ask(cloud, "ListServiceDeployments", service=never_ran)["serviceDeployments"][0]
    assert ended["status"] == "ROLLBACK_FAILED"
    assert ended["statusReason"] == "No rollback candidate was found to run the rollback."
    (service,) = ask(cloud, "DescribeServices", services=[never_ran])["services"]
    assert [(d["status"], d["rolloutState"]) for d in service["deployments"]] == [("PRIMARY", "FAILED")]


def test_a_change_that_is_stopped_goes_back(cloud: EmbeddedCloud) -> None:
    """StopServiceDeployment asks for it; a second one changes nothing, and one that has ended cannot be stopped."""
    ecs = cloud.client("ecs")
    ours = begin(cloud, deploymentCircuitBreaker={"enable": False, "rollback": False})
    arn = change(cloud)["serviceDeploymentArn"]

    for _ in range(2):
        assert ecs.stop_service_deployment(serviceDeploymentArn=arn)["serviceDeploymentArn"] == arn
        assert change(cloud)["status"] == "ROLLBACK_REQUESTED"
    cloud.advance(REQUESTED)
    assert change(cloud)["status"] == "ROLLBACK_IN_PROGRESS"
    cloud.advance(ROLLBACK)
    assert change(cloud)["status"] == "ROLLBACK_SUCCESSFUL"
    assert [d["id"] == ours for d in described(cloud)["deployments"]] == [False, True]
    assert cloud.health()["version"] == "v0"
    with pytest.raises(ecs.exceptions.ConflictException):
        ecs.stop_service_deployment(serviceDeploymentArn=arn)


def test_a_change_is_stopped_by_the_next_one(cloud: EmbeddedCloud) -> None:
    """Newest first: the second leads from what ran before both."""
    source = change(cloud)["targetServiceRevision"]["arn"]
    begin(cloud)
    deploy(cloud, push(cloud, "v2"))

    listed = ask(cloud, "ListServiceDeployments", service=SERVICE)["serviceDeployments"]
    assert [one["status"] for one in listed] == ["PENDING", "STOPPED", "SUCCESSFUL"]
    assert [one["arn"] for one in change(cloud)["sourceServiceRevisions"]] == [source]


def test_changes_are_listed_by_time_status_and_page(cloud: EmbeddedCloud) -> None:
    """As ListServiceDeployments takes them."""
    ecs = cloud.client("ecs")
    first = change(cloud)["createdAt"]
    cloud.advance(60)
    begin(cloud)

    def listed(**given: Any) -> list[str]:
        found = ecs.list_service_deployments(cluster=CLUSTER, service=SERVICE, **given)["serviceDeployments"]
        return [one["status"] for one in found]

    assert listed() == ["PENDING", "SUCCESSFUL"]
    assert listed(createdAt={"after": first + 30}) == ["PENDING"]
    assert listed(createdAt={"before": first + 30}) == ["SUCCESSFUL"]
    assert listed(status=["SUCCESSFUL"]) == ["SUCCESSFUL"]
    page = ecs.list_service_deployments(cluster=CLUSTER, service=SERVICE, maxResults=1)
    assert [one["status"] for one in page["serviceDeployments"]] == ["PENDING"]
    assert listed(maxResults=1, nextToken=page["nextToken"]) == ["SUCCESSFUL"]


def test_what_is_not_known_is_a_failure_or_an_error(cloud: EmbeddedCloud) -> None:
    """In the words of ECS."""
    ecs = cloud.client("ecs")

    assert ecs.describe_service_deployments(serviceDeploymentArns=["none"])["failures"][0]["reason"] == "MISSING"
    assert ecs.describe_service_revisions(serviceRevisionArns=["none"])["failures"][0]["reason"] == "MISSING"
    with pytest.raises(ecs.exceptions.ServiceDeploymentNotFoundException):
        ecs.stop_service_deployment(serviceDeploymentArn="none")
    with pytest.raises(ClientError, match="maximum of 20"):
        ecs.describe_service_deployments(serviceDeploymentArns=["none"] * 21)
    begin(cloud)
    arn = change(cloud)["serviceDeploymentArn"]
    with pytest.raises(ClientError, match="the valid value is ROLLBACK"):
        ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT")
    with pytest.raises(ClientError, match="does not wait at this hook"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="none")
    with pytest.raises(ClientError, match="does not know ListAttributes"):
        ecs.list_attributes(cluster=CLUSTER, targetType="container-instance")


@pytest.mark.parametrize("kind", ["CODE_DEPLOY", "EXTERNAL"])
def test_another_controller_has_task_sets_and_takes_no_task_definition(cloud: EmbeddedCloud, kind: str) -> None:
    """No deployments and no changes; EXTERNAL has no task definition of the service either."""
    answer = ask(cloud, "UpdateService", service=SERVICE, deploymentController={"type": kind})
    service = answer["service"]

    assert faults(MODEL.operation_model("UpdateService").output_shape, answer, "") == []
    assert (service["deployments"], len(service["taskSets"])) == ([], 1)
    assert ("taskDefinition" in service) == (kind == "CODE_DEPLOY")
    assert ask(cloud, "ListServiceDeployments", service=SERVICE)["serviceDeployments"] == []
    with pytest.raises(ClientError, match=f"with a {kind} deployment controller"):
        cloud.client("ecs").update_service(cluster=CLUSTER, service=SERVICE, taskDefinition="local-mint-app")


def test_more_tasks_take_a_while_and_start_no_deployment(cloud: EmbeddedCloud) -> None:
    """In between a COMPLETED deployment runs fewer than are desired."""
    service = ask(cloud, "UpdateService", service=SERVICE, desiredCount=4)["service"]
    assert (service["desiredCount"], service["runningCount"], len(service["deployments"])) == (4, 2, 1)
    assert service["deployments"][0]["rolloutState"] == "COMPLETED"

    cloud.advance(START)
    assert described(cloud)["runningCount"] == 4


def test_a_deleted_service_drains_and_takes_no_update(cloud: EmbeddedCloud) -> None:
    """DRAINING, and INACTIVE at the end."""
    ecs = cloud.client("ecs")
    with pytest.raises(ClientError, match="while it is scaled above 0"):
        ecs.delete_service(cluster=CLUSTER, service=SERVICE)
    assert ecs.delete_service(cluster=CLUSTER, service=SERVICE, force=True)["service"]["status"] == "DRAINING"
    with pytest.raises(ecs.exceptions.ServiceNotActiveException):
        ecs.update_service(cluster=CLUSTER, service=SERVICE, forceNewDeployment=True)

    cloud.advance(DRAIN)
    assert described(cloud)["status"] == "INACTIVE"


# Tasks


@pytest.mark.parametrize(
    ("name", "code", "exit_code", "reason"),
    [
        ("crash", "EssentialContainerExited", 1, "Essential container in task exited"),
        ("killed", "EssentialContainerExited", 137, "Essential container in task exited"),
        ("segfault", "EssentialContainerExited", 139, "Essential container in task exited"),
        ("pull", "TaskFailedToStart", None, "CannotPullContainerError: "),
        ("secrets", "TaskFailedToStart", None, "ResourceInitializationError: unable to pull secrets"),
        ("unhealthy", "ServiceSchedulerInitiated", 137, "Task failed container health checks"),
        ("unreachable", "ServiceSchedulerInitiated", 143, "Task failed ELB health checks in (target-group "),
    ],
)
def test_a_task_stops_for_what_its_environment_names(
    cloud: EmbeddedCloud, name: str, code: str, exit_code: int | None, reason: str
) -> None:
    """FAULT in the environment of a container: a task of its deployment stops for it every RETRY seconds."""
    fault = [{"name": "FAULT", "value": name}]
    ours = deploy(cloud, push(cloud, "v1"), environment=fault)["deployments"][0]["id"]
    cloud.advance(2 * RETRY + 0.01)

    first, second = tasks(cloud, startedBy=ours, desiredStatus="STOPPED")
    assert (first["stopCode"], first["containers"][0].get("exitCode")) == (code, exit_code)
    assert first["stoppedReason"].startswith(reason)
    assert first["startedBy"] == ours
    assert second["stoppedAt"] - first["stoppedAt"] == pytest.approx(RETRY)
    assert ("startedAt" in first) == ("imageDigest" in first["containers"][0]) == (exit_code is not None)
    cloud.advance(RETRY)
    assert first["taskArn"] in [task["taskArn"] for task in tasks(cloud, startedBy=ours, desiredStatus="STOPPED")]


def test_tasks_that_are_replaced_stop_for_the_deployment_that_replaces_them(cloud: EmbeddedCloud) -> None:
    """And are shown for an hour."""
    before = {task["taskArn"] for task in tasks(cloud)}
    ours = begin(cloud)
    cloud.advance(START + DRAIN + 0.01)

    stopped = tasks(cloud, desiredStatus="STOPPED")
    assert {task["taskArn"] for task in stopped} == before
    assert {task["stoppedReason"] for task in stopped} == {f"Scaling activity initiated by (deployment {ours})"}
    assert {task["stopCode"] for task in stopped} == {"ServiceSchedulerInitiated"}
    cloud.advance(3600)
    assert tasks(cloud, desiredStatus="STOPPED") == []


def test_a_running_task_keeps_the_digest_that_it_pulled(cloud: EmbeddedCloud) -> None:
    """Also when the tag means another image meanwhile."""
    ecr = cloud.client("ecr")
    begin(cloud)
    cloud.advance(START + DRAIN + 0.01)
    pulled = tasks(cloud)[0]["containers"][0]["imageDigest"]
    image = ecr.describe_images(repositoryName="mint-backend", imageIds=[{"imageTag": "v1"}])["imageDetails"][0]
    assert pulled == image["imageDigest"]

    ecr.put_image_tag_mutability(repositoryName="mint-backend", imageTagMutability="MUTABLE")
    ecr.batch_delete_image(repositoryName="mint-backend", imageIds=[{"imageTag": "v1"}])
    cloud.push("v1", "mint-backend")
    assert tasks(cloud)[0]["containers"][0]["imageDigest"] == pulled


def test_what_the_tasks_of_a_service_print_is_in_the_logs(cloud: EmbeddedCloud) -> None:
    """Of one that crashes, its last lines, once; in the stream that is named by its container and its id."""
    deploy(cloud, push(cloud, "v1"), environment=[{"name": "CRASH", "value": "1"}])
    cloud.advance(RETRY + 0.01)
    (task,) = tasks(cloud, desiredStatus="STOPPED")
    stream = f"{SERVICE}/{SERVICE}/{task['taskArn'].rpartition('/')[2]}"
    for _ in range(2):
        events = cloud.client("logs").get_log_events(logGroupName=f"/ecs/{CLUSTER}", logStreamName=stream)["events"]

    assert [event["message"] for event in events][-1] == "exit status 2"
    assert len(events) == 3
