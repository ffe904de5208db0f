"""AWS's errors in plain words, and which requests are retried."""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore import exceptions as botocore
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from msgspec.structs import replace

from scripts.edges import aws, s3
from scripts.frame import settings, text
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment
from tests.stand_in import Reply, stand_in


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """dev, with credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return settings.find("dev")


def listing(environment: Environment, *, starts_something: bool = False) -> None:
    """Send a request to S3."""
    client = aws.client("s3", environment, once=starts_something)
    with aws.errors("listing the bucket", environment, starts_something=starts_something):
        client.list_objects_v2(Bucket="a-bucket")


def error_of_s3(code: str, status: int) -> Reply:
    """An error as S3 sends it, in XML."""
    return Reply(f"<Error><Code>{code}</Code><Message>said S3</Message></Error>".encode(), status)


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        (
            "AccessDenied",
            403,
            aws.Denied,
            "AWS refused listing the bucket (dev, us-west-2): AccessDenied: said S3",
        ),
        ("NoSuchBucket", 404, DeployError, "NoSuchBucket"),
        ("ExpiredToken", 400, Refused, "rejected the credentials"),
        ("InvalidAccessKeyId", 403, Refused, "rejected the credentials"),
        ("AuthorizationHeaderMalformed", 400, Refused, "Wrong region for listing the bucket"),
    ],
)
def test_an_error_of_aws_is_reported_with_its_code(
    code: str,
    status: int,
    kind: type[DeployError],
    said: str,
    dev: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And with what was tried, where, and AWS's message."""
    with stand_in(lambda *_: error_of_s3(code, status)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(kind, match=r".") as error:
            listing(dev)

    assert said in str(error.value)
    assert type(error.value) is kind


WHERE = "doing it (dev, us-west-2)"
REJECTED = rf"AWS rejected the credentials for {WHERE}: {{}}: m. Log in again and run this again."
ELSEWHERE = rf"Wrong region for {WHERE}: {{}}: m. Check AWS_REGION and the settings."
NOTHING = rf"Nothing was started: AWS refused {WHERE}: {{}}: m. Run it again later."
REFUSED, FAILED_THERE = rf"AWS refused {WHERE}: {{}}: m.", rf"AWS failed while {WHERE}: {{}}: m."


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("ExpiredToken", 400, Refused, REJECTED),
        ("ExpiredTokenException", 400, Refused, REJECTED),
        ("RequestExpired", 400, Refused, REJECTED),
        ("InvalidClientTokenId", 403, Refused, REJECTED),
        ("UnrecognizedClientException", 400, Refused, REJECTED),
        ("InvalidAccessKeyId", 403, Refused, REJECTED),
        ("InvalidToken", 400, Refused, REJECTED),
        ("SignatureDoesNotMatch", 403, Refused, REJECTED),
        ("InvalidSignatureException", 403, Refused, REJECTED),
        ("IncompleteSignature", 400, Refused, REJECTED),
        ("TokenRefreshRequired", 400, Refused, REJECTED),
        ("PermanentRedirect", 301, Refused, ELSEWHERE),
        ("PermanentRedirect", 400, Refused, ELSEWHERE),
        ("TemporaryRedirect", 307, Refused, ELSEWHERE),
        ("AuthorizationHeaderMalformed", 400, Refused, ELSEWHERE),
        ("IllegalLocationConstraintException", 400, Refused, ELSEWHERE),
        ("301", 301, Refused, ELSEWHERE),
        ("AccessDenied", 403, aws.Denied, REFUSED),
        ("AccessDeniedException", 400, aws.Denied, REFUSED),
        ("UnauthorizedOperation", 403, aws.Denied, REFUSED),
        ("NotAuthorized", 403, aws.Denied, REFUSED),
        ("AuthorizationError", 403, aws.Denied, REFUSED),
        ("InvalidAction", 400, aws.Denied, REFUSED),
        ("UnknownOperationException", 400, aws.Denied, REFUSED),
        ("UnsupportedOperation", 400, aws.Denied, REFUSED),
        ("NotAccessDenied", 400, DeployError, REFUSED),
        ("ResourceConflictException", 409, DeployError, REFUSED),
        ("C", 499, DeployError, REFUSED),
        ("C", 500, OutcomeUnknown, FAILED_THERE),
        ("C", None, DeployError, REFUSED),
    ],
)
def test_what_a_refusal_of_aws_means(
    code: str, status: int | None, kind: type[DeployError], said: str, dev: Environment
) -> None:
    """By its code and status. What did not start anything leaves nothing unknown."""
    error = refusal(code, status)

    found = aws.translate(error, "doing it", dev, starts_something=True)
    reading = aws.translate(error, "doing it", dev)

    assert (type(found), str(found)) == (kind, said.format(code))
    if kind is OutcomeUnknown:
        kind, said = DeployError, REFUSED
    assert (type(reading), str(reading)) == (kind, said.format(code))


