"""`invoke local.…`: what the commands say and plan. tests/e2e/test_process.py starts and stops real ones."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from local_aws import process
from local_aws.scenarios import SCENARIOS
from scripts import local
from scripts.edges import shell
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.local import Embedded, Rehearsal, Rehearsed, Scene, State

URL = "http://127.0.0.1:4566"


@pytest.mark.parametrize(
    ("plan", "lines"),
    [
        (Embedded("up", 1), ["start, unless it is running, the embedded AWS on port 1"]),
        (
            Embedded("up", 1, "slow"),
            ["start, unless it is running, the embedded AWS on port 1", "start the scenario slow in it"],
        ),
        (Embedded("down", 1), ["stop the embedded AWS on port 1"]),
        (
            Rehearsal("local", ("healthy", "slow")),
            [
                "start an embedded AWS on a free port, and stop it at the end",
                "in healthy: invoke deploy-service --env=local --tag=v0.1",
                "in slow: invoke deploy-service --env=local --tag=v0.1 --timeout=8",
            ],
        ),
    ],
)
def test_a_plan_says_what_would_be_done(plan: Embedded | Rehearsal, lines: list[str]) -> None:
    assert plan.describe() == lines


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State(URL, runs=True), f"the embedded AWS runs at {URL}"),
        (State(URL, runs=False), f"no embedded AWS runs at {URL}"),
        (State(URL, runs=True, changed=True), f"the embedded AWS at {URL} was started"),
        (State(URL, runs=False, changed=True), f"the embedded AWS at {URL} was stopped"),
        (
            State(URL, runs=True, scenario="slow", says="a rollout takes its time"),
            f"the embedded AWS runs at {URL}, in the scenario slow: a rollout takes its time",
        ),
        (
            State(URL, runs=True, changed=True, scenario="slow", says="x"),
            f"the embedded AWS at {URL} was started, in the scenario slow: x",
        ),
    ],
)
def test_a_state_in_a_line(state: State, line: str) -> None:
    assert state.line() == line
    assert state.outputs() == {"url": URL}


def test_what_was_rehearsed_is_a_table() -> None:
    """With whole seconds."""
    done = Rehearsed((Scene("healthy", 0, 1.6, "nothing goes wrong"), Scene("slow", 3, 20.2, "a rollout takes long")))

    assert done.line() == "each scenario ended as it should: healthy, slow"
    assert done.table() == [
        ("SCENARIO", "EXIT CODE", "TIME", "WHAT GOES WRONG"),
        ("healthy", "0", "2 s", "nothing goes wrong"),
        ("slow", "3", "20 s", "a rollout takes long"),
    ]


@pytest.mark.parametrize(("port", "found"), [(None, 4566), ("1", 1), ("65535", 65535), ("00080", 80)])
def test_the_port_is_that_of_the_settings_or_of_the_flag(port: str | None, found: int) -> None:
    assert local.chosen(settings.environment("local"), port) == found


@pytest.mark.parametrize("port", ["0", "65536", "-1", "", "x", "1.5", "\u0661", "000080", "9" * 5000])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(Refused, match=r"^'.*' is not a port: give a number from 1 to 65535\.$") as refused:
        local.chosen(settings.environment("local"), port)
    assert len(str(refused.value)) < 200


def test_an_environment_of_the_real_aws_is_refused() -> None:
    """By each of the commands, before anything is done."""
    run = Run("x", settings.environment("dev", dry_run=True))
    for command in (local.up, local.down, local.status, local.rehearse):
        with pytest.raises(Refused, match="dev is not embedded: it has no endpoint_url in the settings"):
            command(run)
    assert run.steps == []


def test_a_scenario_is_one_that_there_is() -> None:
    """None means all."""
    assert local.known(None) == tuple(SCENARIOS)
    assert local.known("slow") == ("slow",)
    with pytest.raises(Refused, match=r"^'earthquake' is not a scenario: use one of healthy, slow, "):
        local.up(Run("up", settings.environment("local")), scenario="earthquake")


class Process:
    """Stands for the embedded AWS of a port. calls: what it was asked; told: its status; changed: what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, told: Mapping[str, Any] | None, *, changed: bool) -> None:
        self.calls = list[tuple[object, ...]]()
        for name, answer in {
            "ensure_running": changed, "stop": changed, "stage": None, "reset": None, "status": told,
        }.items():  # fmt: skip
            monkeypatch.setattr(process, name, self.answering(name, answer))

    def answering(self, name: str, answer: object) -> Any:
        def call(*given: object, **named: object) -> object:
            self.calls.append((name, *given, *named.values()))
            return answer

        return call


