"""Deploying one service: the requests, what is refused, how its rollout is watched, and the outputs for later steps."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import deploy_service
from scripts.deploy_service import Deployed, Wish, carry_out, still
from scripts.ecs import images, manager
from scripts.ecs.images import Image
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.run import Run
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import Reply, answering, stand_in

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ACCOUNT_ID": "123456789012"}
DIGEST = "sha256:" + "a" * 64
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com"
CLUSTER, SERVICE = "local-mint-app", "mint-app"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (f"{ECR}/mint-backend:abc", Image(ECR, "mint-backend", "abc")),
        (f"{ECR}/mint-backend@{DIGEST}", Image(ECR, "mint-backend", digest=DIGEST)),
        (f"{ECR}/mint-backend:abc@{DIGEST}", Image(ECR, "mint-backend", "abc", DIGEST)),
        ("127.0.0.1:4566/team/app", Image("127.0.0.1:4566", "team/app")),
        ("localhost/app:1", Image("localhost", "app", "1")),
        ("library/nginx:1", Image("", "library/nginx", "1")),
        ("nginx", Image("", "nginx")),
        ("x" * 512, Image("", "x" * 512)),
        *(
            (odd, None)
            for odd in ("", "<", "a b", "a:", "a@sha256:1", "A/b", "a/b:1\n", "a\n/b", "a.b/../c", "x" * 513)
        ),
        ("r.io/a:" + "t" * 129, None),
    ],
)
def test_image_references_are_parsed_and_written(reference: str, expected: Image | None) -> None:
    """Registry, repository, tag and digest; None if it is not an image reference."""
    found = images.parse(reference)

    assert found == expected
    assert found is None or str(found) == reference


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        *(
            ({"image_uri": odd}, "is not an image's URI")
            for odd in ("", "<", "<AWS_ACCOUNT_ID>/a:1", "a/b:1\n", "nginx")
        ),
        ({"image_uri": "r.io/b:1", "image": "b", "tag": "1"}, "is the full name of the image: leave out --tag."),
        ({"image_uri": "a/b:1", "image": "x"}, "--image-uri is the full name of the image: leave out --image."),
        ({"image_uri": "a/b:1", "image": "x", "tag": "y"}, "leave out --image and --tag."),
        ({"image_uri": "a/b:1", "digest": DIGEST}, "leave out --digest."),
        ({"tag": "x", "digest": DIGEST}, "--digest and --tag exclude each other"),
        ({"no_image": True, "tag": "x"}, "--no-image keeps the current image"),
        ({"no_image": True, "image_uri": "a/b:1"}, "--no-image keeps the current image"),
        ({"digest": ""}, "--digest must be sha256:"),
        ({"digest": f"{DIGEST}\n"}, "--digest must be sha256:"),
        ({"tag": "v1\n"}, "is not a version"),
        ({"image": "mint-backend\n"}, "is not the name of an image's repository"),
        *(({"service": odd}, "is not the name of an ECS service") for odd in ("", "a b", "a\n", "a\n::error::b", "<")),
        ({"service": "other"}, "No image is set for other"),
        ({"function_name": "f\n"}, "is not the name of a Lambda function"),
        ({"qualifier": "1\n"}, "is not a version or an alias"),
        ({"wait_until": "stable"}, "--wait-until must be complete or traffic, not 'stable'"),
        ({"timeout": "soon"}, "--timeout must be a number of seconds"),
        ({"no_wait": True, "resume": True}, "--no-wait watches nothing"),
        ({"no_wait": True, "abort_on_failure": True}, "--no-wait watches nothing"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry run"])
def test_invalid_flags_are_refused(
    dry_run: bool, wish: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, before any request."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_SHA", "v1")
    with stand_in(lambda *_: Reply(b"")) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        run = Run("deploy-service", settings.environment("dev", dry_run=dry_run), dry_run=dry_run)
        with pytest.raises(Refused) as refused:
            carry_out(run, Wish(**wish))

    assert said in str(refused.value)
    assert aws.requests == []


def outputs(path: Path) -> dict[str, str]:
    """The outputs of a step, from GITHUB_OUTPUT."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


