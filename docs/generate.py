"""Writes docs/tasks/, one page per task, from the tasks' own help, and docs/settings.md. `make docs` runs it.

Takes the folder to write to, docs by default.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from invoke.main import program

ROOT = Path(__file__).resolve().parent.parent


def invoke(*words: str) -> str:
    """Run invoke in this process. Returns what it prints."""
    with redirect_stdout(io.StringIO()) as printed:
        program.run(["invoke", f"--search-root={ROOT}", *words], exit=False)
    return printed.getvalue()


def names(collection: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every task's name and the first line of its help; those of namespaces last."""
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


SETTINGS = """# Settings

A flag takes precedence over the environment variable, and that over `environments.toml` (`ENVIRONMENTS_FILE` names
another file). `NAME_<ENVIRONMENT>`, such as `NAME_PROD`, takes precedence over the variable `NAME`. An embedded
environment ignores `AWS_ACCOUNT_ID` and `AWS_REGION`, because they are meant for the real AWS.

`[application]` is for all environments. Every other setting is in `[defaults]`, or in `[environments.NAME]` if that
environment differs. A text may contain `${…}`: a name in lower case is another setting of the same environment
(`${site}`, `${frontend.bucket}`), one in upper case is an environment variable, `${name}` is the environment's name.

`invoke settings --env=prod` shows each value in prod, and where it comes from.
"""
HEAD = "| setting | meaning | default | variable |\n|---|---|---|---|\n"


def default_of(field: Any, path: str) -> str:
    """The cell of a setting's default."""
    from scripts.frame import settings

    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "none" if path in settings.OPTIONAL else "required"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`" if value not in ((), "", msgspec.NODEFAULT) else "none"


def tables(kind: Any, name: str) -> Iterator[str]:
    """The sections of the page for a table of settings and for the tables in it."""
    from scripts.frame import settings

    inner = []
    yield f"\n## [{name}]\n\n{kind.__doc__.strip()}\n\n{HEAD}"
    for field in msgspec.structs.fields(kind):
        meta = next((one for one in getattr(field.type, "__metadata__", ()) if one.description is not None), None)
        path = f"{name}.{field.name}".removeprefix("defaults.")
        of = getattr(field.type, "__origin__", None)
        if get_origin(of) is dict and isinstance(get_args(of)[1], type) and issubclass(get_args(of)[1], settings.Table):
            inner.append((get_args(of)[1], f"defaults.{path}.NAME"))
        elif isinstance(of, type) and issubclass(of, settings.Table):
            inner.append((of, f"defaults.{path}"))
        elif meta:
            variables = ", ".join(f"`{one}`" for one in settings.VARIABLES.get(path, ()))
            yield f"| `{field.name}` | {meta.description} | {default_of(field, path)} | {variables} |\n"
    for of, path in inner:
        yield from tables(of, path)


def settings_page() -> str:
    """The page of all settings with their meanings, from the records that the settings are read into."""
    sys.path.insert(0, str(ROOT))
    from scripts.frame import settings

    return SETTINGS + "".join([*tables(settings.Application, "application"), *tables(settings.Environment, "defaults")])


def main(folder: Path) -> None:
    """Write all pages and the tasks' index, and remove the pages of tasks that no longer exist."""
    pages_of_tasks = folder / "tasks"
    pages_of_tasks.mkdir(parents=True, exist_ok=True)
    tasks = list(names(json.loads(invoke("--list", "--list-format=json"))))
    index = "".join(f"| [{name}]({name}.md) | {text} |\n" for name, text in tasks)
    pages = {f"{name}.md": page(name) for name, _ in tasks}
    pages["README.md"] = f"# Tasks\n\n| task | what it does |\n|---|---|\n{index}"
    for path in pages_of_tasks.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for file, text in pages.items():
        (pages_of_tasks / file).write_text(text)
    (folder / "settings.md").write_text(settings_page())


if __name__ == "__main__":
    # The width of the help must not depend on the terminal.
    os.environ["COLUMNS"] = "100"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
