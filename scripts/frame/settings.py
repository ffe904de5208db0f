"""Reads environments.toml into frozen records, and checks everything before a command runs.

A value comes from a flag of the command, else from an environment variable that the old scripts read, else from the
settings file. Text may hold `${…}`. Lower case: another setting of the same environment, with dots for those in tables
(`${frontend.bucket}`). Upper case: an environment variable, `NAME_PROD` in prod. `NAME` alone is that of the
environment in $APP_ENV, such as a job's own secret, and never stands in for another environment's. Every value knows
where it came from.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from scripts.frame import console
from scripts.frame.errors import Refused

R = TypeVar("R", bound=Struct)

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Settings that are never masked, even if their value comes from a variable.
PUBLIC = {"endpoint_url", "frontend.folder", "region"}
# Variables of whoever runs the command, whatever the environment.
OF_THE_CALLER = "AWS_"
# How deep settings may refer to each other.
DEPTH = 5
# Bytes of the settings file, and how deep its tables may be nested: [environments.NAME.services.NAME] are four.
MOST, NESTED = 1 << 20, 8

# Settings that an environment variable overrides, as it did in the old scripts; BUILD_PATH is Create React App's.
VARIABLES = {
    "account": ("AWS_ACCOUNT_ID",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "registry": ("ECR_REGISTRY",),
    "frontend.bucket": ("STATIC_S3_BUCKET",),
    "frontend.folder": ("BUILD_PATH",),
    "storybook.bucket": ("STORYBOOK_S3_BUCKET",),
}
# Settings of the real AWS: variables for them are ignored in an embedded environment.
OF_THE_REAL_AWS = {"account", "region", "registry"}


class Filled(str):
    """A text with its `${…}` filled in; a variable that is not set appears as `<NAME>`.

    path: of the setting. environment: its name. missing: variables that are not set. shown: the text with every value
    that came from a variable masked. lenient: whether a missing variable is accepted, as in a dry run.
    """

    path: str = ""
    environment: str = ""
    missing: tuple[str, ...] = ()
    shown: str = ""
    lenient: bool = False

    def needed(self) -> str:
        """The text. Raises Refused for a variable that is not set, with the names under which it can be set."""
        if self.missing and not self.lenient:
            name, env = self.missing[0], self.environment
            own = f"{name}_{env.upper()}"
            if os.environ.get(name):
                raise Refused(
                    f"{own} is not set, and {self.path} of {env} needs it. {name} is set, but it may be another"
                    f" environment's: set {own}, or APP_ENV={env} too if it is that of {env}."
                )
            common = name.startswith(OF_THE_CALLER) or any(name in names for names in VARIABLES.values())
            raise Refused(
                f"{name} is not set, and {self.path} of {env} needs it. Set the environment variable"
                f" {own}{f' or {name}' if common else ''}, or change {self.path} in {settings_file()}."
            )
        return str(self)


class Setting:
    """A setting that only some commands need, empty if it is not set. `require` returns it or raises Refused."""

    pattern: ClassVar[re.Pattern[str] | None] = None
    meaning: ClassVar[str] = ""

    def __init__(self, text: "Filled") -> None:
        self._text = text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and other._text == self._text

    def known(self) -> str:
        """The text, empty if a variable that it needs is not set."""
        return "" if self._text.missing else str(self._text)

    def is_public(self) -> bool:
        """Whether it is in the settings file: what comes from a variable may be a secret."""
        return bool(self.known()) and str(self._text) == self._text.shown

    def require(self) -> str:
        """The text; a variable that is not set is shown as `<NAME>` in a dry run. Raises Refused."""
        text = self._text
        if not text:
            looked = "".join(f"{name} or " for name in VARIABLES.get(text.path, ()))
            raise Refused(f"{text.environment} has no {text.path}: set {looked}{text.path} in {settings_file()}.")
        return text.needed() if text.missing else self.checked(text, f"the {text.path} of {text.environment}")

    @classmethod
    def checked(cls, text: str, what: str) -> str:
        """The text, if it is well formed. what: for the message, such as "the account of dev". Raises Refused."""
        if cls.pattern and not cls.pattern.fullmatch(text):
            raise Refused(f"{text[:200]!r} is not {what}: {cls.meaning}.")
        return str(text)


class Account(Setting):
    """The id of an AWS account."""

    pattern = re.compile(r"[0-9]{12}")
    meaning = "an AWS account id is 12 digits"


class BucketName(Setting):
    """The name of an S3 bucket, or BUCKET/FOLDER for a folder in it. https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""

    pattern = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[\w.~-]{1,200}){0,4}", re.ASCII)
    meaning = "an S3 bucket has 3 to 63 lower-case letters, digits, dots and hyphens, and /FOLDER may follow"


