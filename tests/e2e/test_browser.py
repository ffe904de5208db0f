"""The embedded AWS in a real browser: it shows what was deployed, and no page of another origin reads or changes it."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.e2e import browser
from tests.stand_in import Reply, stand_in

FIRST, SECOND = "1" * 40, "2" * 40
PAGE = "local-mint-app-static/index.html"
# Tries every request a page can make, and writes what it could read into its own text.
ATTACK = Path(__file__).with_name("attack.html")


def show(chromium: str, url: str, home: Path) -> str:
    """The DOM of the page a few seconds after it has loaded."""
    done = subprocess.run(
        [chromium, *browser.FLAGS, f"--user-data-dir={home}", "--timeout=8000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def attack(chromium: str, target: str, host: str, home: Path) -> str:
    """What a page on a host could read from a target."""
    page = ATTACK.read_text().replace("TARGET", target).replace("PAGE", PAGE).encode()
    with stand_in(lambda *_: Reply(page, headers={"Content-Type": "text/html"})) as site:
        shown = show(chromium, f"http://{host}:{urlsplit(site.url).port}/", home)
    assert "<title>tried</title>" in shown
    found = re.search('<p id="read">(.*?)</p>', shown, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("host", "site"),
    [("127.0.0.1", "127.0.0.1"), ("attacker.example", "127.0.0.1"), ("other.localhost", "local.localhost")],
)
def test_a_page_of_another_origin_reads_and_changes_nothing(
    chromium: str, host: str, site: str, cloud: EmbeddedCloud, tmp_path: Path
) -> None:
    """The page is on another port of this machine, on another host name, or beside a site of this AWS."""
    bucket, key = PAGE.split("/")
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=b"whole")
    before = len(cloud.requests())
    clock = cloud.server.cloud.clock._offset

    assert attack(chromium, cloud.url.replace("127.0.0.1", site), host, tmp_path) == ""

    assert cloud.objects(bucket)[key][1] == b"whole"
    assert cloud.requests()[before:] == []
    assert cloud.server.cloud.clock._offset == clock


@pytest.mark.parametrize(("host", "read"), [("attacker.example", False), ("local.localhost", True)])
def test_dns_rebinding_is_refused(chromium: str, host: str, read: bool, cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """The page's own origin is the embedded AWS under another host name; under that of the site it is shown."""
    bucket, key = PAGE.split("/")
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=b"whole", ContentType="text/html")

    shown = show(chromium, f"http://{host}:{cloud.server.cloud.port}/", tmp_path)

    assert ("whole" in shown) is read
    assert ("the Host is not this machine" in shown) is not read


def test_the_attack_works_on_an_unprotected_server(chromium: str, tmp_path: Path) -> None:
    """Shows that the tests above can fail: with CORS open, the same page reads and changes the server."""
    everybody = dict.fromkeys(("Access-Control-Allow-Origin", "Access-Control-Allow-Methods"), "*")
    with stand_in(lambda *_: Reply(b"open", headers=everybody)) as target:
        read = attack(chromium, target.url.replace("127.0.0.1", "localhost"), "127.0.0.1", tmp_path)

    asked = {(request["method"], request["path"]) for request in target.requests}
    assert {("POST", "/_local/reset"), ("GET", f"/{PAGE}"), ("POST", f"/{PAGE}")} <= asked
    assert {f"cors{path}: open" for path in ("/", f"/{PAGE}", "/_local/status")} <= set(read.split(" | "))


def built(folder: Path, version: str, *plans: str) -> str:
    """A build of the example's frontend whose lazily loaded script has these plans. Returns its folder."""
    source = folder / f"source-{version}"
    shutil.copytree(ROOT / "examples" / "frontend", source, ignore=shutil.ignore_patterns("build"))
    (source / "plans.js").write_text(f"export const plans = {list(plans)};\n")
    build = folder / f"build-{version}"
    variables = {**os.environ, "BUILD_PATH": str(build), "GITHUB_SHA": version}
    subprocess.run([sys.executable, source / "build.py"], env=variables, check=True)
    return str(build)


def test_the_application_is_shown_before_during_and_after_a_release(
    chromium: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """And after a rollback, without an error in a console; a tab that stays open goes on with its own release."""

    def run(*words: str) -> str:
        done = invoke(*words, **cloud.env, DOCKER_HOST="unix:///nowhere")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def deploy(version: str, *plans: str) -> str:
        cloud.push(version, "mint-backend", "mint-db-migrate")
        return run("deploy", f"--tag={version}", "--no-build", f"--build-dir={built(tmp_path, version, *plans)}")

    def versions(tab: browser.Tab) -> tuple[str, str, str]:
        tab.wait("document.body.dataset.state")
        return tab.text("#frontend"), tab.text("#backend"), tab.run("document.body.dataset.state")

    def plans(tab: browser.Tab) -> list[str]:
        tab.run("document.querySelector('#show').click()")
        tab.wait("document.querySelector('#plans li')")
        return tab.text("#plans").split("\n")

    first, second = ("1111111", "1111111", "same"), ("2222222", "2222222", "same")
    said = deploy(FIRST, "Primary Care")
    assert f"the application is at {cloud.url}\n" in said
    with browser.browsing(chromium, tmp_path / "profile") as opened, ThreadPoolExecutor() as pool:
        old, tab = opened.open(cloud.url), opened.open(f"{cloud.url}/plans/7")
        assert versions(old) == versions(tab) == first
        going = pool.submit(deploy, SECOND, "Kidney Care")
        seen = set()
        while not going.done():
            tab.go(cloud.url)
            seen.add(versions(tab))
        going.result()
        tab.go(cloud.url)
        assert (versions(tab), plans(tab)) == (second, ["Kidney Care"])
        assert seen <= {first, ("1111111", "2222222", "differ"), second}
        old.wait("document.body.dataset.state === 'differ'")
        assert (versions(old)[:2], plans(old)) == (("1111111", "2222222"), ["Primary Care"])
        verified = run("release.verify", f"--url={cloud.url}")
        assert "local-mint-app-static is as released" in verified
        run("rollback", "--yes")
        tab.go(cloud.url)
        assert (versions(tab), plans(tab)) == (first, ["Primary Care"])
        old.wait("document.body.dataset.state === 'same'")
        assert old.errors == tab.errors == []
        assert tab.run("fetch('/_local/status').then((answer) => answer.status)") == 403
