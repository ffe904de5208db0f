"""Copies the deployment commands into an application's repository, and brings them up to date there.

What is the application's stays as it is: a file of the same name, what was changed there since, and everything outside
our own blocks of .gitignore, .dockerignore, Makefile and .pre-commit-config.yaml. What was copied is in
.deployment.json.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from scripts.edges import git, old_scripts, workflows
from scripts.frame import console, files
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import ROOT

RECORD = ".deployment.json"
NODE = ".nvmrc"
SETTINGS = "environments.toml"
# What an application needs to deploy, and to rehearse that on a laptop.
FOLDERS = ("scripts", "ecs_manager", "local_aws", "examples", ".github/actions/setup")
FILES = (
    *(
        "tasks.py",
        "deployment.mk",
        "requirements.in",
        "requirements.txt",
        "requirements-dev.in",
        "requirements-dev.txt",
    ),
    *(f".github/workflows/{name}.yml" for name in ("deploy", "frontend", "operate")),
)
BEGIN, END = "# deployment commands: begin", "# deployment commands: end"
BLOCK = re.compile(rf"{BEGIN}(?:(?!{BEGIN}).)*?{END}(?:\r?\n)?", re.DOTALL)
IGNORED = (".venv/", ".local/", "__pycache__/", "/examples/frontend/build/", "/examples/frontend/storybook-static/")
NOT_IN_IMAGES = (".venv", ".local", "**/__pycache__", "deployment.mk", SETTINGS, "local_aws", "ecs_manager", "examples")
HOOK = """- repo: local
  hooks:
    - id: deployment
      name: the settings of the deployment can be read
      entry: make test-deployment
      language: system
      pass_filenames: false
      files: ^(environments\\.toml|tasks\\.py|scripts/.*\\.py)$"""


# A path below the repository: what an update removes is read from a file that others may write.
Below = Annotated[str, Meta(pattern=r"\A(?!/)(?!(?:.*/)?\.{1,2}(?:/|\Z))[^\\\x00]{1,500}\Z")]


class Record(Struct):
    """What was copied: path -> sha256 of the content."""

    files: dict[Below, str] = {}


class Adoption(Struct, frozen=True):
    """What is going to be written, with its size in bytes, and removed.

    kept: what stays as it is, and why. to_do: what a person has to do.
    """

    folder: str
    write: Mapping[str, int]
    remove: tuple[str, ...]
    kept: tuple[str, ...]
    to_do: tuple[str, ...]

    def describe(self) -> list[str]:
        lines = [f"write {path} ({size:,} bytes)" for path, size in sorted(self.write.items())]
        return [*lines, *(f"remove {path}" for path in self.remove), *self.notes()]

    def notes(self) -> list[str]:
        """What a person has to know and to do."""
        return [*(f"keep {path}" for path in self.kept), *(f"to do: {what}" for what in self.to_do)]


class Adopted(Report, Struct, frozen=True):
    """What was written. kept, to_do: as planned."""

    folder: str
    written: int
    removed: int
    kept: tuple[str, ...]
    to_do: tuple[str, ...]

    def line(self) -> str:
        left = f"; {len(self.to_do)} things are left to do" if self.to_do else ""
        return f"{self.folder} has the deployment commands: {self.written} files written, {self.removed} removed{left}"

    def table(self) -> list[tuple[str, ...]]:
        rows = [*(("kept", path) for path in self.kept), *(("to do", what) for what in self.to_do)]
        return [("WHAT", ""), *rows] if rows else []


def adopt(run: Run, *, into: str | None = None, from_scripts: bool = False) -> Adopted | None:
    """Copy them."""
    if not into:
        raise Refused("--into is missing: give the folder of the application's repository.")
    folder = Path(into).resolve()
    # Not Path.exists, which raises for a name that is too long.
    if folder == ROOT or not os.path.exists(folder / ".git"):
        raise Refused(f"{str(folder)[:200]!r} is not the top folder of another git repository.")
    decided, contents = plan(folder, ours(), from_scripts)
    adopted = run.act(decided, partial(act, contents))
    for line in decided.notes() if adopted else ():
        console.say(line)
    return adopted


def ours() -> dict[str, bytes]:
    """What is copied: path -> content. Only files that git knows."""
    told = git.run(ROOT, "ls-files", "-z", "--", *FOLDERS, *FILES)
    return {name: (ROOT / name).read_bytes() for name in told.split("\0") if name and (ROOT / name).is_file()}


def plan(folder: Path, given: Mapping[str, bytes], from_scripts: bool) -> tuple[Adoption, dict[str, bytes]]:
    """Decide what to write. given: path -> content. Returns the plan, and the content of what it writes."""
    known = _record(folder)
    write, kept, record = dict[str, bytes](), list[str](), dict[str, str]()
    settings, to_do = _settings(folder, from_scripts)
    if not (folder / SETTINGS).exists():
        write[SETTINGS] = settings.encode()
    for path, content in _fitted(folder, given, settings).items():
        there = (folder / path).read_bytes() if (folder / path).is_file() else None
        if there is not None and there != content and _sha256(there) != known.get(path):
            kept.append(f"{path}: {'it was changed here' if path in known else 'it is not from here'}")
            record |= {path: known[path]} if path in known else {}
            continue
        record[path] = _sha256(content)
        if there != content:
            write[path] = content
    # Not Path.is_file, which raises for a name that is too long.
    gone = [path for path in known if path not in given and os.path.isfile(folder / path)]
    remove = tuple(path for path in gone if _sha256((folder / path).read_bytes()) == known[path])
    to_do = [GITHUB, *_merge(folder, write, kept), *to_do]
    recorded = json.dumps({"files": record}, indent=1, sort_keys=True).encode() + b"\n"
    if not (folder / RECORD).is_file() or (folder / RECORD).read_bytes() != recorded:
        write[RECORD] = recorded
    sizes = {path: len(content) for path, content in write.items()}
    return Adoption(str(folder), sizes, remove, tuple(kept), tuple(to_do)), write


GITHUB = (
    "GitHub: the environments, reviewers and secrets, and the jobs that call deploy.yml, as docs/adopting.md has them"
)
EXAMPLE = ["environments.toml is the example: write the application's own values, or use --from-scripts"]


def _settings(folder: Path, from_scripts: bool) -> tuple[str, list[str]]:
    """The application's settings, those that it has or those that it gets, and what a person has to do about them.

    Raises Refused for those that cannot be read.
    """
    if (folder / SETTINGS).exists():
        try:
            settings, to_do = (folder / SETTINGS).read_text(encoding="utf-8"), list[str]()
        except (OSError, ValueError) as error:
            raise Refused(f"{SETTINGS} cannot be read: {error}") from error
    else:
        settings, to_do = old_scripts.made(folder) if from_scripts else (old_scripts.example(), [*EXAMPLE])
    regions = workflows.facts(settings).regions
    several = (
        [f"the workflows: aws-region, of which the settings have {', '.join(regions)}"] if len(regions) > 1 else []
    )
    return settings, [*to_do, *several]


def _fitted(folder: Path, given: Mapping[str, bytes], settings: str) -> dict[str, bytes]:
    """What is copied, with the workflows as the application's settings have them."""
    here, there = workflows.facts(old_scripts.example()), workflows.facts(settings)
    fitted = dict(given)
    for path in given:
        if path.startswith(".github/workflows/"):
            text = workflows.fitted(given[path].decode(), here, there)
            if not (folder / NODE).exists():
                text = text.replace(f"node-version-file: {NODE}", "node-version-file: package.json")
            fitted[path] = text.encode()
    return fitted


