"""The rehearsals of docs/runbook.md: each scenario, one command in it, its exit code and what it prints."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_aws import process
from local_aws.scenarios import SCENARIOS
from local_aws.server import Server
from scripts import local
from scripts.frame.errors import DeployError
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.e2e import rehearsal
from tests.e2e.rehearsal import shape
from tests.faults.recorder import Laboratory

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
PRINTED = rehearsal.printed(RUNBOOK)


@pytest.fixture
def laboratory(
    embedded_server: Server, clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laboratory]:
    with rehearsal.rehearsing(embedded_server, tmp_path, monkeypatch) as made:
        yield made


def test_the_runbook_has_the_text_of_every_rehearsal() -> None:
    """In the order in which the command goes through them. `make rehearsal` writes it."""
    chapter = "\n".join(rehearsal.section(name, PRINTED.get(name, ())) for name in SCENARIOS)
    assert RUNBOOK.partition("### ")[2] == chapter.removeprefix("### ")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_and_prints_as_the_runbook_says(name: str, laboratory: Laboratory) -> None:
    """`make rehearsal` writes what is printed now into the runbook."""
    done = rehearsal.rehearse(laboratory, name)

    assert done.code == SCENARIOS[name].code, done.said
    assert shape(done.said.splitlines()) == shape(PRINTED[name])


def test_a_scenario_is_rehearsed_as_the_runbook_shows_it(invoke: Invoke) -> None:
    """In a real process and real time, on an embedded AWS of its own, which is gone afterwards."""
    done = invoke("local.rehearse", "--scenario=lambda-errors", GITHUB_ACTIONS="")

    assert done.returncode == 0, done.stderr
    port = re.search(r"starting the embedded AWS on port (\d+)", done.stderr)
    assert port
    assert process.status(int(port[1])) is None
    assert list(process.FOLDER.glob(f"{port[1]}.*")) == []
    _, _, said = done.stderr.partition(f"== lambda-errors: {SCENARIOS['lambda-errors'].says}\n")
    command, *lines, outcome, last = said.splitlines()
    assert command == f"$ invoke {' '.join(SCENARIOS['lambda-errors'].deployment('local'))}"
    assert shape(lines) == shape(PRINTED["lambda-errors"])
    assert outcome == SCENARIOS["lambda-errors"].outcome()
    assert last.startswith("each scenario ended as it should: lambda-errors (")
    assert done.stdout.splitlines()[1].split()[:2] == ["lambda-errors", "1"]


def test_a_scenario_that_ends_otherwise_is_a_failure(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal says which one, and how."""
    name = "lambda-errors"
    cloud.server.stage(name)
    monkeypatch.setitem(SCENARIOS, name, replace(SCENARIOS[name], code=4))

    with pytest.raises(DeployError, match=r"In lambda-errors the deployment ends with exit code 1 instead of 4\."):
        local._scene("local", name, cloud.server.cloud.port)


def test_the_plan_of_a_rehearsal_names_its_commands(invoke: Invoke) -> None:
    """And nothing is started for a name that is none."""
    done = invoke("local.rehearse", "--dry-run")
    assert [line for line in done.stderr.splitlines() if line.startswith("  would in ")] == [
        f"  would in {name}: invoke {' '.join(one.deployment('local'))}" for name, one in SCENARIOS.items()
    ]
    assert invoke("local.rehearse", "--scenario=earthquake").returncode == 2


def test_the_page_is_written_as_it_is_read() -> None:
    """Sections are written anew, but what was printed before stays if it says the same."""
    block, after = "    $ invoke b --c\n    took (1 s)\n", "## Next\n\n    $ invoke d\n"
    page = f"# A\n\n## Rehearse it\n\nHow.\n\n### slow\n\nOld.\n\n{block}\n{after}"
    assert rehearsal.printed(page) == {"slow": ("took (1 s)",)}

    written = rehearsal.rewritten(page, {"slow": "took (2 s)\n", "denied": "no\n\nright\n"})
    chapter = rehearsal.section("slow", ["took (1 s)"]) + "\n" + rehearsal.section("denied", ["no", "right"])
    assert written == f"# A\n\n## Rehearse it\n\nHow.\n\n{chapter}{after}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("task 0123456789abcdef0123456789abcdef", "task ffffffffffffffffffffffffffffffff", True),
        ("3 tasks died", "4 tasks died", True),
        ("exit code 3", "exit code 4", False),
        ("was rolled back", "was superseded", False),
        ("a\na", "a", True),
        ("http://127.0.0.1:1/health answers with v0\na", "a", True),
        ("at http://127.0.0.1:1/", "at http://127.0.0.1:2/", True),
    ],
)
def test_only_what_differs_between_two_runs_is_left_out(one: str, other: str, same: bool) -> None:
    """What is compared would otherwise be nothing."""
    assert (shape(one.splitlines()) == shape(other.splitlines())) is same
