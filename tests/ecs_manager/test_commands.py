"""The manager's commands on the embedded AWS: what they change, and what they refuse."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_manager import commands
from ecs_manager.commands import Invocation
from ecs_manager.errors import BadRequest, ManagerError
from tests.conftest import EmbeddedCloud

CLUSTER, APP, MIGRATE = "local-mint-app", "mint-app", "mint-app-db-migrate"
SECRETS = [r"^/local/mint-app/\S+$"]
CHANGES = ("RegisterTaskDefinition", "UpdateService", "RunTask")


class Scripted:
    """A client with some operations replaced by a test; the others go to the real one."""

    def __init__(self, client: Any, **operations: Callable[..., Any]) -> None:
        self._client = client
        self.__dict__ |= operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def call(cloud: EmbeddedCloud, *, remaining: float = 900, **operations: Callable[..., Any]) -> Invocation:
    """An invocation of the manager. Its sleep advances the embedded AWS and uses up the remaining time."""
    deadline = [remaining]

    def sleep(seconds: float) -> None:
        cloud.advance(seconds)
        deadline[0] -= seconds

    ecs, ssm = Scripted(cloud.client("ecs"), **operations), Scripted(cloud.client("ssm"), **operations)
    return Invocation(ecs, ssm, "request-1", lambda: deadline[0], sleep)


def changes(cloud: EmbeddedCloud) -> list[tuple[str, str]]:
    """Every change requested from ECS, with the service or family."""
    return [
        (r["operation"], r["parameters"].get("service") or r["parameters"].get("family") or "")
        for r in cloud.requests("ecs")
        if r["operation"] in CHANGES
    ]


def service(cloud: EmbeddedCloud, name: str = APP) -> dict[str, Any]:
    """A service as ECS describes it."""
    return dict(cloud.client("ecs").describe_services(cluster=CLUSTER, services=[name])["services"][0])


def definition(cloud: EmbeddedCloud, arn: str) -> dict[str, Any]:
    """A task definition with its tags."""
    found = cloud.client("ecs").describe_task_definition(taskDefinition=arn, include=["TAGS"])
    return {**found["taskDefinition"], "tags": found["tags"]}


def image(cloud: EmbeddedCloud, tag: str = "v1", repository: str = "mint-backend") -> str:
    """The URI of an image in the embedded registry."""
    return f"{cloud.server.cloud.host}/{repository}:{tag}"


def body(**more: Any) -> dict[str, Any]:
    """The body of a deploy command for the application."""
    return {"cluster_id": CLUSTER, "service_ids": [APP], **more}


def test_deploy_changes_the_image_and_the_secrets_of_one_container_and_nothing_else(cloud: EmbeddedCloud) -> None:
    """Sidecar, volumes, platform, storage, roles and tags are those of the previous revision."""
    before = definition(cloud, service(cloud)["taskDefinition"])

    reply = commands.deploy(call(cloud), body(image=image(cloud), secrets=SECRETS))

    after = definition(cloud, reply["NewTaskdefArn"])
    own = {"taskDefinitionArn", "revision", "registeredAt", "containerDefinitions"}
    assert {k: v for k, v in after.items() if k not in own} == {k: v for k, v in before.items() if k not in own}
    assert after["containerDefinitions"][1:] == before["containerDefinitions"][1:]
    app = after["containerDefinitions"][0]
    assert app["image"] == image(cloud)
    assert app["secrets"] == [
        {"name": "OKTA_CLIENT_SECRET", "valueFrom": "/local/mint-app/okta_client_secret"},
        {"name": "POSTGRES_PASSWORD", "valueFrom": "/local/mint-app/postgres_password"},
    ]


def test_deploy_updates_a_service_once_with_a_forced_deployment_and_reports_it(cloud: EmbeddedCloud) -> None:
    """The reply has the fields of the wire contract."""
    reply = commands.deploy(call(cloud), body(image=image(cloud)))

    (update,) = cloud.requests("ecs", "UpdateService")
    assert update["parameters"] == {
        "cluster": CLUSTER,
        "service": APP,
        "taskDefinition": reply["NewTaskdefArn"],
        "forceNewDeployment": True,
    }
    assert reply == {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "UpdatedServiceArns": [service(cloud)["serviceArn"]],
        "NewTaskdefArn": service(cloud)["taskDefinition"],
        "DeploymentIds": {APP: service(cloud)["deployments"][0]["id"]},
    }


def test_a_restart_registers_no_revision_and_still_reports_one(cloud: EmbeddedCloud) -> None:
    """Without image and secrets, the service restarts with its current revision."""
    current = service(cloud)["taskDefinition"]

    reply = commands.deploy(call(cloud), body())

    assert reply["NewTaskdefArn"] == current
    assert changes(cloud) == [("UpdateService", APP)]


def test_the_same_image_and_secrets_again_register_no_revision(cloud: EmbeddedCloud) -> None:
    """Deploying a version again only restarts the service; the order of secrets does not matter."""
    first = commands.deploy(call(cloud), body(image=image(cloud), secrets=SECRETS))
    ecs = cloud.client("ecs")
    current = ecs.describe_task_definition(taskDefinition=first["NewTaskdefArn"])
    current["taskDefinition"]["containerDefinitions"][0]["secrets"].reverse()

    again = commands.deploy(
        call(cloud, describe_task_definition=lambda **_: current), body(image=image(cloud), secrets=SECRETS)
    )

    assert again["NewTaskdefArn"] == first["NewTaskdefArn"]
    assert [operation for operation, _ in changes(cloud)] == [
        "RegisterTaskDefinition",
        "UpdateService",
        "UpdateService",
    ]


def test_a_service_that_is_named_twice_is_updated_once(cloud: EmbeddedCloud) -> None:
    """By name, by ARN, or by both."""
    names = [APP, service(cloud)["serviceArn"], APP]

    reply = commands.deploy(call(cloud), body(service_ids=names, image=image(cloud)))

    assert len(cloud.requests("ecs", "UpdateService")) == len(reply["UpdatedServiceArns"]) == 1


def test_several_services_are_all_checked_before_the_first_is_changed(cloud: EmbeddedCloud) -> None:
    """If the image fits no container of the second service, the first is not changed."""
    with pytest.raises(ManagerError, match=r"No container uses the repository .*/mint-backend"):
        commands.deploy(call(cloud), body(service_ids=[APP, MIGRATE], image=image(cloud)))

    assert changes(cloud) == []


def test_a_failure_half_way_says_which_services_are_already_rolling_out(cloud: EmbeddedCloud) -> None:
    """If the second service fails, the message has the ARN of the first."""
    ecs = cloud.client("ecs")

    def update(**given: Any) -> Any:
        if given["service"] == MIGRATE:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "UpdateService")
        return ecs.update_service(**given)

    with pytest.raises(ManagerError) as error:
        commands.deploy(call(cloud, update_service=update), body(service_ids=[APP, MIGRATE]))

    assert error.value.title == "PartlyUpdated"
    assert f"{MIGRATE}: " in error.value.message
    assert "Rate exceeded" in error.value.message
    assert error.value.message.endswith(f"Already rolling out: {service(cloud)['serviceArn']}.")


@pytest.mark.parametrize(
    ("expressions", "title", "said"),
    [
        ([r"^/lokal/mint-app/\S+$"], "NoSecretsFound", r"matches \^/lokal.*: 0 of 0 names match"),
        ([*SECRETS, "/local/mint-app/nothing"], "NoSecretsFound", "matches /local/mint-app/nothing"),
        (["/local/mint-app/note"], "NoSecretsFound", "1 of 3 names match"),
        (["/local/mint-app/postgres"], "NoSecretsFound", "0 of 3 names match"),
        (["/local/mint-app/(x"], "BadExpression", "is not a regular expression"),
        (["/local/mint-app/x{99999999999}"], "BadExpression", "is not a regular expression"),
        ([".*"], "BadExpression", "must begin with a path of at least two names"),
        ([r"^/local/\S+$"], "BadExpression", "must begin with a path of at least two names"),
        ([r"^(/prod)?/local/mint-app/\S+$"], "BadExpression", "must begin with a path of at least two names"),
        ([r"^/local/mint-app/(a+)+$"], "BadExpression", "has more than one repetition"),
        (["^/local/mint-app/" + "a" * 300], "BadExpression", "or more than 200 characters"),
    ],
    ids=[
        "a typo",
        "one of two matches nothing",
        "only an untagged parameter matches",
        "a prefix of a name",
        "not a regular expression",
        "a repetition that is too long",
        "every parameter of the account",
        "every application",
        "optional path of another environment",
        "nested repetition",
        "too long",
    ],
)
def test_an_expression_that_finds_no_secret_is_an_error(
    cloud: EmbeddedCloud, expressions: list[str], title: str, said: str
) -> None:
    """Nothing is registered or updated, so the running secrets stay."""
    with pytest.raises(ManagerError, match=said) as error:
        commands.deploy(call(cloud), body(image=image(cloud), secrets=expressions))

    assert error.value.title == title
    assert changes(cloud) == []


def test_an_expression_may_have_200_characters(cloud: EmbeddedCloud) -> None:
    expression = r"/local/mint-app/\S+|".ljust(200, "x")

    reply = commands.deploy(call(cloud), body(secrets=[expression]))

    assert len(definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"][0]["secrets"]) == 2


def test_an_alternation_cannot_match_parameters_outside_the_path(cloud: EmbeddedCloud) -> None:
    """Only parameters under the expression's path are read."""
    tag = [{"Key": "ENV_VAR_NAME", "Value": "OTHERS"}]
    cloud.client("ssm").put_parameter(Name="/prod/mint-app/password", Value="x", Type="String", Tags=tag)

    reply = commands.deploy(call(cloud), body(secrets=[r"/local/mint-app/\S+|/prod/mint-app/password"]))

    names = [s["name"] for s in definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"][0]["secrets"]]
    assert names == ["OKTA_CLIENT_SECRET", "POSTGRES_PASSWORD"]


def test_a_registration_refused_as_concurrent_is_tried_again(cloud: EmbeddedCloud) -> None:
    """Up to five times; any other error is raised at once."""
    ecs, tries = cloud.client("ecs"), []

    def busy(message: str, times: int) -> Callable[..., Any]:
        def register(**given: Any) -> Any:
            tries.append(given["family"])
            if len(tries) <= times:
                error = {"Error": {"Code": "ClientException", "Message": message}}
                raise ClientError(error, "RegisterTaskDefinition")
            return ecs.register_task_definition(**given)

        return register

    concurrent = "Too many concurrent attempts to create a new revision of the specified family."
    patient = call(cloud, register_task_definition=busy(concurrent, 3))
    reply = commands.deploy(patient, body(image=image(cloud, "v1")))
    assert patient.remaining() == 900 - 1 - 2 - 4
    assert definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"][0]["image"] == image(cloud, "v1")
    assert len(tries) == 4

    for message, expected in ((concurrent, 5), ("Container.image should not be null", 1)):
        tries.clear()
        with pytest.raises(ClientError):
            commands.deploy(call(cloud, register_task_definition=busy(message, 99)), body(image=image(cloud, "v2")))
        assert len(tries) == expected


def test_secrets_are_found_on_every_page_of_parameters(cloud: EmbeddedCloud) -> None:
    ssm = cloud.client("ssm")
    for number in range(20):
        ssm.put_parameter(
            Name=f"/local/mint-app/many-{number:03}",
            Value="x",
            Type="String",
            Tags=[{"Key": "ENV_VAR_NAME", "Value": f"MANY_{number:03}"}],
        )

    reply = commands.deploy(call(cloud), body(secrets=SECRETS))

    app = definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"][0]
    assert len(app["secrets"]) == 22
    pages = cloud.requests("ssm", "DescribeParameters")
    assert len(pages) > 1
    # SSM gives at most fifty at a time.
    assert {page["parameters"]["MaxResults"] for page in pages} == {50}


def test_two_parameters_for_one_variable_are_an_error_that_names_both(cloud: EmbeddedCloud) -> None:
    """ECS would refuse them without naming the parameters."""
    cloud.client("ssm").put_parameter(
        Name="/local/mint-app/zz",
        Value="x",
        Type="String",
        Tags=[{"Key": "ENV_VAR_NAME", "Value": "POSTGRES_PASSWORD"}],
    )

    with pytest.raises(ManagerError, match="Both /local/mint-app/postgres_password and /local/mint-app/zz") as error:
        commands.deploy(call(cloud), body(secrets=SECRETS))

    assert error.value.title == "DuplicateSecret"
    assert changes(cloud) == []


@pytest.mark.parametrize("command", [commands.deploy, commands.runtask])
def test_a_missing_service_is_an_error_with_its_name_and_cluster(
    cloud: EmbeddedCloud, command: Callable[..., Any]
) -> None:
    """Nothing is changed."""
    given = {"cluster_id": CLUSTER, "service_ids": [APP, "nothing"], "service_id": "nothing"}

    with pytest.raises(ManagerError, match="There is no active service nothing in the cluster local-mint-app") as error:
        command(call(cloud), given)

    assert error.value.title == "ServiceNotFoundException"
    assert changes(cloud) == []


@pytest.mark.parametrize("status", ["INACTIVE", "DRAINING"])
def test_a_service_that_is_being_deleted_counts_as_missing(status: str) -> None:
    """ECS still describes it for a while."""
    shown = {"serviceName": APP, "serviceArn": "arn", "status": status}
    ecs = Scripted(None, describe_services=lambda **_: {"services": [shown]})

    with pytest.raises(ManagerError, match=f"There is no active service {APP}"):
        commands.deploy(Invocation(ecs, None, "request-1", lambda: 900), body())


def test_services_and_tasks_are_described_in_batches(cloud: EmbeddedCloud) -> None:
    """DescribeServices takes 10 at a time, DescribeTasks 100."""
    services = [f"service-{number}" for number in range(21)]
    with pytest.raises(ManagerError, match=r"service-0, .*, service-20 in"):
        commands.deploy(call(cloud), body(service_ids=services))
    asked = [r["parameters"]["services"] for r in cloud.requests("ecs", "DescribeServices")]
    assert asked == [services[:10], services[10:20], services[20:]]

    arns, looks = [f"arn:{number}" for number in range(201)], list[list[str]]()

    def describe(**given: Any) -> Any:
        looks.append(given["tasks"])
        return {"tasks": [{"taskArn": arn} for arn in given["tasks"]]}

    class Pages:
        def paginate(self, **_: Any) -> Any:
            return [{"taskArns": arns[:150]}, {"taskArns": arns[150:]}]

    many = call(cloud, describe_tasks=describe, get_paginator=lambda _: Pages())
    tasks = commands.healthcheck(many, {"cluster": CLUSTER})["tasks"]
    assert [task["taskArn"] for task in tasks] == arns
    assert looks == [arns[:100], arns[100:200], arns[200:]]


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        (commands.deploy, {"service_ids": [APP]}, "cluster_id"),
        (commands.deploy, {"cluster_id": CLUSTER}, "service_ids"),
        (commands.deploy, {"cluster_id": CLUSTER, "service_ids": []}, "service_ids"),
        (commands.deploy, {"cluster_id": CLUSTER, "service_ids": APP}, "service_ids"),
        (commands.deploy, {"cluster_id": CLUSTER, "families": []}, "families"),
        (commands.deploy, {"cluster_id": CLUSTER, "service_ids": [APP], "containers": "app"}, "containers"),
        (commands.runtask, {"cluster_id": CLUSTER, "family": "f"}, "subnets"),
        (commands.runtask, {"cluster_id": CLUSTER, "family": "", "subnets": ["s"]}, "family"),
        (commands.deploy, {"cluster_id": CLUSTER, "service_ids": [""]}, "service_ids"),
        (commands.deploy, body(image=""), "image"),
        (commands.deploy, body(secrets=[]), "secrets"),
        (commands.deploy, body(secrets=SECRETS[0]), "secrets"),
        (commands.runtask, {"cluster_id": CLUSTER}, "service_id"),
        (commands.runtask, {"cluster_id": CLUSTER, "service_id": MIGRATE, "entrypoint": "x"}, "container_id"),
        (
            commands.runtask,
            {"cluster_id": CLUSTER, "service_id": MIGRATE, "container_id": MIGRATE, "entrypoint": "echo 'x"},
            "cannot be split into words",
        ),
        (
            commands.runtask,
            {"cluster_id": CLUSTER, "service_id": MIGRATE, "container_id": MIGRATE, "entrypoint": {"a": 1}},
            "a text or a list of texts",
        ),
        (commands.healthcheck, {}, "cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_invalid_body_changes_nothing(command: Callable[..., Any], given: dict[str, Any], said: str) -> None:
    """The message has the name of the missing or malformed field."""
    own = {"serviceName": MIGRATE, "serviceArn": "arn", "taskDefinition": "arn"}
    containers = {"taskDefinitionArn": "arn", "containerDefinitions": [{"name": MIGRATE}]}
    readable = Scripted(
        None,
        describe_services=lambda **_: {"services": [own]},
        describe_task_definition=lambda **_: {"taskDefinition": containers},
        run_task=lambda **_: pytest.fail("a task was started"),
    )

    with pytest.raises(BadRequest, match=said):
        command(Invocation(readable, None, "request-1", lambda: 900), given)


def run(**more: Any) -> dict[str, Any]:
    """The body of a runtask command for the migrations."""
    return {"cluster_id": CLUSTER, "service_id": MIGRATE, **more}


def change_migration(cloud: EmbeddedCloud, **fields: Any) -> str:
    """Give the migrations' service a revision with other fields in its own container."""
    ecs = cloud.client("ecs")
    old = ecs.describe_task_definition(taskDefinition=service(cloud, MIGRATE)["taskDefinition"])["taskDefinition"]
    own, *others = old["containerDefinitions"]
    new = ecs.register_task_definition(family=old["family"], containerDefinitions=[{**own, **fields}, *others])
    arn = new["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=CLUSTER, service=MIGRATE, taskDefinition=arn)
    cloud.server.cloud.requests.clear()
    return str(arn)


def test_runtask_runs_a_task_in_the_services_network_and_reports_how_it_ended(cloud: EmbeddedCloud) -> None:
    """On Fargate, with the service's platform version and a client token, so that a repeated request is harmless."""
    reply = commands.runtask(call(cloud), run())

    (started,) = cloud.requests("ecs", "RunTask")
    own = service(cloud, MIGRATE)
    assert started["parameters"] == {
        "cluster": CLUSTER,
        "taskDefinition": own["taskDefinition"],
        "count": 1,
        "startedBy": "ecs-manager",
        "clientToken": "request-1",
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "networkConfiguration": own["networkConfiguration"],
    }
    assert changes(cloud) == [("RunTask", "")]
    assert reply == {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "taskArn": reply["taskArn"],
        "taskDefinitionArn": own["taskDefinition"],
        "taskStatus": {
            "exitCode": 0,
            "container": MIGRATE,
            "stopCode": "EssentialContainerExited",
            "stoppedReason": "Essential container in task exited",
            "startedBy": "ecs-manager",
            "taskArn": reply["taskArn"],
        },
    }


def test_runtask_uses_the_capacity_providers_of_a_service_that_has_some(cloud: EmbeddedCloud) -> None:
    """RunTask takes either a launch type or a capacity provider strategy."""
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    own = {**service(cloud, MIGRATE), "capacityProviderStrategy": strategy}

    commands.runtask(call(cloud, describe_services=lambda **_: {"services": [own], "failures": []}), run())

    (started,) = cloud.requests("ecs", "RunTask")
    assert started["parameters"]["capacityProviderStrategy"] == strategy
    assert "launchType" not in started["parameters"]


def test_runtask_reports_the_exit_code_of_a_task_that_failed(cloud: EmbeddedCloud) -> None:
    """The reply is a success: the caller judges the exit code."""
    change_migration(cloud, environment=[{"name": "EXIT_CODE", "value": "3"}])

    assert commands.runtask(call(cloud), run())["taskStatus"]["exitCode"] == 3


@pytest.mark.parametrize("entrypoint", ["migrate --to 'version 7'", ["migrate", "--to", "version 7"]])
def test_runtask_overrides_the_command_of_one_container(cloud: EmbeddedCloud, entrypoint: str | list[str]) -> None:
    """For this task only: no revision is registered."""
    commands.runtask(call(cloud), run(entrypoint=entrypoint, container_id=MIGRATE))

    (started,) = cloud.requests("ecs", "RunTask")
    override = {"name": MIGRATE, "command": ["migrate", "--to", "version 7"]}
    assert started["parameters"]["overrides"] == {"containerOverrides": [override]}
    assert changes(cloud) == [("RunTask", "")]


def test_runtask_with_an_unknown_container_lists_those_that_exist(cloud: EmbeddedCloud) -> None:
    """Nothing is started."""
    with pytest.raises(ManagerError, match=f"no container db: use one of {MIGRATE}, log-router") as error:
        commands.runtask(call(cloud), run(entrypoint="x", container_id="db"))

    assert error.value.title == "UnknownContainer"
    assert changes(cloud) == []


def test_a_container_that_was_given_a_command_is_judged_even_if_it_is_not_essential(cloud: EmbeddedCloud) -> None:
    """The caller wants the exit code of the container with the override."""
    stopped = {"lastStatus": "STOPPED", "taskArn": "arn:task"}
    codes = [{"name": MIGRATE, "exitCode": 0}, {"name": "log-router", "exitCode": 9}]
    describe = lambda **_: {"tasks": [{**stopped, "containers": codes}], "failures": []}  # noqa: E731

    plain = commands.runtask(call(cloud, describe_tasks=describe), run())
    asked = commands.runtask(call(cloud, describe_tasks=describe), run(entrypoint="x", container_id="log-router"))

    assert (plain["taskStatus"]["exitCode"], asked["taskStatus"]["exitCode"]) == (0, 9)


def test_a_container_that_did_not_start_is_an_error_with_the_reason(cloud: EmbeddedCloud) -> None:
    """For example, the image does not exist."""
    change_migration(cloud, image=image(cloud, "absent", "mint-db-migrate"))

    with pytest.raises(ManagerError, match=r"stopped without an exit code: .*CannotPullContainerError") as error:
        commands.runtask(call(cloud), run())

    assert error.value.title == "TaskFailedToStart"


def test_failures_of_run_task_are_an_error_with_the_reason(cloud: EmbeddedCloud) -> None:
    """RunTask returns them with HTTP status 200."""
    failed = {"tasks": [], "failures": [{"arn": "arn", "reason": "RESOURCE:ENI", "detail": "no free address"}]}

    with pytest.raises(ManagerError, match=r"did not start the task of .*: RESOURCE:ENI no free address") as error:
        commands.runtask(call(cloud, run_task=lambda **_: failed), run())

    assert error.value.title == "TaskNotStarted"


def test_runtask_replies_before_the_function_times_out(cloud: EmbeddedCloud) -> None:
    """It says that the task is still running, and leaves time for the reply."""
    running = {"tasks": [{"lastStatus": "RUNNING", "taskArn": "arn:task", "containers": []}], "failures": []}
    limited = call(cloud, remaining=30, describe_tasks=lambda **_: running)

    with pytest.raises(ManagerError, match="is RUNNING, and the time to wait for it is over") as error:
        commands.runtask(limited, run())

    assert error.value.title == "TaskStillRunning"
    assert limited.remaining() == commands.MARGIN_SECONDS == 5


def test_a_task_that_ecs_does_not_describe_yet_is_polled_again(cloud: EmbeddedCloud) -> None:
    """ECS is eventually consistent; a task that stays unknown is an error."""
    missing = {"tasks": [], "failures": [{"arn": "arn", "reason": "MISSING"}]}
    ecs, looks = cloud.client("ecs"), []

    def late(**given: Any) -> Any:
        looks.append(given)
        return missing if len(looks) < 4 else ecs.describe_tasks(**given)

    assert commands.runtask(call(cloud, describe_tasks=late), run())["taskStatus"]["exitCode"] == 0
    looks.clear()
    with pytest.raises(ManagerError, match=r"does not know the task arn:.*: MISSING"):
        commands.runtask(call(cloud, describe_tasks=lambda **_: missing), run())


@pytest.mark.parametrize(
    ("seen", "looks"),
    [
        ("?" * 10 + "S", 11),
        ("?" * 10 + "R" + "?" * 10 + "S", 22),
        ("?" * 99, 11),
        ("R" + "?" * 99, 12),
    ],
    ids=["known in time", "unknown twice", "never known", "forgotten"],
)
def test_a_task_is_lost_when_ecs_does_not_know_it_for_ten_seconds(seen: str, looks: int) -> None:
    """In a row. It is asked once a second."""
    states, slept, deadline = iter(seen), list[float](), [900.0]

    def describe_tasks(*, cluster: str, tasks: list[str]) -> Any:
        state = next(states)
        known = {"lastStatus": {"R": "RUNNING", "S": "STOPPED"}.get(state), "taskArn": tasks[0]}
        return {"tasks": [known] if state != "?" else [], "failures": []}

    ecs = SimpleNamespace(describe_tasks=describe_tasks)
    waiting = Invocation(ecs, None, "request-1", lambda: deadline[0], slept.append)

    if seen.endswith("S"):
        assert commands._wait(waiting, CLUSTER, "arn:task")["lastStatus"] == "STOPPED"
    else:
        with pytest.raises(ManagerError, match="does not know the task arn:task") as error:
            commands._wait(waiting, CLUSTER, "arn:task")
        assert error.value.title == "TaskLost"
    assert slept == [1.0] * (looks - 1)


@pytest.mark.parametrize(
    ("service", "where"),
    [
        ({}, {"launchType": "FARGATE"}),
        ({"launchType": "EC2"}, {"launchType": "EC2"}),
        (
            {"launchType": "FARGATE", "capacityProviderStrategy": [{"capacityProvider": "SPOT"}]},
            {"capacityProviderStrategy": [{"capacityProvider": "SPOT"}]},
        ),
        (
            {"launchType": "EXTERNAL", "networkConfiguration": {"n": 1}, "platformVersion": "1.4.0", "desiredCount": 2},
            {"launchType": "EXTERNAL", "networkConfiguration": {"n": 1}, "platformVersion": "1.4.0"},
        ),
    ],
)
def test_a_task_is_placed_where_the_services_own_tasks_are(service: dict[str, Any], where: dict[str, Any]) -> None:
    """By its capacity providers if it has some, else by its launch type."""
    assert commands._placement(service) == where


@pytest.mark.parametrize("failures", [3, 99], ids=["recovers", "keeps failing"])
def test_a_failed_describe_tasks_does_not_end_the_wait(cloud: EmbeddedCloud, failures: int) -> None:
    """The task runs anyway: its exit code is read later, or the outcome is unknown."""
    ecs, looks = cloud.client("ecs"), []

    def failing(**given: Any) -> Any:
        looks.append(given)
        if len(looks) <= failures:
            error = {"Error": {"Code": "ServerException", "Message": "try later"}}
            raise ClientError(error, "DescribeTasks")
        return ecs.describe_tasks(**given)

    waiting = call(cloud, describe_tasks=failing)
    if failures == 3:
        assert commands.runtask(waiting, run())["taskStatus"]["exitCode"] == 0
    else:
        with pytest.raises(ManagerError, match="try later") as error:
            commands.runtask(waiting, run())
        assert error.value.title == "TaskLost"


@pytest.mark.parametrize(
    "given",
    [{"cluster": CLUSTER, "serviceName": APP}, {"cluster_id": CLUSTER, "service_name": APP}],
    ids=["the old code's fields", "the old README's fields"],
)
def test_healthcheck_shows_the_tasks_of_a_service(cloud: EmbeddedCloud, given: dict[str, Any]) -> None:
    """The status of each task, and its containers."""
    tasks = commands.healthcheck(call(cloud), given)["tasks"]

    assert [task["lastStatus"] for task in tasks] == ["RUNNING", "RUNNING"]
    assert [c["name"] for c in tasks[0]["containers"]] == [APP, "log-router"]
    json.dumps(tasks)


def test_healthcheck_shows_tasks_that_have_stopped_with_all_that_the_public_manager_gives(
    cloud: EmbeddedCloud,
) -> None:
    """Each task once, with null for what ECS does not say, and times as text."""
    cloud.stop_clock()
    ran = commands.runtask(call(cloud), run())

    (task,) = commands.healthcheck(call(cloud), {"cluster": CLUSTER, "family": f"local-{MIGRATE}"})["tasks"]

    assert task["taskArn"] == ran["taskArn"]
    assert (task["lastStatus"], task["startedBy"], task["stopCode"]) == (
        "STOPPED",
        "ecs-manager",
        "EssentialContainerExited",
    )
    for field in ("connectivity", "healthStatus", "startedAt", "stoppedReason", "executionStoppedAt", "failures"):
        assert field in task
    container = task["containers"][0]
    assert (container["name"], container["exitCode"], container["reason"]) == (MIGRATE, 0, None)
    assert "containerArn" in container
    json.dumps(task)


def test_a_task_is_shown_with_the_fields_of_the_public_manager_and_no_others() -> None:
    """Programs read them by name. What ECS does not say is null."""
    fields = "taskArn taskDefinitionArn connectivity healthStatus desiredStatus lastStatus startedAt startedBy stopCode"
    of_task = [*fields.split(), "stoppedReason", "executionStoppedAt", "failures"]
    of_container = ["containerArn", "name", "image", "lastStatus", "exitCode", "reason", "healthStatus"]

    assert commands._health({}) == {**dict.fromkeys(of_task), "containers": []}
    assert commands._health({"overrides": {}, "containers": [{"exitCode": 0, "cpu": "1"}]}) == {
        **dict.fromkeys(of_task),
        "containers": [{**dict.fromkeys(of_container), "exitCode": 0}],
    }
    assert [*commands.COMMANDS] == ["deploy", "runtask", "healthcheck"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"cluster": "c"}, {"cluster": "c"}),
        ({"cluster_id": "c", "family": "f"}, {"cluster": "c", "family": "f"}),
        ({"cluster": "c", "cluster_id": "d", "serviceName": "s"}, {"cluster": "c", "serviceName": "s"}),
        ({"cluster": "c", "service_name": "s", "family": ""}, {"cluster": "c", "serviceName": "s"}),
        ({"cluster": "c", "serviceName": "s", "service_name": "t"}, {"cluster": "c", "serviceName": "s"}),
    ],
)
def test_healthcheck_asks_for_the_tasks_of_what_is_given(given: dict[str, str], asked: dict[str, str]) -> None:
    """By the names of the old code and of its README. A task that is in both answers is shown once."""
    found: list[dict[str, Any]] = []

    def paginate(**words: str) -> list[dict[str, list[str]]]:
        found.append(words)
        return [{"taskArns": ["t1"]}, {"taskArns": ["t2" if words["desiredStatus"] == "RUNNING" else "t1"]}]

    ecs = SimpleNamespace(
        get_paginator=lambda name: {"list_tasks": SimpleNamespace(paginate=paginate)}[name],
        describe_tasks=lambda cluster, tasks: {"tasks": [{"taskArn": f"{cluster}/{task}"} for task in tasks]},
    )

    reply = commands.healthcheck(Invocation(ecs, None, "1", lambda: 900.0), given)

    assert found == [asked | {"desiredStatus": "RUNNING"}, asked | {"desiredStatus": "STOPPED"}]
    assert [task["taskArn"] for task in reply["tasks"]] == ["c/t1", "c/t2"]
    assert reply["ResponseMetadata"] == {"HTTPStatusCode": 200}


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ({"family": "f", "subnets": ["a"]}, ["side", "f"], (2, "f")),
        ({"family": "f", "subnets": ["a"], "task_definition": "g:2"}, ["f", "g"], (1, "f")),
        ({"service_id": "s"}, ["side", "s"], (2, "s")),
        ({"service_id": "s"}, ["side", "f"], (2, "f")),
        ({"service_id": "s"}, ["one", "two"], (1, "one")),
        ({"service_id": "s", "container_id": "two", "entrypoint": ["x"]}, ["one", "two"], (2, "two")),
        ({"service_id": "s", "container_id": "one"}, ["one", "s"], (1, "one")),
    ],
)
def test_the_exit_code_is_that_of_the_container_that_the_task_is_run_for(
    given: dict[str, Any], names: list[str], expected: tuple[int, str]
) -> None:
    """The one that is given, else the one called like the service, like the event's family or like ECS's."""
    ended = [{"name": name, "exitCode": code} for code, name in enumerate(names, 1)]
    service = {"serviceName": "s", "serviceArn": "arn:s", "taskDefinition": "arn:task-definition/f:1"}
    described = {"taskDefinitionArn": "arn:task-definition/f:1", "family": "f", "containerDefinitions": ended}
    ecs = SimpleNamespace(
        describe_services=lambda **_: {"services": [service]},
        describe_task_definition=lambda **_: {"taskDefinition": described},
        run_task=lambda **_: {"tasks": [{"taskArn": "t"}]},
        describe_tasks=lambda **_: {"tasks": [{"taskArn": "t", "lastStatus": "STOPPED", "containers": ended}]},
    )

    reply = commands.runtask(Invocation(ecs, None, "1", lambda: 900.0), {"cluster_id": "c", **given})

    assert (reply["taskStatus"]["exitCode"], reply["taskStatus"]["container"]) == expected


