"""The embedded ECS: rollouts that complete, drain, fail and roll back, and tasks, by a simulated clock."""

import re
from typing import Any

import pytest

from local_aws.ecs import DRAIN, KEEP_FAILED, RETRY, START
from tests.conftest import EmbeddedCloud


@pytest.fixture(autouse=True)
def stopped_clock(cloud: EmbeddedCloud) -> None:
    """Time passes only when a test advances it."""
    cloud.stop_clock()


CLUSTER, SERVICE = "local-mint-app", "mint-app"


def push(cloud: EmbeddedCloud, tag: str) -> str:
    """Push an image. Returns its URI."""
    cloud.push(tag, "mint-backend")
    return f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:{tag}"


def deploy(cloud: EmbeddedCloud, image: str, **change: Any) -> dict[str, Any]:
    """Register the service's task definition with another image and update the service, as the manager does."""
    ecs = cloud.client("ecs")
    service = ecs.describe_services(cluster=CLUSTER, services=[SERVICE])["services"][0]
    definition = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    containers = definition["containerDefinitions"]
    containers[0] = {**containers[0], "image": image, **change}
    new = ecs.register_task_definition(family=definition["family"], containerDefinitions=containers)
    arn = new["taskDefinition"]["taskDefinitionArn"]
    updated: dict[str, Any] = ecs.update_service(cluster=CLUSTER, service=SERVICE, taskDefinition=arn)["service"]
    return updated


def described(cloud: EmbeddedCloud) -> dict[str, Any]:
    """The service as ECS describes it."""
    found: dict[str, Any] = cloud.client("ecs").describe_services(cluster=CLUSTER, services=[SERVICE])["services"][0]
    return found


def test_a_rollout_starts_drains_and_completes(cloud: EmbeddedCloud) -> None:
    """While the old tasks drain, old and new ones answer in turn."""
    deploy(cloud, push(cloud, "v1"))
    begun = described(cloud)
    assert [(d["status"], d["rolloutState"], d["runningCount"]) for d in begun["deployments"]] == [
        ("PRIMARY", "IN_PROGRESS", 0),
        ("ACTIVE", "COMPLETED", 2),
    ]
    assert cloud.health()["version"] == "v0"

    cloud.advance(START + 0.01)
    assert {cloud.health()["version"] for _ in range(4)} == {"v0", "v1"}

    cloud.advance(DRAIN + 0.01)
    assert {cloud.health()["version"] for _ in range(4)} == {"v1"}
    events = [re.sub(r"[0-9a-f]{32}|\d{9,}", "…", event["message"]) for event in described(cloud)["events"][:4]]
    assert events == [
        "(service mint-app) has reached a steady state.",
        "(service mint-app) (deployment ecs-svc/…) deployment completed.",
        "(service mint-app) has stopped 2 running tasks: (task …) (task …).",
        "(service mint-app) has started 2 tasks: (task …) (task …).",
    ]
    cloud.client("ecs").get_waiter("services_stable").wait(cluster=CLUSTER, services=[SERVICE])


@pytest.mark.parametrize(
    ("tag", "change"),
    [("absent", {}), ("v1", {"environment": [{"name": "CRASH", "value": "1"}]})],
    ids=["the image does not exist", "the container crashes"],
)
def test_the_circuit_breaker_rolls_back(cloud: EmbeddedCloud, tag: str, change: dict[str, Any]) -> None:
    """After the third failed task. The old version keeps answering; the failed deployment stays listed for a while."""
    push(cloud, "v1")
    deploy(cloud, f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:{tag}", **change)
    cloud.advance(RETRY + 0.01)
    assert described(cloud)["deployments"][0]["failedTasks"] == 1

    cloud.advance(2 * RETRY + 0.01)
    back, failed = described(cloud)["deployments"]
    assert back["rolloutStateReason"].startswith("ECS deployment circuit breaker: rolling back to deploymentId ecs-svc")
    assert (failed["status"], failed["rolloutState"], failed["failedTasks"]) == ("ACTIVE", "FAILED", 3)
    assert cloud.health()["version"] == "v0"

    cloud.advance(1)
    assert described(cloud)["deployments"][0]["rolloutState"] == "COMPLETED"
    cloud.advance(KEEP_FAILED)
    assert len(described(cloud)["deployments"]) == 1


def test_without_a_breaker_a_bad_rollout_never_ends(cloud: EmbeddedCloud) -> None:
    """The old version keeps answering while tasks keep failing."""
    off = {"deploymentCircuitBreaker": {"enable": False, "rollback": False}}
    cloud.client("ecs").update_service(cluster=CLUSTER, service=SERVICE, deploymentConfiguration=off)
    deploy(cloud, f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:absent")
    cloud.advance(3 * RETRY + 0.01)
    cloud.advance(3600)

    primary = described(cloud)["deployments"][0]
    assert (primary["rolloutState"], primary["failedTasks"] > 1000) == ("IN_PROGRESS", True)
    assert cloud.health()["version"] == "v0"


def test_a_task_definition_is_described_as_it_was_registered(cloud: EmbeddedCloud) -> None:
    """With volumes, runtime platform, storage, tags and the sidecar."""
    ecs = cloud.client("ecs")
    arn = described(cloud)["taskDefinition"]

    found = ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])

    definition = found["taskDefinition"]
    assert arn.endswith("task-definition/local-mint-app:1")
    assert definition["volumes"] == [{"name": "scratch"}]
    assert definition["runtimePlatform"]["cpuArchitecture"] == "X86_64"
    assert definition["ephemeralStorage"] == {"sizeInGiB": 30}
    assert found["tags"] == [{"key": "project", "value": "mint-app"}]
    assert [c["name"] for c in definition["containerDefinitions"]] == ["mint-app", "log-router"]


