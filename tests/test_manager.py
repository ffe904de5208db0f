"""The ECS manager's wire contract: how it is called, and what each kind of reply means."""

import base64
import io
import json
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from scripts.ecs import manager
from scripts.edges.aws import NothingRan
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment, Filled, Manager, OneOff, OtherService, Setting
from scripts.frame.waiting import Clock
from tests.conftest import EmbeddedCloud
from tests.stand_in import Reply, answering, stand_in

ENDED = {"errorType": "KeyError", "errorMessage": "x"}
LATE = {"errorMessage": "2026 Task timed out after 120.00 seconds"}
DONE = {"ResponseMetadata": {"HTTPStatusCode": 200}}


@pytest.mark.parametrize(
    ("function", "qualifier", "expected"),
    [
        (None, None, ("dev-ecs-manager-docker", "8")),
        (None, "9", ("dev-ecs-manager-docker", "9")),
        ("other", None, ("other", "$LATEST")),
        ("other", "live", ("other", "live")),
        ("dev-ecs-manager-docker", None, ("dev-ecs-manager-docker", "$LATEST")),
    ],
)
def test_another_function_does_not_get_the_qualifier_of_the_settings(
    function: str | None, qualifier: str | None, expected: tuple[str, str]
) -> None:
    """It has other versions."""
    call = manager.planned(settings.environment("dev"), function, qualifier, {"a": 1})

    assert (call.function, call.qualifier) == expected
    assert call.describe() == [f"invoke {expected[0]} at {expected[1]} with", '{"a": 1}']
    assert (call.who, call.doing) == (expected[0], f"invoking {expected[0]} at {expected[1]}")
    straight = manager.planned(settings.environment("dev"), None, None, {"a": 1}, "ecs")
    assert straight.describe() == ["call ECS directly, as the ECS manager would for", '{"a": 1}']
    assert (straight.who, straight.doing) == ("ECS", "calling ECS")


HINT = "set it, or set manager.via to ecs (--via=ecs) to call ECS directly."


@pytest.mark.parametrize(
    ("own", "function", "qualifier", "said"),
    [
        (Manager(qualifier="8"), None, None, f"dev has no manager.function: {HINT}"),
        (Manager(function="f"), None, None, f"dev has no manager.qualifier: {HINT}"),
        (Manager(function="f"), None, "", "'' is not a version or an alias of a Lambda function."),
        (Manager(function="f", qualifier="8"), "", None, "'' is not the name of a Lambda function."),
        (Manager(function="f", qualifier="8"), "a b", None, "'a b' is not the name of a Lambda function."),
        (
            Manager(function="f", qualifier="8"),
            None,
            "$latest",
            "'$latest' is not a version or an alias of a Lambda fun",
        ),
        (Manager(function="f", qualifier="8"), "x" * 171, None, f"'{'x' * 171}' is not the name of a Lambda function."),
        (
            Manager(function="f", qualifier="8"),
            None,
            "x" * 129,
            f"'{'x' * 129}' is not a version or an alias of a Lamb",
        ),
        (Manager(function="f", qualifier="8"), "x" * 170, "x" * 128, ""),
    ],
)
def test_a_function_that_is_not_set_or_is_none_is_refused(
    own: Manager, function: str | None, qualifier: str | None, said: str
) -> None:
    """With what can be done where there is none."""
    dev = structs.replace(settings.environment("dev"), manager=own)

    if said:
        with pytest.raises(Refused) as refused:
            manager.planned(dev, function, qualifier, {})
        assert str(refused.value).startswith(said)
    else:
        call = manager.planned(dev, function, qualifier, {})
        assert (call.function, call.qualifier, call.via) == (function, qualifier, "lambda")


OTHERS = {"worker": OtherService(secrets="^/s$", containers=("w",)), "cron": OtherService(image="mint-cron")}
TASKS = {"seed": OneOff(family="f", subnets=(Setting(Filled("subnet-1")),))}


