"""Runs a service's task definition once, through the ECS manager, and judges how it ended.

Was scripts/db_lambda_invoke.
"""

from dataclasses import dataclass
from functools import partial

from scripts.ecs import manager
from scripts.ecs.manager import Invocation
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment


@dataclass(frozen=True)
class TaskRun:
    """A one-off task that is to run."""

    service: str
    cluster: str
    invocation: Invocation

    def describe(self) -> list[str]:
        return [f"run the task of {self.service} once in {self.cluster}", *self.invocation.describe()]


@dataclass(frozen=True)
class TaskEnded(Report):
    """A one-off task that ended well."""

    service: str
    task: str
    exit_code: int
    reason: str

    def line(self) -> str:
        return f"{self.service} ended with exit code {self.exit_code}"

    def outputs(self) -> dict[str, str]:
        return {"task": self.task}


def run_task(
    run: Run, *, service: str | None = None, function_name: str | None = None, qualifier: str | None = None
) -> TaskEnded | None:
    """Run a service's task once."""
    decided = plan(run.environment, service=service, function_name=function_name, qualifier=qualifier)
    return run.act(decided, partial(start, run.environment), f"run {decided.service}")


def plan(
    environment: Environment,
    *,
    service: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> TaskRun:
    """Decide what to send to the ECS manager. Raises Refused for bad input, before any request."""
    service = environment.migrations.service if service is None else service
    if not service:
        raise Refused(f"The service is empty: give it, or set it in the settings of {environment.name}.")
    body = {"cluster_id": environment.cluster, "service_id": service}
    call = manager.planned(environment, function_name, qualifier, {"command": "runtask", "body": body})
    return TaskRun(service, environment.cluster, call)


def start(environment: Environment, plan: TaskRun) -> TaskEnded:
    """Run the task once and wait for its end.

    Raises DeployError with its exit code and reason if that is not 0, OutcomeUnknown if the answer is
    lost: then the task may still be running.
    """
    console.say(f"running the task of {plan.service} in {plan.cluster}")
    reply = manager.invoke(environment, plan.invocation)
    response = manager.manager_response(reply, plan.invocation.function)
    status = response.get("taskStatus")
    status = status if isinstance(status, dict) else {}
    code, task = status.get("exitCode"), str(response.get("taskArn", ""))
    reason = status.get("stoppedReason") or status.get("stopCode") or "no reason given"
    if type(code) is not int:
        raise DeployError(f"The task of {plan.service} never ran to an end: {reason} ({task}).")
    if code != 0:
        raise DeployError(f"The task of {plan.service} ended with exit code {code}: {reason} ({task}).")
    return TaskEnded(plan.service, task, code, str(reason))
