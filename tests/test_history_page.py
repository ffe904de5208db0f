"""`invoke history --html`: one page of all environments. tests/e2e/test_history_page.py opens it in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scripts.ecs import page, receipts
from scripts.ecs.page import DAY, HOUR, Lane, Span
from scripts.ecs.receipts import Receipt
from tests.conftest import ROOT, EmbeddedCloud, Invoke

NOW = 1_764_000_000.0
# Changes the title of a page in which it is run or loaded.
HOSTILE = """</style></title><script>document.title="run"</script><img src=x onerror="document.title=1">"'&lt;\x1b"""
TAGS = {"html", "head", "meta", "title", "style", "body", "header", "section", "h1", "h2", "p", "span", "i", "b", "a"}
TAGS |= {"div", "details", "summary", "time", "table", "tbody", "tr", "td", "dl", "dt", "dd"}
VERSIONS = ["a" * 40, "b" * 40]


def receipt(environment: str, at: float, **changes: Any) -> dict[str, Any]:
    """A receipt as it is in a bucket."""
    given = {"format": 1, "id": "r", "application": "mint-app", "environment": environment, "command": "deploy"}
    phases = [{"name": "build it", "seconds": 20.0, "result": "built"}, {"name": "watch it", "seconds": 70.5}]
    given |= {"version": VERSIONS[0], "service": "mint-app", "actor": "octocat", "phases": phases, "exit_code": 0}
    return given | {"started": at, "seconds": 100.0, "verdict": "succeeded"} | changes


def hostile(environment: str, at: float) -> dict[str, Any]:
    """A receipt with hostile text in each of its fields."""
    texts = ("id", "command", "version", "service", "digest", "old_revision", "new_revision", "deployment_id")
    texts += ("release", "rolled_back_from", "promotion", "actor", "verdict")
    made = receipt(environment, at) | dict.fromkeys(texts, HOSTILE[:100])
    made |= {"run": f"javascript:document.title='run'//{HOSTILE}", "proof": [HOSTILE], "reasons": [HOSTILE]}
    phases = [{"name": f"{HOSTILE} {number}", "seconds": 1, "result": HOSTILE} for number in range(3)]
    return made | {"phases": phases, "services": [{"service": HOSTILE, "verdict": HOSTILE}], "exit_code": 1}


class Tags(HTMLParser):
    """The elements of a page, and the addresses that they lead to."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.names, self.links, self.others = set[str](), set[str](), set[str]()
        self.feed(shown)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links |= {str(value) for name, value in attrs if name == "href"}
        self.others |= {name for name, _ in attrs if name in ("src", "srcset", "action") or name.startswith("on")}


class Outline(HTMLParser):
    """The elements of a page in lines: name, classes, other attributes and text, indented as they are nested."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.lines, self.depth = list[str](), 0
        self.feed(shown)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if name != "class"}
        classes = str(dict(attrs).get("class", "")).split()
        words = [".".join([tag, *classes]), *(f'{name}="{value}"' for name, value in given.items())]
        self.lines.append("  " * self.depth + " ".join(words))
        self.depth += tag != "meta"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.lines.append("  " * self.depth + f'"{data[:100].strip()}"')


def loaded(**changes: Any) -> Receipt:
    """A receipt of dev."""
    return receipts.load(json.dumps(receipt("dev", **{"at": NOW, **changes})).encode())


def put(cloud: EmbeddedCloud, bucket: str, *documents: dict[str, Any]) -> None:
    """Put receipts into a bucket."""
    for number, document in enumerate(documents):
        body = json.dumps(document).encode()
        cloud.client("s3").put_object(Bucket=bucket, Key=f"{receipts.PREFIX}2026{number}.json", Body=body)


