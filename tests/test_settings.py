"""The settings: which values they have, where they come from, and what is refused."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from scripts import settings as command
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
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
        (
            'build = ["true"]',
            'build = ["true"]\ndatabase.keep_snapshots = -1',
            "keep_snapshots must be a whole number >= 0",
        ),
        ('build = ["true"]', 'build = ["true"]\nfrontend.max_delete_percent = -1', "number >= 0, not -1"),
        (
            'build = ["true"]',
            'build = ["true"]\nmanager.timeout = "long"',
            "timeout must be a whole number, not 'long'",
        ),
        (
            'build = ["true"]',
            'build = ["true"]\nfrontend.base = "x"',
            "environments.dev.frontend.base is malformed: 'x'",
        ),
        ('build = ["true"]', 'build = ["${A}"]', "A is not set, and frontend.build of dev needs it"),
        (
            'build = ["true"]',
            'build = ["true"]\nservices.x.image = "${A}"',
            "A is not set, and services.x.image of dev",
        ),
        (
            'build = ["true"]',
            'build = ["true"]\nfrontend.cache_control = {"*" = "${A}"}',
            "A is not set, and frontend.cache_control.* of dev needs it",
        ),
        ('build = ["true"]', 'build = ["true"]\nfrontend.max_delete_percent = 101', "number <= 100, not 101"),
        ('build = ["true"]', 'build = ["true"]\ndatabase.backup = 1', "database.backup must be true or false, not 1"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.variables = {a = 1}', "frontend.variables[...] must be text"),
        ('build = ["true"]', 'build = ["true"]\nfrontend.variables = "a"', "frontend.variables must be a table"),
        ('build = ["true"]', 'build = ["true"]\nname = "other"', "environments.dev.name is not a known setting"),
        ('build = ["true"]', 'build = ["true"]\ndry_run = true', "environments.dev.dry_run is not a known setting"),
        ('build = ["true"]', 'build = ["true"]\norigin = "x"', "environments.dev.origin is not a known setting"),
        (
            'build = ["true"]',
            'build = ["true"]\napplication = {}',
            "environments.dev.application is not a known setting",
        ),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the table [application] is missing or empty"),
        ("application = 1\n[environments.dev]", "the table [application] is missing or empty"),
        ("[application]\n[environments.dev]", "the table [application] is missing or empty"),
        ("[application]\nname = 'x'", "the table [environments] is missing or empty"),
        ("[application]\nname = 'x'\n[environments]", "the table [environments] is missing or empty"),
        ("x = '\xff'", "can't decode byte"),
    ],
)
def test_a_file_without_its_tables_is_refused(file: Path, text: str, said: str) -> None:
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(Refused) as error:
        settings.names()

    assert said in str(error.value)


@pytest.mark.parametrize("more", [0, 1])
def test_a_settings_file_has_at_most_a_megabyte(file: Path, more: int) -> None:
    """One that is larger is somebody's mistake."""
    file.write_text(MINIMAL + "#" * ((1 << 20) - len(MINIMAL) + more))

    with pytest.raises(Refused, match=r"larger than 1,048,576 bytes") if more else nullcontext():
        assert settings.names() == ("dev",)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("[environments.dev.a.b.c.d]\nx = 1", False),
        ("[environments.dev.a.b.c.d.e]\nx = 1", True),
        ("[environments.dev.a]\nx = [[[1]]]", False),
        ("[environments.dev.a]\nx = [[[[1]]]]", True),
        (f"x = {'[' * 100_000}", True),
    ],
)
def test_tables_are_nested_eight_deep_at_most(file: Path, text: str, refused: bool) -> None:
    """Lists count too."""
    file.write_text(f"{MINIMAL}\n{text}")

    with pytest.raises(Refused, match="The settings cannot be read") if refused else nullcontext():
        assert settings.names() == ("dev",)


@pytest.mark.parametrize(
    "setting",
    [
        "manager.timeout = 1",
        "database.keep_snapshots = 0",
        "frontend.keep_releases = 0",
        "frontend.max_delete_percent = 0",
        "frontend.max_delete_percent = 100",
        'frontend.base = "/app"',
        'frontend.base = ""',
        'manager.via = "ecs"',
    ],
)
def test_a_number_may_be_the_least_or_the_most(file: Path, setting: str) -> None:
    file.write_text(f"{MINIMAL}\n{setting}")

    path, _, value = setting.partition(" = ")
    assert (path, value.strip('"'), "[environments.dev]") in settings.rows("dev")
    assert settings.find("dev").name == "dev"


