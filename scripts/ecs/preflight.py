"""What is looked at before the first write of a deployment: who asks, the service, the image, and what would change.

The change is computed by the ECS manager's own code from the very event that it is going to be sent. A read that fails
is a refusal, because nothing is known then. One for which the caller has no right is a warning: the deployment may be
somebody else's to do, such as the Lambda's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ecs_manager import descriptions, parameters, task_definition
from ecs_manager.errors import ManagerError
from scripts.ecs import images, manager
from scripts.ecs.images import Image
from scripts.ecs.manager import Invocation
from scripts.ecs.reader import steadily
from scripts.edges import aws
from scripts.edges.aws import Denied
from scripts.frame import console
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment

OK, WARNING, REFUSED = "ok", "warning", "refused"
# Processors to which ECS and images give different names.
ARCHITECTURES = {"X86_64": "amd64"}


class Finding(Struct, frozen=True):
    """One thing that was looked at. result: ok, warning or refused."""

    about: str
    result: str
    text: str


class Preflight(Report, Struct, frozen=True):
    """What was found before a deployment. diff: the lines of the task definition that change, without any value of a
    secret or of the environment.
    """

    environment: str
    name: str
    findings: tuple[Finding, ...]
    diff: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Why it must not be deployed."""
        return tuple(finding for finding in self.findings if finding.result == REFUSED)

    def line(self) -> str:
        warnings = sum(finding.result == WARNING for finding in self.findings)
        said = "must not be deployed" if self.refusals else "can be deployed"
        number = f" ({warnings} warning{'s' if warnings > 1 else ''})" if warnings else ""
        return f"{self.environment}: {self.name} {said}{number}"

    def table(self) -> list[tuple[str, ...]]:
        rows = [(finding.result, finding.about, finding.text) for finding in self.findings]
        return [("RESULT", "WHAT", self.name), *rows, *(("", "change", line) for line in self.diff)]

    def describe(self) -> list[str]:
        """All of it in lines, indented as details of a plan."""
        found = [f"  {finding.result}: {finding.about}: {finding.text}" for finding in self.findings]
        return [*found, *(f"  change: {line}" for line in self.diff)]

    def require(self) -> None:
        """Raises Refused with every reason if it must not be deployed."""
        if self.refusals:
            reasons = "\n".join(f"  {finding.about}: {finding.text}" for finding in self.refusals)
            raise Refused(
                f"{self.name} is not deployed to {self.environment}, and nothing of it was changed:\n{reasons}"
            )


def before(run: Run, invocation: Invocation, *, supersede: bool = False, brief: bool = False) -> Preflight | None:
    """Look before a deployment, and print what matters. Raises Refused if it must not begin.

    A dry run prints everything, and says what a real run would refuse; None if it cannot look. brief: print nothing,
    because it is going to be looked at again.
    """
    name = subject(invocation)
    found = run.read(f"what a deployment of {name} finds", lambda: check(run, invocation, supersede=supersede))
    if found is None:
        return None
    if run.dry_run:
        run.unread += [f"{r.about}: {r.text} A real run would be refused." for r in found.refusals]
        return found
    if not brief:
        _say(found)
    found.require()
    return found


def _say(found: Preflight) -> None:
    for finding in found.findings:
        if finding.result == WARNING:
            console.warn(f"{finding.about}: {finding.text}")
    for line in found.diff:
        console.say(f"  {line}")


def subject(invocation: Invocation) -> str:
    """The service, or the family, that an event deploys."""
    body = invocation.payload["body"]
    return str((body.get("service_ids") or body.get("families"))[0])


def check(run: Run, invocation: Invocation, *, supersede: bool) -> Preflight:
    """Look at everything that a deployment depends on. invocation: the one that is going to deploy.

    supersede: a rollout of somebody else is no reason to refuse. Raises Refused only without credentials.
    """
    env, name, patient = run.environment, subject(invocation), not run.dry_run
    found = _look("identity", lambda: identity(env), patient)
    if refused(found):
        # Everything else would be looked up in another account, or without a network.
        return Preflight(env.name, name, tuple(found))
    body, changes = invocation.payload["body"], list[str]()
    current, described, seen = str(body.get("families", [""])[0]), list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    if not current:
        found += _look("service", lambda: service(env, name, supersede, seen), patient)
        current = str(seen[0].get("taskDefinition", "")) if seen else ""
    if current:
        found += _look("task definition", lambda: change(env, invocation, current, described, changes), patient)
    found += _look("image", lambda: images_exist(env, body.get("image"), described), patient)
    return Preflight(env.name, name, tuple(found), tuple(changes))


def refused(found: Sequence[Finding]) -> bool:
    """Whether anything that was found is a refusal."""
    return any(finding.result == REFUSED for finding in found)


