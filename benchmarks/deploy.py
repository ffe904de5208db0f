"""A whole deployment beside a script that makes the same calls with `aws` and `docker`, on an embedded AWS.

Both deploy the example of `examples/` to a new embedded AWS: migrations, service, healthcheck, frontend. The script
does what the old scripts did: it calls the Lambda, polls the healthcheck once a second and mirrors the folder. With a
Docker engine both also build and push the service's image; without one, its image is there before they start.

Wall seconds are those of AWS, too; CPU seconds are the tool's alone, its children included. At the end: how long
`deploy-service` takes from the end of a rollout to its last line.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".local" / "peers" / "bin"
INVOKE = [sys.executable, "-m", "invoke"]
OURS, SCRIPT = "ours", "aws and docker"

SCRIPT_TEXT = r"""
set -euo pipefail
call() { # function, qualifier, payload, what the reply must have
  aws lambda invoke --function-name "$1" --qualifier "$2" --payload "$3" "$WORK/reply.json" >/dev/null
  grep -q "$4" "$WORK/reply.json" || { cat "$WORK/reply.json"; exit 1; }
}
event() { # command, the rest of the body
  printf '{"command": "%s", "body": {"cluster_id": "local-mint-app", %s}}' "$1" "$2"
}
manager=local-ecs-manager-docker image="$REGISTRY/mint-backend:$VERSION"
ok='"HTTPStatusCode": 200' ended='"exitCode": 0'
if [ -n "$BUILD" ]; then
  aws ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY" >/dev/null 2>&1
  docker image build --quiet --no-cache --build-arg ARG_APPLICATION_VERSION="$VERSION" \
    --tag "$image" --file examples/backend/Dockerfile examples/backend >/dev/null
  docker image push --quiet "$image" >/dev/null
fi
call mint-app-db-clean-tmp 2 "$(event runtask '"service_id": "mint-app-db-clean"')" "$ended"
call "$manager" '$LATEST' "$(event deploy \
  '"service_ids": ["mint-app-db-migrate"], "image": "'"$REGISTRY/mint-db-migrate:$VERSION"'"')" "$ok"
call "$manager" '$LATEST' "$(event runtask '"service_id": "mint-app-db-migrate"')" "$ended"
call "$manager" '$LATEST' "$(event deploy \
  '"service_ids": ["mint-app"], "secrets": ["^/local/mint-app/\\S+$"], "image": "'"$image"'"')" "$ok"
tries=0
until curl --silent --max-time 2 "$AWS_ENDPOINT_URL/api/v1/healthcheck" | grep -q "\"version\": *\"$VERSION\""; do
  tries=$((tries + 1)); [ "$tries" -lt 300 ] || exit 1
  sleep 1
