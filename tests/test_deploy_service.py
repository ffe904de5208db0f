"""Deploying one service: the requests, what is refused, how its rollout is watched, and the outputs for later steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields, replace

from scripts import deploy_service
from scripts.deploy_service import Deployed, ServiceDeployment, Watching, Wish, carry_out, still
from scripts.ecs import images, manager, preflight, watch
from scripts.ecs.images import Image
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import Finding, Preflight
from scripts.ecs.reasons import Reasons
from scripts.ecs.rollout import Before, Deployment, Service, Verdict
from scripts.ecs.watch import Ended
from scripts.edges.aws import Denied
from scripts.frame import settings, stop
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.run import Run, Step
from scripts.frame.settings import Environment, OneOff, OtherService
from tests.conftest import EmbeddedCloud, Invoke, commands_clock
from tests.stand_in import Reply, answering, stand_in
from tests.test_rollout import AFTER, BACK, DONE, NEW, NEW_AT, OLD, THEIRS, WENT_BACK, Time, deployment, service

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


FLAGS = {one.name: one.default for one in fields(Wish) if one.name != "version"}


@pytest.mark.parametrize("flag", [*FLAGS, ""])
def test_each_flag_of_the_command_is_a_wish(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other."""
    monkeypatch.setattr(deploy_service, "carry_out", lambda run, wish: wish)
    given: dict[str, Any] = {flag: "x" if FLAGS[flag] is None else True} if flag else {}

    assert deploy_service.deploy_service(Run("deploy-service", settings.environment("dev")), **given) == Wish(**given)


