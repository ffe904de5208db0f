"""Changes the code in small ways and lists the changes that no test notices: `make mutants`, or with files

    python -m tests.mutants --sample=40 scripts/deploy.py scripts/frame/

It works on copies of the checkout. All tests but the end-to-end ones first run on the unchanged code, file by file, to
learn which lines each reaches. Then each change is tested alone, by tests that reach its line, in a process forked from
one that has imported everything but the project. A surviving change needs a test, makes no difference, or shows a line
that can be deleted.
"""

import argparse
import ast
import gc
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import lines

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
OWN = {"tests", "scripts", "ecs_manager", "local_aws", "tasks"}
LEFT_OUT = shutil.ignore_patterns(".venv", ".local", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
DEFAULT = ["scripts/frame/", "scripts/ecs/", "scripts/deploy.py", "scripts/deploy_service.py", "scripts/healthcheck.py"]
# Appended to tests/lines.py: the compiled sources are kept for the next file of tests; and once the reached lines are
# known, nothing is marked, because that takes as long as a quick test.
KEPT = b"""

def remove() -> None:
    pass
"""
UNMARKED = (
    KEPT
    + b"""

def install() -> None:
    pass


def prepare() -> None:
    pass
"""
)
# Seconds that tests may take which come from another file, and those that a change gets at first: most need no more.
# A test that takes more than this part of them is a long one.
FILE, FIRST, LONG = 0.3, 2.0, 0.1
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
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("TypeVar", "ParamSpec"):
        return [*node.args, *node.keywords]
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


@dataclass(frozen=True)
class Test:
    """A test, its seconds, and the lines that it reaches: the path of each file -> line numbers."""

    name: str
    seconds: float
    lines: Mapping[str, Collection[int]]

    @property
    def file(self) -> str:
        """Where it stands."""
        return self.name.partition("::")[0]

    @property
    def function(self) -> str:
        """Its name without parameters."""
        return self.name.partition("[")[0]


def tests_for(mutant: Mutant, tests: Sequence[Test], most: float) -> list[Test]:
    """Tests that may notice a change, for about `most` seconds, but at least one, in the order to be run.

    tests: in the order of `record`: many tests pass through a line, and those that reach few are about it. Those that
    take long come last. With the parameters that reach the line go the others of the test, which may have found its
    result in a cache. If none reaches the line, any may notice it, because it is one that runs when the module is
    imported.
    """
    reaching = {test.function for test in tests if not {*mutant.reached}.isdisjoint(test.lines.get(mutant.path, ()))}
    reaching = reaching or {test.function for test in tests if mutant.path in test.lines}
    every = [test for test in tests if not reaching or test.function in reaching]
    every.sort(key=lambda test: test.seconds > most * LONG)
    found, files, left = list[Test](), set[str](), most
    for test in every:
        left -= test.seconds + FILE * (test.file not in files)
        if left < 0 and found:
            break
        found.append(test)
        files.add(test.file)
    return found


class Recorder:
    """A pytest plugin that records which lines each test reaches."""

    def __init__(self, copy: Path, into: Path) -> None:
        self.copy, self.into, self.tests = copy, into, list[dict[str, Any]]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        import builtins

        # That of the copy.
        from tests import lines as copied

        memory = builtins.__lines__  # type: ignore[attr-defined]
        memory[:] = bytes(len(memory))
        began = time.monotonic()
        result = yield
        seconds, marked, found = time.monotonic() - began, bytes(memory), dict[str, list[int]]()
        starts = [(Path(path), start) for path, start in copied.offsets().items() if path]
        for (path, start), (_, stop) in itertools.pairwise([*starts, (self.copy, len(marked))]):
            if numbers := [line for line, mark in enumerate(marked[start:stop]) if mark]:
                found[str(path.relative_to(self.copy))] = numbers
        self.tests.append({"name": item.nodeid, "seconds": seconds, "lines": found})
        return result

    def pytest_sessionfinish(self) -> None:
        modules = [name for name in sys.modules if not re.search("pytest|xdist|__main__", name)]
        others = [name for name in modules if name.partition(".")[0] not in OWN]
        self.into.write_text(json.dumps({"tests": self.tests, "modules": others}))


class Chosen:
    """A pytest plugin that runs only these tests, in their order."""

    def __init__(self, tests: Sequence[Test]) -> None:
        self.order = {test.name: number for number, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])


def marks(copy: Path) -> Path:
    """The folder with the marks of a copy, as in tests/lines.py."""
    return copy.with_suffix(".lines")


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
        os.environ[lines.VARIABLE] = str(marks(copy))
        # What is imported already needs no other assertions.
        quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        os._exit(pytest.main(["-x", "-q", *quiet, *words], plugins=[plugin]))
    finally:
        os._exit(99)


