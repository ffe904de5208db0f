"""`invoke verify`: the reads of a deployment alone, with the rights that it needs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from scripts import verify
from scripts.deploy_service import Wish
from scripts.ecs import manager, rights
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import Finding, Preflight
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.verify import Verified
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import DENIED, Reply, StandIn, stand_in

ACCOUNT, REGION = "123456789012", "us-west-2"
ARN = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
SERVICE = {
    "serviceArn": f"{ARN}:service/dev-mint-app/mint-app",
    "clusterArn": f"{ARN}:cluster/dev-mint-app",
    "taskDefinition": f"{ARN}:task-definition/app:7",
    "status": "ACTIVE",
}
DEFINITION = {
    "taskDefinitionArn": f"{ARN}:task-definition/app:7",
    "containerDefinitions": [{"name": "app", "image": "i"}],
    "taskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/task",
    "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/execution",
}
DIGEST = f"sha256:{'a' * 64}"
PARAMETERS = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/dev/mint-app/*"


def test_verify_shows_what_a_deployment_would_find_and_changes_nothing(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Each service with the image of the version, the migrations included, and whether the Lambda may be called."""
    cloud.push("v1", "mint-backend", "mint-db-migrate")

    done = invoke("verify", "--tag=v1", **cloud.env)

    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    seen = {(row[1], row[2]): row[0] for row in rows if row[0] in ("ok", "warning", "refused")}
    for name in ("mint-app", "mint-app-db-migrate"):
        assert {about: seen[name, about] for about in ("identity", "service", "image")} == dict.fromkeys(
            ("identity", "service", "image"), "ok"
        )
    assert "mint-backend:v0 ->" in done.stdout
    assert "local-ecs-manager-docker at $LATEST may be called" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("local: mint-app, mint-app-db-migrate can be deployed")
    written = [r for r in cloud.requests() if r["operation"].startswith(("Register", "Update", "RunTask"))]
    assert written == []