def _look(about: str, read: Callable[[], Iterator[Finding]], patient: bool) -> list[Finding]:
    """What a read finds. patient: wait out a failure that may pass, before it counts as a refusal.

    A missing right is a warning.
    """

    def attempt() -> list[Finding]:
        try:
            return list(read())
        except DeployError as error:
            if not isinstance(error, Denied):
                raise
            return [Finding(about, WARNING, f"it cannot be read: {error}")]

    try:
        return steadily(attempt) if patient else attempt()
    except Refused:
        raise
    except ManagerError as error:
        return [Finding(about, REFUSED, f"{error.title}: {error.message}")]
    except DeployError as error:
        return [Finding(about, REFUSED, f"it cannot be read: {error}")]


def require_account(run: Run) -> None:
    """Raises Refused if the credentials belong to another account than the environment's. A dry run does not ask."""
    for finding in _look("identity", lambda: identity(run.environment), patient=True) if not run.dry_run else ():
        if finding.result == REFUSED:
            raise Refused(f"No task was started: {finding.text}")
        if finding.result == WARNING:
            console.warn(f"{finding.about}: {finding.text}")


def identity(environment: Environment) -> Iterator[Finding]:
    """Whether the credentials belong to the environment's account."""
    destination = aws.destination(environment)
    if "sts" in destination.endpoints and not environment.endpoint_url:
        yield Finding("identity", WARNING, "not asked for: requests to STS do not go to AWS")
        return
    with aws.errors("reading the account of the credentials", environment):
        caller = aws.client("sts", environment).get_caller_identity()
    account, who, known = str(caller.get("Account", "")), str(caller.get("Arn", "")), environment.account.known()
    if not known:
        yield Finding("identity", WARNING, f"{who or account}; the account of {environment.name} is not set")
    elif account != known:
        text = f"the credentials belong to account {account}, but {environment.name} is account {known}."
        yield Finding("identity", REFUSED, text)
    else:
        yield Finding("identity", OK, who or account)


def service(environment: Environment, name: str, supersede: bool, seen: list[Mapping[str, Any]]) -> Iterator[Finding]:
    """Whether the service can be deployed now. seen: gets the service, as ECS describes it."""
    with aws.errors(f"reading the service {name} in {environment.cluster}", environment):
        client = aws.client("ecs", environment)
        answer = client.describe_services(cluster=environment.cluster, services=[name])
        found = next(iter(answer.get("services", [])), None)
        seen[:] = [found] if found else []
        yield from judged(found, name, environment.cluster, supersede)


def judged(found: Mapping[str, Any] | None, name: str, cluster: str, supersede: bool) -> Iterator[Finding]:
    """What is to be said of a service, as ECS describes it: a pure decision."""
    status = found.get("status", "ACTIVE") if found else "INACTIVE"
    if found is None or status != "ACTIVE":
        what = "there is none" if status == "INACTIVE" else f"it is {status}, so being deleted"
        yield Finding("service", REFUSED, f"{what} in the cluster {cluster}.")
        return
    controller = found.get("deploymentController", {}).get("type", "ECS")
    if controller != "ECS":
        yield Finding("service", REFUSED, f"it is deployed by {controller}, not by ECS itself: deploy it there.")
        return
    desired, running = found.get("desiredCount", 0), found.get("runningCount", 0)
    revision = str(found.get("taskDefinition", "")).rpartition("/")[2]
    yield Finding("service", OK, f"active, {running} of {desired} tasks run, {revision}")
    primary: Mapping[str, Any] = next((d for d in found.get("deployments", []) if d.get("status") == "PRIMARY"), {})
    # Without a task there is nothing that a deployment could disturb.
    if primary.get("rolloutState") != "IN_PROGRESS" or not desired:
        return
    revision = str(primary.get("taskDefinition", "")).rpartition("/")[2]
    text = (
        f"{revision} is being rolled out ({primary.get('id', '')}, since {primary.get('createdAt', 'some time')},"
        f" {primary.get('runningCount', 0)} of {desired} tasks run)"
    )
    if supersede:
        yield Finding("rollout", WARNING, f"{text}: it is superseded.")
    else:
        yield Finding(
            "rollout", REFUSED, f"{text}: wait until it has ended, watch it with --resume, or give --supersede."
        )


