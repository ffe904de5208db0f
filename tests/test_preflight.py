"""What is looked at before a deployment begins: what is refused, what is a warning, and what would change."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from ecs_manager.errors import ManagerError
from scripts.ecs import images, manager, preflight
from scripts.ecs.images import Image, Stored
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import Finding, Preflight
from scripts.edges import aws
from scripts.edges.aws import Denied
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Account, Environment
from tests.conftest import EmbeddedCloud, Invoke

APP, CLUSTER, ACCOUNT = "mint-app", "local-mint-app", "123456789012"
DIGEST = "sha256:" + "a" * 64
REVISION = f"arn:aws:ecs:us-west-2:{ACCOUNT}:task-definition/app:7"


def service(state: str = "COMPLETED", desired: int = 2, **more: Any) -> dict[str, Any]:
    """A service as ECS describes it, whose rollout is in this state."""
    primary = {"id": "ecs-svc/1", "status": "PRIMARY", "taskDefinition": REVISION, "rolloutState": state}
    told = {"status": "ACTIVE", "desiredCount": desired, "runningCount": desired, "taskDefinition": REVISION}
    return {**told, "deployments": [primary], **more}


@pytest.mark.parametrize(
    ("found", "supersede", "expected"),
    [
        (None, False, [("service", "refused", "there is none in the cluster c.")]),
        (service(status="INACTIVE"), False, [("service", "refused", "there is none in the cluster c.")]),
        (service(status="DRAINING"), False, [("service", "refused", "it is DRAINING, so being deleted in the clus")]),
        (
            service(deploymentController={"type": "CODE_DEPLOY"}),
            True,
            [("service", "refused", "it is deployed by CODE_DEPLOY, not by ECS itself")],
        ),
        (
            {"status": "ACTIVE", "deploymentController": {"type": "EXTERNAL"}, "taskSets": []},
            False,
            [("service", "refused", "it is deployed by EXTERNAL, not by ECS itself")],
        ),
        (service(), False, [("service", "ok", "active, 2 of 2 tasks run, app:7")]),
        (service("FAILED"), False, [("service", "ok", "active")]),
        (service(deploymentController={"type": "ECS"}), False, [("service", "ok", "active")]),
        (
            service("IN_PROGRESS"),
            False,
            [
                ("service", "ok", "active"),
                (
                    "rollout",
                    "refused",
                    "app:7 is being rolled out (ecs-svc/1, since some time, 0 of 2 tasks run): wait",
                ),
            ],
        ),
        (
            service("IN_PROGRESS"),
            True,
            [("service", "ok", "active"), ("rollout", "warning", "app:7 is being rolled out")],
        ),
        (service("IN_PROGRESS", desired=0), False, [("service", "ok", "active, 0 of 0 tasks run")]),
        ({"status": "ACTIVE"}, False, [("service", "ok", "active, 0 of 0 tasks run")]),
        ({"desiredCount": 0}, False, [("service", "ok", "active, 0 of 0 tasks run")]),
    ],
)
def test_whether_a_service_can_be_deployed_now(
    found: dict[str, Any] | None, supersede: bool, expected: list[tuple[str, str, str]]
) -> None:
    """Active, controlled by ECS, and no rollout of somebody else, unless that is to be superseded."""
    findings = list(preflight.judged(found, APP, "c", supersede))

    assert [(f.about, f.result) for f in findings] == [(about, result) for about, result, _ in expected]
    for finding, (_, _, text) in zip(findings, expected, strict=True):
        assert finding.text.startswith(text)


def container(image: str = "r/app:1", **secrets: str) -> dict[str, Any]:
    """The application's container."""
    given = [{"name": name, "valueFrom": value} for name, value in secrets.items()]
    return {"name": "app", "image": image, "environment": [{"name": "E", "value": "hunter2"}], "secrets": given}