def refusal(code: str, status: int | None, operation: str = "UpdateService", message: str = "m") -> ClientError:
    """An error of AWS as boto3 raises it."""
    metadata = {} if status is None else {"ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError({"Error": {"Code": code, "Message": message}, **metadata}, operation)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        *dict.fromkeys(
            (
                "CodeArtifactUserPendingException",
                "EC2ThrottledException",
                "ENILimitReachedException",
                "ENINotReadyException",
                "EFSMountConnectivityException",
                "EFSMountTimeoutException",
                "ResourceConflictException",
                "ResourceNotReadyException",
                "SnapStartNotReadyException",
                "SubnetIPAddressLimitReachedException",
                "TooManyRequestsException",
            ),
            True,
        ).items(),
        *dict.fromkeys(
            (
                "CodeArtifactUserDeletedException",
                "CodeArtifactUserFailedException",
                "EC2AccessDeniedException",
                "EC2UnexpectedException",
                "EFSIOException",
                "EFSMountFailureException",
                "InvalidRuntimeException",
                "InvalidSecurityGroupIDException",
                "InvalidSubnetIDException",
                "InvalidZipFileException",
                "KMSAccessDeniedException",
                "KMSDisabledException",
                "KMSInvalidStateException",
                "KMSNotFoundException",
                "SnapStartException",
                "SnapStartTimeoutException",
            ),
            False,
        ).items(),
    ],
)
def test_a_function_that_lambda_could_not_start_has_done_nothing(code: str, passes: bool, dev: Environment) -> None:
    """Although the status is that of a failure. Some of these pass by themselves."""
    found = aws.translate(refusal(code, 502, "Invoke"), "doing it", dev, starts_something=True)

    assert isinstance(found, aws.NothingRan)
    assert (str(found), found.passes) == (NOTHING.format(code), passes)


def test_what_aws_quotes_of_a_signature_is_not_shown(dev: Environment) -> None:
    """It follows the first line, and holds the session token. No message is shown at any length."""
    found = aws.translate(refusal("SignatureDoesNotMatch", 403, message="m\nx-amz-security-token:t"), "doing it", dev)
    assert str(found) == REJECTED.format("SignatureDoesNotMatch")

    found = aws.translate(refusal("c" * 3000, 400, message="m" * 3000), "doing it", dev)
    assert str(found) == f"AWS refused {WHERE}: {'c' * 2000}: {'m' * 2000}."


