"""Tries the fault matrix, writes docs/faults.md, and prints what is wrong. Run by `make faults`.

Commands that are named after the document are tried alone, and the rest of the document stays.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from local_aws.server import Server
from tests import lines
from tests.faults import matrix
from tests.faults.matrix import Bench, Cell


def main(path: Path, *names: str) -> int:
    """Write the document. Returns the number of cells with a wrong result. names: of commands, none for all."""
    for name in set(os.environ) - {"PATH", "LANG", lines.VARIABLE}:
        del os.environ[name]
    server = Server()
    os.environ["AWS_ENDPOINT_URL"] = server.cloud.url
    server.start()
    wrong = 0
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            pytest.MonkeyPatch.context() as monkeypatch,
            matrix.bench(server, Path(folder), monkeypatch) as bench,
        ):
            for name in names or matrix.COMMANDS:
                results, faults = tried(bench, name)
                path.write_text(matrix.document(results, path.read_text() if path.exists() else ""))
                print(f"{name}: {len(results)} cells, {len(faults)} of them wrong", flush=True)
                wrong += len(faults)
    finally:
        server.stop()
        lines.remove()
    return wrong


def tried(bench: Bench, name: str) -> tuple[dict[Cell, int | None], list[str]]:
    """The exit code of every cell of a command, and what is wrong."""
    results: dict[Cell, int | None] = {}
    faults = []
    clean = matrix.record(bench, name)
    if clean.code:
        faults.append(f"{name} fails without any fault: {clean.said}")
        print(faults[0], flush=True)
    for cell in matrix.cells(name, clean):
        done = matrix.tried(bench, cell)
        results[cell] = done.code if done else None
        fault = matrix.fault_of(cell, clean, done) if done else ""
        if fault:
            faults.append(fault)
            print(f"{cell}: {fault}", flush=True)
    return results, faults


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]).absolute(), *sys.argv[2:])))
