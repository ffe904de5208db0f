"""Services and their changes as ECS shows them: the fields of its service model, as far as they are known here."""

from typing import Any

from local_aws.cloud import ACCOUNT
from local_aws.deployments import ENDED, PENDING, Change, Deployment, Service, threshold

HIDDEN = {"cluster", "clientToken", "serviceName", "taskDefinition", "tags"}
PLACED = ("launchType", "platformVersion", "networkConfiguration", "capacityProviderStrategy")


def service(found: Service, now: float) -> dict[str, Any]:
    """A service as DescribeServices shows it."""
    by_ecs = found.controller == "ECS"
    primary = found.deployments[0] if found.deployments else None
    told = {
        **{key: value for key, value in found.settings.items() if key not in HIDDEN},
        "serviceArn": found.arn,
        "serviceName": found.name,
        "clusterArn": _cluster(found),
        "status": found.status(now),
        "desiredCount": found.desired,
        "runningCount": sum(d.running for d in found.deployments),
        "pendingCount": sum(d.pending for d in found.deployments),
        "deploymentConfiguration": found.configuration,
        "deployments": [_deployment(found, d, now) for d in found.deployments if by_ecs],
        "events": found.events[:100],
        "createdAt": found.created,
    }
    if primary and found.controller != "EXTERNAL":
        told["taskDefinition"] = primary.definition["taskDefinitionArn"]
    if not by_ecs:
        told["taskSets"] = [_task_set(found, d, now) for d in found.deployments]
    elif found.changes:
        told["currentServiceDeployment"] = found.changes[-1].arn
        running = [d for d in found.deployments if d.state != "FAILED"]
        told["currentServiceRevisions"] = [_counts(found, d) for d in running]
    return told


def _deployment(found: Service, d: Deployment, now: float) -> dict[str, Any]:
    return {
        "id": d.id,
        "status": d.status,
        "taskDefinition": d.definition["taskDefinitionArn"],
        "desiredCount": found.desired if d.status == "PRIMARY" else 0,
        "pendingCount": d.pending,
        "runningCount": d.running,
        "failedTasks": d.failed,
        "createdAt": d.created,
        "updatedAt": now,
        "rolloutState": d.state,
        "rolloutStateReason": d.reason or f"ECS deployment {d.id} in progress.",
        **_placement(found),
    }


def _task_set(found: Service, d: Deployment, now: float) -> dict[str, Any]:
    """What CodeDeploy, or somebody else, made of a deployment."""
    name, by_code_deploy = d.id, found.controller == "CODE_DEPLOY"
    started = {"startedBy": "CODE_DEPLOY", "externalId": "d-EXAMPLE01"} if by_code_deploy else {}
    return {
        "id": name,
        "taskSetArn": f"{found.arn.replace(':service/', ':task-set/')}/{name}",
        "serviceArn": found.arn,
        "clusterArn": _cluster(found),
        **started,
        "status": d.status,
        "taskDefinition": d.definition["taskDefinitionArn"],
        "computedDesiredCount": found.desired,
        "pendingCount": d.pending,
        "runningCount": d.running,
        "createdAt": d.created,
        "updatedAt": now,
        "scale": {"value": 100.0, "unit": "PERCENT"},
        "stabilityStatus": "STEADY_STATE",
        "stabilityStatusAt": now,
        **_placement(found),
    }


def _placement(found: Service) -> dict[str, Any]:
    return {key: found.settings[key] for key in PLACED if key in found.settings}


def _cluster(found: Service) -> str:
    return f"arn:aws:ecs:{found.region}:{ACCOUNT}:cluster/{found.cluster}"


def _counts(found: Service, d: Deployment) -> dict[str, Any]:
    requested = found.desired if d.status == "PRIMARY" else d.running
    return {
        "arn": d.revision,
        "requestedTaskCount": requested,
        "runningTaskCount": d.running,
        "pendingTaskCount": d.pending,
    }


