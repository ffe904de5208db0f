"""`invoke history --html`: one page of all environments, opened in a real browser."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scripts.ecs import page, receipts
from scripts.ecs.page import Lane, Span
from tests.conftest import EmbeddedCloud, Invoke
from tests.e2e import browser

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


def without_javascript(running: browser.Browser, url: str) -> str:
    """The text of a page in a tab that runs no script of it."""
    tab = running.open("about:blank")
    running.ask("Emulation.setScriptExecutionDisabled", tab._session, value=True)
    running.ask("Page.navigate", tab._session, url=url)
    deadline = time.monotonic() + browser.PATIENCE
    while tab.run("document.readyState + location.protocol") != f"complete{url.partition(':')[0]}:":
        assert time.monotonic() < deadline
    return str(tab.run("document.body.textContent")).strip()


def put(cloud: EmbeddedCloud, bucket: str, *documents: dict[str, Any]) -> None:
    """Put receipts into a bucket."""
    for number, document in enumerate(documents):
        body = json.dumps(document).encode()
        cloud.client("s3").put_object(Bucket=bucket, Key=f"{receipts.PREFIX}2026{number}.json", Body=body)


def test_the_page_shows_all_environments(cloud: EmbeddedCloud, invoke: Invoke, chromium: str, tmp_path: Path) -> None:
    """With a timeline and a table of each, and why one is missing; without JavaScript too. Nothing hostile is run."""
    for name in ("dev-site", "prod-site"):
        cloud.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    well = receipt("dev", NOW - 9000, run="https://github.com/x/y/actions/runs/7", proof=["2 of 2 tasks run"])
    back = receipt("dev", NOW - 500, command="rollback", version=VERSIONS[1], rolled_back_from=VERSIONS[0])
    failed = receipt("dev", NOW, verdict="failed", exit_code=1, reasons=["its tasks die: exit code 137"], actor="hubot")
    put(cloud, "dev-site", well, back, failed)
    put(cloud, "prod-site", receipt("prod", NOW - 90_000), hostile("prod", NOW - 100))
    path = tmp_path / "history.html"
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": cloud.url}
    buckets = {"STATIC_S3_BUCKET_DEV": "dev-site", "STATIC_S3_BUCKET_PROD": "prod-site"}

    planned = invoke("history", "--env=dev", f"--html={path}", "--dry-run", **keys, **buckets)
    there = path.exists()
    done = invoke("history", "--env=dev", f"--html={path}", **keys, **buckets)

    assert (planned.returncode, there) == (0, False)
    assert f"would write {path}" in planned.stderr
    assert re.findall(r"^ +(?:would )?(\w+): ", planned.stderr, re.MULTILINE) == ["dev", "impl", "prod"]
    assert done.returncode == 0, done.stderr
    assert "impl is not shown: " in done.stderr
    assert f"{path} shows 5 runs" in done.stderr
    written = path.read_text()
    found = Tags(written)
    assert found.names <= TAGS
    assert found.others == set()
    assert {link for link in found.links if not link.startswith("#")} == {"https://github.com/x/y/actions/runs/7"}
    with browser.browsing(chromium, tmp_path / "profile") as running:
        tab = running.open(path.as_uri())
        shown, title = tab.text("body"), tab.run("document.title")
        tab.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
        whole, wide = tab.text("body"), tab.run("document.documentElement.scrollWidth")
        errors, dots = tab.errors, tab.run("document.querySelectorAll('a.dot').length")
        plain = without_javascript(running, path.as_uri())
        off = without_javascript(running, "data:text/html,<p id=p>off</p><script>p.innerText = 'on'</script>")
    assert (title, errors, dots) == ("mint-app: deployments", [], 5)
    assert wide <= browser.WIDTH
    for told in ("runs bbbbbbb since", "by octocat · 2 of 3 runs went well", "✕ failed", "rollback from aaaaaaa"):
        assert told in shown
    for told in ("its tasks die: exit code 137", "70.5 s", "2 of 2 tasks run", HOSTILE.replace("\x1b", "\\x1b")):
        assert told in whole
    assert "its tasks die: exit code 137" in plain
    assert off.startswith("off")


def test_an_embedded_environment_is_shown_only_if_it_is_asked_for(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    planned = invoke("history", "--env=local", f"--html={tmp_path / 'page.html'}", "--dry-run", **cloud.env)

    assert planned.returncode == 0, planned.stderr
    assert re.findall(r"^ +(?:would )?(\w+): ", planned.stderr, re.MULTILINE) == ["dev", "impl", "prod", "local"]


def test_hostile_text_is_escaped_even_without_the_policy(chromium: str, tmp_path: Path) -> None:
    """The page's policy would forbid a script to run: without it, what is escaped has to be enough."""
    (one,) = [receipts.load(json.dumps(hostile("prod", NOW - 100)).encode())]
    made = page.html(HOSTILE, [Lane(HOSTILE, (one,), HOSTILE), Lane(HOSTILE, ())], NOW).decode()
    path = tmp_path / "page.html"
    path.write_text(re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", made))

    with browser.browsing(chromium, tmp_path / "profile") as running:
        tab = running.open(path.as_uri())
        tab.run("document.querySelectorAll('details, summary').forEach((one) => one.click())")
        title, scripts, errors = tab.run("document.title"), tab.run("document.scripts.length"), tab.errors

    assert path.read_text() != made
    assert title.startswith("</style></title><script>")
    assert (scripts, errors) == (0, [])
    assert Tags(made).names <= TAGS


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
    ("seconds", "marks"),
    [
        (3600, 7),
        (8 * 3600, 9),
        (86_400, 5),
        (7 * 86_400, 8),
        (60 * 86_400, 5),
        (40 * 365 * 86_400, 5),
    ],
)
def test_the_axis_has_a_few_marks(seconds: float, marks: int) -> None:
    """At whole hours, days, weeks, months."""
    span = Span(0.0, seconds)

    assert len(span.marks()) == marks
    assert all(0 <= span.at(mark) <= 100 for mark in span.marks())
