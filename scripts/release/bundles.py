"""Reads the manifests that some bundlers leave in the build: lists of the files that they wrote, and of what."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from scripts.release import content, javascript
from scripts.release.pages import parse_json

# Files for developers; no page loads them.
OPTIONAL = (".map", ".LICENSE.txt")
# Scripts that load files by names of their own, relative to them: Storybook's page the list of the stories and the page
# that shows one, Angular's service worker the list of what it caches.
LOADED = {"sb-manager/runtime.js": ("../index.json", "../iframe.html"), "ngsw-worker.js": ("./ngsw.json",)}
# The list of what each page of Next loads, relative to the folder _next, when a person follows a link to it.
NEXT, OF_NEXT = "_buildManifest.js", "static/"
# A hash between the name of the source and the ending: .0123abcd.chunk.js, -AbCd_-09.css
INSERTED = re.compile(r"[.-]([\w-]{8,64})(?:\.(?:chunk|module|min|bundle))?\.[A-Za-z0-9]+(?:\.map)?", re.ASCII)


def may_list(key: str) -> bool:
    """Whether a file has the name of a bundler's manifest, or loads files by names that stand in no page."""
    return key.endswith(tuple(LOADED)) or key.rpartition("/")[2] in (
        "asset-manifest.json",
        "manifest.json",
        "ngsw.json",
        NEXT,
    )


def references(key: str, text: str) -> list[str]:
    """URLs of the files that a manifest lists, relative to it. Empty if the file is not a bundler's manifest."""
    for script, loaded in LOADED.items():
        if key.endswith(script):
            return [*loaded]
    name, document = key.rpartition("/")[2], parse_json(text)
    found: Iterable[str]
    if name == NEXT:
        # It is in _next/static/<id of the build>/.
        return [f"../../{path}" for path in javascript.strings(text) if path.startswith(OF_NEXT)]
    if name == "ngsw.json":
        found = _angular(document)
    elif name == "asset-manifest.json" or _is_flat(document):
        found = _webpack(document)
    elif not _is_vite(document):
        return []
    else:
        # Since Vite 5 the manifest is in .vite/, before that it was in the build's root.
        root = "../" if key.endswith(".vite/manifest.json") else "./"
        found = (root + quote(file) for file in _vite(document))
    return [url for url in found if not url.endswith(OPTIONAL)]


def hashed(key: str, text: str) -> set[str]:
    """The keys in a bundler's manifest whose names have a hash between the name of the source and the ending.

    One hash alone may be a word. But if most of the names have a random part, the others of its length are hashes too.
    """
    if key.endswith((*LOADED, "ngsw.json")):
        return set()
    name, document = key.rpartition("/")[2], parse_json(text)
    folder = key.removesuffix(name).removesuffix(".vite/")
    parts = {
        posixpath.normpath(folder + urlsplit(file).path.lstrip("/")): part
        for source, file in _sources(document)
        if (part := _inserted(source, file)) and not content.is_ordinary(part)
    }
    sure = [part for part in parts.values() if content.is_hash(part)]
    if len(sure) * 2 <= len(parts):
        return set()
    lengths = set(map(len, sure))
    return {file for file, part in parts.items() if len(part) in lengths}


def _sources(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each source and the file that was made of it, relative to the root of the build."""
    if _is_vite(document):
        for source, chunk in document.items():
            name = chunk.get("name")
            made = f"{name}.js" if isinstance(name, str) else source
            yield made, chunk["file"]
            yield from ((made, file) for file in _texts(chunk.get("css")))
    else:
        yield from _named(document)


def _inserted(source: str, file: str) -> str:
    """What stands between the name of a source and the ending of the file that was made of it; else empty."""
    stem, name = source.rpartition("/")[2].rpartition(".")[0], urlsplit(file).path.rpartition("/")[2]
    if source.endswith(".map"):
        stem = stem.rpartition(".")[0]
    found = INSERTED.fullmatch(name.removeprefix(stem)) if stem and name.startswith(stem) else None
    return found[1] if found else ""


def _vite(document: Mapping[str, Any]) -> Iterator[str]:
    """https://vite.dev/guide/backend-integration: names of files, relative to the build's folder."""
    for chunk in document.values():
        yield from [chunk["file"], *_texts(chunk.get("css")), *_texts(chunk.get("assets"))]


def _is_vite(document: Mapping[str, Any]) -> bool:
    chunks = document.values()
    return all(isinstance(chunk, dict) and isinstance(chunk.get("file"), str) for chunk in chunks)


def _webpack(document: Mapping[str, Any]) -> Iterator[str]:
    """webpack-manifest-plugin, and Create React App's form of it: source -> URL, in `files` or at the top."""
    yield from (url.replace("%", "%25") for _, url in _named(document))


def _named(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Source and URL. Some plugins give a record with the URL in `src` or `file` instead."""
    files = document.get("files", document)
    for source, value in files.items() if isinstance(files, dict) else ():
        url = value.get("src") or value.get("file") if isinstance(value, dict) else value
        if isinstance(url, str):
            yield source, url


def _is_flat(document: Mapping[str, Any]) -> bool:
    """Whether it can only be a list of files: every value is a path with the ending of its source."""
    return bool(document) and all(
        isinstance(url, str) and "." in source and urlsplit(url).path.endswith(source[source.rindex(".") :])
        for source, url in document.items()
    )


def _angular(document: Mapping[str, Any]) -> Iterator[str]:
    """https://angular.dev/ecosystem/service-workers: the worker rejects a version if one of these files is missing."""
    table = document.get("hashTable")
    yield from (*table, "./ngsw-worker.js") if isinstance(table, dict) else ()


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
