"""What the old scripts and workflows of an application say, and the settings that are written from it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from scripts.edges import old_scripts
from scripts.frame import settings
from tests.conftest import ROOT, git

# Small scripts and workflows that say the same as an application's, in the same words for what is read. First those
# that call the ecs-manager Lambda.
OF_LAMBDA = {
    "scripts/deploy_service": 'cluster="$APP_ENV-shop-app"\nbody.secrets = x\n',
    "scripts/release_static": """
case "$APP_ENV" in
  "dev")
    SHOP_URL="https://dev.shop.example.org"
    export REACT_APP_OKTA_DOMAIN="https://test.okta.example.org"
    export REACT_APP_OKTA_CLIENT_ID="$OKTA_CLIENT_ID_DEV"
    ;;
  "prod")
    SHOP_URL="https://shop.example.org"
    export REACT_APP_OKTA_DOMAIN="https://okta.example.org"
    export REACT_APP_OKTA_CLIENT_ID="$OKTA_CLIENT_ID_PROD"
    ;;
esac
export REACT_APP_APP_ENV="$APP_ENV"
export REACT_APP_API_ADDRESS="${SHOP_URL}/api/v1"
""",
    "scripts/rds-snapshot-app-db": "environment=$APP_ENV\ndb_instance_identifier=shop$environment\n",
    "scripts/github-action-announce-broken-branch": '"channel": "#shop-alerts",\n',
    ".github/workflows/build.yml": """
on:
  push:
    branches:
      - trunk
jobs:
  build_server_image:
    steps:
      - run: ./scripts/check_ecr_findings "shop-backend" "$IMAGE_TAG" "4"
        with: {aws-region: us-east-2}
  deploy_dev:
    steps:
      - with:
          aws-region: us-east-2
      - run: |
          ./scripts/db_lambda_invoke "shop-app-db-clean-tmp" "3" "shop-app-db-clean"
          ./scripts/deploy_service "shop-app-db-migrate" "dev-ecs-manager-docker" "12" "shop-db-migrate" "$URI"
          ./scripts/deploy_service "shop-app" "dev-ecs-manager-docker" "12" "shop-backend" "$URI"
  deploy_prod:
    steps:
      - run: |
          ./scripts/rds-snapshot-app-db
          ./scripts/deploy_service "shop-app" "prod-ecs-manager-docker" "10" "shop-backend" "$URI"
  deploy_storybook_dev:
    steps:
      - run: ./scripts/release_storybook_static
""",
}
# Then those that call ECS themselves.
OF_ECS = {
    "scripts/deploy_service.sh": "aws ecs update-service --cluster x\nbody.secrets = x\n",
    "scripts/build_static": """
case "$APP_ENV" in
  "dev")
    TILL_URL="https://dev.till.example.org"
    export VITE_OKTA_DOMAIN="https://test.okta.example.org"
    ;;
  "test")
    export VITE_OKTA_DOMAIN="https://test.okta.example.org"
    ;;
  "prod")
    TILL_URL="https://till.example.org"
    export VITE_OKTA_DOMAIN="$OKTA_DOMAIN"
    ;;
esac
export VITE_API="${TILL_URL}/api"
export VITE_DOMAIN="${VITE_OKTA_DOMAIN}/x"
""",
    "scripts/release_static": 'export VITE_OTHER="not read"\n',
    "scripts/rds-snapshot-app-db.sh": "env=$1\ndb_instance=till-db-$env\nmanual_retention_count=7\n",
    ".github/workflows/deploy_pipeline.yml": """
on:
  push:
    branches:
      - main
jobs:
  deploy_dev:
    uses: ./.github/workflows/deploy_to_environment.yml
  deploy_test:
    uses: ./.github/workflows/deploy_to_environment.yml
  deploy_prod:
    uses: ./.github/workflows/deploy_to_environment.yml
  storybook_dev:
    steps:
      - run: ./scripts/release_storybook_static
""",
    ".github/workflows/deploy_to_environment.yml": """
env:
  ECS_CLUSTER: "${{ inputs.env }}-till-app"
  TASK_FAMILY: "db-clean-${{ inputs.env }}"
jobs:
  deploy:
    steps:
      - with:
          aws-region: eu-west-1
      - if: contains(inputs.env, 'test') || contains(inputs.env, 'prod')
        run: |
          ./scripts/rds-snapshot-app-db
      - run: ./scripts/check_deployed_image_findings "till-backend" "5"
""",
    ".github/workflows/build_frontend_assets.yml": """
      VITE_LD_CLIENT_ID: ${{ secrets.LD_CLIENT }}