def about(meaning: str, **rules: Any) -> Meta:
    """The meaning of a setting, for docs/settings.md, and the rules that msgspec checks."""
    return Meta(description=meaning, **rules)


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file: unknown, missing and mistyped keys are refused by name."""


class Application(Table, frozen=True, kw_only=True):
    """What all environments share."""

    name: Annotated[str, about("name of the application; its releases and SSM parameters are named after it")]
    repository: Annotated[str, about("owner/name on GitHub; GITHUB_REPOSITORY takes precedence")]
    main_branch: Annotated[str, about("the branch that is deployed")]
    promotion: Annotated[tuple[str, ...], about("the environments in the order of promotion; the last is production")]
    slack_channel: Annotated[str, about("channel for failures and findings; the webhook is SLACK_WEBHOOK_URL")] = ""

    @property
    def on_github(self) -> str:
        """The repository that this run is about."""
        return os.environ.get("GITHUB_REPOSITORY") or self.repository


class Service(Table, frozen=True, kw_only=True):
    """The application's ECS service."""

    name: Annotated[str, about("ECS service")]
    image: Annotated[str, about("repository of its image")]
    file: Annotated[str, about("its Dockerfile")]
    secrets: Annotated[Setting, about("regular expression for the SSM parameters that become its secrets")]
    containers: Annotated[
        tuple[str, ...], about("containers that get the image; empty for all that use its repository")
    ] = ()


class OtherService(Table, frozen=True, kw_only=True):
    """One more ECS service of the application, such as a worker: `[defaults.services.NAME]`, by the service's name.

    It is deployed together with the application's own.
    """

    image: Annotated[str, about("repository of its image; empty for that of the application's own service")] = ""
    secrets: Annotated[str, about("regular expression for the SSM parameters that become its secrets")] = ""
    containers: Annotated[
        tuple[str, ...], about("containers that get the image; empty for all that use its repository")
    ] = ()


class OneOff(Table, frozen=True, kw_only=True):
    """A task without a service: `[defaults.tasks.NAME]`. It can be named wherever a service whose task runs can be."""

    family: Annotated[str, about("family of its task definition")]
    subnets: Annotated[tuple[Setting, ...], about("subnets that it runs in")]
    security_groups: Annotated[tuple[Setting, ...], about("its security groups; empty for the VPC's own")] = ()
    assign_public_ip: Annotated[bool, about("whether it gets a public address")] = False
    platform: Annotated[str, about("Fargate's platform version; empty for the latest")] = ""


class Migrations(Table, frozen=True, kw_only=True):
    """How the database is migrated. Without a service it is not migrated."""

    service: Annotated[str, about("ECS service whose task migrates the database")] = ""
    image: Annotated[str, about("repository of its image")] = ""
    file: Annotated[str, about("its Dockerfile")] = ""
    folder: Annotated[str, about("folder of the migrations in the repository, such as migrations/")] = ""
    containers: Annotated[
        tuple[str, ...], about("containers that get the image; empty for all that use its repository")
    ] = ()


class Manager(Table, frozen=True, kw_only=True):
    """The ECS manager: a Lambda function, or the same code in the command's own process."""

    via: Annotated[
        str,
        about("lambda: call the function. ecs: call ECS itself, with the caller's rights", pattern=r"\A(lambda|ecs)\Z"),
    ] = "lambda"
    function: Annotated[str, about("name of the Lambda function; needed if via is lambda")] = ""
    qualifier: Annotated[str, about("its version or alias; needed if via is lambda")] = ""
    timeout: Annotated[
        int, about("seconds to wait for an answer, or for a task; more than Lambda's own limit of 900", ge=1)
    ] = 930


class Scan(Table, frozen=True, kw_only=True):
    """The Lambda that counts the findings in an image."""

    function: Annotated[Setting, about("its name")]
    qualifier: Annotated[str, about("its version or alias")] = "$LATEST"