def _record(folder: Path) -> dict[str, str]:
    """What an earlier run has copied. Raises Refused for a record that is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record).files
    except msgspec.MsgspecError as error:
        raise Refused(f"{path} is damaged: {error}. Restore it with git.") from error


def _merge(folder: Path, write: dict[str, bytes], kept: list[str]) -> list[str]:
    """Add our blocks to the files that both have. Returns what could not be done."""
    to_do = list[str]()
    for path, lines in ((".gitignore", IGNORED), (".dockerignore", NOT_IN_IMAGES)):
        _put_block(folder, path, "\n".join(lines), write)
    targets = re.findall(r"^([\w-]+)\s*:(?!=)", _text(folder, "Makefile").partition(BEGIN)[0], re.MULTILINE)
    taken = {"deploy", "test", "setup"} & set(targets)
    if taken:
        kept.append(f"Makefile: it has the targets {', '.join(sorted(taken))}")
        to_do.append("Makefile: use `make -f deployment.mk deploy`, or include deployment.mk under other names")
    else:
        _put_block(folder, "Makefile", "include deployment.mk", write)
    hooks = _text(folder, ".pre-commit-config.yaml")
    if hooks:
        # The list has to be the last key of the file, so that a block at its end is a part of it.
        items = re.findall(r"^( *)- repo:", hooks.partition(BEGIN)[0], re.MULTILINE)
        keys = re.findall(r"^(\w+):", hooks, re.MULTILINE)
        if items and keys and keys[-1] == "repos":
            indented = "\n".join(items[-1] + line for line in HOOK.splitlines())
            _put_block(folder, ".pre-commit-config.yaml", indented, write)
        else:
            to_do.append(".pre-commit-config.yaml: add a hook for `make test-deployment`")
    return to_do


def _text(folder: Path, path: str) -> str:
    """Of a file of theirs, to be written again with the same bytes."""
    return (folder / path).read_bytes().decode(errors="surrogateescape") if (folder / path).is_file() else ""


def _put_block(folder: Path, path: str, content: str, write: dict[str, bytes]) -> None:
    """Our block at the end of a file, in place of the one that an earlier run has put there."""
    before = _text(folder, path)
    break_ = "\r\n" if "\r\n" in before else "\n"
    block = break_.join((BEGIN, *content.splitlines(), END, ""))
    after, found = BLOCK.subn(lambda _: block, before)
    if not found:
        after = before + ("" if before.endswith("\n") or not before else break_) + block
    if after != before:
        write[path] = after.encode(errors="surrogateescape")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def act(contents: Mapping[str, bytes], plan: Adoption) -> Adopted:
    """Write and remove. contents: of the files to be written. Raises DeployError for a file that cannot be written."""
    folder = Path(plan.folder)
    for path, content in contents.items():
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            files.write(folder / path, content)
        except Refused as error:
            # No longer a refusal: other files may have been written.
            raise DeployError(str(error)) from error
        except OSError as error:
            raise DeployError(f"{folder / path} cannot be written: {error.strerror}.") from error
    for path in plan.remove:
        try:
            (folder / path).unlink(missing_ok=True)
        except OSError as error:
            raise DeployError(f"{folder / path} cannot be removed: {error.strerror}.") from error
    return Adopted(plan.folder, len(plan.write), len(plan.remove), plan.kept, plan.to_do)
