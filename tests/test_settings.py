"""The settings: which values they have, where they come from, and what is refused."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.settings import Environment
from tests.conftest import ROOT, Invoke

MINIMAL = """
[application]
name = "app"
repository = "owner/app"
main_branch = "main"
promotion = ["dev"]

[environments.dev]
region = "us-west-2"
registry = "${account}.dkr.ecr.${region}.amazonaws.com"
account = "${AWS_ACCOUNT_ID}"
cluster = "${name}-app"
build_context = "."
site = "https://dev.example.org"
healthcheck = "${site}/health"
service = { name = "app", image = "app", file = "Dockerfile", secrets = '^/${name}/app/\\S+$' }
manager.function = "manager"
manager.qualifier = "1"
frontend.bucket = "${STATIC_S3_BUCKET}"
frontend.folder = "build"
frontend.build = ["true"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file with one environment, selected by ENVIRONMENTS_FILE."""
    path = tmp_path / "settings.toml"
    path.write_text(MINIMAL)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(path))
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dev", ("dev-ecs-manager-docker", "8", "dev-mint-app", "https://dev.mint.cms.gov")),
        ("impl", ("impl-ecs-manager-docker", "7", "impl-mint-app", "https://impl.mint.cms.gov")),
        ("prod", ("prod-ecs-manager-docker", "6", "prod-mint-app", "https://mint.cms.gov")),
    ],
)
def test_settings_hold_the_values_of_the_three_environments(name: str, expected: tuple[str, ...]) -> None:
    """Those that the old workflow used."""
    env = settings.find(name)

    assert (env.manager.function, env.manager.qualifier, env.cluster, env.site) == expected
    assert env.service.secrets.require() == rf"^/{name}/mint-app/\S+$"
    assert env.healthcheck == f"{env.site}/api/v1/healthcheck"
    assert env.database.name.require() == f"mint{name}"


def test_only_dev_can_have_its_database_cleaned() -> None:
    """The others have no cleaning function."""
    real = [settings.environment(name) for name in ("dev", "impl", "prod")]

    assert [bool(env.cleaner.function) for env in real] == [True, False, False]
    assert [env.database.backup for env in real] == [False, True, True]
    assert [env.confirm for env in real] == [False, False, True]


def test_the_frontends_variables_are_those_of_the_old_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """In prod, with values from variables that end in _PROD."""
    for variable in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID"):
        monkeypatch.setenv(f"{variable}_PROD", f"{variable.lower()}-value")
        monkeypatch.setenv(variable, "of another environment")

    assert settings.find("prod").frontend_variables() == {
        "REACT_APP_APP_ENV": "prod",
        "REACT_APP_OKTA_DOMAIN": "https://idm.cms.gov",
        "REACT_APP_OKTA_CLIENT_ID": "okta_client_id-value",
        "REACT_APP_OKTA_SERVER_ID": "okta_server_id-value",
        "REACT_APP_LD_CLIENT_ID": "ld_client_id-value",
        "REACT_APP_OKTA_ISSUER": "https://idm.cms.gov/oauth2/okta_server_id-value",
        "REACT_APP_OKTA_REDIRECT_URI": "https://mint.cms.gov/implicit/callback",
        "REACT_APP_API_ADDRESS": "https://mint.cms.gov/api/v1",
        "REACT_APP_GRAPHQL_ADDRESS": "https://mint.cms.gov/api/graph/query",
    }


@pytest.mark.parametrize(
    ("flag", "variables", "expected"),
    [
        ("impl", {"APP_ENV": "dev"}, ("impl", "--env")),
        (None, {"APP_ENV": "dev"}, ("dev", "APP_ENV")),
        (None, {}, ("local", "the default")),
        ("local", {"CI": "true"}, ("local", "--env")),
    ],
    ids=["the flag comes first", "then APP_ENV", "then local", "local by flag, also in CI"],
)
def test_which_environment(
    flag: str | None,
    variables: dict[str, str],
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert settings.choose(flag) == expected


@pytest.mark.parametrize(
    ("flag", "variables", "said"),
    [
        ("staging", {}, "'staging' is not an environment (from --env): give one of dev, impl, prod, local"),
        ("", {}, "name is empty (from --env)"),
        ("--dry", {}, "'--dry' is not an environment"),
        (None, {"APP_ENV": ""}, "name is empty (from APP_ENV)"),
        (None, {"CI": "true"}, "give --env or set APP_ENV"),
    ],
    ids=["unknown", "empty flag", "a swallowed flag", "empty variable", "none in CI"],
)
def test_an_unknown_environment_is_refused(
    flag: str | None, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message lists the known ones, and says where the name came from."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(Refused, match=r".") as error:
        settings.choose(flag)

    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('qualifier = "1"', "qualifier = ", "line 18"),
        ('qualifier = "1"', 'qualifer = "1"', "environments.dev.manager.qualifer is not a known setting"),
        ('qualifier = "1"', 'via = "ssh"', "environments.dev.manager.via is malformed: 'ssh'"),
        ('qualifier = "1"', "qualifier = 1", "environments.dev.manager.qualifier must be text, not 1"),
        (
            'qualifier = "1"',
            'qualifier = "1"\nmanager.timeout = 0',
            "manager.timeout must be a whole number >= 1, not 0",
        ),
        ('build = ["true"]', 'build = "true"', "environments.dev.frontend.build must be a list, not 'true'"),
        ('build = ["true"]', "build = [1]", "environments.dev.frontend.build[0] must be text"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.keep_releases = -1', "must be a whole number >= 0, not -1"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.max_delete_percent = 101', "number <= 100, not 101"),
        ('build = ["true"]', 'build = ["true"]\ndatabase.backup = 1', "database.backup must be true or false, not 1"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.variables = {a = 1}', "frontend.variables[...] must be text"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.variables = "a"', "frontend.variables must be a table"),
        ('build = ["true"]', 'build = ["true"]\nname = "other"', "environments.dev.name is not a known setting"),
        ('build = ["true"]', 'build = ["true"]\ndry_run = true', "environments.dev.dry_run is not a known setting"),
        ('build = ["true"]', 'build = ["true"]\nstorybook = 1', "environments.dev.storybook must be a table, not 1"),
        ('region = "us-west-2"', 'region = "the moon"', "environments.dev.region is malformed: 'the moon'"),
        ('region = "us-west-2"', 'region = "us-west-2\\n"', "environments.dev.region is malformed"),
        ('site = "https://dev', 'site = "ftp://dev', "environments.dev.site is malformed: 'ftp://dev.example.org'"),
        ('cluster = "${name}-app"', 'cluster = "${CLUSTER}"', "CLUSTER is not set, and cluster of dev needs it"),
        ("${site}/health", "${sight}/health", "${sight} is not a known setting"),
        ("${site}/health", "${frontend}/health", "${frontend} is not a known setting"),
        ("${site}/health", "${site.x}/health", "${site.x} is not a known setting"),
        ("https://dev.example.org", "${site}", "refers to itself"),
        ("[application]", "[applications]", "unknown table applications"),
        ('name = "app"', "", "application needs name"),
        ("[environments.dev]", "[environments]", "environments holds something that is not a table"),
        ("[environments.dev]", "defaults = []\n[environments.dev]", "application.defaults is not a known setting"),
        ("[application]", "defaults = []\n[application]", "defaults is not a table"),
    ],
)
def test_malformed_settings_are_refused_with_line_or_key(file: Path, old: str, new: str, said: str) -> None:
    """The message has the file, and the line or key."""
    file.write_text(MINIMAL.replace(old, new, 1))

    with pytest.raises(Refused) as error:
        settings.find("dev")

    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_a_missing_settings_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its path."""
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(tmp_path / "absent.toml"))

    with pytest.raises(Refused, match=r"absent\.toml: No such file"):
        settings.find("dev")


