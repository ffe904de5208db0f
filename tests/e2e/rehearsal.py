"""Runs what docs/runbook.md rehearses, and writes what it printed into the page: `make rehearsal`.

A section is named by its scenario. Its block begins with the commands, each after "$ ", and goes on with what the last
one prints. No time is spent waiting: the laboratory's sleeping moves all clocks.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_aws import process
from local_aws.server import Server
from tests.faults import matrix
from tests.faults.recorder import Laboratory, Outcome

INDENT = "    "
SECTION = re.compile(r"^### ([a-z-]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
# What differs between two runs.
VARIES = [
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"sha256:[0-9a-f]+", "DIGEST"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b", "ID"),
        (r"ecs-svc/\d+", "ecs-svc/N"),
        (r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?", "TIME"),
        (r"\(\d+ s\)|after \d+ s", "SECONDS"),
        (r"\b\d+ (new|old|tasks|task|of|failures)\b", r"N \1"),
    )
]
# Printed while it waits: how often depends on when it looks.
PROGRESS = re.compile(r"ECS: \S+ is rolling (out|back)|http://\S+ answers with|http://\S+: ")


@dataclass(frozen=True)
class Section:
    """A section of the runbook. text: what is said of it. commands: words after `invoke`. printed: by the last one."""

    name: str
    text: str
    commands: tuple[tuple[str, ...], ...]
    printed: tuple[str, ...]

    @property
    def code(self) -> int | None:
        """The exit code that the text names."""
        found = re.search(r"exit code (\d)", self.text)
        return int(found[1]) if found else None


def sections(page: str) -> list[Section]:
    """The sections of the page that rehearse a scenario."""
    found = []
    for name, body in SECTION.findall(page):
        block = [line.removeprefix(INDENT) for line in body.splitlines() if line.startswith(INDENT)]
        text = "\n".join(line for line in body.splitlines() if not line.startswith(INDENT))
        commands = [tuple(line.removeprefix("$ invoke ").split()) for line in block if line.startswith("$ ")]
        printed = [line for line in block if not line.startswith("$ ")]
        found.append(Section(name, text, tuple(commands), tuple(printed)))
    return found


def shape(lines: Iterator[str] | tuple[str, ...]) -> list[str]:
    """Lines without what differs between two runs: ids, times, counts, progress, the same line again."""
    kept: list[str] = []
    for line in lines:
        for pattern, plain in VARIES:
            line = pattern.sub(plain, line)
        if line and line not in kept and not PROGRESS.match(line):
            kept.append(line)
    return kept


@contextmanager
def rehearsing(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laboratory]:
    """A laboratory around a running embedded AWS, which `invoke local.up --scenario=NAME` may set."""
    token = process.token_path(server.cloud.port)
    token.parent.mkdir(exist_ok=True)
    token.write_text(server.cloud.token)
    try:
        with matrix.bench(server, folder, monkeypatch) as bench:
            monkeypatch.delenv("APP_ENV")
            yield bench.laboratory
    finally:
        token.unlink()


def rehearse(laboratory: Laboratory, section: Section) -> Outcome:
    """Run the commands of a section in a new cloud. Returns how the last one ended; the others must succeed."""
    laboratory.reset()
    *first, last = section.commands
    for words in first:
        done = laboratory.run(words)
        assert done.code == 0, done.said
    return laboratory.run(last)


def rewritten(page: str, section: Section, said: str) -> str:
    """The page with what a section's last command has printed, if that differs."""
    if shape(tuple(said.splitlines())) == shape(section.printed):
        return page
    whole = next(found for found in SECTION.finditer(page) if found[1] == section.name)
    lines = whole[0].splitlines()
    after = max(number for number, line in enumerate(lines) if line.startswith(f"{INDENT}$ ")) + 1
    kept = [line for line in lines[after:] if not line.startswith(INDENT)]
    printed = [f"{INDENT}{line}" for line in said.splitlines() if line]
    return page.replace(whole[0], "\n".join([*lines[:after], *printed, *kept]) + "\n")


def main(path: Path) -> None:
    """Run every section, and write what it printed."""
    for name in set(os.environ) - {"PATH", "LANG"}:
        del os.environ[name]
    server = Server()
    os.environ["AWS_ENDPOINT_URL"] = server.cloud.url
    server.start()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            pytest.MonkeyPatch.context() as monkeypatch,
            rehearsing(server, Path(folder), monkeypatch) as laboratory,
        ):
            for section in sections(path.read_text()):
                done = rehearse(laboratory, section)
                said = done.said.replace(server.cloud.host, "127.0.0.1:4566")
                path.write_text(rewritten(path.read_text(), section, said))
                print(f"{section.name}: {done.code}, {section.code} in its text", file=sys.stderr)
    finally:
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
