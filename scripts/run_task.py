"""Runs a service's task once, through the ECS manager, and checks its exit code.

The payload is byte for byte that of the old script db_lambda_invoke.
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
    """A task that is to run once."""

    service: str
    cluster: str
    invocation: Invocation

    def describe(self) -> list[str]:
        return [f"run the task of {self.service} once in {self.cluster}", *self.invocation.describe()]


@dataclass(frozen=True)
class TaskEnded(Report):
    """A task that ended with exit code 0. task: its ARN."""

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
    """Call the ECS manager once to run the service's task, and wait until it stops."""
    env = run.environment
    if service is None and not env.migrations.service:
        raise Refused(f"No service to run: give --service, or set migrations.service for {env.name}.")
    name = manager.checked_service(env.migrations.service if service is None else service)
    body = {"cluster_id": env.cluster, "service_id": name}
    call = manager.planned(env, function_name, qualifier, {"command": "runtask", "body": body})
    return run.act(TaskRun(name, env.cluster, call), partial(start, env), f"run {name}")


def start(environment: Environment, plan: TaskRun) -> TaskEnded:
    """Run the task once and wait until it stops.

    Raises DeployError with its exit code and reason if that is not 0, OutcomeUnknown if the response is lost: the task
    may still be running.
    """
    console.say(f"running the task of {plan.service} in {plan.cluster}")
    reply = manager.invoke(environment, plan.invocation)
    response = manager.manager_response(reply, plan.invocation.function)
    status = response.get("taskStatus")
    status = status if isinstance(status, dict) else {}
    code, task = status.get("exitCode"), str(response.get("taskArn", ""))
    reason = status.get("stoppedReason") or status.get("stopCode") or "no reason given"
    if type(code) is not int:
        raise DeployError(f"The task of {plan.service} stopped without an exit code: {reason} ({task}).")
    if code != 0:
        raise DeployError(f"The task of {plan.service} ended with exit code {code}: {reason} ({task}).")
    return TaskEnded(plan.service, task, code, str(reason))
