"""The deployment with a real Docker engine: images are built, pushed, and run as containers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from scripts import build_image
from tests.conftest import ROOT, Invoke

FIRST, SECOND = "a" * 40, "b" * 40
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def engine() -> None:
    """Needs a Docker engine and a C compiler. With REQUIRE_DOCKER set, the tests fail without them."""
    fault = build_image.engine_fault() or ("" if shutil.which("cc") else "there is no C compiler.")
    if fault and os.environ.get("REQUIRE_DOCKER"):
        pytest.fail(fault)
    if fault:
        pytest.skip(fault)
    subprocess.run(["make", "--silent", "--directory=examples/backend"], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def url(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded AWS in its own process, whose ECS runs real containers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("local_aws") / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "local_aws", f"--port={port}", "--containers"],
            cwd=ROOT,
            env={**os.environ, "AWS_ENDPOINT_URL": address},
            stderr=stderr,
        )
    deadline = time.monotonic() + 60
    while not ready(address):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(timeout=60)
    assert "Traceback" not in log.read_text()


def ready(address: str) -> bool:
    """Whether the embedded AWS is seeded."""
    try:
        with urllib.request.urlopen(f"{address}/_local/status") as answer:
            return bool(json.load(answer)["ready"])
    except OSError:
        return False


def containers(url: str) -> list[str]:
    """The images of the containers that this embedded AWS runs."""
    label = f"label=local-aws={url.rpartition(':')[2]}"
    told = subprocess.run(
        ["docker", "ps", f"--filter={label}", "--format={{.Image}}"], capture_output=True, text=True, check=True
    )
    return told.stdout.split()


def health(url: str) -> dict[str, str]:
    """The healthcheck's response; empty before the first deployment, whose images have no layers."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/healthcheck") as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        error.close()
        return {}


def test_two_versions_are_built_pushed_and_run(url: str, invoke: Invoke) -> None:
    """Each one answers with its own version."""
    env = {"APP_ENV": "local", "AWS_ENDPOINT_URL": url}
    for version in (FIRST, SECOND):
        done = invoke("deploy", **env, GITHUB_SHA=version)
        assert done.returncode == 0, done.stderr
        assert f"pushing 127.0.0.1:{url.rpartition(':')[2]}/mint-backend:{version}" in done.stderr
        answered = health(url)
        assert answered["version"] == version
        assert abs(int(answered["timestamp"]) - time.time()) < 120
        assert containers(url) == [f"127.0.0.1:{url.rpartition(':')[2]}/mint-backend:{version}"]


def run_first(url: str, invoke: Invoke) -> dict[str, str]:
    """Deploy a version that works, unless it runs. Returns the environment of later commands."""
    env = {"APP_ENV": "local", "AWS_ENDPOINT_URL": url}
    if health(url).get("version") != FIRST:
        for words in (["build-image"], ["deploy-service", "--timeout=60"]):
            done = invoke(*words, **env, GITHUB_SHA=FIRST)
            assert done.returncode == 0, done.stderr
    return env


def test_a_container_that_does_not_start_is_rolled_back(url: str, invoke: Invoke, tmp_path: Path) -> None:
    """Exit code 4; the previous version still answers."""
    broken = tmp_path / "context"
    shutil.copytree(ROOT / "examples" / "backend", broken)
    (broken / "server").unlink()
    env = run_first(url, invoke)

    assert invoke("build-image", f"--context={broken}", **env, GITHUB_SHA="c" * 40).returncode == 0
    done = invoke("deploy-service", "--timeout=60", **env, GITHUB_SHA="c" * 40)

    assert done.returncode == 4, done.stderr
    assert "was rolled back" in done.stderr
    assert "CannotStartContainerError: " in done.stderr
    assert health(url)["version"] == FIRST


