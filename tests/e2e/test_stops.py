"""A deployment that is stopped at any step ends at once, and the next one completes."""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_aws.server import Server
from tests.conftest import ROOT, CommandLine, EmbeddedCloud, Invoke
from tests.test_stop import AT_ONCE

LANES = 4
STOPS_PER_STEP = 5


@dataclass(frozen=True)
class Lane:
    """An embedded environment of its own, so that several deployments can be stopped at the same time."""

    name: str
    env: dict[str, str]
    temporary: Path


@dataclass(frozen=True)
class Stopped:
    """How a deployment ended after a signal. seconds: from the signal to the end."""

    where: str
    code: int
    seconds: float
    said: str
    left: tuple[str, ...]


@pytest.fixture
def lanes(
    tmp_path: Path, clean_environment: None, embedded_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Lane]]:
    """Several environments like `local` in one embedded AWS, whose clock is fast so that rollouts are short."""
    common, _, local = (ROOT / "environments.toml").read_text().partition("[environments.local]")
    own = ["[environments.local]" + local.replace("mint-app-db-clean-tmp", "local-db-clean-tmp")]
    names = [f"lane{number}" for number in range(LANES)]
    for name in names:
        path = own[0].replace('site = "${endpoint_url}"', f'site = "${{endpoint_url}}/{name}"')
        own.append(re.sub(r"\blocal(?=[\]\.-])", name, path))
    settings = tmp_path / "environments.toml"
    settings.write_text(common + "\n".join(own))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(settings))
    monkeypatch.setenv("AWS_ENDPOINT_URL", embedded_server.cloud.url)
    embedded_server.cloud.clock.stop(stopped=False)
    embedded_server.reset()
    here = []
    for name in names:
        temporary = tmp_path / name
        temporary.mkdir()
        env = {"APP_ENV": name, "TMPDIR": str(temporary), "BUILD_PATH": str(tmp_path / f"{name}-build")}
        here.append(Lane(name, {**os.environ, **env, "DOCKER_HOST": "unix:///nowhere"}, temporary))
    yield here
    monkeypatch.undo()
    embedded_server.reset()


def children(marker: str) -> tuple[str, ...]:
    """The command lines of all processes with this text in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return tuple(found)


def stopped(line: CommandLine, lane: Lane, number: int, step: str, after: float, sent: signal.Signals) -> Stopped:
    """Start a deployment, and send it a signal some seconds after the beginning of a step."""
    marker = f"stopped-{lane.name}-{number}"
    # A deployment that was stopped may still be rolling out.
    words, version = ["deploy", "--supersede"], f"{number:040x}"
    if "build" not in step:
        # Steps after the builds: use an existing build and image to save time.
        build = lane.temporary.with_name(f"{lane.name}-page")
        build.mkdir(exist_ok=True)
        (build / "index.html").write_text(f"<!doctype html><title>{number}</title>")
        words, version = ["deploy", "--supersede", "--no-build", f"--build-dir={build}"], "v0"
    with closing(line.start(words, ROOT, {**lane.env, "GITHUB_SHA": version, "MARKER": marker})) as running:
        said = []
        for text in running.stderr:
            said.append(text)
            if text.startswith(step):
                break
        time.sleep(after)
        os.kill(running.pid, sent)
        began = time.monotonic()
        code = running.wait()
        seconds = time.monotonic() - began
        said.append(running.stderr.read())
    left = children(marker) + tuple(str(path) for path in lane.temporary.iterdir())
    return Stopped(f"{step!r} + {after:.2f} s, {sent.name}", code, seconds, "".join(said), left)


def wrong_with(end: Stopped) -> str:
    """What is wrong after a stop, or empty."""
    last = end.said.splitlines()[-1]
    if end.code == 0:
        # The signal came after the last step.
        return "" if re.match(r"lane\d runs ", last) else "it went on"
    flaws = {
        f"exit code {end.code}": end.code not in (2, 3),
        # Several deployments run at the same time, and this process serves all their requests.
        f"it took {end.seconds:.2f} s": end.seconds > AT_ONCE + 0.5,
        "a traceback": "Traceback" in end.said,
        f"left over: {end.left}": bool(end.left),
        "it does not say by what it was stopped": "stopped by SIG" not in end.said,
        "it does not say what was done": not re.search(r"Done: .+ Interrupted: .+ Not done: |nothing was", last),
        "it says that nothing was changed": end.code == 3 and "nothing was changed" in last,
        "it does not say that nothing was changed": end.code == 2 and "nothing was changed" not in last,
    }
    return ", ".join(flaw for flaw, found in flaws.items() if found)


def test_a_deployment_that_is_stopped_ends_at_once_and_the_next_one_completes(
    lanes: list[Lane], embedded_server: Server, command_line: CommandLine, invoke: Invoke
) -> None:
    """At several instants of every step: no process, folder or lease is left, and it says which steps were done."""
    plan = invoke("deploy", "--dry-run", APP_ENV="lane0", GITHUB_SHA="0" * 40)
    steps = ["deploy: ", *(line for line in plan.stderr.splitlines() if line.startswith("== "))]
    # Only steps that wait for ECS or build something take long.
    length = {"== clean": 1.2, "== migrate": 1.2, "== wait": 2.4, "== build the s": 0.6, "== build the m": 0.6}
    instants = [
        (step, next((s for start, s in length.items() if step.startswith(start)), 0.3) * number / STOPS_PER_STEP)
        for step in steps
        for number in range(STOPS_PER_STEP)
    ]
    assert len(instants) >= 50

    def one_after_the_other(number: int) -> list[Stopped]:
        ends = []
        for at in range(number, len(instants), LANES):
            # Alternate the signals, so that each step gets both.
            sent = signal.SIGINT if (at + at // LANES) % 2 else signal.SIGTERM
            ends.append(stopped(command_line, lanes[number], at + 1, *instants[at], sent))
        return ends

    clock = embedded_server.cloud.clock
    with ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(one_after_the_other, number) for number in range(LANES)]
        while not all(future.done() for future in running):
            clock.advance(0.2)
            time.sleep(0.1)
        ends = [end for future in running for end in future.result()]

    cloud = EmbeddedCloud(embedded_server)
    assert [f"{end.where}: {flaw}\n{end.said}" for end in ends if (flaw := wrong_with(end))] == []
    assert sum(end.code != 0 for end in ends) >= 0.8 * len(ends)
    for lane in lanes:
        keys = cloud.client("s3").list_objects_v2(Bucket=f"{lane.name}-mint-app-static").get("Contents", [])
        assert "_release/lease.json" not in [key["Key"] for key in keys]
    assert {end.code for end in ends if end.where.startswith("'deploy: ' + 0.00")} == {2}
    assert {end.code for end in ends if end.where.startswith("'== release the frontend' + 0.00")} == {3}
    done = invoke("deploy", "--supersede", **lanes[0].env | {"GITHUB_SHA": "f" * 40})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lane0 runs fffffff (")
