"""How a command is declared: its flags on the command line, and what its function gets of them."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from invoke.context import Context

from scripts.frame import declaration
from scripts.frame.declaration import Command, command, flag, namespace_of, switch
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from tests.conftest import ROOT

COMMON = {"env": None, "dry_run": False, "yes": False, "json": False}


class Work:
    """The function of a command, which records its run and its flags."""

    def __init__(self) -> None:
        self.calls = list[tuple[Run, dict[str, Any]]]()

    def __call__(self, run: Run, **flags: object) -> None:
        self.calls.append((run, flags))


def declared(work: Work, **options: Any) -> Command:
    """A command with two flags of its own."""
    return command(lambda: work, **options)(a_command)


def a_command(tag: str | None = flag("The tag."), no_wait: bool = switch("Do not wait.")) -> None:
    """Do what it says."""


def ran(options: dict[str, Any], dry: bool = False, **given: Any) -> tuple[Run, dict[str, Any]]:
    """The run of a command that is declared with some options, and the flags that its function got."""
    work = Work()
    flags = {**COMMON, "tag": None, "no_wait": False, "force_lock": False, "lock_wait": None, **given}
    declared(work, **options).task.body(Context(Config(overrides={"run": {"dry": dry}})), **flags)
    return work.calls[0]


@pytest.mark.parametrize(
    ("options", "title", "name"),
    [({}, "a-command", "a-command"), ({"name": "release.list"}, "release.list", "list")],
    ids=["its function's", "its own"],
)
def test_a_command_is_named_after_its_function_unless_it_has_a_name(
    options: dict[str, str], title: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dashes. The last part is its name within its collection."""
    made = declared(Work(), **options)

    assert (made.name, made.task.name, made.task.__doc__) == (title, name, "Do what it says.")
    ran(options, env="dev")
    assert capsys.readouterr().err.startswith(f"{title}: dev")


@pytest.mark.parametrize("locks", [False, True])
def test_every_command_has_its_own_flags_and_the_common_ones(locks: bool) -> None:
    """--env comes first, as people type it. Only commands that hold the lock have its flags. None has a short form."""
    arguments = declared(Work(), **({"locks": True} if locks else {})).task.get_arguments()

    lock = {"force-lock": (bool, False), "lock-wait": (str, None)} if locks else {}
    common = {"dry-run": (bool, False), "yes": (bool, False), "json": (bool, False)}
    own = {"tag": (str, None), "no-wait": (bool, False)}
    assert [one.name.replace("_", "-") for one in arguments] == ["env", *own, *lock, *common]
    assert {one.name.replace("_", "-"): (one.kind, one.default) for one in arguments} == {
        "env": (str, None),
        **own,
        **lock,
        **common,
    }
    assert all(one.help and not one.positional and len(one.names) == 1 for one in arguments)


def test_a_commands_function_gets_its_own_flags_alone() -> None:
    """The common ones are in its run."""
    run, flags = ran({}, env="dev", tag="v1", no_wait=True, yes=True, json=True, dry_run=True)

    assert flags == {"tag": "v1", "no_wait": True}
    assert (run.environment.name, run.yes, run.json, run.dry_run) == ("dev", True, True, True)


@pytest.mark.parametrize(
    ("flag", "dry", "expected"), [(False, False, False), (True, False, True), (False, True, True)], ids=str
)
def test_invokes_own_dry_is_a_dry_run_too(flag: bool, dry: bool, expected: bool) -> None:
    run, _ = ran({}, dry, env="dev", dry_run=flag)

    assert run.dry_run is expected


@pytest.mark.parametrize(("env", "name"), [(None, "impl"), ("dev", "dev")])
def test_a_command_may_have_an_environment_of_its_own(env: str | None, name: str) -> None:
    """If --env does not name another."""
    run, _ = ran({"env": "impl"}, env=env)

    assert run.environment.name == name


