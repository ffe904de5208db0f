"""What ECS shows of a service, and what became of one of its deployments.

"The service is stable" is also true after a rollback. So one deployment is followed: by its id where that is known,
else the one that runs the version, and from the first sight of it that one. What ECS says by an id, a state or a time
counts before its words; an event counts only if it is newer than the deployment.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.ecs import images
from scripts.edges import aws
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment

# How ECS words it, in reasons and in events: "rolling back to deployment …", "rolled back", "rollback".
ROLLBACK = re.compile(r"\broll(ed|ing)?[ -]?back\b", re.IGNORECASE)
TROUBLE = re.compile(r"\bfail|\bunable\b|\bunhealthy\b|\berror|roll(ed|ing)?[ -]?back", re.IGNORECASE)
DEPLOYMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]{0,127}")

# Without a circuit breaker ECS starts failing tasks for ever. ECS's own breaker gives up between 3 and 200 failures,
# at half the desired count; twice the desired count, and never fewer than 10, is past all doubt.
FEWEST_FAILURES, FAILURES_PER_TASK = 10, 2
EXPLANATIONS = 5
# Seconds that may lie between the event of a rollback and the deployment that it starts.
TOGETHER = 5.0


class Verdict(enum.Enum):
    """What became of a rollout."""

    RUNNING = "is rolling out"
    SUCCEEDED = "is complete"
    FAILED = "failed"
    ROLLED_BACK = "was rolled back"
    SUPERSEDED = "was superseded by another deployment"
    ABSENT = "has not started"


@dataclass(frozen=True)
class Deployment:
    """One deployment of a service. status: PRIMARY or ACTIVE (draining). images: of its containers.

    state: ECS's rolloutState, empty where it gives none. created: Unix time in seconds, by ECS's clock.
    """

    id: str
    status: str
    task_definition: str
    images: tuple[str, ...]
    state: str
    reason: str
    created: float
    desired: int
    running: int
    failed: int

    @property
    def is_rollback(self) -> bool:
        """Whether ECS says that it started it to take another deployment back."""
        return bool(ROLLBACK.search(self.reason))


@dataclass(frozen=True)
class Event:
    """One message of ECS about a service. created: Unix time in seconds, by ECS's clock."""

    message: str
    created: float


@dataclass(frozen=True)
class Service:
    """A service as ECS describes it. events: newest first. breaker: whether a circuit breaker ends bad rollouts."""

    name: str
    deployments: tuple[Deployment, ...]
    events: tuple[Event, ...] = ()
    breaker: bool = True

    @property
    def primary(self) -> Deployment | None:
        """The deployment that ECS works towards."""
        return next((d for d in self.deployments if d.status == "PRIMARY"), None)


@dataclass(frozen=True)
class Target:
    """The deployment to judge. id: empty where it is not known; then tag or digest of the service's image tell it.

    repository: of the service's image; containers with other images are sidecars and prove nothing.
    since: Unix time by ECS's clock, before which nothing that happened concerns it; 0 where that is not known.
    """

    version: str
    repository: str
    id: str = ""
    digest: str = ""
    since: float = 0.0

    def is_run_by(self, deployment: Deployment) -> bool:
        """Whether the service's container in a deployment has the tag, or exactly the digest."""
        for reference in deployment.images:
            image = images.parse(reference)
            if image is None or image.repository != self.repository:
                continue
            if image.tag == self.version or (self.digest and image.digest == self.digest):
                return True
        return False


def observe(environment: Environment, service: str) -> Service:
    """Ask ECS for a service. Raises DeployError if there is none."""
    client = aws.client("ecs", environment)
    doing = f"reading the service {service} in {environment.cluster}"
    with aws.errors(doing, environment):
        answer = client.describe_services(cluster=environment.cluster, services=[service])
        found = next((s for s in answer.get("services", []) if s.get("status") != "INACTIVE"), None)
        if found is None:
            raise DeployError(f"There is no service {service} in the cluster {environment.cluster}.")
        deployments = tuple(_deployment(client, item) for item in found.get("deployments", []))
    events = [Event(str(event.get("message", "")), _time(event)) for event in found.get("events", [])]
    breaker = found.get("deploymentConfiguration", {}).get("deploymentCircuitBreaker", {}).get("enable", False)
    newest_first = tuple(sorted(events, key=lambda event: event.created, reverse=True))
    return Service(service, deployments, newest_first, bool(breaker))


def _deployment(client: Any, item: Mapping[str, Any]) -> Deployment:
    definition = client.describe_task_definition(taskDefinition=item["taskDefinition"])["taskDefinition"]
    return Deployment(
        id=item["id"],
        status=item["status"],
        task_definition=definition["taskDefinitionArn"],
        images=tuple(container["image"] for container in definition["containerDefinitions"]),
        state=item.get("rolloutState", ""),
        reason=item.get("rolloutStateReason", ""),
        created=_time(item),
        desired=item.get("desiredCount", 0),
        running=item.get("runningCount", 0),
        failed=item.get("failedTasks", 0),
    )


