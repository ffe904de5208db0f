"""Every request of every command fails in every way, and the exit code is true: docs/faults.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_aws.server import Server
from tests.conftest import ROOT
from tests.faults import matrix
from tests.faults.matrix import Bench

# One cell in so many is tried here; `make faults` tries them all.
EVERY = 40


@pytest.fixture
def bench(
    embedded_server: Server, clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """A laboratory."""
    with matrix.bench(embedded_server, tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize("name", matrix.COMMANDS)
def test_a_fault_ends_a_command_with_the_code_that_is_true(name: str, bench: Bench) -> None:
    """And with a sentence; the document says the same code."""
    document = matrix.documented((ROOT / "docs" / "faults.md").read_text())
    clean = matrix.record(bench, name)
    assert clean.code == 0, clean.said
    wrong = []

    every = list(matrix.cells(name, clean))
    assert {str(cell) for cell in every} <= document.keys()
    for cell in every:
        if matrix.sampled(cell, EVERY):
            done = matrix.tried(bench, cell)
            fault = matrix.fault_of(cell, clean, done) if done else ""
            code = str(done.code) if done else ""
            if fault or document[str(cell)] != code:
                wrong.append(f"{cell}: {fault or f'{code}, but {document[str(cell)]} in docs/faults.md'}")

    assert wrong == []
