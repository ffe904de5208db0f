"""ECS as a deployment sees it: its requests. Services are in deployments.py, tasks in tasks.py, answers in shown.py."""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from local_aws import shown, stored_images, tasks
from local_aws.cloud import ACCOUNT, App, Cloud, StartResponse, answer, body_of
from local_aws.deployments import DRAIN, ENDED, KEEP_FAILED, RETRY, START, Change, Deployment, Service
from local_aws.scenarios import SCENARIOS, Scenario
from local_aws.tasks import KEEP_STOPPED, PULL, RUN, Stop, Task, last

__all__ = ["DRAIN", "KEEP_FAILED", "RETRY", "START", "Ecs", "EcsError"]

TARGET, LOGS = "AmazonEC2ContainerServiceV20141113.", "Logs_20140328."
# Of ARNs in one request.
MOST_ARNS = 20
T = TypeVar("T")


class EcsError(Exception):
    """An error as ECS reports it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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
        self.scenario, self.staged = SCENARIOS["healthy"], 0.0
        self._logged: dict[str, int] = {}
        self._overtaken: set[str] = set()

    # Requests

    def wrap(self, app: App) -> App:
        """Answer ECS's requests, and pass everything else on."""

        def ecs(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            target = environ.get("HTTP_X_AMZ_TARGET", "")
            if target.startswith(LOGS):
                self.write_logs()
            if not target.startswith(TARGET):
                return app(environ, start)
            region = environ.get("HTTP_AUTHORIZATION", "//us-west-2").split("/")[2]
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
            "DeleteService": self.delete_service,
            "DescribeServices": self.describe_services,
            "ListServices": self.list_services,
            "ListServiceDeployments": self.list_service_deployments,
            "DescribeServiceDeployments": self.describe_service_deployments,
            "DescribeServiceRevisions": self.describe_service_revisions,
            "StopServiceDeployment": self.stop_service_deployment,
            "ContinueServiceDeployment": self.continue_service_deployment,
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
        names = [last(name) for name in given.get("clusters", ["default"])]
        found = [self.clusters[region, name] for name in names if (region, name) in self.clusters]
        return {"clusters": found, "failures": [_missing(n) for n in names if (region, n) not in self.clusters]}

    def _cluster(self, region: str, given: dict[str, Any]) -> str:
        name = last(given.get("cluster", "default"))
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
        family, _, revision = last(name).partition(":")
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
        now = self.cloud.clock.now()
        arn = f"arn:aws:ecs:{region}:{ACCOUNT}:service/{cluster}/{name}"
        service = Service(name, arn, cluster, region, {"desiredCount": 1, **given}, created=now)
        if "taskDefinition" in given or service.controller != "EXTERNAL":
            service.adopt(self._definition(region, given["taskDefinition"])["taskDefinition"], now)
        self.services[region, cluster, name] = service
        self.tick()
        return {"service": shown.service(service, now)}

    def update_service(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        service, now = self._service(region, self._cluster(region, given), given["service"]), self.cloud.clock.now()
        if service.status(now) != "ACTIVE":
            raise EcsError("ServiceNotActiveException", "Service was not ACTIVE.")
        if "taskDefinition" in given and service.controller != "ECS":
            kind = service.controller
            message = f"Unable to update task definition on services with a {kind} deployment controller."
            raise EcsError("InvalidParameterException", message)
        kept = ("deploymentConfiguration", "networkConfiguration", "platformVersion", "deploymentController")
        service.settings |= {key: given[key] for key in kept if key in given}
        if "desiredCount" in given:
            service.scale(given["desiredCount"], now)
        if service.deployments and service.controller == "ECS":
            primary = service.deployments[0]
            wanted = given.get("taskDefinition", primary.definition["taskDefinitionArn"])
            definition = self._definition(region, wanted)["taskDefinition"]
            if definition is not primary.definition or given.get("forceNewDeployment"):
                service.begin(definition, now)
        self.tick()
        return {"service": shown.service(service, now)}

    def delete_service(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        service, now = self._service(region, self._cluster(region, given), given["service"]), self.cloud.clock.now()
        if service.desired and not given.get("force"):
            message = "The service cannot be stopped while it is scaled above 0."
            raise EcsError("InvalidParameterException", message)
        service.deleted = now
        service.scale(0, now)
        return {"service": shown.service(service, now)}

    def _service(self, region: str, cluster: str, name: str) -> Service:
        found = self.services.get((region, cluster, last(name)))
        if found is None:
            raise EcsError("ServiceNotFoundException", "Service not found.")
        return found

    def describe_services(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster, now = self._cluster(region, given), self.cloud.clock.now()
        found = [self.services.get((region, cluster, last(name))) for name in given["services"]]
        missing = [name for name, service in zip(given["services"], found, strict=True) if service is None]
        return {
            "services": [shown.service(service, now) for service in found if service],
            "failures": [_missing(name) for name in missing],
        }

    def list_services(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster = self._cluster(region, given)
        return {"serviceArns": [s.arn for s in self.services.values() if (s.region, s.cluster) == (region, cluster)]}

    # Service deployments and revisions

    def list_service_deployments(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        service, now = self._service(region, self._cluster(region, given), given["service"]), self.cloud.clock.now()
        span, wanted = given.get("createdAt", {}), given.get("status", [])
        after, before = span.get("after", 0), span.get("before", now + 1)
        made = reversed(service.changes) if service.controller == "ECS" else iter(())
        found = [shown.brief(service, change, now) for change in made if after <= change.created <= before]
        found = [change for change in found if not wanted or change["status"] in wanted]
        return _page("serviceDeployments", found, given, 20)

    def describe_service_deployments(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        arns, now = _few(given["serviceDeploymentArns"]), self.cloud.clock.now()
        known = {change.arn: (service, change) for service, change in self._changes(region)}
        return {
            "serviceDeployments": [shown.change(*known[arn], now) for arn in arns if arn in known],
            "failures": [_missing(arn) for arn in arns if arn not in known],
        }

    def describe_service_revisions(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        arns = _few(given["serviceRevisionArns"])
        known = {change.target.revision: (service, change.target) for service, change in self._changes(region)}
        found = [known[arn] for arn in arns if arn in known]
        return {
            "serviceRevisions": [shown.revision(service, d, self._digests(d)) for service, d in found],
            "failures": [_missing(arn) for arn in arns if arn not in known],
        }

    def stop_service_deployment(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        change = self._change(region, given)
        if given.get("stopType", "ROLLBACK") != "ROLLBACK":
            raise EcsError("InvalidParameterException", "stopType: the valid value is ROLLBACK.")
        if change.status in ENDED:
            message = f"The service deployment cannot be stopped because it is in the state {change.status}."
            raise EcsError("ConflictException", message)
        if change.status == "IN_PROGRESS":
            change.ask_back("Service deployment rolled back because of a user request.", self.cloud.clock.now() + 0.1)
        return {"serviceDeploymentArn": change.arn}

    def continue_service_deployment(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        change, now = self._change(region, given), self.cloud.clock.now()
        hook = next((h for h in change.hooks if h.id == given["hookId"] and h.status == "AWAITING_ACTION"), None)
        if hook is None or change.status in ENDED:
            raise EcsError("InvalidParameterException", "The service deployment does not wait at this hook.")
        hook.resolved, hook.status = now, "SUCCEEDED"
        if given.get("action", "CONTINUE") == "ROLLBACK":
            hook.status = "FAILED"
            change.ask_back("Service deployment rolled back because of a user request.", now)
        self.tick()
        return {"serviceDeploymentArn": change.arn}

    def _changes(self, region: str) -> Iterator[tuple[Service, Change]]:
        for service in self.services.values():
            if service.region == region:
                yield from ((service, change) for change in service.changes)

    def _change(self, region: str, given: dict[str, Any]) -> Change:
        arn = given["serviceDeploymentArn"]
        found = next((change for _, change in self._changes(region) if change.arn == arn), None)
        if found is None:
            raise EcsError("ServiceDeploymentNotFoundException", "Service deployment not found.")
        return found

    # Time

    def tick(self) -> None:
        """Bring all services and tasks to the state that they have at the current time."""
        now = self.cloud.clock.now()
        for service in self.services.values():
            service.roll(now, self._fault)
            self._overtake(service, now)
            for deployment in service.deployments:
                if deployment.running and not deployment.digests:
                    deployment.digests = self._digests(deployment)
            if self.engine:
                self._follow(service)

    def stage(self, scenario: Scenario) -> None:
        """Start a scenario. It applies to rollouts that begin from now on; what the one before held up goes on."""
        self.scenario, self.staged = scenario, self.cloud.clock.now()
        for service in self.services.values():
            serves = service.desired > 0
            service.overlay = scenario.configuration if serves else {}
            service.slower = scenario.slower if serves else 1.0
            service.hurry(self.staged)

    def _overtake(self, service: Service, now: float) -> None:
        """In a scenario with a colleague: start their deployment, once for each of ours."""
        change = service.changes[-1] if service.changes else None
        if not self.scenario.colleague or change is None or change.stage is None or not service.desired:
            return
        begins = change.created + self.scenario.colleague
        if now < begins or change.created < self.staged or change.arn in self._overtaken:
            return
        theirs = self.register(service.region, change.sources[0].definition)["taskDefinition"]
        self._overtaken.add(service.begin(theirs, now).arn)

    def _follow(self, service: Service) -> None:
        """Give containers to the deployments that took them over, and remove those of the past."""
        for deployment in service.deployments:
            if deployment.adopts:
                self.engine.move(deployment.adopts, deployment.id)
        for past in service.past:
            self.engine.stop(past.id)

    def _digests(self, deployment: Deployment) -> dict[str, str]:
        """The digests of a deployment's images, as they were when its tasks pulled them."""
        named = (c["image"] for c in deployment.definition["containerDefinitions"])
        there = (image for image in named if stored_images.exists(self.cloud, image))
        return deployment.digests or {image: stored_images.digest(self.cloud, image) for image in there}

    def _fault(self, deployment: Deployment) -> Stop | None:
        """Why tasks of a deployment fail."""
        if self.scenario.fault and deployment.created >= self.staged:
            return tasks.stop_of(stored_images.own_container(self.cloud, deployment.definition), self.scenario.fault)
        return self.fault(deployment.definition, deployment.id)

    def fault(self, definition: dict[str, Any], run: str = "") -> Stop | None:
        """Why the containers of a task definition cannot run. run: a deployment's id, empty for a task of its own.

        Images are looked up anew every time: a push may come late.
        """
        pulled = stored_images.own_container(self.cloud, definition) if self.engine and run else None
        for container in definition["containerDefinitions"]:
            # A real engine pulls for itself.
            if container != pulled and not stored_images.exists(self.cloud, container["image"]):
                return tasks.stop_of(container, "pull")
            asked = tasks.variables(container)
            if asked.get("FAULT") or asked.get("CRASH"):
                return tasks.stop_of(container, asked.get("FAULT", "crash"))
        found: Stop | None = self.engine.fault(run, pulled) if pulled else None
        return found

    def answering(self, region: str, cluster: str, name: str) -> Deployment | None:
        """The deployment that answers the next request of those that come through the balancer."""
        with self.cloud.lock:
            self.tick()
            service = self.services.get((region, cluster, name))
            self.turn += 1
            return service.answering(self.turn) if service else None

    # Tasks

    def run_task(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        cluster, now = self._cluster(region, given), self.cloud.clock.now()
        definition = self._definition(region, given["taskDefinition"])["taskDefinition"]
        token = given.get("clientToken", "")
        known = [t for t in self.tasks.values() if token and t.token == token]
        if not known:
            arn = f"arn:aws:ecs:{region}:{ACCOUNT}:task/{cluster}/{uuid.uuid4().hex}"
            stop = self.fault(definition) or tasks.EXITED
            task = Task(
                arn,
                cluster,
                definition,
                now,
                given.get("startedBy", ""),
                f"family:{definition['family']}",
                None if stop.before_start else now + PULL,
                now + RUN,
                stop,
                given.get("overrides", {}),
                token,
            )
            self.tasks[arn] = task
            known = [task]
        return {"tasks": [self._shown_task(task) for task in known], "failures": []}

    def all_tasks(self, cluster: str) -> list[Task]:
        """The tasks of RunTask and of the deployments."""
        found = [task for task in self.tasks.values() if task.cluster == cluster]
        for service in self.services.values():
            if service.cluster == cluster:
                for deployment in (*service.deployments, *service.past):
                    found.extend(tasks.of_deployment(service, deployment, RETRY))
        now = self.cloud.clock.now()
        return [task for task in found if task.stops is None or now < task.stops + KEEP_STOPPED]

    def describe_tasks(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        known = {task.arn: task for task in self.all_tasks(self._cluster(region, given))}
        wanted = [next((a for a in known if arn in (a, last(a))), arn) for arn in given["tasks"]]
        return {
            "tasks": [self._shown_task(known[arn]) for arn in wanted if arn in known],
            "failures": [_missing(arn) for arn in wanted if arn not in known],
        }

    def list_tasks(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        found, now = self.all_tasks(self._cluster(region, given)), self.cloud.clock.now()
        if "family" in given:
            found = [task for task in found if task.definition["family"] == given["family"]]
        if "serviceName" in given:
            found = [task for task in found if task.group == f"service:{last(given['serviceName'])}"]
        if "startedBy" in given:
            found = [task for task in found if task.started_by == given["startedBy"]]
        stopped = given.get("desiredStatus", "RUNNING") == "STOPPED"
        arns = [task.arn for task in found if (task.status(now) == "STOPPED") == stopped]
        return _page("taskArns", arns, given, 100)

    def _shown_task(self, task: Task) -> dict[str, Any]:
        return tasks.shown(task, self.cloud.clock.now(), lambda image: stored_images.digest(self.cloud, image))

    # Logs

    def write_logs(self) -> None:
        """Give CloudWatch what tasks have printed: nobody reads it before somebody asks CloudWatch."""
        with self.cloud.lock:
            self.tick()
            now = self.cloud.clock.now()
            for cluster in {cluster for _, cluster in self.clusters}:
                for task in self.all_tasks(cluster):
                    self._log(task, list(tasks.prints(task, now)))

    def _log(self, task: Task, lines: Sequence[tuple[str, str, str, float, str]]) -> None:
        from moto.logs.models import logs_backends

        new = lines[self._logged.get(task.arn, 0) :]
        self._logged[task.arn] = len(lines)
        for group, stream, region, at, line in new:
            logs = logs_backends[ACCOUNT][region]
            if group not in logs.groups:
                logs.create_log_group(group, {})
            if stream not in logs.groups[group].streams:
                logs.create_log_stream(group, stream)
            # Not through the backend: it refuses what is later than its own clock.
            logs.groups[group].put_log_events(stream, [{"timestamp": int(at * 1000), "message": line}])


def _page(name: str, items: Sequence[T], given: dict[str, Any], most: int) -> dict[str, Any]:
    """A page of items, and the token of the next one."""
    first, size = int(given.get("nextToken", 0)), min(given.get("maxResults", most), 100)
    reply: dict[str, Any] = {name: items[first : first + size]}
    return reply | ({"nextToken": str(first + size)} if first + size < len(items) else {})


def _few(arns: list[str]) -> list[str]:
    if len(arns) > MOST_ARNS:
        raise EcsError("InvalidParameterException", f"A maximum of {MOST_ARNS} ARNs can be given.")
    return arns


def _missing(arn: str) -> dict[str, str]:
    return {"arn": arn, "reason": "MISSING"}