@pytest.mark.parametrize(
    ("options", "refused"), [({}, True), ({"changes": False}, False), ({"asks": True}, False)], ids=str
)
def test_a_command_changes_something_unless_it_says_otherwise(options: dict[str, bool], refused: bool) -> None:
    """Prod is confirmed before it begins, unless it asks itself."""
    with pytest.raises(Refused, match="prod needs a confirmation") if refused else nullcontext():
        ran(options, env="prod")


@pytest.mark.parametrize(("options", "sends"), [({}, True), ({"embedded": False}, False)], ids=str)
def test_a_command_sends_requests_unless_it_says_otherwise(options: dict[str, bool], sends: bool) -> None:
    """Where they go is shown first."""
    run, _ = ran(options, env="dev")

    assert (run.destination is not None) is sends


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "a-command: local (from the default)"), ({"application": True}, "a-command: mint-app")],
    ids=str,
)
def test_a_command_about_the_application_needs_no_environment(
    options: dict[str, bool], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran({"embedded": False, **options})

    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize(("options", "expected"), [({"locks": True}, (True, 9.0)), ({}, (False, 0.0))], ids=str)
def test_the_flags_of_the_lock_are_kept_in_the_run(options: dict[str, bool], expected: tuple[bool, float]) -> None:
    """Of a command that holds it."""
    run, flags = ran(options, env="dev", force_lock=True, lock_wait="9")

    assert (run.force_lock, run.lock_wait) == expected
    assert flags == {"tag": None, "no_wait": False}


def test_a_namespace_holds_the_commands_by_their_collections() -> None:
    """Everything else in a module is left out."""
    commands = [declared(Work(), name=name) for name in ("deploy", "release.list", "release.diff", "local.up")]

    found = namespace_of([*commands, "text", a_command, None])

    assert sorted(found.task_names) == ["deploy", "local.up", "release.diff", "release.list"]
    assert sorted(found.collections) == ["local", "release"]


SHOWN = "`invoke --list` shows all tasks, `invoke TASK --help` its flags."


class Known:
    """A task, or the program itself, as Invoke's parser knows it."""

    def __init__(self, name: str | None, *flags: str) -> None:
        self.name, self.flags = name, dict.fromkeys(flags)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("No idea what 'deploi' is!", "'deploi' is not a task or a flag. Did you mean deploy?"),
        ("No idea what '--no_wait=x' is!", "'--no_wait' is not a task or a flag. Did you mean --no-wait?"),
        ("No idea what 'it's' is!", f'"it\'s" is not a task or a flag. {SHOWN}'),
        ("No idea what '--tag' is!", "--tag belongs after the task: `invoke TASK --tag`."),
        ("Flag <Argument: tag (t)> needed value and was not given one!", "--tag needs a value."),
        ("The flags clash!", "The flags clash!"),
    ],
)
def test_a_problem_of_the_command_line_is_a_sentence_with_the_nearest_name(problem: str, said: str) -> None:
    assert declaration._said(problem, [Known("deploy", "--tag", "--no-wait"), Known(None, "--help")]) == said


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_is_closed_is_replaced(closed: int, tmp_path: Path) -> None:
    """No file that is opened later gets its number, and a program that is started finds it open."""
    code = f"""
import pathlib, subprocess, sys
from scripts.frame import declaration
declaration._open_streams()
streams = [sys.stdin, sys.stdout, sys.stderr]
child = subprocess.run(["sh", "-c", "test -e /proc/self/fd/{closed}"], close_fds=False)
found = [stream.fileno() for stream in streams], streams[{closed}].mode, child.returncode
pathlib.Path(sys.argv[1]).write_text(repr(found))
"""
    begin = f"import os, sys; os.close({closed}); os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    subprocess.run([sys.executable, "-c", begin, code, str(tmp_path / "found")], cwd=ROOT, check=True)

    assert (tmp_path / "found").read_text() == repr(([0, 1, 2], "r" if closed == 0 else "w", 0))
