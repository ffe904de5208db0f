"""Deploys a service: the ECS manager registers its task definition anew and rolls it out.

Was scripts/deploy_service. The payload is the contract of the old script, to the byte.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from scripts.ecs import manager, rollout
from scripts.ecs.manager import Invocation
from scripts.frame import console, version
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment

# registry/repository:tag or registry/repository@sha256:digest
IMAGE_URI = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?(/[a-z0-9]+([._/-]+[a-z0-9]+)*)+"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True)
class ServiceDeployment:
    """What is to be deployed. image: its URI, empty for a restart with the image that runs."""

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
    """What the ECS manager did. deployment_id: of the rollout in ECS, empty where it cannot be read."""

    service: str
    cluster: str
    image: str
    task_definition: str
    before: str
    deployment_id: str

    def line(self) -> str:
        before = f" (was {self.before.rpartition('/')[2]})" if self.before else ""
        return f"{self.cluster}: {self.service} rolls out {self.task_definition.rpartition('/')[2]}{before}"

    def outputs(self) -> dict[str, str]:
        digest = self.image.partition("@")[2]
        return {"task-definition": self.task_definition, "deployment-id": self.deployment_id, "digest": digest}


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
    """Deploy a service once."""
    decided = plan(
        run.environment,
        service=service,
        image=image,
        tag=tag,
        digest=digest,
        image_uri=image_uri,
        no_image=no_image,
        function_name=function_name,
        qualifier=qualifier,
    )
    return run.act(decided, partial(deploy, run.environment), f"deploy {decided.service}")


def plan(
    environment: Environment,
    *,
    service: str | None = None,
    image: str | None = None,
    tag: str | None = None,
    digest: str | None = None,
    image_uri: str | None = None,
    no_image: bool = False,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> ServiceDeployment:
    """Decide what to send to the ECS manager. Raises Refused for bad input, before any request."""
    account = environment.account.require()
    service = environment.service.name if service is None else service
    if not NAME.fullmatch(service):
        raise Refused(f"{service!r} is not a service.")
    if no_image and any(flag is not None for flag in (image, tag, digest, image_uri)):
        raise Refused("--no-image restarts what runs: leave out --image, --tag, --digest and --image-uri.")
    uri = "" if no_image else _uri(environment, service, image, tag, digest, image_uri)
    if uri and "<" not in uri and not IMAGE_URI.fullmatch(uri):
        raise Refused(
            f"{uri!r} is not an image's URI: it looks like {account}.dkr.ecr.…/{environment.service.image}:tag."
        )
    body: dict[str, Any] = {"cluster_id": environment.cluster, "service_ids": [service]}
    if service == environment.service.name:
        body["secrets"] = [environment.service.secrets.require()]
    if uri:
        body["image"] = uri
    call = manager.planned(environment, function_name, qualifier, {"command": "deploy", "body": body})
    return ServiceDeployment(service, environment.cluster, uri, call)


def _uri(
    environment: Environment,
    service: str,
    image: str | None,
    tag: str | None,
    digest: str | None,
    image_uri: str | None,
) -> str:
    """The image's URI: given whole, else put together from registry, repository and tag."""
    if image_uri is not None:
        if not image_uri:
            raise Refused("--image-uri is empty: give a URI, or --no-image to restart what runs.")
        return image_uri
    own = {
        environment.service.name: environment.service.image,
        environment.migrations.service: environment.migrations.image,
    }
    if image is None and service not in own:
        raise Refused(f"No image is set for {service}: give --image, --image-uri or --no-image.")
    repository = version.repository(own[service] if image is None else image)
    reference = f"@{digest}" if digest is not None else f":{version.wanted(tag)}"
    return f"{environment.registry.require()}/{repository}{reference}"


def deploy(environment: Environment, plan: ServiceDeployment) -> Deployed:
    """Have the ECS manager deploy, once, and read in ECS what it started.

    Raises OutcomeUnknown, with what ECS shows, when the answer is lost; DeployError when it failed.
    """
    before = _look(environment, plan.service)
    call = plan.invocation
    console.say(f"invoking {call.function} at {call.qualifier}: {plan.describe()[0]}")
    try:
        reply = manager.invoke(environment, call)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error} {_what_ecs_shows(environment, plan, before)}") from error
    response = manager.manager_response(reply, call.function)
    return Deployed(
        service=plan.service,
        cluster=plan.cluster,
        image=plan.image,
        task_definition=str(response.get("NewTaskdefArn", "")),
        before=before.primary.task_definition if before and before.primary else "",
        deployment_id=_started(environment, plan, before),
    )


def _look(environment: Environment, service: str) -> rollout.Service | None:
    """The service in ECS, or None where this role may not ask: the manager is who deploys."""
    try:
        return rollout.observe(environment, service)
    except DeployError as error:
        console.say(f"ECS is not watched: {error}")
        return None


def _started(environment: Environment, plan: ServiceDeployment, before: rollout.Service | None) -> str:
    """The id of the deployment that was not there before, empty where none can be seen."""
    now = _look(environment, plan.service) if before else None
    if not (before and now and now.primary):
        return ""
    return now.primary.id if now.primary.id not in {d.id for d in before.deployments} else ""


def _what_ecs_shows(environment: Environment, plan: ServiceDeployment, before: rollout.Service | None) -> str:
    """A sentence on whether the lost call has started a deployment."""
    again = "Do not run it again before that is clear."
    now = _look(environment, plan.service) if before else None
    if not (before and now and now.primary):
        return f"Look into ECS whether {plan.service} rolls out in {plan.cluster}. {again}"
    if now.primary.id in {d.id for d in before.deployments}:
        return f"ECS shows no new deployment of {plan.service} yet. {again}"
    return (
        f"ECS shows that a new deployment of {plan.service} has started ({now.primary.task_definition}):"
        " follow it with `invoke healthcheck`."
    )
