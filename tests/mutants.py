"""Changes the code in small ways and shows which changes no test notices: `make mutants`, or with files

    python -m tests.mutants --sample=40 scripts/deploy.py scripts/frame/

It works on copies of the checkout, each change alone, with the tests of the module that is changed. What survives
either needs a test or makes no difference; a change that does neither is a line that can go.
"""

import argparse
import ast
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent
# Stops sixty deployments; what it would notice, the others of its file do too.
SLOW = "test_a_deployment_that_is_stopped"
LEFT_OUT = shutil.ignore_patterns(".venv", ".local", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
# Where the tests of a module are, where its name does not say it. The first that fits counts.
TESTS = {
    "scripts/frame/declaration.py": "tests/test_cli.py tests/test_odd_text.py tests/test_stop.py",
    "scripts/frame/console.py": "tests/test_run.py tests/test_text.py tests/test_cli.py",
    "scripts/frame/errors.py": "tests/test_run.py tests/test_cli.py tests/test_text.py",
    "scripts/frame/report.py": "tests/test_run.py tests/test_status.py",
    "scripts/frame/run.py": "tests/test_run.py tests/test_stop.py tests/test_cli.py",
    "scripts/deploy.py": "tests/test_deploy.py tests/e2e/test_pipeline.py tests/test_deploy_database_steps.py",
    "scripts/deploy_service.py": "tests/test_deploy_service.py tests/test_cli.py tests/test_recordings.py",
    "scripts/ecs/": "tests/test_{name}.py tests/test_rollout.py tests/test_healthcheck.py tests/test_cli.py",
    "scripts/edges/s3.py": "tests/release",
    "scripts/edges/git.py": "tests/test_version.py tests/test_revert.py",
    "scripts/release": "tests/release",
    "scripts/": "tests/test_{name}.py",
    "ecs_manager/": "tests/ecs_manager tests/test_recordings.py",
    "local_aws/": "tests/local_aws",
}
DEFAULT = ["scripts/frame/", "scripts/ecs/", "scripts/deploy.py", "scripts/deploy_service.py", "scripts/healthcheck.py"]
OTHER = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: the text between two offsets (in bytes of UTF-8) of a file is another one."""

    path: str
    line: int
    start: int
    end: int
    new: str

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def __str__(self) -> str:
        old = " ".join((ROOT / self.path).read_bytes()[self.start : self.end].decode().split())
        return f"{self.path}:{self.line}: {old[:100]}  ->  {' '.join(self.new.split())[:100] or 'nothing'}"


def mutants(path: str) -> list[Mutant]:
    """All changes of one file."""
    source = (ROOT / path).read_bytes()
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def at(node: ast.AST) -> tuple[int, int]:
        begin, end = offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return begin, end

    found = []
    for node, new in changes(ast.parse(source)):
        start, end = at(node)
        if isinstance(node, ast.keyword):
            # With the comma behind it.
            end += len(re.match(rb"\s*,?", source[end:])[0])  # type: ignore[index]
        found.append(Mutant(path, node.lineno, start, end, new))  # type: ignore[attr-defined]
    return found


def changes(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Each part of a module that is changed, with what takes its place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
        if isinstance(node, ast.JoinedStr):
            # What is inside does not know where it is.
            node.values = []
        for kind, change in KINDS.items():
            if isinstance(node, kind):
                yield from change(node)


def _compare(node: ast.Compare) -> Iterator[tuple[ast.AST, str]]:
    if len(node.ops) == 1:
        left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
        yield node, f"({left}) {OTHER[type(node.ops[0])]} ({right})"


def _bool(node: ast.BoolOp) -> Iterator[tuple[ast.AST, str]]:
    word = " or " if isinstance(node.op, ast.And) else " and "
    yield node, word.join(f"({ast.unparse(value)})" for value in node.values)


def _condition(node: ast.If | ast.While | ast.IfExp) -> Iterator[tuple[ast.AST, str]]:
    yield node.test, f"not ({ast.unparse(node.test)})"


def _call(node: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    for keyword in node.keywords:
        if keyword.arg:
            yield keyword, ""


def _statement(node: ast.Expr | ast.Raise) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Raise) or isinstance(node.value, ast.Call):
        yield node, "pass"


def _return(node: ast.Return) -> Iterator[tuple[ast.AST, str]]:
    if node.value is not None and ast.unparse(node.value) not in ("None", "[]", "''", "()", "{}"):
        yield node, "return None"


def _constant(node: ast.Constant) -> Iterator[tuple[ast.AST, str]]:
    value = node.value
    if isinstance(value, bool):
        yield node, str(not value)
    elif isinstance(value, (int, float)):
        yield node, repr(value + 1)
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:/=-]+", value):
        # A sentence is for people; a word is a name that somebody else knows.
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
    """The tests that a change of a file should fail, of those that there are."""
    own = f"tests/test_{Path(path).stem}.py"
    listed = next((tests for start, tests in TESTS.items() if path.startswith(start)), own)
    words = [own, *listed.format(name=Path(path).stem).split()]
    return sorted({word for word in words if (ROOT / word).exists()})


def passes(copy: Path, tests: list[str], seconds: float) -> bool:
    """Whether the tests pass in a copy; too slow is a failure."""
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-k", f"not {SLOW}", *tests]
    process = subprocess.Popen(
        pytest, cwd=copy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # Also what the tests have left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def survives(mutant: Mutant, copies: "Queue[Path]", seconds: float) -> bool:
    """Whether no test notices a change."""
    copy = copies.get()
    file = copy / mutant.path
    whole = file.read_bytes()
    try:
        changed = mutant.apply(whole)
        try:
            compile(changed, mutant.path, "exec")
        except SyntaxError:
            return False
        file.write_bytes(changed)
        return passes(copy, tests_of(mutant.path), seconds)
    finally:
        file.write_bytes(whole)
        copies.put(copy)


def main() -> None:
    """Try a sample of changes, and print those that no test has noticed."""
    parser = argparse.ArgumentParser(description="Shows which small changes of the code no test notices.")
    parser.add_argument("paths", nargs="*", default=DEFAULT, help="files or folders to change")
    parser.add_argument("--sample", type=int, default=60, help="how many changes to try; 0 tries all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the tests of one change")
    given = parser.parse_args()
    files = [
        str(file.relative_to(ROOT))
        for path in given.paths
        for file in ([ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py")))
    ]
    every = [mutant for path in files for mutant in mutants(path)]
    chosen = random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))
    print(f"{len(chosen)} of {len(every)} changes of {len(files)} files", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        copies: Queue[Path] = Queue()
        for number in range(given.jobs):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
            copies.put(copy)
        for path in sorted({mutant.path for mutant in chosen}):
            if not passes(copy, tests_of(path), given.timeout):
                sys.exit(f"{path}: its tests fail already: {' '.join(tests_of(path)) or 'there are none'}")
        found = pool.map(lambda mutant: (mutant, survives(mutant, copies, given.timeout)), chosen)
        left = []
        for mutant, alive in found:
            left += [mutant] * alive
            print("survives " if alive else "noticed  ", mutant, flush=True)
    print(f"{len(left)} of {len(chosen)} survive")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
