"""Building images: the commands as values, with a stand-in for docker, and without an engine on the embedded AWS."""

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import build_image
from scripts.build_image import ImageBuild, ImageBuilt
from scripts.ecs import images
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.run import Run
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
    ("flags", "changes"),
    [
        ({}, {}),
        ({"file": "Dockerfile"}, {"file": "Dockerfile"}),
        ({"context": "examples"}, {"context": "examples"}),
        ({"no_push": True}, {"push": False}),
        ({"rebuild": True}, {"rebuild": True}),
        (
            {"image": "mint-db-migrate"},
            {"repository": "mint-db-migrate", "uri": URI.replace("backend", "db-migrate")},
        ),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_what_is_built_follows_from_the_flags(
    flags: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECR is asked for the image only if it is to be pushed there; the sources are looked for in any case."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    run = Run("build-image", settings.environment("dev", dry_run=True), dry_run=True)

    assert build_image.build_image(run, tag="abc", **flags) is None

    (step,) = run.steps
    assert isinstance(step.plan, ImageBuild)
    file = str(ROOT / ("Dockerfile.db_migrations" if "image" in flags else "Dockerfile"))
    plain = ImageBuild(URI, URI.partition("/")[0], "mint-backend", "abc", file, str(ROOT), {}, True, "")
    expected = replace(plain, **{**changes, "file": flags.get("file", file)})
    assert replace(step.plan, arguments={}) == expected
    assert step.name == f"build {expected.repository}"
    asked = [f"could not read {expected.repository} in ECR: there are no AWS credentials here"] if expected.push else []
    missing = f"could not read what is to be built: There is no Dockerfile {expected.file}: give --file."
    assert run.unread == [*asked, missing]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "Upper"}, "'Upper' is not the name of an image's repository."),
        ({"tag": "a b"}, "'a b' is not a version (from the flag): give a commit's hash or a tag of an image."),
        (
            {"image": "mint-faktory"},
            "The settings know no Dockerfile of mint-faktory, only of mint-db-migrate, mint-backend: give --file.",
        ),
    ],
)
def test_what_no_image_can_be_is_refused(given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """prod has no database cleaner, whose image could be built."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")

    with pytest.raises(Refused) as refused:
        build_image.plan(settings.environment("prod"), **{"tag": "abc", **given})

    assert str(refused.value) == said


PLAN = ImageBuild("r.io/a:v1", "r.io", "a", "v1", "Dockerfile", ".", {"A": "b c"}, True, "")
BUILD = (
    "run DOCKER_DEFAULT_PLATFORM=linux/amd64 BUILDX_NO_DEFAULT_ATTESTATIONS=1"
    " docker image build --quiet --no-cache --tag r.io/a:v1 --build-arg 'A=b c' --file Dockerfile ."
)
PUSH = ["run docker login --username AWS --password-stdin r.io", "run docker image push r.io/a:v1"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, [BUILD, *PUSH]),
        ({"push": False}, [BUILD]),
        ({"rebuild": True}, [BUILD, *PUSH]),
        ({"digest": "sha256:1"}, ["skip the build and the push: r.io/a:v1 is in the registry already (sha256:1)"]),
        ({"digest": "sha256:1", "rebuild": True}, ["move the tag, which sha256:1 has", BUILD, *PUSH]),
        ({"digest": "sha256:1", "rebuild": True, "push": False}, [BUILD]),
    ],
)
def test_a_plan_says_what_it_runs(changes: dict[str, Any], lines: list[str]) -> None:
    """An image that is there already is built again only if that was asked for; then its tag moves."""
    plan = replace(PLAN, **changes)

    assert plan.describe() == lines
    assert plan.is_needed is (BUILD in lines)


@pytest.mark.parametrize(
    ("digest", "built", "line"),
    [
        ("", True, "r.io/a:v1 was built and not pushed"),
        ("sha256:1", True, "r.io/a:v1 is in the registry (sha256:1)"),
        ("sha256:1", False, "r.io/a:v1 is in the registry already: not pushed again (sha256:1)"),
    ],
)
def test_the_result_says_whether_the_image_is_in_the_registry(digest: str, built: bool, line: str) -> None:
    """It is pinned by its digest where there is one."""
    done = ImageBuilt("r.io/a:v1", digest, built)

    assert done.line() == line
    pinned = {"pinned": f"r.io/a@{digest}", "digest": digest} if digest else {}
    assert done.outputs() == {"image": "r.io/a:v1", **pinned}


@pytest.mark.parametrize(
    ("file", "context", "said"),
    [
        ("{file}", "{folder}", None),
        ("{folder}", "{folder}", "There is no Dockerfile {folder}: give --file."),
        ("{file}", "{file}", "The build context {file} is not a folder."),
        ("x" * 300, "{folder}", f"There is no Dockerfile {'x' * 300}: give --file."),
        ("{file}", "x" * 300, f"The build context {'x' * 300} is not a folder."),
    ],
)
def test_the_dockerfile_is_a_file_and_the_context_a_folder(
    file: str, context: str, said: str | None, tmp_path: Path
) -> None:
    """Also where the name is longer than one can be."""
    (tmp_path / "Dockerfile").touch()
    names = {"file": str(tmp_path / "Dockerfile"), "folder": str(tmp_path)}
    plan = replace(PLAN, file=file.format(**names), context=context.format(**names))

    if said is None:
        build_image.check_sources(plan)
    else:
        with pytest.raises(Refused) as refused:
            build_image.check_sources(plan)
        assert str(refused.value) == said.format(**names)


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


def test_an_image_that_is_built_and_not_pushed_is_looked_for_nowhere(
    cloud: EmbeddedCloud, docker: Callable[[], list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is the image's name."""
    local = settings.find("local")
    plan = build_image.plan(local, tag="v7", push=False)

    assert build_image.build(local, plan) == ImageBuilt(plan.uri, "", built=True)

    assert docker()[-1]["words"] == plan.build_command()[1:]
    assert cloud.requests() == []
    assert capsys.readouterr().err == f"building {plan.uri}\n"


def test_the_registrys_password_is_masked_and_leaves_no_trace(
    cloud: EmbeddedCloud, invoke: Invoke, docker: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """It is passed on stdin, and stored only in a private temporary configuration that is deleted."""
    done = invoke("build-image", "--tag=v7", **cloud.env, GITHUB_ACTIONS="true", TMPDIR=str(tmp_path))

    assert "\npushing 127.0.0.1:" in done.stderr
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
    result = json.loads(done.stdout)["steps"][0]["result"]
    digest = result["digest"]
    assert result["built"] is True
    assert images.find(settings.find("local"), "mint-backend", "c" * 40) == digest
    repository = f"{cloud.server.cloud.host}/mint-backend"
    assert outputs.read_text().splitlines() == [
        f"image={repository}:{'c' * 40}",
        f"pinned={repository}@{digest}",
        f"digest={digest}",
        f"site={cloud.url}",
    ]
    assert "skipping the build and the push" in again.stderr


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo 27.0", ""),
        (
            "echo 'Cannot connect to the daemon at unix:///x. Is it running?' >&2; exit 1",
            "No Docker engine answers: Cannot connect to the daemon at unix:///x. Is it running.",
        ),
        ("echo 'error during connect: EOF.' >&2; exit 1", "No Docker engine answers: EOF."),
        (None, "docker is not installed."),
    ],
)
def test_an_engine_is_one_that_answers(
    script: str | None,
    fault: str,
    docker: Callable[[], list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why it does not is said in its own words."""
    if script is None:
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        (tmp_path / "bin" / "docker").write_text(f"#!/bin/sh\n{script}\n")

    assert build_image.engine_fault() == fault


def test_the_registrys_password_is_masked_in_both_forms(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docker stores and sends it with the user, in base64."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (data,) = cloud.client("ecr").get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")

    assert build_image.token(settings.find("local")) == password

    assert user == "AWS"
    assert capsys.readouterr().err.splitlines() == [
        f"::add-mask::{form}" for form in (data["authorizationToken"], password)
    ]


def test_no_push_without_an_engine_is_refused(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """An image cannot be assembled without pushing it."""
    done = invoke("build-image", "--no-push", **cloud.env, DOCKER_HOST="unix:///nowhere")

    assert done.returncode == 2
    assert "--no-push needs one" in done.stderr
    assert cloud.requests("registry") == []


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("ImageNotFoundException", DeployError, "was pushed, but ECR does not have it: check the registry 127.0.0.1:"),
        ("ServerException", OutcomeUnknown, "was pushed, but it could not be checked that ECR has it: "),
    ],
)
def test_an_image_that_ecr_does_not_show_after_the_push_is_no_success(
    code: str, kind: type[DeployError], said: str, cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If ECR cannot be asked, the outcome is unknown."""
    env = settings.find("local")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    plan = build_image.plan(env, tag="v7")
    cloud.fail(service="ecr", operation="DescribeImages", status=400, code=code)

    with pytest.raises(DeployError, match=f"mint-backend:v7 {said}") as error:
        build_image.build(env, plan)

    assert type(error.value) is kind


def test_an_image_that_is_there_is_not_built_again(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its digest is the result; no engine is needed for that."""
    monkeypatch.setenv("PATH", "/nowhere")
    run = Run("build-image", settings.find("local"))

    done = build_image.build_image(run, tag="v0")

    digest = images.find(run.environment, "mint-backend", "v0")
    uri = f"{cloud.server.cloud.host}/mint-backend:v0"
    assert digest
    assert done == ImageBuilt(uri, digest, built=False)
    assert f"skipping the build and the push: {uri} is in the registry already ({digest})" in capsys.readouterr().err
    assert cloud.requests("registry") == []


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
    ],
)
def test_the_dockerfile_is_that_of_the_settings(repository: str, file: str) -> None:
    """Of the image that is built."""
    assert build_image.dockerfile(settings.environment("dev", dry_run=True), repository) == file


@pytest.mark.parametrize("repository", ["mint-faktory", "mint-db-migrate"], ids=["not known", "without a Dockerfile"])
def test_an_image_is_not_built_from_another_ones_dockerfile(repository: str) -> None:
    """Those that the settings know are named."""
    dev = settings.environment("dev", dry_run=True)
    env = replace(dev, migrations=replace(dev.migrations, file=""))

    with pytest.raises(Refused) as refused:
        build_image.dockerfile(env, repository)

    assert str(refused.value) == (
        f"The settings know no Dockerfile of {repository}, only of mint-db-clean, mint-backend: give --file."
    )


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
