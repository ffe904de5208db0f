"""The frame of every command: its steps, its output in GitHub Actions, and its report."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.frame import console
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused, RolledBack
from scripts.frame.report import Report
from scripts.frame.run import Run, running
from tests.conftest import Invoke
from tests.stand_in import Reply, answering, stand_in
from tests.test_cli import ACCOUNT, KEYS, OK


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


def test_json_holds_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """With its plan and its result."""
    with command(json=True) as run:
        run.run_steps([step(run, "one")])

    document = json.loads(capsys.readouterr().out)
    assert document["steps"][0] | {"seconds": 0} == {
        "name": "one",
        "plan": {"what": "one"},
        "result": {"what": "one"},
        "seconds": 0,
    }