def definition(*containers: dict[str, Any]) -> dict[str, Any]:
    """A task definition with these containers."""
    return {"containerDefinitions": list(containers)}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (container(), container(), []),
        (container(), container("r/app:2"), ["app: image r/app:1 -> r/app:2"]),
        (container(), container(A="/a"), ["app: + secret A from /a"]),
        (container(A="/a"), container(), ["app: - secret A from /a"]),
        (container(A="/a"), container(A="/b"), ["app: secret A from /a -> /b"]),
        (
            container(A="/a", B="/b", C="/c"),
            container("r/app:2", B="/new", C="/c", D="/d"),
            [
                "app: image r/app:1 -> r/app:2",
                "app: + secret D from /d",
                "app: secret B from /b -> /new",
                "app: - secret A from /a",
            ],
        ),
        ({"name": "app", "image": "a"}, {"name": "app", "image": "a"}, []),
    ],
)
def test_the_difference_of_two_revisions(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    """Names, and where secrets come from; never a value of the environment."""
    found = preflight.difference(definition(old), definition(new))

    assert found == expected
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("old", "new", "drop", "result", "text"),
    [
        (container(A="/a"), container(A="/a", B="/b"), False, "ok", "2, 1 of them as they are"),
        (container(A="/a"), container(A="/b"), False, "ok", "1, 0 of them as they are"),
        (
            container(A="/a"),
            container(),
            False,
            "refused",
            "A of app would be removed: no parameter stands for it. Give",
        ),
        (container(A="/a", B="/b"), container(), True, "warning", "A of app, B of app will be removed."),
        (container(), container(), False, "ok", "0, 0 of them as they are"),
    ],
)
def test_a_secret_is_removed_only_if_that_was_asked_for(
    old: dict[str, Any], new: dict[str, Any], drop: bool, result: str, text: str
) -> None:
    """Added and changed ones are fine."""
    (finding,) = preflight.compared(definition(old), definition(new), drop)

    assert (finding.about, finding.result) == ("secrets", result)
    assert finding.text.startswith(text)