@pytest.mark.parametrize("value", [datetime(2026, 9, 1, 12, tzinfo=UTC), "RUNNING"])
def test_times_are_text_in_the_reply(value: Any) -> None:
    """Lambda makes JSON of a reply."""
    shown = commands._health({"startedAt": value})

    assert shown["startedAt"] == ("2026-09-01T12:00:00+00:00" if isinstance(value, datetime) else "RUNNING")


def test_healthcheck_of_a_family_without_tasks_shows_none(cloud: EmbeddedCloud) -> None:
    """An empty list, not an error."""
    assert commands.healthcheck(call(cloud), {"cluster": CLUSTER, "family": "nothing"})["tasks"] == []


def refused(operation: str, code: str = "ThrottlingException", message: str = "Rate exceeded") -> ClientError:
    """AWS's refusal of one request."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


THROTTLED = {
    "list_tags_for_resource": "ssm",
    "describe_parameters": "ssm",
    "describe_services": "ecs",
    "describe_task_definition": "ecs",
    "register_task_definition": "ecs",
    "update_service": "ecs",
}


@pytest.mark.parametrize("operation", THROTTLED)
def test_every_request_of_a_deployment_is_repeated_while_it_is_throttled(cloud: EmbeddedCloud, operation: str) -> None:
    """Nothing was done, so that in the end there is one revision and one deployment."""
    real, tries = getattr(cloud.client(THROTTLED[operation]), operation), list[Any]()

    def busy(**given: Any) -> Any:
        tries.append(given)
        if len(tries) <= 3:
            raise refused(operation)
        return real(**given)

    operations: dict[str, Any] = {operation: busy}
    commands.deploy(call(cloud, **operations), body(image=image(cloud), secrets=SECRETS))

    assert len(tries) > 3
    assert changes(cloud) == [("RegisterTaskDefinition", "local-mint-app"), ("UpdateService", APP)]


def test_patience_ends_before_the_functions_own_time(cloud: EmbeddedCloud) -> None:
    """The reply says why, instead of a time-out that leaves everything open."""

    def busy(**_: Any) -> Any:
        raise refused("DescribeServices")

    limited = call(cloud, remaining=12, describe_services=busy)
    with pytest.raises(ClientError, match="Rate exceeded"):
        commands.deploy(limited, body())

    assert limited.remaining() == 12 - 1 - 2 - 4
    patient = call(cloud, remaining=900, describe_services=busy)
    with pytest.raises(ClientError, match="Rate exceeded"):
        commands.deploy(patient, body())
    assert patient.remaining() == 900 - 1 - 2 - 4 - 8


def test_a_task_that_is_throttled_is_started_once(cloud: EmbeddedCloud) -> None:
    """Other refusals are raised at once."""
    ecs, tries = cloud.client("ecs"), list[Any]()

    def busy(**given: Any) -> Any:
        tries.append(given)
        if len(tries) == 1:
            raise refused("RunTask")
        return ecs.run_task(**given)

    assert commands.runtask(call(cloud, run_task=busy), run())["taskStatus"]["exitCode"] == 0
    assert len(cloud.requests("ecs", "RunTask")) == 1

    def denied(**_: Any) -> Any:
        tries.append(None)
        raise refused("RunTask", "AccessDeniedException", "not for this role")

    tries.clear()
    with pytest.raises(ClientError, match="not for this role"):
        commands.runtask(call(cloud, run_task=denied), run())
    assert len(tries) == 1


HAND = {"name": "DATADOG", "valueFrom": "arn:aws:secretsmanager:us-west-2:123456789012:secret:datadog-AbCdEf"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["DATADOG", "OKTA_CLIENT_SECRET", "POSTGRES_PASSWORD"]),
        ({"allow_secret_removal": True}, ["OKTA_CLIENT_SECRET", "POSTGRES_PASSWORD"]),
        ({"allow_secret_removal": "yes"}, ["DATADOG", "OKTA_CLIENT_SECRET", "POSTGRES_PASSWORD"]),
    ],
    ids=["kept", "removed where that is asked for", "asked for by true alone"],
)
def test_a_secret_that_was_set_by_hand_is_kept(cloud: EmbeddedCloud, more: dict[str, Any], expected: list[str]) -> None:
    """Secrets Manager's are not among the parameters, so that nothing says that they are not wanted."""
    ecs = cloud.client("ecs")
    old = definition(cloud, service(cloud)["taskDefinition"])
    own = {**old["containerDefinitions"][0], "secrets": [HAND]}
    new = ecs.register_task_definition(family=old["family"], containerDefinitions=[own])
    ecs.update_service(cluster=CLUSTER, service=APP, taskDefinition=new["taskDefinition"]["taskDefinitionArn"])

    reply = commands.deploy(call(cloud), body(image=image(cloud), secrets=SECRETS, **more))

    secrets = definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"][0]["secrets"]
    assert [secret["name"] for secret in secrets] == expected


