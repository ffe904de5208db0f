"""Finds the files that the pages of a build need and that are missing from it.

It starts at each page, and at the bundler's manifest if there is one, and follows style sheets and scripts. What HTML,
CSS or such a manifest references must be there. What only a script references is likely to be needed; if it is missing,
that is a warning.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from urllib.parse import quote, unquote, urljoin, urlsplit

from msgspec import Struct

from scripts.frame import console
from scripts.frame.errors import Refused
from scripts.release import bundles, javascript, pages, styles
from scripts.release.javascript import Kind
from scripts.release.site import Site, matches

# Stands for the site's own origin.
ORIGIN = "https://site.invalid"
PAGES, STYLES, SCRIPTS = (".html", ".htm"), (".css",), (".js", ".mjs", ".cjs")
WEB_MANIFESTS = (".webmanifest", "manifest.json")
# Larger files are not read, in bytes: parsed, a file takes ten times its size or more.
LARGEST, LARGEST_SCRIPT = 8 << 20, 64 << 20
# How many files a message names.
SHOWN = 10
# In characters. A key has at most 1,024 bytes, each of which takes at most three characters in a URL.
LONGEST_URL = 8192
# URLs that are never a file of the site, and placeholders of template engines.
NOT_OURS = re.compile(r"\s*(?:data|blob|about|javascript|mailto|tel|https?):|.*(?:\{\{|<%|\$\{)", re.IGNORECASE)


class Certainty(IntEnum):
    """How sure it is that something fails without the file."""

    GUESSED = 0
    LIKELY = 1
    CERTAIN = 2


class Reference(Struct, frozen=True):
    """A key that a file references."""

    key: str
    certainty: Certainty


class Missing(Struct, frozen=True):
    """A key that the build does not have. by: the file that references it. page: where the walk to it started."""

    key: str
    certainty: Certainty
    by: str
    page: str

    def __str__(self) -> str:
        return f"{self.key} (in {self.by if self.by == self.page else f'{self.by}, for {self.page}'})"


class Checked(Struct, frozen=True):
    """A site that may be released. excused: keys that it lacks and may lack. needed: keys that pages load themselves,
    as their HTML and styles say.
    """

    excused: tuple[str, ...]
    needed: frozenset[str]


def check(site: Site, *, base: str = "/", keep: Sequence[str] = (), allowed: Sequence[str] = ()) -> Checked:
    """Warn of missing files that scripts reference. Raises Refused if files are missing that pages need.

    base: the path at which the folder is served. Patterns (fnmatch) of keys: keep, those that others write; allowed,
    those that may be missing.
    """
    walk = _Walk(site, _root(base))
    absent = [one for one in walk.missing() if not matches(one.key, keep)]
    excused = tuple(one.key for one in absent if matches(one.key, allowed))
    absent = [one for one in absent if one.key not in excused]
    needed = [one for one in absent if one.certainty is Certainty.CERTAIN]
    if needed:
        raise Refused(
            f"The build needs files that are not in {site.folder}: {_shown(needed)}.{_advice(needed, site, base)}"
            " If one is not the build's own: frontend.keep of the settings, or --allow-missing=PATTERN."
        )
    if absent:
        console.warn(f"scripts of the build reference files that are not in {site.folder}: {_shown(absent)}")
    return Checked(excused, frozenset(walk.loaded))


def references_in(key: str, text: str, base: str = "/") -> Iterator[Reference]:
    """What this file references, without guesses. key: the file's own, which its URLs are relative to.

    base: as in `check`.
    """
    for reference in _read(key, text, _root(base)).references:
        if reference.certainty is not Certainty.GUESSED:
            yield reference


def _root(base: str) -> str:
    """The URL at which the folder is served."""
    return ORIGIN + quote(f"/{base.strip('/')}/".replace("//", "/"))


def missing(site: Site, base: str = "/") -> list[Missing]:
    """What the site references and does not have: each key once, with its surest reference. base: as in `check`."""
    return _Walk(site, _root(base)).missing()


class _Walk:
    """Goes from the pages and manifests of a site to everything that they reference.

    root: the URL at which the folder is served. replaced: keys that an import map gives another URL. loaded: keys that
    pages load themselves.
    """

    def __init__(self, site: Site, root: str) -> None:
        self.site, self.root = site, root
        self.replaced: set[str] = set()
        self.loaded: set[str] = set()

    def missing(self) -> list[Missing]:
        """What the site does not have: each key once, with its surest reference."""
        there = self.site.files
        folders = {key.rpartition("/")[0] for key in there}
        absent: dict[str, Missing] = {}
        for one in self.all():
            is_likely = one.certainty is not Certainty.GUESSED or one.key.rpartition("/")[0] in folders
            if one.key not in there and is_likely:
                absent[one.key] = max(absent.get(one.key, one), one, key=lambda each: each.certainty)
        return [one for one in absent.values() if one.certainty is Certainty.CERTAIN or one.key not in self.replaced]

    def all(self) -> Iterator[Missing]:
        """Every reference, as the Missing that it would be if the file is not there."""
        starts = [key for key in sorted(self.site.files) if _ends(key, PAGES) or self._is_bundle(key)]
        page_of = {key: key for key in starts}
        todo = deque(starts)
        while todo:
            by = todo.popleft()
            found = _read(by, _text(self.site, by), self.root)
            self.replaced |= found.replaced
            if _ends(by, PAGES):
                self.loaded |= {one.key for one in found.references if one.certainty is Certainty.CERTAIN}
            for reference in found.references:
                yield Missing(reference.key, reference.certainty, by, page_of[by])
                if reference.key in self.site.files and reference.key not in page_of:
                    page_of[reference.key] = page_of[by]
                    todo.append(reference.key)

    def _is_bundle(self, key: str) -> bool:
        return bundles.may_list(key) and bool(bundles.references(key, _text(self.site, key)))


class _Found(Struct, frozen=True):
    references: list[Reference]
    replaced: frozenset[str] = frozenset()


def _read(key: str, text: str, root: str) -> _Found:
    """What a file references. root: the URL at which the site is served."""
    here = root + quote(key, errors="replace")
    if _ends(key, PAGES):
        return _page(key, text, here, root)
    if _ends(key, SCRIPTS):
        found = list(_script(key, text, here, root, in_page=False))
        listed = bundles.references(key, text) if bundles.may_list(key) else []
        return _Found(found + _resolved(listed, here, root))
    urls: list[str] = []
    if _ends(key, STYLES):
        urls += styles.references(text)
    if bundles.may_list(key):
        urls += bundles.references(key, text)
    if _ends(key, WEB_MANIFESTS):
        urls += pages.web_manifest(text)
    return _Found(_resolved(urls, here, root))


def _page(key: str, text: str, here: str, root: str) -> _Found:
    page = pages.read(text)
    base = _join(here, page.base) or here
    found = _resolved(page.certain, base, root) + _resolved(page.guessed, base, root, Certainty.GUESSED)
    for style in page.styles:
        found += _resolved(styles.references(style), base, root)
    for script in page.scripts:
        found += _script(key, script, base, root, in_page=True)
    replaced = _resolved((name for name in page.replaced if name.startswith((".", "/"))), base, root)
    return _Found(found, frozenset(reference.key for reference in replaced))


def _script(key: str, text: str, here: str, root: str, *, in_page: bool) -> Iterator[Reference]:
    for reference in javascript.references(text):
        url, kind, base = reference.url, reference.kind, here
        certainty = Certainty.GUESSED if kind is Kind.NAMED else Certainty.LIKELY
        if kind in (Kind.LISTED, Kind.NAMED) and not url.startswith((".", "/")):
            base = root + _folder_of_build(key, url)
        # The file of a script does not say which page runs it.
        if kind is not Kind.LOADED or in_page or url.startswith("/"):
            yield from _resolved([url], base, root, certainty)


def _folder_of_build(key: str, url: str) -> str:
    """The folder that a bundler's list is relative to: app/ if app/assets/a.js lists assets/b.js."""
    folders, first = key.split("/")[:-1], url.partition("/")[0]
    above = folders[: folders.index(first)] if first in folders else []
    return quote("".join(f"{folder}/" for folder in above), errors="replace")