@pytest.mark.parametrize("by", ["tag", "digest", "uri"])
def test_later_jobs_get_the_deployment_id_and_the_digest(
    by: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """ECR knows the digest of a tag."""
    found = cloud.client("ecr").describe_images(repositoryName="mint-backend", imageIds=[{"imageTag": "v0"}])
    digest = found["imageDetails"][0]["imageDigest"]
    uri = f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:v0"
    flags = {
        "tag": ["--tag=v0"],
        "digest": [f"--digest={digest}", "--no-wait"],
        "uri": [f"--image-uri={uri}", "--no-wait"],
    }
    file = tmp_path / "outputs"

    done = invoke("deploy-service", *flags[by], **cloud.env, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(file))

    assert done.returncode == 0, done.stderr
    service = cloud.client("ecs").describe_services(cluster=CLUSTER, services=[SERVICE])["services"][0]
    assert outputs(file) == {
        "task-definition": service["taskDefinition"],
        "deployment-id": service["deployments"][0]["id"],
        "digest": digest,
        "image": uri if by != "digest" else f"{uri.removesuffix(':v0')}@{digest}",
        "site": cloud.url,
    }


def test_a_role_that_may_read_nothing_deploys_and_puts_out_what_is_known(invoke: Invoke, tmp_path: Path) -> None:
    """Without a proof the outcome is unknown; that the rollout is not watched can be asked for."""
    response = {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "NewTaskdefArn": "arn:aws:ecs:x:1:task-definition/mint-app:42",
        "DeploymentIds": {"mint-app": "ecs-svc/123"},
    }
    reply = Reply(json.dumps({"msg": "response received", "data": {"response": response}}).encode())
    file = tmp_path / "outputs"
    with stand_in(answering(reply)) as aws:
        words = ("deploy-service", "--env=dev", "--no-image")
        env = {**KEYS, "AWS_ENDPOINT_URL": aws.url, "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(file)}
        watched, started = invoke(*words, **env), invoke(*words, "--no-wait", **env)

    assert (watched.returncode, started.returncode) == (3, 0), watched.stderr + started.stderr
    assert "the restart of mint-app is not proven to run" in watched.stderr
    assert "ECS could not be read. To go on: `invoke deploy-service --resume --env=dev --no-image`." in watched.stderr
    assert len(aws.lambda_calls()) == 2
    known = {"task-definition": response["NewTaskdefArn"], "deployment-id": "ecs-svc/123"}
    assert outputs(file) == {**known, "digest": "", "image": "", "site": "https://dev.mint.cms.gov"}


@pytest.mark.parametrize(
    "response",
    [
        {"ResponseMetadata": []},
        {"ResponseMetadata": "200"},
        {"title": ["a"], "message": None},
        {"title": {"a": 1}},
        {"ResponseMetadata": {"HTTPStatusCode": [200]}},
    ],
)
def test_a_reply_of_another_form_is_a_failure_in_one_sentence(response: object) -> None:
    """Without a traceback."""
    with pytest.raises(DeployError, match=r"^the manager [^\n]*$"):
        manager.manager_response({"data": {"response": response}}, "the manager")


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"mint-app": "ecs-svc/123"}, "ecs-svc/123"),
        ({"other": "ecs-svc/123"}, ""),
        ({"mint-app": "ecs-svc/123\n::error::x"}, ""),
        ({"mint-app": 5}, ""),
        ("ecs-svc/123", ""),
        (None, ""),
    ],
)
def test_the_deployment_is_the_one_that_the_manager_reports(reported: object, expected: str) -> None:
    """UpdateService returned its id, so that nobody has to look for it."""
    assert manager.deployment_id({"DeploymentIds": reported}, "mint-app") == expected


def a_run() -> Run:
    """A run of the command in this process."""
    return Run("deploy-service", settings.find("local"))


def deployed(run: Run) -> Deployed:
    """The result of its last step."""
    result = run.steps[-1].result
    assert isinstance(result, Deployed)
    return result