def test_the_containers_of_the_event_get_the_image(cloud: EmbeddedCloud) -> None:
    """Whatever they had before."""
    reply = commands.deploy(call(cloud), body(image="elsewhere.example/router:2", containers=["log-router"]))

    images = [c["image"] for c in definition(cloud, reply["NewTaskdefArn"])["containerDefinitions"]]
    assert images == [image(cloud, "v0"), "elsewhere.example/router:2"]


@pytest.mark.parametrize(
    ("where", "field"),
    [(lambda d: d, "newField"), (lambda d: d["containerDefinitions"][1], "containerDefinitions.newField")],
)
def test_a_field_that_botocore_does_not_know_is_refused(
    cloud: EmbeddedCloud, where: Callable[[dict[str, Any]], dict[str, Any]], field: str
) -> None:
    """It would be lost in the new revision. The message names it; null is no value."""
    arn = service(cloud)["taskDefinition"]
    kept = cloud.server.ecs.describe_definition("us-west-2", {"taskDefinition": arn})["taskDefinition"]
    where(kept).update(newField={"a": 1}, alsoNew=None, andNew=[])
    cloud.server.cloud.written = True

    with pytest.raises(ManagerError, match=rf"does not know, .*would lose them: {field}\. Update") as error:
        commands.deploy(call(cloud), body(image=image(cloud)))

    assert error.value.title == "UnknownFields"
    assert changes(cloud) == []