HAND = f"arn:aws:secretsmanager:us-west-2:{ACCOUNT}:secret:x"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([{"name": "A", "valueFrom": "/a"}], [f"app: secret HAND stays from {HAND}: no parameter stands for it"]),
        ([{"name": "A", "valueFrom": "/a"}, {"name": "HAND", "valueFrom": "/h"}], []),
        ([], []),
    ],
    ids=["by hand", "a parameter has its name", "secrets are not looked for"],
)
def test_a_secret_that_stays_without_a_parameter_is_named(found: list[dict[str, str]], expected: list[str]) -> None:
    """Nobody needs to wonder why it is still there."""
    assert preflight.kept(definition(container(A="/a", HAND=HAND)), found, REVISION) == expected


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ({}, "linux/amd64"),
        ({"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}, "linux/arm64"),
        ({"cpuArchitecture": "X86_64", "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}, "windows/amd64"),
        ({"cpuArchitecture": "X86_64"}, "linux/amd64"),
        ({"cpuArchitecture": "RISCV"}, "linux/riscv"),
    ],
)
def test_the_platform_of_a_task(runtime: dict[str, str], expected: str) -> None:
    """As images name it. ECS's default is Linux on x86."""
    assert preflight.platform({"runtimePlatform": runtime} if runtime else {}) == expected


WARNED = Preflight("prod", APP, (Finding("secrets", "warning", "w"), Finding("image", "ok", "i")), ("app: image",))
STOPPED = Preflight("prod", APP, (Finding("service", "refused", "s"), Finding("image", "refused", "i")))


def test_what_was_found_is_a_line_a_table_and_a_refusal() -> None:
    """A refusal says every reason at once."""
    assert WARNED.line() == "prod: mint-app can be deployed (1 warning)"
    assert STOPPED.line() == "prod: mint-app must not be deployed"
    assert WARNED.table() == [
        ("RESULT", "WHAT", APP),
        ("warning", "secrets", "w"),
        ("ok", "image", "i"),
        ("", "change", "app: image"),
    ]
    assert WARNED.describe() == ["  warning: secrets: w", "  ok: image: i", "  change: app: image"]
    WARNED.require()
    with pytest.raises(Refused) as error:
        STOPPED.require()
    assert str(error.value).splitlines() == [
        "mint-app is not deployed to prod, and nothing of it was changed:",
        "  service: s",
        "  image: i",
    ]


@pytest.mark.parametrize("found", [WARNED, STOPPED, DeployError("throttled")], ids=["warned", "refused", "not read"])
@pytest.mark.parametrize("more", [{}, {"brief": True}, {"supersede": True}], ids=str)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_found_is_said_and_refused_before_a_deployment(
    found: Preflight | DeployError,
    more: dict[str, bool],
    dry_run: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A dry run says what would be refused, and what it could not read."""

    def check(run: Run, call: Invocation, *, supersede: bool) -> Preflight:
        assert supersede is more.get("supersede", False)
        if isinstance(found, DeployError):
            raise found
        return found

    monkeypatch.setattr(preflight, "check", check)
    run = Run("deploy-service", settings.environment("dev"), dry_run=dry_run)
    call = Invocation("f", "1", {"body": {"service_ids": [APP]}})

    if not dry_run and found is not WARNED:
        with pytest.raises(DeployError, match="throttled" if isinstance(found, DeployError) else "is not deployed to"):
            preflight.before(run, call, **more)
    else:
        assert preflight.before(run, call, **more) is (None if isinstance(found, DeployError) else found)

    said = capsys.readouterr().err
    tells = found is WARNED and not dry_run and "brief" not in more
    assert ("secrets: w" in said, "  app: image\n" in said, "image: i" in said) == (tells, tells, False)
    unread = {
        id(STOPPED): ["service: s A real run would be refused.", "image: i A real run would be refused."],
        id(WARNED): [],
    }.get(id(found), ["could not read what a deployment of mint-app finds: throttled"])
    assert run.unread == (unread if dry_run else [])


def test_of_a_restart_each_image_in_ecr_is_looked_for_once(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar of a public registry is not. One that is given is always looked for, and it alone."""
    looked: list[str] = []
    monkeypatch.setattr(preflight, "image_exists", lambda env, image, described: looked.append(str(image)) or ())
    own = definition(container(str(STORED)), container("r.io/sidecar:1"), container(str(STORED)), container("<odd>"))

    for given in (None, "r.io/app:2"):
        assert list(preflight.images_exist(local, given, [own])) == []

    assert looked == [str(STORED), "r.io/app:2"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [({"service_ids": ["a", "b"]}, "a"), ({"families": ["f"]}, "f"), ({"service_ids": ["a"], "families": ["f"]}, "a")],
)
def test_what_is_deployed_is_the_service_else_the_family(body: dict[str, Any], expected: str) -> None:
    """It names what was found."""
    assert preflight.subject(Invocation("f", "1", {"body": body}, "ecs")) == expected


@pytest.mark.parametrize(
    ("failure", "result", "text"),
    [
        (Denied("not for you"), "warning", "it cannot be read: not for you"),
        (DeployError("throttled"), "refused", "it cannot be read: throttled"),
        (ManagerError("NoSuchContainer", "x is none"), "refused", "NoSuchContainer: x is none"),
    ],
)
@pytest.mark.parametrize("patient", [True, False])
def test_what_cannot_be_read_is_said_as_what_it_is(
    failure: Exception, result: str, text: str, patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that may pass is waited out, except in a dry run: it is in a hurry."""
    steadily: list[object] = []
    monkeypatch.setattr(preflight, "steadily", lambda read: steadily.append(read) or read())

    def read() -> Iterator[Finding]:
        yield Finding("secrets", "ok", "it is forgotten")
        raise failure

    assert preflight._look("service", read, patient) == [Finding("service", result, text)]
    assert bool(steadily) is patient


def test_a_look_that_is_refused_is_refused() -> None:
    """Without credentials nothing else can be read either."""

    def read() -> Iterator[Finding]:
        yield Finding("service", "ok", "it is there")
        raise Refused("No credentials")

    for patient in (True, False):
        with pytest.raises(Refused, match="No credentials"):
            preflight._look("service", read, patient)


def of_account(account: str) -> Environment:
    """The environment of the embedded AWS, with another account in its settings; empty: it is not known."""
    filled = settings.Filled(account)
    filled.missing, filled.path, filled.environment = () if account else ("AWS_ACCOUNT_ID",), "account", "local"
    return structs.replace(settings.environment("local", "--env"), account=Account(filled))


WHO = f"arn:aws:iam::{ACCOUNT}:role/deployer"


@pytest.mark.parametrize(
    ("account", "caller", "result", "text"),
    [
        (ACCOUNT, {"Account": ACCOUNT, "Arn": WHO}, "ok", WHO),
        (ACCOUNT, {"Account": ACCOUNT}, "ok", ACCOUNT),
        ("", {"Account": ACCOUNT, "Arn": WHO}, "warning", f"{WHO}; the account of local is not set"),
        ("", {"Account": ACCOUNT}, "warning", f"{ACCOUNT}; the account of local is not set"),
        (
            "9",
            {"Account": ACCOUNT, "Arn": WHO},
            "refused",
            f"the credentials belong to account {ACCOUNT}, but local is account 9.",
        ),
        ("9", {}, "refused", "the credentials belong to account , but local is account 9."),
    ],
)
def test_the_credentials_are_those_of_the_environments_account(
    account: str,
    caller: dict[str, str],
    result: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where no account is set, it is said whose they are. A task is run by the same rule."""
    sts = SimpleNamespace(get_caller_identity=lambda: caller)
    monkeypatch.setattr(aws, "client", lambda service, _: {"sts": sts}[service])
    env = of_account(account)

    assert list(preflight.identity(env)) == [Finding("identity", result, text)]
    if result == "refused":
        with pytest.raises(Refused, match=f"^No task was started: {text}$"):
            preflight.require_account(Run("run-task", env))
    else:
        preflight.require_account(Run("run-task", env))
    assert (f"identity: {text}" in capsys.readouterr().err) is (result == "warning")
    preflight.require_account(Run("run-task", env, dry_run=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Denied("not for you"), "identity: it cannot be read: not for you"),
        (DeployError("throttled"), "No task was started: it cannot be read: throttled"),
        (Refused("No credentials"), "No credentials"),
    ],
)
def test_whose_credentials_cannot_be_read_is_waited_for_before_a_task_is_run(
    failure: DeployError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the right to ask, it is run with a warning."""
    steadily: list[object] = []
    monkeypatch.setattr(preflight, "steadily", lambda read: steadily.append(read) or read())

    def identity(environment: Environment) -> Iterator[Finding]:
        raise failure
        yield

    monkeypatch.setattr(preflight, "identity", identity)
    with nullcontext() if isinstance(failure, Denied) else pytest.raises(Refused, match=f"^{said}$"):
        preflight.require_account(Run("run-task", settings.environment("dev")))

    assert len(steadily) == 1
    assert (said in capsys.readouterr().err) is isinstance(failure, Denied)


def test_nobody_elses_sts_is_asked_who_the_credentials_belong_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would get a signature of them, and its answer would prove nothing."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")

    told = list(preflight.identity(settings.environment("dev")))

    assert told == [Finding("identity", "warning", "not asked for: requests to STS do not go to AWS")]


STORED = Image(f"{ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com", "app", "v1")
ARM = definition() | {"runtimePlatform": {"cpuArchitecture": "ARM64"}}


@pytest.mark.parametrize(
    ("given", "described", "expected"),
    [
        (None, [], [("image", "refused", f"{STORED} does not exist: build and push it first.")]),
        (["linux/amd64"], [], [("image", "ok", f"{STORED} exists for linux/amd64 ({DIGEST})")]),
        (["linux/amd64"], [definition()], [("image", "ok", f"{STORED} exists for linux/amd64 ({DIGEST})")]),
        (
            ["linux/amd64", "linux/arm64/v8"],
            [ARM],
            [("image", "ok", f"{STORED} exists for linux/amd64, linux/arm64/v8 ({DIGEST})")],
        ),
        (
            ["linux/amd64", "linux/arm64x"],
            [ARM],
            [("platform", "refused", f"{STORED} is for linux/amd64, linux/arm64x, and the task runs on linux/arm64.")],
        ),
        ([], [ARM], [("platform", "refused", f"{STORED} is for no platform, and the task runs on linux/arm64.")]),
        (Refused("No credentials"), [ARM], []),
        (
            DeployError("throttled"),
            [ARM],
            [
                ("image", "ok", f"{STORED} exists ({DIGEST})"),
                ("platform", "warning", "it cannot be read: throttled"),
            ],
        ),
    ],
)
def test_an_image_exists_for_the_platform_of_the_task(
    given: list[str] | DeployError | None,
    described: list[dict[str, Any]],
    expected: list[tuple[str, str, str]],
    local: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the platform is where nothing is known of the task."""

    def platforms(*_: object) -> tuple[str, ...]:
        if isinstance(given, DeployError):
            raise given
        return tuple(given or ())

    monkeypatch.setattr(images, "look_up", lambda *_: None if given is None else Stored(DIGEST, ""))
    monkeypatch.setattr(images, "platforms", platforms)

    if isinstance(given, Refused):
        with pytest.raises(Refused, match="No credentials"):
            list(preflight.image_exists(local, STORED, described))
        return
    assert list(preflight.image_exists(local, STORED, described)) == [Finding(*words) for words in expected]


def test_an_image_of_another_registry_is_not_looked_for(local: Environment) -> None:
    """It may well be there. Neither is what is no reference at all."""
    found = list(preflight.images_exist(local, "ghcr.io/o/app:1", []))

    assert found == [Finding("image", "warning", "ghcr.io/o/app:1 is not in ECR, and was not looked for.")]
    assert list(preflight.images_exist(local, None, [])) == []
    assert list(preflight.images_exist(local, "<no image>", [])) == []


@pytest.fixture
def local() -> Environment:
    """The environment of the embedded AWS."""
    return settings.environment("local", "--env")


def look(
    environment: Environment, tag: str = "v0", *, via: str = "ecs", supersede: bool = False, **more: Any
) -> Preflight:
    """What is found before a deployment of the application."""
    image = f"{environment.registry.require()}/mint-backend:{tag}"
    event = manager.deploy_event(environment, APP, image, **more)
    call = Invocation("f", "1", event, via)
    return preflight.check(Run("deploy-service", environment), call, supersede=supersede)


def results(found: Preflight) -> dict[str, str]:
    """The result of everything that was looked at."""
    return {finding.about: finding.result for finding in found.findings}


def text(found: Preflight, about: str) -> str:
    """What was said of one thing."""
    return next(finding.text for finding in found.findings if finding.about == about)


def test_all_that_a_deployment_depends_on_is_read_and_nothing_is_written(
    cloud: EmbeddedCloud, local: Environment
) -> None:
    """The difference is that between the running revision and the one that the manager would make."""
    cloud.push("v1", "mint-backend")

    found = look(local, "v1")

    assert {**results(found), "platform": ""} == {
        "identity": "ok",
        "service": "ok",
        "task definition": "ok",
        "secrets": "ok",
        "image": "ok",
        "platform": "",
    }
    host = cloud.server.cloud.host
    assert found.diff == (
        f"mint-app: image {host}/mint-backend:v0 -> {host}/mint-backend:v1",
        "mint-app: + secret OKTA_CLIENT_SECRET from /local/mint-app/okta_client_secret",
    )
    assert "secret-okta" not in json.dumps(found.describe())
    written = [r["operation"] for r in cloud.requests() if r["operation"].startswith(("Register", "Update", "Run"))]
    assert written == []


def add_secret(cloud: EmbeddedCloud) -> None:
    """Give the service a secret by hand, of a parameter that the settings' expression does not match."""
    ecs = cloud.client("ecs")
    arn = ecs.describe_services(cluster=CLUSTER, services=[APP])["services"][0]["taskDefinition"]
    old = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    own = old["containerDefinitions"][0]
    own["secrets"] += [{"name": "HAND", "valueFrom": "/other/path/hand"}]
    new = ecs.register_task_definition(family=old["family"], containerDefinitions=[own])
    ecs.update_service(cluster=CLUSTER, service=APP, taskDefinition=new["taskDefinition"]["taskDefinitionArn"])


def test_what_would_go_wrong_is_all_said_at_once(cloud: EmbeddedCloud, local: Environment) -> None:
    """A rollout that is not over, a secret that no parameter stands for, an image that does not exist."""
    cloud.stop_clock()
    add_secret(cloud)

    found, allowed = look(local, "absent"), look(local, "absent", supersede=True, allow_secret_removal=True)

    refused = [finding.about for finding in found.refusals]
    assert refused == ["rollout", "secrets", "image"]
    assert text(found, "secrets").startswith("HAND of mint-app would be removed")
    assert text(found, "image").endswith("mint-backend:absent does not exist: build and push it first.")
    assert "mint-app: - secret HAND from /other/path/hand" in found.diff
    assert [finding.about for finding in allowed.refusals] == ["image"]
    assert (results(allowed)["rollout"], results(allowed)["secrets"]) == ("warning", "warning")


@pytest.mark.parametrize(
    ("rule", "via", "about", "result"),
    [
        ({"service": "sts", "status": 400, "code": "AccessDenied"}, "lambda", "identity", "warning"),
        (
            {"service": "ecs", "operation": "DescribeServices", "status": 400, "code": "AccessDeniedException"},
            "lambda",
            "service",
            "warning",
        ),
        ({"service": "ssm", "status": 400, "code": "AccessDeniedException"}, "lambda", "secrets", "warning"),
        ({"service": "ssm", "status": 400, "code": "AccessDeniedException"}, "ecs", "secrets", "refused"),
        ({"service": "ssm", "status": 400, "code": "ServerException"}, "lambda", "task definition", "refused"),
        ({"service": "ecr", "status": 400, "code": "AccessDeniedException"}, "lambda", "image", "warning"),
        ({"service": "ecr", "status": 400, "code": "ServerException"}, "lambda", "image", "refused"),
        (
            {"service": "ecs", "operation": "DescribeServices", "status": 400, "code": "ServerException"},
            "lambda",
            "service",
            "refused",
        ),
    ],
)
def test_a_missing_right_is_a_warning_and_any_other_failure_is_a_refusal(
    cloud: EmbeddedCloud,
    local: Environment,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, Any],
    via: str,
    about: str,
    result: str,
) -> None:
    """Nothing that could not be read is taken for granted."""
    monkeypatch.setattr(preflight, "steadily", lambda read: read())
    cloud.fail(times=99, **rule)

    found = look(local, via=via)

    assert results(found)[about] == result
    assert rule["code"] in text(found, about)


def test_credentials_of_another_account_end_the_look(cloud: EmbeddedCloud) -> None:
    """Whatever else is read would be another account's."""
    found = look(of_account("999999999999"))

    assert results(found) == {"identity": "refused"}
    assert text(found, "identity") == f"the credentials belong to account {ACCOUNT}, but local is account 999999999999."
    assert cloud.requests("ecs") == []


def test_a_restart_needs_the_images_that_the_service_has(cloud: EmbeddedCloud, local: Environment) -> None:
    """Those in ECR: a sidecar of a public registry is not looked for."""
    call = Invocation("f", "1", manager.deploy_event(local, APP, ""), "ecs")

    found = preflight.check(Run("deploy-service", local), call, supersede=False)
    cloud.client("ecr").batch_delete_image(repositoryName="mint-backend", imageIds=[{"imageTag": "v0"}])
    gone = preflight.check(Run("deploy-service", local), call, supersede=False)

    assert [finding.result for finding in found.findings if finding.about == "image"] == ["ok"]
    assert text(found, "task definition") == "local-mint-app:1 changes"
    assert [finding.about for finding in gone.refusals] == ["image"]


@pytest.mark.parametrize(
    ("body", "abouts", "said"),
    [
        ({"families": ["local-mint-app"]}, ["identity", "task definition", "image"], ""),
        ({"families": ["none"]}, ["identity", "task definition", "image"], "none"),
        (
            {"service_ids": [APP], "containers": ["sidecar"]},
            ["identity", "service", "task definition", "image"],
            "UnknownContainer: There is no container sidecar",
        ),
    ],
    ids=["a family", "a family that does not exist", "a container that does not exist"],
)
def test_of_a_family_the_newest_revision_is_compared_and_only_the_named_containers(
    body: dict[str, Any], abouts: list[str], said: str, cloud: EmbeddedCloud, local: Environment
) -> None:
    """A family has no service that could be looked at."""
    image = f"{local.registry.require()}/mint-backend:v0"
    call = Invocation("f", "1", {"body": {"cluster_id": CLUSTER, "image": image, **body}}, "ecs")

    found = preflight.check(Run("deploy-service", local), call, supersede=False)

    assert [finding.about for finding in found.findings if finding.about != "secrets"] == abouts
    assert results(found)["task definition"] == ("refused" if said else "ok")
    assert said in text(found, "task definition")


def test_a_task_is_run_only_with_credentials_of_the_environments_account(cloud: EmbeddedCloud) -> None:
    """Asked before the first write. A dry run needs no credentials."""
    local, other = settings.environment("local", "--env"), of_account("999999999999")

    preflight.require_account(Run("run-task", local))
    preflight.require_account(Run("run-task", other, dry_run=True))
    with pytest.raises(Refused, match=f"^No task was started: the credentials belong to account {ACCOUNT}, but local"):
        preflight.require_account(Run("run-task", other))


def test_a_dry_run_shows_the_difference_and_what_would_be_refused(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """In lines for a person and as data, without any value of a secret."""
    done = invoke("deploy-service", "--tag=absent", "--dry-run", "--json", **cloud.env)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "mint-app: + secret OKTA_CLIENT_SECRET from /local/mint-app/okta_client_secret" in done.stderr
    assert any("absent does not exist" in line and "would be refused" in line for line in document["unread"])
    found = document["steps"][0]["plan"]["preflight"]
    assert {one["about"]: one["result"] for one in found["findings"]}["image"] == "refused"
    assert len(found["diff"]) == 2
    assert "secret-" not in done.stderr + done.stdout


def test_the_pipeline_is_refused_before_it_touches_the_database(
    cloud: EmbeddedCloud, invoke: Invoke, build: Path
) -> None:
    """Exit code 2: nothing was cleaned, migrated or registered."""
    add_secret(cloud)
    cloud.advance(60)
    cloud.push("v1", "mint-backend", "mint-db-migrate")
    cloud.server.cloud.requests.clear()

    done = invoke("deploy", "--tag=v1", "--no-build", f"--build-dir={build}", **cloud.env)

    assert done.returncode == 2, done.stderr
    assert "HAND of mint-app would be removed" in done.stderr
    assert cloud.requests("lambda") == []
    changed = [r for r in cloud.requests("ecs") if r["operation"].startswith(("Register", "Update", "Run"))]
    assert changed == []