def test_what_a_settings_file_may_leave_out(file: Path) -> None:
    """And what holds then."""
    file.write_text(f"{MINIMAL}\n[environments.dev.tasks.report]\nfamily = 'report'\nsubnets = []")

    assert {path: value for path, value, origin in settings.rows("dev") if origin == "the default"} == {
        "cleaner.file": "",
        "cleaner.function": "",
        "cleaner.image": "",
        "cleaner.qualifier": "$LATEST",
        "cleaner.service": "",
        "confirm": "false",
        "database.backup": "false",
        "database.keep_snapshots": "0",
        "database.name": "",
        "endpoint_url": "",
        "frontend.base": "",
        "frontend.distribution": "",
        "frontend.install": "",
        "frontend.keep": "",
        "frontend.keep_releases": "2",
        "frontend.max_delete_percent": "50",
        "frontend.publish": "",
        "manager.timeout": "930",
        "manager.via": "lambda",
        "migrations.containers": "",
        "migrations.file": "",
        "migrations.folder": "",
        "migrations.image": "",
        "migrations.service": "",
        "scan.function": "",
        "scan.qualifier": "$LATEST",
        "service.containers": "",
        "storybook.bucket": "",
        "storybook.folder": "storybook-static",
    }
    assert settings.environment("dev").tasks["report"] == settings.OneOff(family="report", subnets=())
    assert settings.environment("dev").tasks["report"].assign_public_ip is False


DEFAULTS = """
[defaults]
healthcheck = "${site}/other"
frontend.keep = ["a", "b"]
frontend.keep_releases = 3
frontend.variables = { A = "a", B = "b" }
storybook = { bucket = "a-bucket" }
scan.function = "scan"
"""


def test_an_environments_own_settings_come_before_the_defaults(file: Path) -> None:
    """Table by table; a list is replaced whole."""
    own = 'frontend.keep = ["c"]\nfrontend.variables.B = "${name}"'
    file.write_text(MINIMAL.replace("[environments.dev]", f"{DEFAULTS}\n[environments.dev]") + own)
    shown = {path: (value, origin) for path, value, origin in settings.rows("dev")}

    assert {
        path: shown[path] for path in shown if path.startswith(("frontend.keep", "frontend.v", "sc", "st", "h"))
    } == {
        "frontend.keep": ("c", "[environments.dev]"),
        "frontend.keep_releases": ("3", "[defaults]"),
        "frontend.variables.A": ("a", "[defaults]"),
        "frontend.variables.B": ("dev", "[environments.dev]"),
        "healthcheck": ("https://dev.example.org/health", "[environments.dev]"),
        "scan.function": ("scan", "[defaults]"),
        "scan.qualifier": ("$LATEST", "the default"),
        "storybook.bucket": ("a-bucket", "[defaults]"),
        "storybook.folder": ("storybook-static", "the default"),
    }


@pytest.mark.parametrize(
    ("defaults", "own", "said"),
    [
        ("frontend = 1", "", ""),
        ("scan.function = 'a'", "scan = 1", "environments.dev.scan must be a table, not 1"),
        ("scan = 1", "", "environments.dev.scan must be a table, not 1"),
        ("scan = 1", "scan.function = 'a'", ""),
    ],
)
def test_a_table_and_another_value_are_not_mixed(file: Path, defaults: str, own: str, said: str) -> None:
    """The environment's own stands alone."""
    file.write_text(MINIMAL.replace("[environments.dev]", f"[defaults]\n{defaults}\n[environments.dev]") + own)

    with pytest.raises(Refused, match=said) if said else nullcontext():
        assert settings.find("dev").name == "dev"


