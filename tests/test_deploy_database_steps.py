"""What `deploy` does to the database first: a snapshot or a cleaning, as the settings say."""

import json
from pathlib import Path

import pytest

from tests.conftest import EmbeddedCloud, Invoke

SETTINGS = (Path(__file__).parent.parent / "environments.toml").read_text()


@pytest.mark.parametrize(
    ("environment", "first"),
    [("dev", "run mint-app-db-clean"), ("impl", "back up the database"), ("prod", "back up the database")],
)
def test_the_database_is_changed_first(environment: str, first: str, invoke: Invoke) -> None:
    """After the builds, which change nothing; then come the migrations, the service and the frontend."""
    words = ("deploy", f"--env={environment}", "--tag=v1", "--dry-run", "--json")
    done = invoke(*words, AWS_ACCOUNT_ID="123456789012")

    assert done.returncode == 0, done.stderr
    names = [step["name"] for step in json.loads(done.stdout)["steps"]]
    assert names[:7] == [
        "build the frontend",
        first,
        "deploy mint-app-db-migrate",
        "watch mint-app-db-migrate",
        "run mint-app-db-migrate",
        "deploy mint-app",
        "watch mint-app",
    ]


def test_without_a_snapshot_nothing_is_deployed(cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path) -> None:
    """It stops before the migrations, and says what was not done."""
    settings = tmp_path / "settings.toml"
    head = "[environments.local]\n"
    settings.write_text(SETTINGS.replace(head, head + "database.backup = true\n"))
    cloud.fail(service="rds", operation="CreateDBSnapshot", status=400, code="SnapshotQuotaExceeded")

    done = invoke("deploy", "--tag=v0", **cloud.env, ENVIRONMENTS_FILE=str(settings), DOCKER_HOST="unix:///nowhere")

    assert done.returncode == 1, done.stderr
    assert "back up the database failed: AWS refused creating the snapshot mintlocal-" in done.stderr
    assert "Failed: back up the database. Not done: clean the database, deploy the migrations" in done.stderr
    assert cloud.requests("lambda", "Invoke") == []