def test_verify_fails_with_every_reason(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Exit code 2, as the deployment would; the table is shown all the same."""
    cloud.fail(service="lambda", status=403, code="AccessDeniedException")

    done = invoke("verify", "--tag=absent", "--json", **cloud.env)

    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["exit_code"] == 2
    (step,) = document["steps"]
    assert [one["name"] for one in step["result"]["services"]] == ["mint-app", "mint-app-db-migrate"]
    said = done.stderr.splitlines()
    assert any(line.startswith("  mint-app: image: ") and "absent does not exist" in line for line in said)
    assert any(line.startswith("  mint-app-db-migrate: image: ") for line in said)
    assert any(line.startswith("  rights: AWS refused asking whether") for line in said)


@pytest.mark.parametrize(
    ("lines", "flags", "expected"),
    [
        ("", (), ["mint-app", "mint-app-db-migrate"]),
        ('services.worker = { image = "mint-worker" }', (), ["mint-app", "worker", "mint-app-db-migrate"]),
        ('migrations = { service = "" }', (), ["mint-app"]),
    ],
)
def test_which_services_are_looked_at(
    lines: str, flags: tuple[str, ...], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a deployment of the application deploys."""
    head = "[environments.dev]\n"
    file = tmp_path / "settings.toml"
    file.write_text((settings.ROOT / "environments.toml").read_text().replace(head, f"{head}{lines}\n"))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))

    assert list(verify.targets(settings.environment("dev"))) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"tag": "v1"}, [("mint-app", "mint-backend:v1"), ("mint-app-db-migrate", "mint-db-migrate:v1")]),
        ({"digest": DIGEST}, [("mint-app", f"mint-backend@{DIGEST}")]),
        ({"image_uri": "r.io/a:v2"}, [("mint-app", "a:v2")]),
        ({"tag": "v1", "service": "mint-app-db-migrate"}, [("mint-app-db-migrate", "mint-db-migrate:v1")]),
        ({"digest": DIGEST, "service": "mint-app-db-migrate"}, [("mint-app-db-migrate", f"mint-db-migrate@{DIGEST}")]),
    ],
    ids=["a tag", "a digest", "an image", "one service", "one service by digest"],
)
@pytest.mark.parametrize("via", [None, "ecs"])
def test_an_image_is_looked_at_for_its_own_service_alone(
    flags: dict[str, str], expected: list[tuple[str, str]], via: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag is one of each service's image; a digest or a name is of one image, that of the application's own."""
    seen: list[Invocation] = []

    def look(run: Run, calls: list[Invocation]) -> Verified:
        seen.extend(calls)
        return Verified("local", (), ())

    monkeypatch.setattr(verify, "look", look)

    verify.verify(Run("verify", settings.environment("local")), via=via, **flags)

    assert {call.via for call in seen} == {via or "lambda"}
    bodies = [call.payload["body"] for call in seen]
    assert [(*body["service_ids"], body["image"].partition("/")[2]) for body in bodies] == expected


@pytest.mark.parametrize(
    ("name", "dry_run", "refused"),
    [("mint-app", False, True), ("mint-app", True, False), ("", False, False)],
    ids=["a refusal", "in a dry run", "nothing against it"],
)
def test_a_refusal_is_the_result_unless_it_is_a_dry_run(
    name: str, dry_run: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each reason on a line of its own."""
    findings = (Finding("service", "refused", "gone"), Finding("image", "refused", "no")) if name else ()
    found = Verified("local", (Preflight("local", name, findings),), ())
    monkeypatch.setattr(verify, "look", lambda run, calls: found)
    run = Run("verify", settings.environment("local"), dry_run=dry_run)

    if refused:
        with pytest.raises(Refused) as raised:
            verify.verify(run, tag="v1")
        assert str(raised.value).splitlines() == [
            "local: nothing can be deployed.",
            "  mint-app: service: gone",
            "  mint-app: image: no",
        ]
    else:
        assert verify.verify(run, tag="v1") is found


def test_the_rights_are_those_of_the_call_for_the_first_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each service is looked at, and nobody's rollout would be superseded."""
    local, seen = settings.environment("local"), list[str]()

    def check(run: Run, call: Invocation, *, supersede: bool) -> Preflight:
        assert not supersede
        seen.append(call.payload["body"]["service_ids"][0])
        return Preflight("local", seen[-1], ())

    def of_role(environment: Environment, call: Invocation) -> Iterator[Finding]:
        yield Finding("rights", "ok", call.payload["body"]["service_ids"][0])

    monkeypatch.setattr(verify.preflight, "check", check)
    monkeypatch.setattr(verify.rights, "check", of_role)
    monkeypatch.setattr(verify.gates, "check", lambda environment: iter([Finding("gate", "ok", environment.name)]))
    calls = [verify.call_for(local, Wish(tag="v1"), name) for name in ("mint-app", "mint-app-db-migrate")]

    found = verify.look(Run("verify", local), calls)

    assert seen == [one.name for one in found.services] == ["mint-app", "mint-app-db-migrate"]
    assert [(one.about, one.text) for one in (*found.rights, *found.gate)] == [
        ("rights", "mint-app"),
        ("gate", "local"),
    ]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_call_may_take_secrets_away_only_if_that_was_allowed(allowed: bool) -> None:
    """As the deployment may."""
    wish = Wish(tag="v1", allow_secret_removal=allowed)

    call = verify.call_for(settings.environment("local"), wish, "mint-app")

    assert call.payload["body"].get("allow_secret_removal", False) is allowed


@pytest.mark.parametrize("name", ["", "a b", "a\n"])
def test_what_is_no_name_of_a_service_is_not_looked_at(name: str) -> None:
    """Also an empty flag is not a missing one."""
    with pytest.raises(Refused, match="is not the name of an ECS service"):
        verify.verify(Run("verify", settings.environment("local")), service=name, tag="v1")


def test_the_report_of_several_services() -> None:
    """Those that can be deployed, and every reason why the others cannot."""
    good = Preflight("dev", "a", (Finding("image", "ok", "i"),), ("app: image",))
    bad = Preflight("dev", "b", (Finding("service", "refused", "gone"),))
    found = Verified("dev", (good, bad), (Finding("rights", "warning", "w"), Finding("rights", "refused", "r")))

    assert found.line() == "dev: a can be deployed"
    assert found.refusals == ("b: service: gone", "rights: r")
    assert found.table() == [
        ("RESULT", "SERVICE", "WHAT", ""),
        ("ok", "a", "image", "i"),
        ("", "a", "change", "app: image"),
        ("refused", "b", "service", "gone"),
        ("warning", "", "rights", "w"),
        ("refused", "", "rights", "r"),
    ]
    assert Verified("dev", (bad,), ()).line() == "dev: nothing can be deployed"
    gate = (Finding("gate", "warning", "nobody"),)
    assert Verified("dev", (good,), (), gate).table()[-1] == ("warning", "", "gate", "nobody")
    assert Verified("dev", (good,), (), gate).refusals == ()


@pytest.mark.parametrize("roles", [2, 1, 0])
@pytest.mark.parametrize("parameters", [PARAMETERS, ""])
def test_the_rights_that_carrying_out_a_deployment_needs(roles: int, parameters: str) -> None:
    """On the resources of the service. A task definition without roles passes none."""
    keys = ("taskRoleArn", "executionRoleArn")[:roles]
    definition = {**{key: DEFINITION[key] for key in keys}, "taskDefinitionArn": DEFINITION["taskDefinitionArn"]}

    found = {
        action: need.resources for need in rights.needs(SERVICE, definition, parameters) for action in need.actions
    }

    assert found["ecs:UpdateService"] == (SERVICE["serviceArn"],)
    assert found["ecs:TagResource"] == found["ecs:RunTask"] == (f"{ARN}:task-definition/app:*",)
    assert found["ecs:DescribeTasks"] == (f"{ARN}:task/dev-mint-app/*",)
    assert found.get("iam:PassRole", ()) == tuple(DEFINITION[key] for key in keys)
    assert found.get("ssm:ListTagsForResource", ()) == ((parameters,) if parameters else ())


def test_every_right_is_in_the_documentation() -> None:
    """docs/permissions.md names them all."""
    page = (settings.ROOT / "docs" / "permissions.md").read_text()

    for need in rights.needs(SERVICE, DEFINITION, PARAMETERS):
        for action in need.actions:
            assert f"`{action}`" in page


def simulated(*denied: str) -> bytes:
    """IAM's answer, in which these actions are denied."""
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>r</EvalResourceName>"
        f"<EvalDecision>{decision}</EvalDecision></member>"
        for action, decision in [("ecs:RunTask", "allowed"), *((one, "implicitDeny") for one in denied)]
    )
    inside = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
    space = 'xmlns="https://iam.amazonaws.com/doc/2010-05-08/"'
    name = "SimulatePrincipalPolicyResponse"
    return f"<{name} {space}><SimulatePrincipalPolicyResult>{inside}</SimulatePrincipalPolicyResult></{name}>".encode()


