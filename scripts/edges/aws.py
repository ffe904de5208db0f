"""Access to AWS: clients, endpoints, credentials, and AWS's errors as DeployErrors.

The only importer of boto3, and only inside functions: the import takes 0.3 s, and many commands do not need it.
"""

import functools
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from scripts.edges import http
from scripts.frame import console, settings, text
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# Error codes for invalid or expired credentials. AWS did nothing.
CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "TokenRefreshRequired",
}
WRONG_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
# Error codes of Lambda's Invoke for a function that was not started: nothing ran. Those that pass, and those for which
# somebody has to do something. https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
NOT_YET = {
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
}
NOT_STARTED = {
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
}
# Error codes for a right that the caller does not have, and of an AWS that does not have the operation.
DENIED = re.compile(
    r"AccessDenied\w*|Unauthorized\w*|NotAuthorized\w*|AuthorizationError|InvalidAction|UnknownOperation\w*|Unsupported\w*"
)
WHERE_FROM = "Check AWS_ENDPOINT_URL, and endpoint_url in your AWS configuration."
# The services that commands use, and how variables and configuration files spell them:
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
SERVICES = {name: name for name in ("lambda", "ecs", "ecr", "s3", "rds", "cloudfront", "sts", "ssm", "iam")}
SERVICES["logs"] = "cloudwatch_logs"
# Hosts of AWS's own services, and of their interface endpoints in a VPC. Other names below amazonaws.com belong to
# customers: load balancers, machines, buckets.
OWN = re.compile(
    r"https://((bucket\.)?vpce-[a-z0-9-]+\.)?(api\.)?(?P<service>[a-z0-9]+)(-fips)?(\.dualstack)?(\.[a-z]{2}(-[a-z]+)+-[0-9])?(\.vpce)?"
    r"\.(amazonaws\.com(\.cn)?|api\.aws)(:443)?/?"
)
TRUE = {"true"}
# What botocore and the commands raise for a response that is not what the service's model says.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError)
# Characters of a message of AWS that are shown.
LONGEST = 2000
# Bytes of a response that are read, and pages of one: the largest that the commands need have a few MB.
MOST, PAGES = 16 << 20, 500
# Loggers whose debug messages hold tokens, signatures and complete responses.
TALKATIVE = ("botocore", "boto3", "urllib3", "s3transfer")


class NothingRan(Refused):
    """Lambda could not start a function. passes: whether it may be able to a moment later."""

    passes = False


class Denied(DeployError):
    """AWS refused a request because the caller does not have the right to it, or AWS does not have the operation."""


class Destination(Struct, frozen=True):
    """Where the requests of a command go.

    account: in the settings, empty if it is not set. endpoints: service -> URL, for services with an endpoint that is
    not AWS's own. elsewhere: a sentence for each difference from the settings.
    """

    region: str
    account: str
    endpoints: Mapping[str, str]
    elsewhere: tuple[str, ...]


def client(
    service: str,
    environment: Environment,
    *,
    once: bool = False,
    read_timeout: float = 60,
) -> Any:
    """Make a boto3 client for a service of an environment.

    once: never send a request twice. For calls that start something: botocore would otherwise repeat a slow one up to
    four times. read_timeout: seconds to wait for data. Raises Refused if the client cannot be made.
    """
    if environment.dry_run and not has_credentials(environment):
        raise Refused("there are no AWS credentials here")
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    quiet()
    # A dry run reads what it can, but does not wait for a missing network.
    dry = environment.dry_run
    config = Config(
        connect_timeout=2 if dry else 5,
        read_timeout=read_timeout,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": 1 if once or dry else 4},
        # Only `endpoint_of` chooses the endpoint.
        ignore_configured_endpoint_urls=True,
        s3={"addressing_style": "path"} if environment.endpoint_url else None,
        # The embedded AWS is on this machine: no proxy.
        proxies={} if environment.endpoint_url else None,
    )
    endpoint = endpoint_of(service, environment).url or None
    with errors(f"setting up {service}", environment):
        try:
            made = _session(environment).client(service, endpoint_url=endpoint, config=config)
        except BotoCoreError:
            raise
        except ValueError as error:
            said = f"No client for {service} ({environment.name}) could be made"
            raise Refused(f"{said}: {error}. {WHERE_FROM}") from error
    made.meta.events.register("after-call", _check)
    made._endpoint.http_session = _Bounded(made._endpoint.http_session)
    try:
        http.checked(made.meta.endpoint_url, f"an endpoint of AWS for {service}")
    except Refused as error:
        raise Refused(f"{error} {WHERE_FROM}") from error
    return made