@pytest.mark.parametrize(
    ("wish", "call"),
    [
        (
            Wish(tag="v2", allow_secret_removal=True),
            Invocation(
                "dev-ecs-manager-docker", "8", {"image": f"{ECR}/mint-backend:v2", "allow_secret_removal": True}
            ),
        ),
        (Wish(no_image=True, function_name="f", qualifier="9"), Invocation("f", "9", {})),
        (Wish(no_image=True, via="ecs"), Invocation("", "", {}, "ecs")),
        (Wish(tag="v2", resume=True, function_name="<"), None),
    ],
)
def test_the_call_follows_from_the_flags(wish: Wish, call: Invocation | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only goes on watching calls nobody."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    dev = settings.environment("dev")
    own = {"cluster_id": "dev-mint-app", "service_ids": ["mint-app"], "secrets": ["^/dev/mint-app/\\S+$"]}

    planned = deploy_service._planned(dev, wish, "mint-app")

    body = {**own, **call.payload} if call else {}
    assert planned.call == (replace(call, payload={"command": "deploy", "body": body}) if call else None)
    assert (planned.name, planned.has_no_service) == ("mint-app", False)
    image = deploy_service.image_of(dev, wish, "mint-app")
    assert planned.watching == deploy_service._watching(dev, wish, "mint-app", image)


class One:
    """A deployment that does nothing but note it. fails: what its start or its watch raises."""

    def __init__(self, name: str, noted: list[str], fails: dict[str, DeployError]) -> None:
        self.name, self.noted, self.fails = name, noted, fails
        self.call: Any = Invocation("f", "1", {"body": {"service_ids": [name]}})
        self.watching, self.has_no_service = replace(WATCHING, service=name, version=f"v-{name}"), name == "task"
        self.deployed: Deployed | None = None

    def note(self, what: str) -> None:
        self.noted.append(f"{what} {self.name}")
        if error := self.fails.get(f"{what} {self.name}"):
            raise error

    def plan(self, seen: Any) -> ServiceDeployment:
        assert seen == f"seen {self.name}"
        return ServiceDeployment(self.name, "c", "", self.call)

    def start(self, plan: ServiceDeployment) -> Deployed:
        self.note("start")
        self.deployed = replace(STARTED, service=self.name)
        return self.deployed

    def follow(self, run: Run, plan: Watching) -> Deployed:
        assert plan is self.watching
        self.note("watch")
        return replace(STARTED, service=self.name, where=self.name, proof=("p",))


LOOK, START, WATCH = (
    [f"{what} {name}" for name in ("mint-app", "worker", "cron")] for what in ("look", "start", "watch")
)
BOOM = DeployError("boom")


@pytest.mark.parametrize(
    ("wish", "fails", "noted", "result", "says", "changed"),
    [
        (Wish(), {}, [*LOOK, *START, *WATCH], "mint-app runs f:2 (was f:1)", [], True),
        (
            Wish(service="worker"),
            {},
            ["look worker", "start worker", "watch worker"],
            "worker runs f:2 (was f:1)",
            [],
            True,
        ),
        (Wish(no_wait=True), {}, [*LOOK, *START], "c: mint-app rolls out f:2 (was f:1)", [], True),
        (Wish(resume=True), {}, WATCH, "mint-app runs f:2 (was f:1)", [], False),
        (Wish(service="task"), {}, ["look task", "start task"], "c: task rolls out f:2 (was f:1)", [], True),
        # Nothing has begun, or some of it.
        (Wish(), {"look worker": Refused("no")}, LOOK[:2], "", ["no"], False),
        (Wish(), {"start mint-app": BOOM}, [*LOOK, *START[:1]], "", ["boom"], True),
        (
            Wish(),
            {"start worker": BOOM},
            [*LOOK, *START[:2], *WATCH[:1]],
            "",
            ["worker: boom", "cron: not started, because worker could not be.", "mint-app runs f:2 (was f:1)"],
            True,
        ),
        (
            Wish(),
            {"watch mint-app": RolledBack("back"), "watch cron": BOOM},
            [*LOOK, *START, *WATCH],
            "",
            ["mint-app: back", "cron: boom", "worker runs f:2 (was f:1)"],
            True,
        ),
        (Wish(service="worker"), {"watch worker": RolledBack("back")}, None, "", ["back"], True),
    ],
    ids=[
        "all",
        "one",
        "not watched",
        "only watched",
        "a task",
        "the second is refused",
        "the first fails",
        "the second fails",
        "two are no success",
        "one is no success",
    ],
)
def test_several_deployments_are_looked_at_then_started_then_watched(
    wish: Wish,
    fails: dict[str, DeployError],
    noted: list[str] | None,
    result: str,
    says: list[str],
    changed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each by itself: what was started is watched, whatever became of the others."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    done: list[str] = []

    def planned(environment: Environment, wished: Wish, name: str) -> One:
        assert wished == (wish if wish.service or name == "mint-app" else replace(wish, service=name))
        return One(name, done, fails)

    def before(run: Run, call: Invocation, *, supersede: bool) -> str:
        assert supersede is wish.supersede
        name = preflight.subject(call)
        done.append(f"look {name}")
        if error := fails.get(f"look {name}"):
            raise error
        return f"seen {name}"

    monkeypatch.setattr(deploy_service, "_planned", planned)
    monkeypatch.setattr(preflight, "before", before)
    others = {"worker": OtherService(), "cron": OtherService()}
    run = Run("deploy-service", replace(settings.environment("dev"), services=others))
    run.locked = run.recorded = True

    if says:
        with pytest.raises(DeployError) as error:
            carry_out(run, wish)
        assert str(error.value).splitlines() == says
    else:
        found = carry_out(run, wish)
        assert found
        assert (found.line(), run.last_line) == (result, result)
        # Each line while the others are still watched; the last one is the command's own.
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("worker runs", "c: worker"))]
        assert len(told) == (wish.service is None)
    if noted is not None:
        assert done == noted
    assert run.facts == {"version": f"v-{wish.service or 'mint-app'}"}
    assert stop.exit_code() == (3 if changed else 2)
    assert [step.name.partition(" ")[0] for step in run.steps].count("deploy") == sum("start" in one for one in done)


