"""The edge to AWS: clients, what may be retried, and AWS's errors in plain words.

The only importer of boto3, and only inside functions: it costs 0.3 s that most commands can do without.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.edges import http
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# Codes that say: who you are is not known, or not any more. Nothing was done.
CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
WRONG_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
WHERE_FROM = "Check AWS_ENDPOINT_URL, and endpoint_url in your AWS configuration."


def client(
    service: str,
    environment: Environment,
    *,
    once: bool = False,
    read_timeout: float = 60,
) -> Any:
    """Make a boto3 client for a service of an environment.

    once: never send a request twice, and keep the connection alive through a long silence. For calls
    that start something: botocore would otherwise repeat a slow one up to four times.
    read_timeout: seconds until an answer has to come.
    """
    if environment.dry_run and not has_credentials(environment):
        raise Refused("there are no AWS credentials here")
    from botocore.config import Config

    # botocore's own log holds tokens, and Invoke's --debug would show it.
    logging.getLogger("botocore").setLevel(logging.INFO)
    # A dry run reads what it can; it does not wait for a network that is not there.
    dry = environment.dry_run
    config = Config(
        connect_timeout=2 if dry else 5,
        read_timeout=read_timeout,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": 1 if once or dry else 4},
        s3={"addressing_style": "path"} if environment.endpoint_url else None,
        # No proxy leads back to this machine.
        proxies={} if environment.endpoint_url else None,
    )
    try:
        with errors(f"setting up {service}", environment):
            made = _session(environment).client(service, endpoint_url=environment.endpoint_url or None, config=config)
    except ValueError as error:
        raise Refused(f"AWS cannot be asked for {service} ({environment.name}): {error}. {WHERE_FROM}") from error
    try:
        http.checked(made.meta.endpoint_url, f"an endpoint of AWS for {service}")
    except Refused as error:
        raise Refused(f"{error} {WHERE_FROM}") from error
    return made


def _session(environment: Environment) -> Any:
    """A boto3 session. An embedded AWS gets fixed keys and no profile, so that nothing of anybody's ever reaches it."""
    import boto3

    if not environment.endpoint_url:
        return boto3.Session(region_name=environment.region)
    from botocore.session import Session

    alone = Session(session_vars={"profile": (None, None, None, None)})
    for file in ("config_file", "credentials_file"):
        alone.set_config_variable(file, os.devnull)
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return boto3.Session(botocore_session=alone, region_name=environment.region, **keys)


def has_credentials(environment: Environment) -> bool:
    """Whether credentials are configured here, without asking anybody and without boto3.

    Looks where the SDKs look first, and leaves out a machine's own role: a dry run must not wait for
    a metadata service that is not there.
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
    home = Path.home() / ".aws"
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"),
        os.environ.get("AWS_CONFIG_FILE", home / "config"),
    )
    return any(Path(file).is_file() for file in files)


def credentials(environment: Environment) -> tuple[str, str, str]:
    """Access key, secret and session token, from wherever the SDK finds them. Raises Refused for none."""
    with errors("finding credentials", environment):
        found = _session(environment).get_credentials()
        if found is None:
            raise Refused(f"No AWS credentials for {environment.name}: set AWS_PROFILE or log in, then run it again.")
        frozen = found.get_frozen_credentials()
        return str(frozen.access_key), str(frozen.secret_key), str(frozen.token or "")


@contextmanager
def errors(doing: str, environment: Environment, *, starts_something: bool = False) -> Iterator[None]:
    """Translate what boto3 raises inside into a DeployError.

    doing: what was tried, to begin the sentence with, such as "invoking dev-ecs-manager-docker".
    starts_something: a lost or late answer leaves the outcome unknown (exit code 3).
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
    """The DeployError for an error of boto3, or None for anything else."""
    if "botocore" not in sys.modules:
        return None
    from botocore import exceptions as botocore

    where = f"{doing} ({environment.name}, {environment.region})"
    if isinstance(error, botocore.ClientError):
        return _refusal(error, where, starts_something)
    if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return Refused(f"No AWS credentials for {where}: set AWS_PROFILE or log in, then run it again.")
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
        return Refused(f"AWS cannot be asked for {where}: {error}")
    if isinstance(error, (botocore.EndpointConnectionError, botocore.ConnectTimeoutError)):
        return DeployError(f"AWS cannot be reached for {where}: {error}")
    if isinstance(error, botocore.HTTPClientError):
        lost = f"The answer of AWS was lost in {where}: {error}"
        return OutcomeUnknown(lost) if starts_something else DeployError(lost)
    if isinstance(error, botocore.BotoCoreError):
        return DeployError(f"AWS failed in {where}: {error}")
    return None


def code_of(error: "ClientError") -> str:
    """AWS's own name for an error, such as AccessDenied."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: "ClientError", where: str, starts_something: bool) -> DeployError:
    code = code_of(error)
    message = error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in CREDENTIALS:
        return Refused(
            f"AWS does not accept the credentials for {where}: {code}: {message} Log in again and run it again."
        )
    if code in WRONG_REGION or status == 301:
        return Refused(f"Wrong region for {where}: {code}: {message} Check AWS_REGION and the settings.")
    text = f"AWS refused {where}: {code}: {message}"
    if starts_something and status >= 500:
        return OutcomeUnknown(f"AWS failed in {where}: {code}: {message}")
    return DeployError(text)
