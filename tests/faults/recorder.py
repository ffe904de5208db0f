"""Runs commands in this process on the embedded AWS, and records their requests and what they changed.

No time is spent waiting: sleeping moves all clocks forward, including those of AWS, and so does a client that waits for
a slow response until its time-out, or for one that drips. Lambda functions run in this process. So a run takes only as
long as its requests.
"""

import functools
import importlib
import io
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from invoke.main import program

from ecs_manager import commands as manager_commands
from local_aws import control, site, worker
from local_aws.cloud import ACCOUNT, FUNCTION_KEYS, App, StartResponse, answer
from local_aws.lambdas import Function
from local_aws.server import Server
from scripts.frame import console, stop
from tests.conftest import commands_clock

REGION = "us-west-2"
SLACK, GITHUB = "/stand-in/slack", "/stand-in/github"
REAL_SLEEP = time.sleep
# Seconds between two looks of a waiting client, and how long the embedded AWS waits at most until it gives up.
LOOK, GIVES_UP = 0.005, 10.0
# How much of its first time-out a client waits for each byte of a response that drips.
DRIP = 0.9


@dataclass(frozen=True)
class Request:
    """One request of a command. step: of the command, from 0. number: of its kind in the step, from 1.

    key: the access key that signed it, empty for none. A Lambda function has one of its own.
    """

    service: str
    operation: str
    kind: str
    key: str
    number: int
    step: int

    @property
    def does(self) -> str:
        """What is requested, whoever asks."""
        return f"{self.service} {self.operation} {self.kind}".strip()

    @property
    def by_lambda(self) -> bool:
        """Whether a Lambda function sends it."""
        return self.key == FUNCTION_KEYS["aws_access_key_id"]

    @property
    def name(self) -> str:
        """The kind of request, as tables show it."""
        return f"{self.does}{' by Lambda' if self.by_lambda else ''}"

    @property
    def rule(self) -> dict[str, Any]:
        """A rule for local_aws/control.py that matches this request in the same step of a later run."""
        path = next((pattern for pattern, kind in KINDS.get(self.service, ()) if kind == self.kind), "")
        whose = {"service": self.service, "operation": self.operation, "key": self.key}
        return {**whose, "path": path, "skip": self.number - 1}


@dataclass(frozen=True)
class State:
    """What a command can change in the embedded AWS: the name of each thing -> its value."""

    things: Mapping[str, str]

    def since(self, before: "State") -> list[str]:
        """What changed since an earlier state, without values that differ in every run."""
        changed = [
            (name.partition("#")[0], value) for name, value in self.things.items() if before.things.get(name) != value
        ]
        gone = [(f"no {name.partition('#')[0]}", "") for name in before.things if name not in self.things]
        return sorted(f"{name} {value}".strip() for name, value in [*changed, *gone])


@dataclass(frozen=True)
class Outcome:
    """How a run ended. said: stderr. printed: stdout."""

    code: int
    said: str
    printed: str
    before: State
    after: State
    requests: tuple[Request, ...]
    seconds: float = 0.0

    @property
    def changed(self) -> list[str]:
        return self.after.since(self.before)

    @property
    def wrote(self) -> bool:
        """Whether anything at all was changed."""
        return self.before != self.after