def test_an_embedded_environment_is_shown_only_if_it_is_asked_for(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    planned = invoke("history", "--env=local", f"--html={tmp_path / 'page.html'}", "--dry-run", **cloud.env)

    assert planned.returncode == 0, planned.stderr
    assert re.findall(r"^ +(?:would )?(\w+): ", planned.stderr, re.MULTILINE) == ["dev", "impl", "prod", "local"]


def test_every_element_of_a_page() -> None:
    """Of an environment with its runs, and of one that cannot be read: tests/history_page.txt."""
    facts = {"run": "https://github.com/x/y/actions/runs/7", "proof": ["2 of 2 tasks run", "its page"], "release": "r1"}
    images = {"digest": "sha256:0", "old_revision": "x/app:1", "new_revision": "x/app:2", "promotion": "not asked"}
    worker = {"service": "worker", "verdict": "succeeded", "new_revision": "x/worker:3"}
    good = loaded(at=NOW - 9000, services=[worker], **facts, **images)
    back = loaded(at=NOW - 500, command="rollback", version=VERSIONS[1], rolled_back_from=VERSIONS[0], seconds=900.0)
    nobody = {"actor": "", "version": "", "phases": [], "run": "file:x"}
    failed = loaded(verdict="failed", exit_code=1, reasons=["tasks die", "1"], **nobody)
    lanes = [Lane("dev", (failed, back, good)), Lane("prod", (), "it cannot be read")]

    made = page.html("app", lanes, NOW).decode()

    assert made.startswith("<!doctype html>\n<html ")
    assert "\n".join(Outline(made).lines) + "\n" == (ROOT / "tests/history_page.txt").read_text()


def test_every_class_of_a_page_has_a_style_and_every_style_an_element() -> None:
    """In a page with each verdict and with a colour for each kind of phase."""
    phases = [{"name": f"{number}th", "seconds": 1.0} for number in range(page.HUES)]
    runs = [loaded(verdict=verdict, phases=phases, reasons=["x"]) for verdict in [receipts.SUCCEEDED, *page.SIGNS, "x"]]
    made = page.html("app", [Lane("dev", tuple(runs)), Lane("prod", (), "x")], NOW).decode()

    used = {name for names in re.findall('class="([^"]*)"', made) for name in names.split()}
    styled = set(re.findall(r"\.([a-z]\w*)", re.sub(r"\{[^}]*\}", "", page.STYLE)))
    assert used ^ styled == {"b0"}


@pytest.mark.parametrize(
    ("name", "kind"), [("deploy app", "deploy"), ("a" * 21, "a" * 20), ("watch", "watch"), ("", ""), (" x", "")]
)
def test_the_kind_of_a_phase(name: str, kind: str) -> None:
    """Its first word, which is shown in the legend."""
    assert page._kind(name) == kind


def test_no_more_kinds_are_in_the_legend_than_there_are_colours() -> None:
    phases = [{"name": f"kind{number}", "seconds": 1.0} for number in range(page.HUES + 1)]
    made = page.html("app", [Lane("dev", (loaded(phases=phases),))], NOW).decode()

    legend = made.partition("</header>")[0]
    assert [f"kind{number}<" in legend for number in range(page.HUES + 1)] == [True] * page.HUES + [False]
    # They begin again.
    assert made.count('class="h0"') == 2


@pytest.mark.parametrize(
    ("seconds", "share"), [(0.0, "0.50"), (0.4, "0.50"), (1.0, "1.00"), (100.0, "100.00"), (101.0, "100.00")]
)
def test_a_bar_is_seen_and_fits(seconds: float, share: str) -> None:
    """Of a run that took 100 s at most."""
    assert page._width(seconds, 100.0) == f"width:{share}%"


def test_the_style_is_as_it_was_written_in_actions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds no text from anywhere."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    assert f"<style>{page.STYLE}</style>" in page.html("app", [], NOW).decode()


def test_what_is_between_the_steps_of_a_run_is_seen() -> None:
    """However short it was."""
    phases = [{"name": "x", "seconds": 99.5}]
    made = page.html("app", [Lane("dev", (loaded(phases=phases),))], NOW).decode()

    assert '<i class="rest" style="width:0.50%" title="between the steps">' in made


def test_runs_that_took_no_time_have_bars() -> None:
    """And nothing is between their steps."""
    made = page.html("app", [Lane("dev", (loaded(seconds=0.0, phases=[{"name": "x", "seconds": 0.0}]),))], NOW).decode()

    assert 'style="width:0.50%" title="x: 0.0 s"' in made
    assert "between the steps" not in made


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (599.4, "599 s"), (600.0, "10 min"), (3600.0, "60 min")])
def test_how_long_a_run_took(seconds: float, told: str) -> None:
    assert page._took(seconds) == told


