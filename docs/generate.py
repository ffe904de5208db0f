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
    """What Invoke prints."""
    with redirect_stdout(io.StringIO()) as printed:
        program.run(["invoke", f"--search-root={ROOT}", *words], exit=False)
    return printed.getvalue()


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


SETTINGS = """# Settings

A flag comes first, then the environment variable, then `environments.toml` (`ENVIRONMENTS_FILE` names another file).
A variable `NAME` is looked for as `NAME_<ENVIRONMENT>` first. In an embedded environment, `AWS_ACCOUNT_ID` and
`AWS_REGION` do not count: they are the real AWS's.

`[application]` is about all environments. Every other setting stands in `[defaults]` or, where an environment differs,
in `[environments.NAME]`. Its text may hold `${…}`: a name in lower case is another setting of the same environment
(`${site}`, `${frontend.bucket}`), one in upper case is an environment variable, and `${name}` the environment's name.

`invoke settings --env=prod` shows what holds in prod and where each value came from.
"""
HEAD = "| setting | meaning | default | variable |\n|---|---|---|---|\n"


def default_of(field: Any, path: str) -> str:
    """What holds where a file does not say."""
    from scripts.frame import settings

    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "none" if path in settings.OPTIONAL else "required"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`" if value not in ((), "", msgspec.NODEFAULT) else "none"


def tables(kind: Any, name: str) -> Iterator[str]:
    """The page's part for a table of the settings and for the tables in it."""
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
    """Every setting with its meaning, from the records that the settings are read into."""
    sys.path.insert(0, str(ROOT))
    from scripts.frame import settings

    return SETTINGS + "".join([*tables(settings.Application, "application"), *tables(settings.Environment, "defaults")])


def main(folder: Path) -> None:
    """Write all pages and their index, and remove what no task has."""
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
    # No page depends on the terminal.
    os.environ["COLUMNS"] = "100"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
