"""`invoke adopt`: the commands in an application's repository, and its settings from the old scripts."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.frame import settings
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.github import load
from tests.test_old_scripts import OF_LAMBDA

PRE_COMMIT = "repos:\n  - repo: https://example.org/hooks\n    rev: v1\n    hooks:\n      - id: theirs\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An application's checkout, with files that have no line break at their end."""
    folder = tmp_path / "shop"
    for name, text in OF_LAMBDA.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text("/build")
    (folder / ".dockerignore").write_text(".git")
    (folder / ".pre-commit-config.yaml").write_text(PRE_COMMIT)
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    git(folder, "remote", "add", "origin", "https://github.com/example/shop.git")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "The application")
    return folder


def git(folder: Path, *words: str) -> str:
    """git's output."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_settings_are_read_from_the_old_scripts(
    shop: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is listed; every environment can be read at once."""
    done = invoke("adopt", f"--into={shop}", "--from-scripts")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(shop / "environments.toml"))
    monkeypatch.setenv("OKTA_CLIENT_ID_PROD", "the-client")
    dev, prod = settings.environment("dev", dry_run=True), settings.environment("prod", dry_run=True)

    application = prod.application
    assert (application.name, application.repository) == ("shop-app", "example/shop")
    assert (application.main_branch, application.slack_channel) == ("trunk", "#shop-alerts")
    assert application.promotion == ("dev", "prod")
    assert (dev.region, dev.scan.qualifier, dev.cluster) == ("us-east-2", "4", "dev-shop-app")
    assert [env.manager.qualifier for env in (dev, prod)] == ["12", "10"]
    assert (dev.cleaner.function, dev.cleaner.qualifier) == ("shop-app-db-clean-tmp", "3")
    assert (prod.cleaner.function, prod.database.backup, prod.confirm) == ("", True, True)
    assert str(prod.database.name.require()) == "shopprod"
    assert prod.service.secrets.require() == r"^/prod/shop-app/\S+$"
    variables = {name: value.known() for name, value in prod.frontend.variables.items()}
    assert variables["REACT_APP_OKTA_CLIENT_ID"] == "the-client"
    assert variables["REACT_APP_API_ADDRESS"] == "https://shop.example.org/api/v1"
    assert variables["REACT_APP_OKTA_DOMAIN"] == "https://okta.example.org"


def test_the_workflows_have_the_applications_values(shop: Path, invoke: Invoke) -> None:
    """Region, environments, main branch, folder and secrets come from its settings, also when these change later."""
    theirs = """
[application]
main_branch = "trunk"
[defaults]
region = "eu-west-1"
account = "${AWS_ACCOUNT_ID}"
[defaults.frontend]
bucket = "${STATIC_S3_BUCKET}"
folder = "dist"
distribution = "${CDN}"
[defaults.frontend.variables]
VITE_KEY = "${VITE_KEY}"
[defaults.tasks.migrate]
subnets = ["${SUBNET}"]
[environments.staging]
[environments.live]
[environments.local]
endpoint_url = "http://127.0.0.1:4566"
account = "${UNUSED_NAME}"
"""
    (shop / "environments.toml").write_text(theirs)
    assert invoke("adopt", f"--into={shop}").returncode == 0
    folder = shop / ".github" / "workflows"
    deploy, frontend, operate = (load(folder / f"{name}.yml") for name in ("deploy", "frontend", "operate"))

    text = "".join((folder / f"{name}.yml").read_text() for name in ("deploy", "frontend", "operate"))
    ours = r"us-west-2|heads/main|OKTA|LD_CLIENT|\bdev\b|\bimpl\b|\bprod\b|mint|UNUSED_NAME|nvmrc"
    assert re.findall(ours, text, re.IGNORECASE) == []
    assert text.count("aws-region: eu-west-1") == 3
    given = {"STATIC_S3_BUCKET", "CDN", "SUBNET"}
    assert set(deploy["on"]["workflow_call"]["secrets"]) == {
        *given,
        "AWS_ACCOUNT_ID",
        "AWS_ROLE_TO_ASSUME",
        "SLACK_WEBHOOK_URL",
    }
    assert given <= set(deploy["jobs"]["deploy"]["env"])
    assert set(frontend["on"]["workflow_call"]["secrets"]) == {"VITE_KEY"}
    assert frontend["jobs"]["build"]["steps"][-1]["with"]["path"] == "dist"
    assert {*given, "VITE_KEY"} <= set(operate["jobs"]["operate"]["env"])
    assert operate["on"]["workflow_dispatch"]["inputs"]["environment"]["options"] == ["staging", "live"]

    (shop / "environments.toml").write_text(theirs.replace("staging", "test"))
    again = invoke("adopt", f"--into={shop}")
    assert "2 files written" in again.stderr
    assert "options: [test, live]" in (folder / "operate.yml").read_text()