@pytest.mark.parametrize(("references", "refused"), [(5, False), (6, True)])
def test_settings_refer_to_each_other_five_deep_at_most(file: Path, references: int, refused: bool) -> None:
    """More is taken for a circle."""
    chain = [f'v{number} = "${{frontend.variables.v{number + 1}}}"' for number in range(references)]
    lines = "\n".join([*chain, f'v{references} = "end"'])
    file.write_text(f"{MINIMAL}\n[environments.dev.frontend.variables]\n{lines}")

    with pytest.raises(Refused, match="refers to itself") if refused else nullcontext():
        assert settings.find("dev").frontend_variables()["v0"] == "end"


@pytest.mark.parametrize(
    ("variable", "path", "shown"),
    [
        ("AWS_ACCOUNT_ID", "account", "***"),
        ("AWS_REGION", "region", "us-east-1"),
        ("AWS_DEFAULT_REGION", "region", "us-east-1"),
        ("ECR_REGISTRY", "registry", "***"),
        ("STATIC_S3_BUCKET", "frontend.bucket", "***"),
        ("BUILD_PATH", "frontend.folder", "us-east-1"),
        ("STORYBOOK_S3_BUCKET", "storybook.bucket", "***"),
        ("AWS_ENDPOINT_URL", "endpoint_url", ""),
    ],
)
@pytest.mark.parametrize("suffix", ["", "_DEV"])
def test_a_variable_overrides_its_setting(
    file: Path, variable: str, suffix: str, path: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown where it is no secret. An endpoint is one of embedded environments alone."""
    monkeypatch.delenv("BUILD_PATH")
    monkeypatch.setenv(f"{variable}{suffix}", "us-east-1")

    assert (path, shown, f"{variable}{suffix}" if shown else "the default") in settings.rows("dev")


@pytest.mark.parametrize("variable", ["AWS_ACCOUNT_ID", "AWS_REGION", "AWS_DEFAULT_REGION", "ECR_REGISTRY"])
def test_an_embedded_environment_ignores_what_is_meant_for_the_real_aws(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings.rows("local")
    monkeypatch.setenv(variable, "111111111111")

    assert settings.rows("local") == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_an_embedded_environment_may_be_at_any_name_of_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown where that is."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:9999")
    local = settings.find("local")

    assert (local.endpoint_url, local.endpoint_host) == (f"http://{host}:9999", f"{host}:9999")
    assert ("endpoint_url", f"http://{host}:9999", "AWS_ENDPOINT_URL") in settings.rows("local")
    # It is no setting of the others, which are still checked.
    assert settings.find("dev").endpoint_url == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("", "")),
        ("http://a:1/b", ("a:1", "a")),
        ("https://u:p@a", ("u:p@a", "a")),
        ("//", ("", "")),
        ("http://:1", (":1", "")),
        ("http://[::1", ("", "")),
    ],
)
def test_the_host_of_a_url(url: str, expected: tuple[str, str]) -> None:
    assert settings.host_of(url) == expected


@pytest.mark.parametrize(
    ("account", "variable", "known", "public"),
    [
        ("111111111111", "", "111111111111", True),
        ("${AWS_ACCOUNT_ID}", "222222222222", "222222222222", False),
        ("1${LAST}", "", "", False),
        ("", "", "", False),
    ],
    ids=["of the file", "of a variable", "of a variable that is not set", "empty"],
)
def test_what_is_known_of_a_setting_that_is_not_required(
    file: Path, account: str, variable: str, known: str, public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes from a variable may be a secret."""
    file.write_text(MINIMAL.replace("${AWS_ACCOUNT_ID}", account))
    monkeypatch.setenv("AWS_ACCOUNT_ID", variable)
    found = settings.environment("dev").account

    assert (found.known(), found.is_public(), bool(found)) == (known, public, bool(account))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AWS_ACCOUNT_ID", "Set the environment variable AWS_ACCOUNT_ID_DEV or AWS_ACCOUNT_ID, or change"),
        ("AWS_OTHER", "Set the environment variable AWS_OTHER_DEV or AWS_OTHER, or change"),
        ("STORYBOOK_S3_BUCKET", "variable STORYBOOK_S3_BUCKET_DEV or STORYBOOK_S3_BUCKET, or change"),
        ("OTHER", "Set the environment variable OTHER_DEV, or change database.name in "),
    ],
)
def test_a_missing_variable_is_named_as_it_can_be_set(file: Path, name: str, said: str) -> None:
    """Without a suffix only where that is read for every environment, or is the caller's."""
    file.write_text(f"{MINIMAL}\ndatabase.name = 'x-${{{name}}}'")

    with pytest.raises(Refused) as error:
        settings.find("dev").database.name.require()

    assert str(error.value).startswith(f"{name} is not set, and database.name of dev needs it. ")
    assert said in str(error.value)