def aws(server: StandIn, *denied: str, role: Reply | None = None) -> Callable[[str, str], Reply]:
    """ECS with one service, Lambda with its function, and an IAM."""

    def answer(method: str, path: str) -> Reply:
        request = server.requests[-1]
        target = request["headers"].get("X-Amz-Target", "").rpartition(".")[2]
        if "/invocations" in path:
            return Reply(b"", 204)
        if "/configuration" in path:
            return role or Reply(json.dumps({"Role": f"arn:aws:iam::{ACCOUNT}:role/manager"}).encode())
        if target == "DescribeServices":
            return Reply(json.dumps({"services": [SERVICE]}).encode())
        if target == "DescribeTaskDefinition":
            return Reply(json.dumps({"taskDefinition": DEFINITION}).encode())
        first = not any(b"Simulate" in r["body"] for r in server.requests[:-1])
        return Reply(simulated(*(denied if first else ())), headers={"Content-Type": "text/xml"})

    return answer


def call(via: str = "lambda") -> Invocation:
    """A deployment of the application to dev."""
    return Invocation("f", "1", manager.deploy_event(settings.environment("dev"), "mint-app", ""), via)


@pytest.mark.parametrize(
    ("denied", "expected"),
    [
        ((), [("ok", "f at 1 may be called"), ("ok", "manager has what a deployment needs")]),
        (
            ("ecs:UpdateService",),
            [("ok", "f at 1 may be called"), ("warning", "manager lacks ecs:UpdateService on r")],
        ),
    ],
)
def test_iam_is_asked_what_the_functions_role_may_do(
    denied: tuple[str, ...], expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function is not called: Lambda only says whether it may be."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with stand_in(lambda *_: DENIED) as server:
        server.answer = aws(server, *denied)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        found = list(rights.check(settings.environment("dev"), call()))

    assert [(one.result, one.text[: len(text)]) for one, (_, text) in zip(found, expected, strict=True)] == expected
    (invoked,) = [r for r in server.requests if "/invocations" in r["path"]]
    assert invoked["headers"]["X-Amz-Invocation-Type"] == "DryRun"
    assert (invoked["path"], invoked["body"]) == ("/2015-03-31/functions/f/invocations", b"{}")
    (read,) = [r for r in server.requests if "/configuration" in r["path"]]
    assert read["path"] == "/2015-03-31/functions/f/configuration"
    assert invoked["query"] == read["query"] == {"Qualifier": ["1"]}
    (described,) = [r for r in server.requests if b"mint-app" in r["body"] and b"services" in r["body"]]
    assert json.loads(described["body"]) == {"cluster": "dev-mint-app", "services": ["mint-app"]}
    asked = [parse_qs(r["body"].decode()) for r in server.requests if b"Simulate" in r["body"]]
    assert {one["PolicySourceArn"][0] for one in asked} == {f"arn:aws:iam::{ACCOUNT}:role/manager"}
    assert ["ecs-tasks.amazonaws.com"] in asked[0].values()
    assert [f"{ARN}:cluster/dev-mint-app"] in asked[0].values()


@pytest.mark.parametrize(
    ("role", "result"),
    [(DENIED, "warning"), (Reply(b"{}"), "warning")],
    ids=["its role may not be read", "an answer without a role"],
)
def test_rights_that_cannot_be_asked_for_are_a_warning(
    role: Reply, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing against the deployment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with stand_in(lambda *_: DENIED) as server:
        server.answer = aws(server, role=role)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        found = list(rights.check(settings.environment("dev"), call()))

    assert [one.result for one in found] == ["ok", result]
    assert found[1].text.startswith("not all of them can be asked for: ")


def test_a_function_that_may_not_be_called_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing more is asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with stand_in(lambda *_: DENIED) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        found = list(rights.check(settings.environment("dev"), call()))

    assert [(one.result, "not for this role" in one.text) for one in found] == [("refused", True)]
    assert len(server.requests) == 1


def test_whatever_iam_does_not_call_allowed_is_lacking() -> None:
    """Denied by a statement, or allowed by none."""
    results = [
        {"EvalActionName": "a", "EvalResourceName": "r", "EvalDecision": "explicitDeny"},
        {"EvalActionName": "b", "EvalDecision": "implicitDeny"},
        {"EvalActionName": "c", "EvalDecision": "allowed"},
    ]

    assert rights.denied(results) == ["a on r", "b on *"]


CLUSTER = ("ecs:cluster", f"{ARN}:cluster/dev-mint-app")


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        ((SERVICE["serviceArn"],), [CLUSTER]),
        (("*", SERVICE["serviceArn"]), [CLUSTER]),
        (("*",), []),
        ((f"arn:aws:iam::{ACCOUNT}:role/task",), []),
        (("arn:aws:x:region",), []),
    ],
    ids=["a service", "anything, and a service", "anything", "a role has no region", "no account"],
)
def test_the_conditions_of_policies_are_asked_with_the_cluster(
    resources: tuple[str, ...], asked: list[tuple[str, str]]
) -> None:
    """In the region and account of the resource; and always to whom a role is passed."""
    found = rights._context(settings.environment("dev"), resources)

    assert {one["ContextKeyType"] for one in found} == {"string"}
    keys = [(one["ContextKeyName"], *one["ContextKeyValues"]) for one in found]
    assert keys == [("iam:PassedToService", "ecs-tasks.amazonaws.com"), *asked]


