"""Which databases may be cleaned: never that of production, whatever the settings say."""

import json
from pathlib import Path

import pytest

from scripts import clean_database
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from scripts.run_task import TaskRun
from tests.conftest import EmbeddedCloud, Invoke
from tests.stand_in import Reply, answering, stand_in

SETTINGS = (Path(__file__).parent.parent / "environments.toml").read_text()
CLEAN = 'cleaner = { function = "f", service = "s" }\n'
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ACCOUNT_ID": "123456789012"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that a test writes."""
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(path))
    return path


def allow(environment: str, *lines: str) -> str:
    """Write settings that allow cleaning one environment's database, with more lines in it."""
    head = f"[environments.{environment}]\n"
    return SETTINGS.replace(head, head + CLEAN + "\n".join(lines) + "\n")


def test_dev_is_cleaned_by_its_own_function(invoke: Invoke) -> None:
    """At the qualifier in the settings."""
    done = invoke("clean-database", "--env=dev", "--dry-run", "--json")

    (step,) = json.loads(done.stdout)["steps"]
    assert step["plan"]["service"] == "mint-app-db-clean"
    assert step["plan"]["invocation"]["function"] == "mint-app-db-clean-tmp"
    assert step["plan"]["invocation"]["qualifier"] == "2"


@pytest.mark.parametrize(
    ("cleaner", "said"),
    [
        ("", "impl cannot be cleaned: its settings have no cleaner.function"),
        ('cleaner = { function = "f" }', "impl cannot be cleaned: its settings have no cleaner.service"),
        ('manager.via = "ecs"', "impl cannot be cleaned: its settings have no cleaner.service"),
        ('cleaner = { service = "s" }', "impl cannot be cleaned: its settings have no cleaner.function"),
    ],
)
def test_without_a_function_and_a_service_nothing_is_cleaned(cleaner: str, said: str, file: Path) -> None:
    """As in impl."""
    head = "[environments.impl]\n"
    file.write_text(SETTINGS.replace(head, f"{head}{cleaner}\n"))

    with pytest.raises(Refused) as refused:
        clean_database.check(settings.environment("impl"))

    assert str(refused.value) == f"The database of {said}."


@pytest.mark.parametrize(
    ("environment", "text", "said"),
    [
        ("prod", allow("prod"), "by its name it is production"),
        (
            "live",
            allow("prod").replace("environments.prod]", "environments.live]").replace('"prod"]', '"live"]'),
            "last environment in the order of promotion",
        ),
        ("impl", allow("impl", "confirm = true"), "it needs a person's confirmation"),
        ("Production", allow("prod").replace("environments.prod]", "environments.Production]"), "by its name"),
        ("impl", allow("impl", 'cluster = "prod-mint-app"'), "prod has the same cluster or database"),
        ("impl", allow("impl", 'database.name = "mintprod"'), "prod has the same cluster or database"),
    ],
    ids=[
        "named prod",
        "last in promotion",
        "needs a confirmation",
        "another case",
        "prod's cluster",
        "prod's database",
    ],
)
def test_production_is_never_cleaned_whatever_the_settings_say(
    environment: str, text: str, said: str, file: Path
) -> None:
    """Even if they have a function for it."""
    file.write_text(text)

    with pytest.raises(Refused, match=said):
        clean_database.check(settings.environment(environment))


def test_variables_of_other_environments_need_not_be_set(file: Path) -> None:
    """Only their clusters and databases are compared."""
    head = "[environments.prod]\nsite = "
    assert head in SETTINGS
    file.write_text(SETTINGS.replace(head, f'{head}"https://${{HOST_OF_PROD}}" # '))

    clean_database.check(settings.environment("dev"))
    with pytest.raises(Refused, match="HOST_OF_PROD"):
        settings.environment("prod")


def test_the_command_refuses_prod_before_any_request(invoke: Invoke, file: Path) -> None:
    """Exit code 2, even with --yes, in CI, and with a function in the settings."""
    file.write_text(allow("prod"))
    with stand_in(answering(Reply(b"{}"))) as aws:
        done = invoke("clean-database", "--env=prod", "--yes", CI="true", AWS_ENDPOINT_URL=aws.url, **KEYS)

    assert (done.returncode, aws.requests) == (2, [])
    assert done.stderr.splitlines()[-1].startswith("The database of prod is never cleaned")


def test_the_command_runs_the_cleaning_task(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Once, through its own function at its own qualifier."""
    done = invoke("clean-database", **cloud.env)

    assert done.returncode == 0, done.stderr
    (call,) = cloud.requests("lambda", "Invoke")
    assert "mint-app-db-clean-tmp" in call["path"]
    assert call["query"]["Qualifier"] == "2"
    assert call["parameters"]["body"]["service_id"] == "mint-app-db-clean"
    assert "mint-app-db-clean ended with exit code 0" in done.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", False),
        ('cleaner = { service = "s" }', False),
        ('manager.via = "ecs"', False),
        ('manager.via = "ecs"\ncleaner = { service = "s" }', True),
        ('cleaner = { function = "f" }', True),
    ],
)
def test_which_settings_have_the_database_cleaned_before_a_deployment(lines: str, expected: bool, file: Path) -> None:
    """A function, or straight to ECS and a service."""
    head = "[environments.impl]\n"
    file.write_text(SETTINGS.replace(head, f"{head}{lines}\n"))

    assert clean_database.is_set(settings.environment("impl")) is expected


@pytest.mark.parametrize(
    ("lines", "function", "qualifier", "via"),
    [
        ('manager.via = "ecs"\ncleaner = { service = "s" }', "", "", "ecs"),
        ('manager.via = "ecs"\ncleaner = { service = "s", function = "f", qualifier = "3" }', "f", "3", "lambda"),
        ('cleaner = { service = "s", function = "f", qualifier = "3" }', "f", "3", "lambda"),
    ],
)
def test_the_task_of_the_cleaner_is_run_and_no_other(
    lines: str, function: str, qualifier: str, via: str, file: Path
) -> None:
    """Straight in ECS only if the cleaner has no function."""
    head = "[environments.impl]\n"
    file.write_text(SETTINGS.replace(head, f"{head}{lines}\n"))
    run = Run("clean-database", settings.environment("impl", dry_run=True), dry_run=True)

    clean_database.clean_database(run)

    (step,) = run.steps
    assert isinstance(step.plan, TaskRun)
    assert step.plan.service == step.plan.invocation.payload["body"]["service_id"] == "s"
    made = step.plan.invocation
    assert (made.function, made.qualifier, made.via) == (function, qualifier, via)


def test_without_a_function_the_cleaning_task_runs_straight_in_ecs(
    cloud: EmbeddedCloud, invoke: Invoke, file: Path
) -> None:
    """No Lambda is called."""
    text = SETTINGS.replace(
        """
function = "mint-app-db-clean-tmp"
qualifier = "2"
service = "mint-app-db-clean"

[environments.local.frontend]""",
        """
service = "mint-app-db-clean"

[environments.local.manager]
via = "ecs"

[environments.local.frontend]""",
    )
    assert text != SETTINGS
    file.write_text(text.replace('manager.qualifier = "$LATEST"\n', ""))

    done = invoke("clean-database", **cloud.env, ENVIRONMENTS_FILE=str(file))

    assert done.returncode == 0, done.stderr
    assert cloud.requests("lambda") == []
    assert len(cloud.requests("ecs", "RunTask")) == 1
