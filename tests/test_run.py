"""The frame of every command: its steps, its output in GitHub Actions, and its report."""

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from local_aws import process
from scripts.frame import console
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run, actor, plain, running
from tests.conftest import ROOT, Invoke
from tests.stand_in import Reply, answering, stand_in
from tests.test_cli import ACCOUNT, KEYS, OK
from tests.test_console import Terminal


@dataclass(frozen=True)
class Plan:
    what: str

    def describe(self) -> list[str]:
        return [f"do {self.what}"]


@dataclass(frozen=True)
class Done(Report):
    what: str

    def line(self) -> str:
        return f"{self.what} is done"

    def outputs(self) -> dict[str, str]:
        return {"what": self.what}


class Seen(Report, Struct, frozen=True):
    """What a command that only reads has found."""

    who: str

    def line(self) -> str:
        return f"saw {self.who}"

    def table(self) -> Sequence[Sequence[str]]:
        return [["WHO", "SINCE"], [self.who, "a long time ago"]]


class Overview(Seen, frozen=True):
    """The same in a table that may be cut."""

    is_overview = True


def command(dry_run: bool = False, json: bool = False) -> AbstractContextManager[Run]:
    """A command in dev, outside Invoke."""
    return running("test", "dev", dry_run=dry_run, json=json, embedded=False)


def step(run: Run, what: str, error: DeployError | None = None) -> tuple[str, object]:
    """A step that succeeds, or fails with an error."""

    def act(plan: Plan) -> Done:
        if error:
            raise error
        return Done(plan.what)

    return what, lambda: run.act(Plan(what), act, what)