NETWORK = {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "assign_public_ip": True, "platform": "1.4.0"}
FAMILY = f"local-{MIGRATE}"


def test_a_family_without_a_service_gets_a_revision_and_no_rollout(cloud: EmbeddedCloud) -> None:
    """The rest of the reply is that of a service."""
    new = image(cloud, "v1", "mint-db-migrate")

    reply = commands.deploy(call(cloud), {"cluster_id": CLUSTER, "families": [FAMILY], "image": new})

    assert changes(cloud) == [("RegisterTaskDefinition", FAMILY)]
    assert reply["NewTaskdefArn"].endswith(f"/{FAMILY}:2")
    assert (reply["UpdatedServiceArns"], reply["DeploymentIds"]) == ([], {})
    assert definition(cloud, FAMILY)["containerDefinitions"][0]["image"] == new


@pytest.mark.parametrize(
    ("given", "network", "more"),
    [
        (
            NETWORK,
            {"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED"},
            {"platformVersion": "1.4.0"},
        ),
        ({"subnets": ["a", "b"]}, {"subnets": ["a", "b"], "assignPublicIp": "DISABLED"}, {}),
    ],
)
def test_a_task_of_a_family_runs_in_the_network_of_the_event(
    cloud: EmbeddedCloud, given: dict[str, Any], network: dict[str, Any], more: dict[str, Any]
) -> None:
    """On Fargate, at the family's newest revision; a repeated event starts no second task."""
    event = {"cluster_id": CLUSTER, "family": FAMILY, "client_token": "token-1", **given}

    replies = [commands.runtask(call(cloud), event) for _ in range(2)]

    started = cloud.requests("ecs", "RunTask")[0]["parameters"]
    assert started == {
        "cluster": CLUSTER,
        "taskDefinition": service(cloud, MIGRATE)["taskDefinition"],
        "count": 1,
        "startedBy": "ecs-manager",
        "clientToken": "token-1",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": network},
        **more,
    }
    assert [reply["taskStatus"]["exitCode"] for reply in replies] == [0, 0]
    assert replies[0]["taskArn"] == replies[1]["taskArn"]