""",
    ".github/workflows/images.yml": """
      aws-region: us-west-1
      ECR_REPOSITORY: till-db-migrate
      file: "Dockerfile.migrate"
      ECR_REPOSITORY: till-db-clean
      x: y
      run: docker build --file Dockerfile.cleaner .
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """`checkout(OF_ECS)`: a repository with these files, whose remote is on GitHub."""

    def make(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "checkout"
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(tmp_path, "init", "--quiet", str(folder))
        git(folder, "remote", "add", "origin", "https://github.com/example/app.git")
        return folder

    return make


UNREAD = {
    "lambda": [],
    "ecs": [
        "application.slack_channel",
        "the subnets and security groups of the tasks that have no service",
        "defaults.frontend.distribution, if the site is behind CloudFront",
    ],
    "nothing": [
        "the application's name: no script names its cluster",
        "application.repository: the remote origin is not on GitHub",
        "application.main_branch: no workflow of a pipeline was found",
        "application.slack_channel",
        "defaults.region",
        "defaults.database.name",
        "defaults.scan.qualifier",
        "no script has the environments: dev stands for them",
        "environments.dev.manager.qualifier",
    ],
}
OLD = {"lambda": OF_LAMBDA, "ecs": OF_ECS, "nothing": {"scripts/x/y": "", "scripts/z": "\0"}}
ENVIRONMENTS = {"lambda": ("dev", "prod"), "ecs": ("dev", "test", "prod"), "nothing": ("dev",)}


@pytest.mark.parametrize("kind", OLD)
def test_the_settings_of_each_generation(
    kind: str, checkout: Callable[[Mapping[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in tests/old_scripts/, and what a person has to add. Every environment of them can be read at once."""
    folder = checkout(OLD[kind])
    if kind == "nothing":
        git(folder, "remote", "remove", "origin")
        (folder / "scripts" / "z").write_bytes(b"\xff")

    text, unread = old_scripts.made(folder)

    own, _, local = text.partition(old_scripts.LOCAL)
    assert own == (ROOT / "tests" / "old_scripts" / f"{kind}.toml").read_text()
    assert unread == [f"environments.toml: {one}" for one in UNREAD[kind]]
    assert "mint" not in local
    (folder / "environments.toml").write_text(text)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(folder / "environments.toml"))
    for name in (*ENVIRONMENTS[kind], "local"):
        assert settings.environment(name, dry_run=True).name == name
    assert settings.find("local").manager.via == "lambda"
    prefix = "VITE_" if kind == "ecs" else "REACT_APP_"
    for key in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID", "OKTA_DOMAIN"):
        assert f'\n{prefix}{key} = "local"\n' in local
    assert ("subnet-local" in local) is (kind == "ecs")


@pytest.mark.parametrize(
    ("files", "name", "value"),
    [
        # An arm ends with the case; what comes before and after it is the same for all.
        ({"scripts/release_static": 'export VITE_A="1"\n"dev")\nexport VITE_B="2"\nesac\nexport VITE_C="3"\n'},
         "shared", {"VITE_A": "1", "VITE_C": "3"}),
        ({"scripts/release_static": '"dev")\nVITE_B="2"\n"prod")\n  esac\n'}, "environments",
         {"dev": {"VITE_B": "2"}, "prod": {}}),
        ({"scripts/release_static": 'x="y"\nA=b\n  export A_1="b c"\n'}, "shared", {"A_1": "b c"}),
        ({"scripts/build_static": "", "scripts/release_static": 'A="b"\n'}, "shared", {"A": "b"}),
        ({"scripts/build_static": "VITE_X"}, "prefix", "VITE_"),
        ({"scripts/build_static": "REACT_APP_X VITE_X"}, "prefix", "REACT_APP_"),
        ({"scripts/build_static": "x"}, "prefix", "REACT_APP_"),
        # A secret of the job that builds, unless the script sets it.
        ({"scripts/build_static": 'VITE_A="1"\n', ".github/workflows/build.yml":
          "  VITE_A: ${{ secrets.A }}\n  VITE_B: ${{ secrets.B }}\n  C: ${{ secrets.C }}\n"},
         "shared", {"VITE_A": "1", "VITE_B": "of the job: B"}),
        ({".github/workflows/x.yml": "  VITE_A: ${{ secrets.A }}\n"}, "shared", {}),
        # The pipeline's own region comes first.
        ({".github/workflows/a.yml": "aws-region: a-1", ".github/workflows/build.yml": "aws-region: b-1"}, "region",
         "b-1"),
        ({".github/workflows/a.yml": "aws-region: a-1",
          ".github/workflows/deploy_to_environment.yml": "aws-region: c-1"}, "region", "c-1"),
        ({".github/workflows/a.yml": "aws-region: a-1"}, "region", "a-1"),
        ({".github/workflows/a.yaml": "aws-region: a-1"}, "region", ""),
        ({".github/workflows/deploy_to_environment.yml": "aws-region: c-1",
          ".github/workflows/deploy_pipeline.yml": "aws-region: b-1"}, "region", "b-1"),
        ({"scripts/x": "$APP_ENV-shop-app", "scripts/y": "$APP_ENV-till-app"}, "app", "shop"),
        ({".github/workflows/a.yml": 'ECS_CLUSTER: "${{ inputs.env }}-till-app"'}, "app", "till"),
        ({"scripts/x": "$APP_ENV-shop"}, "app", ""),
        ({"scripts/github-action-announce-broken-branch": '"channel": "#a-b"'}, "channel", "#a-b"),
        ({"scripts/x": '"channel": "#a-b"'}, "channel", ""),
        ({"scripts/x": "aws ecs update-service"}, "via", "ecs"),
        ({"scripts/x": "aws lambda invoke"}, "via", "lambda"),
        ({"scripts/deploy_service": "body.secrets"}, "secrets", True),
        ({"scripts/x": "body.secrets"}, "secrets", False),
        ({"scripts/deploy_service": "body.secrets aws ecs update-service"}, "secrets", False),
        ({"scripts/x": 'check_ecr_findings "a" "b" "4"', "scripts/y": 'check_deployed_image_findings "a" "5"'}, "scan",
         "4"),
        ({"scripts/rds-snapshot-app-db": "db_instance=x-$env-$environment-y"}, "database", "x-${name}-${name}-y"),
        ({"scripts/rds-snapshot-app-db": "db_instance=x"}, "keep", "0"),
        ({"scripts/rds-snapshot-app-db": "manual_retention_count=12"}, "keep", "12"),
        ({"scripts/x": "manual_retention_count=12"}, "keep", "0"),
        ({".github/workflows/x.yml": "ECR_REPOSITORY: a\nfile: Dockerfile.a\nECR_REPOSITORY: b\nECR_REPOSITORY: c\n"
          + "x: y\n" * 8 + "--file Dockerfile.c\nECR_REPOSITORY: d\n" + "x: y\n" * 9 + "file: Dockerfile.d\n"
          "ECR_REPOSITORY: a\nfile: Dockerfile.b\n"},
         "images", {"a": "Dockerfile.a", "c": "Dockerfile.c"}),
    ],
)  # fmt: skip
def test_what_is_read(
    files: dict[str, str], name: str, value: object, checkout: Callable[[Mapping[str, str]], Path]
) -> None:
    """Where each fact stands, and where the same words mean nothing."""
    found = old_scripts.Found()
    folder = checkout(files)
    scripts = {path.name: path.read_text() for path in sorted((folder / "scripts").glob("*"))}
    workflows = {path.name: path.read_text() for path in sorted((folder / ".github" / "workflows").glob("*.yml"))}

    old_scripts._read_names(found, folder, scripts, workflows)
    old_scripts._read_frontend(found, scripts, workflows)
    old_scripts._read_workflows(found, workflows)
    old_scripts._read_databases(found, scripts)

    assert getattr(found, name) == value


PIPELINE = """
jobs:
  deploy_dev:
    run: |
{calls}
  deploy_prod:
    run: x
"""


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ('./scripts/deploy_service "app" "f" "12" "image"', {"qualifiers": {"dev": "12"}, "migrations": ""}),
        ('./scripts/deploy_service "x-migrate" "f" "1" "i"', {"qualifiers": {"dev": "1"}, "migrations": "x-migrate"}),
        ('./scripts/deploy_service "app" "f" "12"', {"qualifiers": {}}),
        ('./scripts/deploy_other "app" "f" "12" "image"', {"qualifiers": {}}),
        ('./scripts/db_lambda_invoke "x-clean" "3" "y"', {"cleaner": ("x-clean", "3", "y"), "cleaned": "dev"}),
        ('./scripts/db_lambda_invoke "x-dump" "3" "y"', {"cleaner": (), "cleaned": ""}),
        ('./scripts/db_lambda_invoke "x-clean" "3"', {"cleaner": (), "cleaned": ""}),
        ('./scripts/other "x-clean" "3" "y"', {"cleaner": (), "cleaned": ""}),
        ("./scripts/rds-snapshot-app-db", {"backups": ["dev"]}),
        ("./scripts/release_storybook_static", {"storybook": ["dev"]}),
        ("if: contains(inputs.env, 'prod')", {"backups": ["prod"]}),
        ("if: contains(inputs.env, 'prod') && x", {"backups": []}),
        ("x", {"backups": [], "storybook": [], "promotion": ["dev", "prod"], "cleaned": ""}),
        ('  TASK_FAMILY: "db-clean-x"', {"cleaned": ""}),
    ],
)  # fmt: skip
def test_what_a_job_of_a_pipeline_does(calls: str, expected: dict[str, object]) -> None:
    """In the environment that it deploys."""
    found = old_scripts.Found(environments={"dev": {}, "prod": {}})

    old_scripts._read_workflows(found, {"build.yml": PIPELINE.format(calls=f"      {calls}")})

    assert {name: getattr(found, name) for name in expected} == expected


def test_jobs_of_other_environments_are_left_out() -> None:
    """Those that the scripts of the frontend do not know; and a job of ECS cleans dev alone."""
    found = old_scripts.Found(environments={"prod": {}}, via="ecs")
    calls = './scripts/deploy_service "a" "f" "1" "i"\n./scripts/rds-snapshot-app-db\nTASK_FAMILY: "db-clean-x"'

    old_scripts._read_workflows(found, {"build.yml": PIPELINE.format(calls=calls)})

    assert (found.promotion, found.qualifiers, found.backups, found.cleaned) == (["prod"], {}, [], "")


def test_the_order_of_the_environments_is_that_of_one_pipeline() -> None:
    """The one that has most of it."""
    found = old_scripts.Found(environments={"dev": {}, "prod": {}})
    other = "jobs:\n  deploy_prod:\n  deploy_dev:\n"
    old_scripts._read_workflows(found, {"build.yml": PIPELINE, "deploy_pipeline.yml": other})

    assert found.promotion == ["dev", "prod"]


@pytest.mark.parametrize(
    ("own", "site"),
    [
        ({"SHOP_URL": "https://x"}, "https://x"),
        ({"VITE_API_URL": "https://api", "REACT_APP_URL": "y", "SHOP_URL": "https://x"}, "https://x"),
        ({"SHOP": "https://x"}, ""),
        ({}, ""),
    ],
)
def test_the_site_of_an_environment_is_in_a_variable_of_its_own(own: dict[str, str], site: str) -> None:
    """Not in one of the frontend."""
    assert old_scripts._site(own) == site


@pytest.mark.parametrize(
    ("shared", "names"),
    [
        ({}, ["VITE_OKTA_CLIENT_ID", "VITE_OKTA_SERVER_ID", "VITE_LD_CLIENT_ID"]),
        ({"VITE_LD_CLIENT_ID": "x"}, ["VITE_LD_CLIENT_ID", "VITE_OKTA_CLIENT_ID", "VITE_OKTA_SERVER_ID"]),
        ({"VITE_OKTA_CLIENT_ID": "x", "A": "y"}, ["VITE_OKTA_CLIENT_ID"]),
    ],
)
def test_the_keys_of_other_services_are_variables_of_the_job(shared: dict[str, str], names: list[str]) -> None:
    """Unless the scripts give them."""
    found = old_scripts.Found(shared=shared, prefix="VITE_")

    assert [line.partition(" = ")[0] for line in old_scripts._variables(found, found.shared)] == names
    assert old_scripts._variables(found, {}) == []


def test_a_workflow_of_ecs_cleans_dev() -> None:
    found = old_scripts.Found(environments={"prod": {}, "dev": {}}, via="ecs")
    old_scripts._read_workflows(found, {"x.yml": 'TASK_FAMILY: "db-clean-x"'})

    assert found.cleaned == "dev"


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("x", "x"),
        ("$APP_ENV", "${name}"),
        ("${SHOP_URL}/api", "${site}/api"),
        ("$VITE_A/$REACT_APP_B_URL", "${frontend.variables.VITE_A}/${frontend.variables.REACT_APP_B_URL}"),
        ("$OKTA_DEV$OKTA_PROD", "${OKTA}${OKTA_PROD}"),
        ("of the job: SECRET_DEV", "${SECRET_DEV}"),
    ],
)
def test_a_reference_of_the_shell_becomes_one_of_the_settings(value: str, reference: str) -> None:
    """A variable that is named after an environment has one name in all of them."""
    assert old_scripts._reference(old_scripts.Found(environments={"dev": {}}), value) == reference