def dev_with_others() -> Environment:
    """An environment whose application has more than one service, and a task."""
    dev = settings.environment("dev")
    own = structs.replace(dev.service, containers=("a", "b"))
    return structs.replace(dev, service=own, services={"mint-app": OtherService(), **OTHERS}, tasks=TASKS)


OWN_SECRETS, EVENT = ["^/dev/mint-app/\\S+$"], {"cluster_id": "dev-mint-app"}


@pytest.mark.parametrize(
    ("service", "image", "expected"),
    [
        (
            "mint-app",
            "i",
            {"service_ids": ["mint-app"], "secrets": OWN_SECRETS, "image": "i", "containers": ["a", "b"]},
        ),
        ("mint-app", "", {"service_ids": ["mint-app"], "secrets": OWN_SECRETS, "containers": ["a", "b"]}),
        ("worker", "i", {"service_ids": ["worker"], "secrets": ["^/s$"], "image": "i", "containers": ["w"]}),
        ("cron", "i", {"service_ids": ["cron"], "image": "i"}),
        ("mint-app-db-migrate", "i", {"service_ids": ["mint-app-db-migrate"], "image": "i", "containers": ["m"]}),
        ("seed", "i", {"families": ["f"], "image": "i"}),
        ("other", "", {"service_ids": ["other"]}),
    ],
)
@pytest.mark.parametrize("drop", [False, True])
def test_the_event_of_a_deployment(service: str, image: str, expected: dict[str, Any], drop: bool) -> None:
    """Nothing is in it that was not set: the public manager knows no other fields."""
    dev = dev_with_others()
    dev = structs.replace(dev, migrations=structs.replace(dev.migrations, containers=("m",)))
    body = {**EVENT, **expected, **({"allow_secret_removal": True} if drop else {})}

    event = manager.deploy_event(dev, service, image, allow_secret_removal=drop)

    assert event == {"command": "deploy", "body": body}
    without = structs.replace(dev, service=structs.replace(dev.service, secrets=Setting(Filled(""))))
    assert "secrets" not in manager.deploy_event(without, "mint-app", image)["body"]


@pytest.mark.parametrize(
    ("task", "revision", "expected"),
    [
        (TASKS["seed"], "", {"family": "f", "subnets": ["subnet-1"]}),
        (TASKS["seed"], "f:2", {"family": "f", "subnets": ["subnet-1"], "task_definition": "f:2"}),
        (
            OneOff(
                family="f",
                subnets=(Setting(Filled("subnet-1")), Setting(Filled("subnet-2"))),
                security_groups=(Setting(Filled("sg-1")),),
                assign_public_ip=True,
                platform="1.4.0",
            ),
            "",
            {
                "family": "f",
                "subnets": ["subnet-1", "subnet-2"],
                "security_groups": ["sg-1"],
                "assign_public_ip": True,
                "platform": "1.4.0",
            },
        ),
    ],
)
def test_the_event_of_a_task(task: OneOff, revision: str, expected: dict[str, Any]) -> None:
    """Of a service it runs as the service does; of a family it needs a network, and a token against a repetition."""
    dev = structs.replace(settings.environment("dev"), tasks={"seed": task})

    event = manager.run_event(dev, "seed", revision)

    token = manager.token(dev, json.dumps({**EVENT, **expected}))
    assert event == {"command": "runtask", "body": {**EVENT, **expected, "client_token": token}}
    of_service = {"command": "runtask", "body": {**EVENT, "service_id": "mint-app-db-migrate"}}
    assert manager.run_event(dev, "mint-app-db-migrate") == of_service


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("mint-app", "mint-backend"),
        ("worker", "mint-backend"),
        ("cron", "mint-cron"),
        ("mint-app-db-migrate", "mint-db-migrate"),
        ("other", None),
    ],
)
def test_the_repository_of_each_service(service: str, expected: str | None) -> None:
    """The application's own, unless the settings say another one."""
    dev = dev_with_others()

    if expected:
        assert manager.repository(dev, service) == expected
    else:
        with pytest.raises(Refused, match="No image is set for other in the settings: give --image, --image-uri or"):
            manager.repository(dev, service)
    assert manager.services(dev) == ("mint-app", "worker", "cron")
    # A service that migrates its own database has its own image.
    both = structs.replace(dev, migrations=structs.replace(dev.migrations, service="mint-app"))
    assert manager.repository(both, "mint-app") == "mint-backend"