HEALTHY = {"name": "embedded AWS", "scenario": "healthy", "says": "nothing goes wrong"}
SLOW = {**HEALTHY, "scenario": "slow", "says": "slowly"}


@pytest.mark.parametrize(
    ("verb", "flags", "told", "changed", "calls", "expected"),
    [
        ("up", {}, HEALTHY, True, [("ensure_running", URL)], State(URL, runs=True, changed=True)),
        ("up", {}, HEALTHY, False, [("ensure_running", URL)], State(URL, runs=True)),
        ("up", {"scenario": "slow"}, SLOW, True, [("ensure_running", URL), ("stage", 4566, "slow")],
         State(URL, runs=True, changed=True, scenario="slow", says="slowly")),
        ("up", {"port": "1"}, {}, False, [("ensure_running", "http://127.0.0.1:1")],
         State("http://127.0.0.1:1", runs=True)),
        ("down", {}, None, True, [("stop", 4566)], State(URL, runs=False, changed=True)),
        ("down", {"port": "1"}, None, False, [("stop", 1)], State("http://127.0.0.1:1", runs=False)),
        ("status", {}, SLOW, True, [], State(URL, runs=True, scenario="slow", says="slowly")),
        ("status", {"port": "1"}, None, True, [], State("http://127.0.0.1:1", runs=False)),
    ],
)  # fmt: skip
def test_what_a_command_does_and_finds(
    verb: str, flags: dict[str, str], told: dict[str, str] | None, changed: bool, calls: list[tuple[object, ...]],
    expected: State, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whether it was changed is what was found when it was done; and a dry run does nothing."""
    seen = Process(monkeypatch, told, changed=changed)
    here = settings.environment("local")

    done = getattr(local, verb)(Run(verb, here), **flags)

    port = int(flags.get("port", 4566))
    assert (done, seen.calls) == (expected, [*calls, ("status", port)])
    if verb != "status":
        seen.calls.clear()
        assert getattr(local, verb)(Run(verb, here, dry_run=True), **flags) is None
        assert seen.calls == []


class Commands:
    """Stands for the commands of a rehearsal: they end with a code. ran: their words, folder and variables."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int | None = None) -> None:
        self.ran, self.code = list[tuple[Any, ...]](), code
        monkeypatch.setattr(shell, "stream", self.stream)

    def stream(self, words: Sequence[str], *, cwd: object, env: Mapping[str, str | None], codes: Sequence[int]) -> int:
        self.ran.append((words, cwd, env))
        scenario = list(SCENARIOS.values())[len(self.ran) - 1]
        code = scenario.code if self.code is None else self.code
        assert code in codes
        return code


@pytest.mark.parametrize("as_json", [True, False])
def test_a_rehearsal_goes_through_the_scenarios(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other on one embedded AWS, which ends with it; each is explained, and the table comes last."""
    seen, commands = Process(monkeypatch, HEALTHY, changed=True), Commands(monkeypatch)

    done = local.rehearse(Run("rehearse", settings.environment("local"), json=as_json))

    assert done is not None
    assert [(one.name, one.code, one.says) for one in done.scenes] == [
        (name, one.code, one.says) for name, one in SCENARIOS.items()
    ]
    (_, url, idle), *asked, (_, port) = seen.calls
    assert (url, idle) == (f"http://127.0.0.1:{port}", local.LEFT)
    stages = [call for name in SCENARIOS for call in (("reset", port), ("stage", port, name))]
    assert (asked, seen.calls[-1]) == (stages[1:], ("stop", port))
    for (words, folder, variables), scenario in zip(commands.ran, SCENARIOS.values(), strict=True):
        assert words == [sys.executable, "-m", "invoke", *scenario.deployment("local")]
        assert (folder, variables) == (settings.ROOT, {"AWS_ENDPOINT_URL": url, "GITHUB_ACTIONS": None})
    out, err = capsys.readouterr()
    for name, scenario in SCENARIOS.items():
        assert f"== {name}: {scenario.says}" in err
        assert f"$ invoke {' '.join(scenario.deployment('local'))}" in err
        assert scenario.outcome() in err
    assert ("SCENARIO" in out) is not as_json


def test_a_scenario_that_ends_otherwise_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends the rehearsal."""
    seen, commands = Process(monkeypatch, HEALTHY, changed=True), Commands(monkeypatch, 4)

    with pytest.raises(DeployError, match=r"^In healthy the deployment ends with exit code 4 instead of 0\.") as failed:
        local.perform(Rehearsal("local", ("healthy", "slow")))

    assert failed.value.exit_code == 1
    assert len(commands.ran) == 1
    assert seen.calls[-1][0] == "stop"
