"""What every test runs in: no credentials, no home, no CI of the machine that it runs on."""

import compileall
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
from msgspec import structs

from tests import lines

# Before anything that it marks is imported.
lines.install()

from local_aws.cloud import ACCOUNT  # noqa: E402
from local_aws.server import Server  # noqa: E402
from scripts.frame import stop, waiting  # noqa: E402
from tests.command_line import keep_data  # noqa: E402
from tests.e2e import browser  # noqa: E402

keep_data()
# The same examples on every machine, however slow it is.
hypothesis.settings.register_profile(
    "tests", database=None, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("tests")
# What a shell starts with & ignores SIGINT, and so would every command of the tests.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
UNREACHED = ROOT / ".local" / "unreached.txt"


def pytest_configure(config: pytest.Config) -> None:
    """The processes of a run read the tests from different places on: what one has compiled, the others find."""
    given = getattr(config, "workerinput", None)
    if not given:
        return
    ignored = [Path(one).resolve() for one in config.option.ignore or ()]
    found = sorted(path for one in config.args for path in Path(one).resolve().rglob("test_*.py"))
    paths = [path for path in found if not any(path.is_relative_to(one) for one in ignored)]
    first = len(paths) * int(given["workerid"].removeprefix("gw")) // given["workercount"]
    for path in paths[first:] + paths[:first]:
        # pytest will tell what is wrong with it.
        with suppress(Exception):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Python looks for cycles in what the tests make, and not each time in all modules."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that outlives the tests is a failure."""
    if hasattr(session.config, "workerinput"):
        return
    marker, left = f"{lines.VARIABLE}={os.environ[lines.VARIABLE]}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            if marker in environment and int(process.name) != os.getpid():
                test = next((word for word in environment if word.startswith(b"PYTEST_CURRENT_TEST=")), b"")
                left.append(f"{(process / 'cmdline').read_bytes()!r} {test.decode()}")
    if left:
        print(*("", "left over:", *left), sep="\n", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After a whole run, how many lines of the project it reached."""
    if not config.option.file_or_dir and not config.option.collectonly:
        found = lines.reached()
        yes, no = (sum(len(part[index]) for part in found.values()) for index in (0, 1))
        UNREACHED.parent.mkdir(exist_ok=True)
        told = (f"{name}: {', '.join(map(str, missed))}\n" for name, (_, missed) in found.items() if missed)
        UNREACHED.write_text("".join(told))
        where = UNREACHED.relative_to(ROOT)
        terminalreporter.write_line(f"{yes / (yes + no):.1%} of {yes + no:,} lines reached, the others are in {where}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The folder of the marks goes with the run."""
    if not hasattr(config, "workerinput"):
        lines.remove()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own settings, keys or CI change what a test sees, nor what a test before it has done."""
    monkeypatch.setattr(stop._state, "changing", False)
    for name in list(os.environ):
        if name.startswith(("AWS_", "ECR_", "GITHUB_", "GIT_", "INVOKE_", "STATIC_", "STORYBOOK_", "OKTA_", "LD_")):
            monkeypatch.delenv(name)
    for name in ("APP_ENV", "CI", "ENVIRONMENTS_FILE", "SLACK_WEBHOOK_URL", "RUNNER_TEMP", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    # The example's frontend is built by several tests at the same time.
    monkeypatch.setenv("BUILD_PATH", str(tmp_path / "frontend"))
    # Hundreds of processes would compile the same files again.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *words: str) -> str:
    """Run git, for a test's own ends: in a fraction of the CPU time of `scripts.edges.git`. Returns what it printed."""
    fixed = {"core.quotePath": "false", "user.name": "Test", "user.email": "test@example.org", "init.templateDir": ""}
    given = [word for name, value in fixed.items() for word in ("-c", f"{name}={value}")]
    done = subprocess.run(["git", *given, *words], cwd=folder, check=True, capture_output=True, errors="replace")
    return done.stdout.rstrip("\n")


def copy_of_project(folder: Path, *left_out: str) -> Path:
    """A copy of the project without its tests, what was built, and other patterns of names.

    Its modules are compiled: to compile them takes longer than what a command does.
    """
    for name in ("scripts", "ecs_manager", "local_aws"):
        compileall.compile_dir(ROOT / name, quiet=1)
    # Another test may be compiling too: a file that is being written has an ending of its own.
    ignored = shutil.ignore_patterns("tests", "build", "*.pyc.*", *left_out)
    return Path(shutil.copytree(ROOT, folder, ignore=ignored))


@contextmanager
def commands_clock(now: Callable[[], float], sleep: Callable[[float], None]) -> Iterator[None]:
    """Commands in this process see another time during the block. now, sleep: as in `waiting.Clock`."""
    usual = structs.asdict(waiting.CLOCK)
    try:
        for name, value in {"now": now, "sleep": sleep}.items():
            structs.force_setattr(waiting.CLOCK, name, value)
        yield
    finally:
        for name, value in usual.items():
            structs.force_setattr(waiting.CLOCK, name, value)


class Invoke(Protocol):
    """Runs the real command line in a process of its own."""

    def __call__(self, *words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]: ...


class CommandLine:
    """The process that the commands of a test are forked from (tests/command_line.py): none of them has to start."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "socket")
        # The environment of a command comes with it; the process itself has none that could matter.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GITHUB_", "GIT_"))}
        self._process = subprocess.Popen([sys.executable, "-m", "tests.command_line", self._path], cwd=ROOT, env=kept)
        deadline = time.monotonic() + 60
        while not Path(self._path).exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def start(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> "Running":
        """Start one command."""
        return Running(self._path, {"words": words, "folder": str(folder), "environment": dict(environment)})

    def run(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run one command. Returns exit code (negative: the signal that ended it), stdout and stderr."""
        running = self.start(words, folder, environment)
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.submit(running.stdout.read), pool.submit(running.stderr.read)
            code = running.wait()
            texts = out.result(), err.result()
        running.close()
        return code, *texts


class Running:
    """A command that runs. pid: stays its own until `wait`. stdout, stderr: it waits for their reader."""

    def __init__(self, path: str, request: Mapping[str, object]) -> None:
        pipes = [os.pipe(), os.pipe()]
        self.stdout, self.stderr = (os.fdopen(ours, encoding="utf-8", errors="replace") for ours, _ in pipes)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(120)
        self._connection.connect(path)
        line = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._connection, [line], [theirs for _, theirs in pipes])
        self._connection.sendall(line[sent:])
        for _, theirs in pipes:
            os.close(theirs)
        self._answer = self._connection.makefile()
        self.pid = int(self._answer.readline())

    def wait(self) -> int:
        """How it ended: its exit code, or the signal's number below 0."""
        try:
            self._connection.sendall(b"\n")
            return int(self._answer.readline())
        except TimeoutError:
            os.killpg(self.pid, signal.SIGKILL)
            raise
        finally:
            self._answer.close()
            self._connection.close()

    def close(self) -> None:
        """Read nothing more of it."""
        self.stdout.close()
        self.stderr.close()


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    """One for all tests of this process."""
    with tempfile.TemporaryDirectory() as folder:
        line = CommandLine(Path(folder))
        yield line
        line.close()


@pytest.fixture
def invoke(command_line: CommandLine) -> Invoke:
    """`invoke("deploy-service", "--env=dev", APP_ENV="dev")`: exit code, stdout and stderr of a run."""

    def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        code, out, err = command_line.run(words, cwd, {**os.environ, **env})
        return subprocess.CompletedProcess(["invoke", *words], code, out, err)

    return run


@dataclass
class EmbeddedCloud:
    """The embedded AWS in this process, and what a subprocess needs to find it."""

    server: Server

    @property
    def url(self) -> str:
        return self.server.cloud.url

    @property
    def env(self) -> dict[str, str]:
        """Variables that make the commands work on it."""
        return {"APP_ENV": "local", "AWS_ENDPOINT_URL": self.url}

    def client(self, service: str, region: str = "us-west-2") -> Any:
        """A boto3 client of it."""
        return self.server.cloud.client(service, region)

    def requests(self, service: str = "", operation: str = "") -> list[dict[str, Any]]:
        """What it was asked since the test began, oldest first."""
        return [
            request
            for request in self.server.cloud.requests
            if service in ("", request["service"]) and operation in ("", request["operation"])
        ]

    def objects(self, bucket: str) -> dict[str, tuple[dict[str, str], bytes]]:
        """What a bucket holds: headers, with names in lower case, and body of each key.

        As the embedded S3 keeps it: asking for each object took most of the time of a test.
        """
        from moto.s3.models import s3_backends

        found = s3_backends[ACCOUNT]["aws"].buckets[bucket].keys
        return {
            key: ({name.lower(): value for name, value in kept.metadata.items()}, bytes(kept.value))
            for key, kept in found.items()
        }

    def distribution(self) -> str:
        """A new CloudFront distribution."""
        origin = {"Id": "o", "DomainName": "bucket.s3.amazonaws.com", "S3OriginConfig": {"OriginAccessIdentity": ""}}
        config = {
            "CallerReference": "1",
            "Comment": "",
            "Enabled": True,
            "Origins": {"Quantity": 1, "Items": [origin]},
            "DefaultCacheBehavior": {"TargetOriginId": "o", "ViewerProtocolPolicy": "allow-all"},
        }
        made = self.client("cloudfront").create_distribution(DistributionConfig=config)
        return str(made["Distribution"]["Id"])

    def push(self, tag: str, *repositories: str) -> list[str]:
        """Give each repository an image with a tag. Returns their digests."""
        ecr = self.client("ecr")
        digests = []
        for name in repositories:
            found = ecr.batch_get_image(repositoryName=name, imageIds=[{"imageTag": "v0"}])["images"][0]
            manifest = json.loads(found["imageManifest"]) | {"annotations": {"name": f"{name}:{tag}"}}
            put = ecr.put_image(repositoryName=name, imageTag=tag, imageManifest=json.dumps(manifest))
            digests.append(str(put["image"]["imageId"]["imageDigest"]))
        return digests

    def stop_clock(self) -> None:
        """Let its time stand still until the next test, but for `advance`."""
        self.server.cloud.clock.stop()

    def advance(self, seconds: float) -> None:
        """Move its clock on."""
        self.server.cloud.clock.advance(seconds)

    def fail(self, **rule: Any) -> None:
        """Break requests, as local_aws/control.py says."""
        self.server.cloud.failures.append(rule)

    def health(self) -> dict[str, Any]:
        """What the application answers."""
        with urllib.request.urlopen(f"{self.url}/api/v1/healthcheck") as answer:
            return dict(json.load(answer))


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """One embedded AWS for all tests of this process."""
    # moto would otherwise make 1,299 machine images anew for every test.
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    server = Server()
    os.environ["AWS_ENDPOINT_URL"] = server.cloud.url
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cloud(embedded_server: Server, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> EmbeddedCloud:
    """The embedded AWS, seeded anew."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", embedded_server.cloud.url)
    embedded_server.cloud.clock.stop(stopped=False)
    if embedded_server.cloud.written:
        embedded_server.reset()
        embedded_server.cloud.written = False
    else:
        embedded_server.forget()
    return EmbeddedCloud(embedded_server)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium. With REQUIRE_BROWSER set, the tests fail without it instead of being skipped."""
    found = browser.found()
    if not found and os.environ.get("REQUIRE_BROWSER"):
        pytest.fail("chromium is not installed")
    return found or pytest.skip("chromium is not installed")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A frontend that was built before."""
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>MINT</title>")
    return folder
