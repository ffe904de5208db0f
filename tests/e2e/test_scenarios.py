"""The rehearsals of docs/runbook.md: each scenario, one command in it, its exit code and what it prints."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_aws.scenarios import SCENARIOS
from local_aws.server import Server
from tests.conftest import ROOT
from tests.e2e import rehearsal
from tests.e2e.rehearsal import Section, shape
from tests.faults.recorder import Laboratory

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = {section.name: section for section in rehearsal.sections(RUNBOOK)}


@pytest.fixture
def laboratory(
    embedded_server: Server, clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laboratory]:
    with rehearsal.rehearsing(embedded_server, tmp_path, monkeypatch) as made:
        yield made


def test_the_runbook_rehearses_every_scenario() -> None:
    """In the order in which they are listed, by name, with an exit code."""
    assert list(SECTIONS) == list(SCENARIOS)
    for name, section in SECTIONS.items():
        assert section.code is not None, name
        assert section.commands[0] == ("local.up", f"--scenario={name}")


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS.keys())
def test_a_scenario_ends_and_prints_as_the_runbook_says(section: Section, laboratory: Laboratory) -> None:
    """`make rehearsal` writes what is printed now into the runbook."""
    done = rehearsal.rehearse(laboratory, section)

    assert done.code == section.code, done.said
    assert shape(tuple(done.said.splitlines())) == shape(section.printed)


def test_the_page_is_written_as_it_is_read() -> None:
    """A section keeps its text and its commands, and gets what was printed."""
    block = "    $ invoke a\n    $ invoke b --c\n    old\n"
    page = f"# A\n\n### slow\n\nIt takes long.\n\n{block}\nMore.\n\n## Next\n\n    $ invoke d\n"
    (section,) = rehearsal.sections(page)
    assert section.commands == (("a",), ("b", "--c"))
    assert section.printed == ("old",)

    written = rehearsal.rewritten(page, section, "one\n\ntwo\n")
    assert written == page.replace("    old\n", "    one\n    two\n")


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
    assert (shape(tuple(one.splitlines())) == shape(tuple(other.splitlines()))) is same
