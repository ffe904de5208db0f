"""What an HTML page references, read from the tree that a browser would build of it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field
from selectolax.lexbor import LexborHTMLParser

# The attributes whose URLs are loaded when the page is shown; not the links that people follow.
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
# The script of Vite's plugin-legacy has its URL in data-src, from where an inline script loads it.
LEGACY_ENTRY = "vite-legacy-entry"
INTERESTING = ",".join([*SOURCES, "base", "link", "style", "[style]", "[background]"])

CANDIDATE = re.compile(r"[\t\n\f\r ,]*+([^\t\n\f\r ]+)")
DESCRIPTOR = re.compile(r"(?:[^,(]++|\([^)]*+\)?+)*,?+")
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that need no end tag.
WITHOUT_END = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
    *("dd", "dt", "li", "option", "p", "td", "th", "tr"),
}
# Elements nested deeper than this are not parsed: the parser searches all open elements at each tag, so that deep
# nesting takes quadratic time.
DEEPEST = 5_000


class Page(Struct):
    """The URLs in a page, as they are written, and its inline styles and scripts.

    base: what the URLs are relative to, empty for the page itself. certain: files that the page loads. guessed: URLs
    that may also be an API's or another page's. replaced: module specifiers that the import map gives another URL.
    """

    base: str = ""
    certain: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)


def read(text: str) -> Page:
    """What a page references. Empty for a page that is nested too deep to be parsed."""
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
    # A preload for fetch() may be an API's response, and a prefetch may be another page.
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
    """Specifier and URL of each entry of an import map, except those of folders."""
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
    """The icons and screenshots of a web app manifest: https://www.w3.org/TR/appmanifest/"""
    document = parse_json(text)
    holders = [document, *_list(document.get("shortcuts"))]
    pictures = [_list(_mapping(holder).get(name)) for holder in holders for name in ("icons", "screenshots")]
    found = [_mapping(picture).get("src") for group in pictures for picture in group]
    return [url for url in found if isinstance(url, str)]


def parse_json(text: str) -> Mapping[str, Any]:
    """A JSON object, empty if the text is not one."""
    try:
        return _mapping(json.loads(text.removeprefix("\ufeff")))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _depth(text: str) -> int:
    """An upper bound of how deep a page's elements are nested."""
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
