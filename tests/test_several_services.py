"""An application with more services than one: each is deployed, and each has its own verdict."""

from pathlib import Path
from typing import Any

import pytest

from scripts import deploy_service
from scripts.deploy_service import Deployed, Wish, carry_out
from scripts.frame import settings
from scripts.frame.errors import FAILED, REFUSED, ROLLED_BACK, UNKNOWN, DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.run import Run
from tests.conftest import ROOT, EmbeddedCloud

APP, WORKER, CLUSTER = "mint-app", "worker", "local-mint-app"
MORE = """
[environments.local.services.worker]
secrets = '^/local/mint-app/\\S+$'

[environments.local.tasks.seed-data]
family = "local-mint-app-db-migrate"
subnets = ["subnet-1"]
"""


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of an application that also has a worker, with the same image."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text() + MORE)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))
    return file


@pytest.fixture
def run(more: Path, cloud: EmbeddedCloud) -> Run:
    """A run in an environment with these settings."""
    return Run("deploy-service", settings.environment("local", "--env"))


def add_worker(cloud: EmbeddedCloud, **variables: str) -> None:
    """Create the worker's service. variables: of its container's environment."""
    image = f"{cloud.server.cloud.host}/mint-backend:v0"
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    container = {"name": WORKER, "image": image, "environment": environment}
    ecs = cloud.client("ecs")
    made = ecs.register_task_definition(family="local-worker", containerDefinitions=[container])
    ecs.create_service(
        cluster=CLUSTER,
        serviceName=WORKER,
        taskDefinition=made["taskDefinition"]["taskDefinitionArn"],
        desiredCount=1,
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}},
    )
    cloud.server.cloud.requests.clear()


def image_of(cloud: EmbeddedCloud, service: str) -> str:
    """The tag of the image in a service's task definition."""
    ecs = cloud.client("ecs")
    arn = ecs.describe_services(cluster=CLUSTER, services=[service])["services"][0]["taskDefinition"]
    containers = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["containerDefinitions"]
    return str(containers[0]["image"]).rpartition(":")[2]


def updated(cloud: EmbeddedCloud) -> list[str]:
    """The services that were updated, in order."""
    return [request["parameters"]["service"] for request in cloud.requests("ecs", "UpdateService")]


def verdicts(run: Run) -> dict[str, str]:
    """The verdict of each service, as the last step about it has it."""
    return {step.result.service: step.result.verdict for step in run.steps if isinstance(step.result, Deployed)}


def test_all_services_are_deployed_and_each_has_its_verdict(cloud: EmbeddedCloud, run: Run) -> None:
    """Both are started before the first is watched; the result is that of the application's own."""
    add_worker(cloud)
    cloud.push("v1", "mint-backend")

    result = carry_out(run, Wish(tag="v1"))

    assert result is not None
    assert (result.service, result.verdict) == (APP, "succeeded")
    assert verdicts(run) == {APP: "succeeded", WORKER: "succeeded"}
    assert [step.name for step in run.steps] == [
        "deploy mint-app",
        "deploy worker",
        "watch mint-app",
        "watch worker",
    ]
    assert (image_of(cloud, APP), image_of(cloud, WORKER)) == ("v1", "v1")
    assert run.last_line == result.line()


def test_one_service_by_its_name(cloud: EmbeddedCloud, run: Run) -> None:
    """With its own image and secrets, of the settings."""
    add_worker(cloud)
    cloud.push("v1", "mint-backend")

    carry_out(run, Wish(service=WORKER, tag="v1"))

    assert updated(cloud) == [WORKER]
    (call,) = cloud.requests("lambda", "Invoke")
    assert call["parameters"]["body"]["secrets"] == ["^/local/mint-app/\\S+$"]


def test_a_service_that_is_rolled_back_does_not_hide_the_other(cloud: EmbeddedCloud, run: Run) -> None:
    """The error has a line for each, and the exit code of what failed."""
    add_worker(cloud, CRASH="1")
    cloud.push("v1", "mint-backend")

    with pytest.raises(RolledBack) as error:
        carry_out(run, Wish(tag="v1", keep_waiting=True))

    lines = str(error.value).splitlines()
    assert lines[0].startswith("worker: ")
    assert any(line.startswith("local runs v1") for line in lines)
    assert verdicts(run) == {APP: "succeeded", WORKER: "rolled back"}


def test_all_are_looked_at_before_the_first_is_started(cloud: EmbeddedCloud, run: Run) -> None:
    """One that does not exist is a refusal of all."""
    cloud.push("v1", "mint-backend")

    with pytest.raises(Refused, match="worker is not deployed to local"):
        carry_out(run, Wish(tag="v1"))

    assert updated(cloud) == []


