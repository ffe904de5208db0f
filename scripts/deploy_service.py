"""Deploys a service: the ECS manager registers its task definition with the new image and starts the rollout.

The payload is byte for byte that of the old script of this name.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from scripts.ecs import images, manager, rollout
from scripts.ecs.images import Image
from scripts.ecs.manager import Invocation
from scripts.frame import console
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


@dataclass(frozen=True)
class ServiceDeployment:
    """What is to be deployed. image: its URI, empty for a restart with the current image."""

    service: str
    cluster: str
    image: str
    invocation: Invocation

    def describe(self) -> list[str]:
        what = f"{self.service} in {self.cluster}"
        first = f"deploy {self.image} to {what}" if self.image else f"restart {what}"
        return [first, *self.invocation.describe()]


@dataclass(frozen=True)
class Deployed(Report):
    """What the ECS manager did.

    image: its URI, empty for a restart. digest: of that image, empty if not known. task_definition, before: ARNs of the
    new and the previous revision. deployment_id: of the rollout in ECS, empty if not known. since: when the rollout
    started, Unix time by ECS's clock, or 0.
    """

    service: str
    cluster: str
    image: str
    digest: str
    task_definition: str
    before: str
    deployment_id: str
    since: float

    def line(self) -> str:
        before = f" (was {self.before.rpartition('/')[2]})" if self.before else ""
        return f"{self.cluster}: {self.service} rolls out {self.task_definition.rpartition('/')[2]}{before}"

    def outputs(self) -> dict[str, str]:
        return {"task-definition": self.task_definition, "deployment-id": self.deployment_id, "digest": self.digest}


def deploy_service(
    run: Run,
    *,
    service: str | None = None,
    image: str | None = None,
    tag: str | None = None,
    digest: str | None = None,
    image_uri: str | None = None,
    no_image: bool = False,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> Deployed | None:
    """Call the ECS manager once to deploy the service."""
    env = run.environment
    name = manager.checked_service(env.service.name if service is None else service)
    parts = {"--image": image, "--tag": tag, "--digest": digest}
    given = [flag for flag, value in parts.items() if value is not None]
    if no_image and (given or image_uri is not None):
        raise Refused("--no-image keeps the current image: leave out --image, --tag, --digest and --image-uri.")
    if no_image:
        chosen = None
    elif image_uri is not None:
        chosen = images.checked(image_uri)
        # The repository may be given too, as for the old script, if it is the same.
        extra = [flag for flag in given if (flag, parts[flag]) != ("--image", chosen.repository)]
        if extra:
            raise Refused(f"--image-uri is the full name of the image: leave out {' and '.join(extra)}.")
    else:
        chosen = images.named(env, _repository(env, name) if image is None else image, tag, digest)
    env.account.require()
    call = manager.planned(env, function_name, qualifier, {"command": "deploy", "body": _body(env, name, chosen)})
    decided = ServiceDeployment(name, env.cluster, str(chosen or ""), call)
    return run.act(decided, partial(deploy, env), f"deploy {name}")


def _repository(environment: Environment, service: str) -> str:
    """The repository of a service's own image. Raises Refused if it is not in the settings."""
    own = {
        environment.service.name: environment.service.image,
        environment.migrations.service: environment.migrations.image,
    }
    if service not in own:
        raise Refused(f"No image is set for {service} in the settings: give --image, --image-uri or --no-image.")
    return own[service]


def _body(environment: Environment, service: str, image: Image | None) -> dict[str, Any]:
    """The body of the manager's event. Only the application's own service gets secrets."""
    body: dict[str, Any] = {"cluster_id": environment.cluster, "service_ids": [service]}
    if service == environment.service.name:
        body["secrets"] = [environment.service.secrets.require()]
    if image:
        body["image"] = str(image)
    return body


def deploy(environment: Environment, plan: ServiceDeployment) -> Deployed:
    """Call the ECS manager once, and read from ECS what it started.

    Raises OutcomeUnknown, with what ECS shows, when the response is lost; DeployError when the manager failed.
    """
    before = _look(environment, plan.service)
    call = plan.invocation
    console.say(f"invoking {call.function} at {call.qualifier}: {plan.describe()[0]}")
    try:
        response = manager.manager_response(manager.invoke(environment, call), call.function)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error} {_what_ecs_shows(environment, plan, before)}") from error
    registered = str(response.get("NewTaskdefArn", ""))
    started = _started(environment, plan.service, before, registered)
    return Deployed(
        service=plan.service,
        cluster=plan.cluster,
        image=plan.image,
        digest=images.digest_of(environment, plan.image),
        task_definition=registered,
        before=before.primary.task_definition if before and before.primary else "",
        deployment_id=manager.deployment_id(response, plan.service) or (started.id if started else ""),
        since=started.created if started else 0.0,
    )


def _look(environment: Environment, service: str) -> rollout.Service | None:
    """The service in ECS, or None if it cannot be read: the deployment goes on without it."""
    try:
        return rollout.observe(environment, service)
    except DeployError as error:
        console.say(f"the rollout in ECS is not watched: {error}")
        return None


def _started(
    environment: Environment, service: str, before: rollout.Service | None, task_definition: str = ""
) -> rollout.Deployment | None:
    """The newest deployment that did not exist before; None if ECS cannot be read or shows no new one.

    task_definition: the ARN that it must have, because somebody else may deploy too; empty if not known.
    """
    now = _look(environment, service) if before else None
    if before is None or now is None:
        return None
    known = {d.id for d in before.deployments}
    new = [d for d in now.deployments if d.id not in known and task_definition in ("", d.task_definition)]
    return max(new, key=lambda d: d.created, default=None)


def _what_ecs_shows(environment: Environment, plan: ServiceDeployment, before: rollout.Service | None) -> str:
    """A sentence that says whether the call whose response was lost has started a deployment."""
    again = "Do not run this again before that is clear."
    started = _started(environment, plan.service, before)
    if started:
        return (
            f"ECS shows that a new deployment of {plan.service} has started ({started.task_definition}):"
            f" follow it with `invoke healthcheck --deployment-id={started.id}`."
        )
    if before:
        return f"ECS shows no new deployment of {plan.service} yet. {again}"
    return f"Check in ECS whether {plan.service} is rolling out in {plan.cluster}. {again}"