def end(pid: int, copy: Path) -> None:
    """Kill a process that `start` returned for a copy, and everything that its tests left running.

    What has a session of its own, such as an embedded AWS, still has its variables.
    """
    mark = f"{lines.VARIABLE}={marks(copy)}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(process.name)) == pid or mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def spread(
    jobs: Iterable[T], copies: Sequence[Path], begin: Callable[[T, Path], tuple[int, float]]
) -> Iterator[tuple[T, Path, int | None]]:
    """Run jobs in processes, one at a time in each copy.

    begin: starts one; returns its pid and the seconds it may take. Yields each job that has ended, its copy, and the
    status of its process; None for one that took longer.
    """
    left, free, running = iter(jobs), list(copies), dict[int, tuple[T, Path, float]]()
    while True:
        for job in itertools.islice(left, len(free)):
            copy = free.pop()
            pid, seconds = begin(job, copy)
            running[pid] = (job, copy, time.monotonic() + seconds)
        if not running:
            return
        for pid, (job, copy, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = not ended and time.monotonic() > deadline
            if ended or late:
                end(pid, copy)
                if late:
                    os.waitpid(pid, 0)
                del running[pid]
                yield job, copy, None if late else status
                free.append(copy)
        time.sleep(0.01)


def record(files: Sequence[str], copies: Sequence[Path]) -> tuple[list[Test], set[str]]:
    """Run files of tests on the unchanged code.

    Returns the tests, those that reach the fewest lines first, and the modules of others that they import.
    """

    def begin(file: str, copy: Path) -> tuple[int, float]:
        recorder = Recorder(copy, marks(copy) / "found.json")
        return start(copy, [file], recorder, str(marks(copy) / "output")), float("inf")

    tests, modules = list[Test](), set[str]()
    for file, copy, status in spread(files, copies, begin):
        if status:
            sys.exit(f"{(marks(copy) / 'output').read_text()}{file}: its tests fail already")
        found = json.loads((marks(copy) / "found.json").read_text())
        tests += [Test(**test) for test in found["tests"]]
        modules |= set(found["modules"])
    return sorted(tests, key=lambda test: sum(map(len, test.lines.values()))), modules


def put(file: Path, text: bytes, count: Iterator[int] = itertools.count(1_000_000_000)) -> None:  # noqa: B008
    """Write a file with a new time each time, so that a cached .pyc is never used for it."""
    file.write_bytes(text)
    now = next(count)
    os.utime(file, (now, now))


def survivors(
    tests: Sequence[Test], chosen: Sequence[Mutant], copies: Sequence[Path], most: float
) -> Iterator[tuple[Mutant, bool]]:
    """Try changes. Yields each, and whether no test noticed it."""
    unchanged = dict[Path, bytes]()

    def begin(mutant: Mutant, copy: Path) -> tuple[int, float]:
        unchanged[copy] = (copy / mutant.path).read_bytes()
        put(copy / mutant.path, mutant.apply(unchanged[copy]))
        found = tests_for(mutant, tests, most)
        files = sorted({test.file for test in found})
        return start(copy, files, Chosen(found)), 15 + 4 * sum(test.seconds for test in found)

    for mutant, copy, status in spread(chosen, copies, begin):
        put(copy / mutant.path, unchanged[copy])
        yield mutant, status == 0


def prepare(copies: Sequence[Path]) -> None:
    """Copy the checkout, to be marked."""
    for copy in copies:
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
        marks(copy).mkdir()
        (marks(copy) / "marks").write_bytes(bytes(lines.offsets()[""]))
        put(copy / "tests/lines.py", (ROOT / "tests/lines.py").read_bytes() + KEPT)


def main() -> None:
    """Try a sample of changes, and print whether a test noticed each."""
    parser = argparse.ArgumentParser(description="Shows which small changes of the code no test notices.")
    parser.add_argument("paths", nargs="*", default=DEFAULT, help="files or folders to change")
    parser.add_argument("--sample", type=int, default=60, help="how many changes to try; 0 tries all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=20, help="how long the tests of one change may take, about")
    parser.add_argument("--lines", default="", help="of one file alone, such as 10-20")
    parser.add_argument("--tests", nargs="*", default=[], help="files of tests to use; all but the end-to-end ones")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / str(number) for number in range(given.jobs)]
        prepare(copies)
        files = [
            str(file.relative_to(copies[0]))
            for path in given.paths
            for file in ([copies[0] / path] if path.endswith(".py") else sorted((copies[0] / path).rglob("*.py")))
        ]
        first, _, last = given.lines.partition("-")
        wanted = range(int(first or 0), int(last or first or 10**6) + 1)
        every = [mutant for path in files for mutant in mutants(path, copies[0]) if mutant.line in wanted]
        chosen = random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))
        chosen.sort(key=lambda mutant: (mutant.path, mutant.start))
        print(f"{len(chosen)} of {len(every)} changes of {len(files)} files", flush=True)
        found = (str(file.relative_to(ROOT)) for file in sorted((ROOT / "tests").rglob("test_*.py")))
        tests, modules = record(given.tests or [file for file in found if "tests/e2e/" not in file], copies)
        print(f"{len(tests)} tests", flush=True)
        for copy in copies:
            put(copy / "tests/lines.py", (ROOT / "tests/lines.py").read_bytes() + UNMARKED)
        for name in modules:
            with suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()
        left = chosen
        for seconds in (FIRST, given.seconds):
            tried, left = left, []
            for mutant, alive in survivors(tests, tried, copies, seconds):
                left += [mutant] if alive else []
                if not alive or seconds != FIRST:
                    print("survives " if alive else "noticed  ", mutant, flush=True)
    print(f"{len(left)} of {len(chosen)} survive")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
