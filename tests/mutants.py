"""Changes the code in small ways and lists the changes that no test notices: `make mutants`, or with files

    python -m tests.mutants --sample=40 scripts/deploy.py scripts/frame/

It works on copies of the checkout. The tests of each file first run on the unchanged code, to learn which lines they
reach. Then each change is tested alone, by the tests that reach its line, the quickest first, in a process forked from
one that has imported everything but the project. A surviving change needs a test, makes no difference, or shows a line
that can be deleted.
"""

import argparse
import ast
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = {"tests", "scripts", "ecs_manager", "local_aws", "tasks"}
# It stops sixty deployments, which is slow; the other tests of its file notice the same changes.
SLOW = "test_a_deployment_that_is_stopped"
LEFT_OUT = shutil.ignore_patterns(".venv", ".local", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
# The tests of a module, if its name does not tell. The first prefix that matches counts.
TESTS = {
    "scripts/frame/declaration.py": "tests/test_cli.py tests/test_odd_text.py tests/test_stop.py",
    "scripts/frame/console.py": "tests/test_run.py tests/test_text.py tests/test_cli.py",
    "scripts/frame/errors.py": "tests/test_run.py tests/test_cli.py tests/test_text.py",
    "scripts/frame/display.py": "tests/e2e/test_display.py",
    "scripts/adopt.py": "tests/e2e/test_adopt.py",
    "scripts/frame/report.py": "tests/test_run.py tests/test_status.py",
    "scripts/frame/run.py": "tests/test_run.py tests/test_stop.py tests/test_cli.py",
    "scripts/deploy.py": "tests/test_deploy.py tests/test_deploy_database_steps.py tests/e2e/test_pipeline.py",
    "scripts/deploy_service.py": "tests/test_deploy_service.py tests/test_several_services.py tests/test_recordings.py",
    "scripts/run_task.py": "tests/test_migrate_database.py tests/test_recordings.py",
    "scripts/ecs/rollout.py": "tests/test_rollout.py tests/test_reasons.py",
    "scripts/ecs/watch.py": "tests/test_rollout.py tests/test_healthcheck.py",
    "scripts/ecs/proof.py": "tests/test_proof.py tests/test_rollout.py",
    "scripts/ecs/reasons.py": "tests/test_reasons.py",
    "scripts/ecs/logs.py": "tests/test_reasons.py tests/test_migrate_database.py",
    "scripts/ecs/reader.py": "tests/test_reader.py",
    "scripts/ecs/": "tests/test_deploy_service.py tests/test_recordings.py tests/test_check_image.py",
    "scripts/edges/s3.py": "tests/release",
    "scripts/edges/git.py": "tests/test_version.py tests/test_revert.py",
    "scripts/release": "tests/release",
    "scripts/": "tests/test_{name}.py",
    "ecs_manager/": "tests/ecs_manager",
    "local_aws/": "tests/local_aws",
}
DEFAULT = ["scripts/frame/", "scripts/ecs/", "scripts/deploy.py", "scripts/deploy_service.py", "scripts/healthcheck.py"]
# Appended to tests/lines.py once the reached lines are known: marking takes as long as a quick test.
UNMARKED = b"""

def install() -> None:
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="lines-")


def prepare() -> None:
    pass
"""
OTHER = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: a file's text between two offsets (bytes of UTF-8) is replaced.

    reached: the lines where a test may meet the change: that of the statement around it, or those that use a constant
    of the module. Empty for other code that runs when the module is imported.
    """

    path: str
    line: int
    reached: tuple[int, ...]
    start: int
    end: int
    old: str
    new: str

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(text.split())[:100] for text in (self.old, self.new))
        return f"{self.path}:{self.line}: {old}  ->  {new or 'nothing'}"


def mutants(path: str, root: Path = ROOT) -> list[Mutant]:
    """All changes of a file."""
    source = (root / path).read_bytes()
    tree = ast.parse(source)
    begins = statements(tree)
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = []
    for node, new in changes(tree):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        if isinstance(node, ast.keyword):
            # Including the comma after it.
            end += len(re.match(rb"\s*,?", source[end:])[0])  # type: ignore[index]
        old = source[start:end].decode()
        found.append(Mutant(path, node.lineno, begins.get(node, ()), start, end, old, new))
    return found


def statements(tree: ast.Module) -> dict[ast.AST, tuple[int, ...]]:
    """For each node of a module, the lines where a test may meet it, as in `Mutant`."""
    found: dict[ast.AST, tuple[int, ...]] = {}

    def visit(node: ast.AST, begin: tuple[int, ...]) -> None:
        found[node] = begin
        body = node.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else []
        for child in ast.iter_child_nodes(node):
            inside = child in body or (begin and isinstance(child, ast.stmt))
            visit(child, (child.lineno,) if inside else begin)  # type: ignore[attr-defined]

    visit(tree, ())
    used = [(node.id, found[node]) for node in found if isinstance(node, ast.Name) and found[node]]
    for constant in tree.body:
        if isinstance(constant, ast.Assign):
            names = {node.id for target in constant.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            lines = tuple(line for name, at in used if name in names for line in at)
            found |= dict.fromkeys(ast.walk(constant), lines)
    return found


def changes(tree: ast.AST) -> Iterator[tuple[Any, str]]:
    """The nodes of a module that can be changed, with the replacement."""
    for node in parts(tree):
        for kind, change in KINDS.items():
            if isinstance(node, kind):
                yield from change(node)


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """Every node, except those for the type checker, and the inside of f-strings, whose positions are not known."""
    yield node
    aside = {*map(id, _for_types(node))}
    for child in [] if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node):
        if id(child) not in aside:
            yield from parts(child)


def _for_types(node: ast.AST) -> list[ast.AST | None]:
    """The children of a node that only mypy reads, or that only forbid what no code does."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return [node.test, *node.body]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *(keyword for keyword in node.keywords if keyword.arg == "frozen")]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.returns]
    return [node.annotation] if isinstance(node, ast.arg) else []


def _compare(node: ast.Compare) -> Iterator[tuple[ast.AST, str]]:
    if len(node.ops) == 1:
        left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
        yield node, f"({left}) {OTHER[type(node.ops[0])]} ({right})"


def _bool(node: ast.BoolOp) -> Iterator[tuple[ast.AST, str]]:
    word = " or " if isinstance(node.op, ast.And) else " and "
    yield node, word.join(f"({ast.unparse(value)})" for value in node.values)


def _condition(node: ast.If | ast.While | ast.IfExp) -> Iterator[tuple[ast.AST, str]]:
    # _compare already changes a comparison.
    if not isinstance(node.test, ast.Compare):
        yield node.test, f"not ({ast.unparse(node.test)})"


def _call(node: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    for keyword in node.keywords:
        if keyword.arg:
            yield keyword, ""


def _statement(node: ast.Expr | ast.Raise) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Raise) or isinstance(node.value, ast.Call):
        yield node, "pass"


def _return(node: ast.Return) -> Iterator[tuple[ast.AST, str]]:
    if node.value is not None and ast.unparse(node.value) not in ("None", "False", "[]", "''", "()", "{}"):
        yield node, "return None"


def _constant(node: ast.Constant) -> Iterator[tuple[ast.AST, str]]:
    value = node.value
    if isinstance(value, bool):
        yield node, str(not value)
    elif isinstance(value, (int, float)):
        yield node, repr(value + 1)
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:/=-]+", value):
        # A sentence is for people; a single word is a name that other programs know.
        yield node, repr(f"{value}X")