@pytest.mark.parametrize("kind", [DeployError, OutcomeUnknown, RolledBack])
def test_steps_stop_at_the_first_failure_and_the_error_lists_those_not_done(
    kind: type[DeployError], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the exit code of the step that failed."""
    with pytest.raises(kind) as error, command() as run:
        run.run_steps([step(run, "one"), step(run, "two", kind("it broke.")), step(run, "three")])

    assert str(error.value) == "two failed: it broke.\nDone: one. Failed: two. Not done: three."
    assert error.value.code == kind.exit_code
    assert [s.name for s in run.steps] == ["one", "two"]


NAMES = ("one", "two", "three")


@pytest.mark.parametrize(
    ("failing", "ending"),
    [
        ("one", "Done: nothing. Failed: one. Not done: two, three."),
        ("three", "Done: one, two. Failed: three. Not done: nothing."),
    ],
)
def test_an_error_says_what_was_done_and_what_was_not(
    failing: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if that is nothing."""
    with pytest.raises(DeployError) as error, command() as run:
        run.run_steps([step(run, name, DeployError("no.") if name == failing else None) for name in NAMES])

    assert str(error.value).splitlines()[-1] == ending


def test_each_step_is_told_when_it_begins_and_when_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """One that reports nothing has no second line. The last line is the last result's, with the time that all took."""
    with command() as run:
        run.run_steps([step(run, "one"), ("two", lambda: None), step(run, "three")])

    assert capsys.readouterr().err.splitlines() == [
        "test: dev (from --env)",
        *("== one", "one is done", "== two", "== three", "three is done"),
        "three is done (0 s)",
    ]


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """It is no failure that could be expected."""
    with pytest.raises(ZeroDivisionError), command() as run:
        run.run_steps([("one", lambda: 1 // 0)])


def test_a_command_without_a_result_has_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with command():
        pass

    assert capsys.readouterr().err == "test: dev (from --env)\n"


def test_a_refusal_after_the_first_step_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 promises that nothing was changed."""
    with pytest.raises(Refused), command() as run:
        run.run_steps([step(run, "one", Refused("no.")), step(run, "two")])
    with pytest.raises(DeployError) as error, command() as run:
        run.run_steps([step(run, "one"), step(run, "two", Refused("no."))])

    assert error.value.code == 1


def test_a_dry_run_plans_every_step_and_acts_on_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line says what would be done."""
    with command(dry_run=True) as run:
        run.run_steps([step(run, "one"), step(run, "two", DeployError("never"))])

    said = capsys.readouterr().err
    assert "  would do one" in said
    assert "  would do two" in said
    assert said.endswith("dry run: nothing was changed\n")


def test_a_failed_read_ends_a_run_but_not_a_dry_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A dry run says what it could not read."""

    def look() -> str:
        raise DeployError("no network")

    with pytest.raises(DeployError, match="no network"), command() as run:
        run.read("the bucket", look)
    with command(dry_run=True) as run:
        assert run.read("the bucket", look) is None

    assert "could not read the bucket: no network" in capsys.readouterr().err


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """GitHub Actions, with files for outputs and the summary."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_actions_gets_groups_outputs_and_a_summary(
    actions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group per step, a line per output, a table of what was done, and links to the site and the commit."""
    monkeypatch.setenv("GITHUB_SHA", "1" * 40)

    with command() as run:
        run.run_steps([step(run, "one"), step(run, "two")])

    said = capsys.readouterr().err
    assert said.count("::group::") == said.count("::endgroup::") == 2
    assert (actions / "GITHUB_OUTPUT").read_text() == "what=one\nwhat=two\nsite=https://dev.mint.cms.gov\n"
    page = (actions / "GITHUB_STEP_SUMMARY").read_text()
    assert "| one | one is done | 0.0 |" in page
    assert "(https://dev.mint.cms.gov)" in page
    assert f"[1111111](https://github.com/CMS-Enterprise/mint-app/commit/{'1' * 40})" in page


def test_actions_gets_the_reason_of_a_failure(actions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In an annotation, with line breaks and percent signs escaped."""
    with pytest.raises(DeployError), command() as run:
        run.run_steps([step(run, "one", DeployError("100 % broken\nsays the manager"))])

    assert "::error title=test::one failed: 100 %25 broken%0Asays the manager%0ADone: nothing." in (
        capsys.readouterr().err
    )
    assert "❌ test · dev" in (actions / "GITHUB_STEP_SUMMARY").read_text()


def test_no_workflow_commands_are_printed_outside_actions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even if GITHUB_OUTPUT is set."""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    with command() as run:
        run.run_steps([step(run, "one")])
    console.mask("secret")
    console.warn("careful")

    assert "::" not in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_each_line_of_a_secret_is_masked(actions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.mask("two\nlines")

    assert capsys.readouterr().err == "::add-mask::two\n::add-mask::lines\n"


def test_a_command_writes_outputs_and_annotations_in_actions(invoke: Invoke, actions: Path) -> None:
    actions_env = {"CI": "true", "GITHUB_ACTIONS": "true", **ACCOUNT, **KEYS}
    with stand_in(answering(OK)) as aws:
        done = invoke("deploy-service", "--env=dev", "--no-image", "--no-wait", AWS_ENDPOINT_URL=aws.url, **actions_env)
    with stand_in(answering(Reply(b"<html>"))) as aws:
        failed = invoke("deploy-service", "--env=dev", "--no-image", AWS_ENDPOINT_URL=aws.url, **actions_env)

    assert done.returncode == 0, done.stderr
    assert "task-definition=arn:aws:ecs:us-west-2:1:task-definition/mint-app:42\n" in (
        (actions / "GITHUB_OUTPUT").read_text()
    )
    assert "::error title=deploy-service::dev-ecs-manager-docker (dev) did not return JSON" in failed.stderr


def document(said: str) -> dict[str, Any]:
    """The document on stdout, with every time as 0."""
    found: dict[str, Any] = json.loads(said)
    assert said == json.dumps(found, indent=2) + "\n"
    for one in found["steps"]:
        assert one["seconds"] >= 0
        one["seconds"] = 0
    return found


DOCUMENT = {"command": "test", "environment": "dev", "dry_run": False, "destination": None, "error": None}
ONE = {"name": "one", "plan": {"what": "one"}, "result": {"what": "one"}, "seconds": 0}


def test_json_holds_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """With its plan and its result."""
    with command(json=True) as run:
        run.run_steps([step(run, "one")])

    assert document(capsys.readouterr().out) == {**DOCUMENT, "steps": [ONE], "exit_code": 0}


def test_json_holds_the_error_and_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    """The step that failed has no result."""
    with pytest.raises(RolledBack) as error, command(json=True) as run:
        run.run_steps([step(run, "one"), step(run, "two", RolledBack("no."))])

    two = {"name": "two", "plan": {"what": "two"}, "result": None, "seconds": 0}
    ended = {"error": str(error.value), "exit_code": 4}
    assert document(capsys.readouterr().out) == {**DOCUMENT, "steps": [ONE, two], **ended}


def test_json_of_a_dry_run_holds_the_plan_and_what_could_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable that is not set is something that a real run would miss."""

    def look() -> str:
        raise DeployError("no network")

    with command(dry_run=True, json=True) as run:
        run.read("the bucket", look)
        run.run_steps([step(run, "put <A_KEY> to <AWS_ACCOUNT_ID>"), step(run, "put <A_KEY> and <b>")])

    found = document(capsys.readouterr().out)
    assert (found["dry_run"], [one["result"] for one in found["steps"]]) == (True, [None, None])
    assert found["unread"] == [
        "could not read the bucket: no network",
        "AWS_ACCOUNT_ID is not set: a real run would be refused",
        "A_KEY is not set: a real run would be refused",
    ]


def test_an_error_before_the_environment_is_known_is_reported_too(
    actions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same document, and as an annotation."""
    with pytest.raises(Refused) as error, running("test", "nowhere", json=True, embedded=False):
        pass

    printed, said = capsys.readouterr()
    expected = {**DOCUMENT, "environment": None, "steps": [], "error": str(error.value), "exit_code": 2}
    assert document(printed) == expected
    assert said.startswith("::error title=test::'nowhere' is not an environment")


def test_the_time_of_each_step_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, to the millisecond, whether it failed or not."""
    monkeypatch.setattr("time.monotonic", itertools.count(0, 1.23456).__next__)

    def work(run: Run) -> None:
        assert run.look("it", lambda: Seen("me")) == Seen("me")
        assert run.act(Plan("it"), lambda plan: Done(plan.what)) == Done("it")
        run.act(Plan("it"), lambda _: fail())

    with pytest.raises(DeployError), command(json=True) as run:
        work(run)

    assert [one["seconds"] for one in json.loads(capsys.readouterr().out)["steps"]] == [1.235] * 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("https://me:secret@host/", "https://host/"),
        (Path("https://me:secret@host"), "https:/me:secret@host"),
        (
            {1: ("a", {"https://me@host": Done("https://me@host")})},
            {"1": ["a", {"https://host": {"what": "https://host"}}]},
        ),
        ([Seen("https://me@host")], [{"who": "https://host"}]),
        (frozenset({"one"}), ["one"]),
    ],
)
def test_records_become_json_without_the_users_of_urls(value: object, shown: object) -> None:
    assert plain(value) == shown


# --- what a command looks up ---


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_a_command_finds_is_a_table_and_its_result(dry_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """In a dry run too, because it only reads."""
    with command(dry_run=dry_run) as run:
        assert run.look("it", lambda: Seen("me")) == Seen("me")

    printed, said = capsys.readouterr()
    assert printed.splitlines() == ["WHO  SINCE", "me   a long time ago"]
    assert said.splitlines()[-1] == ("dry run: nothing was changed" if dry_run else "saw me (0 s)")


def test_json_of_what_a_command_finds_has_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    with command(json=True) as run:
        run.look("it", lambda: Seen("me"))

    found = {"name": "test", "plan": None, "result": {"who": "me"}, "seconds": 0}
    assert document(capsys.readouterr().out)["steps"] == [found]


@pytest.mark.parametrize(
    ("found", "shown"), [(Seen("me"), "me   a long time ago"), (Overview("me"), "me   a long ti…")]
)
def test_only_an_overview_is_cut_to_the_width_of_the_terminal(
    found: Seen, shown: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((15, 24)))
    with command() as run:
        run.look("it", lambda: found)

    assert capfd.readouterr().out.splitlines()[1] == shown


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_steps_are_drawn_on_a_terminal(dry_run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of a plan, which take no time."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with command(dry_run=dry_run) as run:
        run.run_steps([step(run, "one"), step(run, "two")])
    monkeypatch.undo()

    assert ("step 2 of 2" in terminal.close()) is not dry_run


# --- the page in Actions ---


def page(actions: Path) -> str:
    """The step's summary; empty for none."""
    file = actions / "GITHUB_STEP_SUMMARY"
    return file.read_text() if file.exists() else ""


def rows(actions: Path) -> list[str]:
    """The rows of its table of steps."""
    return [line for line in page(actions).splitlines() if line.startswith("| ")][1:]


def test_the_page_shows_what_each_step_did(actions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step that reports nothing is done; the one that failed says so above the table."""
    with pytest.raises(DeployError), command() as run:
        run.run_steps([step(run, "one"), ("two", lambda: None), step(run, "three", DeployError("it broke"))])

    assert rows(actions) == ["| one | one is done | 0.0 |", "| two | done | 0.0 |", "| three | failed | 0.0 |"]
    assert "three failed&#58; it broke" in page(actions)


@pytest.mark.parametrize(
    ("dry_run", "error", "heading", "now"),
    [
        (False, None, "✅ test · dev", "one is done"),
        (False, DeployError("no."), "❌ test · dev", "failed"),
        (True, None, "📝 test · dev", "planned"),
    ],
)
def test_the_page_shows_what_a_command_without_steps_did(
    dry_run: bool,
    error: DeployError | None,
    heading: str,
    now: str,
    actions: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Or what it planned."""
    with pytest.raises(DeployError) if error else nullcontext(), command(dry_run=dry_run) as run:
        step(run, "one", error)[1]()  # type: ignore[operator]

    assert page(actions).splitlines()[0] == f"### {heading}"
    assert rows(actions) == [f"| one | {now} | 0.0 |"]


def test_the_page_of_a_plan_shows_no_step_as_done(actions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with command(dry_run=True) as run:
        run.run_steps([step(run, "one"), step(run, "two")])

    assert rows(actions) == ["| one | planned | 0.0 |", "| two | planned | 0.0 |"]


@pytest.mark.parametrize(
    ("summary", "fails", "shown"),
    [("", False, ""), ("what it found", False, "what it found\n"), ("", True, "### ❌ test · dev")],
)
def test_a_command_may_have_a_page_of_its_own(
    summary: str, fails: bool, shown: str, actions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or none. A failure is always shown."""
    with pytest.raises(DeployError) if fails else nullcontext(), command() as run:
        run.summary = summary
        run.act(Plan("it"), lambda _: fail() if fails else Done("it"))

    assert page(actions).startswith(shown)
    assert bool(page(actions)) == bool(shown)


def fail() -> Done:
    """A step that fails."""
    raise DeployError("it broke")


class Pushed(Done):
    """A result whose outputs are those of an image, as far as they are given."""

    def outputs(self) -> dict[str, str]:
        return dict(zip(("image", "digest"), self.what.split(), strict=False))


@pytest.mark.parametrize(
    ("variables", "facts", "what", "expected"),
    [
        ({}, {}, "", ("", {})),
        ({"GITHUB_SHA": "1" * 40}, {}, "r/a:x sha256:1", ("1" * 40, {"r/a:x": "sha256:1"})),
        ({"GITHUB_SHA": "1" * 40}, {"version": "v1"}, "r/a:x", ("v1", {})),
        # What cannot be a commit is not linked.
        ({}, {"version": "a/../b"}, "", ("", {})),
    ],
    ids=["nothing", "the variable", "the version comes first", "no commit"],
)
def test_the_page_links_to_the_commit_and_the_images(
    variables: Mapping[str, str],
    facts: dict[str, str],
    what: str,
    expected: tuple[str, Mapping[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those that the command worked on."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with command() as run:
        run.facts |= facts
        run.act(Plan(what), lambda plan: Pushed(plan.what))

    links = run.links()
    assert (links.commit, links.images) == expected
    assert links.commits == "https://github.com/CMS-Enterprise/mint-app/commit/"


@pytest.mark.parametrize(
    ("account", "variable", "named"), [("111111111111", "", True), ("${AWS_ACCOUNT_ID}", "222222222222", False)]
)
def test_the_page_names_an_account_only_if_the_settings_do(
    account: str,
    variable: str,
    named: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What comes from a variable may be a secret."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text().replace("${AWS_ACCOUNT_ID}", account))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))
    monkeypatch.setenv("AWS_ACCOUNT_ID", variable)
    with command() as run:
        pass

    assert run.links().console is named


# --- how a command begins ---


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, True),
        ({"changes": False}, False),
        ({"asks": True}, False),
        ({"changes": False, "asks": True}, False),
        ({"yes": True}, False),
        ({"dry_run": True}, False),
    ],
    ids=str,
)
def test_prod_is_confirmed_before_a_command_that_changes_something(
    given: dict[str, bool], refused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless the command itself asks, later. There is no terminal to ask on."""
    begun = []
    with (
        pytest.raises(Refused, match="needs a confirmation") if refused else nullcontext(),
        running("test", "prod", embedded=False, **given),
    ):
        begun.append(1)

    assert bool(begun) is not refused


@pytest.mark.parametrize(
    ("env", "given", "started"),
    [
        ("local", {}, ["http://127.0.0.1:9"]),
        ("local", {"dry_run": True}, []),
        ("local", {"embedded": False}, []),
        ("dev", {}, []),
    ],
    ids=str,
)
def test_an_embedded_aws_is_started_for_a_run_that_needs_it(
    env: str,
    given: dict[str, bool],
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the address that its environment has, before the command begins."""
    found = list[str]()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(process, "ensure_running", found.append)

    with running("test", env, **given):
        assert found == started


@pytest.mark.parametrize(
    ("env", "application", "dry_run", "said"),
    [
        ("impl", False, False, "test: impl (from --env)"),
        ("impl", True, True, "test: impl (from --env), dry run: nothing will be changed"),
        (None, True, False, "test: mint-app"),
        (None, True, True, "test: mint-app, dry run: nothing will be changed"),
        (None, False, True, "test: local (from the default), dry run: nothing will be changed"),
    ],
)
def test_the_first_line_says_where_a_command_runs(
    env: str | None, application: bool, dry_run: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One about the application needs no environment: its settings come from the first one."""
    with running("test", env, application=application, dry_run=dry_run, embedded=False) as run:
        pass

    assert capsys.readouterr().err.splitlines()[0] == said
    assert run.environment.name == (env or ("dev" if application else "local"))
    assert run.environment.dry_run is dry_run


def test_a_dry_run_needs_no_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real run is refused."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text().replace("https://dev.mint.cms.gov", "https://${HOST}/"))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))

    for env, application in (("dev", False), (None, True)):
        with running("test", env, application=application, dry_run=True, embedded=False) as run:
            assert run.environment.site == "https://<HOST>/"
        with pytest.raises(Refused, match="HOST is not set"), running("test", env, application=application):
            pass


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (False, False, 0.0)),
        ({"yes": True, "force_lock": True, "lock_wait": "1.5"}, (True, True, 1.5)),
        ({"lock_wait": "0"}, (False, False, 0.0)),
    ],
    ids=str,
)
def test_a_run_knows_the_flags_of_the_confirmation_and_the_lock(
    given: dict[str, Any], expected: tuple[bool, bool, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for the lock unless it says for how long."""
    with running("test", None, embedded=False, **given) as run:
        pass

    assert (run.yes, run.force_lock, run.lock_wait) == expected
    assert capsys.readouterr() == ("", "test: local (from the default)\n")


def test_a_wait_for_the_lock_is_a_number_of_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused) as error, running("test", "dev", embedded=False, lock_wait="soon"):
        pass

    assert str(error.value) == ("--lock-wait must be a number of seconds between 0 and 86400, such as 60, not 'soon'.")


LOGGED_IN = {"USER": "a", "LOGNAME": "b"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("somebody", "")),
        ({"LOGNAME": "b"}, ("b", "")),
        (LOGGED_IN, ("a", "")),
        ({**LOGGED_IN, "GITHUB_ACTOR": "c"}, ("c", "")),
        ({"GITHUB_ACTOR": "c\nd"}, ("c d", "")),
        (
            {**LOGGED_IN, "GITHUB_REPOSITORY": "e/f", "GITHUB_RUN_ID": "7"},
            ("a", "https://github.com/e/f/actions/runs/7"),
        ),
        ({**LOGGED_IN, "GITHUB_REPOSITORY": "e/f"}, ("a", "")),
        ({**LOGGED_IN, "GITHUB_RUN_ID": "7"}, ("a", "")),
    ],
    ids=str,
)
def test_who_runs_a_command_and_where(
    variables: Mapping[str, str], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow's actor and run; on a laptop the user, and no run."""
    for name in LOGGED_IN:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert actor() == expected
