"""Reads the manifests that some bundlers leave in the build: lists of the files that they wrote."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from scripts.release.pages import parse_json

# Files for developers; no page loads them.
OPTIONAL = (".map", ".LICENSE.txt")


def may_list(key: str) -> bool:
    """Whether a file has the name of a bundler's manifest."""
    return key.rpartition("/")[2] in ("asset-manifest.json", "manifest.json", "ngsw.json")


def references(key: str, text: str) -> list[str]:
    """URLs of the files that a manifest lists, relative to it. Empty if the file is not a bundler's manifest."""
    name, document = key.rpartition("/")[2], parse_json(text)
    if name == "ngsw.json":
        found = _angular(document)
    elif name == "asset-manifest.json":
        found = _webpack(document)
    else:
        # Since Vite 5 the manifest is in .vite/, before that it was in the build's root.
        root = "../" if key.endswith(".vite/manifest.json") else "./"
        found = (root + quote(file) for file in _vite(document))
    return [url for url in found if not url.endswith(OPTIONAL)]


def _vite(document: Mapping[str, Any]) -> Iterator[str]:
    """https://vite.dev/guide/backend-integration: names of files, relative to the build's folder."""
    chunks = list(document.values())
    if all(isinstance(chunk, dict) and isinstance(chunk.get("file"), str) for chunk in chunks):
        for chunk in chunks:
            yield from [chunk["file"], *_texts(chunk.get("css")), *_texts(chunk.get("assets"))]


def _webpack(document: Mapping[str, Any]) -> Iterator[str]:
    """webpack-manifest-plugin, and Create React App's form of it: source -> URL, in `files` or at the top."""
    files = document.get("files", document)
    values = files.values() if isinstance(files, dict) else []
    yield from (url.replace("%", "%25") for url in values if isinstance(url, str))


def _angular(document: Mapping[str, Any]) -> Iterator[str]:
    """https://angular.dev/ecosystem/service-workers: the worker rejects a version if one of these files is missing."""
    table = document.get("hashTable")
    yield from table if isinstance(table, dict) else ()


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