def definition(cloud: EmbeddedCloud, **change: Any) -> None:
    """Give the service's container other fields, in a revision that rolls out."""
    ecs = cloud.client("ecs")
    own = ecs.describe_services(cluster=CLUSTER, services=[SERVICE])["services"][0]
    old = ecs.describe_task_definition(taskDefinition=own["taskDefinition"])["taskDefinition"]
    first, *others = old["containerDefinitions"]
    new = ecs.register_task_definition(family=old["family"], containerDefinitions=[{**first, **change}, *others])
    arn = new["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=CLUSTER, service=SERVICE, taskDefinition=arn)


def test_a_deployment_whose_answer_is_lost_is_found_in_ecs_and_watched(
    cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function is called once."""
    cloud.push("v1", "mint-backend")
    cloud.fail(service="lambda", operation="Invoke", after=True, drop=True)

    found = carry_out(a_run(), Wish(tag="v1"))

    assert found
    assert (found.verdict, found.line()) == ("succeeded", "local runs v1 (was v0)")
    assert found.proof[0].startswith("in ECS, 2 of 2 running tasks are on local-mint-app:2 and sha256:")
    assert len(cloud.requests("lambda", "Invoke")) == 1
    assert "ECS shows that it was started: ecs-svc/" in capsys.readouterr().err


def test_an_image_by_its_digest_is_proven_at_the_endpoint_too(cloud: EmbeddedCloud) -> None:
    """Its tag in the registry is the version that is to answer."""
    (digest,) = cloud.push("v1", "mint-backend")

    found = carry_out(a_run(), Wish(digest=digest))

    assert found
    assert (found.version, found.line()) == ("v1", "local runs v1 (was v0)")
    assert found.proof[1] == "its endpoint gave 3 answers with it in a row"


def test_a_call_that_is_lost_and_has_started_nothing_is_not_repeated(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, with the command that goes on; that command then says that nothing has started."""
    cloud.push("v1", "mint-backend")
    monkeypatch.setattr(deploy_service, "ADOPT", 0.5)
    cloud.fail(service="lambda", operation="Invoke", drop=True)

    with pytest.raises(
        OutcomeUnknown, match=r"no new deployment.*`invoke deploy-service --resume --env=local --tag=v1`"
    ):
        carry_out(a_run(), Wish(tag="v1"))
    with pytest.raises(OutcomeUnknown, match="In ECS, mint-app has not started"):
        carry_out(a_run(), Wish(tag="v1", resume=True, timeout="1"))
    assert len(cloud.requests("lambda", "Invoke")) == 1


def test_a_deployment_that_was_started_before_can_be_watched_again(cloud: EmbeddedCloud) -> None:
    """By its image, without another call."""
    cloud.push("v1", "mint-backend")
    started = carry_out(a_run(), Wish(tag="v1", no_wait=True))
    run = a_run()

    resumed = carry_out(run, Wish(tag="v1", resume=True))

    assert started
    assert resumed
    assert (started.verdict, resumed.verdict) == ("in progress", "succeeded")
    assert [step.name for step in run.steps] == ["watch mint-app"]
    assert len(cloud.requests("lambda", "Invoke")) == 1
    assert still(settings.find("local"), started) == started


def test_a_deployment_that_is_given_up_says_why_and_can_be_rolled_back(
    cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tasks die, and no circuit breaker ends it. Also in the result, which the receipt is made of."""
    cloud.push("v1", "mint-backend")
    cloud.server.stage("crash-loop")
    run, again = a_run(), a_run()

    with pytest.raises(DeployError) as failure:
        carry_out(run, Wish(tag="v1"))
    with pytest.raises(RolledBack):
        carry_out(again, Wish(tag="v1", resume=True, abort_on_failure=True))

    assert failure.value.code == 1
    assert "tasks died: EssentialContainerExited: Essential container in task exited; mint-app exited" in str(
        failure.value
    )
    assert "`invoke deploy-service --resume --env=local --tag=v1 --abort-on-failure` has ECS roll it back" in str(
        failure.value
    )
    assert (deployed(run).verdict, deployed(again).verdict) == ("failed", "rolled back")
    assert len(cloud.requests("ecs", "StopServiceDeployment")) == 1
    assert "the last lines of mint-app, task " in capsys.readouterr().err


def test_somebody_elses_deployment_after_ours_is_noticed(cloud: EmbeddedCloud) -> None:
    """The pipeline looks again at its end."""
    cloud.push("v1", "mint-backend")
    ours = carry_out(a_run(), Wish(tag="v1"))
    assert ours
    definition(cloud, cpu=1)

    with pytest.raises(DeployError, match="local: v1 of mint-app was superseded by another deployment"):
        still(settings.find("local"), ours)
    assert still(settings.find("local"), replace(ours, deployment_id="")) == replace(ours, deployment_id="")
