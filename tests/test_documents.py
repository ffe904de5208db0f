"""Every document from outside, odd, huge and hostile: each reader returns a record or raises a sentence.

No traceback, nothing written, and nothing begun. A document is what a server, a bucket, a program or a file says.
"""

import copy
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from ecs_manager import handler
from local_aws import process, worker
from scripts import (
    announce_failure,
    backup_database,
    build_image,
    check_image,
    revert,
    run_task,
    status,
)
from scripts.ecs import images, logs, manager, reader, receipts
from scripts.edges import aws, git, http, replies
from scripts.edges.s3 import Bucket, Keys
from scripts.frame import settings, version
from scripts.frame.errors import DeployError, OutcomeUnknown
from scripts.frame.settings import Environment
from scripts.release import cdn, lease, manifest, references
from tests import conftest
from tests.conftest import ROOT, EmbeddedCloud
from tests.local_aws.test_gate import ask
from tests.release.test_records import HELD, WRITTEN
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_cli import ACCOUNT, KEYS

# What may stand where another value belongs.
ODD: list[Any] = [
    *(None, True, 0, -1, 10**30, 0.5, float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, "", "x" * 5000),
    *("\0", "\ud800", "\x1b[31m\r\n::error::x", "../../x", "/etc/passwd", "-x", "$(x)", "\u202e", "1e400", "٣"),
]
DEEP = 100_000
HUGE = 50 << 20
# What is no document of any kind.
BODIES = [
    *(
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"0",
        b"NaN",
        b"1e400",
        b"\0",
        b"\xff\xfe",
        b"<html>",
        b"<?xml version='1.0'?>",
    ),
    *(b"[" * DEEP, b'{"x":' * DEEP, b"<x>" * DEEP, b"[" * DEEP + b"]" * DEEP, b"1" * 10_000, b"\xef\xbb\xbf{}"),
]


def altered(document: Any) -> Iterator[Any]:
    """The document with an odd value in place of each of its parts, at every depth, and without each."""
    for path in paths(document):
        for value in ODD:
            yield changed(document, path, value)
        if path and isinstance(path[-1], str):
            yield changed(document, path, None, remove=True)


