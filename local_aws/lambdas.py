"""Lambda's Invoke API. Each function really runs its handler, in a process of its own that stays warm."""

import base64
import json
import os
import re
import selectors
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qs, unquote

from local_aws.cloud import FUNCTION_KEYS, App, Cloud, StartResponse, answer, body_of

ROOT = Path(__file__).resolve().parent.parent
INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
FUNCTION_ARN = re.compile(r"arn:aws:lambda:[^:]+:\d+:function:(.+)")


@dataclass
class Function:
    """A Lambda function, which handles one event at a time. handler: "module:function". timeout: seconds.

    stopped: it was deleted, and starts no process any more.
    """

    name: str
    handler: str
    region: str
    qualifiers: set[str] = field(default_factory=lambda: {"$LATEST"})
    timeout: float = 120.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    worker: subprocess.Popen[str] | None = None
    stopped: bool = False

    def call(self, event: Any, url: str) -> dict[str, Any]:
        """Run the handler. Returns `{"reply": …}` or `{"error": …}` as Lambda reports it."""
        request_id = str(uuid.uuid4())
        with self.lock:
            worker = self._running(url)
            if self.stopped:
                self._end()
                return {"error": {"errorMessage": f"RequestId: {request_id} Error: the function was deleted"}}
            call = {"event": event, "id": request_id, "timeout": self.timeout}
            print(json.dumps(call), file=worker.stdin, flush=True)
            with selectors.DefaultSelector() as selector:
                selector.register(cast(IO[str], worker.stdout), selectors.EVENT_READ)
                in_time = bool(selector.select(self.timeout))
            line = cast(IO[str], worker.stdout).readline() if in_time else ""
            if line:
                return dict(json.loads(line))
            self._end()
        if in_time:
            message = f"RequestId: {request_id} Error: Runtime exited without providing a reason"
            return {"error": {"errorType": "Runtime.ExitError", "errorMessage": message}}
        return {"error": {"errorMessage": f"{request_id} Task timed out after {self.timeout:.2f} seconds"}}

    def _running(self, url: str) -> subprocess.Popen[str]:
        if self.worker is None or self.worker.poll() is not None:
            own = {
                "AWS_ENDPOINT_URL": url,
                "AWS_REGION": self.region,
                "AWS_DEFAULT_REGION": self.region,
                **{name.upper(): value for name, value in FUNCTION_KEYS.items()},
                "PYTHONPATH": str(ROOT),
            }
            kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
            self.worker = subprocess.Popen(
                [sys.executable, "-u", "-m", "local_aws.worker", self.handler],
                cwd=ROOT,
                env={**kept, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self.worker

    def stop(self) -> subprocess.Popen[str] | None:
        """Delete the function: a later call starts no process. Returns its process if that is idle, else ends it."""
        self.stopped = True
        if self.lock.acquire(blocking=False):
            idle, self.worker = self.worker, None
            self.lock.release()
            return idle
        self._end()
        return None

    def _end(self) -> None:
        worker, self.worker = self.worker, None
        _end(worker)


def _end(worker: subprocess.Popen[str] | None) -> None:
    if worker is not None:
        worker.kill()
        worker.communicate()


class Lambda:
    """All functions of one cloud. idle: warm processes for them to use, by handler and region."""

    def __init__(self, cloud: Cloud, idle: Mapping[tuple[str, str], subprocess.Popen[str]]) -> None:
        self._cloud = cloud
        self._idle = dict(idle)
        self.functions: dict[str, Function] = {}

    def add(self, function: Function) -> None:
        """Create a function, or replace the one of that name and keep its qualifiers."""
        known = self.functions.pop(function.name, None)
        if known:
            function.qualifiers |= known.qualifiers
            _end(known.stop())
        function.worker = self._idle.pop((function.handler, function.region), None)
        self.functions[function.name] = function

    def retire(self) -> dict[tuple[str, str], subprocess.Popen[str]]:
        """Stop all functions. Returns their idle processes for later ones, because a start takes half a second."""
        idle = dict(self._idle)
        for function in self.functions.values():
            worker = function.stop()
            kept = idle.setdefault((function.handler, function.region), worker) if worker else worker
            if kept is not worker:
                _end(worker)
        return idle

    def stop(self) -> None:
        """End all processes."""
        for worker in self.retire().values():
            _end(worker)

    def wrap(self, app: App) -> App:
        """Answer Invoke, and pass everything else on."""

        def invoke(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            match = INVOKE.fullmatch(unquote(environ["PATH_INFO"]))
            if not match or environ["REQUEST_METHOD"] != "POST":
                return app(environ, start)
            return self._invoke(environ, start, match[1])

        return invoke

    def _invoke(self, environ: dict[str, Any], start: StartResponse, name: str) -> list[bytes]:
        arn = FUNCTION_ARN.fullmatch(name)
        name, _, of_name = (arn[1] if arn else name).partition(":")
        qualifier = parse_qs(environ.get("QUERY_STRING", "")).get("Qualifier", [of_name or "$LATEST"])[0]
        function = self.functions.get(name)
        if function is None or qualifier not in function.qualifiers:
            error = {"Type": "User", "Message": f"Function not found: {name}:{qualifier}"}
            return answer(start, 404, json.dumps(error).encode(), x_amzn_ErrorType="ResourceNotFoundException")
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if kind == "DryRun":
            return answer(start, 204)
        try:
            event = json.loads(body_of(environ) or b"{}")
        except ValueError as error:
            body = json.dumps({"Type": "User", "message": f"Could not parse request body into json: {error}"})
            return answer(start, 400, body.encode(), x_amzn_ErrorType="InvalidRequestContentException")
        if kind == "Event":
            threading.Thread(target=function.call, args=(event, self._cloud.url), daemon=True).start()
            return answer(start, 202)
        result = function.call(event, self._cloud.url)
        headers = {"X_Amz_Executed_Version": qualifier}
        if "error" in result:
            headers["X_Amz_Function_Error"] = "Unhandled"
        if environ.get("HTTP_X_AMZ_LOG_TYPE") == "Tail":
            headers["X_Amz_Log_Result"] = base64.b64encode(b"END RequestId\n").decode()
        return answer(start, 200, json.dumps(result.get("error", result.get("reply"))).encode(), **headers)