def change(
    environment: Environment,
    invocation: Invocation,
    current: str,
    described: list[Mapping[str, Any]],
    changes: list[str],
) -> Iterator[Finding]:
    """What changes in the task definition. described: gets it as it is now. changes: gets the lines of the difference.

    Raises ManagerError for what the manager would refuse.
    """
    body = invocation.payload["body"]
    with aws.errors(f"reading the task definition {current}", environment):
        now, tags = descriptions.describe(aws.client("ecs", environment), current)
    described[:] = [now]
    old = task_definition.registrable(now, tags)
    secrets, drop = None, body.get("allow_secret_removal") is True
    if body.get("secrets"):
        try:
            with aws.errors("reading the parameters that become secrets", environment):
                secrets = parameters.secrets(aws.client("ssm", environment), body["secrets"])
        except DeployError as error:
            if not isinstance(error, Denied):
                raise
            # The manager has rights of its own, unless it runs here.
            result = REFUSED if invocation.via == manager.ECS else WARNING
            yield Finding("secrets", result, f"they cannot be compared: {error}")
    wanted = task_definition.Change(
        body.get("image"), secrets, body.get("containers", ()), str(now["taskDefinitionArn"]), drop
    )
    new = task_definition.changed(old, wanted)
    changes[:] = [*difference(old, new), *kept(new, secrets or [], str(now["taskDefinitionArn"]))]
    revision = str(now["taskDefinitionArn"]).rpartition("/")[2]
    yield Finding("task definition", OK, f"{revision} {'stays as it is' if new == old else 'changes'}")
    if secrets is not None:
        yield from compared(old, new, drop)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two revisions: images, and the names of secrets with where they come from. Never a value."""
    lines = []
    for before, after in _containers(old, new):
        name = after["name"]
        if before["image"] != after["image"]:
            lines.append(f"{name}: image {before['image']} -> {after['image']}")
        was, now = _secrets(before), _secrets(after)
        lines += [f"{name}: + secret {key} from {now[key]}" for key in sorted(now.keys() - was.keys())]
        lines += [
            f"{name}: secret {key} from {was[key]} -> {now[key]}"
            for key in sorted(now.keys() & was.keys())
            if now[key] != was[key]
        ]
        lines += [f"{name}: - secret {key} from {was[key]}" for key in sorted(was.keys() - now.keys())]
    return lines


def kept(new: Mapping[str, Any], found: Sequence[Mapping[str, str]], own: str) -> list[str]:
    """The secrets that stay although no parameter stands for them. found: those of parameters. own: an ARN of ours."""
    names = {secret["name"] for secret in found}
    return [
        f"{container['name']}: secret {key} stays from {value}: no parameter stands for it"
        for container in (new["containerDefinitions"] if found else [])
        for key, value in sorted(_secrets(container).items())
        if key not in names and task_definition.is_foreign(value, own)
    ]


def compared(old: Mapping[str, Any], new: Mapping[str, Any], drop: bool) -> Iterator[Finding]:
    """Whether the secrets may change as they would. drop: --allow-secret-removal was given."""
    removed, kept, total = [], [], 0
    for before, after in _containers(old, new):
        was, now = _secrets(before), _secrets(after)
        removed += [f"{key} of {after['name']}" for key in sorted(was.keys() - now.keys())]
        kept += [key for key in sorted(was.keys() & now.keys()) if was[key] == now[key]]
        total += len(now)
    if not removed:
        yield Finding("secrets", OK, f"{total}, {len(kept)} of them as they are")
        return
    text = f"{', '.join(removed)} would be removed: no parameter stands for it"
    if drop:
        yield Finding("secrets", WARNING, f"{', '.join(removed)} will be removed.")
    else:
        yield Finding("secrets", REFUSED, f"{text}. Give --allow-secret-removal if that is meant.")


def _containers(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each container before and after."""
    was = {container["name"]: container for container in old["containerDefinitions"]}
    for container in new["containerDefinitions"]:
        yield was[container["name"]], container


def _secrets(container: Mapping[str, Any]) -> dict[str, str]:
    return {secret["name"]: secret["valueFrom"] for secret in container.get("secrets", [])}


def images_exist(
    environment: Environment, given: str | None, described: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Whether the image is in its registry. Of a restart: every image of the task definition that is in ECR."""
    containers = described[0]["containerDefinitions"] if described else []
    for reference in dict.fromkeys([given] if given else [str(c["image"]) for c in containers]):
        image = images.parse(reference)
        if image and (given or images.is_in_ecr(environment, image)):
            yield from image_exists(environment, image, described)


def image_exists(environment: Environment, image: Image, described: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Whether the image is in its registry, for the platform that the task runs on."""
    if not images.is_in_ecr(environment, image):
        yield Finding("image", WARNING, f"{image} is not in ECR, and was not looked for.")
        return
    stored = images.look_up(environment, image)
    if stored is None:
        yield Finding("image", REFUSED, f"{image} does not exist: build and push it first.")
        return
    wanted = platform(described[0]) if described else ""
    try:
        given = images.platforms(environment, image)
    except Refused:
        raise
    except DeployError as error:
        yield Finding("image", OK, f"{image} exists ({stored.digest})")
        yield Finding("platform", WARNING, f"it cannot be read: {error}")
        return
    if wanted and not any(one == wanted or one.startswith(f"{wanted}/") for one in given):
        text = f"{image} is for {', '.join(given) or 'no platform'}, and the task runs on {wanted}."
        yield Finding("platform", REFUSED, text)
    else:
        yield Finding("image", OK, f"{image} exists for {', '.join(given)} ({stored.digest})")


def platform(definition: Mapping[str, Any]) -> str:
    """The platform that a task definition runs on, as images name it: linux/amd64."""
    given = definition.get("runtimePlatform", {})
    system = "windows" if str(given.get("operatingSystemFamily", "LINUX")).startswith("WINDOWS") else "linux"
    architecture = given.get("cpuArchitecture", "X86_64")
    return f"{system}/{ARCHITECTURES.get(architecture, architecture.lower())}"
