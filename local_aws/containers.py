"""Real containers behind the embedded ECS, run by this machine's Docker engine in the host's network.

Each deployment's own container gets a free port in the variable PORT. Containers have a label and are
removed by their ids.
"""

import json
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from local_aws.cloud import Cloud, free_port
from local_aws.registry import PASSWORD
from local_aws.tasks import EXITED, Stop

LABEL = "local-aws"
TIMEOUT = 60
# Of a container's output that are kept.
LINES = 50


@dataclass
class Container:
    """A container that was started, or why it could not be or ended."""

    id: str
    port: int
    fault: Stop | None = None


class Engine:
    """The containers of one cloud, by the id of the deployment that they belong to."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._containers: dict[str, Container] = {}
        self._logged_in = False

    def fault(self, run: str, container: dict[str, Any]) -> Stop | None:
        """Start a deployment's container at the first look. Returns why it does not run, if it does not."""
        if run not in self._containers:
            self._containers[run] = self._start(container)
        found = self._containers[run]
        if not found.fault:
            found.fault = self._ended(found.id, container["name"])
        return found.fault

    def _ended(self, container_id: str, name: str) -> Stop | None:
        """How a container has ended, with its exit code and its last lines; None while it runs."""
        try:
            state = self._docker("inspect", "--format={{.State.Running}} {{.State.ExitCode}}", container_id).split()
            if state[0] == "true":
                return None
            lines = self._docker("logs", f"--tail={LINES}", container_id, stderr=subprocess.STDOUT).splitlines()
            return replace(EXITED, exit_code=int(state[1]), container=name, prints=tuple(lines))
        except subprocess.CalledProcessError:
            return replace(EXITED, exit_code=1, container=name)

    def _start(self, container: dict[str, Any]) -> Container:
        port, made = free_port(), ""
        variables = {item["name"]: item["value"] for item in container.get("environment", [])} | {"PORT": str(port)}
        given = [f"--env={name}={value}" for name, value in variables.items()]
        try:
            self._log_in()
            self._docker("pull", "--quiet", container["image"])
            label = f"--label={LABEL}={self._cloud.port}"
            made = self._docker("create", "--network=host", label, *given, container["image"])
            self._docker("start", made)
            return Container(made, port)
        except subprocess.CalledProcessError as error:
            reason = f"Cannot{'Start' if made else 'Pull'}ContainerError: {' '.join(error.stderr.split())}"
            return Container(made, port, Stop("TaskFailedToStart", reason, None, container["name"], reason))

    def _log_in(self) -> None:
        if not self._logged_in:
            self._docker("login", "--username=AWS", "--password-stdin", self._cloud.host, stdin=PASSWORD)
            self._logged_in = True

    def ask(self, run: str, path: str) -> tuple[int, bytes]:
        """Send a GET to a deployment's container. Returns status and body of its response."""
        found = self._containers.get(run)
        if found is None or found.fault:
            return 503, json.dumps({"status": "no container"}).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found.port}{path}", timeout=2) as told:
                return told.status, told.read()
        except (urllib.error.URLError, OSError) as error:
            return 502, json.dumps({"status": str(error)}).encode()

    def move(self, old: str, new: str) -> None:
        """Hand a deployment's container over to the deployment that replaces it."""
        if old in self._containers:
            self._containers[new] = self._containers.pop(old)

    def stop(self, run: str) -> None:
        """Remove a deployment's container."""
        found = self._containers.pop(run, None)
        if found and found.id:
            with suppress(subprocess.CalledProcessError):
                self._docker("rm", "--force", found.id)

    def close(self) -> None:
        """Remove all containers."""
        for run in list(self._containers):
            self.stop(run)

    def _docker(self, *words: str, stdin: str | None = None, stderr: int = subprocess.PIPE) -> str:
        done = subprocess.run(
            ["docker", *words],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=True,
            timeout=TIMEOUT,
        )
        return done.stdout.strip()
