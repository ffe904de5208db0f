"""docs/migrating.md has a row for every part of the old workflows."""

import re

import pytest

from tests.conftest import ROOT
from tests.github import load

PAGE = (ROOT / "docs" / "migrating.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
JOBS = "anti_virus pre_deps lint client_typecheck client_test storybook_build build_db_migrate_image server_test"
JOBS += " build_server_image e2e_tests deploy_dev deploy_impl deploy_prod deploy_storybook_dev"
FILES = "rescan_deployed_image.yml build_db_clean_image.yml deploy_dev.yml"
VARIABLES = "IMAGE_TAG DOCKER_BUILDKIT SLACK_WEBHOOK_URL AWS_ACCOUNT_ID AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"
VARIABLES += " AWS_ROLE_TO_ASSUME_DEV ECR_REGISTRY STATIC_S3_BUCKET_DEV STORYBOOK_S3_BUCKET_DEV OKTA_CLIENT_ID_DEV"
VARIABLES += " OKTA_SERVER_ID_DEV LD_CLIENT_ID_DEV DOCKERHUB_USERNAME DOCKERHUB_TOKEN OKTA_TEST_USERNAME"
VARIABLES += " OKTA_TEST_PASSWORD OKTA_TEST_SECRET AWS_SES_SOURCE_ARN MINT_APP_NODE_VERSION MINT_APP_GO_VERSION"


@pytest.mark.parametrize("part", [*JOBS.split(), *FILES.split(), *VARIABLES.split()])
def test_every_part_has_a_row(part: str) -> None:
    """Jobs, workflows, variables and secrets."""
    assert [row for row in ROWS if f"`{part}`" in row[0]] != []


def test_what_was_left_out_has_a_reason() -> None:
    """After a colon."""
    left = [row for row in ROWS if "left out" in row[-1]]

    assert left
    assert [row for row in left if not re.search(r"left out: \w+", row[-1])] == []


def test_every_new_job_and_workflow_exists() -> None:
    """Those that the last column names."""
    workflows = ROOT / ".github" / "workflows"
    jobs = {name for path in workflows.glob("*.yml") for name in load(path)["jobs"]}
    files = {path.name for path in workflows.glob("*.yml")}
    named = {name for row in ROWS if len(row) == 3 for name in re.findall(r"`([a-z_]+(?:\.yml)?)`", row[-1])}

    assert {"build.yml", "deploy.yml", "operate.yml", "rescan.yml", "cleaner.yml"} <= named
    assert named - jobs - files == {"cleaner"}