done
aws s3 sync --no-progress --delete examples/frontend/build s3://local-mint-app-static/ >/dev/null
"""


@dataclass(frozen=True)
class Run:
    """One deployment by one tool. calls: requests that AWS got. wall, cpu: seconds."""

    wall: float
    cpu: float
    calls: int


class Cloud:
    """An embedded AWS of its own for each deployment."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GITHUB_"))}
        self.env = {
            **kept,
            "PATH": f"{PEERS}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_EC2_METADATA_DISABLED": "true",
            "REGISTRY": f"127.0.0.1:{self.port}",
            "WORK": str(folder),
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def invoke(self, *words: str, **more: str) -> None:
        """Run a command of ours that is not measured."""
        subprocess.run([*INVOKE, *words], cwd=ROOT, env={**self.env, **more}, check=True, capture_output=True)

    def requests(self) -> list[Mapping[str, object]]:
        """The requests that AWS got."""
        token = (ROOT / ".local" / f"{self.port}.token").read_text().strip()
        asked = urllib.request.Request(f"{self.url}/_local/requests", headers={"X-Local-AWS-Token": token})
        with urllib.request.urlopen(asked) as answer:
            found: list[Mapping[str, object]] = json.loads(answer.read())
        return found


@contextmanager
def cloud(folder: Path, version: str, *, build: bool) -> Iterator[Cloud]:
    """A new embedded AWS with what both tools need: the images that they do not build, and a built frontend."""
    made = Cloud(folder)
    made.invoke("local.up", f"--port={made.port}")
    try:
        made.invoke("build-image", "--env=local", "--image=mint-db-migrate", f"--tag={version}")
        if not build:
            made.invoke("build-image", "--env=local", "--image=mint-backend", f"--tag={version}")
        made.invoke("build-frontend", "--env=local", GITHUB_SHA=version)
        yield made
    finally:
        made.invoke("local.down", f"--port={made.port}")


def measured(words: list[str], cloud: Cloud, version: str, *, build: bool) -> Run:
    """Run one tool as a whole process."""
    before = len(cloud.requests())
    env = {**cloud.env, "VERSION": version, "BUILD": "1" if build else "", "GITHUB_SHA": version}
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{words[:4]} failed: {output.read().decode(errors='replace')[-2000:]}")
    # Reading the record is a request too.
    return Run(wall, usage.ru_utime + usage.ru_stime, len(cloud.requests()) - before - 1)


def deploy(tool: str, number: int, folder: Path, *, build: bool) -> Run:
    """Deploy one version with one tool."""
    version = f"{number:040x}"
    with cloud(folder, version, build=build) as aws:
        if tool == SCRIPT:
            return measured(["bash", "-c", SCRIPT_TEXT], aws, version, build=build)
        if build:
            words = [
                "bash",
                "-c",
                '"$@" build-image --env=local && "$@" deploy --env=local --no-build',
                "bash",
                *INVOKE,
            ]
            return measured(words, aws, version, build=build)
        return measured([*INVOKE, "deploy", "--env=local", "--no-build", f"--tag={version}"], aws, version, build=build)


def after_the_rollout(folder: Path, rounds: int) -> list[float]:
    """Seconds from the end of a rollout, by the embedded AWS's clock, to the end of `deploy-service`."""
    sys.path.insert(0, str(ROOT))
    import boto3

    from local_aws.deployments import DRAIN, START

    took = []
    for number in range(rounds):
        version = f"{number + 1000:040x}"
        with cloud(folder, version, build=False) as aws:
            measured([*INVOKE, "deploy-service", "--env=local", f"--tag={version}"], aws, version, build=False)
            ended = time.time()
            keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-west-2"}
            ecs = boto3.client("ecs", endpoint_url=aws.url, **keys)
            service = ecs.describe_services(cluster="local-mint-app", services=["mint-app"])["services"][0]
            primary = next(one for one in service["deployments"] if one["status"] == "PRIMARY")
            took.append(ended - (primary["createdAt"].timestamp() + START + DRAIN))
    return took


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    engine = bool(shutil.which("docker")) and not subprocess.run(["docker", "version"], capture_output=True).returncode
    found: dict[str, list[Run]] = {OURS: [], SCRIPT: []}
    with tempfile.TemporaryDirectory() as top:
        # The tools alternate, so that a machine that slows down slows both.
        for number in range(rounds):
            for tool, runs in found.items():
                runs.append(deploy(tool, 1 + 2 * number + (tool == SCRIPT), Path(top), build=engine))
        gaps = after_the_rollout(Path(top), rounds)
    print(f"{'with' if engine else 'without'} building and pushing the service's image, medians of {rounds}\n")
    print("| | wall s | x ours | CPU s | x ours | calls of AWS |")
    print("|---|---|---|---|---|---|")
    middle = {
        tool: [statistics.median(getattr(run, key) for run in runs) for key in ("wall", "cpu", "calls")]
        for tool, runs in found.items()
    }
    wall, cpu, _ = middle[OURS]
    for tool, (its_wall, its_cpu, calls) in middle.items():
        row = f"{its_wall:.2f} | {its_wall / wall:.2f} | {its_cpu:.2f} | {its_cpu / cpu:.2f} | {calls:.0f}"
        print(f"| {tool} | {row} |")
    print(f"\nfrom the end of a rollout to the last line of deploy-service: {statistics.median(gaps):.2f} s")


if __name__ == "__main__":
    main()
