"""What a page needs: the files that it and its parts name, so that none of them is missing.

Followed are the page's scripts, links and images, `url()` and `@import` in CSS, and the imports and preload
lists of JavaScript modules as Vite writes them. The chunks of a webpack build are computed while it runs and
cannot be read from its text.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from scripts.frame.errors import Refused
from scripts.release.site import ENTRY, Site

CSS = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")
# import x from "./a.js" · import "./a.js" · import("./a.js") · export … from "./a.js"; bare names are no files.
# Each begins with a word, which is searched for ten times faster than a choice of two.
MODULES = [
    re.compile(word + r"""\s*["']((?:\.{1,2})?/[^"'\\]+\.(?:m?js|css|json|wasm)(?:\?[^"']*)?)["']""")
    for word in ("from", r"import\s*\(?")
]
# Vite's list of what a lazily loaded chunk needs, relative to the site's root.
PRELOADS = re.compile(r"""__vite__mapDeps\s*=.{0,200}?\[((?:"[^"]*",?\s*)+)\]""", re.DOTALL)
HERE = "http://here/"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "source") and given.get("src"):
            self.found.append(given["src"] or "")
        wanted = {"stylesheet", "modulepreload", "preload", "icon", "manifest", "apple-touch-icon", "shortcut"}
        if tag == "link" and given.get("href") and wanted & set((given.get("rel") or "").lower().split()):
            self.found.append(given["href"] or "")


def of(key: str, text: str) -> Iterator[str]:
    """The keys that a file of the site names."""
    found: list[str] = []
    base = key
    if key.endswith((".html", ".htm")):
        page = _Page()
        page.feed(text)
        found = page.found
    elif key.endswith(".css"):
        found = [first or second for first, second in CSS.findall(text)]
    elif key.endswith((".js", ".mjs")):
        found = [reference for pattern in MODULES for reference in pattern.findall(text)]
        for names in PRELOADS.findall(text):
            found += [f"/{name}" for name in re.findall(r'"([^"]+)"', names)]
    for reference in found:
        parts = urlsplit(urljoin(HERE + base, reference.strip()))
        if (parts.scheme, parts.netloc) == ("http", "here") and parts.path.strip("/"):
            yield unquote(parts.path.lstrip("/"))


def closure(site: Site) -> dict[str, str]:
    """Every key that the page needs, directly or through another file -> the key that names it."""
    named: dict[str, str] = {}
    open_keys = [ENTRY]
    while open_keys:
        key = open_keys.pop()
        if key not in site.files or not key.endswith((".html", ".htm", ".css", ".js", ".mjs")):
            continue
        text = Path(site.files[key].path).read_text(encoding="utf-8", errors="replace")
        for reference in of(key, text):
            if reference not in named:
                named[reference] = key
                open_keys.append(reference)
    return named


def check(site: Site) -> None:
    """Raises Refused where the page names a file that is not in the build."""
    missing = [f"{key} (in {by})" for key, by in closure(site).items() if key not in site.files]
    if missing:
        raise Refused(f"The page names files that are not in {site.folder}: {', '.join(missing)}.")
