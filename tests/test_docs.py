"""The documentation is true: generated pages are current, links work, and the migration table has every script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cli import TASKS

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted(
    path for path in (ROOT / "docs").glob("*.md")
)


def test_the_generated_pages_are_current(tmp_path: Path) -> None:
    """`make docs` would write the same."""
    subprocess.run([sys.executable, "docs/generate.py", str(tmp_path)], cwd=ROOT, check=True)

    assert (tmp_path / "settings.md").read_text() == (ROOT / "docs" / "settings.md").read_text()
    written = {path.name: path.read_text() for path in (tmp_path / "tasks").iterdir()}
    there = {path.name: path.read_text() for path in (ROOT / "docs" / "tasks").iterdir()}
    assert written == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    """Links to other sites are not checked."""
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_command_in_the_documentation_is_a_task() -> None:
    """Each NAME after `invoke`."""
    named = {
        name
        for page in PAGES
        for name in re.findall(r"\binvoke\s+([a-z][a-z.-]+[a-z])", page.read_text())
        if not name.startswith("--")
    }

    assert named - set(TASKS) == set()


def test_every_threat_names_tests_that_exist() -> None:
    """The table of SECURITY.md."""
    table = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(tests/[\w./]+)`", line.rpartition(" | ")[2]) for line in table]

    assert len(table) > 10
    assert [line for line, files in zip(table, named, strict=True) if not files] == []
    assert [name for files in named for name in files if not (ROOT / name).is_file()] == []


def test_every_comparison_names_a_test_that_exists() -> None:
    """The table of docs/comparison.md: each row ends with a test, as file::function."""
    lines = [line for line in (ROOT / "docs" / "comparison.md").read_text().splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", line) for line in lines]

    assert len(lines) > 20
    assert [line for line, tests in zip(lines, named, strict=True) if len(tests) != 1] == []
    missing = [(file, name) for ((file, name),) in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
    assert missing == []


def rows() -> list[tuple[str, str]]:
    """The rows of docs/migrating.md: old line, new line."""
    text = (ROOT / "docs" / "migrating.md").read_text()
    return re.findall(r"^\| (.+?) \| `(invoke .+?)` \|$", text, re.MULTILINE)


def test_the_migration_table_has_every_old_script() -> None:
    old = " ".join(old for old, _ in rows())

    for script in (
        "deploy_service",
        "db_lambda_invoke",
        "healthcheck",
        "release_static",
        "release_storybook_static",
        "rds-snapshot-app-db",
        "check_ecr_findings",
        "check_deployed_image_findings",
        "github-action-announce-broken-branch",
        "docker image build",
    ):
        assert script in old
