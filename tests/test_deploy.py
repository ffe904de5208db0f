"""The pipeline: what it refuses before its first change, what its steps pass on, and how it ends."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT, EmbeddedCloud, Invoke

SETTINGS = (ROOT / "environments.toml").read_text()
DIGEST = "sha256:" + "0" * 64
ENGINE = {"DOCKER_HOST": "unix:///nowhere"}


def digest_of(cloud: EmbeddedCloud, repository: str) -> str:
    """The digest of the image v0 that the embedded AWS is seeded with."""
    found = cloud.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": "v0"}])
    return str(found["imageDetails"][0]["imageDigest"])


@pytest.mark.parametrize("flag", ["--digest", "--migration-digest"])
@pytest.mark.parametrize("value", ["", "sha256:", "sha256:1", f"{DIGEST}\n", f"app@{DIGEST}", "<"])
@pytest.mark.parametrize("mode", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_an_invalid_digest_is_refused_before_any_request(
    flag: str, value: str, mode: list[str], cloud: EmbeddedCloud, invoke: Invoke
) -> None:
    """A workflow that lost an output passes an empty one."""
    done = invoke("deploy", "--tag=v0", flag, value, *mode, **cloud.env)

    assert done.returncode == 2
    assert f"{flag} must be sha256: and 64 hexadecimal digits" in done.stderr
    assert cloud.requests() == []


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        ("", ["--no-build", "--build-dir=/nowhere"], "/nowhere"),
        ('frontend.build = ["no-such-program"]', [], "no-such-program is not installed"),
        ('frontend.bucket = "Not a bucket"', [], "bucket"),
        ('healthcheck = "ftp://x/"', [], "is not the URL of a healthcheck"),
        ('service.name = "a b"', [], "is not the name of an ECS service"),
        ('migrations.service = "a b"', [], "is not the name of an ECS service"),
        ("confirm = true", ["--yes"], "The database of local is never cleaned"),
    ],
)
def test_requirements_of_later_steps_are_checked_before_the_first_change(
    change: str, flags: list[str], said: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """Exit code 2, and AWS received no request."""
    settings = tmp_path / "settings.toml"
    name = change.partition(" = ")[0]
    table, _, key = name.rpartition(".")
    head = f"[environments.local{'.' + table if table == 'frontend' else ''}]\n"
    before, found, after = SETTINGS.partition(head)
    kept = [line for line in after.splitlines() if not line.startswith(f"{key if table == 'frontend' else name} = ")]
    line = change if table != "frontend" else change.removeprefix("frontend.")
    settings.write_text("\n".join([before + found + line, *kept]))

    done = invoke("deploy", "--tag=v0", *flags, **cloud.env, **ENGINE, ENVIRONMENTS_FILE=str(settings))

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert cloud.requests() == []


def test_the_deployment_that_was_started_is_watched_and_is_in_the_receipt(
    cloud: EmbeddedCloud, invoke: Invoke, build: Path
) -> None:
    """By its id, with the digest that was asked for. One receipt holds all steps, the migrations and the release."""
    digest = digest_of(cloud, "mint-backend")
    words = ("deploy", "--tag=v0", f"--digest={digest}", "--no-build", f"--build-dir={build}", "--json")

    done = invoke(*words, **cloud.env)

    assert done.returncode == 0, done.stderr
    steps = {step["name"]: step["result"] for step in json.loads(done.stdout)["steps"]}
    deployed, watched = steps["deploy mint-app"], steps["watch mint-app"]
    assert watched["deployment_id"] == deployed["deployment_id"] != ""
    assert watched["since"] == deployed["since"] > 0
    assert watched["digest"] == deployed["digest"] == digest
    assert done.stderr.splitlines()[-1].startswith("local runs v0 (")
    stored = cloud.objects("local-mint-app-static")
    [receipt] = [json.loads(body) for key, (_, body) in stored.items() if key.startswith("_release/receipts/")]
    assert (receipt["command"], receipt["version"], receipt["digest"]) == ("deploy", "v0", digest)
    assert (receipt["verdict"], receipt["exit_code"]) == ("succeeded", 0)
    assert receipt["deployment_id"] == deployed["deployment_id"]
    assert receipt["release"] == steps["release"]["release"]
    assert [one["service"] for one in receipt["services"]] == ["mint-app-db-migrate"]
    assert [phase["name"] for phase in receipt["phases"]] == [step["name"] for step in json.loads(done.stdout)["steps"]]
    assert receipt["proof"]


def test_a_deployment_by_somebody_else_is_noticed_at_the_end(cloud: EmbeddedCloud, invoke: Invoke, build: Path) -> None:
    """The version answered, but another deployment started while the frontend was released."""
    cloud.fail(service="s3", operation="PutObject", path="index.html", delay=2)

    def is_released() -> bool:
        return any(request["path"].endswith("/index.html") for request in cloud.requests("s3", "PutObject"))

    def deploy_when_the_frontend_is_released() -> None:
        deadline = time.monotonic() + 60
        while not is_released() and time.monotonic() < deadline:
            time.sleep(0.05)
        cloud.client("ecs").update_service(cluster="local-mint-app", service="mint-app", forceNewDeployment=True)

    with ThreadPoolExecutor(1) as somebody:
        theirs = somebody.submit(deploy_when_the_frontend_is_released)
        done = invoke("deploy", "--tag=v0", "--no-build", f"--build-dir={build}", **cloud.env)
        theirs.result()

    assert done.returncode == 1, done.stderr
    assert "look at the service again failed: local: v0 of mint-app was superseded" in done.stderr