def test_what_was_started_is_watched_although_the_next_could_not_be(
    cloud: EmbeddedCloud, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refusal: something was changed."""
    add_worker(cloud)
    cloud.push("v1", "mint-backend")
    real = deploy_service.manager.invoke

    def invoke(environment: Any, call: Any, **more: Any) -> Any:
        if call.payload["body"]["service_ids"] == [WORKER]:
            raise Refused("not this one")
        return real(environment, call, **more)

    monkeypatch.setattr(deploy_service.manager, "invoke", invoke)
    with pytest.raises(DeployError) as error:
        carry_out(run, Wish(tag="v1"))

    assert error.value.code == 1
    assert str(error.value).splitlines()[0] == "worker: not this one"
    assert verdicts(run)[APP] == "succeeded"


FAILURES = {
    UNKNOWN: OutcomeUnknown("u"),
    FAILED: DeployError("f"),
    REFUSED: Refused("r"),
    ROLLED_BACK: RolledBack("b"),
}


@pytest.mark.parametrize(
    ("codes", "others", "expected"),
    [
        ((ROLLED_BACK,), False, ROLLED_BACK),
        ((REFUSED,), False, REFUSED),
        ((ROLLED_BACK, ROLLED_BACK), False, ROLLED_BACK),
        ((ROLLED_BACK, FAILED), False, FAILED),
        ((FAILED, UNKNOWN), False, UNKNOWN),
        ((ROLLED_BACK, UNKNOWN), False, UNKNOWN),
        ((REFUSED, ROLLED_BACK), False, FAILED),
        ((REFUSED,), True, FAILED),
        ((ROLLED_BACK,), True, ROLLED_BACK),
    ],
)
def test_the_exit_code_of_several_deployments(codes: tuple[int, ...], others: bool, expected: int) -> None:
    """What is not known outweighs what failed, and that what was rolled back. A refusal is one if nothing began."""
    done = {"c": Deployed("c", "cluster", "", "", "", "", "", 0.0)} if others else {}

    error = deploy_service._failure({str(n): FAILURES[code] for n, code in enumerate(codes)}, done)

    assert error.code == expected
    alone = len(codes) == 1 and not others
    said = [f"{'' if alone else f'{n}: '}{FAILURES[code]}" for n, code in enumerate(codes)]
    assert str(error).splitlines() == [*said, *(one.line() for one in done.values())]


@pytest.mark.parametrize(
    ("image", "wish", "expected"),
    [
        ("", Wish(tag="v1"), Wish(WORKER, tag="v1")),
        ("", Wish(digest="d", version="v1"), Wish(WORKER, digest="d", version="v1")),
        ("", Wish(image_uri="r/i:1"), Wish(WORKER, image_uri="r/i:1")),
        ("mint-worker", Wish(tag="v1"), Wish(WORKER, tag="v1")),
        ("mint-worker", Wish(digest="d", version="v1"), Wish(WORKER, tag="v1", version="v1")),
        ("mint-worker", Wish(no_image=True), Wish(WORKER, no_image=True)),
        ("mint-worker", Wish(image_uri="r/i:1"), None),
        ("mint-worker", Wish(image="i"), None),
    ],
)
def test_the_image_of_each_of_several_services(image: str, wish: Wish, expected: Wish | None, more: Path) -> None:
    """A digest and a full name are of one image: another one is found by its tag, or has to be named."""
    more.write_text(more.read_text().replace("services.worker]", f'services.worker]\nimage = "{image}"'))
    environment = settings.environment("local", "--env")

    assert deploy_service.wish_of(environment, wish, APP) == wish
    if expected:
        assert deploy_service.wish_of(environment, wish, WORKER) == expected
    else:
        with pytest.raises(Refused, match="worker has another image than mint-app: give --service too"):
            deploy_service.wish_of(environment, wish, WORKER)


@pytest.mark.parametrize("via", ["lambda", "ecs"])
def test_a_task_without_a_service_gets_its_revision_and_nothing_rolls_out(
    via: str, cloud: EmbeddedCloud, run: Run
) -> None:
    """Nothing is watched, and nothing verified."""
    cloud.push("v1", "mint-db-migrate")

    result = carry_out(run, Wish(service="seed-data", image="mint-db-migrate", tag="v1", via=via))

    assert result is not None
    assert result.verdict == "nothing to verify"
    assert result.task_definition.endswith("local-mint-app-db-migrate:2")
    assert (updated(cloud), [step.name for step in run.steps]) == ([], ["deploy seed-data"])
