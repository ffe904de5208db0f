"""ECS as a deployment sees it: services that roll out, tasks that run and stop.

State is computed from the clock at each request. A new deployment's tasks run after START seconds, the old
ones drain for DRAIN more; where an image does not exist or a container is told to crash, a task fails every
RETRY seconds and the circuit breaker, if the service has one, trips at the third.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from local_aws.cloud import ACCOUNT, App, Cloud, StartResponse, answer, body_of
from scripts.ecs import images

START, DRAIN, RETRY, KEEP_FAILED, RUN = 0.6, 0.8, 0.4, 20.0, 1.0
BREAKER_THRESHOLD = 3
TARGET = "AmazonEC2ContainerServiceV20141113."


class EcsError(Exception):
    """An error as ECS reports it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Deployment:
    """One deployment of a service. images_ok is asked anew at every look: a push may come late."""

    definition: dict[str, Any]
    created: float
    id: str = field(default_factory=lambda: f"ecs-svc/{uuid.uuid4().int % 10**19:019d}")
    status: str = "PRIMARY"
    state: str = "IN_PROGRESS"
    reason: str = ""
    running: int = 0
    pending: int = 0
    failed: int = 0
    failed_at: float = 0.0
    adopts: bool = False


@dataclass
class Service:
    """A service and its deployments, the primary one first. settings: as CreateService was given them."""

    name: str
    arn: str
    cluster: str
    region: str
    settings: dict[str, Any]
    deployments: list[Deployment]
    events: list[dict[str, Any]] = field(default_factory=list)
    created: float = 0.0

    @property
    def desired(self) -> int:
        return int(self.settings.get("desiredCount", 1))

    def say(self, message: str, at: float) -> None:
        """Add an event."""
        text = f"(service {self.name}) {message}"
        self.events.insert(0, {"id": str(uuid.uuid4()), "createdAt": at, "message": text})


@dataclass
class Task:
    """A task that RunTask started, or one of a deployment."""

    arn: str
    cluster: str
    definition: dict[str, Any]
    started: float
    started_by: str
    group: str
    overrides: dict[str, Any] = field(default_factory=dict)
    lasts: float | None = RUN
    token: str = ""
    logged: bool = False


