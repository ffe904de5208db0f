"""What ECS shows of a service: its deployments, and what became of the one that matters.

"The service is stable" is also true after a rollback. So a rollout is judged by its deployment's id, or
where that is not known by the image that its task definition runs.
"""

import enum
import re
from dataclasses import dataclass
from typing import Any

from scripts.edges import aws
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment

# How ECS words it, in reasons and in events.
ROLLBACK = re.compile(r"\broll(ed|ing)[ -]?back\b")


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
    """One deployment of a service. status: PRIMARY or ACTIVE (draining). images: of its containers."""

    id: str
    status: str
    task_definition: str
    images: tuple[str, ...]
    state: str
    reason: str
    desired: int
    running: int
    failed: int

    def runs(self, version: str) -> bool:
        """Whether one of its containers has an image with this tag."""
        return any(image.partition("@")[0].rpartition(":")[2] == version for image in self.images)

    @property
    def by_digest(self) -> bool:
        """Whether one of its images is named by digest alone, so that its version cannot be read here."""
        names = [image.partition("@")[0] for image in self.images if "@" in image]
        return any(":" not in name.rpartition("/")[2] for name in names)

    @property
    def is_rollback(self) -> bool:
        """Whether ECS started it to take another deployment back."""
        return bool(ROLLBACK.search(self.reason))


@dataclass(frozen=True)
class Service:
    """A service as ECS describes it. events: its newest messages, newest first."""

    name: str
    deployments: tuple[Deployment, ...]
    events: tuple[str, ...]

    @property
    def primary(self) -> Deployment | None:
        """The deployment that ECS works towards."""
        return next((d for d in self.deployments if d.status == "PRIMARY"), None)


def observe(environment: Environment, service: str) -> Service:
    """Ask ECS for a service. Raises DeployError if there is none."""
    client = aws.client("ecs", environment)
    doing = f"reading the service {service} in {environment.cluster}"
    with aws.errors(doing, environment):
        answer = client.describe_services(cluster=environment.cluster, services=[service])
        found = next((s for s in answer["services"] if s.get("status") != "INACTIVE"), None)
        if found is None:
            raise DeployError(f"There is no service {service} in the cluster {environment.cluster}.")
        deployments = tuple(_deployment(client, item) for item in found.get("deployments", []))
    events = tuple(event["message"] for event in found.get("events", [])[:5])
    return Service(service, deployments, events)


def _deployment(client: Any, item: dict[str, Any]) -> Deployment:
    definition = client.describe_task_definition(taskDefinition=item["taskDefinition"])["taskDefinition"]
    return Deployment(
        id=item["id"],
        status=item["status"],
        task_definition=definition["taskDefinitionArn"],
        images=tuple(container["image"] for container in definition["containerDefinitions"]),
        state=item.get("rolloutState", ""),
        reason=item.get("rolloutStateReason", ""),
        desired=item.get("desiredCount", 0),
        running=item.get("runningCount", 0),
        failed=item.get("failedTasks", 0),
    )


def verdict(now: Service, version: str, mine: str | None = None, seen: bool = False) -> Verdict:
    """What became of the rollout of a version.

    mine: the id of the deployment that the caller started, where it is known; then only that one counts.
    seen: whether a deployment of this version was there at an earlier look.
    """
    primary = now.primary
    ours = [d for d in now.deployments if (d.id == mine if mine else d.runs(version) or d.by_digest)]
    if primary is None or primary not in ours:
        if not (ours or mine or seen):
            return Verdict.ABSENT
        lost = any(d.state == "FAILED" for d in ours) or _taken_back(now)
        return Verdict.ROLLED_BACK if lost else Verdict.SUPERSEDED
    if primary.is_rollback:
        return Verdict.ROLLED_BACK
    if primary.state == "FAILED":
        return Verdict.FAILED
    complete = primary.state in ("COMPLETED", "") and primary.running == primary.desired
    return Verdict.SUCCEEDED if complete and len(now.deployments) == 1 else Verdict.RUNNING


def _taken_back(now: Service) -> bool:
    """ECS says so in the reason of the primary deployment or in an event."""
    texts = (now.primary.reason if now.primary else "", *now.events)
    return any(ROLLBACK.search(text) for text in texts)


def explain(service: Service) -> str:
    """Why, in ECS's own words: the reasons of the deployments and the newest events."""
    reasons = [d.reason for d in service.deployments if d.reason]
    return " · ".join(dict.fromkeys((*reasons, *service.events)))