class Cleaner(Table, frozen=True, kw_only=True):
    """How the database is emptied. It cannot be without a function, or via = "ecs" and a service."""

    function: Annotated[str, about("name of the Lambda that runs the task")] = ""
    qualifier: Annotated[str, about("its version or alias")] = "$LATEST"
    service: Annotated[str, about("ECS service whose task empties the database")] = ""
    image: Annotated[str, about("repository of its image")] = ""
    file: Annotated[str, about("its Dockerfile")] = ""


class Database(Table, frozen=True, kw_only=True):
    """The RDS database."""

    name: Annotated[Setting, about("its identifier")]
    backup: Annotated[bool, about("whether a snapshot is taken before every deployment")] = False
    keep_snapshots: Annotated[int, about("how many snapshots of backup-database to keep; 0 keeps all", ge=0)] = 0


class Frontend(Table, frozen=True, kw_only=True):
    """The frontend: how it is built, and where it is released to."""

    bucket: Annotated[BucketName, about("its S3 bucket, or BUCKET/FOLDER for a folder in it")]
    base: Annotated[
        str, about("path that it is served at; empty for that of the bucket's folder, or /", pattern=r"\A(/\S*)?\Z")
    ] = ""
    folder: Annotated[str, about("folder that the build writes to")]
    build: Annotated[tuple[str, ...], about("command that builds it, as a list of words")]
    install: Annotated[tuple[str, ...], about("command that runs before it; empty for none")] = ()
    distribution: Annotated[Setting, about("CloudFront distribution, where there is one")]
    keep_releases: Annotated[int, about("how many older releases to keep, for open tabs and rollbacks", ge=0)] = 2
    max_delete_percent: Annotated[
        int, about("share of the bucket that one release may delete; expired files do not count", ge=0, le=100)
    ] = 50
    variables: Annotated[dict[str, Setting], about("environment variables of the build")] = {}
    keep: Annotated[
        tuple[str, ...], about("patterns of keys that others write: never put, deleted, or missed by a page")
    ] = ()
    publish: Annotated[tuple[str, ...], about("patterns of files that are released although they look secret")] = ()
    cache_control: Annotated[dict[str, str], about("pattern of keys -> Cache-Control; the first match wins")] = {}
    content_types: Annotated[dict[str, str], about("pattern of keys -> Content-Type; the first match wins")] = {}
    put_headers: Annotated[
        dict[str, str], about("x-amz-… headers of everything that is written, such as x-amz-server-side-encryption")
    ] = {}


class Storybook(Table, frozen=True, kw_only=True):
    """The storybook, where there is one."""

    bucket: Annotated[BucketName, about("its S3 bucket, or BUCKET/FOLDER for a folder in it")]
    folder: Annotated[str, about("folder that its build writes to")] = "storybook-static"


class Environment(Table, frozen=True, kw_only=True):
    """One environment. name, origin, application and dry_run are not settings of the file.

    origin: what chose the environment, such as --env; empty if it was not chosen.
    """

    account: Annotated[
        Account, about("AWS account; where `confirm` is set, credentials of another one have to be confirmed too")
    ]
    region: Annotated[str, about("AWS region, such as us-west-2", pattern=r"\A[a-z]{2}(-[a-z]+)+-[0-9]\Z")]
    registry: Annotated[Setting, about("host of the image registry")]
    cluster: Annotated[str, about("ECS cluster")]
    build_context: Annotated[str, about("build context of the images")]
    site: Annotated[str, about("URL of the application", pattern=r"\Ahttps?://[^\s/]\S*\Z")]
    healthcheck: Annotated[str, about("URL of the healthcheck, which returns the running version; empty for none")]
    confirm: Annotated[bool, about("whether a person must confirm by typing the environment's name")] = False
    endpoint_url: Annotated[str, about("URL of an embedded AWS on this machine; AWS_ENDPOINT_URL overrides it")] = ""
    service: Annotated[Service, about("")]
    services: Annotated[dict[str, OtherService], about("")] = {}
    tasks: Annotated[dict[str, OneOff], about("")] = {}
    migrations: Annotated[Migrations, about("")] = Migrations()
    manager: Annotated[Manager, about("")] = Manager()
    scan: Annotated[Scan, about("")]
    cleaner: Annotated[Cleaner, about("")] = Cleaner()
    database: Annotated[Database, about("")]
    frontend: Annotated[Frontend, about("")]
    storybook: Annotated[Storybook, about("")]
    name: str = ""
    origin: str = ""
    application: Application = Application(name="", repository="", main_branch="", promotion=())
    dry_run: bool = False

    @property
    def endpoint_host(self) -> str:
        """Host and port of the embedded AWS, such as 127.0.0.1:4566; empty elsewhere."""
        return host_of(self.endpoint_url)[0]

    def frontend_variables(self) -> dict[str, str]:
        """Environment variables of the frontend's build. Raises Refused for a variable that is not set."""
        return {name: value.require() for name, value in self.frontend.variables.items()}


