"""The migration as one command, with its output, whether it succeeds or fails."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import migrate_database
from scripts.deploy_service import Deployed
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.waiting import Clock
from scripts.run_task import TaskRun
from tests.conftest import ROOT, EmbeddedCloud, Invoke

CLUSTER, MIGRATE = "local-mint-app", "mint-app-db-migrate"
TASK = "tests"


def migrate(invoke: Invoke, cloud: EmbeddedCloud) -> Any:
    """Migrate with the version that the embedded AWS is seeded with."""
    return invoke("migrate-database", "--tag=v0", **cloud.env)


def change(cloud: EmbeddedCloud, **fields: Any) -> None:
    """Give the migrations' service other fields in its own container."""
    ecs = cloud.client("ecs")
    own = ecs.describe_services(cluster=CLUSTER, services=[MIGRATE])["services"][0]
    old = ecs.describe_task_definition(taskDefinition=own["taskDefinition"])["taskDefinition"]
    first, *others = old["containerDefinitions"]
    new = ecs.register_task_definition(family=old["family"], containerDefinitions=[{**first, **fields}, *others])
    arn = new["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=CLUSTER, service=MIGRATE, taskDefinition=arn)


def test_a_migration_is_deployed_then_run_and_its_output_is_shown(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Two calls of the manager, in this order, and one task."""
    done = migrate(invoke, cloud)

    assert done.returncode == 0, done.stderr
    assert [r["parameters"]["command"] for r in cloud.requests("lambda", "Invoke")] == ["deploy", "runtask"]
    assert f"  | {MIGRATE} begins\n  | {MIGRATE} is done\n" in done.stderr
    assert f"{MIGRATE} ended with exit code 0" in done.stderr.splitlines()[-1]


def test_only_the_output_of_this_run_is_shown(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Not that of earlier tasks."""
    migrate(invoke, cloud)

    assert migrate(invoke, cloud).stderr.count(f"  | {MIGRATE} begins") == 1


def test_the_output_of_a_failed_migration_is_shown(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """The exit code and the last line are those of the failure."""
    change(cloud, environment=[{"name": "EXIT_CODE", "value": "3"}, {"name": "LOG", "value": "::error::bad column"}])

    done = migrate(invoke, cloud)

    assert done.returncode == 1
    assert "  | ::error::bad column" in done.stderr
    assert "ended with exit code 3" in done.stderr
    assert "Done: deploy the migrations. Failed: migrate the database. Not done: nothing." in done.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [("AccessDeniedException", "logs cannot be read: AWS refused reading the log group /ecs/local-mint-app")],
)
def test_logs_that_cannot_be_read_do_not_change_the_outcome(
    cloud: EmbeddedCloud, invoke: Invoke, code: str, said: str
) -> None:
    """The reason is shown, and the migration is a success."""
    cloud.fail(service="logs", operation="FilterLogEvents", status=400, code=code, times=9)

    done = migrate(invoke, cloud)

    assert done.returncode == 0, done.stderr
    assert said in done.stderr


def test_a_migration_that_does_not_log_to_cloudwatch_is_reported(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """By its log driver."""
    change(cloud, logConfiguration={"logDriver": "splunk"})

    done = migrate(invoke, cloud)

    assert done.returncode == 0, done.stderr
    assert "the migration does not log to CloudWatch" in done.stderr


def test_a_dry_run_shows_both_payloads_and_reads_no_logs(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """It only reads, and nothing is called."""
    done = invoke("migrate-database", "--tag=v0", "--dry-run", **cloud.env)

    assert done.returncode == 0, done.stderr
    assert '"command": "deploy"' in done.stderr
    assert '"command": "runtask"' in done.stderr
    sent = {request["operation"] for request in cloud.requests()}
    assert {one for one in sent if not one.startswith(("Describe", "Get", "GET", "List", "Batch"))} == set()
    assert cloud.requests("logs") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrate-database", "--digest="], "--digest must be sha256:"),
        (["migrate-database", "--tag=v0", f"--digest=sha256:{'a' * 64}"], "--digest and --tag exclude each other"),
        (["migrate-database", "--tag=v0", "--image-uri=r.io/a:v0"], "--image-uri is the full name of the image"),
        *(
            (["run-task", "--service", odd], "is not the name of an ECS service")
            for odd in ("", "a\n::error::b", "a\n")
        ),
        (["run-task", "--function-name", "f\n"], "is not the name of a Lambda function"),
        (["run-task", "--qualifier", "<"], "is not a version or an alias"),
    ],
)
def test_invalid_flags_are_refused_before_any_request(
    words: list[str], said: str, cloud: EmbeddedCloud, invoke: Invoke
) -> None:
    """With exit code 2, whichever step they belong to."""
    done = invoke(*words, **cloud.env, GITHUB_SHA="v0")

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    # The receipt says that it was refused.
    assert {request["service"] for request in cloud.requests()} <= {"s3"}


def test_the_logs_are_read_where_the_container_writes_them(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Its log configuration may have another region than the environment."""
    options = {"awslogs-group": "/far", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "migrate"}
    change(cloud, logConfiguration={"logDriver": "awslogs", "options": options})

    done = migrate(invoke, cloud)

    assert done.returncode == 0, done.stderr
    assert f"  | {MIGRATE} is done" in done.stderr


@pytest.mark.parametrize(("words", "via"), [((), "lambda"), (("--via=ecs",), "ecs"), (("--via=lambda",), "lambda")])
def test_both_steps_go_the_same_way(words: tuple[str, ...], via: str, invoke: Invoke) -> None:
    """Through the Lambda, or straight to ECS."""
    done = invoke("migrate-database", "--env=dev", "--tag=v1", *words, "--dry-run", "--json")

    plans = [step["plan"] for step in json.loads(done.stdout)["steps"]]
    calls = [plan["invocation"] for plan in plans if "invocation" in plan]
    assert [(call["payload"]["command"], call["via"]) for call in calls] == [("deploy", via), ("runtask", via)]


def write(cloud: EmbeddedCloud, family: str, stream: str = "1") -> None:
    """One line in the log of the newest revision of a task definition that `defined` has made."""
    logs = cloud.client("logs")
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=f"/{family}")
    name = f"p/app/{stream}"
    logs.create_log_stream(logGroupName=f"/{family}", logStreamName=name)
    event = {"timestamp": int(time.time() * 1000), "message": f"said by {family}"}
    logs.put_log_events(logGroupName=f"/{family}", logStreamName=name, logEvents=[event])


def defined(cloud: EmbeddedCloud, family: str) -> str:
    """The ARN of a new task definition, whose container logs to a group of its own."""
    options = {"awslogs-group": f"/{family}", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "p"}
    container = {"name": "app", "image": "a", "logConfiguration": {"logDriver": "awslogs", "options": options}}
    made = cloud.client("ecs").register_task_definition(family=family, containerDefinitions=[container])
    return str(made["taskDefinition"]["taskDefinitionArn"])


@pytest.mark.parametrize(
    ("service", "deployed", "shown"),
    [
        (MIGRATE, True, "deployed"),
        (MIGRATE, False, "running"),
        (TASK, True, "deployed"),
        (TASK, False, "newest"),
        ("gone", True, "deployed"),
    ],
)
def test_the_log_is_that_of_what_ran(
    service: str, deployed: bool, shown: str, cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """The deployed revision if it is known, else what the service runs, or the newest of a task without a service."""
    arns = {family: defined(cloud, family) for family in ("deployed", "running", "newest")}
    cloud.client("ecs").update_service(cluster=CLUSTER, service=MIGRATE, taskDefinition=arns["running"])
    local = settings.environment("local")
    local = replace(
        local,
        migrations=replace(local.migrations, service=service),
        tasks={TASK: settings.OneOff(family="newest", subnets=())},
    )

    with migrate_database.showing_logs(local, arns["deployed"] if deployed else ""):
        for family in arns:
            write(cloud, family)

    assert [line for line in capsys.readouterr().err.splitlines() if "said by" in line] == [f"  | said by {shown}"]


@pytest.mark.parametrize("revision", ["arn:aws:ecs:r:1:task-definition/t:7", ""], ids=["known", "not known"])
def test_of_a_task_without_a_service_the_deployed_revision_is_run(revision: str) -> None:
    """If it is not known, the newest one of its family."""
    dev = settings.environment("dev", dry_run=True)
    task = settings.OneOff(family="t", subnets=())
    dev = replace(dev, migrations=replace(dev.migrations, service=TASK), tasks={TASK: task})
    run = Run("migrate-database", dev, dry_run=True)
    deployed = Deployed(TASK, "c", "", "", revision, "", "", 0.0) if revision else None

    migrate_database.migrate(run, deployed)

    (step,) = run.steps
    assert isinstance(step.plan, TaskRun)
    body = step.plan.invocation.payload["body"]
    assert (body["family"], body.get("task_definition", "")) == ("t", revision)


@pytest.mark.parametrize(
    ("after", "said"),
    [(1.0, "  | said by slow"), (4.0, "  | said by slow"), (60.0, "the migration has logged nothing")],
)
def test_a_line_that_cloudwatch_shows_late_is_waited_for(
    after: float, said: str, cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """For some seconds, and not as long as somebody else's log takes."""
    revision, now = defined(cloud, "slow"), 0.0
    cloud.client("logs").create_log_group(logGroupName="/slow")

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now - seconds < after <= now:
            write(cloud, "slow")

    with migrate_database.showing_logs(settings.environment("local"), revision, clock=Clock(lambda: now, sleep)):
        pass

    assert said in capsys.readouterr().err
    assert now <= 10


@pytest.mark.parametrize(("error", "shown"), [(DeployError("it broke"), True), (Refused("not allowed"), False)])
def test_after_a_failure_the_log_is_shown_and_after_a_refusal_nothing_has_run(
    error: DeployError, shown: bool, cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both reach the caller as they are."""
    revision = defined(cloud, "failing")

    def ran() -> None:
        with migrate_database.showing_logs(settings.environment("local"), revision):
            write(cloud, "failing")
            raise error

    with pytest.raises(DeployError) as raised:
        ran()

    assert raised.value is error
    assert ("said by failing" in capsys.readouterr().err) == shown


def test_an_environment_that_does_not_migrate_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    """The message names the setting."""
    file = tmp_path / "settings.toml"
    service = 'service = "mint-app-db-migrate"\n'
    file.write_text((ROOT / "environments.toml").read_text().replace(service, 'service = ""\n'))

    done = invoke("migrate-database", "--env=dev", "--tag=v1", "--dry-run", ENVIRONMENTS_FILE=str(file))

    assert done.returncode == 2
    assert "dev has no migrations.service in the settings: set it to migrate the database." in done.stderr
