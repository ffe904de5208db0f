"""Counts which lines of the project the tests reach, in every process that they fork.

Each statement marks its line in a file that all processes map into memory. Setting up a tracer and saving its data in
each of two thousand short processes would double the time of the tests. Beside that file are the compiled sources with
their marks, so that each is compiled once in a run.
"""

import ast
import builtins
import functools
import marshal
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("scripts", "ecs_manager", "local_aws")
# The environment variable with the folder of these files.
VARIABLE = "LINES_OF_TESTS"
FILES = [ROOT / "tasks.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]


@functools.cache
def offsets() -> dict[str, int]:
    """Where the lines of each source file begin in the mapped file."""
    found, end = {}, 0
    for path in FILES:
        found[str(path)] = end
        end += path.read_bytes().count(b"\n") + 2
    return {**found, "": end}


def install() -> None:
    """Mark lines from now on, in this process and its forks. The first process of a run creates the folder."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="lines-")
        _marks().write_bytes(bytes(offsets()[""]))
    with _marks().open("r+b") as file:
        builtins.__lines__ = mmap.mmap(file.fileno(), 0)  # type: ignore[attr-defined]
    SourceFileLoader.get_code = _get_code  # type: ignore[method-assign]


def prepare() -> None:
    """Read every source file now, so that forked processes need not."""
    for path in FILES:
        _marking(str(path))


def remove() -> None:
    """Remove the folder at the end of a run."""
    shutil.rmtree(os.environ.pop(VARIABLE))


def reached() -> dict[str, tuple[list[int], list[int]]]:
    """For each source file, the lines that were reached and those that were not."""
    marked = _marks().read_bytes()
    found = {}
    for path in FILES:
        start = offsets()[str(path)]
        lines = sorted({node.lineno for node in _statements(ast.parse(path.read_bytes()))})
        yes = [line for line in lines if marked[start + line]]
        found[str(path.relative_to(ROOT))] = (yes, [line for line in lines if not marked[start + line]])
    return found


def _marks() -> Path:
    return Path(os.environ[VARIABLE], "marks")


_original = SourceFileLoader.get_code


def _get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
    path = self.get_filename(fullname)
    return _marking(path) if path in offsets() else _original(self, fullname)


@functools.cache
def _marking(path: str) -> CodeType:
    """The code of a source file, with marks."""
    kept = Path(os.environ[VARIABLE], str(offsets()[path]))
    if kept.exists():
        found: CodeType = marshal.loads(kept.read_bytes())  # noqa: S302
        return found
    code = _compiled(path)
    # Another process may be reading it.
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
        file.write(marshal.dumps(code))
    os.replace(file.name, kept)
    return code


def _compiled(path: str) -> CodeType:
    tree = ast.parse(Path(path).read_bytes(), path)
    for node in _statements(tree):
        node._mark = offsets()[path] + node.lineno  # type: ignore[attr-defined]
    for body in _bodies(tree):
        body[:] = [one for node in body for one in (*_mark(node), node)]
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    return code


def _mark(node: Any) -> Iterator[ast.stmt]:
    """`__lines__[number] = 1` for a statement that is marked."""
    if hasattr(node, "_mark"):
        name, number, one = ast.Name("__lines__", ast.Load()), ast.Constant(node._mark), ast.Constant(1)
        place = ast.Subscript(name, number, ast.Store())
        mark = ast.Assign([place], one, lineno=node.lineno)
        for part in (mark, place, name, number, one):
            ast.copy_location(part, node)
        yield mark


def _bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every block, except those for the type checker and for running a file as a program."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(tree, field, None)
        if isinstance(block, list) and not (isinstance(tree, ast.If) and field == "body" and _is_aside(tree.test)):
            yield block
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and _is_aside(node.test)):
            yield from _bodies(node)


def _is_aside(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Every statement that does something: no docstring, no `from __future__`, no pass, global or nonlocal."""
    for body in _bodies(tree):
        for node in body:
            constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            if not (constant or future or isinstance(node, (ast.Pass, ast.Global, ast.Nonlocal))):
                yield node