class Ecs:
    """All clusters, task definitions, services and tasks of one cloud."""

    def __init__(self, cloud: Cloud, engine: Any = None) -> None:
        self.cloud = cloud
        self.engine = engine
        self.clusters: dict[tuple[str, str], dict[str, Any]] = {}
        self.definitions: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.services: dict[tuple[str, str, str], Service] = {}
        self.tasks: dict[str, Task] = {}
        self.turn = 0

    # Requests

    def wrap(self, app: App) -> App:
        """Answer ECS's requests, and pass everything else on."""

        def ecs(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            target = environ.get("HTTP_X_AMZ_TARGET", "")
            if not target.startswith(TARGET):
                return app(environ, start)
            region = environ.get("HTTP_AUTHORIZATION", "///us-west-2").split("/")[2]
            name = target.removeprefix(TARGET)
            try:
                with self.cloud.lock:
                    self.tick()
                    reply = self._operation(name)(region, json.loads(body_of(environ) or b"{}"))
            except EcsError as error:
                body = json.dumps({"__type": error.code, "message": str(error)}).encode()
                return answer(start, 400, body, "application/x-amz-json-1.1")
            return answer(start, 200, json.dumps(reply).encode(), "application/x-amz-json-1.1")

        return ecs

    def _operation(self, name: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        operations = {
            "CreateCluster": self.create_cluster,
            "DescribeClusters": self.describe_clusters,
            "RegisterTaskDefinition": self.register,
            "DescribeTaskDefinition": self.describe_definition,
            "ListTaskDefinitions": self.list_definitions,
            "CreateService": self.create_service,
            "UpdateService": self.update_service,
            "DescribeServices": self.describe_services,
            "ListServices": self.list_services,
            "RunTask": self.run_task,
            "DescribeTasks": self.describe_tasks,
            "ListTasks": self.list_tasks,
        }
        if name not in operations:
            raise EcsError("InvalidAction", f"The embedded ECS does not know {name}.")
        return operations[name]

    # Clusters and task definitions

    def create_cluster(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("clusterName", "default")
        arn = f"arn:aws:ecs:{region}:{ACCOUNT}:cluster/{name}"
        cluster = {"clusterArn": arn, "clusterName": name, "status": "ACTIVE"}
        return {"cluster": self.clusters.setdefault((region, name), cluster)}

    def describe_clusters(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        names = [_last(name) for name in given.get("clusters", ["default"])]
        found = [self.clusters[region, name] for name in names if (region, name) in self.clusters]
        return {"clusters": found, "failures": [_missing(n) for n in names if (region, n) not in self.clusters]}

    def _cluster(self, region: str, given: dict[str, Any]) -> str:
        name = _last(given.get("cluster", "default"))
        if (region, name) not in self.clusters:
            raise EcsError("ClusterNotFoundException", "Cluster not found.")
        return name

    def register(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        family, tags = given["family"], given.get("tags", [])
        revisions = self.definitions.setdefault((region, family), [])
        number = len(revisions) + 1
        definition = {
            **{key: value for key, value in given.items() if key != "tags"},
            "taskDefinitionArn": f"arn:aws:ecs:{region}:{ACCOUNT}:task-definition/{family}:{number}",
            "revision": number,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"],
            "registeredAt": self.cloud.clock.now(),
        }
        revisions.append({"taskDefinition": definition, "tags": tags})
        return {"taskDefinition": definition, "tags": tags}

    def _definition(self, region: str, name: str) -> dict[str, Any]:
        family, _, revision = _last(name).partition(":")
        revisions = self.definitions.get((region, family), [])
        number = int(revision) if revision.isdecimal() else len(revisions)
        if not 0 < number <= len(revisions):
            raise EcsError("ClientException", "Unable to describe task definition.")
        return revisions[number - 1]

    def describe_definition(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        found = self._definition(region, given["taskDefinition"])
        return found if "TAGS" in given.get("include", []) else {"taskDefinition": found["taskDefinition"]}

    def list_definitions(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        prefix = given.get("familyPrefix", "")
        found = [
            revision["taskDefinition"]["taskDefinitionArn"]
            for (where, family), revisions in self.definitions.items()
            for revision in revisions
            if where == region and family.startswith(prefix)
        ]
        return {"taskDefinitionArns": found}

    # Services

    def create_service(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster, name = self._cluster(region, given), given["serviceName"]
        definition = self._definition(region, given["taskDefinition"])["taskDefinition"]
        now = self.cloud.clock.now()
        arn = f"arn:aws:ecs:{region}:{ACCOUNT}:service/{cluster}/{name}"
        settings = {"desiredCount": 1, **given}
        first = Deployment(definition, now - START, adopts=True)
        self.services[region, cluster, name] = Service(name, arn, cluster, region, settings, [first], created=now)
        self.tick()
        return {"service": self.shown(self.services[region, cluster, name])}

    def update_service(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        service = self._service(region, self._cluster(region, given), given["service"])
        kept = ("desiredCount", "deploymentConfiguration", "networkConfiguration", "platformVersion")
        service.settings |= {key: given[key] for key in kept if key in given}
        now, primary = self.cloud.clock.now(), service.deployments[0]
        wanted = given.get("taskDefinition", primary.definition["taskDefinitionArn"])
        definition = self._definition(region, wanted)["taskDefinition"]
        if definition is not primary.definition or given.get("forceNewDeployment"):
            for old in service.deployments:
                old.status = "ACTIVE"
                old.pending = 0
            # A deployment that never ran has nothing that could drain.
            service.deployments = [Deployment(definition, now), *(d for d in service.deployments if d.running)]
        self.tick()
        return {"service": self.shown(service)}

    def _service(self, region: str, cluster: str, name: str) -> Service:
        found = self.services.get((region, cluster, _last(name)))
        if found is None:
            raise EcsError("ServiceNotFoundException", "Service not found.")
        return found

    def describe_services(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster(region, given)
        found = [self.services.get((region, cluster, _last(name))) for name in given["services"]]
        missing = [name for name, service in zip(given["services"], found, strict=True) if service is None]
        return {
            "services": [self.shown(service) for service in found if service],
            "failures": [_missing(name) for name in missing],
        }

    def list_services(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster(region, given)
        return {"serviceArns": [s.arn for s in self.services.values() if (s.region, s.cluster) == (region, cluster)]}

    def shown(self, service: Service) -> dict[str, Any]:
        """A service as DescribeServices shows it."""
        hidden = {"cluster", "clientToken", "serviceName", "taskDefinition", "tags"}
        return {
            **{key: value for key, value in service.settings.items() if key not in hidden},
            "serviceArn": service.arn,
            "serviceName": service.name,
            "clusterArn": f"arn:aws:ecs:{service.region}:{ACCOUNT}:cluster/{service.cluster}",
            "status": "ACTIVE",
            "taskDefinition": service.deployments[0].definition["taskDefinitionArn"],
            "desiredCount": service.desired,
            "runningCount": sum(d.running for d in service.deployments),
            "pendingCount": sum(d.pending for d in service.deployments),
            "deployments": [
                {
                    "id": d.id,
                    "status": d.status,
                    "taskDefinition": d.definition["taskDefinitionArn"],
                    "desiredCount": service.desired if d.status == "PRIMARY" else 0,
                    "pendingCount": d.pending,
                    "runningCount": d.running,
                    "failedTasks": d.failed,
                    "createdAt": d.created,
                    "updatedAt": self.cloud.clock.now(),
                    "rolloutState": d.state,
                    "rolloutStateReason": d.reason or f"ECS deployment {d.id} in progress.",
                }
                for d in service.deployments
            ],
            "events": service.events[:100],
            "createdAt": service.created,
        }

    # Time

    def tick(self) -> None:
        """Bring every service to where it is now."""
        now = self.cloud.clock.now()
        for service in list(self.services.values()):
            self._roll(service, now)
        for task in list(self.tasks.values()):
            self._log(task, now)

    def _roll(self, service: Service, now: float) -> None:
        primary = service.deployments[0]
        if primary.state == "IN_PROGRESS":
            # A service that wants no task has none that could fail.
            if service.desired and not primary.adopts and self.fault(primary.definition, primary.id):
                self._fail(service, primary, now)
            else:
                self._advance(service, primary, now)
        service.deployments = [
            d
            for d in service.deployments
            if d.status == "PRIMARY" or d.state != "FAILED" or now < d.failed_at + KEEP_FAILED
        ]

    def _advance(self, service: Service, primary: Deployment, now: float) -> None:
        age = now - primary.created
        started = primary.adopts or age >= START
        primary.running, primary.pending = (service.desired, 0) if started else (0, service.desired)
        if started and (primary.adopts or age >= START + DRAIN):
            for old in service.deployments[1:]:
                self._stop_container(old.id)
            service.deployments = [primary, *(d for d in service.deployments[1:] if d.state == "FAILED")]
            primary.state, primary.reason = "COMPLETED", f"ECS deployment {primary.id} completed."
            service.say(f"(deployment {primary.id}) deployment completed.", now)
            service.say("has reached a steady state.", now)

    def _fail(self, service: Service, primary: Deployment, now: float) -> None:
        primary.pending, primary.running = service.desired, 0
        primary.failed = int((now - primary.created) / RETRY)
        breaker = service.settings.get("deploymentConfiguration", {}).get("deploymentCircuitBreaker", {})
        if primary.failed < BREAKER_THRESHOLD or not breaker.get("enable"):
            return
        primary.failed, primary.pending = BREAKER_THRESHOLD, 0
        primary.state, primary.failed_at = "FAILED", now
        why = self.fault(primary.definition, primary.id)
        primary.reason = f"ECS deployment circuit breaker: tasks failed to start. {why}"
        service.say(f"(deployment {primary.id}) deployment failed: tasks failed to start.", now)
        old = next((d for d in service.deployments[1:] if d.running), None)
        if breaker.get("rollback") and old:
            primary.status = "ACTIVE"
            back = Deployment(old.definition, now, adopts=True, running=service.desired)
            back.reason = f"ECS deployment circuit breaker: rolling back to deploymentId {old.id}."
            service.say(f"rolling back to deployment {old.id}.", now)
            service.deployments = [back, primary]
            self._move_container(old.id, back.id)
            # It is complete at the next look, so that a look in between can see it under way.

    # Containers

    def fault(self, definition: dict[str, Any], run: str) -> str:
        """Why the containers of a task definition cannot run, empty if they can. run: empty for one that never does."""
        pulled = self.own_container(definition) if self.engine and run else None
        for container in definition["containerDefinitions"]:
            # A real engine pulls for itself.
            if container != pulled and not self.image_exists(container["image"]):
                return f"CannotPullContainerError: {container['image']}: not found"
            if _variables(container).get("CRASH"):
                return "Essential container in task exited"
        return str(self.engine.fault(run, pulled)) if pulled else ""

    def own_container(self, definition: dict[str, Any]) -> dict[str, Any]:
        """The container that has an image of this cloud's registry, else the first one."""
        containers = definition["containerDefinitions"]
        own = (c for c in containers if c["image"].startswith(self.cloud.host))
        return dict(next(own, containers[0]))

    def _stop_container(self, run: str) -> None:
        if self.engine:
            self.engine.stop(run)

    def _move_container(self, old: str, new: str) -> None:
        if self.engine:
            self.engine.move(old, new)

    def image_exists(self, image: str) -> bool:
        """Whether an image of this cloud's registry is there; any other is taken for granted."""
        if not image.startswith(self.cloud.host + "/"):
            return True
        return self.stored_image(image) is not None

    def stored_image(self, image: str) -> Any:
        """moto's record of an image in this cloud's registry, or None."""
        from moto.ecr.models import ecr_backends

        named = images.parse(image)
        if named is None or named.registry != self.cloud.host:
            return None
        repository, tag, digest = named.repository, named.tag or "latest", named.digest
        for backend in ecr_backends[ACCOUNT].values():
            for stored in backend.repositories[repository].images if repository in backend.repositories else []:
                if stored.get_image_digest() == digest if digest else tag in stored.image_tags:
                    return stored
        return None

    def version(self, deployment: Deployment) -> str:
        """The tag of the image that a deployment runs."""
        image = self.own_container(deployment.definition)["image"]
        named = images.parse(image)
        stored = self.stored_image(image) if named and not named.tag else None
        return named.tag if named and named.tag else stored.image_tags[0] if stored and stored.image_tags else ""

    def answering(self, region: str, cluster: str, name: str) -> Deployment | None:
        """The deployment that answers the next request: those that run take turns, as behind a balancer."""
        with self.cloud.lock:
            self.tick()
            service = self.services.get((region, cluster, name))
            running = [d for d in service.deployments if d.running] if service else []
            self.turn += 1
            return running[self.turn % len(running)] if running else None

    # Tasks

    def run_task(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster(region, given)
        definition = self._definition(region, given["taskDefinition"])["taskDefinition"]
        token = given.get("clientToken", "")
        known = [t for t in self.tasks.values() if token and t.token == token]
        if not known:
            arn = f"arn:aws:ecs:{region}:{ACCOUNT}:task/{cluster}/{uuid.uuid4().hex}"
            known = [
                Task(
                    arn,
                    cluster,
                    definition,
                    self.cloud.clock.now(),
                    given.get("startedBy", ""),
                    f"family:{definition['family']}",
                    given.get("overrides", {}),
                    token=token,
                )
            ]
            self.tasks[arn] = known[0]
        return {"tasks": [self._shown_task(task) for task in known], "failures": []}

    def _all_tasks(self, cluster: str) -> list[Task]:
        """Those that were run once, and those of the services' deployments."""
        tasks = [task for task in self.tasks.values() if task.cluster == cluster]
        for service in self.services.values():
            if service.cluster != cluster:
                continue
            for d in service.deployments:
                prefix = f"arn:aws:ecs:{service.region}:{ACCOUNT}:task/{cluster}/{d.id.removeprefix('ecs-svc/')}"
                group = f"service:{service.name}"
                for number in range(d.running + d.pending + d.failed):
                    dies = d.failed and number < d.failed
                    arn = f"{prefix}{number:03d}"
                    lasts = 0.0 if dies else None
                    tasks.append(Task(arn, cluster, d.definition, d.created, d.id, group, lasts=lasts))
        return tasks

    def describe_tasks(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        known = {task.arn: task for task in self._all_tasks(self._cluster(region, given))}
        wanted = [next((a for a in known if arn in (a, _last(a))), arn) for arn in given["tasks"]]
        return {
            "tasks": [self._shown_task(known[arn]) for arn in wanted if arn in known],
            "failures": [_missing(arn) for arn in wanted if arn not in known],
        }

    def list_tasks(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        tasks = self._all_tasks(self._cluster(region, given))
        if "family" in given:
            tasks = [task for task in tasks if task.definition["family"] == given["family"]]
        if "serviceName" in given:
            tasks = [task for task in tasks if task.group == f"service:{_last(given['serviceName'])}"]
        if "startedBy" in given:
            tasks = [task for task in tasks if task.started_by == given["startedBy"]]
        status = given.get("desiredStatus", "RUNNING")
        return {"taskArns": [t.arn for t in tasks if self._shown_task(t)["desiredStatus"] == status]}

    def _shown_task(self, task: Task) -> dict[str, Any]:
        age = self.cloud.clock.now() - task.started
        fault = self.fault(task.definition, "") if task.lasts is not None else ""
        never = "Cannot" in fault
        stopped = task.lasts is not None and age >= task.lasts
        status = "STOPPED" if stopped else "RUNNING" if age >= min(START, 0.3) and not never else "PENDING"
        shown: dict[str, Any] = {
            "taskArn": task.arn,
            "clusterArn": f"arn:aws:ecs:{task.arn.split(':')[3]}:{ACCOUNT}:cluster/{task.cluster}",
            "taskDefinitionArn": task.definition["taskDefinitionArn"],
            "lastStatus": status,
            "desiredStatus": "STOPPED" if stopped else "RUNNING",
            "startedBy": task.started_by,
            "group": task.group,
            "launchType": "FARGATE",
            "overrides": task.overrides,
            "createdAt": task.started,
            "containers": [
                self._shown_container(task, c, status, fault) for c in task.definition["containerDefinitions"]
            ],
        }
        if stopped:
            failed = fault if never else "Essential container in task exited"
            code = "TaskFailedToStart" if never else "EssentialContainerExited"
            shown |= {"stoppedReason": failed, "stopCode": code, "stoppedAt": self.cloud.clock.now()}
        return shown

    def _shown_container(self, task: Task, container: dict[str, Any], status: str, fault: str) -> dict[str, Any]:
        stored = self.stored_image(container["image"])
        shown = {"name": container["name"], "image": container["image"], "lastStatus": status}
        if stored is not None:
            shown["imageDigest"] = stored.get_image_digest()
        if status == "STOPPED" and "Cannot" in fault:
            shown["reason"] = fault
        elif status == "STOPPED":
            variables = _variables(container)
            for override in task.overrides.get("containerOverrides", []):
                if override.get("name") == container["name"]:
                    variables |= _variables(override)
            crashed = 1 if variables.get("CRASH") else 0
            shown["exitCode"] = int(variables.get("EXIT_CODE", crashed))
        return shown

    def _log(self, task: Task, now: float) -> None:
        """Write what a task printed to CloudWatch, once it has stopped."""
        if task.logged or task.lasts is None or now < task.started + task.lasts:
            return
        task.logged = True
        for container in task.definition["containerDefinitions"]:
            options = container.get("logConfiguration", {}).get("options", {})
            group = options.get("awslogs-group")
            lines = [text for text in _variables(container).get("LOG", "").split("|") if text]
            if not group or not lines or self.fault(task.definition, ""):
                continue
            from moto.logs.models import logs_backends

            logs = logs_backends[ACCOUNT][options.get("awslogs-region", task.arn.split(":")[3])]
            stream = f"{options.get('awslogs-stream-prefix', 'ecs')}/{container['name']}/{_last(task.arn)}"
            if group not in logs.groups:
                logs.create_log_group(group, {})
            logs.create_log_stream(group, stream)
            at = int(now * 1000)
            logs.put_log_events(group, stream, [{"timestamp": at, "message": line} for line in lines])


def _variables(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("environment", [])}


def _last(arn: str) -> str:
    return arn.rpartition("/")[2]


def _missing(arn: str) -> dict[str, str]:
    return {"arn": arn, "reason": "MISSING"}
