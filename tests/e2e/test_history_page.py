"""The page of `invoke history --html` in a real browser, with JavaScript and without."""

import json
import re
import time
from pathlib import Path

from scripts.ecs import page, receipts
from scripts.ecs.page import Lane
from tests.conftest import EmbeddedCloud, Invoke
from tests.e2e import browser
from tests.test_history_page import HOSTILE, NOW, TAGS, VERSIONS, Tags, hostile, put, receipt


def without_javascript(running: browser.Browser, url: str) -> str:
    """The text of a page in a tab that runs no script of it."""
    tab = running.open("about:blank")
    running.ask("Emulation.setScriptExecutionDisabled", tab._session, value=True)
    running.ask("Page.navigate", tab._session, url=url)
    deadline = time.monotonic() + browser.PATIENCE
    while tab.run("document.readyState + location.protocol") != f"complete{url.partition(':')[0]}:":
        assert time.monotonic() < deadline
    return str(tab.run("document.body.textContent")).strip()


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