@pytest.mark.parametrize(
    ("title", "registered", "kind"),
    [
        *((title, False, Refused) for title in ("NoCredentialsError", "PartialCredentialsError")),
        *((title, False, Refused) for title in ("CredentialRetrievalError", "ExpiredTokenException")),
        ("ExpiredTokenException", True, None),
        ("AccessDeniedException", False, None),
        ("", False, None),
    ],
)
def test_without_credentials_nothing_is_called_directly(
    title: str, registered: bool, kind: type[DeployError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a refusal as long as no revision was registered. The call has its own time, which a stop can end, and a
    client that repeats nothing."""
    dev, clock, made, notes = settings.environment("dev"), FakeClock(), list[Any](), list[Any]()
    reply = {"data": {"response": {"title": title} if title else {}}}

    def client(service: str, environment: Environment, *, once: bool = False) -> Any:
        made.append((service, once))
        register = lambda event, note: notes.append((event, note))  # noqa: E731
        return SimpleNamespace(meta=SimpleNamespace(events=SimpleNamespace(register=register)))

    def answer(payload: Any, using: Any) -> Any:
        call = using()
        assert payload == {"b": 1, "a": 2}
        # The same, in whatever order.
        assert (call.id, call.remaining()) == (manager.token(dev, '{"a": 2, "b": 1}'), 930.0)
        assert checked == []
        call.sleep(30.0)
        assert checked == [0.0]
        assert (clock.time, call.remaining()) == (30.0, 900.0)
        ((event, note),) = notes
        assert event == "after-call.ecs.RegisterTaskDefinition"
        for status in (300, 400, *([200] if registered else [])):
            note(SimpleNamespace(status_code=status), parsed={})
        return reply

    monkeypatch.setattr(manager.aws, "client", client)
    monkeypatch.setattr("ecs_manager.handler.answer", answer)
    monkeypatch.setattr(manager.stop, "check", lambda: checked.append(clock.time))
    call, checked = manager.planned(dev, None, None, {"b": 1, "a": 2}, "ecs"), list[float]()

    if kind:
        with pytest.raises(kind) as error:
            manager.invoke(dev, call, clock=clock.clock)
        said = "No valid AWS credentials for calling ECS (dev): log in, then run this again."
        assert (type(error.value), str(error.value)) == (kind, said)
    else:
        assert manager.invoke(dev, call, clock=clock.clock) == reply
    assert made == [("ecs", False), ("ssm", False), ("ecs", True)]


@pytest.mark.parametrize(
    ("body", "function_error", "kind", "said"),
    [
        (b"", None, OutcomeUnknown, "f returned an empty response."),
        (b"<html>", None, OutcomeUnknown, "f did not return JSON: <html>"),
        (b"\xff", None, OutcomeUnknown, "f did not return JSON: \N{REPLACEMENT CHARACTER}"),
        (b"[" * 100_000, None, OutcomeUnknown, "f did not return JSON: " + "[" * 200),
        (json.dumps(LATE).encode(), "Unhandled", OutcomeUnknown, f"f timed out: {LATE['errorMessage']}."),
        (json.dumps(ENDED).encode(), "Unhandled", DeployError, "f failed: KeyError: x"),
        (b'{"errorType": "E"}', "Unhandled", DeployError, "f failed: E: no message"),
        (b"[]", "Unhandled", DeployError, "f failed: Unhandled: no message"),
        (b"", "Unhandled", DeployError, "f failed: Unhandled: no message"),
    ],
)
def test_an_invalid_response_is_a_failure_or_an_unknown_outcome(
    body: bytes, function_error: str | None, kind: type[DeployError], said: str
) -> None:
    """A function error is a failure, unless the function timed out."""
    with pytest.raises(DeployError) as error:
        manager.parse(body, function_error, "f")

    assert type(error.value) is kind
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (None, OutcomeUnknown, "f returned null"),
        ([DONE], OutcomeUnknown, "f returned [{"),
        ({}, OutcomeUnknown, "f returned {}"),
        ({"msg": "m"}, DeployError, "f did not understand the request: m"),
        ({"data": []}, DeployError, "f did not understand the request: no message"),
        ({"data": "no", "msg": "m"}, DeployError, "f did not understand the request: no"),
        ({"data": {"response": "x"}, "msg": "m"}, DeployError, "f did not understand the request: m"),
        ({"data": {"response": DONE}, "level": "critical"}, DeployError, "f did not understand the request"),
        *(
            ({"data": {"response": {"title": title, "message": "m"}}}, OutcomeUnknown, f"f failed: {title}: m")
            for title in ("TaskStillRunning", "TaskLost", "OutcomeUnknown")
        ),
        ({"data": {"response": {"title": "T", "message": "m"}}}, DeployError, "f failed: T: m"),
        ({"data": {"response": {"title": "T"}}}, DeployError, "f failed: T: no message"),
        ({"data": {"response": {"title": ""} | DONE}}, DeployError, "f failed: "),
        ({"data": {"response": {}}}, DeployError, "f reports HTTP status None"),
        ({"data": {"response": {"ResponseMetadata": []}}}, DeployError, "f reports HTTP status None"),
        (
            {"data": {"response": {"ResponseMetadata": {"HTTPStatusCode": 201}}}},
            DeployError,
            "f reports HTTP status 201",
        ),
    ],
)
def test_a_reply_without_success_is_a_failure_or_an_unknown_outcome(
    reply: Any, kind: type[DeployError], said: str
) -> None:
    """Unknown only if the manager says so, or if the reply is not the manager's."""
    with pytest.raises(DeployError) as error:
        manager.manager_response(reply, "f")

    assert type(error.value) is kind
    assert str(error.value).startswith(said)


def test_a_success_is_the_response_in_the_reply() -> None:
    """Other fields of the reply do not matter."""
    assert manager.manager_response({"msg": "m", "data": {"response": DONE, "duration": "1 ms"}}, "f") == DONE


def test_a_call_returns_the_reply_and_its_errors_have_function_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = settings.environment("dev")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    call = manager.planned(environment, "other", "live", {"a": 1})
    with stand_in(answering(Reply(b'{"b": 2}'))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        assert manager.invoke(environment, call) == {"b": 2}
        aws.answer = answering(Reply(b""))
        with pytest.raises(OutcomeUnknown, match=r"other \(dev\) returned an empty response"):
            manager.invoke(environment, call)
        aws.answer = answering(Reply(b'{"errorType": "E"}', headers={"X-Amz-Function-Error": "Unhandled"}))
        with pytest.raises(DeployError, match=r"other \(dev\) failed: E: no message"):
            manager.invoke(environment, call)

    asked = aws.requests[0]
    assert asked["path"] == "/2015-03-31/functions/other/invocations"
    assert (asked["query"], json.loads(asked["body"])) == ({"Qualifier": ["live"]}, {"a": 1})
    assert asked["headers"]["X-Amz-Invocation-Type"] == "RequestResponse"
    assert asked["headers"]["X-Amz-Log-Type"] == "Tail"


def test_a_call_whose_response_is_lost_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have started something; a retry would start it again."""
    environment = settings.environment("dev")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with stand_in(answering(Reply(b"", drop=True))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        with pytest.raises(OutcomeUnknown):
            manager.invoke(environment, manager.planned(environment, None, None, {}))

    assert len(aws.requests) == 1


@pytest.mark.parametrize("reads", [{}, {"reads": False}, {"reads": True}])
def test_only_a_call_that_reads_may_be_repeated(reads: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for as long as the settings say."""
    dev, made = settings.environment("dev"), list[Any]()
    answer = {"Payload": io.BytesIO(b"{}")}

    def client(service: str, environment: Environment, **given: Any) -> Any:
        made.append((service, given))
        return SimpleNamespace(invoke=lambda **_: answer)

    monkeypatch.setattr(manager.aws, "client", client)

    assert manager.invoke(dev, manager.planned(dev, None, None, {}), **reads) == {}
    assert made == [("lambda", {"once": not reads.get("reads"), "read_timeout": 930})]


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def refusal(status: int, code: str, message: str = "m") -> Reply:
    """Lambda's refusal to call a function."""
    return Reply(json.dumps({"Type": "User", "Message": message}).encode(), status, {"x-amzn-ErrorType": code})


@dataclass
class FakeClock:
    """A clock on which time passes only while somebody sleeps."""

    time: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep)


NOT_YET = [
    (409, "ResourceConflictException", "The function is currently in the following state: Pending"),
    (429, "TooManyRequestsException", "Rate Exceeded."),
    (500, "CodeArtifactUserPendingException", "The user is not ready"),
    (502, "ResourceNotReadyException", "The function is inactive"),
    (502, "ENILimitReachedException", "m"),
]


@pytest.mark.parametrize("refused", NOT_YET, ids=lambda refused: refused[1])
def test_a_function_that_lambda_cannot_start_yet_is_called_again(
    refused: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ran, so that one more call is the first one. After a minute it says that nothing was started."""
    environment = settings.environment("dev")
    for name in KEYS:
        monkeypatch.setenv(name, "test")
    call, replies, fake = manager.planned(environment, None, None, {}), [refusal(*refused)] * 2, FakeClock()
    with stand_in(lambda method, path: replies.pop() if replies else Reply(b'{"b": 2}')) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        assert manager.invoke(environment, call, clock=fake.clock) == {"b": 2}
        assert len(aws.requests) == 3
        aws.answer = answering(refusal(*refused))
        hasty = Clock(now=lambda: fake.time, sleep=lambda _: fake.sleep(60.0))
        with pytest.raises(Refused, match=f"^Nothing was started: .*{refused[1]}: .* Run it again later.$"):
            manager.invoke(environment, call, clock=hasty)

    assert fake.time == 62.0


@pytest.mark.parametrize(("passes", "seconds", "calls"), [(True, 60.0, 61), (False, 0.0, 1)])
def test_a_function_is_called_again_every_second_for_a_minute(
    passes: bool, seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is said once. What does not pass is not waited for."""
    dev, fake, asked = settings.environment("dev"), FakeClock(), list[float]()

    def refuse(environment: Environment, call: manager.Invocation, reads: bool) -> None:
        asked.append(fake.time)
        error = NothingRan("it is not ready")
        error.passes = passes
        raise error

    monkeypatch.setattr(manager, "_invoke", refuse)
    with pytest.raises(NothingRan, match=r"^it is not ready$"):
        manager.invoke(dev, manager.planned(dev, None, None, {}), clock=fake.clock)

    assert (fake.time, len(asked)) == (seconds, calls)
    waits = "Lambda cannot start dev-ecs-manager-docker yet, and is asked again: it is not ready\n"
    assert capsys.readouterr().err == (waits if passes else "")


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (refusal(502, "KMSDisabledException"), Refused, 2),
        (refusal(502, "InvalidRuntimeException"), Refused, 2),
        (refusal(500, "ServiceException"), OutcomeUnknown, 3),
        (refusal(502, "Unheard"), OutcomeUnknown, 3),
        (refusal(404, "ResourceNotFoundException"), DeployError, 1),
        (refusal(403, "AccessDeniedException"), DeployError, 1),
    ],
)
def test_other_refusals_are_not_repeated(
    reply: Reply, kind: type[DeployError], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is known not to have run anything is no unknown outcome."""
    environment = settings.environment("dev")
    for name in KEYS:
        monkeypatch.setenv(name, "test")
    with stand_in(answering(reply)) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        with pytest.raises(kind) as error:
            manager.invoke(environment, manager.planned(environment, None, None, {}), clock=FakeClock().clock)

    assert error.value.code == code
    assert len(aws.requests) == 1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["START", "", "[ERROR] KeyError", "END"], ["START", "[ERROR] KeyError", "END"]),
        (['{"message": "taskdef", "data": {"environment": "hunter2"}}', "END"], ["END"]),
        (["cut off hunter2" + "x" * 4000, "END"], ["END"]),
        (["x" * 3996, "END"], ["END"]),
        (["x" * 3995, "END"], ["x" * 3995, "END"]),
        ([str(number) for number in range(30)], [str(number) for number in range(10, 30)]),
    ],
    ids=["as it is", "no JSON", "a first line that may be cut", "4 KB", "less than 4 KB", "the last 20"],
)
def test_the_end_of_a_functions_log(lines: list[str], expected: list[str]) -> None:
    """Without what may hold values of the environment."""
    assert manager.log_tail(base64.b64encode("\n".join(lines).encode()).decode()) == expected
    assert manager.log_tail("not base64") == []
    assert manager.log_tail(base64.b64encode(b"caf\xe9").decode()) == ["caf\N{REPLACEMENT CHARACTER}"]


def test_a_failed_function_shows_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that succeeds shows nothing of it."""
    environment = settings.environment("dev")
    for name in KEYS:
        monkeypatch.setenv(name, "test")
    log = {"X-Amz-Log-Result": base64.b64encode(b"the last words").decode()}
    with stand_in(answering(Reply(b"{}", headers=log))) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        call = manager.planned(environment, None, None, {})
        manager.invoke(environment, call)
        assert "the last words" not in capsys.readouterr().err
        aws.answer = answering(Reply(json.dumps(ENDED).encode(), headers={**log, "X-Amz-Function-Error": "Unhandled"}))
        with pytest.raises(DeployError):
            manager.invoke(environment, call)

    assert "  | the last words" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("lines", "flags", "expected"),
    [
        ("", {}, "lambda"),
        ("", {"via": "ecs"}, "ecs"),
        ('via = "ecs"', {}, "ecs"),
        ('via = "ecs"', {"via": "lambda", "function": "f"}, "lambda"),
        ('via = "ecs"', {"function": "f"}, "lambda"),
        ('via = "ecs"', {"via": "lambda"}, "dev has no manager.function: set it, or set manager.via to ecs"),
        ("", {"via": "ssh"}, "--via must be lambda or ecs, not 'ssh'"),
        ("", {"via": "ecs", "qualifier": "1"}, "--via=ecs calls no Lambda function: leave out"),
        ("", {"via": "ecs", "function": "f"}, "--via=ecs calls no Lambda function: leave out"),
    ],
)
def test_the_way_is_a_flag_else_a_setting(lines: str, flags: dict[str, str], expected: str) -> None:
    """An environment that goes straight to ECS needs no function in its settings."""
    environment = settings.environment("dev")
    if lines:
        environment = structs.replace(environment, manager=Manager(via="ecs"))

    def call() -> manager.Invocation:
        return manager.planned(
            environment, flags.get("function"), flags.get("qualifier"), {"a": 1}, via=flags.get("via")
        )

    if expected in ("lambda", "ecs"):
        assert call().via == expected
        assert call().describe()[1] == '{"a": 1}'
    else:
        with pytest.raises(Refused) as error:
            call()
        assert str(error.value).startswith(expected)


def test_straight_to_ecs_the_reply_is_that_of_the_function(cloud: EmbeddedCloud) -> None:
    """Once, with the caller's own credentials, and without any Lambda."""
    environment = settings.environment("local", "--env")
    body = {"cluster_id": environment.cluster, "service_ids": ["mint-app"]}
    call = manager.planned(environment, None, None, {"command": "deploy", "body": body}, via="ecs")

    response = manager.manager_response(manager.invoke(environment, call), call.who)

    assert manager.deployment_id(response, "mint-app").startswith("ecs-svc/")
    assert len(cloud.requests("ecs", "UpdateService")) == 1
    assert cloud.requests("lambda") == []


@pytest.mark.parametrize(
    ("rule", "kind", "said"),
    [
        ({"operation": "UpdateService", "after": True, "drop": True}, OutcomeUnknown, "ECS failed: OutcomeUnknown"),
        ({"operation": "UpdateService", "status": 500}, OutcomeUnknown, "ECS failed: OutcomeUnknown"),
        ({"operation": "UpdateService", "status": 400, "code": "AccessDeniedException"}, DeployError, "AccessDenied"),
        ({"operation": "DescribeServices", "status": 400, "code": "ExpiredTokenException"}, Refused, "log in"),
        ({"operation": "RegisterTaskDefinition", "status": 400, "code": "ExpiredTokenException"}, Refused, "log in"),
        # A revision was registered by then.
        ({"operation": "UpdateService", "status": 400, "code": "ExpiredTokenException"}, DeployError, "ExpiredToken"),
    ],
)
def test_straight_to_ecs_failures_mean_the_same(
    cloud: EmbeddedCloud, rule: dict[str, Any], kind: type[DeployError], said: str
) -> None:
    """And the update is sent once. After something was written, nothing is refused."""
    cloud.fail(service="ecs", times=9, **rule)
    environment = settings.environment("local", "--env")
    image = f"{environment.endpoint_host}/mint-backend:v1"
    body = {"cluster_id": environment.cluster, "service_ids": ["mint-app"], "image": image}
    call = manager.planned(environment, None, None, {"command": "deploy", "body": body}, via="ecs")

    with pytest.raises(DeployError, match=said) as error:
        manager.manager_response(manager.invoke(environment, call), call.who)

    assert type(error.value) is kind
    assert len(cloud.requests("ecs", "UpdateService")) == (0 if kind is Refused else 1)


RUN = {
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_RUN_ID": "1",
    "GITHUB_RUN_ATTEMPT": "1",
    "GITHUB_JOB": "deploy",
    "GITHUB_ACTION": "__run",
}


@pytest.mark.parametrize("changed", [*RUN, "env", "parts", ""])
def test_a_repeat_in_the_same_step_of_a_run_has_the_same_token(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new attempt, another step, another environment or another request has a new one. ECS takes 64 characters."""
    for name, value in RUN.items():
        monkeypatch.setenv(name, value)
    dev = settings.environment("dev")
    before = manager.token(dev, "a", "b")
    if changed in RUN:
        monkeypatch.setenv(changed, "2")

    after = manager.token(
        settings.environment("impl") if changed == "env" else dev, "a", "c" if changed == "parts" else "b"
    )

    assert (after == before) == (changed == "")
    assert re.fullmatch(r"[0-9a-f]{64}", after)


def test_outside_of_a_workflow_a_token_lasts_as_long_as_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who runs a task again wants it to run again."""
    dev = settings.environment("dev")
    before = manager.token(dev, "a")

    assert manager.token(dev, "a") == before
    monkeypatch.setattr(manager, "THIS_PROCESS", "another")
    assert manager.token(dev, "a") != before