CRASH = """#include <stdio.h>
int main(void) { puts("connecting to the database"); fputs("the database refuses me\\n", stderr); return 3; }
"""


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_that_crashes_is_rolled_back(url: str, invoke: Invoke, tmp_path: Path, by: str) -> None:
    """Exit code 4 with the container's exit code and its last lines; the previous version still answers."""
    version = {"tag": "e", "digest": "f"}[by] * 40
    crashing = tmp_path / "context"
    shutil.copytree(ROOT / "examples" / "backend", crashing)
    (crashing / "server.c").write_text(f"{CRASH}// {by}\n")
    (crashing / "server").unlink()
    subprocess.run(["make", "--silent", "server", f"--directory={crashing}"], check=True)
    env = run_first(url, invoke)
    assert invoke("build-image", f"--context={crashing}", **env, GITHUB_SHA=version).returncode == 0
    named = [] if by == "tag" else [f"--digest={digest_of(url, 'mint-backend', version)}"]

    done = invoke("deploy-service", *named, "--timeout=60", **env, GITHUB_SHA=version)

    assert done.returncode == 4, done.stderr
    assert "mint-app exited with 3" in done.stderr
    assert "  | connecting to the database\n" in done.stderr
    assert "  | the database refuses me\n" in done.stderr
    assert health(url)["version"] == FIRST


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_that_cannot_be_pulled_is_rolled_back(url: str, invoke: Invoke, tmp_path: Path, by: str) -> None:
    """Exit code 4 with the engine's error, in separate jobs and in `deploy`; the previous version still answers.

    ECR knows the image, but no engine takes it: its configuration names no root file system.
    """
    env = run_first(url, invoke)
    named = ["--tag=v0.1"] if by == "tag" else [f"--digest={digest_of(url, 'mint-backend', 'v0.1')}"]
    file = tmp_path / "outputs"

    started = invoke("deploy-service", *named, "--no-wait", **env, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(file))
    assert started.returncode == 0, started.stderr
    told = dict(line.split("=", 1) for line in file.read_text().splitlines())
    flags = (f"--deployment-id={told['deployment-id']}", f"--digest={told['digest']}", "--timeout=60")
    waited = invoke("healthcheck", "--version=v0.1", *flags, **env)

    words = [*({"--tag=v0.1", *named}), f"--migration-digest={digest_of(url, 'mint-db-migrate', 'v0')}", "--no-build"]
    build = tmp_path / "build"
    build.mkdir()
    (build / "index.html").write_text("<!doctype html><title>MINT</title>")
    deployed = invoke("deploy", *words, f"--build-dir={build}", **env)

    for done in (waited, deployed):
        assert done.returncode == 4, done.stderr
        assert re.search("CannotPullContainerError: .*rootfs", done.stderr)
    assert health(url)["version"] == FIRST


def digest_of(url: str, repository: str, tag: str) -> str:
    """The digest of an image in the embedded registry."""
    ecr = boto3.client("ecr", "us-west-2", endpoint_url=url, aws_access_key_id="local", aws_secret_access_key="local")
    (image,) = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
    return str(image["imageDigest"])


def test_the_registry_token_is_not_written_to_the_users_docker_configuration(
    url: str, invoke: Invoke, tmp_path: Path
) -> None:
    config = tmp_path / "docker-config"
    config.mkdir()

    done = invoke("build-image", APP_ENV="local", AWS_ENDPOINT_URL=url, GITHUB_SHA="d" * 40, DOCKER_CONFIG=str(config))

    assert done.returncode == 0, done.stderr
    assert list(config.iterdir()) == []


def test_an_image_that_is_already_pushed_is_not_built_again(url: str, invoke: Invoke) -> None:
    """The registry refuses another image under the same tag."""
    env = {"APP_ENV": "local", "AWS_ENDPOINT_URL": url, "GITHUB_SHA": SECOND}
    for version in (FIRST, SECOND):
        assert invoke("build-image", **{**env, "GITHUB_SHA": version}).returncode == 0
    again = invoke("build-image", **env)
    image = f"127.0.0.1:{url.rpartition(':')[2]}/mint-backend"
    subprocess.run(["docker", "tag", f"{image}:{FIRST}", f"{image}:{SECOND}"], check=True)
    subprocess.run(
        ["docker", "login", "--username=AWS", "--password-stdin", image.partition("/")[0]],
        input="local-registry-password",
        text=True,
        check=True,
        capture_output=True,
    )
    pushed = subprocess.run(["docker", "push", f"{image}:{SECOND}"], capture_output=True, text=True)

    assert again.returncode == 0, again.stderr
    assert "skipping the build and the push" in again.stderr
    assert pushed.returncode == 1
    assert "already exists in the repository" in pushed.stderr
