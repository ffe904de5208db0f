"""An environment without any Lambda, whose migrations no service runs: complete all the same."""

import json
from pathlib import Path

from tests.conftest import ROOT, EmbeddedCloud, Invoke

FUNCTIONS = (
    'function = "${name}-ecs-manager-docker"     # the ecs-manager Lambda\n',
    'manager.qualifier = "$LATEST"\n',
    'function = "mint-app-db-clean-tmp"\nqualifier = "2"\n',
    'function = "ecr-scan-findings"\nqualifier = "7"\n',
)
MORE = """
[environments.local.manager]
via = "ecs"

[environments.local.migrations]
service = "migrations"

[environments.local.tasks.migrations]
family = "local-mint-app-db-migrate"
subnets = ["subnet-1", "subnet-2"]
security_groups = ["sg-1"]
"""


def test_the_whole_pipeline_runs_without_any_function(
    cloud: EmbeddedCloud, invoke: Invoke, build: Path, tmp_path: Path
) -> None:
    """Cleaned, migrated at the revision that was just made, deployed, released."""
    text = (ROOT / "environments.toml").read_text()
    for line in FUNCTIONS:
        assert line in text
        text = text.replace(line, "")
    file = tmp_path / "settings.toml"
    text = text.replace('migrations.file = "examples/backend/Dockerfile.db_migrations"\n', "")
    file.write_text(text + MORE)
    cloud.push("v1", "mint-backend", "mint-db-migrate")
    words = ("deploy", "--tag=v1", "--no-build", f"--build-dir={build}", "--json")

    done = invoke(*words, **cloud.env, ENVIRONMENTS_FILE=str(file))

    assert done.returncode == 0, done.stderr
    assert cloud.requests("lambda") == []
    assert [r["parameters"]["service"] for r in cloud.requests("ecs", "UpdateService")] == ["mint-app"]
    cleaned, migrated = (request["parameters"] for request in cloud.requests("ecs", "RunTask"))
    assert "mint-app-db-clean" in cleaned["taskDefinition"]
    assert migrated["taskDefinition"].endswith("task-definition/local-mint-app-db-migrate:2")
    assert migrated["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-1", "subnet-2"]
    steps = {step["name"]: step["result"] for step in json.loads(done.stdout)["steps"]}
    assert steps["deploy migrations"]["verdict"] == "nothing to verify"
    assert steps["run migrations"]["container"] == "mint-app-db-migrate"
    assert "  | mint-app-db-migrate begins" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1].startswith("local runs v1 (was v0) (")