def test_what_is_theirs_stays_and_a_second_run_changes_nothing(shop: Path, invoke: Invoke) -> None:
    """Our blocks are added to the files that both have; nothing else of theirs is touched."""
    assert invoke("adopt", f"--into={shop}", "--from-scripts").returncode == 0
    git(shop, "add", "--all")
    git(shop, "commit", "--quiet", "-m", "Adopt")
    changed = set(git(shop, "diff", "--name-only", "--diff-filter=M", "HEAD~1").split())

    again = invoke("adopt", f"--into={shop}", "--from-scripts")

    assert changed == {".gitignore", ".dockerignore", ".pre-commit-config.yaml"}
    assert "0 files written, 0 removed" in again.stderr
    assert git(shop, "status", "--porcelain") == ""
    hooks = yaml.safe_load((shop / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for repo in hooks for hook in repo["hooks"]] == ["theirs", "deployment"]
    assert (shop / ".gitignore").read_text().startswith("/build\n# deployment commands: begin\n.venv/\n")
    assert "include deployment.mk" in (shop / "Makefile").read_text()


def test_an_update_keeps_what_was_changed_there(shop: Path, invoke: Invoke) -> None:
    """It brings back nothing that they changed, replaces what they did not, and removes what is no longer ours."""
    assert invoke("adopt", f"--into={shop}").returncode == 0
    (shop / "tasks.py").write_text("# theirs\n")
    record = json.loads((shop / ".deployment.json").read_text())
    old = shop / "scripts" / "an_old_command.py"
    old.write_text("old\n")
    for name, content in (("scripts/an_old_command.py", b"old\n"), ("scripts/status.py", b"before\n")):
        record["files"][name] = hashlib.sha256(content).hexdigest()
    (shop / "scripts" / "status.py").write_text("before\n")
    (shop / ".deployment.json").write_text(json.dumps(record))

    done = invoke("adopt", f"--into={shop}")

    assert done.returncode == 0, done.stderr
    assert "keep tasks.py: it was changed here" in done.stderr
    assert (shop / "tasks.py").read_text() == "# theirs\n"
    assert (shop / "scripts" / "status.py").read_bytes() == (ROOT / "scripts" / "status.py").read_bytes()
    assert not old.exists()


def test_a_dry_run_shows_what_would_be_written(shop: Path, invoke: Invoke) -> None:
    done = invoke("adopt", f"--into={shop}", "--dry-run")

    assert done.returncode == 0, done.stderr
    assert "would write tasks.py" in done.stderr
    assert git(shop, "status", "--porcelain") == ""


def test_the_adopted_commands_deploy_locally_and_leave_nothing_behind(
    shop: Path, invoke: Invoke, cloud: EmbeddedCloud
) -> None:
    """The list, and a dry run of each environment, from the checkout alone; git sees nothing that they made."""
    assert invoke("adopt", f"--into={shop}", "--from-scripts").returncode == 0
    git(shop, "add", "--all")
    git(shop, "commit", "--quiet", "-m", "Adopt")
    program = [str(Path(sys.executable).parent / "invoke")]

    for words in (
        ["--list"],
        *(["deploy", f"--env={name}", "--tag=x", "--dry-run"] for name in ("dev", "prod", "local")),
    ):
        done = subprocess.run([*program, *words], cwd=shop, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    assert git(shop, "status", "--porcelain") == ""


def test_the_targets_read_every_environment_and_fail_if_one_cannot_be_read(shop: Path, invoke: Invoke) -> None:
    """`make test` shows a deployment to each; a fault in the settings is a failure."""
    assert invoke("adopt", f"--into={shop}", "--from-scripts").returncode == 0
    (shop / ".venv").symlink_to(Path(sys.executable).parent.parent, target_is_directory=True)
    words = ["make", "--assume-old=.venv/deployment", "test"]

    done = subprocess.run(words, cwd=shop, capture_output=True, text=True)
    (shop / "environments.toml").write_text("nonsense")
    broken = subprocess.run(words, cwd=shop, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert [name for name in ("dev", "prod", "local") if f"deploy: {name} (from --env)" not in done.stderr] == []
    assert broken.returncode != 0
