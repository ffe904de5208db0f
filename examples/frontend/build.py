"""Builds the example frontend: files laid out like those of a Vite build, with nothing but the standard library.

Reads the REACT_APP_ variables, GITHUB_SHA (default: the checked-out commit), and BUILD_PATH, the folder to write to
(default: build/ beside this file).
The same variables and sources always give the same bytes.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("BUILD_PATH") or HERE / "build")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def asset(name: str, body: bytes) -> str:
    """Write a file with a hash of its content in its name. Returns its path in the site."""
    stem, dot, extension = name.rpartition(".")
    digest = hashlib.sha256(body).hexdigest()[:20]
    path = f"assets/{stem}-{digest}{dot}{extension}"
    (BUILD / "assets").mkdir(parents=True, exist_ok=True)
    (BUILD / path).write_bytes(body)
    return path


def checked_out() -> str:
    """The commit of these sources, empty outside a repository of git."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def main() -> None:
    """Write the whole site."""
    shutil.rmtree(BUILD, ignore_errors=True)
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("REACT_APP_")}
    settings["version"] = os.environ.get("GITHUB_SHA") or checked_out()
    logo = asset("logo.png", PIXEL)
    style = asset("index.css", (HERE / "style.css").read_text().replace("LOGO", f"/{logo}").encode())
    plans = asset("plans.js", (HERE / "plans.js").read_bytes())
    source = (HERE / "main.js").read_text()
    source = source.replace("SETTINGS", json.dumps(settings)).replace("PLANS", f"./{Path(plans).name}")
    script = asset("index.js", source.encode())
    page = (HERE / "index.html").read_text()
    for name, path in (("SCRIPT", script), ("STYLE", style)):
        page = page.replace(name, f"/{path}")
    (BUILD / "index.html").write_text(page)
    shutil.copytree(HERE / "public", BUILD, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
