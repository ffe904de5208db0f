"""A page of another origin, shown in a real browser, can neither read nor change anything in the embedded AWS."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import EmbeddedCloud
from tests.stand_in import Reply, stand_in

PAGE = "local-mint-app-static/index.html"
# Tries every request a page can make, and writes what it could read into its own text.
ATTACK = Path(__file__).with_name("attack.html")


@pytest.fixture(scope="module")
def chromium() -> str:
    """Debian's Chromium. With REQUIRE_BROWSER set, the tests fail without it instead of being skipped."""
    found = shutil.which("chromium")
    if not found and os.environ.get("REQUIRE_BROWSER"):
        pytest.fail("chromium is not installed")
    return found or pytest.skip("chromium is not installed")


def show(chromium: str, url: str, home: Path) -> str:
    """The DOM of the page a few seconds after it has loaded. Every host name resolves to this machine."""
    done = subprocess.run(
        [
            chromium,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={home}"),
            *("--host-resolver-rules=MAP * 127.0.0.1", "--no-proxy-server", "--timeout=8000", "--dump-dom", url),
        ],
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


@pytest.mark.parametrize("host", ["127.0.0.1", "attacker.example"])
def test_a_page_of_another_origin_reads_and_changes_nothing(
    chromium: str, host: str, cloud: EmbeddedCloud, tmp_path: Path
) -> None:
    """The page is on another port of this machine, or on another host name."""
    bucket, key = PAGE.split("/")
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=b"whole")
    before = len(cloud.requests())
    clock = cloud.server.cloud.clock._offset

    assert attack(chromium, cloud.url, host, tmp_path) == ""

    assert cloud.objects(bucket)[key][1] == b"whole"
    assert cloud.requests()[before:] == []
    assert cloud.server.cloud.clock._offset == clock


def test_dns_rebinding_is_refused(chromium: str, cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """The page's own origin is the embedded AWS under another host name."""
    bucket, key = PAGE.split("/")
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=b"whole")

    shown = show(chromium, f"http://attacker.example:{cloud.server.cloud.port}/{PAGE}", tmp_path)

    assert "whole" not in shown
    assert "the Host is not this machine" in shown


def test_the_attack_works_on_an_unprotected_server(chromium: str, tmp_path: Path) -> None:
    """Shows that the tests above can fail: with CORS open, the same page reads and changes the server."""
    everybody = dict.fromkeys(("Access-Control-Allow-Origin", "Access-Control-Allow-Methods"), "*")
    with stand_in(lambda *_: Reply(b"open", headers=everybody)) as target:
        read = attack(chromium, target.url.replace("127.0.0.1", "localhost"), "127.0.0.1", tmp_path)

    asked = {(request["method"], request["path"]) for request in target.requests}
    assert {("POST", "/_local/reset"), ("GET", f"/{PAGE}"), ("POST", f"/{PAGE}")} <= asked
    assert f"cors/{PAGE}: open" in read
