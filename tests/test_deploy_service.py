"""Deploying one service: what is sent, what is refused, and the outputs for later steps."""

import json
from pathlib import Path

import pytest

from scripts.ecs import images
from scripts.ecs.images import Image
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import DENIED, Reply, stand_in

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ACCOUNT_ID": "123456789012"}
DIGEST = "sha256:" + "a" * 64
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com"


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
    ("flags", "said"),
    [
        *(
            (["--image-uri", odd], "is not an image's URI")
            for odd in ("", "<", "<AWS_ACCOUNT_ID>/a:1", "a/b:1\n", "nginx")
        ),
        (["--image-uri=r.io/b:1", "--image=b", "--tag=1"], "is the full name of the image: leave out --tag."),
        (["--image-uri=a/b:1", "--image=x"], "--image-uri is the full name of the image: leave out --image."),
        (["--image-uri=a/b:1", "--image=x", "--tag=y"], "leave out --image and --tag."),
        (["--image-uri=a/b:1", f"--digest={DIGEST}"], "leave out --digest."),
        (["--tag=x", f"--digest={DIGEST}"], "--digest and --tag exclude each other"),
        (["--no-image", "--tag=x"], "--no-image keeps the current image"),
        (["--no-image", "--image-uri=a/b:1"], "--no-image keeps the current image"),
        (["--digest="], "--digest must be sha256:"),
        (["--digest", f"{DIGEST}\n"], "--digest must be sha256:"),
        (["--tag", "v1\n"], "is not a version"),
        (["--image", "mint-backend\n"], "is not the name of an image's repository"),
        *(
            (["--service", odd], "is not the name of an ECS service")
            for odd in ("", "a b", "a\n", "a\n::error::b", "<")
        ),
        (["--service=other"], "No image is set for other"),
        (["--function-name", "f\n"], "is not the name of a Lambda function"),
        (["--qualifier", "1\n"], "is not a version or an alias"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_invalid_input_is_refused_in_one_sentence(mode: list[str], flags: list[str], said: str, invoke: Invoke) -> None:
    """Before any request, and no line of the message is a command of GitHub Actions."""
    with stand_in(lambda *_: DENIED) as aws:
        words = ("deploy-service", "--env=dev", *flags, *mode)
        done = invoke(*words, **KEYS, AWS_ENDPOINT_URL=aws.url, GITHUB_ACTIONS="true", GITHUB_SHA="v1")

    assert (done.returncode, aws.requests) == (2, [])
    assert said in done.stderr
    taken = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert [line.removeprefix("::").split(":")[0].split()[0] for line in taken] == ["warning", "error"], taken
    assert "Traceback" not in done.stderr


def outputs(path: Path) -> dict[str, str]:
    """The outputs of a step, as GitHub reads them."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


@pytest.mark.parametrize("by", ["tag", "digest", "uri"])
def test_deployment_id_and_digest_are_outputs(by: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path) -> None:
    """However the image is given: ECR knows the digest of a tag."""
    found = cloud.client("ecr").describe_images(repositoryName="mint-backend", imageIds=[{"imageTag": "v0"}])
    digest = found["imageDetails"][0]["imageDigest"]
    uri = f"127.0.0.1:{cloud.server.cloud.port}/mint-backend:v0"
    flag = {"tag": "--tag=v0", "digest": f"--digest={digest}", "uri": f"--image-uri={uri}"}[by]
    file = tmp_path / "outputs"

    done = invoke("deploy-service", flag, **cloud.env, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(file))

    assert done.returncode == 0, done.stderr
    service = cloud.client("ecs").describe_services(cluster="local-mint-app", services=["mint-app"])["services"][0]
    assert outputs(file) == {
        "task-definition": service["taskDefinition"],
        "deployment-id": service["deployments"][0]["id"],
        "digest": digest,
    }


def test_outputs_that_cannot_be_read_are_empty(invoke: Invoke, tmp_path: Path) -> None:
    """A role that may read neither ECS nor ECR can still deploy."""
    response = {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "NewTaskdefArn": "arn:aws:ecs:x:1:task-definition/mint-app:42",
    }
    reply = Reply(json.dumps({"msg": "response received", "data": {"response": response}}).encode())
    file = tmp_path / "outputs"
    with stand_in(lambda _, path: reply if "functions" in path else DENIED) as aws:
        words = ("deploy-service", "--env=dev", "--tag=v1")
        done = invoke(*words, **KEYS, AWS_ENDPOINT_URL=aws.url, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(file))

    assert done.returncode == 0, done.stderr
    assert outputs(file) == {"task-definition": response["NewTaskdefArn"], "deployment-id": "", "digest": ""}


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
def test_an_invalid_reply_is_a_failure_in_one_sentence(response: object, invoke: Invoke) -> None:
    """Without a traceback."""
    reply = Reply(json.dumps({"data": {"response": response}}).encode())
    with stand_in(lambda _, path: reply if "functions" in path else DENIED) as aws:
        done = invoke("deploy-service", "--env=dev", "--tag=v1", **KEYS, AWS_ENDPOINT_URL=aws.url)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dev-ecs-manager-docker ")
    assert "Traceback" not in done.stderr


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
def test_the_deployment_id_is_the_one_in_the_managers_reply(
    reported: object, expected: str, invoke: Invoke, tmp_path: Path
) -> None:
    """So it is known even to a role that may not read ECS."""
    response = {
        "ResponseMetadata": {"HTTPStatusCode": 200},
        "NewTaskdefArn": "arn:aws:ecs:us-west-2:1:task-definition/mint-app:42",
        "DeploymentIds": reported,
    }
    reply = Reply(json.dumps({"data": {"response": response}}).encode())
    output = tmp_path / "output"
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output)}
    with stand_in(lambda _, path: reply if "functions" in path else DENIED) as aws:
        done = invoke("deploy-service", "--env=dev", "--no-image", **KEYS, **actions, AWS_ENDPOINT_URL=aws.url)

    assert done.returncode == 0, done.stderr
    assert f"deployment-id={expected}\n" in output.read_text()
