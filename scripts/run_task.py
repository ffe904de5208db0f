"""Runs a service's task definition once, through the ECS manager, and judges how it ended.

Was scripts/db_lambda_invoke.
"""

from dataclasses import dataclass

from scripts import console, invocation
from scripts.environments import Environment
from scripts.errors import DeployError, Refused
from scripts.invocation import Invocation


@dataclass(frozen=True)
class TaskRun:
    """A one-off task that is to run."""

    service: str
    cluster: str
    invocation: Invocation

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        return [f"run the task of {self.service} once in {self.cluster}", *self.invocation.describe()]


@dataclass(frozen=True)
class TaskEnded:
    """A one-off task that ended well."""

    service: str
    task: str
    exit_code: int
    reason: str

    def summary(self) -> str:
        """The last line."""
        return f"{self.service} ended with exit code {self.exit_code}"

    def outputs(self) -> dict[str, str]:
        """What later steps of a workflow may want to know."""
        return {"task": self.task}


def plan(
    environment: Environment,
    *,
    service: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> TaskRun:
    """Decide what to send to the ECS manager. Raises Refused for bad input, before any request."""
    service = environment.migration_service if service is None else service
    if not service:
        raise Refused(f"The service is empty: give it, or set it in the settings of {environment.name}.")
    body = {"cluster_id": environment.cluster, "service_id": service}
    call = invocation.planned(environment, function_name, qualifier, {"command": "runtask", "body": body})
    return TaskRun(service, environment.cluster, call)


def run(environment: Environment, plan: TaskRun) -> TaskEnded:
    """Run the task once and wait for its end.

    Raises DeployError with its exit code and reason if that is not 0, OutcomeUnknown if the answer is
    lost: then the task may still be running.
    """
    console.say(f"running the task of {plan.service} in {plan.cluster}")
    reply = invocation.invoke(environment, plan.invocation)
    response = invocation.manager_response(reply, plan.invocation.function)
    status = response.get("taskStatus")
    status = status if isinstance(status, dict) else {}
    code, task = status.get("exitCode"), str(response.get("taskArn", ""))
    reason = status.get("stoppedReason") or status.get("stopCode") or "no reason given"
    if type(code) is not int:
        raise DeployError(f"The task of {plan.service} never ran to an end: {reason} ({task}).")
    if code != 0:
        raise DeployError(f"The task of {plan.service} ended with exit code {code}: {reason} ({task}).")
    return TaskEnded(plan.service, task, code, str(reason))
