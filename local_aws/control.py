"""Records every request, injects failures, and answers the control paths, which need a token (gate.py).

GET  /_local/status                what runs here, and whether it is seeded
GET  /_local/requests              the last requests that AWS saw, oldest first
POST /_local/clock                 see `Move`
POST /_local/failures              one rule, see `Failure`; an empty object removes all
POST /_local/findings              see `Scan`
POST /_local/scenario              see `Stage`
POST /_local/reset                 delete everything and seed it again
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Struct

from local_aws.cloud import App, Cloud, StartResponse, answer, body_of
from local_aws.scenarios import SCENARIOS

SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
READS = re.compile("BatchCheck|BatchGet|Describe|Get|GET|Head|HEAD|List")
# Requests. A page that stays open asks for ever.
REMEMBERED = 20_000
RULES_LOCK = threading.Lock()
S3_OPERATIONS = {
    "PUT": "PutObject",
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "DELETE": "DeleteObject",
    "POST": "PostObject",
}


Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(max_length=10_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]


class Move(Struct, forbid_unknown_fields=True):
    """What /_local/clock takes: how far the clock moves on."""

    advance: Seconds


class Stage(Struct, forbid_unknown_fields=True):
    """What /_local/scenario takes: the name of a scenario in scenarios.py. healthy ends the current one."""

    name: Text


class Failure(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What /_local/failures takes: which requests fail, and how.

    Which requests: service, operation, method, key (an access key id), path (a regular expression), each optional. How
    many: the first `skip` pass, the next `times` (1 by default) fail. How: delay (seconds), drop (the connection),
    status with code and message, or status with the response's body. after: the request is carried out before it fails.
    """

    service: Text | None = None
    operation: Text | None = None
    method: Text | None = None
    key: Text | None = None
    path: Text | None = None
    skip: Count | None = None
    times: Count | None = None
    delay: Annotated[float, Meta(ge=0, le=3600)] | None = None
    drop: bool | None = None
    after: bool | None = None
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    code: Text | None = None
    message: Text | None = None
    body: str | None = None
    type: Text | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.path or "")
            HTTPStatus(self.status or 200)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"path is not a regular expression: {error}") from error


class Attribute(Struct, forbid_unknown_fields=True):
    """An attribute of a finding in ECR."""

    key: Text
    value: Text = ""


class Finding(Struct, forbid_unknown_fields=True):
    """A finding, as ECR's basic scanning describes it."""

    name: Text
    severity: Text
    uri: Text = ""
    description: Text = ""
    attributes: list[Attribute] = []


