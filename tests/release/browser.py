"""Plays a browser: loads the page and everything it references, and says what is broken."""

import json
import re
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

# A server's content type and body for a path, or None.
Get = Callable[[str], tuple[str, bytes] | None]

PAGE = re.compile(r"""<(?:script[^>]*?\ssrc|link[^>]*?\shref|img[^>]*?\ssrc)=["']?([^"' >]+)""")
STYLE = re.compile(r"""url\(["']?([^"')]+)["']?\)""")
SCRIPT = re.compile(r"""(?:import|from)\s*\(?\s*["']((?:\.|/)[^"']+)["']""")
# A browser refuses these with another content type.
STRICT = {".js": "javascript", ".mjs": "javascript", ".css": "text/css", ".html": "text/html"}


def problems(get: Get, entry: str = "index.html") -> list[str]:
    """Everything that is missing or has the wrong type. A missing page is no problem."""
    if get(entry) is None:
        return []
    found: list[str] = []
    seen: set[str] = set()
    todo = [entry]
    while todo:
        key = todo.pop()
        if key in seen:
            continue
        seen.add(key)
        answer = get(key)
        if answer is None:
            found.append(f"{key} is missing")
            continue
        kind, body = answer
        ending = re.search(r"\.[a-z]+$", key)
        wanted = STRICT.get(ending[0] if ending else "", "")
        if wanted not in kind:
            found.append(f"{key} has the type {kind}")
        todo += references(key, body.decode(errors="replace"))
    return found


def references(key: str, text: str) -> list[str]:
    """The keys that a file references."""
    pattern = PAGE if key.endswith(".html") else STYLE if key.endswith(".css") else SCRIPT
    if not key.endswith((".html", ".css", ".js", ".mjs")):
        return []
    urls = [urlsplit(urljoin(f"http://site/{key}", reference)) for reference in pattern.findall(text)]
    return [url.path.lstrip("/") for url in urls if url.netloc == "site" and url.path != "/"]


class Worker:
    """A browser in which a service worker was installed at some moment, and its cache: URL -> body."""

    def __init__(self, get: Get) -> None:
        self.script = (get("sw.js") or ("", b""))[1]
        self.cache = {url: (get(url.lstrip("/")) or ("", b""))[1] for url in self._entries()}

    def _entries(self) -> dict[str, str]:
        """URL -> revision, as the worker lists them."""
        found = re.search(rb"\[.*\]", self.script)
        return {entry["url"]: entry["revision"] for entry in json.loads(found[0])} if found else {}

    def update(self, get: Get) -> None:
        """What a browser does at the next visit: a worker that has changed loads what has another revision."""
        script, old = (get("sw.js") or ("", b""))[1], self._entries()
        if script == self.script:
            return
        self.script = script
        self.cache = {
            url: self.cache[url] if old.get(url) == revision else (get(url.lstrip("/")) or ("", b""))[1]
            for url, revision in self._entries().items()
        }

    def stale(self, get: Get) -> list[str]:
        """The URLs for which it serves something else than the server does."""
        return [url for url, body in self.cache.items() if body != (get(url.lstrip("/")) or ("", b""))[1]]
