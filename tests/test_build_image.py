"""Building images: the commands as values, with a stand-in for docker, and without an engine on the embedded AWS."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import build_image
from scripts.ecs import images
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from tests.conftest import ROOT, EmbeddedCloud, Invoke

NOW = 1635872719.9
URI = "123456789012.dkr.ecr.us-west-2.amazonaws.com/mint-backend:abc"


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> settings.Environment:
    """dev, with an account."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    return settings.find("dev")


def test_the_commands_are_those_of_the_old_workflow(dev: settings.Environment) -> None:
    """Both times are the same instant, and the token is passed on stdin."""
    plan = build_image.plan(dev, tag="abc", file="Dockerfile", context=".", now=NOW)

    assert plan.build_command() == [
        "docker",
        "image",
        "build",
        "--quiet",
        "--no-cache",
        "--tag",
        URI,
        "--build-arg",
        "ARG_APPLICATION_VERSION=abc",
        "--build-arg",
        "ARG_APPLICATION_DATETIME=2021-11-02 17:05:19+00:00",
        "--build-arg",
        "ARG_APPLICATION_TS=1635872719",
        "--file",
        "Dockerfile",
        ".",
    ]
    assert plan.login_command() == ["docker", "login", "--username", "AWS", "--password-stdin", URI.partition("/")[0]]
    assert plan.push_command() == ["docker", "image", "push", URI]


def test_the_migrations_have_a_dockerfile_of_their_own(dev: settings.Environment) -> None:
    """It is chosen by the repository's name."""
    plan = build_image.plan(dev, image="mint-db-migrate", tag="abc")

    assert plan.file == str(ROOT / "Dockerfile.db_migrations")
    assert plan.uri.endswith("/mint-db-migrate:abc")


def test_a_dry_run_shows_the_commands_without_engine_or_credentials(invoke: Invoke) -> None:
    """It says what it could not read."""
    done = invoke("build-image", "--env=dev", "--tag=abc", "--dry-run", AWS_ACCOUNT_ID="123456789012", PATH="/nowhere")

    assert done.returncode == 0, done.stderr
    assert f"docker image build --quiet --no-cache --tag {URI}" in done.stderr
    assert f"would run docker image push {URI}" in done.stderr
    assert "could not read mint-backend in ECR: there are no AWS credentials here" in done.stderr


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--image=Upper"], {}, "'Upper' is not the name of an image's repository"),
        (["--tag=a b"], {}, "'a b' is not a version"),
        (["--context=/no/such"], {}, "The build context /no/such is not a folder"),
        (["--file=/no/such"], {}, "There is no Dockerfile /no/such: give --file"),
    ],
)
def test_bad_input_is_refused(
    cloud: EmbeddedCloud, invoke: Invoke, words: list[str], variables: dict[str, str], said: str
) -> None:
    """Exit code 2, and nothing is pushed."""
    done = invoke("build-image", *words, **cloud.env, **variables)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert cloud.requests("registry") == []


@pytest.mark.parametrize(
    ("path", "said"), [("", "docker is not installed"), (os.environ["PATH"], "No Docker engine answers")]
)
def test_without_an_engine_a_real_environment_refuses(
    path: str, said: str, monkeypatch: pytest.MonkeyPatch, dev: settings.Environment
) -> None:
    """In one sentence, if the program or the engine is missing."""
    if path and not build_image.shell.available("docker"):
        pytest.skip("there is no docker program that could look for an engine")
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    plan = build_image.plan(dev, tag="abc", file=str(ROOT / "examples/backend/Dockerfile"), context=str(ROOT))

    with pytest.raises(Refused, match=said):
        build_image.build(dev, plan)


