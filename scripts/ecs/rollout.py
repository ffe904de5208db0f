"""Reads a service in ECS, and judges how one of its deployments ended.

"The service is stable" is also true after a rollback. So one deployment is followed: by its id if that is known, else
the first one that was seen to run the version. Ids, states and times count more than the text of messages; an event
counts only if it is newer than the deployment.
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

# ECS's wording in reasons and in events: "rolling back to deployment …", "rolled back", "rollback".
ROLLBACK = re.compile(r"\broll(ed|ing)?[ -]?back\b", re.IGNORECASE)
TROUBLE = re.compile(r"\bfail|\bunable\b|\bunhealthy\b|\berror|roll(ed|ing)?[ -]?back", re.IGNORECASE)
DEPLOYMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]{0,127}")

# Without a circuit breaker ECS restarts failing tasks forever. ECS's own breaker gives up after 3 to 200 failures, at
# half the desired count; this limit is twice the desired count, and at least 10, to be certain.
FEWEST_FAILURES, FAILURES_PER_TASK = 10, 2
EXPLANATIONS = 5
# Seconds between the event of a rollback and the deployment that it starts, at most.
TOGETHER = 5.0


class Verdict(enum.Enum):
    """How a rollout ended, or that it has not."""

    RUNNING = "is rolling out"
    SUCCEEDED = "is complete"
    FAILED = "failed"
    ROLLED_BACK = "was rolled back"
    SUPERSEDED = "was superseded by another deployment"
    ABSENT = "has not started"


@dataclass(frozen=True)
class Deployment:
    """One deployment of a service. status: PRIMARY or ACTIVE (draining). images: of its containers.

    state: ECS's rolloutState, empty if there is none. created: Unix time in seconds, by ECS's clock.
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
        """Whether ECS started this deployment to roll another one back."""
        return bool(ROLLBACK.search(self.reason))


@dataclass(frozen=True)
class Event:
    """One event of a service. created: Unix time in seconds, by ECS's clock."""

    message: str
    created: float


@dataclass(frozen=True)
class Service:
    """A service as ECS describes it. events: newest first. breaker: whether the circuit breaker is enabled."""

    name: str
    deployments: tuple[Deployment, ...]
    events: tuple[Event, ...]
    breaker: bool

    @property
    def primary(self) -> Deployment | None:
        """The PRIMARY deployment, which ECS is rolling out or has rolled out."""
        return next((d for d in self.deployments if d.status == "PRIMARY"), None)


@dataclass(frozen=True)
class Target:
    """The deployment to judge. id: empty if not known; then it is recognized by tag or digest of the service's image.

    repository: of the service's image; containers with other images are sidecars and are ignored.
    since: Unix time by ECS's clock; earlier events do not concern this deployment; 0 if not known.
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
    """Read a service from ECS. Raises DeployError if it does not exist."""
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
    """The target among the deployments that ECS lists, else as it was last seen; None if it was never seen.

    seen: the result of the previous call.
    """
    followed = target.id or (seen.id if seen and _rollback_event(now, seen.created) else "")
    if followed:
        # After a rollback event, a newer deployment of the same version does not replace the one that was seen.
        return next((d for d in now.deployments if d.id == followed), seen)
    ours = [d for d in now.deployments if target.is_run_by(d)]
    newest = max(ours, key=lambda d: d.created, default=None)
    if newest and newest.is_rollback:
        # The deployment that it rolled back may have run the same version.
        newest = max((d for d in ours if d.state == "FAILED"), key=lambda d: d.created, default=newest)
    return seen if seen and (newest is None or newest.created < seen.created) else newest


def verdict(target: Target, now: Service, seen: Deployment | None = None) -> Verdict:
    """How the target ended. seen: the result of the previous `find`, if any."""
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
    """The verdict on the PRIMARY deployment. COMPLETED counts, although old tasks may still drain."""
    if primary.state == "FAILED":
        return Verdict.FAILED
    if primary.state == "COMPLETED":
        return Verdict.SUCCEEDED
    if primary.state == "" and primary.running == primary.desired and len(now.deployments) == 1:
        return Verdict.SUCCEEDED
    hopeless = max(FEWEST_FAILURES, FAILURES_PER_TASK * primary.desired)
    return Verdict.FAILED if not now.breaker and primary.failed >= hopeless else Verdict.RUNNING


def _of_unseen(target: Target, now: Service) -> Verdict:
    """The verdict on a target that ECS does not list and that was never seen, from ids and times."""
    primary, since = now.primary, start(target, now)
    if primary is None:
        return Verdict.ABSENT
    if not since:
        # Whoever gave the id has seen that deployment in ECS: the one that rolls out now is newer.
        later = bool(target.id) and primary.state == "IN_PROGRESS" and not primary.is_rollback
        return Verdict.SUPERSEDED if later else Verdict.ABSENT
    # Without an id, a deployment that became PRIMARY after the rollback shows that the rollback is over.
    if _rollback_event(now, since if target.id else max(since, primary.created - TOGETHER)):
        return Verdict.ROLLED_BACK
    if any(TROUBLE.search(event.message) for event in _naming(now, target.id)):
        return Verdict.ROLLED_BACK if primary.created <= since else Verdict.FAILED
    return Verdict.SUPERSEDED if target.id and primary.created > since else Verdict.ABSENT


def start(target: Target, now: Service, ours: Deployment | None = None) -> float:
    """When the target started, as Unix time by ECS's clock; 0 if not known. Older events do not concern it."""
    if ours and ours.created:
        return ours.created
    return target.since or min((event.created for event in _naming(now, target.id)), default=0.0)


def _naming(now: Service, deployment_id: str) -> list[Event]:
    """The events that mention a deployment; none for an empty id."""
    whole = re.compile(rf"{re.escape(deployment_id)}(?![\w-])")
    return [event for event in now.events if deployment_id and whole.search(event.message)]


def _rollback_event(now: Service, since: float) -> bool:
    """Whether there is a rollback event since a time."""
    return any(ROLLBACK.search(event.message) for event in now.events if event.created >= since)


def explain(now: Service, since: float) -> str:
    """The reason in ECS's own words: reasons and events since a time, only those about failures if there are any.

    since: Unix time by ECS's clock; 0 if not known: then since the PRIMARY deployment was created.
    """
    since = since or (now.primary.created if now.primary else 0.0)
    recent = [d for d in now.deployments if d.created >= since]
    reasons = [d.reason for d in now.deployments if d.reason and (d in recent or d.is_rollback)]
    failed = [f"{d.failed} tasks failed" for d in recent if d.failed]
    events = [event.message for event in now.events if event.created >= since]
    telling = [message for message in events if TROUBLE.search(message)] or events
    return " · ".join(dict.fromkeys([*reasons, *failed, *telling[:EXPLANATIONS]]))
