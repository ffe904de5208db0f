"""Sites to release: folders like those that real bundlers write."""

import hashlib
import json
import shutil
from pathlib import Path


def name(stem: str, body: str, ending: str, style: str) -> str:
    """A file name with the content's hash, as a bundler writes it."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    if style == "vite":
        return f"assets/{stem}-aB{digest[:2]}cD{digest[2:4]}.{ending}"
    return f"static/{ending}/{stem}.{digest[:8]}.chunk.{ending}"


def add_worker(folder: Path, version: str) -> Path:
    """Add a service worker that precaches the page and all that belongs to it, and a file with the version.

    A revision is the hash of the content, as workbox writes it.
    """
    (folder / "version.json").write_text(f'{{"version": "{version}"}}')
    keys = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    entries = [
        {"url": f"/{key}", "revision": hashlib.md5((folder / key).read_bytes(), usedforsecurity=False).hexdigest()}
        for key in keys
    ]
    (folder / "sw.js").write_text(f"precacheAndRoute({json.dumps(entries)})")
    return folder


def build(folder: Path, version: str, *, style: str = "vite", chunks: int = 5) -> Path:
    """Write a site whose page references a script, a style and, through them, chunks and a picture.

    version: is part of every chunk and of the page, so that the names differ between versions.
    """
    shutil.rmtree(folder, ignore_errors=True)
    files: dict[str, str] = {}
    picture = f"picture of {version}"
    files[name("logo", picture, "svg", style)] = picture
    logo = next(iter(files))
    css = f'main {{ background: url("/{logo}") }} /* {version} */'
    files[name("index", css, "css", style)] = css
    imports = ""
    for number in range(chunks):
        text = f"export const v{number} = '{version}';"
        key = name(f"chunk{number}", text, "js", style)
        files[key] = text
        imports += f'import {{ v{number} }} from "/{key}";\n'
    files[name("index", imports, "js", style)] = imports
    script = [key for key in files if key.endswith("js")][-1]
    style_key = next(key for key in files if key.endswith("css"))
    module = ' type="module"' if style == "vite" else ""
    files["index.html"] = (
        f'<!doctype html><html><head><link rel="icon" href="/favicon.ico"><link rel="stylesheet" href="/{style_key}">'
        f'<script{module} src="/{script}"></script></head><body>{version}</body></html>'
    )
    files["favicon.ico"] = "icon"
    files["robots.txt"] = "User-agent: *\n"
    files["help/index.html"] = f"<p>help of {version}</p>"
    for key, text in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
