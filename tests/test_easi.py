"""EASi can use the commands with nothing but its own settings."""

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke

EASI = str(Path(__file__).parent / "easi.toml")


def dry_run(invoke: Invoke, *words: str, **env: str) -> dict[str, object]:
    """The plan of a command with EASi's settings."""
    account = {"AWS_ACCOUNT_ID": "123456789012", "GITHUB_SHA": "abc123", "ENVIRONMENTS_FILE": EASI}
    done = invoke(*words, "--dry-run", "--json", **account, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["steps"][0]["plan"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("env", "qualifier"), [("dev", "9"), ("impl", "8"), ("prod", "7")])
def test_deploying_its_service_sends_its_payload(env: str, qualifier: str, invoke: Invoke) -> None:
    """Cluster, service, secrets, image and function are those of EASi."""
    assert dry_run(invoke, "deploy-service", f"--env={env}")["invocation"] == {
        "function": f"{env}-ecs-manager-docker",
        "qualifier": qualifier,
        "via": "lambda",
        "payload": {
            "command": "deploy",
            "body": {
                "cluster_id": f"{env}-easi-app",
                "service_ids": ["easi-app"],
                "secrets": [f"^/{env}/easi-app/\\S+$"],
                "image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/easi-backend:abc123",
            },
        },
    }


def test_its_migration_gets_no_secrets(invoke: Invoke) -> None:
    """Only the application's own service gets secrets."""
    plan = dry_run(invoke, "deploy-service", "--env=dev", "--service=easi-app-db-migrate")

    assert plan["invocation"]["payload"]["body"] == {  # type: ignore[index]
        "cluster_id": "dev-easi-app",
        "service_ids": ["easi-app-db-migrate"],
        "image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/easi-db-migrate:abc123",
    }


def test_its_migration_task_runs_in_its_cluster(invoke: Invoke) -> None:
    """By default, run-task runs the migrations' service."""
    assert dry_run(invoke, "run-task", "--env=impl")["invocation"] == {
        "function": "impl-ecs-manager-docker",
        "qualifier": "8",
        "via": "lambda",
        "payload": {
            "command": "runtask",
            "body": {"cluster_id": "impl-easi-app", "service_id": "easi-app-db-migrate"},
        },
    }


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ("dev", "https://dev.easi.cms.gov/api/v1/healthcheck"),
        ("prod", "https://easi.cms.gov/api/v1/healthcheck"),
    ],
)
def test_its_healthcheck_has_its_url(env: str, url: str, invoke: Invoke) -> None:
    """In prod the host has no prefix."""
    assert dry_run(invoke, "healthcheck", f"--env={env}")["url"] == url
