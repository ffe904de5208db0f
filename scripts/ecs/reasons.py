"""Why a deployment did not succeed: ECS's own reasons, its tasks that died, its newest events, its last log lines."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from scripts.ecs import logs, rollout
from scripts.ecs.rollout import Before, Service, Task
from scripts.frame import console, text, waiting
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut

EVENTS, GROUPS, LINES = 5, 3, 20
# CloudWatch shows a line some seconds after it was logged.
LATE, EVERY = 4.0, 1.0

# What a reason or an exit code most often means. The first one that fits is given.
HINTS = (
    (r"OutOfMemory", "the container needs more memory than its limit"),
    (r"exec format error", "the image is for another CPU architecture than the task definition"),
    (
        r"CannotPull\w*",
        "the registry has no such image for this platform, or the execution role or the network does not reach it",
    ),
    (
        r"ResourceInitializationError",
        "a secret or parameter is missing, the execution role may not read it, or its service is not reachable (NAT,"
        " VPC endpoint)",
    ),
    (
        r"ELB health check",
        "the load balancer's health check got no good answer in time: its path, its port, the grace period",
    ),
    (r"container health check", "the health check in the task definition failed: its command, its start period"),
    (r"unable to place|RESOURCE:|[Cc]apacity", "there is no capacity for the task"),
)
CODES = {
    126: "its command cannot be run: not executable, or for another CPU architecture",
    127: "its command was not found in the image",
    134: "it aborted",
    137: "it was killed: out of memory, or it did not stop in time",
    139: "it crashed: segmentation fault",
    143: "it was told to stop (SIGTERM)",
}
NAMES = r"[\w.-]*(?:passw(?:or)?d|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)[\w.-]*"
ASSIGNED = re.compile(rf"({NAMES}[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)", re.IGNORECASE)
BEARER = re.compile(r"\b(bearer|basic)\s+[\w.+/=~-]{8,}", re.IGNORECASE)
TOKENS = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\bgh[pousr]_\w{20,}|\bxox[a-z]-[\w-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*"
)


class Reasons(Struct, frozen=True):
    """Why a deployment did not succeed. lines: most telling first. log: the last lines of a container that died.

    logged: which container and task that was, or why there are no lines.
    """

    lines: tuple[str, ...] = ()
    logged: str = ""
    log: tuple[str, ...] = ()


def masked(line: str) -> str:
    """A line from outside, without what looks like a secret."""
    line = ASSIGNED.sub(r"\1***", text.without_credentials(line))
    return TOKENS.sub("***", BEARER.sub(r"\1 ***", line))


def explain(before: Before, now: Service) -> tuple[str, ...]:
    """ECS's reasons, the tasks that died, the failed tasks, and the newest events since the start, without secrets."""
    ours = rollout.find(before, now)
    since = rollout.start(before, now, ours) or (now.primary.created if now.primary else 0.0)
    recent = [d for d in now.deployments if d.created >= since or d.is_rollback]
    record = now.record
    said = [record.reason, record.rollback_reason, *_of_monitors(now)] if record else []
    said += [d.reason for d in recent if d.reason and (d.state != "COMPLETED" or d.is_rollback)]
    counts = [f"{_tasks(d.failed)} failed" for d in recent if d.failed]
    events = [event.message for event in rollout.new_events(before, now, since)]
    telling = [message for message in events if rollout.TROUBLE.search(message)] or events
    lines = [*said, *counts, *telling[:EVENTS]]
    shown = [*grouped(rollout.deaths(before, now)), *(text.one_line(line, 300) for line in lines if line)]
    return tuple(dict.fromkeys(masked(line) for line in shown))


def _of_monitors(now: Service) -> list[str]:
    record = now.record
    if record is None:
        return []
    breaker = f"ECS's circuit breaker counts {record.failures} of {record.threshold} failures"
    alarms = f"alarms: {', '.join(record.alarms)}"
    return [*([breaker] if record.failures else []), *([alarms] if record.alarms else [])]


def grouped(died: Sequence[Task]) -> list[str]:
    """Tasks that died, those with the same reason in one sentence, the most frequent first, each with a hint."""
    counts = Counter(task.death for task in died)
    examples = {task.death: task for task in reversed(died)}
    return [f"{_tasks(count)} died: {_sentence(examples[death])}" for death, count in counts.most_common(GROUPS)]


def _sentence(task: Task) -> str:
    """Why a task died, in ECS's words, and what that most often means."""
    words = [f"{task.stop_code}: {task.reason}" if task.reason else task.stop_code]
    for container in task.ended:
        reason = f" ({container.reason})" if container.reason not in ("", task.reason) else ""
        if container.exit_code:
            words.append(f"{container.name} exited with {container.exit_code}{reason}")
        elif reason:
            words.append(f"{container.name}{reason}")
    told = text.one_line("; ".join(words), 300)
    meant = hint(told, next((c.exit_code for c in task.ended if c.exit_code), None))
    return f"{told} – {meant}" if meant else told


def hint(reason: str, code: int | None = None) -> str:
    """What a reason or an exit code most often means; empty if that is not known."""
    return next((meant for pattern, meant in HINTS if re.search(pattern, reason)), CODES.get(code or 0, ""))


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def last_lines(
    environment: Environment, definition: Mapping[str, Any], died: Sequence[Task], *, clock: Clock = CLOCK
) -> tuple[str, list[str]]:
    """What the last task that died logged: which container and task, and its last lines. A failure is no lines."""
    found = logs.sources(environment, definition)
    if not died:
        return "", []
    ended = {container.name for container in died[0].ended}
    found = [s for s in found if s.container in ended] or found
    if not found:
        return "its containers do not log to CloudWatch", []
    source, task = found[0], died[0].id

    def look() -> tuple[str, list[str] | None]:
        return "", logs.last(environment, source, task, LINES) or None

    try:
        lines = waiting.wait(look, seconds=LATE, every=EVERY, clock=clock)
    except TimedOut:
        return f"{source.container} of task {task} has logged nothing", []
    except DeployError as error:
        return f"its logs cannot be read: {error}", []
    return f"the last lines of {source.container}, task {task}", [masked(line) for line in lines]


def collect(
    environment: Environment, before: Before, now: Service, definition: Mapping[str, Any], *, clock: Clock = CLOCK
) -> Reasons:
    """All reasons, with the last log lines. definition: of the deployment's tasks."""
    hide(definition)
    logged, log = last_lines(environment, definition, rollout.deaths(before, now), clock=clock)
    return Reasons(explain(before, now), logged, tuple(log))


def hide(definition: Mapping[str, Any]) -> None:
    """Hide the values of a task definition's variables whose names say that they are secret, in all output."""
    for container in definition.get("containerDefinitions", []):
        for variable in container.get("environment", []):
            if re.fullmatch(NAMES, variable.get("name", ""), re.IGNORECASE):
                text.hide(str(variable.get("value", "")))


def show(reasons: Reasons) -> None:
    """Print the log lines: the reasons themselves are part of the error."""
    if reasons.log:
        with console.group(reasons.logged):
            for line in reasons.log:
                console.say(f"  | {line}")
    elif reasons.logged:
        console.say(reasons.logged)