@pytest.mark.parametrize(
    ("days", "told"), [(1.9, "16:00"), (2, "24 Nov"), (364, "24 Nov"), (365, "Nov 2025"), (4000, "Nov 2025")]
)
def test_a_mark_of_the_axis_is_a_time_a_day_or_a_month(days: float, told: str) -> None:
    assert page._mark(NOW, Span(NOW - days * 86_400, NOW)) == told


@pytest.mark.parametrize(
    ("width", "named"),
    [(6.9, False), (7.0, True)],
)
def test_a_version_is_named_where_there_is_room(width: float, named: bool) -> None:
    """Of the time line, in percent. It is always in the title."""
    band = page._band(loaded(at=0.0), Span(0.0, 100.0), width, 3)

    assert (band.text, band.get("title"), band.get("class")) == ("aaaaaaa" if named else "", "aaaaaaa", "band mono b1")


def test_without_a_run_the_last_hour_is_shown() -> None:
    """As it is at least, if the first run was just now."""
    made = page.html("app", [Lane("dev", ())], NOW).decode()
    assert "0 runs, 2025-11-24 15:00 to 2025-11-24 16:00 UTC" in made
    assert "timeline" not in made.partition("</style>")[2]

    made = page.html("app", [Lane("dev", (loaded(),))], NOW + 60).decode()
    assert "1 run, 2025-11-24 15:01 to 2025-11-24 16:01 UTC" in made
    assert "by octocat · 1 of 1 runs went well · median 100 s" in made


@pytest.mark.parametrize("kind", ["folder", "link", "missing folder"])
def test_it_is_written_over_nothing_but_a_file(kind: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "out" / "x.html" if kind == "missing folder" else tmp_path / "out"
    if kind == "folder":
        path.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "other")

    refused = invoke("history", f"--html={path}", **cloud.env)

    assert refused.returncode == 2
    assert cloud.requests("s3") == []
    assert not (tmp_path / "other").exists()


def test_it_fails_if_no_environment_can_be_read(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "history.html"

    failed = invoke("history", "--env=dev", f"--html={path}")

    assert failed.returncode == 1, failed.stderr
    assert "prod: " in failed.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("begin", "end", "step", "marks"),
    [
        (0, HOUR, HOUR / 6, 7),
        (0, 8 * HOUR / 6, HOUR / 6, 9),
        (0, 8 * HOUR / 6 + 1, HOUR, 2),
        (HOUR + 1, 9 * HOUR, HOUR, 8),
        (0, 48 * HOUR, 6 * HOUR, 9),
        (0, 8 * DAY, DAY, 9),
        (1, 8 * DAY, DAY, 8),
        (0, 56 * DAY, 7 * DAY, 9),
        (0, 112 * DAY, 14 * DAY, 9),
        (0, 240 * DAY, 30 * DAY, 9),
        (0, 720 * DAY, 90 * DAY, 9),
        (0, 8 * 365 * DAY, 365 * DAY, 9),
        (0, 8 * 3650 * DAY, 3650 * DAY, 9),
        (0, 9 * 3650 * DAY, 3650 * DAY, 10),
    ],
)
def test_the_axis_has_a_few_marks(begin: float, end: float, step: float, marks: int) -> None:
    """At whole hours, days, weeks, months."""
    found = Span(begin, end).marks()

    assert found == [-(-begin // step) * step + number * step for number in range(marks)]
    assert all(0 <= Span(begin, end).at(mark) <= 100 for mark in found)
