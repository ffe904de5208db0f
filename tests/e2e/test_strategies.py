"""`invoke deploy-service` on services of every kind: each strategy, each deployment controller, no task, a deletion."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_aws.server import Server
from tests.conftest import EmbeddedCloud
from tests.e2e import rehearsal
from tests.faults.recorder import Laboratory

CLUSTER, SERVICE = "local-mint-app", "mint-app"
DEPLOY = ("deploy-service", "--env=local", "--tag=v0.1")
BLUE_GREEN = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1}
EARLY = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "DEFERRED"}
LINEAR = {"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 50.0, "stepBakeTimeInMinutes": 0}}
CANARY = {"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 0}}


@pytest.fixture
def laboratory(
    embedded_server: Server, clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laboratory]:
    with rehearsal.rehearsing(embedded_server, tmp_path, monkeypatch) as made:
        made.reset()
        # Time passes in AWS only while the command sleeps: on a busy machine a rollout would be over before it looks.
        begun = time.time() - made.slept
        monkeypatch.setattr(time, "time", lambda: begun + made.slept)
        yield made


def update(laboratory: Laboratory, **change: Any) -> None:
    """Change the service, without a deployment."""
    ecs = EmbeddedCloud(laboratory.server).client("ecs")
    ecs.update_service(cluster=CLUSTER, service=SERVICE, **change)


@pytest.mark.parametrize(
    ("configuration", "words", "said"),
    [
        ({"earlySuccessCriteria": EARLY}, (), "local runs v0.1"),
        ({**BLUE_GREEN, "bakeTimeInMinutes": 0}, (), "local runs v0.1 (was v0)"),
        (BLUE_GREEN, (), "is baking, for 1 min in all: the traffic has shifted"),
        (BLUE_GREEN, ("--wait-until=traffic",), "local runs v0.1"),
        (LINEAR, (), "local runs v0.1 (was v0)"),
        (CANARY, (), "local runs v0.1 (was v0)"),
    ],
    ids=["early success", "blue/green", "baking", "traffic", "linear", "canary"],
)
def test_a_rollout_of_every_strategy_is_followed_to_its_end(
    configuration: dict[str, Any], words: tuple[str, ...], said: str, laboratory: Laboratory
) -> None:
    """What ECS calls complete is complete."""
    update(laboratory, deploymentConfiguration=configuration)

    done = laboratory.run((*DEPLOY, *words))

    assert done.code == 0, done.said
    assert said in done.said


@pytest.mark.parametrize("kind", ["CODE_DEPLOY", "EXTERNAL"])
def test_another_deployment_controller_is_refused_before_any_change(kind: str, laboratory: Laboratory) -> None:
    """No revision is registered."""
    update(laboratory, deploymentController={"type": kind})

    done = laboratory.run(DEPLOY)

    assert done.code == 2, done.said
    assert kind in done.said
    assert done.changed == []


def test_a_service_without_tasks_is_deployed_and_not_verified(laboratory: Laboratory) -> None:
    """And that is said."""
    update(laboratory, desiredCount=0)

    done = laboratory.run(DEPLOY)

    assert done.code == 0, done.said
    assert "no task is desired, so nothing is verified" in done.said


def test_a_service_that_is_being_deleted_is_refused(laboratory: Laboratory) -> None:
    """Before any change."""
    ecs = EmbeddedCloud(laboratory.server).client("ecs")
    ecs.delete_service(cluster=CLUSTER, service=SERVICE, force=True)

    done = laboratory.run(DEPLOY)

    assert done.code == 2, done.said
    assert done.changed == []


def test_tasks_that_are_scaled_out_in_the_middle_do_not_hold_up_a_success(laboratory: Laboratory) -> None:
    """ECS has called the rollout complete: fewer tasks than are desired run for a while."""
    update(laboratory, deploymentConfiguration={"earlySuccessCriteria": EARLY}, desiredCount=4)

    done = laboratory.run(DEPLOY)

    assert done.code == 0, done.said


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("killed", "the container needs more memory than its limit"),
        ("segfault", "segmentation fault"),
        ("secrets", "a secret or parameter is missing"),
        ("unhealthy", "the health check in the task definition failed"),
        ("unreachable", "the load balancer's health check got no good answer"),
    ],
)
def test_a_task_that_dies_is_explained(fault: str, hint: str, laboratory: Laboratory) -> None:
    """With its exit code or reason, and what that most often means; exit code 4, because ECS rolls back."""
    for revisions in laboratory.server.ecs.definitions.values():
        for container in revisions[-1]["taskDefinition"]["containerDefinitions"][:1]:
            container.setdefault("environment", []).append({"name": "FAULT", "value": fault})

    done = laboratory.run(DEPLOY)

    assert done.code == 4, done.said
    assert hint in done.said


def test_a_rollout_that_fails_is_stopped_and_taken_back_where_that_was_asked_for(laboratory: Laboratory) -> None:
    """Also without a circuit breaker: the previous version runs, exit code 4."""
    laboratory.server.stage("crash-loop")

    done = laboratory.run((*DEPLOY, "--abort-on-failure"))

    assert done.code == 4, done.said
    assert "was rolled back" in done.said
    assert EmbeddedCloud(laboratory.server).health()["version"] == "v0"


def test_a_rollout_that_took_too_long_is_watched_further(laboratory: Laboratory) -> None:
    """By the command that the message ends with: it starts nothing."""
    laboratory.server.stage("slow")
    first = laboratory.run((*DEPLOY, "--timeout=20"))
    assert first.code == 3, first.said

    again = laboratory.run((*DEPLOY, "--resume", "--timeout=900"))

    assert again.code == 0, again.said
    assert "local runs v0.1" in again.said
    assert [request.name for request in again.requests if "UpdateService" in request.name] == []
