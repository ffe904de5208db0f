"""Pure decisions about task definitions, as tables."""

from typing import Any

import pytest
from botocore.loaders import Loader

from ecs_manager import task_definition
from ecs_manager.errors import ManagerError

DIGEST = "@sha256:" + "a" * 64


def definition(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task definition with these containers."""
    return {"family": "app", "containerDefinitions": [dict(c) for c in containers], **more}


APP = {"name": "app", "image": "registry:5000/mint-backend:old", "secrets": [{"name": "A", "valueFrom": "/a"}]}
SIDECAR = {"name": "agent", "image": "public/agent:v1", "essential": False}


def test_every_field_that_can_be_registered_is_carried_over() -> None:
    """By botocore's model of ECS: each described field that can be registered is kept."""
    shapes = Loader().load_service_model("ecs", "service-2")["shapes"]
    described = set(shapes["TaskDefinition"]["members"])
    taken = set(shapes["RegisterTaskDefinitionRequest"]["members"])

    kept = task_definition.registrable(dict.fromkeys(described, "value"), [])

    assert set(kept) == described & taken
    assert described - taken == task_definition.OUTPUT_ONLY


def test_tags_are_carried_over_but_not_those_of_aws() -> None:
    """AWS refuses tags that start with `aws:`."""
    tags = [{"key": "team", "value": "mint"}, {"key": "aws:cloudformation:stack-id", "value": "x"}]

    assert task_definition.registrable({"family": "app"}, tags)["tags"] == [{"key": "team", "value": "mint"}]


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("nginx", "nginx"),
        ("nginx:1", "nginx"),
        ("registry:5000/app", "registry:5000/app"),
        ("registry:5000/app:v1", "registry:5000/app"),
        ("registry/app" + DIGEST, "registry/app"),
        ("registry/app:v1" + DIGEST, "registry/app"),
    ],
)
def test_the_repository_of_an_image(image: str, repository: str) -> None:
    """Without tag and digest, but with the registry's port."""
    assert task_definition.repository(image) == repository


@pytest.mark.parametrize(
    ("containers", "image", "expected"),
    [
        ([APP, SIDECAR], "registry:5000/mint-backend:new", "app"),
        ([SIDECAR, APP], "registry:5000/mint-backend" + DIGEST, "app"),
        ([APP], "elsewhere/mint-backend:new", "app"),
    ],
    ids=["it uses the repository", "by digest, in any order", "the only container"],
)
def test_the_container_that_gets_the_image(containers: list[dict[str, Any]], image: str, expected: str) -> None:
    """It is never a sidecar."""
    assert task_definition.container_for_image(definition(*containers), image) == expected


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ([APP, SIDECAR], r"No container uses the repository elsewhere/other: app .*, agent"),
        (
            [{**APP, "image": "elsewhere/other:1"}, {**SIDECAR, "image": "elsewhere/other:2"}],
            "More than one container uses",
        ),
    ],
)
def test_an_image_that_fits_no_container_or_several_is_an_error(containers: list[dict[str, Any]], said: str) -> None:
    """The message lists the containers and their images."""
    with pytest.raises(ManagerError, match=said) as error:
        task_definition.container_for_image(definition(*containers), "elsewhere/other:new")
    assert error.value.title == "AmbiguousContainer"


def test_image_and_secrets_change_one_container_and_nothing_else() -> None:
    """The sidecar, the volumes and the container's other fields are kept."""
    old = definition({**APP, "cpu": 5}, SIDECAR, volumes=[{"name": "v"}])

    new = task_definition.changed(old, "registry:5000/mint-backend:new", [{"name": "B", "valueFrom": "/b"}])

    assert new["containerDefinitions"] == [
        {
            "name": "app",
            "cpu": 5,
            "image": "registry:5000/mint-backend:new",
            "secrets": [{"name": "B", "valueFrom": "/b"}],
        },
        SIDECAR,
    ]
    assert new["volumes"] == [{"name": "v"}]
    assert old["containerDefinitions"][0]["image"] == "registry:5000/mint-backend:old"


def test_without_an_image_the_container_with_secrets_gets_the_secrets() -> None:
    """If it is not clear which container that is, it is an error."""
    secrets = [{"name": "B", "valueFrom": "/b"}]

    new = task_definition.changed(definition(SIDECAR, APP), None, secrets)

    assert [c.get("secrets") for c in new["containerDefinitions"]] == [None, secrets]
    with pytest.raises(ManagerError, match="could go to any of agent, agent") as error:
        task_definition.changed(definition(SIDECAR, SIDECAR), None, secrets)
    assert error.value.title == "AmbiguousContainer"
    assert task_definition.changed(definition(SIDECAR, SIDECAR), None, None) == definition(SIDECAR, SIDECAR)


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([{"name": "main"}, {**SIDECAR, "secrets": [{"name": "A", "valueFrom": "/a"}]}], "agent"),
        ([{"name": "main"}, SIDECAR], "main"),
        ([SIDECAR], "agent"),
    ],
    ids=["it has secrets", "the only essential container", "the only container"],
)
def test_the_container_that_gets_the_secrets(containers: list[dict[str, Any]], expected: str) -> None:
    """If no image determines it."""
    assert task_definition.container_for_secrets(definition(*containers)) == expected


def task(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A stopped task."""
    return {"containers": list(containers), **more}


@pytest.mark.parametrize(
    ("stopped", "expected"),
    [
        (task({"name": "agent", "exitCode": 9}, {"name": "app", "exitCode": 0}), 0),
        (task({"name": "agent", "exitCode": 0}, {"name": "app", "exitCode": 3}), 3),
        (task({"name": "app", "exitCode": 137}), 137),
    ],
    ids=["a sidecar does not count", "the container's own code", "killed"],
)
def test_a_task_is_judged_by_its_essential_containers(stopped: dict[str, Any], expected: int) -> None:
    """By their names, in any order."""
    names = task_definition.essential(definition(APP, SIDECAR))

    assert task_definition.verdict(stopped, names) == expected


def test_a_missing_exit_code_is_an_error_with_the_reasons_of_ecs() -> None:
    stopped = task(
        {"name": "app", "reason": "CannotPullContainerError: not found"},
        stopCode="TaskFailedToStart",
        stoppedReason="Task failed to start",
    )

    with pytest.raises(ManagerError) as error:
        task_definition.verdict(stopped, ["app"])

    assert error.value.title == "TaskFailedToStart"
    assert error.value.message == (
        "app stopped without an exit code: TaskFailedToStart; Task failed to start;"
        " CannotPullContainerError: not found."
    )
