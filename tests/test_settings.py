"""The settings: what is read, where it is looked for, and everything that is refused."""

from pathlib import Path

import pytest

from scripts.frame import settings
from scripts.frame.errors import Refused

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
service = "app"
secrets = '^/${name}/app/\\S+$'
image = "app"
image_file = "Dockerfile"
build_context = "."
function = "manager"
qualifier = "1"
site = "https://dev.example.org"
healthcheck = "${site}/health"
build_dir = "build"
build = ["true"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file with one environment, chosen by ENVIRONMENTS_FILE."""
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
    """Function, version, cluster and site are those that the old workflow used."""
    env = settings.find(name)

    assert (env.function, env.qualifier, env.cluster, env.site) == expected
    assert env.secrets == rf"^/{name}/mint-app/\S+$"
    assert env.healthcheck == f"{env.site}/api/v1/healthcheck"
    assert env.database == f"mint{name}"


def test_only_dev_can_have_its_database_cleaned() -> None:
    """The clean function is set where a database may be cleaned, and never in prod."""
    real = [settings.environment(name) for name in ("dev", "impl", "prod")]

    assert [bool(env.clean_function) for env in real] == [True, False, False]
    assert [env.backup for env in real] == [False, True, True]
    assert [env.confirm for env in real] == [False, False, True]


def test_the_frontend_sees_what_the_old_script_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build's variables in prod, with values from the variables that end in _PROD."""
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
    ids=["the flag wins", "then APP_ENV", "then local", "local by name also in CI"],
)
def test_which_environment(
    flag: str | None,
    variables: dict[str, str],
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flag, else APP_ENV, else local."""
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
def test_an_environment_that_is_not_known_is_refused(
    flag: str | None, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the list of the known ones and where the name came from."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(Refused, match=r".") as error:
        settings.choose(flag)

    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('qualifier = "1"', "qualifier = ", "line 19"),
        ('qualifier = "1"', 'qualifer = "1"', "environments.dev.qualifer is not a known setting"),
        ('qualifier = "1"', "", "environments.dev needs qualifier"),
        ('qualifier = "1"', "qualifier = 1", "environments.dev.qualifier must be text, not 1"),
        ('build = ["true"]', 'build = "true"', "environments.dev.build must be a list of texts"),
        ('build = ["true"]', "build = [1]", "environments.dev.build must be a list of texts"),
        ('build = ["true"]', 'build = ["true"]\nkeep_releases = -1', "keep_releases must not be negative"),
        ('build = ["true"]', 'build = ["true"]\nbackup = 1', "backup must be true or false"),
        ('build = ["true"]', 'build = ["true"]\nfrontend = {a = 1}', "frontend must be a table of texts"),
        ("${site}/health", "${sight}/health", "${sight} is no setting of it"),
        ("https://dev.example.org", "${site}", "refers to itself"),
        ("[application]", "[applications]", "applications is not known there"),
        ('name = "app"', "", "application needs name"),
        ("[environments.dev]", "[environments]", "environments holds something that is not a table"),
    ],
)
def test_malformed_settings_are_refused_with_line_or_key(file: Path, old: str, new: str, said: str) -> None:
    """Whatever is wrong in the file, the message names the file and the line or key."""
    file.write_text(MINIMAL.replace(old, new, 1))

    with pytest.raises(Refused) as error:
        settings.find("dev")

    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_a_settings_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ENVIRONMENTS_FILE names the file that cannot be read."""
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(tmp_path / "absent.toml"))

    with pytest.raises(Refused, match=r"absent\.toml: No such file"):
        settings.find("dev")


def test_a_missing_variable_is_named_with_where_it_is_looked_for() -> None:
    """The message names both variables and the settings file."""
    with pytest.raises(Refused) as error:
        settings.find("prod").require("account")

    assert "AWS_ACCOUNT_ID is not set" in str(error.value)
    assert "AWS_ACCOUNT_ID_PROD and AWS_ACCOUNT_ID" in str(error.value)
    assert "environments.toml" in str(error.value)


def test_a_dry_run_shows_a_missing_variable_in_its_place() -> None:
    """So that the rest of the plan can be read without it."""
    env = settings.find("prod", dry_run=True)

    assert env.require("registry") == "<AWS_ACCOUNT_ID>.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("AWS_ACCOUNT_ID", "12345", "account"),
        ("AWS_REGION", "the moon", "region"),
        ("STATIC_S3_BUCKET_DEV", "My_Bucket", "bucket"),
    ],
)
def test_a_malformed_value_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: str
) -> None:
    """A value from a variable is checked like one from the file."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(Refused) as error:
        settings.find("dev").require(setting)

    assert repr(value) in str(error.value)


def test_a_variable_of_one_environment_comes_before_the_common_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STATIC_S3_BUCKET_DEV before STATIC_S3_BUCKET, and both before the file."""
    file.write_text(MINIMAL + 'bucket = "from-the-file"\n')
    assert settings.find("dev").require("bucket") == "from-the-file"

    monkeypatch.setenv("STATIC_S3_BUCKET", "common")
    assert settings.find("dev").require("bucket") == "common"

    monkeypatch.setenv("STATIC_S3_BUCKET_DEV", "of-dev")
    assert settings.find("dev").require("bucket") == "of-dev"


def test_a_fault_in_one_environment_stops_a_command_for_another(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is checked before anything runs, prod's row too."""
    file.write_text(MINIMAL + "\n[environments.prod]\nregoin = 1\n")

    with pytest.raises(Refused, match=r"environments\.prod\.regoin"):
        settings.find("dev")


def test_an_embedded_environment_never_reaches_a_real_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_ENDPOINT_URL moves it to another port of this machine, and nowhere else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9999")
    assert settings.find("local").registry == "127.0.0.1:9999"
    assert settings.find("local").healthcheck == "http://127.0.0.1:9999/api/v1/healthcheck"

    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.us-west-2.amazonaws.com")
    with pytest.raises(Refused, match="must be on this machine"):
        settings.find("local")
