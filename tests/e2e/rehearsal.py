"""Runs what `invoke local.rehearse` runs, and writes it as a chapter of docs/runbook.md: `make rehearsal`.

A section for each scenario: what goes wrong, the commands and what the last one printed, its exit code and what to do.
No time is spent waiting: the laboratory's sleeping moves all clocks.
"""

import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_aws import process
from local_aws.scenarios import SCENARIOS
from local_aws.server import Server
from tests.faults import matrix
from tests.faults.recorder import Laboratory, Outcome

INDENT = "    "
WIDTH = 120
CHAPTER = re.compile(r"(?<=^## Rehearse it\n).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
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


def printed(page: str) -> dict[str, tuple[str, ...]]:
    """What the last command of each section has printed, by scenario."""
    found = {}
    for name, body in SECTION.findall(page):
        block = [line.removeprefix(INDENT) for line in body.splitlines() if line.startswith(INDENT)]
        found[name] = tuple(line for line in block if not line.startswith("$ "))
    return found


def section(name: str, lines: Iterable[str]) -> str:
    """The section of a scenario, with these printed lines."""
    scenario = SCENARIOS[name]
    says = f"{scenario.says[0].upper()}{scenario.says[1:]}."
    block = [*(f"$ invoke {' '.join(words)}" for words in commands(name)), *lines]
    texts = [textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in (says, scenario.outcome())]
    return "\n\n".join([f"### {name}", texts[0], textwrap.indent("\n".join(block), INDENT), texts[1]]) + "\n"


def commands(name: str) -> list[tuple[str, ...]]:
    """What a person types for a scenario: words after `invoke`."""
    return [("local.up", f"--scenario={name}"), SCENARIOS[name].deployment("local")]


def shape(lines: Iterable[str]) -> list[str]:
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


def rehearse(laboratory: Laboratory, name: str) -> Outcome:
    """Start a scenario in a new cloud, and deploy in it. Returns how the deployment ended."""
    laboratory.reset()
    begin, deployment = commands(name)
    done = laboratory.run(begin)
    assert done.code == 0, done.said
    return laboratory.run(deployment)


def rewritten(page: str, said: Mapping[str, str]) -> str:
    """The page with a section for each scenario. said: what its deployment printed, which is kept if it differs."""
    before, sections = printed(page), []
    for name, lines in said.items():
        now = tuple(line for line in lines.splitlines() if line)
        sections.append(section(name, before[name] if shape(now) == shape(before.get(name, ())) else now))
    chapter = CHAPTER.search(page)
    assert chapter
    intro = chapter[0].partition("### ")[0]
    return page.replace(chapter[0], intro + "\n".join(sections))


def main(path: Path) -> None:
    """Rehearse every scenario, and write what was printed."""
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
            done = {name: rehearse(laboratory, name) for name in SCENARIOS}
            said = {name: one.said.replace(server.cloud.host, "127.0.0.1:4566") for name, one in done.items()}
            path.write_text(rewritten(path.read_text(), said))
            for name, one in done.items():
                print(f"{name}: {one.code}, {SCENARIOS[name].code} is right", file=sys.stderr)
    finally:
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