class _Bounded:
    """botocore's HTTP session, but it reads no more than MOST bytes of a response, streamed or not.

    How long it may take is bounded in `bound_responses`.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """The response, with its body read. Raises ResponseParserError for one that is too large."""
        from botocore.exceptions import HTTPClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        # Without this, botocore would read the whole body itself.
        request.stream_output = True
        answer = self._session.send(request)
        try:
            received = answer.raw.read(MOST + 1)
        except (HTTPError, OSError) as error:
            raise HTTPClientError(error=error) from error
        if len(received) > MOST:
            answer.raw.close()
            raise ResponseParserError(f"It is larger than {MOST:,} bytes.")
        answer.raw = _Body(received)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class _Body(io.BytesIO):
    """The body of a response as botocore reads it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


@functools.cache
def bound_responses() -> None:
    """From now on, let no response drip that botocore reads in this process: of AWS, or of whoever has credentials.

    A time-out of botocore bounds only one read, so each byte would extend it.
    """
    from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection

    for kind in (AWSHTTPConnection, AWSHTTPSConnection):
        kind.response_class = http.BoundedResponse


def pages(made: Any, operation: str, **given: Any) -> Iterator[Mapping[str, Any]]:
    """The pages of an operation of a client. Raises DeployError if they do not end, and what botocore raises."""
    for number, page in enumerate(made.get_paginator(operation).paginate(**given)):
        if number == PAGES:
            raise DeployError(f"AWS's answer to {operation} does not end: it has more than {PAGES:,} pages.")
        yield page


def _check(http_response: Any, parsed: Any, model: Any, **_: Any) -> None:
    """Check a response before botocore returns it. An error's response is botocore's to read."""
    from botocore.parsers import ResponseParserError

    from scripts.edges import replies

    try:
        if http_response.status_code < 300:
            replies.check(model, parsed)
    except ValueError as error:
        raise ResponseParserError(str(error)) from error


def quiet() -> None:
    """Keep tokens out of the log that Invoke's --debug shows."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)


class Endpoint(Struct, frozen=True):
    """Where requests to a service go. url: empty for AWS's own endpoint. origin: what set it."""

    url: str = ""
    origin: str = ""


def endpoint_of(service: str, environment: Environment) -> Endpoint:
    """The endpoint of a service: the one that botocore would choose, found without importing it if possible.

    Raises Refused for a configuration file that cannot be read.
    """
    if environment.endpoint_url:
        return Endpoint(environment.endpoint_url, "the settings")
    name = SERVICES[service]
    own = profile() if _file_names("endpoint_url") or _file_names("ignore_configured_endpoint_urls") else {}
    ignored = os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or own.get("ignore_configured_endpoint_urls", "")
    if ignored.lower() in TRUE:
        return Endpoint()
    for variable in (f"AWS_ENDPOINT_URL_{name.upper()}", "AWS_ENDPOINT_URL"):
        if os.environ.get(variable):
            return Endpoint(os.environ[variable], variable)
    of_service = own.get("services", {}).get(name)
    found = of_service.get("endpoint_url", "") if isinstance(of_service, Mapping) else ""
    found = found or own.get("endpoint_url", "")
    return Endpoint(found, "your AWS configuration") if found else Endpoint()


def _files() -> tuple[Path, Path]:
    """The paths of AWS's configuration file and credentials file, whether or not they exist."""
    configuration = os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    # Unlike Path.home(), this does not fail without a home directory.
    return Path(os.path.expanduser(configuration)), Path(os.path.expanduser(credentials))


def _file_names(setting: str) -> bool:
    """Whether a configuration file contains a setting's name: most do not, and parsing them takes 0.1 s."""
    for path in _files():
        try:
            if setting in path.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            continue
    return False