def paths(document: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a document."""
    yield ()
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, part in parts:
        yield from ((key, *path) for path in paths(part))


def changed(document: Any, path: tuple[Any, ...], value: Any, *, remove: bool = False) -> Any:
    """A copy of the document with another value at the end of a path, or without it."""
    if not path:
        return value
    made = copy.copy(document)
    if remove and len(path) == 1:
        del made[path[0]]
    else:
        made[path[0]] = changed(document[path[0]], path[1:], value, remove=remove)
    return made


def bodies(document: Any, most: int = 10**6) -> list[bytes]:
    """Bodies of a response that should hold a document; at most so many, which are always the same."""
    made = [*BODIES, *(json.dumps(one).encode() for one in altered(document))]
    return random.Random(len(made)).sample(made, min(most, len(made)))


def outcome(read: Callable[[], object]) -> str:
    """What reading ended with: empty, or a sentence. Anything but a DeployError is a traceback."""
    said = ""
    try:
        read()
    except DeployError as error:
        said = str(error)
        if not said.strip():
            raise
    assert len(said) < 10_000
    return said


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The settings of dev, with keys."""
    for name, value in {**ACCOUNT, **KEYS}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", lambda _: None)
    keep_clients(monkeypatch)
    return settings.find("dev")


def keep_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each client of AWS once in a test: that takes longer than what is done with it here."""
    made, make = dict[object, Any](), aws.client

    def client(service: str, environment: Environment, **given: Any) -> Any:
        key = (service, environment.name, *sorted(given.items()))
        if key not in made:
            made[key] = make(service, environment, **given)
        return made[key]

    monkeypatch.setattr(aws, "client", client)


@pytest.fixture
def server(dev: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """What stands for AWS and every other server."""
    with stand_in(lambda *_: Reply(b"")) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


# Records in buckets


@pytest.mark.parametrize(
    ("read", "document"), [(manifest.load, WRITTEN), (lease.load, HELD)], ids=["manifest", "lease"]
)
def test_what_a_bucket_holds(read: Callable[[bytes], object], document: Any) -> None:
    """The manifest and the lease; more of them in tests/release/test_records.py."""
    for body in [*bodies(document), b'{"id": "' + b"x" * HUGE]:
        said = outcome(lambda body=body: read(body))
        assert not said or "is damaged" in said or "has format" in said


RECEIPT = {
    "format": 1,
    "id": "x",
    "application": "x",
    "environment": "x",
    "command": "x",
    "started": 1.0,
    "seconds": 1.0,
    "phases": [{"name": "x", "seconds": 1.0}],
    "verdict": "x",
    "exit_code": 0,
    "services": [{"service": "x", "reasons": ["x"]}],
}


def test_a_receipt() -> None:
    """It is read, or left out."""
    read = 0
    for body in [json.dumps(RECEIPT).encode(), *bodies(RECEIPT), b'{"id": "' + b"x" * HUGE]:
        with suppress(ValueError):
            read += isinstance(receipts.load(body), receipts.Receipt)
    assert read


# Files of a person


def toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return {None: "1979-05-27"}.get(value, str(value).lower()) if not isinstance(value, str) else json.dumps(value)


TABLES = [
    f"x = {'[' * DEEP}",
    f"x = {'{x = ' * DEEP}",
    "[" + "x." * 500 + "x]",
    "x",
    "x = 1\nx = 2",
    "\0",
    "[[x]]\n[x]",
]
WAIVER = {"finding": "CVE-1", "expires": "2030-06-15", "reason": "x", "repository": "r", "package": "p"}


def test_a_file_of_waivers(tmp_path: Path) -> None:
    """One sentence with its path."""
    file = tmp_path / "waivers.toml"
    texts = [f"waiver = {toml(one)}" for one in altered([WAIVER])]
    for content in [*(text.encode(errors="surrogatepass") for text in (*texts, *TABLES)), *BODIES, b"#" * HUGE]:
        file.write_bytes(content)
        said = outcome(lambda: check_image.read_waivers(file))
        assert not said or str(file) in said


def test_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the path of the file or of the setting, before any command begins."""
    text = (ROOT / "environments.toml").read_text()
    file = tmp_path / "settings.toml"
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    lines = [number for number, line in enumerate(text.splitlines()) if " = " in line]
    chosen = random.Random(9)
    odd = []
    for number in lines:
        parts = text.splitlines()
        parts[number] = parts[number].partition(" = ")[0] + " = " + toml(chosen.choice(ODD))
        odd.append("\n".join(parts).encode(errors="surrogatepass"))
    for content in [*odd, *(text.encode() for text in TABLES), *BODIES]:
        file.write_bytes(content)
        outcome(lambda: settings.find("dev"))
        outcome(lambda: settings.rows("dev"))
    for added, said in (("#" * HUGE, "larger than"), (f"[defaults{'.x' * 100}]", "nested more than")):
        file.write_text(f"{text}\n{added}\n")
        found = outcome(lambda: settings.find("dev"))
        assert str(file) in found
        assert said in found


CONFIGURATION = """[default]
region = us-west-2
endpoint_url = {odd}
services = ours
ca_bundle = {odd}
ignore_configured_endpoint_urls = {odd}
[services ours]
s3 =
  endpoint_url = {odd}
lambda = {odd}
"""


def test_the_configuration_of_aws(dev: Environment) -> None:
    """Where requests would go is known, or it is said why not."""
    folder = Path.home() / ".aws"
    folder.mkdir()
    blocks = ["\n  x = y", "\n  endpoint_url = y", "", "\0", "http://[::1", "x\n[services]\ny", "é" * 9, "%(x)s"]
    for content in [CONFIGURATION.format(odd=odd).encode() for odd in blocks] + BODIES:
        (folder / "config").write_bytes(content)
        outcome(lambda: aws.destination(dev))
        outcome(lambda: aws.profile())


# Responses of AWS

SERVICE = {
    "status": "ACTIVE",
    "deployments": [
        {
            "id": "ecs-svc/1",
            "status": "PRIMARY",
            "taskDefinition": "x",
            "rolloutState": "FAILED",
            "rolloutStateReason": "x",
            "createdAt": 1.0,
            "desiredCount": 1,
            "runningCount": 1,
            "failedTasks": 1,
        }
    ],
    "events": [{"message": "x", "createdAt": 1.0}],
    "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True}},
}
LOGS = {"logDriver": "awslogs", "options": {"awslogs-group": "g", "awslogs-stream-prefix": "p"}}
DEFINITION = {
    "taskDefinition": {
        "taskDefinitionArn": "arn:x:1",
        "containerDefinitions": [{"name": "x", "image": "r/x:1", "logConfiguration": LOGS}],
    }
}
PACKAGE = {"name": "x", "version": "1", "fixedInVersion": "2"}
SCAN = {
    "imageScanStatus": {"status": "COMPLETE", "description": "x"},
    "imageScanFindings": {
        "findings": [{"name": "x", "severity": "HIGH", "uri": "x", "attributes": [{"key": "x", "value": "x"}]}],
        "enhancedFindings": [
            {
                "title": "x",
                "status": "ACTIVE",
                "severity": "HIGH",
                "packageVulnerabilityDetails": {
                    "vulnerabilityId": "x",
                    "sourceUrl": "x",
                    "vulnerablePackages": [PACKAGE],
                },
            }
        ],
    },
}
LINES = {"events": [{"message": "x", "timestamp": 1, "logStreamName": "x"}]}


TASK = {
    "taskArn": "x/y",
    "taskDefinitionArn": "x",
    "startedBy": "x",
    "lastStatus": "STOPPED",
    "stopCode": "x",
    "stoppedReason": "x",
    "stoppedAt": 1.0,
    "containers": [{"name": "x", "image": "x", "imageDigest": "x", "exitCode": 1, "reason": "x"}],
}


@dataclass(frozen=True)
class Reader:
    """What reads a response of AWS. valid: operation -> response that it reads without a fault; the last is altered."""

    read: Callable[[Environment], object]
    valid: dict[str, Any]


READERS = {
    "a service": Reader(
        lambda env: reader.Reader(env, "x").look(),
        {"DescribeTaskDefinition": DEFINITION, "DescribeServices": {"services": [SERVICE]}},
    ),
    "tasks": Reader(
        lambda env: reader.Reader(env, "x").stopped(),
        {"ListTasks": {"taskArns": ["x"]}, "DescribeTasks": {"tasks": [TASK]}},
    ),
    "a task definition": Reader(
        lambda env: logs.sources(env, reader.Reader(env, "x").definition("x")), {"DescribeTaskDefinition": DEFINITION}
    ),
    "logs": Reader(lambda env: logs.since(env, logs.Source("c", "g", env.region, "p"), 0), {"FilterLogEvents": LINES}),
    "the last logs": Reader(
        lambda env: logs.last(env, logs.Source("c", "g", env.region, "p"), "x", 5), {"GetLogEvents": LINES}
    ),
    "an image": Reader(
        lambda env: images.find(env, "xx", "x"), {"DescribeImages": {"imageDetails": [{"imageDigest": "sha256:x"}]}}
    ),
    "findings": Reader(
        lambda env: check_image.show(
            "x", check_image.check(env, check_image.Check("xx", "x", None, timeout=0)).findings
        ),
        {"DescribeImageScanFindings": SCAN},
    ),
    "a token": Reader(
        build_image.token, {"GetAuthorizationToken": {"authorizationData": [{"authorizationToken": "QVdTOng="}]}}
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_what_aws_answers_in_json(name: str, server: StandIn, dev: Environment) -> None:
    """Without a fault, and with one in each part: a sentence, of which the first one shows that all of it is read."""
    reader = READERS[name]
    valid = {operation: json.dumps(document).encode() for operation, document in reader.valid.items()}
    last = list(valid)[-1]
    now = {"status": 200, "body": valid[last]}

    def answer(*_: str) -> Reply:
        operation = server.requests[-1]["headers"].get("X-Amz-Target", "").rpartition(".")[2]
        return Reply(now["body"], now["status"]) if operation == last else Reply(valid[operation])

    server.answer = answer
    assert outcome(lambda: reader.read(dev)) == ""
    refused = 0
    for number, body in enumerate(bodies(reader.valid[last], 35)):
        now.update(body=body, status=400 if number % 7 == 0 else 200)
        refused += bool(outcome(lambda: reader.read(dev)))
    assert refused > 15


def test_a_response_of_aws_has_a_limit(server: StandIn, dev: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read up to there, and nothing is concluded from its beginning; after a call it is unknown what ran."""
    monkeypatch.setattr(aws, "MOST", 2000)
    task = run_task.TaskRun("x", "x", manager.planned(dev, None, None, {}))
    registry = {"imageDetails": [{"imageDigest": "sha256:x"}]}
    for size, said in ((2000, ""), (2001, "It is larger than 2,000 bytes")):
        body = json.dumps(registry).encode().ljust(size)
        server.answer = lambda *_, body=body: Reply(body)
        found = outcome(lambda: images.find(dev, "xx", "x"))
        assert said in found
        assert bool(found) == bool(said)
        answer = Reply(json.dumps({"data": {"response": RESPONSE}}).encode().ljust(size))
        server.answer = lambda _, path, answer=answer: answer if "/functions/" in path else DENIED
        with pytest.raises(OutcomeUnknown, match=said) if said else nullcontext():
            run_task.start(dev, task)


PAGED = {
    "ListTasks": (lambda env: reader.Reader(env, "x").stopped(), {"taskArns": []}),
    "FilterLogEvents": (lambda env: logs.since(env, logs.Source("c", "g", env.region, "p"), 0), {"events": []}),
    "DescribeImageScanFindings": (
        lambda env: check_image.check(env, check_image.Check("xx", "x", None, timeout=0)),
        {"imageScanStatus": {"status": "COMPLETE"}},
    ),
}


@pytest.mark.parametrize("operation", PAGED)
def test_pages_that_do_not_end(
    operation: str, server: StandIn, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each names another one after it."""
    monkeypatch.setattr(aws, "PAGES", 3)
    read, page = PAGED[operation]
    server.answer = lambda *_: Reply(json.dumps({**page, "nextToken": str(len(server.requests))}).encode())

    assert "does not end: it has more than 3 pages" in outcome(lambda: read(dev))

    assert len(server.requests) == 4


def test_every_part_of_a_response_is_checked() -> None:
    """As botocore hands it on: what is of another type than the service's model says is refused with its path."""
    snapshot = {"DBSnapshotIdentifier": "x", "Status": "x", "TagList": [{"Key": "x", "Value": "x"}]}
    documents = {
        ("ecs", "DescribeServices"): {"services": [{**SERVICE, "deployments": [], "events": []}]},
        ("ecs", "DescribeTaskDefinition"): DEFINITION,
        ("ecs", "ListServiceDeployments"): {"serviceDeployments": [{"serviceDeploymentArn": "x"}], "nextToken": "x"},
        ("ecr", "DescribeImageScanFindings"): SCAN,
        ("logs", "FilterLogEvents"): LINES,
        ("rds", "DescribeDBSnapshots"): {"DBSnapshots": [snapshot]},
        ("cloudfront", "CreateInvalidation"): {"Invalidation": {"Id": "x", "Status": "x"}},
        ("iam", "SimulatePrincipalPolicy"): {"EvaluationResults": [{"EvalActionName": "x", "EvalDecision": "x"}]},
    }
    for (service, operation), document in documents.items():
        model = Session().get_service_model(service).operation_model(operation)
        replies.check(model, document)
        for path, value in itertools.product(list(paths(document))[1:], ([1], None, object(), True)):
            if value is not True or not isinstance(at(document, path), bool):
                with pytest.raises(ValueError, match="at `\\$"):
                    replies.check(model, changed(document, path, value))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """The part of a document at the end of a path."""
    return at(document[path[0]], path[1:]) if path else document


STATUS = {"exitCode": 0, "stopCode": "x", "stoppedReason": "x"}
RESPONSE = {
    "ResponseMetadata": {"HTTPStatusCode": 200},
    "NewTaskdefArn": "x",
    "DeploymentIds": {"x": "ecs-svc/1"},
    "taskArn": "x",
    "taskStatus": STATUS,
}


@pytest.mark.parametrize(
    "document",
    [
        {"data": {"response": RESPONSE}},
        {"data": {"response": {"title": "x", "message": "x"}}},
        {"level": "critical", "msg": "x", "data": "x"},
        {"errorType": "x", "errorMessage": "Task timed out"},
        {"totalFindings": 1},
    ],
    ids=["success", "failure", "not understood", "error", "a count"],
)
def test_what_lambda_answers(document: Any, server: StandIn, dev: Environment) -> None:
    """The manager and the scan: a reply is what its contract says, or the command ends with a sentence."""
    task = run_task.TaskRun("x", "x", manager.planned(dev, None, None, {}))
    for body, failed in itertools.product(bodies(document), ("Unhandled", None)):
        outcome(lambda body=body, failed=failed: manager.manager_response(manager.parse(body, failed, "x"), "x"))
    for number, body in enumerate(bodies(document, 8)):
        failed = {"X-Amz-Function-Error": "Unhandled"} if number % 3 == 0 else {}
        answer = Reply(body, headers=failed)
        server.answer = lambda _, path, answer=answer: answer if "/functions/" in path else DENIED
        server.requests.clear()
        outcome(lambda: run_task.start(dev, task))
        assert len(server.lambda_calls()) == 1
        outcome(lambda: check_image._count(check_image._asked(dev, task.invocation), "x"))


XML = {
    "DescribeDBInstances": "<DescribeDBInstancesResponse><DescribeDBInstancesResult/></DescribeDBInstancesResponse>",
    "DescribeDBSnapshots": "<DescribeDBSnapshotsResponse><DescribeDBSnapshotsResult><DBSnapshots>"
    "<DBSnapshot>{}</DBSnapshot></DBSnapshots></DescribeDBSnapshotsResult></DescribeDBSnapshotsResponse>",
}
FIELDS = {
    "DBSnapshotIdentifier": "x",
    "Status": "available",
    "PercentProgress": "1",
    "SnapshotCreateTime": "2030-01-01T00:00:00Z",
    "SnapshotType": "manual",
    "TagList": "<Tag><Key>x</Key><Value>x</Value></Tag>",
}
WRONG = ["", "x", "-1", "1e400", "٣", "<x/>", "<Tag/>", "&#65534;", "&x;", "</x>", "9999999999999999999999"]


def test_what_rds_and_cloudfront_answer_in_xml(
    server: StandIn, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots, and an invalidation that may have begun: then the outcome is unknown."""
    now = {"body": b""}

    def answer(method: str, path: str) -> Reply:
        if b"DescribeDBInstances" in server.requests[-1]["body"]:
            return Reply(XML["DescribeDBInstances"].encode())
        return Reply(now["body"])

    server.answer = answer
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(with_distribution(Path.home())))
    env = settings.find("dev")
    for name, value in random.Random(2).sample(list(itertools.product(FIELDS, WRONG)), 25):
        fields = "".join(f"<{one}>{value if one == name else FIELDS[one]}</{one}>" for one in FIELDS)
        now["body"] = XML["DescribeDBSnapshots"].format(fields).encode()
        outcome(lambda: backup_database.snapshots(env))
    for body in BODIES[::2]:
        now["body"] = body
        outcome(lambda: backup_database.snapshots(env))
        assert outcome(lambda: cdn.invalidate(env, ("/x",)))
        assert outcome(lambda: cdn.wait_for(env, "x"))


def with_distribution(folder: Path) -> Path:
    """Settings whose frontend is behind CloudFront."""
    path = folder / "settings.toml"
    text = (ROOT / "environments.toml").read_text()
    assert "[defaults.frontend]" in text
    path.write_text(text.replace("[defaults.frontend]", '[defaults.frontend]\ndistribution = "E1"'))
    return path


ENTRY = "<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
MORE = "<IsTruncated>{more}</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
LISTING = f"<ListBucketResult>{MORE}{{}}</ListBucketResult>"
BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>{}]><ListBucketResult>&j;</ListBucketResult>".format(
    "".join(f"<!ENTITY {new} '{f'&{old};' * 10}'>" for old, new in itertools.pairwise("abcdefghij"))
)


def test_what_s3_answers(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing, an object, and an error."""
    bucket = Bucket("a-bucket", "us-west-2", server.url, Keys("x", "y"), "dev", use_proxy=False)
    monkeypatch.setattr("scripts.edges.s3.TRIES", 1)
    monkeypatch.setattr("scripts.edges.s3.PAGES", 20)
    listings = [
        LISTING.format(ENTRY.format(**{"key": "k", "etag": "e", "size": "1", name: value}), more="false")
        for name, value in itertools.product(("key", "etag", "size"), WRONG)
    ]
    listings += [LISTING.format("", more="true"), LISTING.format("", more="x"), BOMB]
    encodings = [f"<?xml version='1.0' encoding='{name}'?><x/>" for name in ("utf-7", "nope", "shift_jis", "utf-16")]
    read = 0
    for body in [text.encode() for text in listings]:
        server.answer = lambda *_, body=body: Reply(body)
        read += not outcome(bucket.list)
    assert 5 < read < len(listings) / 2
    for body, code in itertools.product([*(text.encode() for text in (*encodings, BOMB)), *BODIES], (200, 403)):
        server.answer = lambda *_, body=body, code=code: Reply(body, code)
        assert outcome(bucket.list)
        outcome(lambda: bucket.get("k", 1000))
        assert outcome(lambda: bucket.delete(["k"], {}))
        assert outcome(lambda: bucket.put("k", b"x", {}))


@pytest.mark.parametrize("length", ["²", "-1", "x", "1" * 5000])
def test_a_length_that_is_no_number(length: str, server: StandIn) -> None:
    """In a header, where a server may say anything."""
    bucket = Bucket("a-bucket", "us-west-2", server.url, Keys("x", "y"), "dev", use_proxy=False)
    server.answer = lambda *_: Reply(b"x", 200, {"Content-Length": length.encode().decode("latin-1")})

    outcome(lambda: bucket.get("k", 1000, tries=1))


# Other servers


def test_what_a_healthcheck_and_the_embedded_aws_answer(server: StandIn) -> None:
    """A version, or why there is none; more than it may say is not read."""
    for body in [*bodies({"version": "x"}, 30), b'{"version": "' + b"x" * HUGE]:
        server.answer = lambda *_, body=body: Reply(body)
        outcome(lambda: version.answering(server.url, 5))
    port = int(server.url.rpartition(":")[2])
    for body in bodies({"name": "embedded AWS", "ready": True, "pid": 1}, 30):
        server.answer = lambda *_, body=body: Reply(body)
        outcome(lambda: process.status(port))
        assert process._is_ready(port) in (True, False)


def test_no_process_is_ended_because_an_answer_names_it() -> None:
    """It must be an embedded AWS: what answers on the port may name any."""
    for pid in (None, True, "1", -1, 0, 1, 2**70, os.getpid()):
        assert "end that program" in outcome(lambda pid=pid: process._end(9, pid))


def test_what_github_and_slack_answer(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull request has a URL or there is none; whatever Slack answers is no failure."""
    opened = {"html_url": "https://github.com/owner/app/pull/1", "message": "x", "errors": [{"message": "x"}]}
    for body, code in itertools.product(bodies(opened), (201, 422)):
        answer = http.Answer(code, {}, body)
        assert revert._url(answer) in ("", opened["html_url"]) or body.startswith(b'{"html_url"')
        assert revert._reason(answer)
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"{server.url}/x")
    for body in BODIES:
        server.answer = lambda *_, body=body: Reply(body)
        assert isinstance(announce_failure.post({}), str)


# Programs

COMMITTERS = [
    "X <x@y> 1 +0000",
    "X <x@y> " + "9" * 5000 + " +0000",
    "X",
    "X <x@y> -5 +0000",
    "",
    "X <x@y> x +0000",
    "\xff",
]
MESSAGES = [
    b"x",
    b"",
    b"parent \nparent x\n",
    b"x\n\nparent \nparent 0\n",
    b"\xff\xfe",
    b"::error::x\x1b[31m",
]


def test_what_git_says_of_commits(tmp_path: Path) -> None:
    """Malformed ones, as somebody may push them; lines of the message are no headers."""
    conftest.git(tmp_path, "init", "--quiet")
    conftest.git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "x")
    tree, first = conftest.git(tmp_path, "rev-parse", "HEAD^{tree}", "HEAD").split()
    head = f"tree {tree}\nparent {first}\nauthor X <x@y> 1 +0000\ncommitter "
    for number, (committer, message) in enumerate(
        [*((one, b"x") for one in COMMITTERS), *((COMMITTERS[0], one) for one in MESSAGES)]
    ):
        body = tmp_path / f"commit-{number}"
        body.write_bytes(head.encode() + committer.encode("latin-1") + b"\n\n" + message)
        sha = conftest.git(tmp_path, "hash-object", "-t", "commit", "--literally", "-w", str(body))
        found = git.commit(tmp_path, sha)
        assert found
        assert found.parents == (first,)
        assert git.is_whole(tmp_path, found)
        assert status.row(status.Answering("dev", sha, ""), tmp_path, found, 1.0).behind == 0


# The site and the build


@pytest.mark.parametrize("name", ["index.html", "x.js", "x.css", "manifest.json", "asset-manifest.json", "ngsw.json"])
def test_what_a_page_refers_to(name: str) -> None:
    """What release.verify fetches may be anything."""
    documents = [json.dumps(one).encode() for one in altered({"x": {"file": "x", "css": ["x"]}, "files": {"x": "x"}})]
    for body in [*BODIES, *documents, b"<script src='" + b"../" * 5000, b"url(" * 5000, b"import(" * 5000]:
        for found in references.references_in(name, body.decode(errors="replace")):
            assert isinstance(found.key, str)


# The other side: the embedded AWS's control requests, and the manager's event

CONTROL: dict[str, Any] = {
    "clock": {"advance": 1.0},
    "failures": {"service": "x", "path": "x", "status": 500, "times": 1, "delay": 0.0, "drop": False, "code": "x"},
    "findings": {"repository": "x", "tag": "x", "findings": [{"name": "x", "severity": "HIGH"}], "status": "COMPLETE"},
}


@pytest.mark.parametrize("name", CONTROL)
def test_what_the_control_paths_are_sent(name: str, cloud: EmbeddedCloud) -> None:
    """It is done or refused with 400; after all of them the embedded AWS still answers."""
    headers = {"X-Local-AWS-Token": cloud.server.cloud.token}
    before = cloud.server.cloud.clock.now()
    done = 0
    for body in bodies(CONTROL[name], 60):
        code, _, said = ask(cloud, "POST", f"/_local/{name}", headers, body)
        assert code in (200, 400), said
        assert code == 200 or "error" in json.loads(said)
        done += code == 200
    assert done
    ask(cloud, "POST", "/_local/failures", headers, b"{}")
    assert cloud.server.cloud.clock.now() - before < 1e10
    assert cloud.client("ecr").describe_repositories()["repositories"]


@pytest.mark.parametrize("target", ["AmazonEC2ContainerServiceV20141113.DescribeServices", "x.DescribeRepositories"])
def test_a_request_that_is_no_object_is_refused_as_aws_does(target: str, cloud: EmbeddedCloud) -> None:
    """Whatever its body is."""
    for body in (b"[", b"[]", b"\xff", b"[" * DEEP, b'"x"'):
        code, _, said = ask(cloud, "POST", "/", {"X-Amz-Target": target}, body)
        assert (code, json.loads(said)["__type"]) == (400, "SerializationException")


EVENTS: dict[str, Any] = {
    "deploy": {
        "cluster_id": "local-mint-app",
        "service_ids": ["mint-app"],
        "image": "r/mint-backend:x",
        "secrets": ["^/local/mint-app/x"],
    },
    "runtask": {"cluster_id": "local-mint-app", "service_id": "x", "container_id": "x", "entrypoint": "x"},
    "healthcheck": {"cluster": "local-mint-app", "family": "x", "serviceName": "x"},
}


@pytest.mark.parametrize("command", EVENTS)
def test_what_the_manager_is_sent(command: str, cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reply is one of its contract, and nothing is begun."""
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": "us-west-2", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    made = list(altered({"command": command, "body": EVENTS[command]}))
    for event in random.Random(1).sample(made, 30):
        reply = handler.handler(event, worker.Context("request-1", 60))
        assert reply.get("level") == "critical" or "response" in reply["data"]
    begun = {request["operation"] for request in cloud.requests()} & {
        "UpdateService",
        "RunTask",
        "RegisterTaskDefinition",
    }
    assert begun == set()
