"""Reads environments.toml into frozen records, and checks everything before anything runs.

A value is a flag of the command, else an environment variable that the old scripts read, else the
setting. Text may hold `${…}`: in small letters another setting of the same environment, in capitals an
environment variable, whose name with the environment's behind it (`NAME_PROD`) comes before `NAME`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin
from urllib.parse import urlsplit

from scripts.frame.errors import Refused

R = TypeVar("R")

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = re.compile(r"\$\{(\w+)\}")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

# Settings that an environment variable overrides, as it did in the old scripts; BUILD_PATH is Create React App's.
VARIABLES = {
    "account": ("AWS_ACCOUNT_ID",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "bucket": ("STATIC_S3_BUCKET",),
    "storybook_bucket": ("STORYBOOK_S3_BUCKET",),
    "build_dir": ("BUILD_PATH",),
}
# What a variable says of the real AWS does not move an embedded one.
OF_THE_REAL_AWS = {"account", "region"}
PATTERNS = {
    "account": (re.compile(r"\d{12}"), "an AWS account id is 12 digits"),
    "region": (re.compile(r"[a-z]{2}(-[a-z]+)+-\d"), "an AWS region looks like us-west-2"),
    "site": (re.compile(r"https?://[^\s/]+[^\s]*"), "a site is an http or https URL"),
    "bucket": (re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), "that is no name of an S3 bucket"),
    "storybook_bucket": (re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), "that is no name of an S3 bucket"),
}


@dataclass(frozen=True)
class Application:
    """What all environments share. promotion: their names, in the order in which a version goes."""

    name: str
    repository: str
    main_branch: str
    promotion: tuple[str, ...]


@dataclass(frozen=True)
class Environment:
    """One environment: its settings, with every `${…}` filled in.

    Read settings that need an environment variable through `require`: a missing one is refused there,
    with its name. In a dry run it appears as `<NAME>` instead.
    """

    name: str
    origin: str
    application: Application
    region: str
    registry: str
    cluster: str
    service: str
    secrets: str
    image: str
    image_file: str
    build_context: str
    function: str
    qualifier: str
    site: str
    healthcheck: str
    build_dir: str
    build: tuple[str, ...]
    account: str = ""
    bucket: str = ""
    endpoint_url: str = ""
    install: tuple[str, ...] = ()
    function_timeout: int = 930
    migration_service: str = ""
    migration_image: str = ""
    migration_file: str = ""
    migrations: str = ""
    scan_function: str = ""
    scan_qualifier: str = ""
    clean_function: str = ""
    clean_qualifier: str = ""
    clean_service: str = ""
    database: str = ""
    backup: bool = False
    keep_snapshots: int = 0
    storybook_bucket: str = ""
    storybook_dir: str = "storybook-static"
    distribution: str = ""
    keep_releases: int = 2
    max_delete_percent: int = 50
    slack_channel: str = ""
    okta_domain: str = ""
    confirm: bool = False
    frontend: Mapping[str, str] = field(default_factory=dict)
    cache_control: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False

    @cached_property
    def endpoint_host(self) -> str:
        """Host and port of the embedded AWS, such as 127.0.0.1:4566; empty elsewhere."""
        return urlsplit(self.endpoint_url).netloc

    def require(self, setting: str) -> str:
        """The value of a setting that has to be there and well formed. Raises Refused."""
        return require(self, str(getattr(self, setting)), setting)

    def frontend_variables(self) -> dict[str, str]:
        """What the frontend's build sees. Raises Refused for a variable that is not set."""
        return {name: require(self, text, f"frontend.{name}") for name, text in self.frontend.items()}


def require(environment: Environment, text: str, setting: str) -> str:
    """Text without an open `${NAME}`. Raises Refused, naming the variable and where it is looked for."""
    missing = REFERENCE.findall(text)
    if missing and not environment.dry_run:
        name = missing[0]
        raise Refused(
            f"{name} is not set: {environment.name} needs it for its {setting}. Looked for in the environment"
            f" variables {name}_{environment.name.upper()} and {name}, and in {settings_file()}."
        )
    if not text:
        looked = " or ".join(VARIABLES.get(setting, ()))
        raise Refused(
            f"{environment.name} has no {setting}: set {looked + ' or ' if looked else ''}"
            f"{setting} in {settings_file()}."
        )
    pattern, meaning = PATTERNS.get(setting, (None, ""))
    if pattern and not missing and not pattern.fullmatch(text):
        raise Refused(f"{text!r} is not the {setting} of {environment.name}: {meaning}.")
    return REFERENCE.sub(r"<\1>", text)


def settings_file() -> Path:
    """The settings in use: $ENVIRONMENTS_FILE, else environments.toml beside tasks.py."""
    chosen = os.environ.get("ENVIRONMENTS_FILE")
    return Path(chosen) if chosen else ROOT / "environments.toml"


def choose(flag: str | None) -> tuple[str, str]:
    """The environment's name and where it came from: --env, else $APP_ENV, else local outside CI.

    Raises Refused for an empty or unknown name, and for none in CI.
    """
    known = ", ".join(names())
    if flag is not None:
        name, origin = flag, "--env"
    elif "APP_ENV" in os.environ:
        name, origin = os.environ["APP_ENV"], "APP_ENV"
    elif os.environ.get("CI"):
        raise Refused(f"No environment: give --env or set APP_ENV to one of {known}.")
    else:
        name, origin = "local", "the default"
    if name not in names():
        said = f"{name!r} is not an environment" if name else "The environment's name is empty"
        raise Refused(f"{said} (from {origin}): give one of {known}.")
    return name, origin