# A docker that only records its calls.
DOCKER = """#!{python}
import json, os, stat, sys
folder = os.environ.get("DOCKER_CONFIG", "")
with open({log!r}, "a") as log:
    call = {{
        "words": sys.argv[1:],
        "stdin": sys.stdin.read() if "--password-stdin" in sys.argv else "",
        "config": folder,
        "mode": stat.S_IMODE(os.stat(folder).st_mode),
        "builder": {{name: os.environ.get(name) for name in {builder!r}}},
    }}
    print(json.dumps(call), file=log)
"""
BUILDER = ("DOCKER_DEFAULT_PLATFORM", "BUILDX_NO_DEFAULT_ATTESTATIONS")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """A stand-in for docker on the PATH, and a DOCKER_CONFIG of the user. Returns the calls so far."""
    log, program, own = tmp_path / "calls", tmp_path / "bin" / "docker", tmp_path / "own"
    program.parent.mkdir()
    program.write_text(DOCKER.format(python=sys.executable, log=str(log), builder=BUILDER))
    program.chmod(0o755)
    own.mkdir(mode=0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(own))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def test_the_image_is_built_for_one_platform_and_without_attestations(
    cloud: EmbeddedCloud, invoke: Invoke, docker: Callable[[], list[dict[str, Any]]]
) -> None:
    """On any machine, because image scanners cannot read an index of several manifests."""
    done = invoke("build-image", "--no-push", "--tag=v7", **cloud.env)

    assert done.returncode == 0, done.stderr
    version, build = docker()
    assert version["words"][0] == "version"
    assert build["words"][:5] == ["image", "build", "--quiet", "--no-cache", "--tag"]
    assert build["words"][5].endswith("/mint-backend:v7")
    assert "ARG_APPLICATION_VERSION=v7" in build["words"]
    assert build["builder"] == {"DOCKER_DEFAULT_PLATFORM": "linux/amd64", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


def test_the_registrys_password_is_masked_and_leaves_no_trace(
    cloud: EmbeddedCloud, invoke: Invoke, docker: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """It is passed on stdin, and stored only in a private temporary configuration that is deleted."""
    done = invoke("build-image", "--tag=v7", **cloud.env, GITHUB_ACTIONS="true", TMPDIR=str(tmp_path))

    # The stand-in pushes nothing, and the command notices that.
    assert "was pushed, but ECR does not have it" in done.stderr
    _, _, login, push = docker()
    password = login["stdin"].strip()
    assert password
    assert login["words"][:4] == ["login", "--username", "AWS", "--password-stdin"]
    assert push["words"][:2] == ["image", "push"]
    for call in (login, push):
        assert call["config"] != str(tmp_path / "own")
        assert call["mode"] == 0o700
        assert not Path(call["config"]).exists()
        assert password not in " ".join(call["words"])
    lines = [line for line in done.stderr.splitlines() if password in line]
    assert lines == [f"::add-mask::{password}"]
    assert list((tmp_path / "own").iterdir()) == []


def test_without_an_engine_an_image_is_assembled_for_the_embedded_registry(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """The digest is the one that ECR shows. The second run finds the image and skips it."""
    env = {**cloud.env, "GITHUB_SHA": "c" * 40, "DOCKER_HOST": "unix:///nowhere"}

    outputs = tmp_path / "outputs"
    done = invoke("build-image", "--json", **env, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(outputs))
    again = invoke("build-image", **env)

    assert done.returncode == 0, done.stderr
    assert "The image is assembled without one." in done.stderr
    digest = json.loads(done.stdout)["steps"][0]["result"]["digest"]
    assert images.find(settings.find("local"), "mint-backend", "c" * 40) == digest
    repository = f"{cloud.server.cloud.host}/mint-backend"
    assert outputs.read_text().splitlines() == [
        f"image={repository}:{'c' * 40}",
        f"pinned={repository}@{digest}",
        f"digest={digest}",
        f"site={cloud.url}",
    ]
    assert "skipping the build and the push" in again.stderr


def test_no_push_without_an_engine_is_refused(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """An image cannot be assembled without pushing it."""
    done = invoke("build-image", "--no-push", **cloud.env, DOCKER_HOST="unix:///nowhere")

    assert done.returncode == 2
    assert "--no-push needs one" in done.stderr
    assert cloud.requests("registry") == []


def test_an_image_that_ecr_does_not_list_after_the_push_is_a_failure(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = settings.find("local")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    plan = build_image.plan(env, tag="v7")
    cloud.fail(service="ecr", operation="DescribeImages", status=400, code="ImageNotFoundException")

    with pytest.raises(DeployError, match="was pushed, but ECR does not have it"):
        build_image.build(env, plan)


def test_a_missing_repository_is_an_error(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Before anything is built."""
    done = invoke("build-image", "--image=nobody", **cloud.env)

    assert done.returncode == 1
    assert "There is no repository nobody in the registry of local" in done.stderr


def test_an_assembled_image_has_the_files_and_settings_of_the_dockerfile(tmp_path: Path) -> None:
    """Instructions that need an engine are refused."""
    from local_aws import image_assembly

    (tmp_path / "server").write_text("binary")
    (tmp_path / "server").chmod(0o755)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.sql").write_text("a")
    file = tmp_path / "Dockerfile"
    file.write_text(
        'FROM scratch\nARG V=none\nENV VERSION=${V} TEXT="two words"\nCOPY server* absent* /\n'
        'COPY data/ /data/\nUSER 1000\nEXPOSE 8080\nENTRYPOINT ["/server"]\n'
    )

    assembly = image_assembly.read(file, tmp_path, {"V": "abc"})

    assert assembly.settings == {
        "Env": ["VERSION=abc", "TEXT=two words"],
        "User": "1000",
        "ExposedPorts": {"8080/tcp": {}},
        "Entrypoint": ["/server"],
    }
    assert sorted(assembly.files) == ["data/deep/a.sql", "server"]
    assert image_assembly.layer(assembly.files) == image_assembly.layer(assembly.files)
    file.write_text("FROM scratch\nRUN make\n")
    with pytest.raises(Refused, match="`RUN make` needs a Docker engine"):
        image_assembly.read(file, tmp_path, {})


@pytest.mark.parametrize(
    ("repository", "file"),
    [
        ("mint-backend", "Dockerfile"),
        ("mint-db-migrate", "Dockerfile.db_migrations"),
        ("mint-db-clean", "Dockerfile.db_clean"),
        ("mint-faktory", ""),
    ],
)
def test_the_dockerfile_is_that_of_the_settings(repository: str, file: str) -> None:
    """An image that they do not know is not built from another one's Dockerfile."""
    env = settings.environment("dev", dry_run=True)
    if file:
        assert build_image.dockerfile(env, repository) == file
    else:
        with pytest.raises(Refused, match=r"no Dockerfile of mint-faktory, only of .*: give --file"):
            build_image.dockerfile(env, repository)


def test_a_tag_moves_only_if_it_is_rebuilt() -> None:
    """As that of the database cleaner, whose packages get old."""
    env = settings.environment("dev", dry_run=True)
    known = build_image.plan(env, image="mint-db-clean", tag="latest", digest="sha256:1")
    again = replace(known, rebuild=True)

    assert not known.is_needed
    assert known.describe()[0].startswith("skip the build and the push")
    assert again.is_needed
    assert again.describe()[0] == "move the tag, which sha256:1 has"
    assert "docker image push" in again.describe()[-1]
