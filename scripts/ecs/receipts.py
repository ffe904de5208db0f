"""Receipts: each run that changes an environment leaves one JSON document beside its releases, also when it failed.

docs/receipts.md explains the fields. `invoke history` shows them; promotion and rollback decide by them. What is in the
bucket is somebody else's text, so a receipt is checked and bounded when it is read.
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from scripts.edges.s3 import Bucket, open_bucket
from scripts.frame import console, stop, text
from scripts.frame.errors import FAILED as ERROR
from scripts.frame.errors import REFUSED, ROLLED_BACK, UNKNOWN, DeployError, Refused
from scripts.frame.run import Run, Step, actor, plain
from scripts.frame.settings import Environment
from scripts.frame.stop import Stopped
from scripts.frame.threads import workers

PREFIX = "_release/receipts/"
FORMAT = 1
HEADERS = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
# Bytes of a receipt that are read; characters of a text, number of texts and number of steps that are written.
MOST, LONGEST, TEXTS, PHASES = 1 << 20, 2000, 40, 100
# How often it is tried to write one. The run is over, and somebody waits for its last line.
TRIES = 3
AT_THE_SAME_TIME = 8
# Verdicts of `rollout.Verdict` that a run ends with, and those of a run that has no deployment to judge.
SUCCEEDED, UNPROVEN, FAILED, TAKEN_BACK, STOPPED = "succeeded", "unknown", "failed", "rolled back", "stopped"

Text = Annotated[str, Meta(max_length=LONGEST)]
Texts = Annotated[tuple[Text, ...], Meta(max_length=TEXTS)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Phase(Struct, frozen=True, kw_only=True):
    """One step. result: in one line, empty if it did not end."""

    name: Text
    seconds: Seconds
    result: Text = ""


class Service(Struct, frozen=True, kw_only=True):
    """One service that was deployed. The revisions are ARNs of task definitions."""

    service: Text
    version: Text = ""
    digest: Text = ""
    old_revision: Text = ""
    new_revision: Text = ""
    deployment_id: Text = ""
    verdict: Text = ""
    proof: Texts = ()
    reasons: Texts = ()


class Receipt(Struct, frozen=True, kw_only=True):
    """One run of a command. started: Unix time. exit_code: as the command ended.

    service to reasons: of the application's service, else of the last one that was deployed; services: the others.
    """

    format: int = FORMAT
    id: Annotated[str, Meta(min_length=1, max_length=100)]
    application: Text
    environment: Text
    command: Text
    version: Text = ""
    service: Text = ""
    digest: Text = ""
    old_revision: Text = ""
    new_revision: Text = ""
    deployment_id: Text = ""
    release: Text = ""
    rolled_back_from: Text = ""
    promotion: Text = ""
    actor: Text = ""
    run: Text = ""
    started: Annotated[float, Meta(ge=0, le=4_102_444_800)]
    seconds: Seconds
    phases: Annotated[tuple[Phase, ...], Meta(max_length=200)] = ()
    verdict: Text
    proof: Texts = ()
    reasons: Texts = ()
    exit_code: Annotated[int, Meta(ge=0, le=255)]
    services: Annotated[tuple[Service, ...], Meta(max_length=200)] = ()

    def is_good(self, service: str) -> bool:
        """Whether it shows that a version of a service ran well."""
        deployed = self.service == service and bool(self.version)
        return deployed and self.verdict == SUCCEEDED and self.exit_code == 0


class kept:  # noqa: N801 - it reads like contextlib's own
    """Leave a receipt of the run when the block ends, unless nothing was changed or a part of it has begun one.

    name: of the bucket, if the environment has none of its own. A failure to write it is only a warning.
    """

    def __init__(self, run: Run, name: str = "") -> None:
        self._run = run
        self._bucket = run.environment.frontend.bucket.known() or name
        self._ours = not (run.dry_run or run.recorded)
        run.recorded = True

    def __enter__(self) -> None:
        self._started, self._clock = time.time(), time.monotonic()

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._ours and _may_have_changed(error):
            with stop.deferred():
                receipt = of(self._run, error, self._started, time.monotonic() - self._clock)
                console.summary(markdown(receipt))
                if self._bucket:
                    _write(self._run.environment, self._bucket, receipt, stopped=isinstance(error, Stopped))


def _may_have_changed(error: BaseException | None) -> bool:
    """Whether a run may have changed something, by how it ended."""
    if isinstance(error, DeployError):
        return error.code != REFUSED
    return error is None or isinstance(error, Exception) or stop.exit_code() != REFUSED


def of(run: Run, error: BaseException | None, started: float, seconds: float) -> Receipt:
    """The receipt of a run. error: how it failed or was stopped."""
    env, services = run.environment, _services(run.steps)
    main = services.pop(env.service.name, None) or (services.popitem()[1] if services else Service(service=""))
    code = _exit_code(error)
    who, url = actor()
    return Receipt(
        id=f"{text.stamp(started)}-{uuid.uuid4().hex[:8]}",
        application=_cut(env.application.name),
        environment=_cut(env.name),
        command=run.name,
        version=_cut(run.facts.get("version") or main.version),
        service=main.service,
        digest=main.digest or _cut(run.facts.get("digest", "")),
        old_revision=main.old_revision,
        new_revision=main.new_revision,
        deployment_id=main.deployment_id,
        release=_cut(_last(run.steps, "release")),
        rolled_back_from=_cut(run.facts.get("rolled_back_from", "")),
        promotion=_cut(run.facts.get("promotion", "")),
        actor=_cut(who),
        run=_cut(url),
        started=round(started, 3),
        seconds=round(seconds, 3),
        phases=tuple(_phase(step) for step in run.steps[-PHASES:]),
        verdict=_verdict(main.verdict, error, code),
        proof=main.proof,
        reasons=main.reasons or _texts(_reasons(error)),
        exit_code=code,
        services=tuple(services.values()),
    )


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, DeployError):
        return int(error.code)
    return stop.exit_code() if isinstance(error, Stopped) else ERROR


def _reasons(error: BaseException | None) -> list[str]:
    if error is None or isinstance(error, DeployError):
        return [str(error)] if error else []
    return [f"stopped by {error}" if isinstance(error, Stopped) else f"a bug: {type(error).__name__}"]


def _verdict(of_service: str, error: BaseException | None, code: int) -> str:
    """How the run ended, in one word: that of the deployment if it says why, else by the exit code."""
    if isinstance(error, Stopped):
        return STOPPED
    if error is None or (of_service not in ("", SUCCEEDED) and code not in (UNKNOWN, ROLLED_BACK)):
        return of_service or (SUCCEEDED if error is None else FAILED)
    return {UNKNOWN: UNPROVEN, ROLLED_BACK: TAKEN_BACK}.get(code, FAILED)


def _services(steps: list[Step]) -> dict[str, Service]:
    """The services that were deployed, by name: what the last step about each of them says."""
    found: dict[str, Service] = {}
    for step in steps:
        result = _fields(step.result)
        if "deployment_id" not in result:
            continue
        name = str(result["service"])
        found.pop(name, None)
        found[name] = Service(
            service=_cut(name),
            version=_cut(result.get("version", "")),
            digest=_cut(result.get("digest", "")),
            old_revision=_cut(result.get("before", "")),
            new_revision=_cut(result.get("task_definition", "")),
            deployment_id=_cut(result.get("deployment_id", "")),
            verdict=_cut(result.get("verdict", "")),
            proof=_texts(result.get("proof", ())),
            reasons=_texts(result.get("reasons", ())),
        )
    return found


def _fields(result: object) -> Mapping[str, Any]:
    """The fields of a step's result; empty without one."""
    found = plain(result)
    return found if isinstance(found, dict) else {}