# Settings that `require` asks for and that a file may leave out.
OPTIONAL = ("database.name", "frontend.distribution", "scan.function", "storybook.bucket")
# Fields of Environment that no settings file holds.
GIVEN = {"name", "origin", "application", "dry_run"}


def host_of(url: str) -> tuple[str, str]:
    """Host with port, and host name alone, of a URL; both empty for a malformed URL."""
    try:
        parts = urlsplit(url)
        return parts.netloc, parts.hostname or ""
    except ValueError:
        return "", ""


def settings_file() -> Path:
    """The settings in use: $ENVIRONMENTS_FILE, else environments.toml beside tasks.py."""
    chosen = os.environ.get("ENVIRONMENTS_FILE")
    return Path(chosen) if chosen else ROOT / "environments.toml"


def choose(flag: str | None) -> tuple[str, str]:
    """The environment's name and where it came from: --env, else $APP_ENV, else local outside CI.

    Raises Refused for an empty or unknown name, and in CI if neither is given.
    """
    known = ", ".join(names())
    if flag is not None:
        name, origin = flag, "--env"
    elif "APP_ENV" in os.environ:
        name, origin = os.environ["APP_ENV"], "APP_ENV"
    elif console.in_ci():
        raise Refused(f"No environment: give --env or set APP_ENV to one of {known}.")
    else:
        name, origin = "local", "the default"
    if name not in names():
        said = f"{name[:100]!r} is not an environment" if name else "The environment's name is empty"
        raise Refused(f"{said} (from {origin}): give one of {known}.")
    return name, origin


def find(flag: str | None = None, *, dry_run: bool = False) -> Environment:
    """The environment for a command. Raises Refused for any fault in its name or in the settings file."""
    chosen, origin = choose(flag)
    for name in names():
        if name != chosen:
            environment(name, dry_run=True)
    return environment(chosen, origin, dry_run=dry_run)


def names() -> tuple[str, ...]:
    """All environments of the settings file, in its order."""
    return tuple(_settings()["environments"])


def application() -> Application:
    """What all environments share."""
    return _record(Application, _settings()["application"], "application")


def environment(name: str, origin: str = "", *, dry_run: bool = False) -> Environment:
    """One environment by its name. Raises Refused for any fault in its settings.

    origin: what chose it, empty if it was not chosen. dry_run: a variable that is not set is shown as `<NAME>`.
    """
    filled = _Values(name, lenient=dry_run, chosen=bool(origin)).filled()
    for key in GIVEN & filled.keys():
        raise Refused(f"{settings_file()}: environments.{name}.{key} is not a known setting.")
    made = _record(Environment, filled, f"environments.{name}")
    if made.endpoint_url and host_of(made.endpoint_url)[1] not in LOOPBACK:
        # An environment with an endpoint of its own is embedded: its requests must never reach a real host.
        raise Refused(f"{name} is embedded and its endpoint must be on this machine, not {made.endpoint_url}.")
    for text in _texts(made):
        text.needed()
    return msgspec.structs.replace(made, name=name, origin=origin, application=application(), dry_run=dry_run)


