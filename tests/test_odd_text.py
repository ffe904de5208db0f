"""Odd text in every flag of every command is either refused in one sentence or gives a clean dry run."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke import Collection, Context

import tasks
from scripts.frame.errors import Refused
from tests.conftest import Invoke
from tests.stand_in import StandIn, answering, stand_in
from tests.test_cli import ACCOUNT, OK

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
TEXTS = [
    "",
    " ",
    "\n",
    "a\nb",
    "a\r\n::error::x",
    "::error::x",
    "##[error]x",
    "::set-output name=x::y",
    "\x1b[31mred\x07",
    "\x7f\x9b",
    "<",
    "<NAME>",
    "${NAME}",
    "--dry",
    "-",
    "-1",
    "'\"`",
    "x" * 5000,
    "\u202etxt.exe",
    "é漢🙂",
    NOT_UTF8,
    "http://[::1",
    "http://h:99999/",
    "http://user:hunter2@h/",
    "../../x",
    "/",
    ".",
    "$(x)",
    "%0a%s{0}",
    "1e400",
    "nan",
    "0",
    "None",
    "a,b;c|d&e",
    "sha256:" + "0" * 63,
]
# The workflow commands that this project prints itself.
OURS = re.compile(r"::(group|endgroup|error|warning|add-mask)( |::)")


def commands(collection: Collection, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every task, by its name on the command line."""
    for name, task in collection.tasks.items():
        yield prefix + name, task
    for name, sub in collection.collections.items():
        yield from commands(sub, f"{prefix}{name}.")


TASKS = dict(commands(tasks.namespace))
FLAGS = [
    (name, argument.name)
    for name, task in TASKS.items()
    for argument in task.get_arguments()
    if argument.kind is not bool
]


@pytest.fixture(scope="module")
def aws() -> Iterator[StandIn]:
    """A server that must receive no request. It is also the proxy for all other hosts."""
    with stand_in(answering(OK)) as server:
        yield server


@pytest.fixture
def actions(aws: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GitHub Actions without credentials, in an empty folder."""
    aws.requests.clear()
    for name, value in (
        ACCOUNT.items() | {"AWS_ENDPOINT_URL": aws.url, "http_proxy": aws.url, "https_proxy": aws.url}.items()
    ):
        monkeypatch.setenv(name, value)
    for name, value in {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_SHA": "5" * 40}.items():
        monkeypatch.setenv(name, value)
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def acts(shown: str) -> list[str]:
    """What a terminal or the runner of Actions would interpret."""
    lines = [line for line in shown.split("\n") if line.lstrip().startswith("::") and not OURS.match(line)]
    return lines + re.findall(r"##\[|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


def dry_run(name: str, flags: dict[str, str]) -> str:
    """Plan a command. Returns the message of the refusal, or empty for a clean dry run."""
    task = TASKS[name]
    given = {argument.name.replace("-", "_"): argument.default for argument in task.get_arguments()}
    env = {} if name.startswith("local.") else {"env": "dev"}
    try:
        task.body(Context(), **given | {"dry_run": True, "json": True} | env | flags)
    except Refused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "flag"), FLAGS, ids=lambda value: value)
def test_odd_text_is_refused_or_planned(
    name: str, flag: str, aws: StandIn, actions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No request is sent, no file is written, and nothing that is printed is interpreted."""
    wrong = []
    # Each flag is tried with a third of the texts, and each text with a third of the flags.
    for text in TEXTS[FLAGS.index((name, flag)) % 3 :: 3]:
        try:
            refused = dry_run(name, {flag.replace("-", "_"): text})
        except Exception as error:
            wrong.append(f"{text[:40]!r}: {type(error).__name__}: {error}"[:300])
            capsys.readouterr()
            continue
        printed, said = capsys.readouterr()
        document = json.loads(printed)
        flaws = {
            "not one sentence": len(refused.partition("\nDone: ")[0].splitlines()) > 1,
            "no words": document["exit_code"] == 2 and not refused,
            "acts": bool(acts(printed + said)),
            "a password": "://user:hunter2" in said + (printed if flag == "url" else ""),
            "it does not end as a dry run does": not refused and not said.endswith("dry run: nothing was changed\n"),
        }
        wrong += [f"{text[:40]!r}: {flaw}: {refused or said[-300:]}" for flaw, found in flaws.items() if found]
    requests = [request for request in aws.requests if request["method"] != "CONNECT"]

    assert wrong == []
    assert requests == []
    assert {path.name for path in actions.iterdir()} <= {"home", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"}
    for path in actions.glob("GITHUB_*"):
        assert not acts(path.read_text())


@pytest.mark.parametrize(
    "text",
    ["", "--dry", "-1", "a\r\n::error::x", "##[error]x", os.fsdecode(b"\xff\xfe"), "x" * 5000, "$(x)"],
    ids=ascii,
)
def test_odd_text_on_the_command_line_is_refused(text: str, invoke: Invoke) -> None:
    """Invoke passes it on unchanged. Exit code 2."""
    done = invoke(
        "deploy-service", "--env=dev", f"--service={text}", "--tag=x", "--dry-run", GITHUB_ACTIONS="true", **ACCOUNT
    )

    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not acts(done.stderr + done.stdout)


@pytest.mark.parametrize("words", [["--tag"], ["--yes=x"], ["--env"], ["stray"], ["--tag=x", "stray"], ["--dry-run=1"]])
def test_a_command_line_that_cannot_be_parsed_is_refused(words: list[str], invoke: Invoke) -> None:
    """A value is missing, or there is one too many."""
    done = invoke("deploy-service", *words)

    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