KINDS: dict[type | tuple[type, ...], Callable[..., Iterator[tuple[ast.AST, str]]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _bool,
    (ast.If, ast.While, ast.IfExp): _condition,
    ast.Call: _call,
    (ast.Expr, ast.Raise): _statement,
    ast.Return: _return,
    ast.Constant: _constant,
}


def tests_of(path: str) -> list[str]:
    """The existing test files that should notice a change of a file."""
    own = f"tests/test_{Path(path).stem}.py"
    listed = next((tests for start, tests in TESTS.items() if path.startswith(start)), own)
    words = [own, *listed.format(name=Path(path).stem).split()]
    return [word for word in dict.fromkeys(words) if (ROOT / word).exists()]


@dataclass
class Reached:
    """What the tests of one file reach. tests: name -> seconds and lines. modules: what they import."""

    tests: dict[str, tuple[float, list[int]]]
    modules: list[str]

    def tests_at(self, lines: Collection[int], most: float) -> dict[str, float]:
        """The quickest tests that reach one of these lines, with their seconds.

        At most `most` seconds in total, but at least one test. If no test reaches the lines, the quickest of all tests.
        """
        reaching = {name: seconds for name, (seconds, marked) in self.tests.items() if not {*lines}.isdisjoint(marked)}
        found, left = dict[str, float](), most
        every = reaching or {name: seconds for name, (seconds, _) in self.tests.items()}
        for name, seconds in sorted(every.items(), key=lambda item: item[1]):
            left -= seconds
            if left >= 0 or not found:
                found[name] = seconds
        return found


class Recorder:
    """A pytest plugin that records which lines of a file each test reaches."""

    def __init__(self, path: str, into: Path) -> None:
        self.path, self.into, self.tests, self.began = path, into, dict[str, tuple[float, list[int]]](), 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        import builtins

        from tests import lines

        path = Path(self.path).absolute()
        start, size = lines.offsets()[str(path)], path.read_bytes().count(b"\n") + 1
        marks = builtins.__lines__  # type: ignore[attr-defined]
        marks[start : start + size] = bytes(size)
        began = time.monotonic()
        result = yield
        reached = [line for line, mark in enumerate(marks[start : start + size]) if mark]
        self.tests[item.nodeid] = (time.monotonic() - began, reached)
        return result

    def pytest_sessionfinish(self) -> None:
        modules = [name for name in sys.modules if not re.search("pytest|hypothesis|xdist|__main__", name)]
        others = [name for name in modules if name.partition(".")[0] not in OWN]
        self.into.write_text(json.dumps({"tests": self.tests, "modules": others}))


class Chosen:
    """A pytest plugin that runs only these tests, the quickest first."""

    def __init__(self, tests: Mapping[str, float]) -> None:
        self.tests = tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.tests), key=lambda item: self.tests[item.nodeid])