def find(flag: str | None = None, *, dry_run: bool = False) -> Environment:
    """The environment that a command is to work on. Raises Refused for any fault in name or settings."""
    chosen, origin = choose(flag)
    every = {name: environment(name, origin, dry_run=dry_run) for name in names()}
    return every[chosen]


def names() -> tuple[str, ...]:
    """All environments of the settings file, in its order."""
    return tuple(_settings()["environments"])


def application() -> Application:
    """What all environments share."""
    return _record(Application, _settings()["application"], "application", {})


def environment(name: str, origin: str = "", *, dry_run: bool = False) -> Environment:
    """One environment by its name. Raises Refused for any fault in its settings."""
    settings = _settings()
    values = _merged(settings.get("defaults", {}), settings["environments"][name])
    for setting, variables in VARIABLES.items():
        if values.get("endpoint_url") and setting in OF_THE_REAL_AWS:
            continue
        found = next((value for v in variables if (value := _variable(v, name))), None)
        if found is not None:
            values[setting] = found
    if values.get("endpoint_url"):
        values["endpoint_url"] = os.environ.get("AWS_ENDPOINT_URL") or values["endpoint_url"]
        _check_loopback(values["endpoint_url"], name)
    known = {"name": name, "endpoint_host": urlsplit(str(values.get("endpoint_url", ""))).netloc}
    values = {key: _filled(value, {**values, **known}, name) for key, value in values.items()}
    given: dict[str, Any] = {"name": name, "origin": origin, "application": application(), "dry_run": dry_run}
    return _record(Environment, values, f"environments.{name}", given)


def _check_loopback(url: str, name: str) -> None:
    """An environment with an endpoint of its own is embedded: it must never reach a real host."""
    if urlsplit(url).hostname not in LOOPBACK:
        raise Refused(f"{name} is embedded and its endpoint must be on this machine, not {url}.")


def _variable(name: str, environment_name: str) -> str | None:
    """An environment variable: NAME_ENV where it is set, else NAME. Empty counts as not set."""
    return os.environ.get(f"{name}_{environment_name.upper()}") or os.environ.get(name) or None


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with an environment's own settings over them, tables merged key by key."""
    merged = {**defaults, **own}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(own.get(key), dict):
            merged[key] = {**value, **own[key]}
    return merged


def _filled(value: Any, values: Mapping[str, Any], name: str, depth: int = 0) -> Any:
    """A value with its `${…}` filled in as far as is known."""
    if isinstance(value, dict):
        return {key: _filled(item, values, name, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values, name, depth) for item in value]
    if not isinstance(value, str):
        return value
    if depth > 5:
        raise Refused(f"{settings_file()}: environments.{name}: {value!r} refers to itself.")

    def replace(match: re.Match[str]) -> str:
        word = match[1]
        if word.isupper():
            return _variable(word, name) or match[0]
        if not isinstance(values.get(word), str):
            raise Refused(f"{settings_file()}: environments.{name}: {match[0]} is no setting of it.")
        return str(_filled(values[word], values, name, depth + 1))

    return REFERENCE.sub(replace, value)


def _settings() -> dict[str, Any]:
    """The settings file as tables. Raises Refused where it is missing or malformed."""
    path = settings_file()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise Refused(f"The settings cannot be read: {path}: {error.strerror}.") from error
    if (path, stamp) not in _parsed:
        _parsed[path, stamp] = _parse(path)
    return _parsed[path, stamp]


_parsed: dict[tuple[Path, int], dict[str, Any]] = {}


def _parse(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"The settings cannot be read: {path}: {error}.") from error
    for key in settings.keys() - {"application", "defaults", "environments"}:
        raise Refused(f"{path}: {key} is not known there.")
    for key in ("application", "environments"):
        if not isinstance(settings.get(key), dict):
            raise Refused(f"{path}: the table [{key}] is missing.")
    if not all(isinstance(table, dict) for table in settings["environments"].values()):
        raise Refused(f"{path}: environments holds something that is not a table.")
    return settings


def _record(kind: type[R], values: Mapping[str, Any], table: str, given: Mapping[str, Any]) -> R:
    """A frozen record from a table: unknown keys, missing keys and wrong types are refused by name."""
    expected = {item.name: item for item in fields(cast(Any, kind)) if item.name not in given}
    for key in values.keys() - expected.keys():
        raise Refused(f"{settings_file()}: {table}.{key} is not a known setting.")
    checked: dict[str, Any] = {}
    for key, item in expected.items():
        if key in values:
            checked[key] = _typed(values[key], item.type, f"{table}.{key}")
    try:
        return kind(**given, **checked)
    except TypeError as error:
        needed = ", ".join(re.findall(r"'(\w+)'", str(error)))
        raise Refused(f"{settings_file()}: {table} needs {needed}.") from error


def _typed(value: Any, kind: Any, key: str) -> Any:
    """A TOML value as the type that a record wants. Raises Refused, naming the key."""
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    wanted = {str: "text", int: "a whole number", bool: "true or false"}.get(kind)
    if wanted:
        if type(value) is not kind:
            raise Refused(f"{settings_file()}: {key} must be {wanted}, not {value!r}.")
        if kind is int and value < 0:
            raise Refused(f"{settings_file()}: {key} must not be negative.")
        return value
    container, wanted = (list, "a list of texts") if get_origin(kind) is tuple else (dict, "a table of texts")
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, container) or not all(isinstance(item, str) for item in items):
        raise Refused(f"{settings_file()}: {key} must be {wanted}, not {value!r}.")
    return tuple(value) if container is list else dict(value)