def _time(item: Mapping[str, Any]) -> float:
    created = item.get("createdAt")
    return float(created.timestamp()) if created else 0.0


def find(target: Target, now: Service, seen: Deployment | None = None) -> Deployment | None:
    """The target among the deployments that ECS lists, else as it was when it was last seen; None before that.

    seen: what this function gave at an earlier look.
    """
    followed = target.id or (seen.id if seen and _rollback_event(now, seen.created) else "")
    if followed:
        # Once ECS has told of a rollback, no newer deployment of the same version takes the place of the one seen.
        return next((d for d in now.deployments if d.id == followed), seen)
    ours = [d for d in now.deployments if target.is_run_by(d)]
    newest = max(ours, key=lambda d: d.created, default=None)
    if newest and newest.is_rollback:
        # What it took back may have run the same version.
        newest = max((d for d in ours if d.state == "FAILED"), key=lambda d: d.created, default=newest)
    return seen if seen and (newest is None or newest.created < seen.created) else newest


def verdict(target: Target, now: Service, seen: Deployment | None = None) -> Verdict:
    """What became of the target. seen: the target as `find` gave it at an earlier look, if it did."""
    ours, primary = find(target, now, seen), now.primary
    if ours is None:
        return _of_unseen(target, now)
    if primary and primary.id == ours.id:
        return _of_primary(primary, now)
    went_back = primary is not None and (primary.created < ours.created or primary.is_rollback)
    if ours.state == "FAILED" or went_back or _rollback_event(now, ours.created):
        return Verdict.ROLLED_BACK
    return Verdict.SUPERSEDED


def _of_primary(primary: Deployment, now: Service) -> Verdict:
    """What ECS says of the deployment that it works towards. COMPLETED is its word, although old tasks may drain."""
    if primary.state == "FAILED":
        return Verdict.FAILED
    if primary.state == "COMPLETED":
        return Verdict.SUCCEEDED
    if primary.state == "" and primary.running == primary.desired and len(now.deployments) == 1:
        return Verdict.SUCCEEDED
    hopeless = max(FEWEST_FAILURES, FAILURES_PER_TASK * primary.desired)
    return Verdict.FAILED if not now.breaker and primary.failed >= hopeless else Verdict.RUNNING


def _of_unseen(target: Target, now: Service) -> Verdict:
    """Of a target that ECS does not list and that has not been seen: what ids and times say of it."""
    primary, since = now.primary, start(target, now)
    if primary is None:
        return Verdict.ABSENT
    if not since:
        # Whoever gave the id has seen it in ECS: what rolls out now has come after it.
        later = bool(target.id) and primary.state == "IN_PROGRESS" and not primary.is_rollback
        return Verdict.SUPERSEDED if later else Verdict.ABSENT
    # Without an id, what became PRIMARY after the rollback says that this one is over.
    if _rollback_event(now, since if target.id else max(since, primary.created - TOGETHER)):
        return Verdict.ROLLED_BACK
    if any(TROUBLE.search(event.message) for event in _naming(now, target.id)):
        return Verdict.ROLLED_BACK if primary.created <= since else Verdict.FAILED
    return Verdict.SUPERSEDED if target.id and primary.created > since else Verdict.ABSENT


def start(target: Target, now: Service, ours: Deployment | None = None) -> float:
    """When the target began, by ECS's clock: what is older does not concern it. 0 where nothing tells."""
    if ours and ours.created:
        return ours.created
    return target.since or min((event.created for event in _naming(now, target.id)), default=0.0)


def _naming(now: Service, deployment_id: str) -> list[Event]:
    """The events that name a deployment; none for an empty id."""
    whole = re.compile(rf"{re.escape(deployment_id)}(?![\w-])")
    return [event for event in now.events if deployment_id and whole.search(event.message)]


def _rollback_event(now: Service, since: float) -> bool:
    """Whether ECS has told of a rollback since then."""
    return any(ROLLBACK.search(event.message) for event in now.events if event.created >= since)


def explain(now: Service, since: float) -> str:
    """Why, in ECS's own words: reasons and events since then, those that tell of trouble before others.

    since: Unix time by ECS's clock; 0 where it is not known: then only what concerns the PRIMARY deployment counts.
    """
    since = since or (now.primary.created if now.primary else 0.0)
    recent = [d for d in now.deployments if d.created >= since]
    reasons = [d.reason for d in now.deployments if d.reason and (d in recent or d.is_rollback)]
    failed = [f"{d.failed} tasks failed" for d in recent if d.failed]
    events = [event.message for event in now.events if event.created >= since]
    telling = [message for message in events if TROUBLE.search(message)] or events
    return " · ".join(dict.fromkeys([*reasons, *failed, *telling[:EXPLANATIONS]]))