def test_a_variable_that_another_environment_lacks_is_no_fault(file: Path) -> None:
    """Only what the chosen one needs has to be set."""
    tables = MINIMAL.partition("[environments.dev]")[2].replace('"${name}-app"', '"${CLUSTER}"')
    file.write_text(f"{MINIMAL}\n[environments.prod]{tables}")

    assert settings.find("dev").cluster == "dev-app"
    for look in (settings.find, settings.environment):
        with pytest.raises(Refused, match="CLUSTER is not set, and cluster of prod needs it"):
            look("prod")
    assert settings.environment("prod", dry_run=True).cluster == "<CLUSTER>"


def test_an_environment_knows_what_chose_it_and_for_what(file: Path) -> None:
    """Nothing chose one that is read beside others."""
    found = [settings.find("dev", dry_run=True), settings.find("dev"), settings.environment("dev")]

    assert [(one.origin, one.dry_run) for one in found] == [("--env", True), ("--env", False), ("", False)]


@pytest.mark.parametrize(
    ("variables", "shown", "origin"),
    [
        ({}, "x-<SECRET>", "[environments.dev]"),
        ({"SECRET_DEV": "hidden"}, "x-***", "[environments.dev] with SECRET_DEV"),
        ({"SECRET": "hidden", "APP_ENV": "dev"}, "x-***", "[environments.dev] with SECRET"),
    ],
    ids=str,
)
def test_what_a_variable_adds_to_a_text_is_not_shown(
    file: Path, variables: dict[str, str], shown: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file.write_text(f"{MINIMAL}\ndatabase.name = 'x-${{SECRET}}'")

    assert ("database.name", shown, origin) in settings.rows("dev")
    assert settings.origins("dev")["database.name"] == origin


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("us-west-2", "us-west-2", "[environments.dev]")),
        ({"AWS_REGION": "us-east-1"}, ("us-west-2", "us-east-1", "AWS_REGION")),
        ({"AWS_DEFAULT_REGION_DEV": "us-east-1"}, ("us-west-2", "us-east-1", "AWS_DEFAULT_REGION_DEV")),
        ({"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "x"}, ("us-west-2", "us-east-1", "AWS_REGION")),
    ],
    ids=str,
)
def test_what_a_variable_has_replaced_is_known(
    file: Path, variables: dict[str, str], expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert settings.overridden("dev", "region") == expected


def test_an_endpoint_of_the_real_aws_is_not_shown_for_an_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is chosen, which is refused."""
    before = settings.rows("local")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.us-west-2.amazonaws.com")

    assert settings.rows("local") == before


@pytest.mark.parametrize(("variable", "repository"), [("", "owner/app"), ("somebody/fork", "somebody/fork")])
def test_the_repository_is_that_of_the_workflow(
    file: Path, variable: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere that of the settings."""
    monkeypatch.setenv("GITHUB_REPOSITORY", variable)

    assert settings.find("dev").application.on_github == repository


def test_settings_with_the_same_text_are_equal() -> None:
    """Whatever they are called."""
    one = settings.environment("dev").service.secrets

    assert one == settings.environment("dev").service.secrets
    assert one != settings.environment("prod").service.secrets
    assert one != one.require()


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


def test_the_report_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """One row for each, a dash for an empty value, and the file that they are from."""
    run = Run("settings", settings.environment("dev"))

    found = command.settings(run)

    rows = settings.rows("dev")
    assert found == command.Settings(str(settings.settings_file()), tuple(command.Row(*row) for row in rows))
    assert found.line() == f"{len(rows)} settings from {settings.settings_file()}"
    assert list(found.table()) == [("SETTING", "VALUE", "FROM"), *((a, b or "-", c) for a, b, c in rows)]
    assert "" in [row[1] for row in rows]
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


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
