"""Pure decisions about task definitions, as tables."""

from typing import Any

import pytest
from botocore.loaders import Loader

from ecs_manager import task_definition
from ecs_manager.errors import ManagerError
from ecs_manager.task_definition import Change

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


def named(name: str, image: str, **more: Any) -> dict[str, Any]:
    """A container."""
    return {"name": name, "image": image, **more}


WEB, WORKER = named("web", "registry:5000/mint:1"), named("worker", "registry:5000/mint:1")


@pytest.mark.parametrize(
    ("containers", "image", "wanted", "expected"),
    [
        ([APP, SIDECAR], "registry:5000/mint-backend:new", (), ["app"]),
        ([SIDECAR, APP], "registry:5000/mint-backend" + DIGEST, (), ["app"]),
        ([APP], "elsewhere/mint-backend:new", (), ["app"]),
        ([WEB, SIDECAR, WORKER], "registry:5000/mint:2", (), ["web", "worker"]),
        ([WEB, SIDECAR, WORKER], "registry:5000/mint:2", ("worker",), ["worker"]),
        ([WEB, named("b", "other.example/mint:1")], "other.example/mint:2", (), ["b"]),
        ([APP, SIDECAR], "222222222222.dkr.ecr.us-east-1.amazonaws.com/mint-backend:2", (), ["app"]),
        ([APP, SIDECAR], "localhost/mint-backend:2", (), ["app"]),
        ([APP, SIDECAR], "elsewhere.example/renamed:2", ("app", "app"), ["app"]),
        ([APP, named("proxy", "nginx:1")], "mirror.example/nginx:2", (), ["proxy"]),
        ([named("a", "team/mint:1"), named("b", "mint:1")], "mirror.example/mint:2", (), ["b"]),
    ],
    ids=[
        "it uses the repository",
        "by digest, in any order",
        "the only container",
        "all that use the repository",
        "those that the settings name",
        "the same registry before another one",
        "the image moved to another account's registry",
        "the image moved to this machine's registry",
        "another repository altogether",
        "from Docker Hub",
        "a user of Docker Hub is no registry",
    ],
)
def test_the_containers_that_get_the_image(
    containers: list[dict[str, Any]], image: str, wanted: tuple[str, ...], expected: list[str]
) -> None:
    """Never a sidecar, unless it is named."""
    assert task_definition.containers_for_image(definition(*containers), image, wanted) == expected


@pytest.mark.parametrize(
    ("image", "wanted", "title", "said"),
    [
        ("elsewhere/other:new", (), "AmbiguousContainer", r"No container uses the repository elsewhere/other: app .*"),
        ("elsewhere/agent2:new", (), "AmbiguousContainer", r"agent \(public/agent:v1\)\. Name .* service.containers"),
        ("registry:5000/mint-backend:2", ("db",), "UnknownContainer", "no container db: use one of app, agent"),
    ],
)
def test_an_image_that_fits_no_container_is_an_error(
    image: str, wanted: tuple[str, ...], title: str, said: str
) -> None:
    """The message lists the containers, and says how to name the right one."""
    with pytest.raises(ManagerError, match=said) as error:
        task_definition.containers_for_image(definition(APP, SIDECAR), image, wanted)
    assert error.value.title == title


def test_image_and_secrets_change_one_container_and_nothing_else() -> None:
    """The sidecar, the volumes and the container's other fields are kept."""
    old = definition({**APP, "cpu": 5}, SIDECAR, volumes=[{"name": "v"}])

    new = task_definition.changed(old, Change("registry:5000/mint-backend:new", [{"name": "B", "valueFrom": "/b"}]))

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
    change = Change(None, [{"name": "B", "valueFrom": "/b"}])

    new = task_definition.changed(definition(SIDECAR, APP), change)

    assert [c.get("secrets") for c in new["containerDefinitions"]] == [None, change.secrets]
    with pytest.raises(ManagerError, match="could go to any of agent, agent") as error:
        task_definition.changed(definition(SIDECAR, SIDECAR), change)
    assert error.value.title == "AmbiguousContainer"
    assert task_definition.changed(definition(SIDECAR, SIDECAR), Change()) == definition(SIDECAR, SIDECAR)


def having(name: str, *secrets: str, **more: Any) -> dict[str, Any]:
    """A container with the application's image and these secrets."""
    return named(name, "registry:5000/mint:1", secrets=[{"name": s, "valueFrom": f"/{s}"} for s in secrets], **more)


@pytest.mark.parametrize(
    ("containers", "image", "wanted", "expected"),
    [
        ([{"name": "main"}, {**SIDECAR, "secrets": [{"name": "A", "valueFrom": "/a"}]}], None, (), ["agent"]),
        ([{"name": "main"}, SIDECAR], None, (), ["main"]),
        ([SIDECAR], None, (), ["agent"]),
        ([having("web", "B"), having("worker", "B", "C"), having("agent", "KEY")], None, (), ["web", "worker"]),
        ([having("web", "B"), having("agent", "KEY")], None, (), ["web"]),
        ([having("web", "B"), having("agent", "KEY")], None, ("agent",), ["agent"]),
        ([having("web", "A"), having("worker", "A")], "registry:5000/mint:2", (), ["web", "worker"]),
        ([having("web", "A"), WORKER], "registry:5000/mint:2", (), ["web"]),
        ([WEB, WORKER], "registry:5000/mint:2", (), ["web", "worker"]),
    ],
    ids=[
        "it has secrets",
        "the only essential container",
        "the only container",
        "those that have one of them",
        "the only one that has one of them",
        "the one that the settings name",
        "all that get the image",
        "a helper without secrets stays without",
        "none has any yet",
    ],
)
def test_the_containers_that_get_the_secrets(
    containers: list[dict[str, Any]], image: str | None, wanted: tuple[str, ...], expected: list[str]
) -> None:
    """Each of them gets the same."""
    secrets = [{"name": "B", "valueFrom": "/new"}]

    new = task_definition.changed(definition(*containers), Change(image, secrets, wanted))

    assert [c["name"] for c in new["containerDefinitions"] if c.get("secrets") == secrets] == expected


