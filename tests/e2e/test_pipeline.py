"""`invoke deploy` on the embedded AWS: the requests that it sends, and the state afterwards."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, EmbeddedCloud, Invoke

FIRST, SECOND = "1" * 40, "2" * 40
DIGEST = "sha256:" + "0" * 64
VARIES = [
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"answers: .*? The image", "answers: … The image"),
        (r"(is built in) .*", r"\1 …"),
        (r"\d{8}T[\d.]+Z", "TIME"),
        (r"sha256:[0-9a-f]+…?", "DIGEST"),
        (r"\b([0-9a-f]{40}|[0-9a-f]{7})\b…?", "VERSION"),
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"\([\d,]+ bytes\)|\(\d+ s\)", "(…)"),
    )
]
CHANGES = {
    "Invoke",
    "RegisterTaskDefinition",
    "UpdateService",
    "RunTask",
    "PutObject",
    "DeleteObjects",
    "PutImage",
    "CreateInvalidation",
}


def changes(cloud: EmbeddedCloud) -> list[dict[str, Any]]:
    """The requests that change something, in order; uploads of one stage come in any order."""
    return [request for request in cloud.requests() if request["operation"] in CHANGES]


def is_change(request: dict[str, Any]) -> bool:
    """Whether a request changes more than the lock and the receipt of the run."""
    own = ("/_release/lease.json", "/_release/receipts/")
    return request["operation"] in CHANGES and not any(part in request["path"] for part in own)


def deploy(invoke: Invoke, cloud: EmbeddedCloud, version: str, *words: str) -> str:
    """Deploy a version. Returns stderr."""
    done = invoke("deploy", *words, **cloud.env, GITHUB_SHA=version, DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 0, done.stderr
    return done.stderr


def shape(narrated: str) -> list[str]:
    """The lines of a deployment without what varies between runs: hashes, hosts, folders, times, sizes.

    The lines printed while it waits are left out: they depend on when it looks.
    """
    lines = []
    for line in narrated.splitlines():
        for pattern, plain in VARIES:
            line = pattern.sub(plain, line)
        waits = line.startswith(("ECS:", "http:"))
        if line and not waits and "starting the embedded AWS" not in line:
            lines.append(line)
    return lines


def test_the_readme_shows_the_output_of_a_first_deployment(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    _, _, block = (ROOT / "README.md").read_text().partition("    $ make deploy\n")
    shown = textwrap.dedent(block.partition("\n\n")[0])

    said = deploy(invoke, cloud, FIRST, "--env=local")

    assert shape(said) == shape(shown)


def test_two_versions_are_deployed_one_after_the_other(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Every request has the documented payload, and the second version answers at the end."""
    assert cloud.health()["version"] == "v0"

    said = deploy(invoke, cloud, FIRST)
    assert cloud.health()["version"] == FIRST
    assert said.splitlines()[-1].startswith("local runs 1111111 (")
    first = len(cloud.requests())
    said = deploy(invoke, cloud, SECOND)
    assert cloud.health()["version"] == SECOND
    assert "mint-app rolls out local-mint-app:3 (was local-mint-app:2)" in said

    second = cloud.requests()[first:]
    # The only errors: ECR does not have the two images yet.
    assert [r["operation"] for r in second if r["status"] >= 400 and r["service"] == "ecr"] == ["DescribeImages"] * 2
    assert [r["operation"] for r in second if r["status"] >= 400 and r["service"] != "ecr"] == []
    registry = f"127.0.0.1:{cloud.server.cloud.port}"
    invoked = [request for request in second if request["operation"] == "Invoke"]
    assert [request["query"]["Qualifier"] for request in invoked] == ["2", "$LATEST", "$LATEST", "$LATEST"]
    assert [request["parameters"] for request in invoked] == [
        {
            "command": "runtask",
            "body": {"cluster_id": "local-mint-app", "service_id": "mint-app-db-clean"},
        },
        {
            "command": "deploy",
            "body": {
                "cluster_id": "local-mint-app",
                "service_ids": ["mint-app-db-migrate"],
                "image": f"{registry}/mint-db-migrate:{SECOND}",
            },
        },
        {
            "command": "runtask",
            "body": {"cluster_id": "local-mint-app", "service_id": "mint-app-db-migrate"},
        },
        {
            "command": "deploy",
            "body": {
                "cluster_id": "local-mint-app",
                "service_ids": ["mint-app"],
                "secrets": ["^/local/mint-app/\\S+$"],
                "image": f"{registry}/mint-backend:{SECOND}",
            },
        },
    ]
    order = [request["operation"] for request in second if is_change(request)]
    assert order[:10] == [
        "Invoke",
        "RunTask",
        "Invoke",
        "RegisterTaskDefinition",
        "UpdateService",
        "Invoke",
        "RunTask",
        "Invoke",
        "RegisterTaskDefinition",
        "UpdateService",
    ]
    manifests = [r["path"] for r in second if r["service"] == "registry" and r["method"] == "PUT"]
    assert manifests == [
        f"/v2/mint-backend/manifests/{SECOND}",
        f"/v2/mint-db-migrate/manifests/{SECOND}",
    ]
    released = [r["path"].removeprefix("/local-mint-app-static/") for r in second if r["operation"] == "PutObject"]
    site = [key for key in released if not key.startswith("_release/")]
    # The build contains the version: one chunk and the page that references it change, and the page is put last.
    assert len(site) == 2
    assert site[0].startswith("assets/index-")
    assert site[1] == "index.html"


