"""What an HTML page references, read from the tree that a browser would build of it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selectolax.lexbor import LexborHTMLParser

# What an element loads when the page is shown. Links that people follow are not among them.
SOURCES = {
    "audio": ("src",),
    "embed": ("src",),
    "frame": ("src",),
    "iframe": ("src",),
    "image": ("href",),
    "img": ("src",),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src",),
    "track": ("src",),
    "use": ("href",),
    "video": ("src", "poster"),
}
LOADED_LINKS = {
    "apple-touch-icon",
    "apple-touch-icon-precomposed",
    "apple-touch-startup-image",
    "icon",
    "manifest",
    "mask-icon",
    "modulepreload",
    "preload",
    "stylesheet",
}
SCRIPT_TYPES = {"", "module", "text/javascript", "application/javascript", "text/ecmascript"}
# Vite's plugin for old browsers leaves the script's URL to an inline script: https://github.com/vitejs/vite
LEGACY_ENTRY = "vite-legacy-entry"
INTERESTING = ",".join([*SOURCES, "base", "link", "style", "[style]", "[background]"])

CANDIDATE = re.compile(r"[\t\n\f\r ,]*+([^\t\n\f\r ]+)")
DESCRIPTOR = re.compile(r"(?:[^,(]++|\([^)]*+\)?+)*+,?+")
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
WITHOUT_END = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
    *("dd", "dt", "li", "option", "p", "td", "th", "tr"),
}
# The parser looks through all open elements at each tag: a page that is nested deeper is not a page.
DEEPEST = 5_000


@dataclass
class Page:
    """The URLs of a page as it writes them, and the texts in it that have URLs of their own.

    base: what they are relative to, empty for the page itself. guessed: those that may be an API or another page.
    replaced: module specifiers that the import map gives another URL.
    """

    base: str = ""
    certain: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)


def read(text: str) -> Page:
    """Take a page apart."""
    page = Page()
    if text.count("<") > DEEPEST and _depth(text) > DEEPEST:
        return page
    for node in LexborHTMLParser(text).css(INTERESTING):
        given = {name: value for name, value in node.attributes.items() if value}
        tag = node.tag or ""
        page.certain += [given[name] for name in (*SOURCES.get(tag, ()), "background") if name in given]
        page.certain += srcset(given.get("srcset", ""))
        page.styles += [given[name] for name in ("style",) if name in given]
        if tag == "base":
            page.base = page.base or given.get("href", "")
        elif tag == "link":
            _link(page, given)
        elif tag == "style":
            page.styles.append(node.text())
        elif tag == "script":
            _script(page, given, node.text())
    return page


def _link(page: Page, given: Mapping[str, str]) -> None:
    relations, url = set(given.get("rel", "").lower().split()), given.get("href", "")
    page.certain += srcset(given.get("imagesrcset", ""))
    # What is fetched ahead for a script may be an API's answer, and what for a later page may be that page.
    if "prefetch" in relations or (relations == {"preload"} and given.get("as", "fetch").lower() == "fetch"):
        page.guessed.append(url)
    elif relations & LOADED_LINKS:
        page.certain.append(url)


def _script(page: Page, given: Mapping[str, str], text: str) -> None:
    kind = given.get("type", "").strip().lower()
    if given.get("id") == LEGACY_ENTRY and "data-src" in given:
        page.certain.append(given["data-src"])
    if kind == "importmap":
        imports = list(_imports(text))
        page.replaced += [name for name, _ in imports]
        page.certain += [url for _, url in imports if url.startswith(("/", "./", "../"))]
    elif kind in SCRIPT_TYPES and "src" not in given:
        page.scripts.append(text)


def _imports(text: str) -> Iterator[tuple[str, str]]:
    """Specifier and URL of every entry of an import map but for folders."""
    document = parse_json(text)
    maps = [document.get("imports"), *_mapping(document.get("scopes")).values()]
    for entries in maps:
        for name, url in _mapping(entries).items():
            if isinstance(url, str) and not url.endswith("/"):
                yield name, url


def srcset(text: str) -> Iterator[str]:
    """The URLs of a srcset: https://html.spec.whatwg.org/multipage/images.html#parsing-a-srcset-attribute"""
    at = 0
    while found := CANDIDATE.match(text, at):
        yield found[1].rstrip(",")
        at = found.end()
        if not found[1].endswith(",") and (descriptor := DESCRIPTOR.match(text, at)):
            at = descriptor.end()


def web_manifest(text: str) -> list[str]:
    """The pictures of a web app manifest: https://www.w3.org/TR/appmanifest/"""
    document = parse_json(text)
    holders = [document, *_list(document.get("shortcuts"))]
    pictures = [_list(_mapping(holder).get(name)) for holder in holders for name in ("icons", "screenshots")]
    found = [_mapping(picture).get("src") for group in pictures for picture in group]
    return [url for url in found if isinstance(url, str)]


def parse_json(text: str) -> Mapping[str, Any]:
    """A JSON object; an empty one for what is none."""
    try:
        return _mapping(json.loads(text.removeprefix("\ufeff")))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _depth(text: str) -> int:
    """At most how deep a page's elements are nested."""
    depth = deepest = 0
    opened: Counter[str] = Counter()
    for slash, name in TAG.findall(text):
        name = name.lower()
        if name in WITHOUT_END:
            continue
        if not slash:
            opened[name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif opened[name]:
            opened[name] -= 1
            depth -= 1
    return deepest