# Service deployments and revisions


def status(change: Change, now: float) -> str:
    """The status of a service deployment: for a moment nothing has begun."""
    waits = change.status == "IN_PROGRESS" and now < change.created + PENDING
    return "PENDING" if waits else change.status


def brief(found: Service, change: Change, now: float) -> dict[str, Any]:
    """A service deployment as ListServiceDeployments shows it."""
    told = {
        "serviceDeploymentArn": change.arn,
        "serviceArn": found.arn,
        "clusterArn": _cluster(found),
        "createdAt": change.created,
        "targetServiceRevisionArn": change.target.revision,
        "status": status(change, now),
    }
    if told["status"] != "PENDING":
        told["startedAt"] = change.created + PENDING
    if change.finished:
        told["finishedAt"] = change.finished
    if change.reason:
        told["statusReason"] = change.reason
    return told


def change(found: Service, made: Change, now: float) -> dict[str, Any]:
    """A service deployment as DescribeServiceDeployments shows it."""
    told = brief(found, made, now)
    del told["targetServiceRevisionArn"]
    told |= {
        "updatedAt": now,
        "sourceServiceRevisions": [_counts(found, d) for d in made.sources],
        "targetServiceRevision": _counts(found, made.target),
        "deploymentConfiguration": made.configuration,
        "deploymentCircuitBreaker": _breaker(found, made),
        "alarms": {"status": "DISABLED", "alarmNames": [], "triggeredAlarmNames": []},
    }
    stage = made.stage
    if stage:
        told["lifecycleStage"] = stage.name.removeprefix("PRE_") if "PRE_PROD" in stage.name else stage.name
        if stage.weight is not None:
            told["targetServiceRevision"]["requestedProductionTrafficWeight"] = stage.weight
            for source in told["sourceServiceRevisions"]:
                source["requestedProductionTrafficWeight"] = 100 - stage.weight
    if made.hooks:
        told["lifecycleHookDetails"] = [_hook(hook) for hook in made.hooks]
    if made.status == "STOPPED":
        told["stoppedAt"] = made.finished
    if made.back:
        told["rollback"] = {
            "reason": made.reason,
            "startedAt": made.back.created,
            "serviceRevisionArn": made.back.revision,
        }
    return told


def _hook(hook: Any) -> dict[str, Any]:
    told = {
        "hookId": hook.id,
        "targetType": hook.given.get("targetType", "AWS_LAMBDA"),
        "status": hook.status,
        "expiresAt": hook.expires,
        "timeoutAction": hook.action,
    }
    if "hookTargetArn" in hook.given:
        told["targetArn"] = hook.given["hookTargetArn"]
    return told


def _breaker(found: Service, made: Change) -> dict[str, Any]:
    enabled = made.configuration.get("deploymentCircuitBreaker", {}).get("enable")
    most, failed = threshold(made.configuration, found.desired), made.target.failed
    if not enabled:
        state = "DISABLED"
    elif failed >= most:
        state = "TRIGGERED"
    else:
        state = "MONITORING_COMPLETE" if made.status in ENDED else "MONITORING"
    return {"status": state, "failureCount": failed if enabled else 0, "threshold": most if enabled else 0}


def revision(found: Service, d: Deployment, digests: dict[str, str]) -> dict[str, Any]:
    """A service revision as DescribeServiceRevisions shows it. digests: of the images that are known."""
    images = []
    for container in d.definition["containerDefinitions"]:
        image = {"containerName": container["name"], "image": container["image"]}
        if container["image"] in digests:
            image["imageDigest"] = digests[container["image"]]
        images.append(image)
    return {
        "serviceRevisionArn": d.revision,
        "serviceArn": found.arn,
        "clusterArn": _cluster(found),
        "taskDefinition": d.definition["taskDefinitionArn"],
        "containerImages": images,
        "guardDutyEnabled": False,
        "createdAt": d.created,
        **_placement(found),
    }