def profile() -> Mapping[str, Any]:
    """The settings of the AWS profile in use, with its `services` section included; empty without a profile.

    Raises Refused for a file that cannot be read, and for a `services` section that does not exist.
    """
    if not any(path.is_file() for path in _files()):
        return {}
    from botocore.configloader import load_config, raw_config_parse
    from botocore.exceptions import BotoCoreError

    configuration, credentials = _files()
    name = os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE") or "default"
    try:
        whole = load_config(str(configuration)) if configuration.is_file() else {"profiles": {}}
        secret = raw_config_parse(str(credentials)) if credentials.is_file() else {}
    except BotoCoreError as error:
        raise Refused(f"The AWS configuration cannot be read: {error}. Correct the file.") from error
    # A setting with an indented block below it is a table, which none of those that are read here is.
    own = {**whole["profiles"].get(name, {}), **secret.get(name, {})}
    found: dict[str, Any] = {key: value for key, value in own.items() if isinstance(value, str)}
    if "services" in found:
        section = found["services"]
        if section not in whole.get("services", {}):
            raise Refused(f"The AWS configuration has no [services {section}], but the profile {name} uses it.")
        found["services"] = whole["services"][section]
    return found


def destination(environment: Environment) -> Destination:
    """Where the requests of a command would go, found without any request. Raises Refused as `endpoint_of` does."""
    found = {service: endpoint_of(service, environment) for service in SERVICES}
    foreign = {service: endpoint for service, endpoint in found.items() if not is_aws(service, endpoint.url)}
    account = environment.account.known()
    endpoints = {service: text.without_credentials(endpoint.url) for service, endpoint in foreign.items()}
    elsewhere = () if environment.endpoint_url else (*_asked_elsewhere(foreign), *_overridden(environment))
    return Destination(environment.region, account, endpoints, elsewhere)


def is_aws(service: str, url: str) -> bool:
    """Whether a URL is AWS's own endpoint for this service. Empty: botocore's default, which is."""
    found = OWN.fullmatch(url)
    return not url or bool(found and found["service"] == service)


def _asked_elsewhere(foreign: Mapping[str, Endpoint]) -> Iterator[str]:
    """A sentence for each endpoint that is not AWS's own."""
    for endpoint in dict.fromkeys(foreign.values()):
        services = [service for service in SERVICES if foreign.get(service) == endpoint]
        whom = "AWS" if len(services) == len(SERVICES) else ", ".join(services)
        where = text.one_line(endpoint.url, 200)
        yield f"requests to {whom} go to {where} (from {endpoint.origin}), which is not an AWS endpoint"


def _overridden(environment: Environment) -> Iterator[str]:
    """A sentence each if a variable changes the account or the region."""
    for setting in ("account", "region"):
        was, now, variable = settings.overridden(environment.name, setting)
        if was != now:
            yield f"the {setting} is {now} (from {variable}), but the settings say {was}"


def with_caller(found: Destination, environment: Environment) -> Destination:
    """The destination, with a sentence if the credentials belong to another account than the settings say.

    STS is asked, but only AWS's own. If it cannot tell, that is printed and nothing is refused.
    """
    if not found.account or "sts" in found.endpoints:
        return found
    try:
        asked = client("sts", environment, once=True, read_timeout=5)
        with errors("reading the account of the credentials", environment):
            account = str(asked.get_caller_identity().get("Account", ""))
    except DeployError as error:
        console.say(f"The account of the credentials could not be read: {error}")
        return found
    if account in ("", found.account):
        return found
    sentence = f"the credentials belong to account {account}, but {environment.name} is account {found.account}"
    return replace(found, elsewhere=(*found.elsewhere, text.one_line(sentence)))


def _session(environment: Environment) -> Any:
    """A boto3 session. It is kept, because every new one reads botocore's data again."""
    # A session depends on these.
    variables = frozenset((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "HOME")))
    return _session_of(environment.endpoint_url, environment.region, variables)


@functools.lru_cache(maxsize=4)
def _session_of(endpoint_url: str, region: str, _: frozenset[tuple[str, str]]) -> Any:
    """A session. An embedded AWS gets fixed keys and no profile, so that it never receives real credentials."""
    import boto3

    bound_responses()
    if not endpoint_url:
        return boto3.Session(region_name=region)
    from botocore.session import Session

    alone = Session(session_vars={"profile": (None, None, None, None)})
    for file in ("config_file", "credentials_file"):
        alone.set_config_variable(file, os.devnull)
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return boto3.Session(botocore_session=alone, region_name=region, **keys)


