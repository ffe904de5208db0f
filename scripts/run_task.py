"""Runs a service's task once, or a task that has no service, through the ECS manager, and checks its exit code.

The payload is byte for byte that of the old script db_lambda_invoke.
"""

from functools import partial

from msgspec import Struct

from scripts.ecs import manager, preflight, receipts
from scripts.ecs.manager import Invocation
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.release import lease


class TaskRun(Struct, frozen=True):
    """A task that is to run once."""

    service: str
    cluster: str
    invocation: Invocation

    def describe(self) -> list[str]:
        return [f"run the task of {self.service} once in {self.cluster}", *self.invocation.describe()]


class TaskEnded(Report, Struct, frozen=True):
    """A task that ended with exit code 0. task: its ARN. container: whose exit code it is, empty if not known."""

    service: str
    task: str
    exit_code: int
    reason: str
    container: str = ""

    def line(self) -> str:
        return f"{self.service} ended with exit code {self.exit_code}{_of(self.container, self.service)}"

    def outputs(self) -> dict[str, str]:
        return {"task": self.task}


def run_task(
    run: Run,
    *,
    service: str | None = None,
    via: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> TaskEnded | None:
    """Call the ECS manager once to run the task, and wait until it stops."""
    return carry_out(run, service, via=via, function_name=function_name, qualifier=qualifier)


def carry_out(
    run: Run,
    service: str | None,
    *,
    via: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
    task_definition: str = "",
) -> TaskEnded | None:
    """Run the task. task_definition: the revision of a task without a service, empty for the newest of its family."""
    env = run.environment
    if service is None and not env.migrations.service:
        raise Refused(f"No service to run: give --service, or set migrations.service for {env.name}.")
    name = manager.checked_service(env.migrations.service if service is None else service)
    call = manager.planned(env, function_name, qualifier, manager.run_event(env, name, task_definition), via)
    with receipts.kept(run), lease.locked(run):
        preflight.require_account(run)
        return run.act(TaskRun(name, env.cluster, call), partial(start, env), f"run {name}")


def _of(container: str, service: str) -> str:
    """The container that an exit code is from, where its name says more than that of the service."""
    return f" (container {container})" if container not in ("", service) else ""


def start(environment: Environment, plan: TaskRun) -> TaskEnded:
    """Run the task once and wait until it stops.

    Raises DeployError with its exit code and reason if that is not 0, OutcomeUnknown if the response is lost: the task
    may still be running.
    """
    console.say(f"running the task of {plan.service} in {plan.cluster}")
    reply = manager.invoke(environment, plan.invocation)
    response = manager.manager_response(reply, plan.invocation.who)
    status = response.get("taskStatus")
    status = status if isinstance(status, dict) else {}
    code, task = status.get("exitCode"), str(response.get("taskArn", ""))
    reason = status.get("stoppedReason") or status.get("stopCode") or "no reason given"
    container = str(status.get("container") or "")
    if type(code) is not int:
        raise DeployError(f"The task of {plan.service} stopped without an exit code: {reason} ({task}).")
    if code != 0:
        ended = f"ended with exit code {code}{_of(container, plan.service)}"
        raise DeployError(f"The task of {plan.service} {ended}: {reason} ({task}).")
    return TaskEnded(plan.service, task, code, str(reason), container)