class Patience:
    """How clients wait for responses: one that does not come takes no time, but moves the clocks by the time-out.

    The time-out is the one that the client has set on its socket. Of a response that drips, each byte takes nearly as
    long.
    """

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._changed = threading.Condition()
        # Local ports of clients whose response does not come.
        self._slow: set[int] = set()
        # Those of clients whose response drips, with the seconds for each byte, which are 0 before the first one.
        self._dripping: dict[int, float] = {}
        self.on = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace how sockets of this process receive, and how the embedded AWS delays a response."""
        receive, fail = socket.socket.recv_into, control._break

        def recv_into(one: socket.socket, buffer: Any, *given: Any) -> int:
            if self.on and one.gettimeout():
                self._wait(one)
                if one.getsockname()[1] in self._dripping:
                    self._drip(one)
                    return receive(one, memoryview(buffer)[:1])
            return receive(one, buffer, *given)

        def delayed(environ: dict[str, Any], start: StartResponse, entry: dict[str, Any], rule: Any) -> Any:
            if rule and "delay" in rule:
                self._hold(int(environ["REMOTE_PORT"]))
                rule = {**rule, "delay": 0}
            if rule and "drip" in rule:
                self._dripping[int(environ["REMOTE_PORT"])] = 0.0
            return fail(environ, start, entry, rule)

        monkeypatch.setattr(socket.socket, "recv_into", recv_into)
        monkeypatch.setattr(control, "_break", delayed)

    def mend(self) -> None:
        """Let every response come at once."""
        self.on = False
        self._dripping.clear()

    def _wait(self, client: socket.socket) -> None:
        """Wait for data. Raises TimeoutError if there will be none."""
        seconds, port = float(client.gettimeout() or 0), client.getsockname()[1]
        for _ in range(int(seconds / LOOK)):
            if select.select([client], [], [], LOOK)[0]:
                return
            with self._changed:
                if port in self._slow:
                    self._slow.remove(port)
                    self._changed.notify_all()
                    self._sleep(seconds)
                    raise TimeoutError("timed out")

    def _drip(self, client: socket.socket) -> None:
        """Wait for one byte. Raises TimeoutError if that takes too long."""
        most, port = float(client.gettimeout() or 0), client.getsockname()[1]
        seconds = self._dripping[port] = self._dripping[port] or DRIP * most
        self._sleep(min(seconds, most))
        if seconds > most:
            raise TimeoutError("timed out")

    def _hold(self, port: int) -> None:
        """Hold back a response until its client has given up."""
        with self._changed:
            self._slow.add(port)
            assert self._changed.wait_for(lambda: port not in self._slow, GIVES_UP), "a client waits for ever"


@dataclass
class Laboratory:
    """An embedded AWS in which commands run one after the other."""

    server: Server
    steps: list[int] = field(default_factory=list)
    slept: float = 0.0
    posted: list[str] = field(default_factory=list)
    repositories: dict[str, Path] = field(default_factory=dict)
    _undo: ExitStack = field(default_factory=ExitStack)
    _kept: Any = None
    _patience: Any = None
    _next: tuple[int, dict[str, Any]] | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace time, Lambda's processes, and what makes hundreds of runs slow."""
        real_time, real_monotonic = time.time, time.monotonic

        def sleep(seconds: float) -> None:
            self.slept += seconds

        self._patience = Patience(sleep)
        self._patience.install(monkeypatch)
        monkeypatch.setattr(time, "sleep", sleep)
        monkeypatch.setattr(time, "time", lambda: real_time() + self.slept)
        monkeypatch.setattr(time, "monotonic", lambda: real_monotonic() + self.slept)
        monkeypatch.setattr(control, "time", SimpleNamespace(sleep=REAL_SLEEP, time=time.time))
        self._undo.enter_context(commands_clock(time.monotonic, sleep))
        for name, command in list(manager_commands.COMMANDS.items()):
            monkeypatch.setitem(manager_commands.COMMANDS, name, _with(command, sleep))
        monkeypatch.setattr(Function, "call", _call)
        self._kept = functools.cache(functools.partial(_client_of_lambda, boto3.client, self.server.cloud.url))
        real = boto3.client

        def client(name: str, **given: Any) -> Any:
            """Inside a Lambda function nobody names a region."""
            if "region_name" in given:
                return real(name, **given)
            return _client_of_lambda(real, self.server.cloud.url, name, **given) if given else self._kept(name)

        monkeypatch.setattr(boto3, "client", client)
        monkeypatch.setattr(console, "group", self._grouped(console.group))
        monkeypatch.setattr(site, "wrap", self._with_stand_ins(site.wrap))

    def reset(self) -> None:
        """Seed the embedded AWS again."""
        self.posted.clear()
        self.repositories.clear()
        self.server.reset()

    def mend(self) -> None:
        """Remove every fault."""
        self._next = None
        self._patience.mend()
        self.server.cloud.failures.clear()

    def break_next(self, rule: dict[str, Any], step: int) -> None:
        """Break requests by a rule for local_aws/control.py, from a step on. Its `times` is counted down.

        How many requests the steps before it send depends on how long they wait.
        """
        self._next = step, rule
        self._patience.on = bool({"delay", "drip"} & rule.keys())
        self._break(0)

    def _break(self, step: int) -> None:
        if self._next and self._next[0] == step:
            self.server.cloud.failures[:] = [self._next[1]]

    def uninstall(self) -> None:
        """Restore the real clock."""
        self._undo.close()

    def _grouped(self, real: Callable[[str], Any]) -> Callable[[str], Any]:
        """console.group, which also records where the requests of a step begin."""

        def group(title: str) -> Any:
            if title.startswith("== "):
                self.steps.append(len(self.server.cloud.requests))
                self._break(len(self.steps))
            return real(title)

        return group

    def _with_stand_ins(self, real: Callable[..., App]) -> Callable[..., App]:
        """Adds Slack and GitHub, which accept every post, to the embedded AWS."""

        def wrap(*parts: Any) -> App:
            app = real(*parts)

            def stand_in(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
                path = environ["PATH_INFO"]
                if not path.startswith("/stand-in/"):
                    return app(environ, start)
                if environ["REQUEST_METHOD"] == "GET":
                    return answer(start, 200, b"[]")
                self.posted.append(path)
                if path == SLACK:
                    return answer(start, 200, b"ok", "text/plain")
                return answer(start, 201, json.dumps({"html_url": f"{self.server.cloud.url}/pull/1"}).encode())

            return stand_in

        return wrap

    def state(self) -> State:
        """The current state."""
        from moto.ecr.models import ecr_backends
        from moto.rds.models import rds_backends
        from moto.s3.models import s3_backends

        ecs, things = self.server.ecs, dict[str, str]()
        for (_, family), revisions in ecs.definitions.items():
            things.update({f"revision {family}:{number}": "" for number in range(1, len(revisions) + 1)})
        for service in ecs.services.values():
            primary = service.deployments[0]
            image = primary.definition["containerDefinitions"][0]["image"].rpartition("/")[2]
            things[f"rollout of {service.name}#{primary.id}"] = image
        things.update({f"task of {task.definition['family']}#{task.arn}": "" for task in ecs.tasks.values()})
        for name, bucket in s3_backends[ACCOUNT]["aws"].buckets.items():
            things.update(dict(_object(name, key, stored.etag) for key, stored in bucket.keys.items()))
        things.update({f"snapshot#{name}": "" for name in rds_backends[ACCOUNT][REGION].database_snapshots})
        for name, repository in ecr_backends[ACCOUNT][REGION].repositories.items():
            things.update({f"image {name}:{tag}": "" for image in repository.images for tag in image.image_tags})
        for name, folder in self.repositories.items():
            heads = folder / "refs" / "heads"
            found = [path for path in heads.rglob("*") if path.is_file()]
            things.update({f"branch {path.relative_to(heads)} of {name}#{path.read_text()}": "" for path in found})
        things.update({f"message to {path}#{number}": "" for number, path in enumerate(self.posted)})
        return State(things)

    def run(self, words: tuple[str, ...]) -> Outcome:
        """Run a command line as `invoke` does."""
        cloud = self.server.cloud
        cloud.requests.clear()
        self.steps.clear()
        # botocore's retry quota is per client.
        self._kept.cache_clear()
        before = self.state()
        out, err, code = io.StringIO(), io.StringIO(), 0
        handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
        hook = sys.unraisablehook
        # Invoke leaves its own copy of them behind, with the commands of this command line alone.
        tasks = sys.modules.get("tasks")
        started = time.perf_counter()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                program.run(["invoke", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook
            sys.modules.pop("tasks", None)
            if tasks:
                sys.modules["tasks"] = tasks
            vars(program).pop("core", None)
        seconds = time.perf_counter() - started
        return Outcome(code, err.getvalue(), out.getvalue(), before, self.state(), self._requests(), seconds)

    def _requests(self) -> tuple[Request, ...]:
        seen: dict[tuple[str, str, str, str, int], int] = {}
        found = []
        for index, entry in enumerate(list(self.server.cloud.requests)):
            patterns = KINDS.get(entry["service"], ())
            named = next((name for pattern, name in patterns if re.search(pattern, entry["path"])), "")
            if (entry["service"], entry["parameters"]) == ("lambda", {}):
                named = "nothing (a dry run)"
            step = sum(begin <= index for begin in self.steps)
            kind = entry["service"], entry["operation"], named, entry["key"]
            seen[*kind, step] = seen.get((*kind, step), 0) + 1
            found.append(Request(*kind, seen[*kind, step], step))
        return tuple(found)


# If the operation does not identify the kind of request: a pattern for its path, and the name in tables.
KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "s3": (
        ("/_release/lease.json$", "the lock"),
        ("/_release/receipts/", "a receipt"),
        ("/_release/manifest.json$", "the manifest"),
        ("/_release/next.json$", "the next manifest"),
        ("/_release/files/", "a copy for rollbacks"),
        ("^/[^/]+/index.html$", "the page"),
        ("^/[^/]+/(?!index.html$|_release/).", "a file"),
    ),
    "lambda": (("ecs-manager", "the manager"), ("db-clean", "the cleaner"), ("scan", "the scan")),
    "registry": (("/manifests/", "the manifest"), ("/blobs/", "a layer")),
    "http": (("healthcheck$", "the healthcheck"), (SLACK, "Slack"), (GITHUB, "GitHub")),
}


def _object(bucket: str, key: str, etag: str) -> tuple[str, str]:
    """The name and value of an object. For records, which differ in every run, the ETag is where `since` drops it."""
    record = key.startswith("_release/") and key.endswith(".json")
    return (f"object {bucket}/{key}#{etag}", "") if record else (f"object {bucket}/{key}", etag)


def _client_of_lambda(make: Callable[..., Any], url: str, service: str, **given: Any) -> Any:
    """A client like boto3.client's inside a Lambda function: with its region, endpoint and keys."""
    return make(service, region_name=REGION, endpoint_url=url, **FUNCTION_KEYS, **given)


def _with(command: Callable[..., Any], sleep: Callable[[float], None]) -> Callable[..., Any]:
    """A command of the manager with the laboratory's sleep."""
    return lambda call, body: command(replace(call, sleep=sleep), body)


def _call(function: Function, event: Any, url: str) -> dict[str, Any]:
    """Run a function's handler in this process. Event and reply pass through JSON, as in Lambda."""
    module, _, name = function.handler.partition(":")
    handler = getattr(importlib.import_module(module), name)
    call = {"event": json.loads(json.dumps(event)), "id": os.urandom(8).hex(), "timeout": function.timeout}
    return dict(json.loads(json.dumps(worker._run(handler, call))))