def test_a_family_can_be_run_at_a_revision(cloud: EmbeddedCloud) -> None:
    """The one that was just made, whatever somebody registered after it."""
    commands.deploy(
        call(cloud), {"cluster_id": CLUSTER, "families": [FAMILY], "image": image(cloud, "v1", "mint-db-migrate")}
    )

    event = {"cluster_id": CLUSTER, "family": FAMILY, "task_definition": f"{FAMILY}:1", **NETWORK}
    assert commands.runtask(call(cloud), event)["taskDefinitionArn"].endswith(f"{FAMILY}:1")


def test_the_services_own_container_decides_and_is_named(cloud: EmbeddedCloud) -> None:
    """An essential sidecar was killed after the migration had ended."""
    change_migration(cloud)
    old = definition(cloud, service(cloud, MIGRATE)["taskDefinition"])
    own, sidecar = old["containerDefinitions"]
    new = cloud.client("ecs").register_task_definition(
        family=FAMILY, containerDefinitions=[{**sidecar, "essential": True}, own]
    )
    arn = new["taskDefinition"]["taskDefinitionArn"]
    cloud.client("ecs").update_service(cluster=CLUSTER, service=MIGRATE, taskDefinition=arn)
    codes = [{"name": "log-router", "exitCode": 137}, {"name": MIGRATE, "exitCode": 0}]
    ended = {"lastStatus": "STOPPED", "taskArn": "arn:task", "containers": codes}

    reply = commands.runtask(call(cloud, describe_tasks=lambda **_: {"tasks": [ended], "failures": []}), run())

    assert (reply["taskStatus"]["exitCode"], reply["taskStatus"]["container"]) == (0, MIGRATE)