def _resolved(urls: Iterable[str], base: str, root: str, certainty: Certainty = Certainty.CERTAIN) -> list[Reference]:
    """The keys of the URLs that are the site's. base: the URL that they are relative to."""
    keys = [_key(url, base, root) for url in urls]
    return [Reference(key, certainty) for key in keys if key]


def _key(url: str, base: str, root: str) -> str:
    """The key of a URL. Empty for another origin, a fragment, and a path without an ending: a folder or a route."""
    if NOT_OURS.match(url) or url.strip()[:1] in ("", "#", "?"):
        return ""
    parts = urlsplit(_join(base, url))
    address = f"{parts.scheme}://{parts.netloc}{parts.path}"
    key = unquote(address[len(root) :]) if address.startswith(root) else ""
    return key if "." in key.rpartition("/")[2] else ""


def _join(base: str, url: str) -> str:
    """A URL made absolute as a browser does it. Empty if it is not a URL, or too long for a key."""
    if len(url) > LONGEST_URL:
        return ""
    path, mark, rest = url.strip().partition("?")
    try:
        joined = urljoin(base, path.replace("\\", "/") + mark + rest)
        urlsplit(joined)
    except ValueError:
        return ""
    return joined


def _text(site: Site, key: str) -> str:
    """A file's text. Empty if it is too large, or of a type that has no references. Raises Refused if unreadable."""
    file = site.files[key]
    is_script = _ends(key, SCRIPTS)
    is_read = is_script or _ends(key, PAGES + STYLES + WEB_MANIFESTS) or bundles.may_list(key)
    if not is_read or file.size > (LARGEST_SCRIPT if is_script else LARGEST):
        return ""
    try:
        with open(file.path, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except OSError as error:
        raise Refused(f"{file.path} cannot be read: {error.strerror}.") from error


def _ends(key: str, endings: tuple[str, ...]) -> bool:
    return key.lower().endswith(endings)


def _shown(absent: Sequence[Missing]) -> str:
    more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
    return ", ".join(map(str, absent[:SHOWN])) + more


def _advice(absent: Sequence[Missing], site: Site, base: str) -> str:
    """A hint for a build that was made to be served at another path."""
    prefix = absent[0].key.partition("/")[0] + "/"
    if all(one.key.startswith(prefix) and one.key.removeprefix(prefix) in site.files for one in absent):
        return (
            f" They are there without {prefix}: the build is made to be served at /{prefix}, not at {base}. Set"
            f" frontend.base, or frontend.bucket to BUCKET/{prefix.rstrip('/')}."
        )
    return ""