LATE = "AWS's response was lost while"
ODD = "AWS returned an unexpected response while"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (botocore.NoCredentialsError(), Refused, "No AWS credentials for "),
        (botocore.PartialCredentialsError(provider="env", cred_var="x"), Refused, "No AWS credentials for "),
        (botocore.ProfileNotFound(profile="x"), Refused, "The request for "),
        (botocore.CredentialRetrievalError(provider="x", error_msg="y"), Refused, "The request for "),
        (botocore.SSOTokenLoadError(error_msg="x"), Refused, "The request for "),
        (botocore.InvalidRegionError(region_name="x y"), Refused, "The request for "),
        (botocore.NoRegionError(), Refused, "The request for "),
        (botocore.ParamValidationError(report="x"), Refused, "The request for "),
        (botocore.EndpointConnectionError(endpoint_url="u"), DeployError, "AWS cannot be reached for "),
        (botocore.ConnectTimeoutError(endpoint_url="u"), DeployError, "AWS cannot be reached for "),
        (botocore.ReadTimeoutError(endpoint_url="u"), OutcomeUnknown, LATE),
        (botocore.ConnectionClosedError(endpoint_url="u"), OutcomeUnknown, LATE),
        (botocore.DataNotFoundError(data_path="x"), DeployError, "AWS failed while "),
        (ResponseParserError("x"), OutcomeUnknown, f"{ODD} doing it (dev, us-west-2): x"),
        (ValueError("x\ny"), OutcomeUnknown, f"{ODD} doing it (dev, us-west-2): x y"),
        (KeyError("tasks"), OutcomeUnknown, f"{ODD} doing it (dev, us-west-2): tasks is missing."),
        (IndexError(), OutcomeUnknown, f"{ODD} doing it (dev, us-west-2): IndexError"),
        (TypeError("x"), OutcomeUnknown, ODD),
        (AttributeError("x"), OutcomeUnknown, ODD),
        (RuntimeError("x"), OutcomeUnknown, ODD),
        (OverflowError("x"), OutcomeUnknown, ODD),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_another_error_of_asking_aws_means(
    error: Exception, kind: type[DeployError], said: str, dev: Environment
) -> None:
    """Whether the request was sent, and where something was started, whether that is known."""
    with pytest.raises(kind) as found, aws.errors("doing it", dev, starts_something=True):
        raise error
    with pytest.raises(DeployError) as reading, aws.errors("doing it", dev):
        raise error

    assert type(found.value) is kind
    assert str(found.value).startswith(said)
    assert WHERE in str(found.value)
    assert type(reading.value) is (DeployError if kind is OutcomeUnknown else kind)
    assert str(reading.value) == str(found.value)


@pytest.mark.parametrize("error", [Refused("x"), OutcomeUnknown("x"), ZeroDivisionError(), OSError("x")])
def test_an_error_that_is_not_of_aws_stays_as_it_is(error: Exception, dev: Environment) -> None:
    assert aws.translate(error, "doing it", dev, starts_something=True) is None


@pytest.mark.parametrize(("pages", "fits"), [(500, True), (501, False)])
def test_an_answer_that_does_not_end_is_an_error(pages: int, fits: bool, dev: Environment) -> None:
    """After so many pages."""

    class Endless:
        def get_paginator(self, operation: str) -> "Endless":
            return self

        def paginate(self, **given: str) -> Iterator[dict[str, str]]:
            return ({"page": str(number), **given} for number in range(pages))

    with nullcontext() if fits else pytest.raises(DeployError, match=r"list_tasks does not end: .* 500 pages"):
        assert [page["page"] for page in aws.pages(Endless(), "list_tasks", cluster="x")] == [*map(str, range(pages))]