def xml(operation: str, inside: str) -> Reply:
    """An answer of STS or IAM."""
    result = f"<{operation}Result>{inside}</{operation}Result>"
    return Reply(f"<{operation}Response>{result}</{operation}Response>".encode(), headers={"Content-Type": "text/xml"})


@pytest.mark.parametrize(
    ("caller", "role"),
    [
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/session", f"arn:aws:iam::{ACCOUNT}:role/path/deployer"),
        (f"arn:aws:iam::{ACCOUNT}:user/octocat", f"arn:aws:iam::{ACCOUNT}:user/octocat"),
    ],
    ids=["a role", "a user"],
)
def test_without_a_function_the_callers_own_rights_are_asked_for(
    caller: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session's ARN does not have the path of its role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    def answer(method: str, path: str) -> Reply:
        body = server.requests[-1]["body"]
        if b"GetCallerIdentity" in body:
            return xml("GetCallerIdentity", f"<Arn>{caller}</Arn>")
        if b"GetRole" in body:
            assert parse_qs(body.decode())["RoleName"] == ["deployer"]
            return xml("GetRole", f"<Role><Arn>{role}</Arn></Role>")
        return others(method, path)

    with stand_in(answer) as server:
        others = aws(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        (found,) = rights.check(settings.environment("dev"), call("ecs"))

    name = role.rpartition("/")[2]
    assert (found.result, found.text) == ("ok", f"{name} has what a deployment needs, as far as IAM's policies say")
    asked = [parse_qs(r["body"].decode()) for r in server.requests if b"Simulate" in r["body"]]
    assert {one["PolicySourceArn"][0] for one in asked} == {role}
    resources = {one[key][0] for one in asked for key in one if key.startswith("ResourceArns.member.")}
    assert PARAMETERS in resources
    assert not any("/invocations" in r["path"] for r in server.requests)


def test_an_embedded_aws_checks_no_rights(cloud: EmbeddedCloud) -> None:
    """Only whether the function is there."""
    local = settings.environment("local", "--env")
    event = manager.deploy_event(local, "mint-app", "")
    known = Invocation("local-ecs-manager-docker", "$LATEST", event)

    assert [one.result for one in rights.check(local, known)] == ["ok"]
    assert list(rights.check(local, Invocation("", "", event, "ecs"))) == []
    assert {r["operation"] for r in cloud.requests()} == {"Invoke"}


@pytest.mark.parametrize("via", ["lambda", "ecs"])
def test_without_credentials_nothing_can_be_asked(via: str) -> None:
    """Which is no finding, but a refusal."""
    with pytest.raises(Refused, match="credentials"):
        list(rights.check(settings.environment("dev"), call(via)))