def test_the_task_definition_keeps_everything_but_image_and_secrets(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Volumes, platform, storage, tags and the sidecar are kept; secrets are the tagged parameters."""
    ecs = cloud.client("ecs")

    def current() -> dict[str, Any]:
        service = ecs.describe_services(cluster="local-mint-app", services=["mint-app"])["services"][0]
        found = ecs.describe_task_definition(taskDefinition=service["taskDefinition"], include=["TAGS"])
        own = {"taskDefinitionArn", "revision", "registeredAt"}
        return {**{k: v for k, v in found["taskDefinition"].items() if k not in own}, "tags": found["tags"]}

    before = current()
    deploy(invoke, cloud, FIRST)
    after = current()

    app = after["containerDefinitions"][0]
    assert app["image"].endswith(f"/mint-backend:{FIRST}")
    assert app["secrets"] == [
        {"name": "OKTA_CLIENT_SECRET", "valueFrom": "/local/mint-app/okta_client_secret"},
        {"name": "POSTGRES_PASSWORD", "valueFrom": "/local/mint-app/postgres_password"},
    ]
    for container in (before["containerDefinitions"][0], app):
        del container["image"], container["secrets"]
    assert before == after


def test_deploying_a_version_again_only_restarts_the_services(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """The images are skipped, no revision is registered, nothing is uploaded."""
    deploy(invoke, cloud, FIRST)
    first = len(cloud.requests())
    said = deploy(invoke, cloud, FIRST)

    *again, last = [r["operation"] for r in cloud.requests()[first:] if is_change(r)]
    assert again == ["Invoke", "RunTask", "Invoke", "UpdateService", "Invoke", "RunTask", "Invoke", "UpdateService"]
    # That of the lock.
    assert last == "DeleteObjects"
    assert said.count("skipping the build and the push") == 2


def test_a_dry_run_writes_nothing_and_shows_every_payload(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """The run then sends exactly these payloads."""
    done = invoke("deploy", "--dry-run", "--json", **cloud.env, GITHUB_SHA=FIRST)
    assert done.returncode == 0, done.stderr
    assert changes(cloud) == []
    assert cloud.requests("registry") == []
    planned = [
        step["plan"]["invocation"]["payload"]
        for step in json.loads(done.stdout)["steps"]
        if "invocation" in step["plan"]
    ]

    deploy(invoke, cloud, FIRST)

    assert [request["parameters"] for request in cloud.requests(operation="Invoke")] == planned


@pytest.mark.parametrize(
    ("service", "code", "said"),
    [
        (
            "mint-app-db-migrate",
            1,
            "migrate the database failed: The task of mint-app-db-migrate ended with exit code 3",
        ),
        ("mint-app", 4, "mint-app was rolled back"),
    ],
    ids=["the migration fails", "the new version crashes"],
)
def test_a_deployment_stops_at_the_first_failure(
    cloud: EmbeddedCloud, invoke: Invoke, service: str, code: int, said: str
) -> None:
    """It says which steps were not done; the old version answers and the frontend is untouched."""
    ecs = cloud.client("ecs")
    current = ecs.describe_services(cluster="local-mint-app", services=[service])["services"][0]["taskDefinition"]
    definition = ecs.describe_task_definition(taskDefinition=current)["taskDefinition"]
    bad = {"name": "EXIT_CODE", "value": "3"} if code == 1 else {"name": "CRASH", "value": "1"}
    definition["containerDefinitions"][0]["environment"].append(bad)
    fields = ("family", "containerDefinitions", "networkMode", "cpu", "memory", "requiresCompatibilities")
    new = ecs.register_task_definition(**{key: definition[key] for key in fields})["taskDefinition"]
    record = cloud.server.ecs.services["us-west-2", "local-mint-app", service]
    record.deployments[0].definition = cloud.server.ecs.describe_definition(
        "us-west-2", {"taskDefinition": new["taskDefinitionArn"]}
    )["taskDefinition"]

    done = invoke("deploy", **cloud.env, GITHUB_SHA=FIRST, DOCKER_HOST="unix:///nowhere")

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Not done: " in done.stderr.splitlines()[-1]
    assert "release the frontend" in done.stderr.splitlines()[-1]
    assert cloud.health()["version"] == "v0"
    assert published(cloud) == []


def published(cloud: EmbeddedCloud) -> list[str]:
    """The files of the site that were put: locks, receipts and records of releases do not count."""
    return [request["path"] for request in cloud.requests("s3", "PutObject") if "/_release/" not in request["path"]]


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_that_cannot_be_pulled_ends_with_exit_code_4(
    by: str, cloud: EmbeddedCloud, invoke: Invoke, build: Path
) -> None:
    """With the workflow's flags; the previous version answers, and the frontend is untouched."""
    (digest,) = cloud.push("absent", "mint-backend")
    cloud.server.stage("image-missing")
    named = ["--tag=absent"] if by == "tag" else ["--tag=absent", f"--digest={digest}"]
    found = cloud.client("ecr").describe_images(repositoryName="mint-db-migrate", imageIds=[{"imageTag": "v0"}])
    migrations = f"--migration-digest={found['imageDetails'][0]['imageDigest']}"

    done = invoke("deploy", *named, migrations, "--no-build", f"--build-dir={build}", **cloud.env)

    assert done.returncode == 4, done.stderr
    assert "deploy the service failed: local: absent of mint-app was rolled back" in done.stderr
    assert "CannotPullContainerError" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("Not done: release the frontend, look at the service again.")
    assert cloud.health()["version"] == "v0"
    assert published(cloud) == []


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_healthcheck_in_another_job_also_ends_with_exit_code_4(
    by: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """It gets the outputs of deploy-service as flags."""
    file = tmp_path / "outputs"
    (digest,) = cloud.push("absent", "mint-backend")
    cloud.server.stage("image-missing")
    named = "--tag=absent" if by == "tag" else f"--digest={digest}"
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(file)}
    started = invoke("deploy-service", named, "--no-wait", **cloud.env, **actions)
    assert started.returncode == 0, started.stderr
    told = dict(line.split("=", 1) for line in file.read_text().splitlines())

    flags = (f"--deployment-id={told['deployment-id']}", f"--digest={told['digest']}")
    done = invoke("healthcheck", "--version=absent", "--timeout=30", *flags, **cloud.env)

    assert told["deployment-id"].startswith("ecs-svc/")
    assert done.returncode == 4, done.stderr
    assert "CannotPullContainerError" in done.stderr
