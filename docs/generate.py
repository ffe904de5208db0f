"""Writes docs/tasks/, one page per task, from the tasks' own help. `make docs` runs it.

Takes the folder to write to, docs/tasks by default.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def invoke(*words: str) -> str:
    """What Invoke prints, at a width that does not depend on the terminal."""
    env = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def names(collection: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every task's name and first line, those of namespaces last."""
    for task in collection["tasks"]:
        yield prefix + task["name"], task["help"]
    for sub in collection["collections"]:
        yield from names(sub, f"{prefix}{sub['name']}.")


def page(name: str) -> str:
    """A task's page: its description and its flags."""
    told = invoke(name, "--help")
    description = told.partition("Docstring:\n")[2].partition("\nOptions:")[0]
    text = "\n".join(line.strip() for line in description.strip().splitlines())
    options = told.partition("Options:\n")[2].rstrip()
    return f"# invoke {name}\n\n{text}\n\n```\n{options}\n```\n"


def main(folder: Path) -> None:
    """Write all pages and their index, and remove what no task has."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = list(names(json.loads(invoke("--list", "--list-format=json"))))
    index = "".join(f"| [{name}]({name}.md) | {text} |\n" for name, text in tasks)
    pages = {f"{name}.md": page(name) for name, _ in tasks}
    pages["README.md"] = f"# Tasks\n\n| task | what it does |\n|---|---|\n{index}"
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for file, text in pages.items():
        (folder / file).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "tasks")
