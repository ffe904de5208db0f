"""The rights that a deployment needs, and what IAM says of them. docs/permissions.md has the same table in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from scripts.ecs import manager
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import OK, REFUSED, WARNING, Finding
from scripts.edges import aws
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import Environment

ABOUT = "rights"


class Need(Struct, frozen=True):
    """Actions that are needed on resources. resources: ARNs."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]


def needs(service: Mapping[str, Any], definition: Mapping[str, Any], parameters: str) -> list[Need]:
    """What whoever carries a deployment out needs: the Lambda's role, or the caller with --via=ecs.

    service, definition: as ECS describes them. parameters: ARN of the SSM parameters that become secrets, with *; empty
    for none.
    """
    family, cluster = str(definition["taskDefinitionArn"]).rpartition(":")[0], str(service["clusterArn"])
    roles = tuple(str(definition[key]) for key in ("taskRoleArn", "executionRoleArn") if definition.get(key))
    tasks = cluster.replace(":cluster/", ":task/") + "/*"
    found = [
        Need(("ecs:DescribeServices", "ecs:UpdateService"), (str(service["serviceArn"]),)),
        Need(("ecs:DescribeTaskDefinition", "ecs:ListTasks", "ssm:DescribeParameters"), ("*",)),
        Need(("ecs:RegisterTaskDefinition", "ecs:TagResource", "ecs:RunTask"), (f"{family}:*",)),
        Need(("ecs:DescribeTasks",), (tasks,)),
    ]
    found += [Need(("iam:PassRole",), roles)] if roles else []
    return [*found, Need(("ssm:ListTagsForResource",), (parameters,))] if parameters else found


def check(environment: Environment, invocation: Invocation) -> Iterator[Finding]:
    """What is known of the rights of the caller, and of the role that carries out a deployment.

    Only as far as they can be asked for: what cannot be is a warning. An embedded AWS checks no rights.
    """
    try:
        if invocation.via == manager.LAMBDA:
            yield from _may_invoke(environment, invocation)
    except Refused:
        raise
    except DeployError as error:
        yield Finding(ABOUT, REFUSED, str(error))
        return
    if environment.endpoint_url:
        return
    try:
        role = _role(environment, invocation)
        lacking = [one for need in _needs(environment, invocation) for one in _denied(environment, role, need)]
    except Refused:
        raise
    except DeployError as error:
        yield Finding(ABOUT, WARNING, f"not all of them can be asked for: {error}")
        return
    name = role.rpartition("/")[2]
    yield from (Finding(ABOUT, WARNING, f"{name} lacks {one}") for one in lacking)
    if not lacking:
        yield Finding(ABOUT, OK, f"{name} has what a deployment needs, as far as IAM's policies say")


def _may_invoke(environment: Environment, invocation: Invocation) -> Iterator[Finding]:
    """Whether the function exists and the caller may call it. Lambda only checks: nothing runs."""
    client = aws.client("lambda", environment)
    with aws.errors(f"asking whether {invocation.function} may be called", environment):
        client.invoke(
            FunctionName=invocation.function, Qualifier=invocation.qualifier, InvocationType="DryRun", Payload=b"{}"
        )
    yield Finding(ABOUT, OK, f"{invocation.function} at {invocation.qualifier} may be called")


def _role(environment: Environment, invocation: Invocation) -> str:
    """The ARN of the role, or of the user, that carries out a deployment. Raises DeployError if it cannot be read."""
    if invocation.via == manager.LAMBDA:
        with aws.errors(f"reading the role of {invocation.function}", environment):
            found = aws.client("lambda", environment).get_function_configuration(
                FunctionName=invocation.function, Qualifier=invocation.qualifier
            )
            return str(found["Role"])
    with aws.errors("reading the role of the credentials", environment):
        caller = str(aws.client("sts", environment).get_caller_identity()["Arn"])
        if ":assumed-role/" not in caller:
            return caller
        # The ARN of a session does not have the path of its role.
        return str(aws.client("iam", environment).get_role(RoleName=caller.split("/")[1])["Role"]["Arn"])


def _needs(environment: Environment, invocation: Invocation) -> list[Need]:
    body, client = invocation.payload["body"], aws.client("ecs", environment)
    with aws.errors(f"reading the services of {environment.cluster}", environment):
        service = client.describe_services(cluster=environment.cluster, services=body["service_ids"])["services"][0]
        definition = client.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    path = str(body.get("secrets", [""])[0]).lstrip("^").partition("\\")[0].rstrip("/")
    region, account = str(service["serviceArn"]).split(":")[3:5]
    partition = str(service["serviceArn"]).split(":")[1]
    parameters = f"arn:{partition}:ssm:{region}:{account}:parameter{path}/*" if path else ""
    return needs(service, definition, parameters)


def _denied(environment: Environment, role: str, need: Need) -> list[str]:
    """The actions that IAM's policies do not allow the role, each with its resource."""
    with aws.errors(f"asking IAM what {role} may do", environment):
        answer = aws.client("iam", environment).simulate_principal_policy(
            PolicySourceArn=role,
            ActionNames=list(need.actions),
            ResourceArns=list(need.resources),
            ContextEntries=_context(environment, need.resources),
        )
        return denied(answer["EvaluationResults"])


def denied(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results of IAM's simulation that are not "allowed", as "action on resource"."""
    return [
        f"{one['EvalActionName']} on {one.get('EvalResourceName', '*')}"
        for one in results
        if one["EvalDecision"] != "allowed"
    ]


def _context(environment: Environment, resources: Sequence[str]) -> list[dict[str, Any]]:
    """What conditions of the policies may ask for."""
    values = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    parts = next((arn.split(":") for arn in resources if arn.startswith("arn:")), [])
    if len(parts) > 4 and parts[3]:
        values["ecs:cluster"] = ":".join([*parts[:2], "ecs", *parts[3:5], f"cluster/{environment.cluster}"])
    return [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in values.items()
    ]