def _texts(record: Struct) -> Iterator[Filled]:
    """The texts of a record and its tables that commands read without `require`."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        several = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for one in several:
            if isinstance(one, Struct):
                yield from _texts(one)
            elif isinstance(one, Filled):
                yield one


class _Values:
    """The settings of one environment as tables, and where each value came from."""

    def __init__(self, name: str, *, lenient: bool = True, chosen: bool = False) -> None:
        self.name, self.lenient = name, lenient
        self.origins: dict[str, str] = {}
        # path -> value in the settings file that a variable has replaced.
        self.replaced: dict[str, Any] = {}
        settings = _settings()
        own = settings["environments"][name]
        self.tables = self._merged(settings.get("defaults", {}), own, "")
        embedded = bool(self.tables.get("endpoint_url"))
        for path, variables in VARIABLES.items():
            if not (embedded and path in OF_THE_REAL_AWS):
                self._override(path, variables)
        elsewhere = host_of(os.environ.get("AWS_ENDPOINT_URL", ""))[1] not in LOOPBACK
        # An endpoint on another host is for the real AWS: it does not count for an embedded one that was not chosen.
        if embedded and (chosen or not elsewhere):
            self._override("endpoint_url", ("AWS_ENDPOINT_URL",))

    def _merged(self, defaults: Mapping[str, Any], own: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """The defaults with the environment's own settings over them, table by table."""
        merged: dict[str, Any] = {}
        for key in {**defaults, **own}:
            path = f"{prefix}{key}"
            value, default = own.get(key), defaults.get(key)
            if isinstance(value, dict) or (key not in own and isinstance(default, dict)):
                merged[key] = self._merged(default if isinstance(default, dict) else {}, value or {}, f"{path}.")
            else:
                merged[key] = value if key in own else default
                self.origins[path] = f"[environments.{self.name}]" if key in own else "[defaults]"
        return merged

    def _override(self, path: str, variables: tuple[str, ...]) -> None:
        table, _, key = path.rpartition(".")
        for variable in variables:
            found, name = self.variable(variable)
            if found:
                into = self.tables.setdefault(table, {}) if table else self.tables
                self.replaced[path], into[key] = into.get(key, ""), found
                self.origins[path] = name
                return

    def variable(self, name: str) -> tuple[str, str]:
        """An environment variable and its name: NAME_ENV where it is set, else NAME. Empty counts as not set."""
        for one in (f"{name}_{self.name.upper()}", name):
            if os.environ.get(one):
                return os.environ[one], one
        return "", ""

    def own(self, name: str) -> tuple[str, str]:
        """As `variable`, but NAME alone counts only if it is known to be this environment's."""
        found, which = self.variable(name)
        common = which == name and not name.startswith(OF_THE_CALLER) and os.environ.get("APP_ENV") != self.name
        return ("", "") if common else (found, which)

    def filled(self) -> dict[str, Any]:
        """The tables with every `${…}` filled in whose variable is set."""
        filled = {key: self._fill(value, key) for key, value in self.tables.items()}
        for path in OPTIONAL:
            table, _, key = path.partition(".")
            if isinstance(filled.setdefault(table, {}), dict):
                filled[table].setdefault(key, self._made("", "", [], path))
        return filled

    def _fill(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: self._fill(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item, path) for item in value]
        return self._text(value, path, 0) if isinstance(value, str) else value

    def _text(self, raw: str, path: str, depth: int) -> Filled:
        if depth > DEPTH:
            raise Refused(f"{settings_file()}: environments.{self.name}: {raw!r} refers to itself.")
        text, shown, end = "", "", 0
        missing: list[str] = []
        # A value that came completely from a variable is masked, like one that fills in a reference.
        whole = not self.origins.get(path, "[").startswith("[")
        for match in REFERENCE.finditer(raw):
            part = self._reference(match, path, depth)
            between = raw[end : match.start()]
            text, shown, end = text + between + part, shown + between + part.shown, match.end()
            missing += part.missing
        text, shown = text + raw[end:], shown + raw[end:]
        return self._made(text, "***" if whole and path not in PUBLIC else shown, missing, path)

    def _reference(self, match: re.Match[str], path: str, depth: int) -> Filled:
        word = match[1]
        if word.isupper():
            found, name = self.own(word)
            if found:
                self.origins[path] = f"{self.origins.get(path, '')} with {name}".strip()
            return self._made(found or f"<{word}>", "***" if found else f"<{word}>", [] if found else [word], path)
        value: Any = {**self.tables, "name": self.name}
        for key in word.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if word == "endpoint_host":
            value = host_of(str(self.tables.get("endpoint_url", "")))[0]
        if not isinstance(value, str):
            raise Refused(f"{settings_file()}: environments.{self.name}: {match[0]} is not a known setting.")
        return self._text(value, word, depth + 1)

    def _made(self, text: str, shown: str, missing: list[str], path: str) -> Filled:
        made = Filled(text)
        made.path, made.environment, made.lenient = path, self.name, self.lenient
        made.shown, made.missing = shown, tuple(missing)
        return made


def overridden(name: str, path: str) -> tuple[str, str, str]:
    """The value in the settings file, the value in use, and where that came from; the same twice if not overridden."""
    values = _Values(name)
    now = str(values.filled()[path])
    return str(values._fill(values.replaced.get(path, now), path)), now, values.origins.get(path, "")