@pytest.mark.parametrize(
    ("services", "said"), [(1, []), (2, ["mint-app runs f:2 (was f:1)", "worker runs f:2 (was f:1)"])]
)
def test_of_several_services_each_result_is_said(
    services: int, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result of a single one is the command's last line."""
    each: list[Any] = [One(name, [], {}) for name in ("mint-app", "worker")[:services]]

    found = deploy_service._follow(Run("deploy-service", settings.environment("dev")), each, {}, wait=True)

    assert [*found] == ["mint-app", "worker"][:services]
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize(
    ("name", "version", "url"),
    [
        ("mint-app", "v2", "https://dev.mint.cms.gov/api/v1/healthcheck"),
        ("mint-app", "", ""),
        ("worker", "v2", ""),
    ],
)
def test_the_version_of_a_digest_is_asked_for_where_the_application_answers(name: str, version: str, url: str) -> None:
    """The endpoint is that of its own service."""
    watching = replace(IMAGE, service=name, version="", url="")
    one = deploy_service._Deployment(settings.environment("dev"), name, watching)
    before = replace(STARTED, where="c: s", version="?")

    assert one._with_version(before, version) == replace(before, version=version, where="dev" if url else "c: s")
    assert one.watching == replace(watching, url=url, version=version if url else "")


def test_a_task_that_no_service_runs_only_gets_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read of a service, and nothing rolls out."""
    seed = OneOff(family="f", subnets=())
    dev = replace(settings.environment("dev"), tasks={"seed": seed})
    reply = {"data": {"response": {"ResponseMetadata": {"HTTPStatusCode": 200}, **BARE}}}
    monkeypatch.setattr(manager, "invoke", lambda environment, call: reply)
    monkeypatch.setattr(images, "digest_of", lambda environment, uri: DIGEST)
    monkeypatch.delattr(deploy_service, "Reader")
    watching = replace(IMAGE, service="seed", url="", version="")
    one = deploy_service._Deployment(dev, "seed", watching, Invocation("f", "1", {}))

    started = one.start(one.plan(None))

    assert one.has_no_service
    assert (started.verdict, started.proof) == ("nothing to verify", ("no service runs it",))
    assert started.line() == "dev-mint-app: seed has app:v2 deployed; no service runs it, so nothing is verified"


def test_a_deployment_without_an_account_is_refused_first() -> None:
    """In a restart nothing else would need it. The version of the whole run is not that of a part."""
    run = Run("deploy", settings.environment("dev"))
    run.facts["version"] = "v1"

    with pytest.raises(Refused, match="AWS_ACCOUNT_ID"):
        carry_out(run, Wish(no_image=True))

    assert run.facts == {"version": "v1"}


STARTED = Deployed(
    "s", "c", "r/i:v2", "sha256:1", "arn:task-definition/f:2", "arn:task-definition/f:1", "ecs-svc/1", 1.0
)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "c: s rolls out f:2 (was f:1)"),
        ({"before": ""}, "c: s rolls out f:2"),
        (
            {"verdict": "nothing to verify", "proof": ("no task is desired",)},
            "c: s has f:2 (was f:1) deployed; no task is desired, so nothing is verified",
        ),
        ({"where": "dev", "reasons": ("x",), "verdict": "failed"}, "dev: s failed"),
        ({"where": "dev", "reasons": ("x",), "proof": ("y",), "verdict": ""}, "dev: s not proven"),
        ({"where": "dev", "proof": ("x",)}, "dev runs f:2 (was f:1)"),
        ({"where": "dev", "proof": ("x",), "version": "v2", "note": "n"}, "dev runs v2, n"),
        (
            {"where": "dev", "proof": ("x",), "version": "a" * 40, "changed_from": "b" * 40},
            "dev runs aaaaaaa (was bbbbbbb)",
        ),
    ],
)
def test_the_result_is_a_line_and_outputs(changes: dict[str, Any], line: str) -> None:
    """The last line of the command, and what later jobs get."""
    result = replace(STARTED, **changes)

    assert result.line() == line
    assert result.outputs() == {
        "task-definition": "arn:task-definition/f:2",
        "deployment-id": "ecs-svc/1",
        "image": "r/i:v2",
        "digest": "sha256:1",
    }


WATCHING = Watching("dev", "s", "r/i:v2", "i", "v2", "https://dev/health", 900.0, "complete", "again")


def test_the_plan_of_a_deployment_and_of_its_watch_is_in_lines() -> None:
    """With what was found before, and the exact call."""
    seen = Preflight("dev", "s", (Finding("image", "ok", "it exists"),), ("app: image",))
    plan = ServiceDeployment("s", "c", "r/i:v2", Invocation("f", "8", {"a": 1}), seen)
    call = ["invoke f at 8 with", '{"a": 1}']

    assert plan.describe() == ["deploy r/i:v2 to s in c", "  ok: image: it exists", "  change: app: image", *call]
    assert replace(plan, image="", preflight=None).describe() == ["restart s in c", *call]
    assert WATCHING.describe() == [
        "watch s up to 900 s until ECS has completed its rollout and https://dev/health answers with v2"
    ]
    assert replace(WATCHING, url="", until="traffic").describe() == [
        "watch s up to 900 s until its traffic has shifted"
    ]


@pytest.mark.parametrize(
    ("wish", "image", "changes"),
    [
        ({"tag": "v2"}, f"{ECR}/mint-backend:v2", {"again": "--tag=v2"}),
        ({"digest": DIGEST}, f"{ECR}/mint-backend@{DIGEST}", {"again": f"--digest={DIGEST}", "version": "", "url": ""}),
        ({"digest": DIGEST, "version": "v2"}, f"{ECR}/mint-backend@{DIGEST}", {"again": f"--digest={DIGEST}"}),
        (
            {"image": "other", "tag": "v2"},
            f"{ECR}/other:v2",
            {"again": "--image=other --tag=v2", "repository": "other"},
        ),
        (
            {"image_uri": "r.io/other:v2", "image": "other"},
            "r.io/other:v2",
            {"again": "--image-uri=r.io/other:v2", "repository": "other"},
        ),
        ({"no_image": True}, "", {"again": "--no-image", "repository": "", "version": "", "url": ""}),
        (
            {"service": "mint-app-db-migrate", "tag": "v2"},
            f"{ECR}/mint-db-migrate:v2",
            {"again": "--service=mint-app-db-migrate --tag=v2", "repository": "mint-db-migrate", "url": ""},
        ),
        ({"tag": "v2", "no_wait": True}, f"{ECR}/mint-backend:v2", {"again": "--tag=v2"}),
        (
            {"tag": "v2", "resume": True, "wait_until": "traffic", "timeout": "5", "keep_waiting": True},
            f"{ECR}/mint-backend:v2",
            {"again": "--tag=v2", "until": "traffic", "timeout": 5.0, "keep_waiting": True},
        ),
        (
            {"tag": "v2", "wait_until": "complete", "abort_on_failure": True},
            f"{ECR}/mint-backend:v2",
            {"again": "--tag=v2", "abort_on_failure": True},
        ),
    ],
)
def test_how_a_deployment_is_watched_follows_from_the_flags(
    wish: dict[str, Any], image: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the application's own service is asked for its version. What goes on is the same command."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    dev, name = settings.environment("dev"), wish.get("service", "mint-app")
    chosen = deploy_service.image_of(dev, Wish(**wish), name)

    url = "https://dev.mint.cms.gov/api/v1/healthcheck"
    changes = changes | {"again": f"invoke deploy-service --resume --env=dev {changes['again']}"}
    whole = Watching("dev", name, image, "mint-backend", "v2", url, 900.0, "complete", "")
    assert deploy_service._watching(dev, Wish(**wish), name, chosen) == replace(whole, **changes)
    assert str(chosen or "") == image


@pytest.mark.parametrize("flag", ["resume", "keep_waiting", "abort_on_failure", "wait_until"])
def test_what_is_not_watched_cannot_be_watched_in_some_way(flag: str) -> None:
    """Whoever gives both means something else."""
    wish = Wish(no_wait=True, **{flag: "complete" if flag == "wait_until" else True})  # type: ignore[arg-type]

    with pytest.raises(Refused, match=r"^--no-wait watches nothing"):
        deploy_service._watching(settings.environment("dev"), wish, "mint-app", None)


class Looks:
    """A reader that shows the service at one look after the other, the last from then on."""

    def __init__(self, *looks: Service | DeployError) -> None:
        self.left, self.count = list(looks), 0

    def look(self, before: Before | None = None) -> Service:
        self.count += 1
        found = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(found, DeployError):
            raise found
        return found


THROTTLED, LOST = DeployError("throttled"), OutcomeUnknown("The response was lost.")
BEFORE = service(OLD)
ARN = "arn:task-definition/app:v2"
BARE = {"NewTaskdefArn": ARN}
WITH_ID = {**BARE, "DeploymentIds": {"mint-app": "ecs-svc/7"}}
# NEW with an id such as ECS gives.
SEVENTH = replace(NEW, id="ecs-svc/7")
AGAIN = "`again` looks for it and goes on watching."


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start a deployment with these looks at ECS and this reply of the manager."""

    def start(looks: Looks, reply: Any, watching: Watching, **more: Any) -> tuple[deploy_service._Deployment, Time]:
        monkeypatch.setattr(deploy_service, "Reader", lambda environment, name: {"mint-app": looks}[name])
        monkeypatch.setattr(images, "digest_of", lambda environment, uri: {"r/app:v2": DIGEST, "": ""}[uri])
        calls = []

        def invoke(environment: Any, given: Any) -> Any:
            calls.append(given)
            assert calls == [call]
            if isinstance(reply, DeployError):
                raise reply
            return {"data": {"response": {"ResponseMetadata": {"HTTPStatusCode": 200}, **reply}}}

        monkeypatch.setattr(manager, "invoke", invoke)
        time, call = Time(), Invocation("f", "1", {"body": {}})
        one = deploy_service._Deployment(settings.environment("dev"), "mint-app", watching, call, time.clock)
        assert one.start(one.plan(None)) is one.deployed
        return one, time

    return start


IMAGE = replace(WATCHING, service="mint-app", image="r/app:v2", repository="app")
RESTART = replace(IMAGE, image="", repository="", version="", url="")


@pytest.mark.parametrize(
    ("watching", "looks", "reply", "expected", "seconds"),
    [
        (IMAGE, [BEFORE, service(SEVENTH, OLD)], WITH_ID, {}, 0.0),
        (IMAGE, [BEFORE, service(NEW, OLD)], BARE, {"deployment_id": "ecs-svc/new"}, 0.0),
        (IMAGE, [BEFORE], WITH_ID, {"since": 0.0, "verdict": "has not started"}, 0.0),
        (IMAGE, [BEFORE], BARE, {"deployment_id": "", "since": 0.0, "verdict": "has not started"}, 0.0),
        (IMAGE, [BEFORE, THROTTLED], WITH_ID, {"since": 0.0, "verdict": "has not started"}, 0.0),
        (IMAGE, [THROTTLED, BEFORE, service(SEVENTH, OLD)], WITH_ID, {}, 0.5),
        (IMAGE, [Denied("no")], WITH_ID, {"before": "", "since": 0.0, "verdict": "has not started"}, 0.5),
        (
            RESTART,
            [BEFORE, service(SEVENTH, OLD)],
            WITH_ID,
            {"image": "", "digest": "", "version": "", "where": "dev-mint-app: mint-app"},
            0.0,
        ),
        # The reply was lost: what ECS shows is taken over.
        (IMAGE, [BEFORE, service(SEVENTH, OLD)], LOST, {}, 0.0),
        (IMAGE, [BEFORE, BEFORE, THROTTLED, service(SEVENTH, OLD)], LOST, {}, 2.0),
        (
            IMAGE,
            [BEFORE, service(SEVENTH, OLD), THROTTLED],
            LOST,
            {"since": 0.0, "verdict": "has not started"},
            0.0,
        ),
    ],
)
def test_what_was_started_is_known_from_the_reply_and_from_ecs(
    watching: Watching,
    looks: Any,
    reply: Any,
    expected: dict[str, Any],
    seconds: float,
    starting: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The function is called once, whatever happens to its reply."""
    one, time = starting(Looks(*looks), reply, watching)

    whole = Deployed("mint-app", "dev-mint-app", "r/app:v2", DIGEST, ARN, OLD.task_definition, "ecs-svc/7", NEW_AT)
    whole = replace(whole, where="dev", version="v2", verdict="in progress")
    assert one.deployed == replace(whole, **expected)
    assert time.time == seconds
    lost = [f"{LOST} Looking in ECS for what was started.", "ECS shows that it was started: ecs-svc/7, app:v2"]
    unread = ["the rollout in ECS is not watched: no"] if isinstance(looks[0], Denied) else []
    what = "deploy r/app:v2 to mint-app in" if watching.image else "restart mint-app in"
    called = f"invoking f at 1: {what} dev-mint-app"
    said = [*unread, called, *(lost if reply is LOST else []), one.deployed.line()]
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize(
    ("looks", "reply", "kind", "says"),
    [
        ([THROTTLED], WITH_ID, Refused, "Nothing was started: throttled"),
        ([Refused("there is none")], WITH_ID, Refused, "there is none"),
        ([BEFORE], DeployError("no such image"), DeployError, "no such image"),
        (
            [BEFORE],
            LOST,
            OutcomeUnknown,
            "The response was lost. ECS shows no new deployment of mint-app. Do not run this again before that is"
            f" clear: {AGAIN}",
        ),
        (
            [BEFORE, service(SEVENTH, replace(NEW, id="ecs-svc/8"), OLD)],
            LOST,
            OutcomeUnknown,
            "The response was lost. ECS shows more than one new deployment of mint-app. Do not run this again before"
            f" that is clear: {AGAIN}",
        ),
        (
            [Denied("no")],
            LOST,
            OutcomeUnknown,
            "The response was lost. Whether mint-app is rolling out is not known. Do not run this again before that is"
            f" clear: {AGAIN}",
        ),
    ],
)
def test_a_deployment_that_was_not_started_or_is_not_found_says_so(
    looks: Any, reply: Any, kind: type[DeployError], says: str, starting: Any
) -> None:
    """Refused where nothing was started, unknown where something may have been."""
    seen = Looks(*looks)
    with pytest.raises(DeployError) as error:
        starting(seen, reply, IMAGE)

    assert (type(error.value), str(error.value)) == (kind, says)
    if "no new deployment" in says:
        # Once before the call, and for thirty seconds after it.
        assert seen.count == 1 + 31


@pytest.mark.parametrize(
    ("repository", "new", "expected"),
    [
        ("app", [], []),
        ("app", [NEW], ["ecs-svc/new"]),
        ("app", [THEIRS], []),
        ("app", [replace(NEW, reason=BACK)], []),
        ("app", [replace(NEW, id="ecs-svc/old")], []),
        ("", [NEW], []),
        ("", [deployment("v1")], ["ecs-svc/new"]),
        ("", [WENT_BACK], []),
    ],
)
def test_which_new_deployment_a_lost_call_may_have_started(
    repository: str, new: list[Deployment], expected: list[str]
) -> None:
    """One with its image, or of the task definition that ran before: a restart."""
    before = replace(AFTER, repository=repository)

    assert [one.id for one in deploy_service._candidates(before, service(*new, OLD))] == expected


@pytest.mark.parametrize(
    ("looks", "changes", "kind", "says"),
    [
        ([service(DONE)], {}, None, ""),
        ([service(NEW, OLD)], {}, None, ""),
        ([THROTTLED], {}, None, "ECS can no longer be read: throttled"),
        (
            [service(THEIRS)],
            {},
            DeployError,
            "dev: v2 of app was superseded by another deployment: ECS gives no reason.",
        ),
        ([service(THEIRS)], {"deployment_id": ""}, None, ""),
        ([service(WENT_BACK, DONE)], {}, RolledBack, f"dev: v2 of app was rolled back: {BACK}."),
    ],
)
def test_a_deployment_is_looked_at_again(
    looks: Any,
    changes: dict[str, Any],
    kind: type[DeployError] | None,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whose id is known. What cannot be read counts as unchanged."""
    monkeypatch.setattr("scripts.ecs.reader.PAUSE", 0.0)
    monkeypatch.setattr(deploy_service, "Reader", lambda environment, name: {"app": Looks(*looks)}[name])
    ours = replace(STARTED, service="app", version="v2", deployment_id="ecs-svc/new", since=NEW_AT)
    ours = replace(ours, **changes)

    if kind:
        with pytest.raises(DeployError) as error:
            still(settings.environment("dev"), ours)
        assert (type(error.value), str(error.value)) == (kind, says)
    else:
        assert still(settings.environment("dev"), ours) == ours
        assert (says in capsys.readouterr().err) or not says


@pytest.mark.parametrize(
    ("watching", "version", "ended", "expected", "planned"),
    [
        (
            IMAGE,
            "v9",
            Ended(Verdict.SUCCEEDED, None, ("p",), "n", "v1"),
            {"verdict": "succeeded", "proof": ("p",), "note": "n", "changed_from": "v1"},
            {},
        ),
        (
            replace(IMAGE, until="traffic", abort_on_failure=True, keep_waiting=True),
            "v9",
            Ended(Verdict.BAKING, None, ("p",)),
            {"verdict": "baking", "proof": ("p",)},
            {"until_traffic": True, "abort": True},
        ),
        (
            IMAGE,
            "v9",
            Ended(Verdict.FAILED, DeployError("f"), reasons=Reasons(("r",), "l", ("log",))),
            {"verdict": "failed", "reasons": ("r", "log")},
            {},
        ),
        (IMAGE, "v9", Ended(None, OutcomeUnknown("u")), {"verdict": "", "reasons": ("u",)}, {}),
        # By its digest: ECR may know the version.
        (
            replace(IMAGE, version="", url=""),
            "v2",
            Ended(Verdict.SUCCEEDED, None, ("p",)),
            {"verdict": "succeeded", "proof": ("p",)},
            {"url": "https://dev.mint.cms.gov/api/v1/healthcheck"},
        ),
        (
            replace(IMAGE, version="", url=""),
            "",
            Ended(Verdict.SUCCEEDED, None, ("p",)),
            {"verdict": "succeeded", "proof": ("p",), "version": "", "where": "dev-mint-app: mint-app"},
            {"url": ""},
        ),
        (
            RESTART,
            "v9",
            Ended(Verdict.SUCCEEDED, None, ("p",)),
            {
                "verdict": "succeeded",
                "proof": ("p",),
                "version": "",
                "where": "dev-mint-app: mint-app",
                "image": "",
                "digest": "",
            },
            {"url": ""},
        ),
    ],
)
def test_how_it_ended_is_in_the_result(
    watching: Watching,
    version: str,
    ended: Ended,
    expected: dict[str, Any],
    planned: dict[str, Any],
    starting: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also of one that failed, for the receipt. A restriction is a warning."""
    one, _ = starting(Looks(BEFORE, service(SEVENTH, OLD)), WITH_ID, watching)
    plans: list[Any] = []
    monkeypatch.setattr(watch, "watch", lambda plan, sight, clock: plans.append(plan) or ended)
    monkeypatch.setattr(images, "version_of", lambda environment, uri: version)
    run = Run("deploy-service", settings.environment("dev"))
    run.steps.append(Step("watch"))
    whole = Deployed("mint-app", "dev-mint-app", "r/app:v2", DIGEST, ARN, OLD.task_definition, "ecs-svc/7", NEW_AT)
    result: Any = replace(whole, **{"where": "dev", "version": "v2", **expected})

    if ended.failure:
        with pytest.raises(DeployError) as error:
            one.follow(run, watching)
        assert (error.value, run.steps[-1].result) == (ended.failure, result)
    else:
        assert one.follow(run, watching) == result
    said = capsys.readouterr().err
    assert ("mint-app: n" in said) is bool(ended.note)
    assert ("  | log" in said) is bool(ended.reasons.log)
    (plan,) = plans
    before = plan.before
    assert (before.id, before.task_definition, before.service) == ("ecs-svc/7", ARN, BEFORE)
    assert (before.digest, before.version) == (result.digest, result.version)
    assert (before.seen, before.patient) == (SEVENTH, watching.keep_waiting)
    told = {"where": "dev", "service": "mint-app", "url": watching.url, "timeout": 900.0, "again": "again"}
    assert plan == watch.Plan(before=before, **{**told, **planned})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("watching", "expected"),
    [
        (IMAGE, ("", DIGEST, None)),
        (RESTART, ("ecs-svc/new", "", NEW)),
        (replace(RESTART, service="empty"), ("", "", None)),
    ],
    ids=["an image", "a restart", "a service without a deployment"],
)
def test_what_is_watched_again_is_found_in_ecs(
    watching: Watching, expected: tuple[str, str, Deployment | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment of the image, else the one that rolls out now."""
    looks, time = Looks(THROTTLED, service() if watching.service == "empty" else service(NEW, OLD)), Time()
    monkeypatch.setattr(deploy_service, "Reader", lambda *_: looks)
    monkeypatch.setattr(images, "digest_of", lambda *_: DIGEST)
    plans: list[Any] = []
    monkeypatch.setattr(watch, "watch", lambda plan, sight, clock: plans.append((plan, sight)) or Ended(None))
    one = deploy_service._Deployment(settings.environment("dev"), "mint-app", watching, clock=time.clock)

    result = one.follow(Run("deploy-service", settings.environment("dev")), watching)

    assert (looks.count, time.time) == ((0, 0.0) if watching.image else (2, 0.5))
    ((plan, sight),) = plans
    assert sight is looks
    assert (plan.before.id, plan.before.digest, plan.before.seen) == expected
    assert (result.deployment_id, result.digest) == expected[:2]


@pytest.fixture
def paced(cloud: EmbeddedCloud) -> Iterator[None]:
    """Time passes in AWS only while the command sleeps: on a busy machine a rollout would be over before it looks."""
    time = Time()

    def sleep(seconds: float) -> None:
        time.clock.sleep(seconds)
        cloud.advance(seconds)

    cloud.stop_clock()
    with commands_clock(time.clock.now, sleep):
        yield


def test_a_deployment_whose_answer_is_lost_is_found_in_ecs_and_watched(
    cloud: EmbeddedCloud, paced: None, capsys: pytest.CaptureFixture[str]
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


def test_an_image_by_its_digest_is_proven_at_the_endpoint_too(cloud: EmbeddedCloud, paced: None) -> None:
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