def _last(steps: list[Step], name: str) -> str:
    """The last value of a field among the results."""
    return next((str(_fields(step.result)[name]) for step in reversed(steps) if name in _fields(step.result)), "")


def _phase(step: Step) -> Phase:
    result = step.result.line() if step.result else ""
    return Phase(name=_cut(step.name), seconds=round(step.seconds, 3), result=_cut(result))


def _cut(value: object) -> str:
    return text.one_line(text.without_credentials(str(value)), LONGEST)


def _texts(values: object) -> tuple[str, ...]:
    found = (values,) if isinstance(values, str) else values if isinstance(values, list | tuple) else ()
    return tuple(_cut(value) for value in found if value)[:TEXTS]


def markdown(receipt: Receipt) -> str:
    """A receipt for the step's summary in Actions."""
    told = {name: value for name, value in msgspec.to_builtins(receipt).items() if value not in ("", (), [])}
    block = text.markdown_block(json.dumps(told, indent=2, ensure_ascii=False))
    return f"<details><summary>receipt</summary>\n\n{block}\n\n</details>\n"


def _write(environment: Environment, name: str, receipt: Receipt, *, stopped: bool) -> None:
    key = f"{PREFIX}{receipt.id}.json"
    body = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
    try:
        bucket = open_bucket(environment, name)
        bucket.put(key, body, HEADERS, tries=1 if stopped else TRIES)
    except DeployError as error:
        console.warn(f"the receipt of this run was not kept: {error}")


