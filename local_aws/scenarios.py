"""What can go wrong in the embedded AWS, by name: `invoke local.up --scenario=NAME`.

`invoke local.rehearse` goes through them, and docs/runbook.md shows what it printed.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local_aws.cloud import KEYS

# The version that runs before the first deployment, and one that a rehearsal deploys.
FIRST_VERSION, NEXT_VERSION = "v0", "v0.1"
# Of times that a rule of control.py applies.
ALWAYS = 1_000_000
CALLER = {"key": KEYS["aws_access_key_id"]}
NOT_ALLOWED = "User: arn:aws:sts::123456789012:assumed-role/deploy/you is not authorized to perform: ecs:{operation}"
MANAGER = {"service": "lambda", "operation": "Invoke", "path": "ecs-manager", "times": ALWAYS}
LOG = b"START RequestId: 0f1e2d3c\n[ERROR] ImportModuleError: No module named 'ecs_manager'\nEND RequestId: 0f1e2d3c\n"
NO_BREAKER = {"deploymentCircuitBreaker": {"enable": False, "rollback": False}}


@dataclass(frozen=True)
class Scenario:
    """What goes wrong from now on. says: in a sentence without its full stop.

    mend: what it means for a deployment, and what a person does then. code: with which the deployment ends. flags: that
    it is given besides.

    configuration: put over the deploymentConfiguration of the services. fault: what tasks of new deployments stop for,
    a key of tasks.FAULTS. slower: how many times as long a rollout takes. colleague: seconds after which somebody else
    deploys the service too. failures: rules of control.py.
    """

    says: str
    mend: str
    code: int = 0
    flags: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    slower: float = 1.0
    colleague: float = 0.0
    failures: tuple[Mapping[str, Any], ...] = ()

    def deployment(self, env: str) -> tuple[str, ...]:
        """The command that is rehearsed, in words after `invoke`."""
        return ("deploy-service", f"--env={env}", f"--tag={NEXT_VERSION}", *self.flags)

    def outcome(self) -> str:
        """How the deployment ends, and what to do then."""
        return f"Exit code {self.code}. {self.mend}"


SCENARIOS = {
    "healthy": Scenario(
        "nothing goes wrong",
        "There is nothing to mend. This scenario ends each of the others.",
    ),
    "slow": Scenario(
        "a rollout takes more than a minute",
        "Nothing is wrong yet, and nothing has to be deployed again: the command that the message ends with goes on"
        " watching.",
        code=3,
        flags=("--timeout=8",),
        slower=60,
    ),
    "crash-loop": Scenario(
        "new tasks exit with 1 as soon as they start, and no circuit breaker ends that",
        "The second death ends the command; the container's last lines say why. The old tasks still run, and ECS would"
        " start new ones for ever: the command that the message names has ECS roll back.",
        code=1,
        configuration=NO_BREAKER,
        fault="crash",
    ),
    "image-missing": Scenario(
        "the image of new tasks is no longer in the registry",
        "ECS could not pull the image, and has rolled back: the previous version runs. Build the image again, and"
        " deploy it.",
        code=4,
        fault="pull",
    ),
    "rolled-back": Scenario(
        "new tasks fail their health check, and ECS rolls back",
        "The previous version runs. Fix the cause, and deploy the next version.",
        code=4,
        fault="unhealthy",
    ),
    "superseded": Scenario(
        "a colleague deploys the service a moment later",
        "Theirs goes on, ours does not: agree on what is to run.",
        code=1,
        colleague=0.4,
    ),
    "paused": Scenario(
        "a rollout is blue/green, and pauses before its traffic shifts, until somebody continues it",
        "Whoever has to decide continues it in the console of ECS, or with `aws ecs continue-service-deployment`. Then"
        " the command that the message ends with goes on watching.",
        code=3,
        flags=("--timeout=8",),
        configuration={
            "strategy": "BLUE_GREEN",
            "bakeTimeInMinutes": 0,
            "lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}],
        },
    ),
    "unreachable": Scenario(
        "the application's healthcheck cannot be reached from here",
        "It is only a warning, because ECS proves what runs. Look at the site from elsewhere.",
        failures=({"service": "http", "path": "healthcheck$", "drop": True, "times": ALWAYS},),
    ),
    "lambda-times-out": Scenario(
        "the ECS manager starts the rollout, and Lambda stops it before it answers",
        "It is not called again: the command has found in ECS what was started, and has watched it.",
        failures=(
            {
                **MANAGER,
                "after": True,
                "status": 200,
                "headers": {"X_Amz_Function_Error": "Unhandled"},
                "type": "application/json",
                "body": '{"errorMessage": "2026-11-26T09:00:00.000Z 0f1e2d3c Task timed out after 120.00 seconds"}',
            },
        ),
    ),
    "lambda-errors": Scenario(
        "the ECS manager fails before it has changed anything",
        "Nothing was changed. Its error and the end of its log say why: publish a version of it that works, or deploy"
        " without it, with `--via=ecs`.",
        code=1,
        failures=(
            {
                **MANAGER,
                "status": 200,
                "headers": {
                    "X_Amz_Function_Error": "Unhandled",
                    "X_Amz_Log_Result": base64.b64encode(LOG).decode(),
                },
                "type": "application/json",
                "body": '{"errorType": "Runtime.ImportModuleError", "errorMessage": "No module named \'ecs_manager\'"}',
            },
        ),
    ),
    "throttled": Scenario(
        "ECS throttles the next reads of the caller",
        "There is nothing to mend: it is read again, later each time, until it answers.",
        failures=(
            {
                **CALLER,
                "service": "ecs",
                "operation": "DescribeServices",
                "skip": 2,
                "times": 9,
                "status": 400,
                "code": "ThrottlingException",
                "message": "Rate exceeded",
            },
        ),
    ),
    "denied": Scenario(
        "the caller may not read ECS; the ECS manager may",
        "By the endpoint's word alone, as the last line says. Give the role the right that the warning names.",
        failures=(
            {
                **CALLER,
                "service": "ecs",
                "times": ALWAYS,
                "status": 400,
                "code": "AccessDeniedException",
                "message": NOT_ALLOWED,
            },
        ),
    ),
}