class Scan(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What /_local/findings takes: the scan of an image. until: Unix time at which an IN_PROGRESS scan completes."""

    repository: Text
    tag: Text
    findings: list[Finding] = []
    status: Text = "COMPLETE"
    until: Annotated[float, Meta(ge=0, le=1e11)] | None = None


def describe(environ: dict[str, Any]) -> dict[str, Any]:
    """A request as the record keeps it: service, operation, path, query, parameters, bytes."""
    # WSGI hands the bytes of a path over as Latin-1.
    body, path = body_of(environ), environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    query = {key: values[0] for key, values in parse_qs(environ.get("QUERY_STRING", ""), True).items()}
    scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    entry = {
        "time": time.time(),
        "service": scope["service"] if scope else "registry" if path.startswith("/v2/") else "http",
        "region": scope["region"] if scope else "",
        "key": scope["key"] if scope else "",
        "method": environ["REQUEST_METHOD"],
        "path": path,
        "query": query,
        "bytes": len(body),
        "parameters": {},
    }
    try:
        return entry | _operation(environ, entry, body)
    except (ValueError, RecursionError) as error:
        return entry | {"operation": entry["method"], "malformed": str(error)}


def _operation(environ: dict[str, Any], entry: dict[str, Any], body: bytes) -> dict[str, Any]:
    """The operation's name and its parameters, by the protocol of the service. Raises ValueError."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return {"operation": target.rpartition(".")[2], "parameters": msgspec.convert(json.loads(body or b"{}"), dict)}
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        return {"operation": form.get("Action", ""), "parameters": form}
    if entry["service"] == "lambda" and entry["path"].endswith("/invocations"):
        return {"operation": "Invoke", "parameters": json.loads(body or b"null")}
    if entry["service"] == "cloudfront":
        made = entry["method"] == "POST" and entry["path"].endswith("/invalidation")
        paths = re.findall(r"<Path>(.*?)</Path>", body.decode())
        return {"operation": "CreateInvalidation" if made else entry["method"], "parameters": {"paths": paths}}
    if entry["service"] != "s3":
        return {"operation": entry["method"]}
    headers = ("CONTENT_TYPE", "HTTP_CACHE_CONTROL", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
    parameters = {name.removeprefix("HTTP_"): environ[name] for name in headers if environ.get(name)}
    return {"operation": _s3_operation(entry), "parameters": parameters}


def _s3_operation(entry: dict[str, Any]) -> str:
    query = entry["query"]
    for word, operation in (("list-type", "ListObjectsV2"), ("delete", "DeleteObjects"), ("uploads", "Multipart")):
        if word in query:
            return operation
    bucket_only = entry["path"].strip("/").count("/") == 0
    return ("Bucket" if bucket_only else "") + S3_OPERATIONS.get(str(entry["method"]), "")


def wrap(app: App, cloud: Cloud, routes: dict[str, Callable[[Any], Any]]) -> App:
    """Put the record, the failures and the control paths around an app. routes: what POST /_local/NAME calls."""

    def outermost(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        body_of(environ)
        if environ["PATH_INFO"].startswith("/_local/"):
            return _control(environ, start, cloud, routes)
        entry = describe(environ)
        if cloud.ready:
            cloud.requests.append(entry)
            del cloud.requests[:-REMEMBERED]
            cloud.written = cloud.written or not READS.match(entry["operation"])
        if "malformed" in entry and "HTTP_X_AMZ_TARGET" in environ:
            return _fail(start, entry, {"status": 400, "code": "SerializationException", "message": entry["malformed"]})
        rule = _failure(cloud, entry)
        if rule and rule.get("after"):
            body_of(environ)
            # The request is carried out, and its response dropped.
            b"".join(app(environ, lambda *_: None))
        broken = _break(environ, start, entry, rule)
        if broken is not None:
            return broken

        def record(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            entry["status"] = int(status.split()[0])
            return start(status, headers, *rest)

        body_of(environ)
        return app(environ, record)

    return outermost


def _control(
    environ: dict[str, Any], start: StartResponse, cloud: Cloud, routes: dict[str, Callable[[Any], Any]]
) -> list[bytes]:
    name = environ["PATH_INFO"].removeprefix("/_local/")
    if environ["REQUEST_METHOD"] == "GET" and name == "requests":
        return answer(start, 200, json.dumps(cloud.requests).encode())
    if environ["REQUEST_METHOD"] == "GET" and name == "status":
        status = {"name": "embedded AWS", "ready": cloud.ready, "containers": cloud.containers, "url": cloud.url}
        status |= {"scenario": cloud.scenario, "says": SCENARIOS[cloud.scenario].says, "pid": os.getpid()}
        return answer(start, 200, json.dumps(status).encode())
    if environ["REQUEST_METHOD"] != "POST" or name not in routes:
        return answer(start, 404, b'{"error": "there is no such control path"}')
    try:
        given = json.loads(body_of(environ) or b"{}")
        if not isinstance(given, dict):
            raise ValueError("not an object")
        result = routes[name](given)
    except (ValueError, RecursionError) as error:
        told = {"error": f"invalid request: {type(error).__name__}: {error}"}
        return answer(start, 400, json.dumps(told).encode())
    return answer(start, 200, json.dumps(result).encode())


def _break(
    environ: dict[str, Any], start: StartResponse, entry: dict[str, Any], rule: dict[str, Any] | None
) -> list[bytes] | None:
    """Let a request fail as a rule says. Returns None if it is to be answered normally (no rule, or only a delay)."""
    if rule is None:
        return None
    time.sleep(rule.get("delay", 0))
    if rule.get("drop"):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("an injected failure")
    if "status" in rule:
        entry["status"] = rule["status"]
        return _fail(start, entry, rule)
    return None


def _failure(cloud: Cloud, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The first rule that applies to a request, counted down by `skip` and `times`."""
    # Not the cloud's lock: ECS holds that while the Docker engine pulls a container's image from here.
    with RULES_LOCK:
        for rule in (*cloud.failures, *cloud.staged):
            fits = all(rule[name] == entry[name] for name in ("service", "operation", "method", "key") if name in rule)
            if not fits or not re.search(rule.get("path", ""), entry["path"]):
                continue
            if rule.get("skip", 0) > 0:
                rule["skip"] -= 1
            elif rule.get("times", 1) > 0:
                rule["times"] = rule.get("times", 1) - 1
                return rule
    return None


def _fail(start: StartResponse, entry: dict[str, Any], rule: dict[str, Any]) -> list[bytes]:
    """Answer with the rule's body, else with an error in the protocol of the service."""
    if "body" in rule:
        body, kind = rule["body"].encode(), rule.get("type", "text/html")
        return answer(start, rule["status"], body, kind, **rule.get("headers", {}))
    code, message = rule.get("code", "InternalError"), rule.get("message", "an injected failure")
    message = message.replace("{operation}", entry["operation"])
    if entry["service"] in ("s3", "cloudfront", "rds", "sts"):
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        if entry["service"] != "s3":
            error = f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>"
        return answer(start, rule["status"], error.encode(), "application/xml")
    body = json.dumps({"__type": code, "message": message}).encode()
    return answer(start, rule["status"], body, "application/x-amz-json-1.1", x_amzn_ErrorType=code)
