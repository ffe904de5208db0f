"""Deploys examples/ to an embedded AWS of its own, and writes what a browser shows: `make screenshot`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from local_aws.server import Server
from tests.conftest import ROOT
from tests.e2e import browser


def main(path: Path) -> None:
    """Write the PNG."""
    chromium = browser.found() or sys.exit("chromium is not installed")
    server = Server()
    os.environ["AWS_ENDPOINT_URL"] = server.cloud.url
    server.start()
    try:
        subprocess.run([sys.executable, "-m", "invoke", "deploy", "--env=local"], cwd=ROOT, check=True)
        with tempfile.TemporaryDirectory() as home, browser.browsing(chromium, Path(home)) as opened:
            tab = opened.open(server.cloud.url)
            tab.wait("document.body.dataset.state === 'same'")
            tab.run("document.querySelector('#show').click()")
            tab.wait("document.querySelector('#plans li')")
            path.write_bytes(tab.screenshot())
    finally:
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
