"""Tries the whole fault matrix, writes docs/faults.md, and prints what is wrong. Run by `make faults`."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from local_aws.server import Server
from tests.faults import matrix
from tests.faults.matrix import Bench, Cell


def main(path: Path) -> int:
    """Write the document. Returns the number of cells with a wrong result."""
    for name in set(os.environ) - {"PATH", "LANG"}:
        del os.environ[name]
    server = Server()
    os.environ["AWS_ENDPOINT_URL"] = server.cloud.url
    server.start()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            pytest.MonkeyPatch.context() as monkeypatch,
            matrix.bench(server, Path(folder), monkeypatch) as bench,
        ):
            results, faults = tried(bench)
    finally:
        server.stop()
    path.write_text(matrix.document(results))
    print(f"{len(results)} cells, {len(faults)} of them wrong")
    return len(faults)


def tried(bench: Bench) -> tuple[dict[Cell, int | None], list[str]]:
    """The exit code of every cell, and what is wrong."""
    results: dict[Cell, int | None] = {}
    faults = []
    for name in matrix.COMMANDS:
        clean = matrix.record(bench, name)
        for cell in matrix.cells(name, clean):
            done = matrix.tried(bench, cell)
            results[cell] = done.code if done else None
            fault = matrix.fault_of(cell, clean, done) if done else ""
            if fault:
                faults.append(fault)
                print(f"{cell}: {fault}", flush=True)
    return results, faults


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]))))
