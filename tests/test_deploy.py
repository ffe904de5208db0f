"""The pipeline: what it refuses before its first change, what its steps pass on, and how it ends."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec import structs

from scripts import clean_database, deploy, release_static
from scripts.deploy import Deployment, Step
from scripts.deploy_service import Deployed, Wish
from scripts.ecs import order, preflight, promotion
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.release import lease
from tests.conftest import ROOT, EmbeddedCloud, Invoke

SETTINGS = (ROOT / "environments.toml").read_text()
DIGEST = "sha256:" + "0" * 64
ENGINE = {"DOCKER_HOST": "unix:///nowhere"}


def digest_of(cloud: EmbeddedCloud, repository: str) -> str:
    """The digest of the image v0 that the embedded AWS is seeded with."""
    found = cloud.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": "v0"}])
    return str(found["imageDetails"][0]["imageDigest"])


LAST = ["deploy the service", "release the frontend", "look at the service again"]
MIGRATE = ["deploy the migrations", "migrate the database"]
BUILD = ["build the service's image", "build the migrations' image"]


def now(environment: Environment, **more: Any) -> Deployment:
    """A deployment of v1."""
    flags: dict[str, Any] = dict.fromkeys(("digest", "migration_digest", "build_dir"))
    flags |= dict.fromkeys(("no_build", "skip_promotion", "supersede", "allow_secret_removal"), False)
    return Deployment(environment, "v1", **flags | more)


class Begun(Protocol):
    """Begin a deployment. Returns the names of its steps, none of which is done, and the checks of other commands."""

    def __call__(self, environment: Environment, **flags: Any) -> tuple[list[str], list[Any]]: ...


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """With an account for the environments that have one."""
    names, checked = list[str](), list[Any]()
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    monkeypatch.setattr(Run, "run_steps", lambda run, steps: names.extend(name for name, _ in steps))
    monkeypatch.setattr(deploy, "_look_first", lambda *_: None)
    monkeypatch.setattr(release_static, "check", lambda environment, **given: checked.append(given))
    monkeypatch.setattr(clean_database, "check", lambda environment: checked.append("clean"))

    def begin(environment: Environment, **flags: Any) -> tuple[list[str], list[Any]]:
        run = Run("deploy", environment)
        run.locked = run.recorded = True
        deploy.deploy(run, tag="v1", **flags)
        return names, checked

    return begin


@pytest.mark.parametrize(
    ("name", "more", "steps"),
    [
        ("dev", {}, ["check the order", "build the frontend", "clean the database", *MIGRATE, *LAST]),
        ("dev", {"no_build": True}, ["check the order", "clean the database", *MIGRATE, *LAST]),
        (
            "impl",
            {},
            ["check the order", "check the promotion", "build the frontend", "back up the database", *MIGRATE, *LAST],
        ),
        (
            "prod",
            {"no_build": True},
            ["check the order", "check the promotion", "back up the database", *MIGRATE, *LAST],
        ),
        ("local", {}, [*BUILD, "build the frontend", "clean the database", *MIGRATE, *LAST]),
        ("local", {"no_build": True}, ["clean the database", *MIGRATE, *LAST]),
    ],
)
@pytest.mark.parametrize("migrates", [True, False])
def test_the_steps_follow_from_settings_and_flags(
    name: str, more: dict[str, Any], steps: list[str], migrates: bool, begun: Begun
) -> None:
    """What changes the database comes after all that can be refused, and the frontend after the service."""
    env = settings.environment(name)
    if not migrates:
        env = structs.replace(env, migrations=structs.replace(env.migrations, service="", image=""))
        steps = [step for step in steps if "migrat" not in step]

    names, checked = begun(env, build_dir="b", **more)

    assert names == steps
    cleans = ["clean"] if "clean the database" in steps else []
    assert checked == [*cleans, {"build_dir": "b", "no_build": more.get("no_build", False)}]


LOCAL = settings.find("local")
UNSET = settings.environment("dev")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"account": UNSET.account}, "AWS_ACCOUNT_ID"),
        ({"registry": UNSET.registry}, "AWS_ACCOUNT_ID"),
        ({"service": structs.replace(LOCAL.service, secrets=UNSET.account)}, "AWS_ACCOUNT_ID"),
        ({"service": structs.replace(LOCAL.service, name="a b")}, "'a b' is not the name of an ECS service"),
        ({"migrations": structs.replace(LOCAL.migrations, service="a b")}, "'a b' is not the name of an ECS service"),
        ({"healthcheck": "ftp://x/"}, "is not the URL of a healthcheck"),
        ({"database": structs.replace(LOCAL.database, name=UNSET.account, backup=True)}, "AWS_ACCOUNT_ID"),
        ({"database": structs.replace(LOCAL.database, name=UNSET.account)}, ""),
        ({"healthcheck": "", "service": structs.replace(LOCAL.service, secrets=None)}, ""),
    ],
    ids=[
        "account",
        "registry",
        "secrets",
        "service",
        "migrations",
        "healthcheck",
        "database",
        "a database that is not backed up",
        "no endpoint and no secrets",
    ],
)
def test_what_a_step_needs_is_checked_before_the_first_one(change: dict[str, Any], said: str, begun: Begun) -> None:
    """Before the database is touched."""
    if said:
        with pytest.raises(Refused, match=said):
            begun(structs.replace(LOCAL, **change), no_build=True)
    else:
        assert begun(structs.replace(LOCAL, **change), no_build=True)[0]


@pytest.mark.parametrize(
    ("more", "of_service", "of_migrations"),
    [
        ({}, Wish(tag="v1", version="v1"), Wish("mint-app-db-migrate", tag="v1")),
        (
            {"digest": DIGEST, "supersede": True},
            Wish(digest=DIGEST, version="v1", supersede=True),
            Wish("mint-app-db-migrate", tag="v1"),
        ),
        (
            {"migration_digest": DIGEST, "allow_secret_removal": True},
            Wish(tag="v1", version="v1", allow_secret_removal=True),
            Wish("mint-app-db-migrate", digest=DIGEST),
        ),
    ],
)
def test_each_image_is_found_by_its_digest_else_by_the_version(
    more: dict[str, Any], of_service: Wish, of_migrations: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was started is handed on to the steps after it."""
    result = Deployed("s", "c", "", "", "", "", "", 0.0)
    wished: list[Wish] = []
    monkeypatch.setattr(deploy, "carry_out", lambda run, wish: wished.append(wish) or result)
    deployment, run = now(settings.environment("dev"), **more), Run("deploy", settings.environment("dev"))

    deploy._deploy_migrations(run, deployment)
    assert (deployment.migrations, deployment.deployed) == (result, None)
    deploy._deploy_service(run, deployment)

    assert wished == [of_migrations, of_service]
    assert deployment.deployed is result


