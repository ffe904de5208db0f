"""The named scenarios of the embedded AWS: how one is started, shown and ended, and what it holds for."""

import http.client
import json

import pytest

from local_aws import process
from local_aws.deployments import DRAIN, RETRY, SHIFT, START
from local_aws.scenarios import ALWAYS, SCENARIOS
from local_aws.tasks import FAULTS
from tests.conftest import EmbeddedCloud, Invoke
from tests.local_aws.test_ecs import deploy, described, push


def stage(cloud: EmbeddedCloud, name: object) -> tuple[int, dict[str, str]]:
    """Ask for a scenario as `invoke local.up` does. Returns the status and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.server.cloud.port, timeout=10)
    headers = {"X-Local-AWS-Token": cloud.server.cloud.token}
    connection.request("POST", "/_local/scenario", json.dumps({"name": name}), headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) or {}


@pytest.mark.parametrize("name", ["earthquake", "", None, 1])
def test_an_unknown_scenario_is_refused(cloud: EmbeddedCloud, name: object) -> None:
    """By the control path, with the names of those that there are; nothing changes."""
    stage(cloud, "slow")
    status, told = stage(cloud, name)

    assert status == 400
    assert cloud.server.cloud.scenario == "slow"
    if isinstance(name, str):
        assert "healthy, slow, crash-loop" in told["error"]


def test_the_command_refuses_an_unknown_scenario(invoke: Invoke) -> None:
    """Before anything is started."""
    done = invoke("local.up", "--port=9", "--scenario=earthquake")

    assert done.returncode == 2
    assert "'earthquake' is not a scenario: use one of healthy, slow, crash-loop" in done.stderr


def test_a_scenario_is_plain_data_that_the_embedded_aws_knows() -> None:
    """Each says what goes wrong, and all but the healthy one do something."""
    for name, scenario in SCENARIOS.items():
        assert scenario.says, name
        assert scenario.fault in ("", *FAULTS), name
        does = scenario.configuration or scenario.fault or scenario.slower > 1 or scenario.colleague
        assert bool(does or scenario.failures) == (name != "healthy"), name


def test_a_scenario_holds_for_rollouts_that_begin_in_it(cloud: EmbeddedCloud) -> None:
    """What runs already stays, and healthy lets what fails start after all."""
    cloud.stop_clock()
    stage(cloud, "crash-loop")
    assert cloud.health()["version"] == "v0"

    deploy(cloud, push(cloud, "v1"))
    cloud.advance(10 * RETRY + 0.01)
    assert described(cloud)["deployments"][0]["failedTasks"] == 10
    assert described(cloud)["deploymentConfiguration"]["deploymentCircuitBreaker"]["enable"] is False

    stage(cloud, "healthy")
    cloud.advance(START + DRAIN)
    assert described(cloud)["deployments"][0]["rolloutState"] == "COMPLETED"
    assert described(cloud)["deploymentConfiguration"]["deploymentCircuitBreaker"]["enable"] is True
    assert cloud.health()["version"] == "v1"


@pytest.mark.parametrize("name", ["slow", "paused"])
def test_what_a_scenario_holds_up_goes_on_when_it_ends(cloud: EmbeddedCloud, name: str) -> None:
    """So that the next deployment finds no rollout in progress."""
    cloud.stop_clock()
    stage(cloud, name)
    deploy(cloud, push(cloud, "v1"))
    cloud.advance(10)
    assert described(cloud)["deployments"][0]["rolloutState"] == "IN_PROGRESS"

    stage(cloud, "healthy")
    cloud.advance(START + SHIFT + DRAIN)
    assert described(cloud)["deployments"][0]["rolloutState"] == "COMPLETED"
    assert cloud.health()["version"] == "v1"


def test_a_colleague_deploys_once_for_each_rollout(cloud: EmbeddedCloud) -> None:
    """And nobody overtakes the colleague."""
    cloud.stop_clock()
    stage(cloud, "superseded")
    ours = deploy(cloud, push(cloud, "v1"))["taskDefinition"]
    cloud.advance(START)
    theirs = described(cloud)["taskDefinition"]
    cloud.advance(START + DRAIN)

    assert int(theirs.rpartition(":")[2]) == int(ours.rpartition(":")[2]) + 1
    assert described(cloud)["taskDefinition"] == theirs
    assert len(described(cloud)["deployments"]) == 1


def test_only_the_caller_is_denied(cloud: EmbeddedCloud) -> None:
    """The function has a role of its own."""
    stage(cloud, "denied")
    ecs = cloud.client("ecs")
    with pytest.raises(ecs.exceptions.ClientError, match="is not authorized to perform: ecs:DescribeServices"):
        ecs.describe_services(cluster="local-mint-app", services=["mint-app"])
    event = {"command": "healthcheck", "body": {"cluster": "local-mint-app", "serviceName": "mint-app"}}
    name = "local-ecs-manager-docker"

    reply = cloud.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))["Payload"].read()

    assert len(json.loads(reply)["data"]["response"]["tasks"]) == 2


def test_a_scenario_is_started_shown_and_ended(invoke: Invoke, cloud: EmbeddedCloud) -> None:
    """By the commands, in an embedded AWS that runs already: with the token that its file holds."""
    port = cloud.server.cloud.port
    token = process.token_path(port)
    token.parent.mkdir(exist_ok=True)

    def said(*words: str) -> tuple[int, str]:
        done = invoke(*words, f"--port={port}")
        return done.returncode, done.stderr.splitlines()[-1].rpartition(" (")[0]

    url = f"http://127.0.0.1:{port}"
    slow = f"the embedded AWS runs at {url}, in the scenario slow: {SCENARIOS['slow'].says}"
    assert said("local.up", "--scenario=slow")[0] == 2
    token.write_text(cloud.server.cloud.token)
    try:
        assert said("local.up", "--scenario=slow") == (0, slow)
        assert said("local.status") == (0, slow)
        assert said("local.up") == (0, slow)
        assert said("local.up", "--scenario=healthy") == (0, f"the embedded AWS runs at {url}")
    finally:
        token.unlink()
    assert cloud.server.cloud.staged == []


def test_a_new_cloud_is_healthy(cloud: EmbeddedCloud) -> None:
    """A reset ends the scenario with everything else."""
    stage(cloud, "throttled")
    assert cloud.server.cloud.staged[0]["times"] < ALWAYS
    cloud.server.reset()

    assert (cloud.server.cloud.scenario, cloud.server.cloud.staged) == ("healthy", [])