OWN = "arn:aws:ecs:us-west-2:111111111111:task-definition/app:1"
SECRET = "arn:aws:secretsmanager:us-west-2:111111111111:secret:x-AbCdEf"


@pytest.mark.parametrize(
    ("value_from", "kept"),
    [
        (SECRET, True),
        (SECRET + ":key::", True),
        ("arn:aws-us-gov:secretsmanager:us-gov-west-1:111111111111:secret:x", True),
        ("arn:aws:ssm:us-west-2:222222222222:parameter/shared/x", True),
        ("arn:aws:ssm:us-east-1:111111111111:parameter/prod/x", True),
        ("arn:aws:ssm:us-west-2:111111111111:parameter/prod/x", False),
        ("/prod/app/x", False),
        ("x", False),
    ],
)
def test_a_secret_that_no_parameter_can_stand_for_is_kept(value_from: str, kept: bool) -> None:
    """Unless it is to be dropped, or a parameter of that name has come. The others are replaced as ever."""
    hand = {"name": "HAND", "valueFrom": value_from}
    old = definition({**APP, "secrets": [hand, {"name": "OLD", "valueFrom": "/old"}]})
    found = [{"name": "Z", "valueFrom": "/z"}]

    def secrets(**change: Any) -> Any:
        new = task_definition.changed(old, Change(APP["image"], own=OWN, **change))
        return new["containerDefinitions"][0]["secrets"]

    assert secrets(secrets=found) == ([hand, *found] if kept else found)
    assert secrets(secrets=found, drop=True) == found
    assert secrets(secrets=[{"name": "HAND", "valueFrom": "/new"}]) == [{"name": "HAND", "valueFrom": "/new"}]


def task(*codes: int | None, **more: Any) -> dict[str, Any]:
    """A stopped task whose containers app, agent, third have these exit codes."""
    names = ("app", "agent", "third")
    containers = [
        {"name": n} if code is None else {"name": n, "exitCode": code} for n, code in zip(names, codes, strict=False)
    ]
    return {"containers": containers, **more}


BOTH = definition(APP, {**SIDECAR, "essential": True})
KILLED = {"stopCode": "UserInitiated"}


@pytest.mark.parametrize(
    ("stopped", "own", "expected"),
    [
        (task(0, 9), "app", (0, "app")),
        (task(3, 0), "app", (3, "app")),
        (task(137, 0), "app", (137, "app")),
        (task(0, 137), "app", (0, "app")),
        (task(0, 143), "app", (0, "app")),
        (task(0, None), "app", (0, "app")),
        (task(143, 0), "app", (143, "app")),
        (task(0, 9), "agent", (9, "agent")),
        (task(0, 0), "", (0, "app")),
        (task(0, 143), "", (0, "app")),
        (task(143, 0), "", (0, "agent")),
        (task(143, 0, stopCode="EssentialContainerExited"), "", (0, "agent")),
        (task(0, 143, **KILLED), "", (143, "agent")),
        (task(143, 143), "", (143, "app")),
        (task(0, 137), "", (137, "agent")),
        (task(0, 1), "", (1, "agent")),
    ],
)
def test_a_task_is_judged_by_its_own_container(stopped: dict[str, Any], own: str, expected: tuple[int, str]) -> None:
    """If that is not clear, by all essential ones, but for those that were asked to stop after one had ended well."""
    assert task_definition.verdict(stopped, BOTH, own) == expected


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([named("x", "i"), named("y", "i", essential=False)], "x"),
        ([named("otel", "i"), named("mint-app-db-migrate", "i")], "mint-app-db-migrate"),
        ([named("otel", "i"), named("prod-migrate", "i")], "prod-migrate"),
        ([named("otel", "i"), named("db-migrate", "i")], "db-migrate"),
        ([named("otel", "i"), named("grate", "i")], ""),
        ([named("x", "111111111111.dkr.ecr.us-west-2.amazonaws.com/m:1"), named("y", "public.ecr.aws/m:1")], "x"),
        ([named("x", "222222222222.dkr.ecr.us-west-2.amazonaws.com/m:1"), named("y", "public.ecr.aws/m:1")], ""),
        ([named("x", "i"), named("y", "i")], ""),
    ],
)
def test_the_container_that_a_task_is_run_for(containers: list[dict[str, Any]], expected: str) -> None:
    """The only essential one; else by the name of the service or of the family; else the only image of the account."""
    whole = definition(*containers, taskDefinitionArn=OWN)

    assert task_definition.own_container(whole, ["mint-app-db-migrate", "prod-migrate"]) == expected


def test_a_missing_exit_code_is_an_error_with_the_reasons_of_ecs() -> None:
    stopped = {
        "containers": [{"name": "app", "reason": "CannotPullContainerError: not found"}],
        "stopCode": "TaskFailedToStart",
        "stoppedReason": "Task failed to start",
    }

    with pytest.raises(ManagerError) as error:
        task_definition.verdict(stopped, definition(APP))

    assert error.value.title == "TaskFailedToStart"
    assert error.value.message == (
        "app stopped without an exit code: TaskFailedToStart; Task failed to start;"
        " CannotPullContainerError: not found."
    )
