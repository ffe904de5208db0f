"""Deploys a service: the ECS manager registers its task definition with the new image and starts the rollout, which is
then watched to its end.

The payload is byte for byte that of the old script of this name.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from scripts.ecs import images, manager, preflight, reasons, receipts, rollout, watch
from scripts.ecs.images import Image
from scripts.ecs.manager import Invocation
from scripts.ecs.preflight import Preflight
from scripts.ecs.reader import Reader, steadily
from scripts.ecs.rollout import Before, Service, Verdict
from scripts.ecs.watch import Ended
from scripts.edges import http
from scripts.edges.aws import Denied
from scripts.frame import console, waiting
from scripts.frame import version as versions
from scripts.frame.errors import FAILED, REFUSED, ROLLED_BACK, UNKNOWN, DeployError, OutcomeUnknown, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut
from scripts.release import lease

# Seconds to watch a rollout, and to look for one whose start was lost.
TIMEOUT, ADOPT = 900.0, 30.0
UNTIL = ("complete", "traffic")
# Exit codes of several deployments, the one that counts first.
WORST_FIRST = (UNKNOWN, FAILED, REFUSED, ROLLED_BACK)


class Wish(Struct, frozen=True):
    """What to deploy and how to watch it: the flags of the command.

    version: that the endpoint is to answer with; None if it is the image's tag.
    """

    service: str | None = None
    image: str | None = None
    tag: str | None = None
    digest: str | None = None
    image_uri: str | None = None
    no_image: bool = False
    via: str | None = None
    function_name: str | None = None
    qualifier: str | None = None
    supersede: bool = False
    allow_secret_removal: bool = False
    no_wait: bool = False
    wait_until: str | None = None
    keep_waiting: bool = False
    abort_on_failure: bool = False
    resume: bool = False
    timeout: str | None = None
    version: str | None = None


class ServiceDeployment(Struct, frozen=True):
    """What is to be deployed. image: its URI, empty for a restart with the current image.

    preflight: what was found before, None if that could not be read.
    """

    service: str
    cluster: str
    image: str
    invocation: Invocation
    preflight: Preflight | None = None

    def describe(self) -> list[str]:
        what = f"{self.service} in {self.cluster}"
        first = f"deploy {self.image} to {what}" if self.image else f"restart {what}"
        return [first, *(self.preflight.describe() if self.preflight else []), *self.invocation.describe()]


class Watching(Struct, frozen=True):
    """How a deployment is to be watched. image: its URI, empty for a restart. timeout: seconds.

    version: that is to answer, empty if not known. url: of the healthcheck, empty for no endpoint. again: the command
    that goes on watching. until: complete, or traffic if it is enough that the traffic has shifted.
    """

    environment: str
    service: str
    image: str
    repository: str
    version: str
    url: str
    timeout: float
    until: str
    again: str
    keep_waiting: bool = False
    abort_on_failure: bool = False

    def describe(self) -> list[str]:
        end = "ECS has completed its rollout" if self.until == "complete" else "its traffic has shifted"
        answers = f" and {self.url} answers with {self.version}" if self.url else ""
        return [f"watch {self.service} up to {self.timeout:g} s until {end}{answers}"]


class Deployed(Report, Struct, frozen=True):
    """A deployment of a service: what was started and, once it was watched, how it ended.

    image: its URI, empty for a restart. digest: of that image, empty if not known. task_definition, before: ARNs of the
    new and the previous revision. deployment_id: of the rollout in ECS, empty if not known. since: when the rollout
    started, Unix time by ECS's clock, or 0. where: what runs it, for a sentence. version: that was deployed, or empty.
    verdict: one of `rollout.Verdict`, empty if ECS could not be read. proof: what a success rests on. note: a
    restriction of it. reasons: why it did not succeed. changed_from: the last other version that answered.
    """

    service: str
    cluster: str
    image: str
    digest: str
    task_definition: str
    before: str
    deployment_id: str
    since: float
    where: str = ""
    version: str = ""
    verdict: str = Verdict.NOT_STARTED.value
    proof: tuple[str, ...] = ()
    note: str = ""
    reasons: tuple[str, ...] = ()
    changed_from: str = ""

    def line(self) -> str:
        before = f" (was {self.before.rpartition('/')[2]})" if self.before else ""
        revision = f"{self.task_definition.rpartition('/')[2]}{before}"
        if self.verdict == Verdict.NOTHING.value:
            return f"{self.cluster}: {self.service} has {revision} deployed; {self.proof[0]}, so nothing is verified"
        if not (self.proof or self.reasons):
            return f"{self.cluster}: {self.service} rolls out {revision}"
        if self.reasons:
            return f"{self.where}: {self.service} {self.verdict or 'not proven'}"
        change = f" (was {versions.short(self.changed_from)})" if self.changed_from else ""
        what = versions.short(self.version) if self.version else revision
        note = f", {self.note}" if self.note else ""
        return f"{self.where} runs {what}{change}{note}"

    def outputs(self) -> dict[str, str]:
        rollout = {"task-definition": self.task_definition, "deployment-id": self.deployment_id}
        return {**rollout, "image": self.image, "digest": self.digest}


def deploy_service(
    run: Run,
    *,
    service: str | None = None,
    image: str | None = None,
    tag: str | None = None,
    digest: str | None = None,
    image_uri: str | None = None,
    no_image: bool = False,
    supersede: bool = False,
    allow_secret_removal: bool = False,
    no_wait: bool = False,
    wait_until: str | None = None,
    timeout: str | None = None,
    keep_waiting: bool = False,
    abort_on_failure: bool = False,
    resume: bool = False,
    via: str | None = None,
    function_name: str | None = None,
    qualifier: str | None = None,
) -> Deployed | None:
    """Deploy the service and watch it to its end."""
    return carry_out(
        run,
        Wish(
            service=service,
            image=image,
            tag=tag,
            digest=digest,
            image_uri=image_uri,
            no_image=no_image,
            supersede=supersede,
            allow_secret_removal=allow_secret_removal,
            via=via,
            function_name=function_name,
            qualifier=qualifier,
            no_wait=no_wait,
            wait_until=wait_until,
            keep_waiting=keep_waiting,
            abort_on_failure=abort_on_failure,
            resume=resume,
            timeout=timeout,
        ),
    )


def carry_out(run: Run, wish: Wish) -> Deployed | None:
    """Deploy one service, or without a name all of the application's, and watch each to its own verdict.

    With `resume`, watch only. Returns the result of the first one. Raises DeployError, RolledBack or OutcomeUnknown if
    one of them is no success.
    """
    env = run.environment
    names = manager.services(env) if wish.service is None else (manager.checked_service(wish.service),)
    each = [_planned(env, wish_of(env, wish, name), name) for name in names]
    env.account.require()
    run.facts.setdefault("version", each[0].watching.version)
    with receipts.kept(run), lease.locked(run):
        failures = {} if wish.resume else _start(run, wish, each)
        results = _follow(run, [one for one in each if one.name not in failures], failures, wait=not wish.no_wait)
        if failures:
            raise _failure(failures, results)
    first = results.get(names[0])
    run.last_line = first.line() if first else run.last_line
    return first


def _planned(environment: Environment, wish: Wish, name: str) -> "_Deployment":
    """The deployment of one service. Raises Refused for flags and settings that cannot be."""
    chosen = image_of(environment, wish, name)
    watching = _watching(environment, wish, name, chosen)
    if wish.resume:
        return _Deployment(environment, name, watching)
    event = manager.deploy_event(environment, name, str(chosen or ""), allow_secret_removal=wish.allow_secret_removal)
    call = manager.planned(environment, wish.function_name, wish.qualifier, event, wish.via)
    return _Deployment(environment, name, watching, call)


def wish_of(environment: Environment, wish: Wish, name: str) -> Wish:
    """What is wished of one service of several. A digest is that of one image: another one is found by its tag.

    Raises Refused for an image that is not that of every service.
    """
    own = environment.service.name
    if wish.service is not None or name == own:
        return wish
    if wish.no_image or manager.repository(environment, name) == manager.repository(environment, own):
        return replace(wish, service=name)
    if wish.image is not None or wish.image_uri is not None:
        raise Refused(f"{name} has another image than {own}: give --service too.")
    tag = wish.version if wish.digest is not None else wish.tag
    return replace(wish, service=name, digest=None, tag=tag)


def _start(run: Run, wish: Wish, each: "Sequence[_Deployment]") -> dict[str, DeployError]:
    """Start every deployment, once all of them have been looked at. Returns why one was not started, by its name.

    That ends the start of the others; those that have begun are watched all the same.
    """
    found = [preflight.before(run, one.call, supersede=wish.supersede) for one in each if one.call]
    failures: dict[str, DeployError] = {}
    for one, seen in zip(each, found, strict=True):
        try:
            run.act(one.plan(seen), one.start, f"deploy {one.name}")
        except DeployError as error:
            if one is each[0]:
                raise
            failures[one.name] = error
            for rest in each[each.index(one) + 1 :]:
                failures[rest.name] = DeployError(f"not started, because {one.name} could not be.")
            return failures
    return failures


def _follow(
    run: Run, each: "Sequence[_Deployment]", failures: dict[str, DeployError], *, wait: bool
) -> dict[str, Deployed]:
    """Watch each deployment to its end. failures: gets why one is no success. Returns the results, by name."""
    results: dict[str, Deployed] = {}
    for one in each:
        try:
            ended = one.deployed
            if wait and not one.has_no_service:
                ended = run.act(one.watching, partial(one.follow, run), f"watch {one.name}", changes=False)
        except DeployError as error:
            failures[one.name] = error
            continue
        if ended:
            results[one.name] = ended
            if len(each) > 1:
                console.say(ended.line())
    return results


def _failure(failures: Mapping[str, DeployError], results: Mapping[str, Deployed]) -> DeployError:
    """One error for all deployments: of the only one, else with the verdict of each, and the code of the worst.

    What is not known outweighs what failed, and that what was rolled back.
    """
    if len(failures) == 1 and not results:
        return next(iter(failures.values()))
    lines = [*(f"{name}: {error}" for name, error in failures.items()), *(one.line() for one in results.values())]
    worst = min(failures.values(), key=lambda error: WORST_FIRST.index(error.code))
    message = "\n".join(lines)
    # Something has begun: that is no refusal.
    return DeployError(message) if worst.code == Refused.exit_code else worst.with_message(message)


def image_of(environment: Environment, wish: Wish, service: str) -> Image | None:
    """The image to deploy, None for a restart. Raises Refused for flags that contradict each other."""
    parts = {"--image": wish.image, "--tag": wish.tag, "--digest": wish.digest}
    given = [flag for flag, value in parts.items() if value is not None]
    if wish.no_image and (given or wish.image_uri is not None):
        raise Refused("--no-image keeps the current image: leave out --image, --tag, --digest and --image-uri.")
    if wish.no_image:
        return None
    if wish.image_uri is None:
        repository = manager.repository(environment, service) if wish.image is None else wish.image
        return images.named(environment, repository, wish.tag, wish.digest)
    chosen = images.checked(wish.image_uri)
    # The repository may be given too, as for the old script, if it is the same.
    extra = [flag for flag in given if (flag, parts[flag]) != ("--image", chosen.repository)]
    if extra:
        raise Refused(f"--image-uri is the full name of the image: leave out {' and '.join(extra)}.")
    return chosen


def _watching(environment: Environment, wish: Wish, service: str, image: Image | None) -> Watching:
    """How the deployment is watched. Raises Refused for flags that cannot be."""
    until = "complete" if wish.wait_until is None else wish.wait_until
    if until not in UNTIL:
        raise Refused(f"--wait-until must be {' or '.join(UNTIL)}, not {until[:50]!r}.")
    if wish.no_wait and (wish.resume or wish.wait_until or wish.keep_waiting or wish.abort_on_failure):
        raise Refused("--no-wait watches nothing: leave out --resume, --wait-until and what says how to watch.")
    version = wish.version or (image.tag if image else "")
    own = service == environment.service.name and bool(version)
    return Watching(
        environment=environment.name,
        service=service,
        image=str(image or ""),
        repository=image.repository if image else "",
        version=version,
        url=endpoint(environment) if own else "",
        timeout=waiting.seconds(wish.timeout, TIMEOUT),
        until=until,
        again=_again(environment, wish, service, image),
        keep_waiting=wish.keep_waiting,
        abort_on_failure=wish.abort_on_failure,
    )


def endpoint(environment: Environment) -> str:
    """The URL that the version has to answer at, empty for a service without one. Raises Refused for an invalid one."""
    return http.checked(environment.healthcheck, "the URL of a healthcheck") if environment.healthcheck else ""


def _again(environment: Environment, wish: Wish, service: str, image: Image | None) -> str:
    """The command that goes on watching."""
    which = [] if wish.service is None else [f"--service={service}"]
    if image is None:
        what = ["--no-image"]
    elif wish.image_uri is not None:
        what = [f"--image-uri={wish.image_uri}"]
    else:
        repository = [] if wish.image is None else [f"--image={wish.image}"]
        what = [*repository, f"--digest={image.digest}" if image.digest else f"--tag={image.tag}"]
    return " ".join(["invoke deploy-service --resume", f"--env={environment.name}", *which, *what])


class _Deployment:
    """One deployment from its start to its end, with what is known of it in between."""

    def __init__(
        self,
        environment: Environment,
        service: str,
        watching: Watching,
        call: Invocation | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._environment, self._service, self._watching, self._clock = environment, service, watching, clock
        self.call = call
        self.deployed: Deployed | None = None
        self._reader: Reader | None = None
        self._before = Before(watching.version, watching.repository, patient=watching.keep_waiting)

    @property
    def name(self) -> str:
        """The service, or the task of the settings that has none."""
        return self._service

    @property
    def watching(self) -> Watching:
        """How it is watched."""
        return self._watching

    @property
    def has_no_service(self) -> bool:
        """Whether it is only a revision for a task that runs once: nothing rolls out."""
        return self._service in self._environment.tasks

    def plan(self, seen: Preflight | None) -> ServiceDeployment:
        """What is to be deployed, with what was found before."""
        call = self.call or Invocation("", "", {})
        return ServiceDeployment(self._service, self._environment.cluster, self._watching.image, call, seen)

    def start(self, plan: ServiceDeployment) -> Deployed:
        """Call the ECS manager once, and read from ECS what it started.

        Raises OutcomeUnknown if the response is lost and ECS shows no deployment; DeployError when the manager failed.
        """
        env, call = self._environment, plan.invocation
        then = None if self.has_no_service else self._look_first()
        self._before = replace(self._before, service=then, digest=images.digest_of(env, plan.image))
        console.say(f"{call.doing}: {plan.describe()[0]}")
        try:
            response = manager.manager_response(manager.invoke(env, call), call.who)
        except OutcomeUnknown as error:
            response = self._adopted(error)
        self._learn(response)
        self.deployed = self._report(plan)
        console.say(self.deployed.line())
        return self.deployed

    def _look_first(self) -> Service | None:
        """The service before the deployment. None if there is no right to read it; a read that fails is a refusal."""
        self._reader = Reader(self._environment, self._service)
        try:
            found = steadily(self._reader.look, clock=self._clock)
        except Refused:
            raise
        except DeployError as error:
            if not isinstance(error, Denied):
                raise Refused(f"Nothing was started: {error}") from error
            console.say(f"the rollout in ECS is not watched: {error}")
            self._reader = None
            return None
        return found

    def _learn(self, response: Mapping[str, Any]) -> None:
        """Take over what the manager reports, and what ECS shows of it."""
        definition, known = str(response.get("NewTaskdefArn", "")), manager.deployment_id(response, self._service)
        self._before = replace(self._before, id=known, task_definition=definition)
        if self._reader:
            try:
                seen = rollout.find(self._before, self._reader.look())
            except DeployError:
                # It is looked for again while it is watched.
                return
            self._before = replace(self._before, id=known or (seen.id if seen else ""), seen=seen)

    def _report(self, plan: ServiceDeployment) -> Deployed:
        before = self._before
        return Deployed(
            service=plan.service,
            cluster=plan.cluster,
            image=plan.image,
            digest=before.digest,
            task_definition=before.task_definition,
            before=before.previous,
            deployment_id=before.id,
            since=before.seen.created if before.seen else 0.0,
            where=self._environment.name if self._watching.url else f"{plan.cluster}: {plan.service}",
            version=before.version,
            verdict=self._verdict_so_far().value,
            proof=("no service runs it",) if self.has_no_service else (),
        )

    def _verdict_so_far(self) -> Verdict:
        if self.has_no_service:
            return Verdict.NOTHING
        return Verdict.IN_PROGRESS if self._before.seen else Verdict.NOT_STARTED

    def _adopted(self, error: OutcomeUnknown) -> dict[str, Any]:
        """What the manager would have reported of the deployment that it started, from ECS. The call is not repeated.

        Raises OutcomeUnknown if ECS shows none, or more than one that may be it.
        """
        goes_on = (
            f"Do not run this again before that is clear: `{self._watching.again}` looks for it and goes on watching."
        )
        reader, before = self._reader, self._before
        if reader is None:
            raise OutcomeUnknown(f"{error} Whether {self._service} is rolling out is not known. {goes_on}") from error
        console.say(f"{error} Looking in ECS for what was started.")

        def look() -> tuple[str, list[rollout.Deployment] | None]:
            try:
                return "", _candidates(before, reader.look()) or None
            except DeployError:
                return "", None

        try:
            found = waiting.wait(look, seconds=ADOPT, every=1.0, clock=self._clock)
        except TimedOut:
            found = []
        if len(found) != 1:
            shows = "more than one new deployment" if found else "no new deployment"
            raise OutcomeUnknown(f"{error} ECS shows {shows} of {self._service}. {goes_on}") from error
        console.say(f"ECS shows that it was started: {found[0].id}, {found[0].task_definition.rpartition('/')[2]}")
        return {"NewTaskdefArn": found[0].task_definition, "DeploymentIds": {self._service: found[0].id}}

    def follow(self, run: Run, plan: Watching) -> Deployed:
        """Watch the deployment to its end. Raises DeployError, RolledBack or OutcomeUnknown if it is no success."""
        deployed = self.deployed or self._resume()
        if plan.image and not plan.version:
            deployed = self._with_version(deployed, images.version_of(self._environment, plan.image))
        ended = watch.watch(self._plan(), self._reader, clock=self._clock)
        result = self._ended(deployed, ended)
        if ended.failure:
            reasons.show(ended.reasons)
            run.steps[-1].result = result
            raise ended.failure
        if ended.note:
            console.warn(f"{self._service}: {ended.note}")
        return result

    def _with_version(self, deployed: Deployed, version: str) -> Deployed:
        """An image by its digest: its version is what the endpoint is to answer with. version: empty if not known."""
        env = self._environment
        if version and self._service == env.service.name:
            self._watching = replace(self._watching, version=version, url=endpoint(env))
            return replace(deployed, version=version, where=env.name)
        return replace(deployed, version=version)

    def _plan(self) -> watch.Plan:
        plan = self._watching
        return watch.Plan(
            where=self._environment.name,
            service=self._service,
            before=replace(self._before, version=plan.version),
            url=plan.url,
            timeout=plan.timeout,
            again=plan.again,
            until_traffic=plan.until == "traffic",
            abort=plan.abort_on_failure,
        )

    def _resume(self) -> Deployed:
        """Find the deployment to go on watching: the one of the image, or the newest for a restart."""
        env, plan = self._environment, self._watching
        self._reader = reader = Reader(env, self._service)
        if plan.image:
            self._before = replace(self._before, digest=images.digest_of(env, plan.image))
        else:
            primary = steadily(reader.look, clock=self._clock).primary
            self._before = replace(self._before, id=primary.id if primary else "", seen=primary)
        return self._report(self.plan(None))

    def _ended(self, deployed: Deployed, ended: Ended) -> Deployed:
        return replace(
            deployed,
            verdict=ended.verdict.value if ended.verdict else "",
            proof=ended.proof,
            note=ended.note,
            reasons=(*ended.reasons.lines, *ended.reasons.log) or ((str(ended.failure),) if ended.failure else ()),
            changed_from=ended.changed_from,
        )


def still(environment: Environment, deployed: Deployed) -> Deployed:
    """Check in ECS that a deployment that was complete is still the current one.

    If ECS cannot be read, it counts as current. Raises RolledBack or DeployError if it is not.
    """
    repository = environment.service.image
    before = Before(deployed.version, repository, deployed.deployment_id, deployed.digest, deployed.since)
    try:
        reader = Reader(environment, deployed.service)
        now = steadily(lambda: reader.look(before))
    except DeployError as error:
        console.say(f"ECS can no longer be read: {error}")
        return deployed
    verdict = rollout.verdict(before, now)
    if verdict.lost and deployed.deployment_id:
        what = f"{environment.name}: {versions.short(deployed.version)} of {now.name}"
        why = " · ".join(reasons.explain(before, now)) or "ECS gives no reason"
        raise watch.error_of(verdict)(f"{what} {verdict.says}: {why}.")
    return deployed


def _candidates(before: Before, now: Service) -> list[rollout.Deployment]:
    """The new deployments that a call whose response was lost may have started: of its image, or a restart."""
    new = [d for d in now.deployments if d.id not in before.known and not d.is_rollback]
    if not before.repository:
        return [d for d in new if d.task_definition == before.previous]
    return [d for d in new if before.is_run_by(d.images)]