def test_a_missing_variable_is_refused_with_both_of_its_names() -> None:
    """And with the settings file that needs it."""
    with pytest.raises(Refused) as error:
        settings.find("prod").account.require()

    assert "AWS_ACCOUNT_ID is not set" in str(error.value)
    assert "AWS_ACCOUNT_ID_PROD or AWS_ACCOUNT_ID" in str(error.value)
    assert "environments.toml" in str(error.value)


def test_a_dry_run_shows_a_placeholder_for_a_missing_variable() -> None:
    """So that the rest of the plan can be read."""
    env = settings.find("prod", dry_run=True)

    assert env.registry.require() == "<AWS_ACCOUNT_ID>.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("AWS_ACCOUNT_ID", "12345", lambda env: env.account.require()),
        ("AWS_ACCOUNT_ID", "123456789012\n", lambda env: env.account.require()),
        ("AWS_REGION", "the moon", lambda env: env.region),
        ("STATIC_S3_BUCKET_DEV", "My_Bucket", lambda env: env.frontend.bucket.require()),
    ],
)
def test_a_malformed_value_of_a_variable_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: Callable[[Environment], str]
) -> None:
    """It is checked like a value in the file."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(Refused) as error:
        read(settings.find("dev"))

    assert repr(value) in str(error.value)


def test_a_variable_of_one_environment_comes_before_the_common_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STATIC_S3_BUCKET_DEV before STATIC_S3_BUCKET, and both before the file."""
    file.write_text(MINIMAL.replace("${STATIC_S3_BUCKET}", "from-the-file"))
    assert settings.find("dev").frontend.bucket.require() == "from-the-file"

    monkeypatch.setenv("STATIC_S3_BUCKET", "common")
    assert settings.find("dev").frontend.bucket.require() == "common"

    monkeypatch.setenv("STATIC_S3_BUCKET_DEV", "of-dev")
    assert settings.find("dev").frontend.bucket.require() == "of-dev"