@pytest.mark.parametrize(
    ("more", "images"),
    [
        ({"no_build": True}, ["mint-backend:v1", "mint-db-migrate:v1"]),
        ({"no_build": True, "digest": DIGEST, "supersede": True}, [f"mint-backend@{DIGEST}", "mint-db-migrate:v1"]),
        ({"no_build": True, "migration_digest": DIGEST}, ["mint-backend:v1", f"mint-db-migrate@{DIGEST}"]),
        ({}, [None, None]),
        ({"digest": DIGEST}, [None, None]),
    ],
    ids=["by tag", "by digest", "migrations by digest", "built in this run", "built in this run, whatever is given"],
)
def test_all_is_looked_at_before_the_first_change(
    more: dict[str, Any], images: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not an image that is only built in this run."""
    looked: list[Any] = []
    monkeypatch.setattr(preflight, "before", lambda run, call, **given: looked.append((call.payload["body"], given)))
    local = settings.find("local")

    deploy._look_first(Run("deploy", local), now(local, **more))

    bodies = [body for body, _ in looked]
    assert [body["service_ids"] for body in bodies] == [["mint-app"], ["mint-app-db-migrate"]]
    found = [body.get("image") for body in bodies]
    assert [image and image.rpartition("/")[2] for image in found] == images
    assert [given for _, given in looked] == [{"supersede": more.get("supersede", False), "brief": True}] * 2


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a deployment does, in order, in place of its steps."""
    found: list[Any] = []

    def note(*words: Any) -> Callable[..., None]:
        return lambda *_: found.append(words[0] if len(words) == 1 else words)

    pipeline = (
        Step("one", note("one"), check=note("check one")),
        Step("two", note("two"), lambda now: now.no_build, note("check two")),
        Step("three", note("three"), check=note("check three")),
    )
    monkeypatch.setattr(deploy, "PIPELINE", pipeline)
    monkeypatch.setattr(deploy, "_look_first", note("look first"))
    monkeypatch.setattr(lease, "check", note("lock"))
    return found


@pytest.mark.parametrize(
    ("dry_run", "no_build", "expected"),
    [
        (False, False, ["check one", "check three", "look first", "lock", "one", "lock", "three"]),
        (
            False,
            True,
            [
                *("check one", "check two", "check three", "look first"),
                *("lock", "one", "lock", "two", "lock", "three"),
            ],
        ),
        (True, False, ["lock", "one", "lock", "three"]),
    ],
)
def test_every_check_comes_before_the_first_step(
    dry_run: bool, no_build: bool, expected: list[str], done: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run reports at each step what is missing. Nothing is done once somebody has taken the lock over."""
    run = Run("deploy", settings.find("local"), dry_run=dry_run)
    run.locked = run.recorded = True

    deploy.deploy(run, tag="v1", no_build=no_build)

    assert done == expected
    assert run.facts == {"version": "v1"}
    assert (f"the application is at {run.environment.site}" in capsys.readouterr().err) is not dry_run


@pytest.mark.parametrize("flag", ["digest", "migration_digest"])
@pytest.mark.parametrize("given", ["", "sha256:1", f"{DIGEST}\n"])
def test_a_digest_that_is_none_is_refused_first(flag: str, given: str, done: list[Any]) -> None:
    """A workflow that lost an output passes an empty one."""
    with pytest.raises(Refused, match=f"^--{flag.replace('_', '-')} must be sha256:"):
        deploy.deploy(Run("deploy", settings.find("local")), tag="v1", **{flag: given})  # type: ignore[arg-type]

    assert done == []


def test_the_flags_are_those_of_the_deployment(done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them reaches the steps."""
    monkeypatch.setattr(deploy, "PIPELINE", (Step("one", lambda _, now: done.append(now)),))
    run = Run("deploy", local := settings.find("local"))
    run.locked = run.recorded = True
    other = "sha256:" + "1" * 64
    flags = {"no_build": True, "skip_promotion": True, "supersede": True, "allow_secret_removal": True}

    deploy.deploy(run, tag="v1", digest=DIGEST, migration_digest=other, build_dir="b", **flags)  # type: ignore[arg-type]

    assert done[-1] == Deployment(local, "v1", DIGEST, other, True, "b", True, True, True)
    deploy.deploy(run, tag="v1")
    assert done[-1] == Deployment(local, "v1", None, None, False, None, False, False, False)


@pytest.mark.parametrize("skip", [False, True])
def test_a_promotion_that_is_not_looked_at_is_in_the_receipt(
    skip: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is a warning. One that is refused ends the deployment."""

    def check(*given: Any) -> Any:
        assert given == (impl, "v1", DIGEST)
        raise Refused("dev has not run v1")

    monkeypatch.setattr(promotion, "check", check)
    run = Run("deploy", impl := settings.environment("impl"))
    deployment = now(impl, digest=DIGEST, skip_promotion=skip)

    if skip:
        deploy._check_promotion(run, deployment)
    else:
        with pytest.raises(Refused, match="dev has not run v1"):
            deploy._check_promotion(run, deployment)

    assert run.facts == ({"promotion": "promotion skipped"} if skip else {})
    assert ("it is not looked at whether v1 has run before impl" in capsys.readouterr().err) is skip


@pytest.mark.parametrize("dry_run", [False, True])
def test_each_step_is_the_command_of_its_name(dry_run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the steps before it have found. A dry run builds nothing, so it has no build to check."""
    local, result = settings.find("local"), Deployed("s", "c", "", "", "", "", "ecs-svc/1", 0.0)
    asked: list[Any] = []

    def note(name: str) -> Callable[..., Any]:
        def called(*words: Any, **given: Any) -> Any:
            told = [word for word in words if not isinstance(word, (Run, Environment, Wish))]
            asked.append((name, *told, *given.items()))
            return result if name in ("carry_out", "still") else "folder"

        return called

    for module, names in (
        (deploy, ("backup_database", "build_image", "carry_out", "migrate", "still")),
        (release_static, ("folder", "build_into", "check", "release_static")),
        (clean_database, ("clean_database",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, note(name))
    monkeypatch.setattr(order, "check", note("order"))
    run, deployment = Run("deploy", local, dry_run=dry_run), now(local, build_dir="b", skip_promotion=True)

    deploy._look_again(run, deployment)
    for step in deploy.PIPELINE:
        step.do(run, deployment)

    assert asked == [
        *([] if dry_run else [("order", ROOT, "v1")]),
        ("build_image", ("image", "mint-backend"), ("tag", "v1")),
        ("build_image", ("image", "mint-db-migrate"), ("tag", "v1")),
        ("folder", local.frontend.folder, "b"),
        ("build_into", "folder"),
        *([] if dry_run else [("check", ("build_dir", "b"), ("no_build", True))]),
        ("backup_database",),
        ("clean_database",),
        ("carry_out",),
        ("migrate", result),
        ("carry_out",),
        ("release_static", ("build_dir", "b"), ("no_build", True)),
        ("still", result),
    ]


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