def run(cloud: EmbeddedCloud, **container: Any) -> dict[str, Any]:
    """Run a task with one container until it stops, and describe it."""
    ecs = cloud.client("ecs")
    ecs.register_task_definition(
        family="job", containerDefinitions=[{"name": "job", "image": "public/job:1", "memory": 128, **container}]
    )
    arn = ecs.run_task(cluster=CLUSTER, taskDefinition="job")["tasks"][0]["taskArn"]
    assert ecs.describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"][0]["lastStatus"] == "PENDING"
    cloud.advance(2)
    ecs.get_waiter("tasks_stopped").wait(cluster=CLUSTER, tasks=[arn])
    task: dict[str, Any] = ecs.describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"][0]
    return task


@pytest.mark.parametrize(("variables", "code"), [({}, 0), ({"EXIT_CODE": "7"}, 7), ({"CRASH": "1"}, 1)])
def test_a_task_ends_with_its_containers_exit_code(cloud: EmbeddedCloud, variables: dict[str, str], code: int) -> None:
    """The exit code comes from the container's environment variable EXIT_CODE."""
    given = [{"name": name, "value": value} for name, value in variables.items()]

    task = run(cloud, environment=given)

    assert task["containers"][0]["exitCode"] == code
    assert task["stopCode"] == "EssentialContainerExited"


def test_a_task_whose_image_does_not_exist_never_starts(cloud: EmbeddedCloud) -> None:
    """It has a reason and no exit code."""
    task = run(cloud, image=f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:absent")

    assert task["stopCode"] == "TaskFailedToStart"
    assert "exitCode" not in task["containers"][0]
    assert task["containers"][0]["reason"].startswith("CannotPullContainerError")


def test_the_output_of_a_task_is_in_cloudwatch_logs(cloud: EmbeddedCloud) -> None:
    """In the group and stream of its log configuration."""
    options = {"awslogs-group": "/jobs", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "run"}
    task = run(
        cloud,
        environment=[{"name": "LOG", "value": "one|two"}],
        logConfiguration={"logDriver": "awslogs", "options": options},
    )

    stream = f"run/job/{task['taskArn'].rpartition('/')[2]}"
    events = cloud.client("logs").get_log_events(logGroupName="/jobs", logStreamName=stream)["events"]
    assert [event["message"] for event in events] == ["one", "two"]


def test_the_tasks_of_a_service_are_listed_by_service_family_and_status(cloud: EmbeddedCloud) -> None:
    """Running tasks, and the stopped ones of a failing deployment."""
    ecs = cloud.client("ecs")
    running = ecs.list_tasks(cluster=CLUSTER, serviceName=SERVICE)["taskArns"]
    assert len(running) == 2
    assert ecs.list_tasks(cluster=CLUSTER, family="local-mint-app")["taskArns"] == running
    assert ecs.list_tasks(cluster=CLUSTER, family="other")["taskArns"] == []

    deployment = deploy(cloud, f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:absent")["deployments"][0]["id"]
    cloud.advance(RETRY + 0.01)
    stopped = ecs.list_tasks(cluster=CLUSTER, startedBy=deployment, desiredStatus="STOPPED")["taskArns"]
    (task,) = ecs.describe_tasks(cluster=CLUSTER, tasks=stopped)["tasks"]
    assert "CannotPullContainerError" in task["stoppedReason"]


def test_an_override_counts_for_the_container_that_it_names(cloud: EmbeddedCloud) -> None:
    """For its exit code too."""
    ecs = cloud.client("ecs")
    containers = [{"name": name, "image": "public/job:1", "memory": 128} for name in ("one", "two")]
    ecs.register_task_definition(family="job", containerDefinitions=containers)
    fails = {"name": "two", "environment": [{"name": "EXIT_CODE", "value": "9"}]}
    started = ecs.run_task(cluster=CLUSTER, taskDefinition="job", overrides={"containerOverrides": [fails]})
    cloud.advance(2)

    (task,) = ecs.describe_tasks(cluster=CLUSTER, tasks=[started["tasks"][0]["taskArn"]])["tasks"]
    assert [container["exitCode"] for container in task["containers"]] == [0, 9]


def test_clusters_services_and_task_definitions_are_listed(cloud: EmbeddedCloud) -> None:
    """By name, family and cluster."""
    ecs = cloud.client("ecs")

    assert [one["clusterName"] for one in ecs.describe_clusters(clusters=[CLUSTER])["clusters"]] == [CLUSTER]
    assert f":service/{CLUSTER}/{SERVICE}" in ecs.list_services(cluster=CLUSTER)["serviceArns"][0]
    (arn,) = ecs.list_task_definitions(familyPrefix="local-mint-app-db-migrate")["taskDefinitionArns"]
    assert arn.endswith(":task-definition/local-mint-app-db-migrate:1")


def test_missing_resources_get_the_failures_and_errors_of_ecs(cloud: EmbeddedCloud) -> None:
    ecs = cloud.client("ecs")

    assert ecs.describe_services(cluster=CLUSTER, services=["none"])["failures"][0]["reason"] == "MISSING"
    assert ecs.describe_tasks(cluster=CLUSTER, tasks=["none"])["failures"] == [{"arn": "none", "reason": "MISSING"}]
    with pytest.raises(ecs.exceptions.ClusterNotFoundException):
        ecs.describe_services(cluster="none", services=[SERVICE])
    with pytest.raises(ecs.exceptions.ServiceNotFoundException):
        ecs.update_service(cluster=CLUSTER, service="none")
    with pytest.raises(ecs.exceptions.ClientException):
        ecs.describe_task_definition(taskDefinition="none:1")
