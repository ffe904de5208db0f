"""Which modules may import which, read from the syntax trees: layers point down, and there is no cycle."""

import ast
import functools
import os
import re
import sys
from graphlib import TopologicalSorter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from scripts.frame import declaration

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "tasks.py", *sorted((ROOT / "scripts").rglob("*.py"))]
# From the top. Commands are the files directly in scripts/. Modules of the frame may be above or below the edges, as
# long as there is no cycle.
LAYERS = {"tasks": 0, "scripts": 1, "ecs": 2, "release": 2, "edges": 3, "frame": 4}


def module(path: Path) -> str:
    """The dotted name of a file's module."""
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


MODULES = {module(path): path for path in FILES}


def layer(name: str) -> str:
    """The folder of a module, which decides what it may import."""
    words = name.split(".")
    return words[0] if len(words) < 3 else words[1]


@functools.cache
def imports(path: Path, *, top_level: bool = False, types: bool = False) -> set[str]:
    """What a file imports. top_level: only when it is loaded. types: also what only the type checker imports."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "scripts" and types:
            # tasks.py: the module is imported when the attribute is first read.
            names.add(f"scripts.{node.attr}")
        for child in [] if top_level and isinstance(node, ast.FunctionDef) else ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


def used(path: Path, *, types: bool = False) -> set[str]:
    """The modules of this project that a file imports. Importing a package counts as importing its modules."""
    return {name for name in imports(path, types=types) if name in MODULES and MODULES[name].name != "__init__.py"}


@pytest.mark.parametrize("name", MODULES)
def test_layers_point_down(name: str) -> None:
    """A command may import other commands, and a folder its own modules, but nothing imports a higher layer."""
    wrong = {
        other for other in used(MODULES[name]) if layer(name) != "frame" and LAYERS[layer(other)] < LAYERS[layer(name)]
    }
    if layer(name) == "frame":
        # Every command uses the frame, so it imports no command, and no code that only some commands need.
        wrong = {other for other in used(MODULES[name]) if layer(other) not in ("frame", "edges")}

    assert wrong == set()


def test_ecs_and_release_do_not_import_each_other() -> None:
    """Only the pipeline combines them."""
    for name, path in MODULES.items():
        other = {"ecs": "release", "release": "ecs"}.get(layer(name))
        assert not [one for one in used(path) if layer(one) == other], name


def test_there_is_no_cycle() -> None:
    """static_order raises CycleError with the modules of the cycle."""
    assert list(TopologicalSorter({name: used(path) for name, path in MODULES.items()}).static_order())


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("boto3", {"edges.aws"}),
        ("botocore", {"edges.aws", "edges.s3"}),
        ("obstore", {"edges.s3"}),
        ("urllib.request", {"edges.http", "edges.s3"}),
        ("http", {"edges.http", "edges.s3"}),
        ("sh", {"edges.shell"}),
        ("subprocess", set()),
        ("socket", {"edges.http"}),
        ("signal", {"frame.stop", "edges.shell"}),
        ("tempfile", {"frame.files"}),
        ("invoke", {"frame.errors", "frame.declaration"}),
        ("local_aws", {"frame.run", "local", "build_image"}),
        ("rich", {"frame.display"}),
    ],
)
def test_each_library_is_imported_only_by_the_modules_that_wrap_it(library: str, door: set[str]) -> None:
    """So that its errors are translated and its settings made in one place."""
    users = {
        name.removeprefix("scripts.")
        for name, path in MODULES.items()
        if any(one == library or one.startswith(f"{library}.") for one in imports(path))
    }

    assert users <= door


@pytest.mark.parametrize(
    "name", ["tasks", "scripts", "scripts.frame.declaration", "scripts.frame.stop", "scripts.frame.errors"]
)
def test_nothing_slow_is_imported_when_the_command_line_loads(name: str) -> None:
    """`invoke --list` and completion load these modules, so completion at each TAB has to be fast."""
    slow = {"boto3", "botocore", "obstore", "sh", "msgspec", "urllib.request", "http.client", "asyncio", "json"}

    assert not imports(MODULES[name], top_level=True) & slow
    assert used(MODULES[name]) <= {f"scripts.frame.{one}" for one in ("declaration", "errors", "stop", "text", "run")}


def test_records_are_structs() -> None:
    """A dataclass compiles its methods at each start, 0.7 ms. One has state of its own, one is rarely imported."""
    users = {name for name, path in MODULES.items() if "dataclasses.dataclass" in imports(path)}

    assert users == {"scripts.frame.run", "scripts.edges.old_scripts"}


@pytest.mark.parametrize(
    ("age", "off", "name", "written"),
    [
        (None, False, "loaded", True),
        (1, False, "loaded", True),
        (0, False, "loaded", False),
        (-1, False, "loaded", False),
        (None, True, "loaded", False),
        (None, False, "another", False),
    ],
    ids=["none is kept", "an older one", "of the same second", "a newer one", "caches are off", "not loaded"],
)
def test_the_bytecode_of_what_invoke_loads_is_kept(
    age: int | None, off: bool, name: str, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invoke loads tasks.py while caches are off. What is kept already is not compiled again."""
    (tmp_path / "loaded.py").write_text("x = 1\n")
    spec = spec_from_file_location("loaded", tmp_path / "loaded.py")
    assert spec
    assert spec.cached
    kept = Path(spec.cached)
    if age is not None:
        kept.parent.mkdir()
        kept.write_bytes(b"kept")
        os.utime(kept, (1e9, 1e9))
        os.utime(tmp_path / "loaded.py", (1e9 + age, 1e9 + age))
    monkeypatch.setitem(sys.modules, "loaded", module_from_spec(spec))
    monkeypatch.setattr(sys, "dont_write_bytecode", off)
    monkeypatch.setattr(sys, "pycache_prefix", None)

    declaration._keep_bytecode(name)

    assert (kept.exists() and kept.read_bytes() != b"kept") is written


def test_the_diagram_of_the_architecture_matches_the_imports() -> None:
    """The arrows between our folders in docs/architecture.md, including imports only for types."""
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE))
    found = {(layer(name), layer(other)) for name, path in MODULES.items() for other in used(path, types=True)}

    assert {arrow for arrow in drawn if set(arrow) <= set(LAYERS)} == {pair for pair in found if pair[0] != pair[1]}


def test_the_command_line_stays_short() -> None:
    """tasks.py holds declarations and nothing else."""
    body = ast.parse((ROOT / "tasks.py").read_text()).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]

    assert len((ROOT / "tasks.py").read_text().splitlines()) <= 250
    assert [node.name for node in functions if len(node.body) > 1 or not node.decorator_list] == []
    assert [node for node in body if isinstance(node, (ast.ClassDef, ast.For, ast.While, ast.With, ast.Try))] == []