def test_a_variable_of_one_environment_never_stands_in_for_anothers(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a suffix it is that of the environment in APP_ENV; the account is that of the caller."""
    file.write_text(MINIMAL.replace("${STATIC_S3_BUCKET}", "${THE_BUCKET}"))
    monkeypatch.setenv("THE_BUCKET", "of-nobody-knows-which")
    with pytest.raises(Refused, match=r"THE_BUCKET_DEV is not set.* THE_BUCKET is set, but it may be another"):
        settings.find("dev").frontend.bucket.require()

    monkeypatch.setenv("APP_ENV", "prod")
    with pytest.raises(Refused, match="THE_BUCKET_DEV is not set"):
        settings.find("dev").frontend.bucket.require()

    monkeypatch.setenv("APP_ENV", "dev")
    assert settings.find("dev").frontend.bucket.require() == "of-nobody-knows-which"
    monkeypatch.setenv("THE_BUCKET_DEV", "of-dev")
    assert settings.find("dev").frontend.bucket.require() == "of-dev"


def test_a_fault_in_one_environment_stops_a_command_for_another(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All environments are checked before anything runs."""
    file.write_text(MINIMAL + "\n[environments.prod]\nregoin = 1\n")

    with pytest.raises(Refused, match=r"environments\.prod\.regoin"):
        settings.find("dev")


def test_an_embedded_environment_never_reaches_a_real_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_ENDPOINT_URL can only move it to another port of this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9999")
    assert settings.find("local").registry.require() == "127.0.0.1:9999"
    assert settings.find("local").healthcheck == "http://127.0.0.1:9999/api/v1/healthcheck"

    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.us-west-2.amazonaws.com")
    with pytest.raises(Refused, match="must be on this machine"):
        settings.find("local")


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999", "nonsense", "//", "http://[v1.x]/", "\n"])
def test_an_invalid_endpoint_is_refused_by_an_embedded_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other environments can still be read."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    assert settings.find("dev").name == "dev"
    if "127.0.0.1" not in url:
        with pytest.raises(Refused, match=r"must be on this machine|site is malformed"):
            settings.find("local")


def test_an_endpoint_of_the_real_aws_does_not_stop_other_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only local requires an endpoint on this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://vpce-1.s3.us-west-2.vpce.amazonaws.com")

    assert settings.find("dev").name == "dev"


def test_a_missing_setting_is_refused_where_it_is_needed() -> None:
    """The message has the variable and the setting."""
    with pytest.raises(
        Refused, match=r"prod has no storybook\.bucket: set STORYBOOK_S3_BUCKET or storybook\.bucket in"
    ):
        settings.find("prod").storybook.bucket.require()


def test_every_value_is_shown_with_where_it_came_from(invoke: Invoke, tmp_path: Path) -> None:
    """Values from variables may be secret, and are masked."""
    variables = {"STATIC_S3_BUCKET_PROD": "the-bucket", "OKTA_SERVER_ID_PROD": "the-server", "AWS_REGION": "us-east-1"}
    done = invoke("settings", "--env=prod", **variables)

    assert done.returncode == 0, done.stderr
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert shown["manager.qualifier"].split(maxsplit=1) == ["6", "[environments.prod]"]
    assert shown["frontend.folder"].split(maxsplit=1) == [str(tmp_path / "frontend"), "BUILD_PATH"]
    assert shown["manager.timeout"].split(maxsplit=1) == ["930", "[defaults]"]
    assert shown["scan.qualifier"].split(maxsplit=1) == ["7", "[defaults]"]
    assert shown["storybook.folder"].split(maxsplit=1) == ["storybook-static", "the default"]
    assert shown["region"].split(maxsplit=1) == ["us-east-1", "AWS_REGION"]
    assert shown["account"].split(maxsplit=1) == ["<AWS_ACCOUNT_ID>", "[defaults]"]
    assert shown["frontend.bucket"].split(maxsplit=1) == ["***", "STATIC_S3_BUCKET_PROD"]
    issuer = shown["frontend.variables.REACT_APP_OKTA_ISSUER"]
    assert issuer.split(maxsplit=1) == ["https://idm.cms.gov/oauth2/***", "[defaults] with OKTA_SERVER_ID_PROD"]
    assert not {"the-bucket", "the-server"} & set(done.stdout.split())


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
VALUE = st.recursive(
    st.one_of(TEXT, st.integers(), st.booleans(), st.floats(), st.just("${" * 50), st.just("${site}${A}")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


@hypothesis.given(path=st.sampled_from([row[0] for row in settings.rows("dev")]), value=VALUE)
@hypothesis.settings(max_examples=150)
def test_any_value_of_a_setting_is_accepted_or_refused(path: str, value: object) -> None:
    """Never a traceback."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "settings.toml"
        text = (ROOT / "environments.toml").read_text()
        file.write_text(text)
        patch.setenv("ENVIRONMENTS_FILE", str(file))
        tables = copy.deepcopy(settings._settings())
        *parents, last = path.split(".")
        table = tables["environments"]["dev"]
        for key in parents:
            table = table.setdefault(key, {})
        table[last] = value
        patch.setattr(settings, "_settings", lambda: tables)

        with suppress(Refused):
            assert settings.find("dev").name == "dev"
