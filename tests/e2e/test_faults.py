"""Every request of every command is broken in every way; the exit codes are right and match docs/faults.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from local_aws.server import Server
from scripts.frame.declaration import Command
from tests.conftest import ROOT
from tests.faults import matrix
from tests.faults.matrix import Bench

# Commands that ask nobody but this machine.
ALONE = {
    "adopt",
    "build-frontend",
    "package-ecs-manager",
    "settings",
    "local.up",
    "local.down",
    "local.status",
    "local.rehearse",
}
# One in this many cells is tried here; `make faults` tries all of them.
EVERY = 126


@pytest.fixture
def bench(
    embedded_server: Server, clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    with matrix.bench(embedded_server, tmp_path, monkeypatch) as made:
        yield made


def test_every_command_that_sends_requests_is_tried() -> None:
    """Whoever adds one adds it to the matrix."""
    there = {one.name for one in vars(tasks).values() if isinstance(one, Command)}
    tried = {next(word for word in one.words if not word.startswith("-")) for one in matrix.COMMANDS.values()}
    assert there == tried | ALONE


@pytest.mark.parametrize("name", matrix.COMMANDS)
def test_a_fault_ends_a_command_with_the_right_exit_code(name: str, bench: Bench) -> None:
    """The message is a sentence, and docs/faults.md has the same exit code."""
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


def test_a_response_that_drips_ends_a_command_like_one_that_does_not_come(bench: Bench) -> None:
    """Each byte comes before the client's time-out, so that without a bound the command would wait for all of them."""
    documented = matrix.documented((ROOT / "docs" / "faults.md").read_text())
    name = "clean-database"
    every = {str(cell): cell for cell in matrix.cells(name, matrix.record(bench, name))}
    cell = every[f"{name} | lambda Invoke the cleaner | slow"]

    matrix.begin(bench, name, "slow")
    bench.laboratory.break_next({"times": matrix.GONE, **cell.request.rule, "drip": True}, cell.request.step)
    slept = bench.laboratory.slept
    broken = matrix.run(bench, name)

    assert str(broken.code) == documented[str(cell)]
    assert re.search("(?i)read time(d )?out", broken.said)
    assert bench.laboratory.slept - slept < 1000