def origins(name: str) -> dict[str, str]:
    """Where each value of an environment came from: path -> origin, such as "[defaults] with OKTA_CLIENT_ID_PROD"."""
    values = _Values(name)
    values.filled()
    return values.origins


def rows(name: str) -> list[tuple[str, str, str]]:
    """Every setting of an environment: its path, its value (masked if from a variable), and where it came from."""
    values = _Values(name)
    filled = values.filled()

    def leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    known = dict(leaves(filled, ""))
    for path, default in _defaults(Environment, ""):
        known.setdefault(path, default)
    return [(path, _shown(value), values.origins.get(path, "the default")) for path, value in sorted(known.items())]


def _shown(value: Any) -> str:
    if isinstance(value, Filled):
        return value.shown
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else str(value)


def _defaults(kind: type[Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    """The settings that a file may leave out, with their defaults."""
    for field in msgspec.structs.fields(kind):
        table = msgspec.inspect.type_info(field.type)
        inner = getattr(getattr(table, "type", table), "cls", None)
        if field.name in GIVEN and not prefix:
            continue
        if isinstance(inner, type) and issubclass(inner, Table):
            yield from _defaults(inner, f"{prefix}{field.name}.")
        elif isinstance(field.default, (bool, int, str, tuple)):
            yield f"{prefix}{field.name}", field.default


def _settings() -> dict[str, Any]:
    """The settings file as tables. Raises Refused if it is missing or malformed."""
    path = settings_file()
    try:
        stamp = path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise Refused(f"The settings cannot be read: {path}: {getattr(error, 'strerror', error)}.") from error
    if (path, stamp) not in _parsed:
        _parsed[path, stamp] = _parse(path)
    return _parsed[path, stamp]


_parsed: dict[tuple[Path, int], dict[str, Any]] = {}


def _parse(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            body = file.read(MOST + 1)
        if len(body) > MOST:
            raise ValueError(f"it is larger than {MOST:,} bytes")
        settings = tomllib.loads(body.decode())
        if _depth(settings) > NESTED:
            raise ValueError(f"its tables are nested more than {NESTED} deep")
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"The settings cannot be read: {path}: {error}.") from error
    for key in settings.keys() - {"application", "defaults", "environments"}:
        raise Refused(f"{path}: unknown table {key}: only application, defaults and environments are allowed.")
    for key in ("application", "environments"):
        if not isinstance(settings.get(key), dict) or not settings[key]:
            raise Refused(f"{path}: the table [{key}] is missing or empty.")
    if not isinstance(settings.get("defaults", {}), dict):
        raise Refused(f"{path}: defaults is not a table.")
    if not all(isinstance(table, dict) for table in settings["environments"].values()):
        raise Refused(f"{path}: environments holds something that is not a table.")
    return settings


def _depth(value: Any) -> int:
    """How deep tables and lists are nested. Raises RecursionError for a value that is nested too deeply to tell."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, parts), default=0)


def _record(kind: type[R], values: Mapping[str, Any], table: str) -> R:
    """A frozen record from a table. Raises Refused, naming the key that is unknown, missing, mistyped or malformed."""
    try:
        return msgspec.convert(values, kind, dec_hook=_setting)
    except msgspec.ValidationError as error:
        raise Refused(f"{settings_file()}: {_fault(str(error), table, values)}.") from error


def _setting(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return kind(value)


WORDS = {"str": "text", "int": "a whole number", "bool": "true or false", "array": "a list", "object": "a table"}


def _fault(said: str, table: str, values: Any) -> str:
    """msgspec's message with the full name of the key: "Object contains unknown field `x` - at `$.frontend`"."""
    what, _, where = said.partition(" - at `")
    path = where.removeprefix("$").removesuffix("`")
    for key in path.removeprefix(".").split("."):
        values = values.get(key, "…") if isinstance(values, Mapping) else values
    name = f"{table}{path}"
    if found := re.match(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        return f"{name}.{found[1]} is not a known setting"
    if found := re.match(r"Object missing required field `(.*)`", what):
        return f"{name} needs {found[1]}"
    if found := re.match(r"Expected `(\w+)`, got `\w+`", what):
        return f"{name} must be {WORDS.get(found[1], found[1])}, not {values!r}"
    if found := re.match(r"Expected `int` (.*)", what):
        return f"{name} must be a whole number {found[1]}, not {values!r}"
    return f"{name} is malformed: {values!r}"
