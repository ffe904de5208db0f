"""What can go wrong in the embedded AWS, by name: `invoke local.up --scenario=NAME`. docs/runbook.md shows each one."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local_aws.cloud import KEYS

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

    configuration: put over the deploymentConfiguration of the services. fault: what tasks of new deployments stop for,
    a key of tasks.FAULTS. slower: how many times as long a rollout takes. colleague: seconds after which somebody else
    deploys the service too. failures: rules of control.py.
    """

    says: str
    configuration: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    slower: float = 1.0
    colleague: float = 0.0
    failures: tuple[Mapping[str, Any], ...] = ()


SCENARIOS = {
    "healthy": Scenario("nothing goes wrong"),
    "slow": Scenario("a rollout takes more than a minute", slower=60),
    "crash-loop": Scenario(
        "new tasks exit with 1 as soon as they start, and no circuit breaker ends that",
        configuration=NO_BREAKER,
        fault="crash",
    ),
    "image-missing": Scenario("the image of new tasks is no longer in the registry", fault="pull"),
    "rolled-back": Scenario("new tasks fail their health check, and ECS rolls back", fault="unhealthy"),
    "superseded": Scenario("a colleague deploys the service a moment later", colleague=0.4),
    "paused": Scenario(
        "a rollout is blue/green, and pauses before its traffic shifts, until somebody continues it",
        configuration={
            "strategy": "BLUE_GREEN",
            "bakeTimeInMinutes": 0,
            "lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}],
        },
    ),
    "unreachable": Scenario(
        "the application's healthcheck cannot be reached from here",
        failures=({"service": "http", "path": "healthcheck$", "drop": True, "times": ALWAYS},),
    ),
    "lambda-times-out": Scenario(
        "the ECS manager starts the rollout, and Lambda stops it before it answers",
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