@pytest.mark.parametrize(("starts_something", "tries"), [(False, 4), (True, 1)])
def test_reads_are_retried_and_requests_that_start_something_are_not(
    starts_something: bool, tries: int, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing server receives four reads, or one request that starts something."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    kind = OutcomeUnknown if starts_something else DeployError
    with stand_in(lambda *_: error_of_s3("InternalError", 500)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(kind):
            listing(dev, starts_something=starts_something)

    assert len(server.requests) == tries


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("lambda", "AWS_ENDPOINT_URL_LAMBDA"),
        ("ecs", "AWS_ENDPOINT_URL_ECS"),
        ("ecr", "AWS_ENDPOINT_URL_ECR"),
        ("s3", "AWS_ENDPOINT_URL_S3"),
        ("rds", "AWS_ENDPOINT_URL_RDS"),
        ("cloudfront", "AWS_ENDPOINT_URL_CLOUDFRONT"),
        ("sts", "AWS_ENDPOINT_URL_STS"),
        ("ssm", "AWS_ENDPOINT_URL_SSM"),
        ("iam", "AWS_ENDPOINT_URL_IAM"),
        ("logs", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
    ],
)
def test_the_variable_of_a_services_endpoint(service: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before the one for all, and both are ignored if that is said."""
    dev, mine, all_of_them = settings.find("dev"), "http://127.0.0.1:1", "http://127.0.0.1:2"
    assert aws.endpoint_of(service, dev) == aws.Endpoint()
    monkeypatch.setenv("AWS_ENDPOINT_URL", all_of_them)
    assert aws.endpoint_of(service, dev) == aws.Endpoint(all_of_them, "AWS_ENDPOINT_URL")
    monkeypatch.setenv(variable, mine)
    assert aws.endpoint_of(service, dev) == aws.Endpoint(mine, variable)
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")
    assert aws.endpoint_of(service, dev) == aws.Endpoint(mine, variable)
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")
    assert aws.endpoint_of(service, dev) == aws.Endpoint()


@pytest.mark.parametrize(
    ("dry_run", "more", "connecting", "tries"), [(False, {}, 5, 4), (False, {"once": True}, 5, 1), (True, {}, 2, 1)]
)
def test_a_dry_run_does_not_wait_for_a_missing_network(
    dry_run: bool, more: dict[str, bool], connecting: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it ask without credentials. Each client waits for data as long as its caller says."""
    dev = settings.find("dev", dry_run=dry_run)
    with pytest.raises(Refused, match=r"^there are no AWS credentials here$") if dry_run else nullcontext():
        aws.client("sts", dev)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    config = aws.client("sts", dev, read_timeout=7, **more).meta.config

    assert (config.connect_timeout, config.read_timeout) == (connecting, 7)
    assert config.retries["total_max_attempts"] == tries


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_PROFILE", "nobody", "The config profile (nobody) could not be found"),
        ("AWS_ENDPOINT_URL", "nonsense", "Invalid endpoint: nonsense"),
        ("AWS_ENDPOINT_URL", "http://", "Invalid endpoint: http://"),
        ("AWS_ENDPOINT_URL", "http://[::1", "Invalid IPv6 URL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:99999/", "is not an endpoint of AWS for s3: Port out of range"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:x/", "is not an endpoint of AWS for s3"),
        ("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9/", "it must not contain a user name or password"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "AWS cannot be reached for listing the bucket"),
    ],
)
def test_an_invalid_variable_is_an_error_without_a_traceback(
    variable: str, value: str, said: str, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    monkeypatch.setenv(variable, value)

    with pytest.raises(DeployError) as error:
        listing(dev)

    assert said in str(error.value)
    assert "hidden" not in str(error.value)


def test_other_exceptions_are_not_translated(dev: Environment) -> None:
    """They are bugs, and keep their traceback."""
    with pytest.raises(ZeroDivisionError), aws.errors("dividing", dev):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, False),
        ("AWS_ACCESS_KEY_ID", True),
        ("AWS_PROFILE", True),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", True),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", True),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", True),
        ("AWS_SECRET_ACCESS_KEY", False),
    ],
)
def test_credentials_are_found_without_a_request(
    variable: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment variables of the AWS SDKs."""
    if variable:
        monkeypatch.setenv(variable, "x")

    assert aws.has_credentials(settings.find("dev")) is expected


def test_credentials_are_found_in_the_home_folder() -> None:
    """In ~/.aws/credentials. The secrets are hidden from then on."""
    folder = Path.home() / ".aws"
    folder.mkdir()
    secrets = "aws_secret_access_key = a-secret-of-this-test\naws_session_token = a-token-of-this-test"
    (folder / "credentials").write_text(f"[default]\naws_access_key_id = AKIA\n{secrets}\n")

    assert aws.has_credentials(settings.find("dev"))
    assert aws.credentials(settings.find("dev")) == ("AKIA", "a-secret-of-this-test", "a-token-of-this-test")
    assert text.one_line("a-secret-of-this-test a-token-of-this-test") == "*** ***"


def test_without_credentials_a_command_is_refused() -> None:
    """An embedded environment has its own."""
    with pytest.raises(
        Refused, match=r"^No AWS credentials for dev: set AWS_PROFILE or log in, then run this again\.$"
    ):
        aws.credentials(settings.find("dev"))
    assert aws.has_credentials(settings.find("local"))


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_SESSION_TOKEN": "mine"},
        {"AWS_PROFILE": "work"},
        {"AWS_PROFILE": "nobody"},
        {},
    ],
    ids=str,
)
def test_an_embedded_environment_never_uses_real_credentials(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses fixed keys and its own endpoint, whatever profile and variables say, and no proxy."""
    folder = Path.home() / ".aws"
    folder.mkdir()
    keys = "aws_access_key_id = mine\naws_secret_access_key = mine\naws_session_token = mine\n"
    (folder / "credentials").write_text(f"[default]\n{keys}[work]\n{keys}")
    # A damaged file does not matter either.
    (folder / "config").write_text("[default\n")
    if not variables:
        (folder / "credentials").write_text("[default\n")
    for name, value in {**variables, "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    with stand_in(lambda *_: error_of_s3("AccessDenied", 403)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        local = settings.find("local")
        with pytest.raises(DeployError, match="AccessDenied"):
            listing(local)

    (sent,) = [request["headers"] for request in server.requests]
    assert "Credential=local/" in sent["Authorization"]
    assert "us-west-2" in sent["Authorization"]
    assert "mine" not in str(sent)
    assert aws.credentials(local) == ("local", "local", "")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks for the connection in /proc")
def test_connections_use_tcp_keepalive(dev: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NAT gateway drops connections that are idle for 350 s, and a migration can take longer."""
    kept: list[int] = []

    def answer(*_: str) -> Reply:
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
                if one.getpeername() == address:
                    kept.append(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        return Reply(b"{}")

    with stand_in(answer) as server:
        address = ("127.0.0.1", urlsplit(server.url).port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        aws.client("lambda", dev, once=True).invoke(FunctionName="manager")

    assert kept == [1]


@pytest.mark.parametrize(
    "asked",
    [
        lambda dev: aws.client("ecr", dev).get_authorization_token(),
        aws.credentials,
        lambda dev: s3.open_bucket(dev, "site").is_still("key", "e", 999),
    ],
    ids=["AWS", "credentials", "S3"],
)
def test_no_token_is_logged_with_debug(
    asked: Callable[[Environment], object], dev: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """Invoke's --debug enables every log, and botocore logs whole responses."""
    caplog.set_level(logging.DEBUG)
    talkative = ("botocore", "boto3", "urllib3", "s3transfer")
    for name in talkative:
        caplog.set_level(logging.NOTSET, name)
    body = json.dumps({"authorizationData": [{"authorizationToken": "hidden"}]}).encode()
    with stand_in(lambda *_: Reply(body)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_SESSION_TOKEN", "hidden")
        asked(dev)

    assert "hidden" not in caplog.text
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in ("botocore.auth", *talkative))


@pytest.mark.parametrize(
    ("variables", "endpoints", "elsewhere"),
    [
        ({}, {}, ()),
        ({"AWS_ENDPOINT_URL_S3": "https://s3.us-west-2.amazonaws.com"}, {}, ()),
        (
            {"AWS_ENDPOINT_URL_S3": "http://me:hidden@h:1"},
            {"s3": "http://h:1"},
            ("requests to s3 go to http://h:1 (from AWS_ENDPOINT_URL_S3), which is not an AWS endpoint",),
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://a", "AWS_ENDPOINT_URL_RDS": "http://b", "AWS_ENDPOINT_URL_IAM": "http://a"},
            {"s3": "http://a", "rds": "http://b", "iam": "http://a"},
            tuple(
                f"requests to {service} go to http://{host} (from AWS_ENDPOINT_URL_{service.upper()}), which is not an"
                " AWS endpoint"
                for service, host in (("s3", "a"), ("rds", "b"), ("iam", "a"))
            ),
        ),
        (
            {"AWS_ENDPOINT_URL": f"http://{'a' * 300}"},
            dict.fromkeys(aws.SERVICES, f"http://{'a' * 300}"),
            (f"requests to AWS go to http://{'a' * 192}… (from AWS_ENDPOINT_URL), which is not an AWS endpoint",),
        ),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_LAMBDA": "https://lambda.us-west-2.amazonaws.com"},
            {service: "http://a" for service in aws.SERVICES if service != "lambda"},
            (
                f"requests to {', '.join(service for service in aws.SERVICES if service != 'lambda')} go to http://a"
                " (from AWS_ENDPOINT_URL), which is not an AWS endpoint",
            ),
        ),
    ],
    ids=["AWS", "AWS by its name", "one service", "several", "all, at length", "all but one"],
)
def test_where_requests_go_is_said_for_each_place(
    variables: dict[str, str], endpoints: dict[str, str], elsewhere: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the services that are asked there, and without a password."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    found = aws.destination(settings.find("dev"))

    assert found == aws.Destination("us-west-2", "123456789012", endpoints, elsewhere)


def test_an_embedded_aws_is_no_other_destination() -> None:
    """All requests go there, as its settings say."""
    local = settings.find("local")

    found = aws.destination(local)

    assert (found.endpoints, found.elsewhere) == (dict.fromkeys(aws.SERVICES, local.endpoint_url), ())
    assert aws.endpoint_of("s3", local) == aws.Endpoint(local.endpoint_url, "the settings")


CONFIG = "[default]\nregion = r\n[profile work]\nservices = ours\nca_bundle = mine\ns3 =\n  max_queue_size = 1\n"
CONFIG += "[services ours]\ns3 =\n  endpoint_url = http://s3\n"
OF_WORK = {"services": {"s3": {"endpoint_url": "http://s3"}}, "ca_bundle": "mine"}


@pytest.mark.parametrize(
    ("config", "credentials", "variables", "found"),
    [
        (None, None, {}, {}),
        (None, None, {"AWS_PROFILE": "work"}, {}),
        (CONFIG, None, {}, {"region": "r"}),
        (CONFIG, None, {"AWS_PROFILE": "work"}, OF_WORK),
        (CONFIG, None, {"AWS_PROFILE": "default", "AWS_DEFAULT_PROFILE": "work"}, OF_WORK),
        (CONFIG, None, {"AWS_PROFILE": "nobody"}, {}),
        (None, "[work]\nca_bundle = theirs\n", {"AWS_PROFILE": "work"}, {"ca_bundle": "theirs"}),
        (CONFIG, "[work]\nca_bundle = theirs\n", {"AWS_PROFILE": "work"}, OF_WORK | {"ca_bundle": "theirs"}),
        (CONFIG, "[default]\nca_bundle = theirs\n", {}, {"region": "r", "ca_bundle": "theirs"}),
    ],
    ids=[
        "no files",
        "no files, but a profile",
        "the default",
        "a profile",
        "the default profile comes first",
        "unknown",
        "in the file of credentials",
        "in both files",
        "the default in both files",
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["at home", "elsewhere"])
def test_the_settings_of_a_profile(
    config: str | None,
    credentials: str | None,
    variables: dict[str, str],
    found: dict[str, object],
    elsewhere: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of both files, that of credentials coming first. Blocks are left out, but for the services."""
    folder = tmp_path if elsewhere else Path.home() / ".aws"
    folder.mkdir(exist_ok=True)
    for name, content in {"config": config, "credentials": credentials}.items():
        if content is not None:
            (folder / name).write_text(content)
    if elsewhere:
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert aws.profile() == found


ENDPOINTS = """
[default]
endpoint_url = http://default
[profile work]
endpoint_url = http://work
services = ours
[profile off]
endpoint_url = http://off
ignore_configured_endpoint_urls = true
[profile none]
region = r
[profile odd]
services = odd
[services ours]
s3 =
  endpoint_url = http://s3
[services odd]
s3 = http://s3
"""


@pytest.mark.parametrize(
    ("profile", "service", "url"),
    [
        ("", "s3", "http://default"),
        ("work", "s3", "http://s3"),
        ("work", "rds", "http://work"),
        ("off", "s3", ""),
        ("none", "s3", ""),
        ("odd", "s3", ""),
    ],
)
def test_the_endpoint_of_a_profile(profile: str, service: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its services comes first; a variable comes before both, unless the profile ignores it."""
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws" / "config").write_text(ENDPOINTS)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    dev = settings.find("dev")

    assert aws.endpoint_of(service, dev) == aws.Endpoint(url, "your AWS configuration" if url else "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    of_all = aws.Endpoint() if profile == "off" else aws.Endpoint("http://all", "AWS_ENDPOINT_URL")
    assert aws.endpoint_of(service, dev) == of_all


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config", "[default\n", "The AWS configuration cannot be read: "),
        ("credentials", "[default\n", "The AWS configuration cannot be read: "),
        (
            "config",
            "[default]\nservices = nowhere\n",
            "The AWS configuration has no [services nowhere], but the profile default uses it.",
        ),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(name: str, content: str, said: str) -> None:
    """It would not be known where requests go."""
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws" / name).write_text(f"# endpoint_url\n{content}")

    with pytest.raises(Refused) as refused:
        aws.endpoint_of("s3", settings.find("dev"))

    assert str(refused.value).startswith(said)


def test_other_variables_make_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore would keep the credentials that it has found first."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for key in ("one", "two", "one"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)

        assert aws.credentials(settings.find("dev")) == (key, "secret", "")


@pytest.mark.parametrize("name", ["config", "credentials"])
def test_a_setting_is_looked_for_in_both_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they hold; a file that is missing has none."""
    folder = Path.home() / ".aws"
    assert not aws._file_names("endpoint_url")
    folder.mkdir()
    (folder / name).write_bytes(b"\xff endpoint_url = x")

    assert aws._file_names("endpoint_url")
    assert not aws._file_names("use_fips_endpoint")


def identity(account: str, status: int = 200) -> Reply:
    """What STS answers."""
    if status != 200:
        return Reply(b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", status)
    result = f"<GetCallerIdentityResult><Account>{account}</Account></GetCallerIdentityResult>"
    return Reply(f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>".encode())


@pytest.mark.parametrize(
    ("reply", "added", "said"),
    [
        (identity("1"), (), ""),
        (identity("2"), ("the credentials belong to account 2, but dev is account 1",), ""),
        (identity(""), (), ""),
        (identity("", 403), (), "The account of the credentials could not be read: AWS refused reading the account "),
        (identity("", 500), (), "The account of the credentials could not be read: AWS refused reading the account "),
    ],
    ids=["the same", "another", "none", "denied", "failing"],
)
def test_the_account_of_the_credentials_is_compared(
    reply: Reply,
    added: tuple[str, ...],
    said: str,
    dev: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """STS is asked once, and only if it is AWS's own and the account is known."""
    found = aws.Destination("us-west-2", "1", {}, ("a sentence",))
    with stand_in(lambda *_: reply) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        compared = aws.with_caller(found, dev)
        asked = len(server.requests)
        for one in (replace(found, account=""), replace(found, endpoints={"sts": server.url})):
            assert aws.with_caller(one, dev) is one

    assert compared == replace(found, elsewhere=("a sentence", *added))
    assert (asked, len(server.requests)) == (1, 1)
    assert capsys.readouterr().err.startswith(said)
