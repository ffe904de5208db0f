"""Who may import whom, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
# Lower ones know nothing of higher ones; a command is whatever is not named here.
NOUNS = {"command", "environments", "image_assembly", "images", "invocation", "repository", "rollout", "version"}
EDGES = {"aws", "shell"}
GROUND = {"console", "errors"}


def module(path: Path) -> str:
    """The name right under scripts: release for scripts/release/plan.py."""
    return path.relative_to(ROOT / "scripts").parts[0].removesuffix(".py")


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules that a file imports: everywhere in it, or only when it is loaded."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize(
    ("library", "door"),
    [("boto3", {"aws"}), ("sh", {"shell"}), ("invoke", {"errors"}), ("local_aws", {"command", "embedded"})],
)
def test_each_library_has_one_door(library: str, door: set[str]) -> None:
    """So that its errors are translated in one place."""
    users = {module(path) for path in SCRIPTS if any(n.split(".")[0] == library for n in imports(path))}

    assert users <= door


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_do_not_import_commands(path: Path) -> None:
    """tasks.py puts them in a row; what two need is a noun of its own."""
    own = module(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("scripts.")}
    packages = {p.parent.name for p in SCRIPTS if p.name == "__init__.py"} - {"scripts"}
    commands = {module(p) for p in SCRIPTS} - NOUNS - EDGES - GROUND - packages - {"__init__"}

    if own in commands:
        assert not (used & commands) - {own}
    if own in EDGES:
        assert used <= GROUND | {"environments"} | {own}
    if own in GROUND:
        assert used <= GROUND


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "tasks.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_slow_is_imported_when_the_command_line_loads(path: Path) -> None:
    """`invoke --list` and completion load everything, at every press of TAB."""
    slow = {"boto3", "botocore", "obstore", "sh", "moto", "flask", "urllib.request", "http.client", "asyncio"}

    assert not imports(path, top_level=True) & slow