def start(copy: Path, words: Sequence[str], plugin: object, output: str = os.devnull) -> int:
    """Run tests of a copy in a new process, which exits with pytest's code. Returns its pid."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        to = os.open(output, os.O_RDWR | os.O_CREAT)
        for number in range(3):
            os.dup2(to, number)
        os.chdir(copy)
        sys.path[0] = str(copy)
        for name in list(sys.modules):
            if name.partition(".")[0] in OWN:
                del sys.modules[name]
        os._exit(pytest.main(["-x", "-q", *words], plugins=[plugin]))
    finally:
        os._exit(99)


def end(pid: int) -> None:
    """Kill a process that `start` returned, and everything that its tests left running."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(process.name)) == pid:
                os.kill(int(process.name), signal.SIGKILL)


def reached(path: str, copy: Path, folder: Path) -> Reached:
    """Run the tests of a file on the unchanged code."""
    tests, into, output = tests_of(path), folder / "reached.json", folder / "output"
    if not tests:
        sys.exit(f"{path}: there are no tests")
    pid = start(copy, ["-k", f"not {SLOW}", *tests], Recorder(path, into), str(output))
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"{output.read_text()}{path}: its tests fail already")
    return Reached(**json.loads(into.read_text()))


def put(file: Path, text: bytes, count: Iterator[int] = itertools.count(1_000_000_000)) -> None:  # noqa: B008
    """Write a file with a new time each time, so that a cached .pyc is never used for it."""
    file.write_bytes(text)
    now = next(count)
    os.utime(file, (now, now))


def survivors(
    found: Reached, chosen: Sequence[Mutant], copies: Sequence[Path], most: float
) -> Iterator[tuple[Mutant, bool]]:
    """Try the changes of one file. Yields each change, and whether no test noticed it."""
    left, free, running = list(reversed(chosen)), list(copies), dict[int, tuple[Mutant, Path, bytes, float]]()
    while left or running:
        while left and free:
            mutant = left.pop()
            file = free[-1] / mutant.path
            whole = file.read_bytes()
            changed = mutant.apply(whole)
            try:
                compile(changed, mutant.path, "exec")
            except SyntaxError:
                yield mutant, False
                continue
            put(file, changed)
            tests = found.tests_at(mutant.reached, most)
            deadline = time.monotonic() + 15 + 4 * sum(tests.values())
            files = sorted({name.partition("::")[0] for name in tests})
            copy = free.pop()
            running[start(copy, files, Chosen(tests))] = (mutant, copy, whole, deadline)
        for pid, (mutant, copy, whole, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = not ended and time.monotonic() > deadline
            if ended or late:
                end(pid)
                if late:
                    os.waitpid(pid, 0)
                put(copy / mutant.path, whole)
                free.append(copy)
                del running[pid]
                yield mutant, not late and status == 0
        time.sleep(0.01)


def main() -> None:
    """Try a sample of changes, and print whether a test noticed each."""
    parser = argparse.ArgumentParser(description="Shows which small changes of the code no test notices.")
    parser.add_argument("paths", nargs="*", default=DEFAULT, help="files or folders to change")
    parser.add_argument("--sample", type=int, default=60, help="how many changes to try; 0 tries all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=20, help="how long the tests of one change may take, about")
    parser.add_argument("--lines", default="", help="of one file alone, such as 10-20")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / str(number) for number in range(given.jobs)]
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
        files = [
            str(file.relative_to(copies[0]))
            for path in given.paths
            for file in ([copies[0] / path] if path.endswith(".py") else sorted((copies[0] / path).rglob("*.py")))
        ]
        first, _, last = given.lines.partition("-")
        wanted = range(int(first or 0), int(last or first or 10**6) + 1)
        every = [mutant for path in files for mutant in mutants(path, copies[0]) if mutant.line in wanted]
        chosen = random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))
        print(f"{len(chosen)} of {len(every)} changes of {len(files)} files", flush=True)
        left = 0
        for path in sorted({mutant.path for mutant in chosen}):
            marking = (copies[0] / "tests/lines.py").read_bytes()
            found = reached(path, copies[0], Path(folder))
            for copy in copies:
                put(copy / "tests/lines.py", marking + UNMARKED)
            for name in found.modules:
                with suppress(ImportError):
                    importlib.import_module(name)
            own = sorted((mutant for mutant in chosen if mutant.path == path), key=lambda mutant: mutant.start)
            for mutant, alive in survivors(found, own, copies, given.seconds):
                left += alive
                print("survives " if alive else "noticed  ", mutant, flush=True)
            for copy in copies:
                put(copy / "tests/lines.py", marking)
    print(f"{left} of {len(chosen)} survive")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
