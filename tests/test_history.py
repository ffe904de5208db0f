"""`invoke history`: which receipts are read and shown, and what is said of those that are not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts import history
from scripts.ecs import receipts
from scripts.ecs.receipts import Kept
from scripts.frame import console, settings, stop
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.history import History, Page, Written
from tests.test_receipts import receipt

ONE, TWO = receipt("v1"), receipt("v2")
NAMES = ("dev", "impl", "prod")


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (History("dev", ()), "dev has no receipts yet"),
        (History("dev", (ONE,)), "dev has 1 receipt"),
        (History("dev", (TWO, ONE)), "dev has 2 receipts"),
        (Written("a.html", 0), "a.html shows 0 runs"),
        (Written("a.html", 1), "a.html shows 1 run"),
        (Written("a.html", 2), "a.html shows 2 runs"),
    ],
)
def test_the_last_line_counts_what_was_found(report: History | Written, line: str) -> None:
    """In the singular for one."""
    assert report.line() == line


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, ("octocat", "deploy", "v1", "2 s", "succeeded")),
        ({"version": ""}, ("octocat", "deploy", "-", "2 s", "succeeded")),
        (
            {"version": "a" * 40, "seconds": 90.6},
            ("octocat", "deploy", "aaaaaaa", "91 s", "succeeded"),
        ),
        ({"actor": "x" * 41}, ("x" * 39 + "…", "deploy", "v1", "2 s", "succeeded")),
    ],
    ids=["a version", "no version", "a commit", "a long name"],
)
def test_a_receipt_is_a_row(changes: dict[str, Any], row: tuple[str, ...]) -> None:
    """When, who, what, which version, how long and how it ended."""
    given = {"version": "v1", "actor": "octocat", "seconds": 2.4, "started": 1_700_000_000.0} | changes
    made = receipt(**given)

    rows = [("WHEN (UTC)", "WHO", "COMMAND", "VERSION", "TOOK", "VERDICT"), ("2023-11-14 22:13", *row)]
    assert history.table([made]) == History("dev", (made,)).table() == rows
    assert history.table([]) == []


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "succeeded"),
        ({"left": "b" * 40}, "succeeded (rollback from bbbbbbb)"),
        ({"promotion": "promotion skipped"}, "succeeded (promotion skipped)"),
        ({"verdict": "failed", "exit_code": 1}, "failed (exit code 1)"),
        (
            {"verdict": "unknown", "exit_code": 3, "left": "v2", "promotion": "p"},
            "unknown (rollback from v2, p, exit code 3)",
        ),
        ({"verdict": "odd\n\x1b"}, r"odd \x1b (exit code 1)"),
    ],
)
def test_how_a_run_ended_is_told_with_what_matters_beside_it(changes: dict[str, Any], verdict: str) -> None:
    """An exit code only if it is not 0."""
    assert history.table([receipt("v1", **changes)])[1][-1] == verdict


@pytest.mark.parametrize("flag", ["0", "-1", "1001", "", "x", "1.5", "1e2", "٣", "²", "1_0", "000000001", "9" * 5000])
def test_a_limit_is_a_number_up_to_a_thousand(flag: str) -> None:
    """Anything else is refused, however long it is."""
    with pytest.raises(Refused, match=r"--limit must be a number from 1 to 1000, not ") as refused:
        history._limit(flag, 20)
    assert len(str(refused.value)) < 120


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each environment has of receipts, a `Kept` or an error; "most" is how many were asked for."""
    found: dict[str, Any] = {}

    def read(environment: Environment, most: int) -> Kept:
        found["most"] = most
        answer = found.get(environment.name, Kept(()))
        if isinstance(answer, DeployError):
            raise answer
        return Kept(answer.receipts[:most], answer.damaged)

    monkeypatch.setattr(receipts, "read", read)
    return found


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ({}, 20),
        ({"limit": "1"}, 1),
        ({"limit": "1000"}, 1000),
        ({"html": "page.html"}, 200),
        ({"html": "page.html", "limit": "7"}, 7),
    ],
)
def test_how_many_receipts_are_read(
    flags: dict[str, str], most: int, kept: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them for a page, unless a number is given."""
    monkeypatch.chdir(tmp_path)

    history.history(Run("history", settings.environment("dev", dry_run=True)), **flags)

    assert kept["most"] == most


def test_damaged_receipts_are_named_and_the_others_are_shown(
    kept: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first three."""
    kept["dev"] = Kept((TWO, ONE), ("a", "b", "c", "d"))
    run = Run("history", settings.environment("dev"))

    assert history.history(run) == History("dev", (TWO, ONE))
    assert "4 receipts are damaged and left out: a, b, c\n" in capsys.readouterr().err
    kept["dev"] = Kept((TWO, ONE))
    history.history(run)
    assert "damaged" not in capsys.readouterr().err


def test_on_a_narrow_terminal_a_receipt_is_still_one_line(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its end is cut off; where stdout is no terminal, it is not."""
    kept["dev"] = Kept((receipt("v1", verdict="v" * 100),))
    run = Run("history", settings.environment("dev"))

    history.history(run)
    whole = capsys.readouterr().out
    monkeypatch.setattr(console, "width", lambda: 60)
    history.history(run)

    assert "v" * 100 in whole
    assert [len(line) for line in capsys.readouterr().out.splitlines()][1] == 60


def test_a_page_needs_no_variables_of_other_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded environment is on it only if it was asked for."""
    text, head = (settings.ROOT / "environments.toml").read_text(), "[environments.prod]\nsite = "
    (tmp_path / "settings.toml").write_text(text.replace(head, f'{head}"https://${{HOST_OF_PROD}}" # '))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(tmp_path / "settings.toml"))

    shown = history._shown(Run("history", settings.environment("dev")))

    assert [one.name for one in shown] == list(NAMES)
    embedded = history._shown(Run("history", settings.environment("local")))
    assert [one.name for one in embedded] == [*NAMES, "local"]


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("found", "lines", "says", "runs"),
    [
        (
            {"dev": Kept((TWO, ONE)), "impl": Kept((ONE,), ("a",)), "prod": DeployError("not allowed")},
            ["  dev: 2 runs", "  impl: 1 receipts are damaged", "  prod: not allowed"],
            ["prod is not shown: not allowed"],
            3,
        ),
        (
            {"impl": Kept((), ("a", "b")), "prod": DeployError("gone")},
            ["  dev: 0 runs", "  impl: 2 receipts are damaged", "  prod: gone"],
            ["impl is not shown: 2 receipts are damaged", "prod is not shown: gone"],
            0,
        ),
        (
            dict.fromkeys(("dev", "impl", "prod"), DeployError("no")),
            ["  dev: no", "  impl: no", "  prod: no"],
            [],
            None,
        ),
    ],
    ids=["one cannot be read", "one is damaged", "none can be read"],
)
def test_a_page_says_what_is_missing_on_it(
    dry_run: bool,
    found: dict[str, Any],
    lines: list[str],
    says: list[str],
    runs: int | None,
    kept: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is written if any environment could be read, and writing it changes nothing anywhere else."""
    kept |= found
    path = tmp_path / "page.html"
    run = Run("history", settings.environment("dev", dry_run=dry_run), dry_run=dry_run)

    if runs is None and not dry_run:
        with pytest.raises(DeployError) as failed:
            history.history(run, html=str(path))
        assert str(failed.value).splitlines() == [line.strip() for line in lines]
    else:
        assert history.history(run, html=str(path)) == (None if dry_run else Written(str(path), runs or 0))
        (step,) = run.steps
        assert isinstance(step.plan, Page)
        assert step.plan.describe() == [f"write {path}", *lines]
        said = capsys.readouterr().err
        assert [line for line in says if line not in said] == []
    assert path.exists() == (runs is not None and not dry_run)
    assert stop.exit_code() == 2
