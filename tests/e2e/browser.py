"""A real, headless Chromium, told what to do through its pipe: https://chromedevtools.github.io/devtools-protocol/."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Every host name resolves to this machine.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
    "--host-resolver-rules=MAP * 127.0.0.1",
)
# Seconds until what a page is expected to show counts as missing.
PATIENCE = 30
WIDTH, HEIGHT = 640, 470


def found() -> str | None:
    """Debian's Chromium, if it is installed."""
    return shutil.which("chromium")


class Browser:
    """A running browser. It answers one command at a time; what it tells meanwhile goes to the tabs."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._buffer, self._number = b"", 0
        self._tabs: dict[str, Tab] = {}

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._to.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._to.flush()
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return dict(told["result"])
            if told.get("sessionId") in self._tabs:
                self._tabs[told["sessionId"]].hear(told["method"], told["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = self._from.read1(1 << 16)
            assert read, "the browser has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, url: str) -> "Tab":
        """Show a page in a tab of its own window, so that no other one hides it."""
        size = {"width": WIDTH, "height": HEIGHT}
        target = self.ask("Target.createTarget", url="about:blank", newWindow=True, **size)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable", session)
        tab.go(url)
        return tab

    def close(self) -> None:
        """Hang up. A browser whose pipe is closed ends."""
        self._to.close()
        self._from.close()


class Tab:
    """A tab. errors: what its console shows as an error, failed requests included."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []

    def hear(self, method: str, told: dict[str, Any]) -> None:
        """Keep the errors among what the browser tells of this tab."""
        entry = told.get("entry", told)
        kinds = {"Log.entryAdded": "level", "Runtime.consoleAPICalled": "type"}
        if method == "Runtime.exceptionThrown" or entry.get(kinds.get(method, "")) == "error":
            self.errors.append(json.dumps(told))

    def go(self, url: str) -> None:
        """Show another page in it, or the same one again."""
        loader = self._browser.ask("Page.navigate", self._session, url=url)["loaderId"]
        # The answer may come while the old page is still there.
        deadline = time.monotonic() + PATIENCE
        while self._browser.ask("Page.getFrameTree", self._session)["frameTree"]["frame"]["loaderId"] != loader:
            assert time.monotonic() < deadline, f"{url} is not shown"
            time.sleep(0.01)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, also of one that a promise holds."""
        given = {"expression": script, "awaitPromise": True, "returnByValue": True}
        told = self._browser.ask("Runtime.evaluate", self._session, **given)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        shown = self.run(f"""new Promise((done) => {{
            const end = Date.now() + {PATIENCE * 1000};
            const look = () => {{
                if ({condition}) done(true);
                else if (Date.now() > end) done(document.body.innerText);
                else setTimeout(look, 20);
            }};
            look();
        }})""")
        assert shown is True, f"{condition} is never true: {shown}"

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screenshot(self) -> bytes:
        """What it shows, as a PNG."""
        told = self._browser.ask("Page.captureScreenshot", self._session, format="png", optimizeForSpeed=False)
        return base64.b64decode(told["data"])


@contextmanager
def browsing(chromium: str, home: Path) -> Iterator[Browser]:
    """A browser with nothing in its profile, the folder `home`."""
    (its_in, to_browser), (from_browser, its_out) = os.pipe(), os.pipe()
    # It expects its ends as the descriptors 3 and 4.
    line = f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}'
    flags = [*FLAGS, f"--user-data-dir={home}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        ["bash", "-c", line, chromium, *flags],
        pass_fds=[its_in, its_out],
        env={**os.environ, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    browser = Browser(to_browser, from_browser)
    try:
        yield browser
        browser.ask("Browser.close")
        process.wait(PATIENCE)
    finally:
        browser.close()
        process.kill()
        process.wait()