def has_credentials(environment: Environment) -> bool:
    """Whether credentials are configured, found without a request and without boto3.

    Checks the variables and files that the SDKs read first, but not an instance's role: a dry run must not wait for a
    metadata service that does not exist.
    """
    if environment.endpoint_url:
        return True
    variables = (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if any(os.environ.get(variable) for variable in variables):
        return True
    return any(path.is_file() for path in _files())


def credentials(environment: Environment) -> tuple[str, str, str]:
    """Access key, secret key and session token, from wherever the SDK finds them. Raises Refused if there are none."""
    quiet()
    with errors("finding credentials", environment):
        found = _session(environment).get_credentials()
        if found is None:
            raise Refused(f"No AWS credentials for {environment.name}: set AWS_PROFILE or log in, then run this again.")
        frozen = found.get_frozen_credentials()
        for secret in (frozen.secret_key, frozen.token):
            text.hide(secret or "")
        return str(frozen.access_key), str(frozen.secret_key), str(frozen.token or "")


@contextmanager
def errors(doing: str, environment: Environment, *, starts_something: bool = False) -> Iterator[None]:
    """Translate an error of boto3, or of reading an incomplete response, into a DeployError.

    doing: what was tried, for the message, such as "invoking dev-ecs-manager-docker".
    starts_something: a lost or late response leaves the outcome unknown (exit code 3).
    """
    try:
        yield
    except Exception as error:
        translated = translate(error, doing, environment, starts_something)
        if translated is None:
            raise
        raise translated from error


def translate(
    error: Exception, doing: str, environment: Environment, starts_something: bool = False
) -> DeployError | None:
    """The DeployError for an error of boto3 or an unexpected response; None for any other error."""
    if "botocore" not in sys.modules:
        return None
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError

    where, problem = f"{doing} ({environment.name}, {environment.region})", text.sentence(str(error))
    if isinstance(error, botocore.ClientError):
        return _refusal(error, where, starts_something)
    if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return Refused(f"No AWS credentials for {where}: set AWS_PROFILE or log in, then run this again.")
    if isinstance(
        error,
        (
            botocore.ProfileNotFound,
            botocore.CredentialRetrievalError,
            botocore.SSOError,
            botocore.InvalidRegionError,
            botocore.NoRegionError,
            botocore.ParamValidationError,
        ),
    ):
        return Refused(f"The request for {where} could not be sent: {problem}")
    if isinstance(error, (botocore.EndpointConnectionError, botocore.ConnectTimeoutError)):
        return DeployError(f"AWS cannot be reached for {where}: {problem}")
    if isinstance(error, botocore.HTTPClientError):
        lost = f"AWS's response was lost while {where}: {problem}"
        return OutcomeUnknown(lost) if starts_something else DeployError(lost)
    if isinstance(error, botocore.BotoCoreError):
        return DeployError(f"AWS failed while {where}: {problem}")
    if isinstance(error, (*UNREADABLE, ResponseParserError)):
        kind = OutcomeUnknown if starts_something else DeployError
        return kind(f"AWS returned an unexpected response while {where}: {_lack(error)}")
    return None


def _lack(error: Exception) -> str:
    """What is wrong with a response, from the error that reading it raised."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing."
    return text.one_line(str(error)) or type(error).__name__


def code_of(error: "ClientError") -> str:
    """AWS's own name for an error, such as AccessDenied."""
    return str(error.response.get("Error", {}).get("Code", ""))[:LONGEST]


def _refusal(error: "ClientError", where: str, starts_something: bool) -> DeployError:
    code = code_of(error)
    message = str(error.response.get("Error", {}).get("Message", ""))[:LONGEST]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in CREDENTIALS:
        # After the first line AWS quotes what should have been signed, including the session token.
        message = message.partition("\n")[0]
    said = text.sentence(f"{where}: {code}{': ' + message if message else ''}")
    if code in CREDENTIALS:
        return Refused(f"AWS rejected the credentials for {said} Log in again and run this again.")
    if code in WRONG_REGION or status == 301:
        return Refused(f"Wrong region for {said} Check AWS_REGION and the settings.")
    if error.operation_name == "Invoke" and code in NOT_YET | NOT_STARTED:
        nothing = NothingRan(f"Nothing was started: AWS refused {said} Run it again later.")
        nothing.passes = code in NOT_YET
        return nothing
    if DENIED.fullmatch(code):
        return Denied(f"AWS refused {said}")
    if starts_something and status >= 500:
        return OutcomeUnknown(f"AWS failed while {said}")
    return DeployError(f"AWS refused {said}")
