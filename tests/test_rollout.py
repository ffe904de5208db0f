"""The verdict on a rollout, as a table of what ECS may show."""

import pytest

from scripts.ecs.rollout import Deployment, Service, Verdict, explain, verdict


def deployment(
    tag: str, id: str = "new", status: str = "PRIMARY", state: str = "COMPLETED", **more: object
) -> Deployment:
    """A deployment of registry/app:tag beside a sidecar."""
    values: dict[str, object] = {
        "id": id,
        "status": status,
        "task_definition": f"arn:task-definition/app:{tag}",
        "images": ("public/sidecar:v9", f"registry:5000/app:{tag}"),
        "state": state,
        "reason": "",
        "desired": 2,
        "running": 2,
        "failed": 0,
    }
    return Deployment(**{**values, **more})  # type: ignore[arg-type]


def service(*deployments: Deployment, events: tuple[str, ...] = ()) -> Service:
    """A service with these deployments."""
    return Service("app", deployments, events)


OLD = deployment("v1", id="old")
DRAINING = deployment("v1", id="old", status="ACTIVE")
BACK = "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/1."
DIGEST = "registry/app@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("now", "mine", "seen", "expected"),
    [
        pytest.param(service(OLD), None, False, Verdict.ABSENT, id="only the old one is there"),
        pytest.param(
            service(deployment("v2", state="IN_PROGRESS"), DRAINING), None, False, Verdict.RUNNING, id="begun"
        ),
        pytest.param(
            service(deployment("v2"), DRAINING),
            None,
            True,
            Verdict.RUNNING,
            id="complete, but the old one drains",
        ),
        pytest.param(service(deployment("v2", running=1)), None, True, Verdict.RUNNING, id="a task is still missing"),
        pytest.param(service(deployment("v2")), None, True, Verdict.SUCCEEDED, id="alone and complete"),
        pytest.param(service(deployment("v2", state="")), None, True, Verdict.SUCCEEDED, id="ECS gives no state"),
        pytest.param(service(deployment("v2", state="FAILED")), None, True, Verdict.FAILED, id="failed, no rollback"),
        pytest.param(
            service(
                deployment("v1", id="back", state="IN_PROGRESS", reason=BACK),
                deployment("v2", status="ACTIVE", state="FAILED"),
            ),
            None,
            True,
            Verdict.ROLLED_BACK,
            id="the rollback has begun",
        ),
        pytest.param(
            service(deployment("v1", id="back"), events=("(service app) rolled back to deployment old.",)),
            None,
            True,
            Verdict.ROLLED_BACK,
            id="the rollback is over and only an event tells",
        ),
        pytest.param(
            service(deployment("v3", id="theirs", state="IN_PROGRESS")),
            None,
            True,
            Verdict.SUPERSEDED,
            id="somebody else deployed meanwhile",
        ),
        pytest.param(
            service(deployment("v2", id="theirs")),
            "mine",
            False,
            Verdict.SUPERSEDED,
            id="same version, but another deployment than mine",
        ),
        pytest.param(
            service(deployment("v2", id="back", reason=BACK), deployment("v2", status="ACTIVE", state="FAILED")),
            None,
            True,
            Verdict.ROLLED_BACK,
            id="a redeployment of the same version was taken back",
        ),
        pytest.param(
            service(deployment("", images=(DIGEST,), state="IN_PROGRESS")),
            None,
            False,
            Verdict.RUNNING,
            id="an image named by its digest",
        ),
        pytest.param(
            service(deployment("", images=("registry/app:v2@sha256:" + "a" * 64,))),
            None,
            False,
            Verdict.SUCCEEDED,
            id="an image named by tag and digest",
        ),
    ],
)
def test_verdict(now: Service, mine: str | None, seen: bool, expected: Verdict) -> None:
    """What became of version v2."""
    assert verdict(now, "v2", mine, seen) is expected


def test_a_tag_that_only_ends_like_the_version_is_another_version() -> None:
    """The whole tag counts, and the port of a registry is none."""
    now = service(deployment("", images=("registry:5000/v2", "registry/app:xv2")))

    assert verdict(now, "v2") is Verdict.ABSENT


def test_the_reasons_are_given_once_each() -> None:
    """Reasons of the deployments first, then the events."""
    now = service(deployment("v2", reason="a"), deployment("v1", reason="a"), events=("b", "a"))

    assert explain(now) == "a · b"
