"""Puts the parts together and serves them on one port."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from local_aws import control, gate, patches, s3, seed, site
from local_aws.cloud import Cloud, answer
from local_aws.ecs import Ecs
from local_aws.lambdas import Lambda
from local_aws.process import token_path
from local_aws.registry import Registry
from local_aws.scenarios import SCENARIOS
from scripts.frame import files

# moto's, for what is not answered here. Its other services could run what a request holds: as a Lambda function, as a
# job of Batch, through a notification of theirs.
SERVICES = {"cloudfront", "ecr", "iam", "logs", "rds", "s3", "ssm", "sts"}
MISSING = "ResourceNotFoundException"


class Server:
    """An embedded AWS on a port of 127.0.0.1. port: 0 takes a free one."""

    def __init__(self, port: int = 0, *, containers: bool = False) -> None:
        # moto would read a list of machine images at every start and reset.
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
        from werkzeug.serving import make_server

        class Handler(MotoRequestHandler):  # type: ignore[misc]
            # Keep-alive. It works because every request's body is read whole before it is answered.
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log(self, type: str, message: str, *args: Any) -> None:
                """Failures only: /_local/requests has the rest."""
                if type == "error":
                    super().log(type, message, *args)

            def log_request(self, *_: Any) -> None:
                """Requests are recorded, not printed."""

        self.cloud = Cloud(port, containers)
        self._app = DomainDispatcherApplication(_backend)
        self._http = make_server("127.0.0.1", port, self._dispatch, threaded=True, request_handler=Handler)
        self.cloud.port = self._http.server_port
        self._asked = time.monotonic()
        self._thread: threading.Thread | None = None
        patches.install(self.cloud)
        self._build({})

    def _build(self, idle: Mapping[tuple[str, str], subprocess.Popen[str]]) -> None:
        """Fresh services around moto. idle: processes of functions, by handler and region."""
        engine = None
        if self.cloud.containers:
            from local_aws.containers import Engine

            engine = Engine(self.cloud)
        self.ecs = Ecs(self.cloud, engine)
        self.functions = Lambda(self.cloud, idle)
        registry = Registry(self.cloud)
        app = self.ecs.wrap(registry.wrap(self.functions.wrap(s3.wrap(self._app))))
        sites = seed.sites()
        app = site.wrap(app, self.ecs, sites)
        routes = {
            "clock": lambda given: self.cloud.clock.advance(msgspec.convert(given, control.Move).advance),
            "failures": self._fail,
            "findings": self._find,
            "scenario": lambda given: self.stage(msgspec.convert(given, control.Stage).name),
            "reset": lambda _: self.reset(),
        }
        self._outermost = gate.wrap(control.wrap(app, self.cloud, routes), self.cloud.token, sites)

    def _dispatch(self, environ: dict[str, Any], start: Any) -> Any:
        self._asked = time.monotonic()
        return self._outermost(environ, start)

    def wait(self, stopped: threading.Event, idle: float) -> None:
        """Wait until it is stopped, or for that many seconds without a request."""
        while not stopped.wait(max(0.0, self._asked + idle - time.monotonic())):
            if time.monotonic() >= self._asked + idle:
                print(f"ended after {idle:g} seconds without a request", file=sys.stderr, flush=True)
                return

    def _fail(self, given: dict[str, Any]) -> None:
        rule = msgspec.to_builtins(msgspec.convert(given, control.Failure))
        self.cloud.failures[:] = [*self.cloud.failures, rule] if rule else []

    def _find(self, given: dict[str, Any]) -> None:
        scan = msgspec.convert(given, control.Scan)
        self.cloud.findings[scan.repository, scan.tag] = msgspec.to_builtins(scan)

    def stage(self, name: str) -> None:
        """Start a scenario, which ends the current one. Raises ValueError for an unknown name."""
        if name not in SCENARIOS:
            raise ValueError(f"{name!r} is not a scenario: use one of {', '.join(SCENARIOS)}")
        with self.cloud.lock:
            self.cloud.scenario = name
            self.cloud.staged[:] = [dict(rule) for rule in SCENARIOS[name].failures]
            self.ecs.stage(SCENARIOS[name])

    def start(self) -> None:
        """Serve in a thread and seed."""
        serve = {"poll_interval": 0.02}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=serve, daemon=True)
        self._thread.start()
        seed.seed(self.cloud, self.ecs, self.functions)
        self.cloud.ready = True

    def reset(self) -> None:
        """Delete everything and seed it again. The clock goes on."""
        from moto.core.base_backend import BackendDict
        from moto.core.model_instances import reset_model_data

        self.cloud.ready = False
        idle = self.functions.retire()
        if self.ecs.engine:
            self.ecs.engine.close()
        BackendDict.reset()
        reset_model_data()
        self.cloud.blobs.clear()
        self.forget()
        self._build(idle)
        seed.seed(self.cloud, self.ecs, self.functions)
        # The settings may have been others.
        self.cloud.written = True
        self.cloud.ready = True

    def forget(self) -> None:
        """Forget the requests, the failures and the findings."""
        for log in (self.cloud.requests, self.cloud.failures, self.cloud.findings):
            log.clear()
        self.stage("healthy")

    def stop(self) -> None:
        """Stop serving, and end all processes and containers that were started."""
        if self._thread:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self.functions.stop()
        if self.ecs.engine:
            self.ecs.engine.close()


def _backend(service: Any) -> Any:
    """moto's application for a service, called once for each."""
    from moto.moto_server.werkzeug_app import create_backend_app

    if service in SERVICES:
        return create_backend_app(service)
    body = json.dumps({"__type": MISSING, "message": f"the embedded AWS has no {service}"}).encode()
    return lambda environ, start: answer(start, 404, body, x_amzn_ErrorType=MISSING)


def main(port: int, *, containers: bool, idle: float) -> None:
    """Serve until SIGTERM or Ctrl-C, or for `idle` seconds without a request.

    The token is in .local/<port>.token meanwhile, for this user alone.
    """
    server = Server(port, containers=containers)
    token = token_path(server.cloud.port)
    token.parent.mkdir(exist_ok=True)
    files.write(token, server.cloud.token.encode(), mode=0o600)
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    try:
        server.start()
        print(f"the embedded AWS is ready at {server.cloud.url}", file=sys.stderr, flush=True)
        server.wait(stopped, idle)
    finally:
        token.unlink(missing_ok=True)
        server.stop()