# Reading


class Kept(Struct, frozen=True):
    """The receipts of an environment, newest first. damaged: keys that hold none."""

    receipts: tuple[Receipt, ...]
    damaged: tuple[str, ...] = ()


def rolled_back_from(kept: Iterable[Receipt]) -> frozenset[str]:
    """The versions that a rollback has left, and that have not run well since. kept: newest first."""
    left, well = set[str](), set[str]()
    for receipt in kept:
        if receipt.rolled_back_from not in ("", receipt.version, *well):
            left.add(receipt.rolled_back_from)
        if receipt.service and receipt.is_good(receipt.service):
            well.add(receipt.version)
    return frozenset(left)


def good(kept: Sequence[Receipt], service: str) -> list[Receipt]:
    """The newest receipt of each version that ran well and was not rolled back from, newest first."""
    left, found = rolled_back_from(kept), dict[str, Receipt]()
    for receipt in kept:
        if receipt.is_good(service) and receipt.version not in left:
            found.setdefault(receipt.version, receipt)
    return list(found.values())


def load(body: bytes) -> Receipt:
    """A receipt from JSON. Raises ValueError for a document that is none, or of a newer format."""
    try:
        found = msgspec.json.decode(body, type=Receipt)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if found.format != FORMAT:
        raise ValueError(f"it has format {found.format}, and was written by a newer version of this command")
    return found


def read(environment: Environment, most: int) -> Kept:
    """The newest receipts of an environment, at most `most`.

    Raises Refused if it has no bucket, DeployError if that cannot be read.
    """
    bucket = open_bucket(environment, environment.frontend.bucket.require())
    keys = sorted((key for key in bucket.list(PREFIX) if key.endswith(".json")), reverse=True)[:most]
    found: list[Receipt] = []
    damaged: list[str] = []
    with workers(AT_THE_SAME_TIME) as pool:
        for key, receipt in zip(keys, pool.map(lambda key: _read(bucket, key), keys), strict=True):
            if receipt is None:
                damaged.append(key)
            elif (receipt.application, receipt.environment) == (environment.application.name, environment.name):
                found.append(receipt)
    return Kept(tuple(found), tuple(damaged))


def _read(bucket: Bucket, key: str) -> Receipt | None:
    """One receipt, None for what is none. Raises DeployError if it cannot be read."""
    try:
        stored = bucket.get(key, MOST)
        return load(stored[0]) if stored else None
    except (ValueError, Refused):
        return None
