"""Every secret that goes in is a known word, and after every command that word is nowhere, in no encoding."""

import base64
import io
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from invoke import Context

from scripts.frame.errors import DeployError
from scripts.frame.files import temporary_folder
from tests.conftest import ROOT, CommandLine, EmbeddedCloud, Invoke, git
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_cli import ACCOUNT, OK
from tests.test_odd_text import TASKS, acts

# Signs of base64 and others that a URL encodes: each form of a word is another text.
WORDS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY0KEY0ID00X",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+access~key?0123456789abcdef",
    "AWS_SESSION_TOKEN": "canary//session+token==/0123456789abcdef",
    "GITHUB_TOKEN": "github_pat_canary0123456789abcdefghijklmn",
    "SLACK": "/services/TCANARY/BCANARY/canary0slack0path0123",
    "ECR": "canary-registry-token-0123456789abcdef",
    "GIT": "canarygituser:canary-git-password-0123456789",
    "PROXY": "canaryproxyuser:canary-proxy-password-012345",
    "OKTA": "canary-okta-0123456789",
    "SSM": "canary-ssm-parameter-0123456789",
}
FOUND = Reply(json.dumps({"imageDetails": [{"imageDigest": f"sha256:{'0' * 64}"}]}).encode())
NOT_FOUND = Reply(b'{"__type": "ImageNotFoundException"}', 400)
REGISTRY = base64.b64encode(f"AWS:{WORDS['ECR']}".encode()).decode()


def forms(word: str) -> set[str]:
    """A secret as it may be written: as it is, percent-encoded, in base64 at any offset; of user:word the word."""
    found = {word, quote(word), quote(word, safe="")}
    for offset in range(3):
        # Without the ends, which depend on what is beside it.
        whole = base64.b64encode(b" " * offset + word.encode()).decode()
        found.add(whole[4 if offset else 0 : (len(word) + offset) // 3 * 4])
    return found | ({word.partition(":")[2]} if ":" in word else set())


def leaks(text: str, without: tuple[str, ...] = ()) -> list[str]:
    """The names of the secrets that a text holds, but for the lines that have Actions mask them."""
    shown = "\n".join(line for line in text.splitlines() if not line.startswith("::add-mask::"))
    return [name for name, word in WORDS.items() if name not in without and any(one in shown for one in forms(word))]


@dataclass
class Canary:
    """A machine full of secrets: the real AWS of dev, GitHub and Slack are stand-ins, docker and yarn are stubs.

    quotes: whether every server quotes what it was sent in the words of its refusal.
    """

    folder: Path
    aws: StandIn
    quotes: bool = False

    def answer(self, method: str, path: str) -> Reply:
        """What each service says."""
        request = self.aws.requests[-1]
        if self.quotes:
            return refusal(request, path)
        operation = request["headers"].get("X-Amz-Target", "").rpartition(".")[2]
        registry = {"authorizationData": [{"authorizationToken": REGISTRY}]}
        if operation == "GetAuthorizationToken":
            return Reply(json.dumps(registry).encode())
        if operation == "DescribeImages":
            return FOUND if (self.folder / "pushed").exists() else NOT_FOUND
        if path.startswith(WORDS["SLACK"]):
            return Reply(b"ok")
        if path.endswith("/pulls"):
            return Reply(b'{"html_url": "https://github.com/owner/app/pull/9"}', 201)
        if path.endswith("/healthcheck"):
            return Reply(b'{"version": "x"}')
        if path.startswith("/a-bucket") and method == "GET":
            return Reply(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        return OK if "/functions/" in path else DENIED

    def left(self) -> str:
        """What is in files that commands have made, and what programs were given as arguments."""
        ours = [path for name in ("tmp", "work") for path in (self.folder / name).rglob("*") if path.is_file()]
        files = [path for path in [*ours, self.folder / "argv"] if path.exists() and ".git" not in path.parts]
        return "\n".join(path.read_text(errors="replace") for path in files)


def refusal(request: dict[str, Any], path: str) -> Reply:
    """An error in whose first line, and behind it, is all that the server was sent."""
    heard = " ".join(f"{name}={value}" for name, value in request["headers"].items())
    said = f"no: {path} {heard} {request['body'][:2000]!r}\n\nThe Canonical String should have been\n{heard}"
    if path.startswith("/a-bucket"):
        text = said.replace("&", "&amp;").replace("<", "&lt;")
        return Reply(f"<Error><Code>SignatureDoesNotMatch</Code><Message>{text}</Message></Error>".encode(), 403)
    code = "InvalidSignatureException" if "ecr" in heard.lower() else "AccessDeniedException"
    body = json.dumps({"__type": code, "message": said}).encode()
    return Reply(body, 422 if path.endswith("/pulls") else 400, {"x-amzn-ErrorType": code})


STUB = """#!/bin/sh
echo "$0 $@" >> {folder}/argv
if [ "$1" = login ]; then
  cat > $DOCKER_CONFIG/config.json
  stat -c '%a' $DOCKER_CONFIG >> {folder}/modes
fi
[ "$2" = push ] && touch {folder}/pushed
exit 0
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """Every secret is set where people and workflows set it."""
    for name in ("bin", "tmp", "work", "work/site"):
        (tmp_path / name).mkdir()
    for name in ("docker", "yarn"):
        program = tmp_path / "bin" / name
        program.write_text(STUB.format(folder=tmp_path))
        program.chmod(0o755)
    with stand_in(lambda method, path: here.answer(method, path)) as server:
        here = Canary(tmp_path, server)
        settings = (ROOT / "environments.toml").read_text()
        for site in ("https://dev.mint", "https://impl.mint", "https://mint"):
            settings = settings.replace(f'"{site}.cms.gov"', f'"{server.url}"')
        (tmp_path / "settings.toml").write_text(settings)
        (tmp_path / "work" / "site" / "index.html").write_text("<title>x</title>")
        (tmp_path / "Dockerfile").write_text("FROM scratch")
        secrets = {name: WORDS[name] for name in WORDS if name.startswith(("AWS_", "GITHUB_"))}
        variables = {
            **ACCOUNT,
            **secrets,
            "AWS_ENDPOINT_URL": server.url,
            "SLACK_WEBHOOK_URL": server.url + WORDS["SLACK"],
            "GITHUB_API_URL": server.url,
            "GITHUB_REPOSITORY": "owner/app",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_RUN_ID": "1",
            "GITHUB_JOB": "deploy",
            "GITHUB_ACTOR": "octocat",
            "OKTA_CLIENT_ID_DEV": WORDS["OKTA"],
            "OKTA_SERVER_ID_DEV": WORDS["OKTA"],
            "LD_CLIENT_ID_DEV": WORDS["OKTA"],
            "STATIC_S3_BUCKET": "a-bucket",
            "HTTPS_PROXY": f"http://{WORDS['PROXY']}@127.0.0.1:9",
            "ENVIRONMENTS_FILE": str(tmp_path / "settings.toml"),
            "TMPDIR": str(tmp_path / "tmp"),
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", None)
        repository(tmp_path / "work")
        monkeypatch.chdir(tmp_path / "work")
        yield here


def repository(folder: Path) -> None:
    """A checkout of a remote whose URL for fetching has a password, and that is reached without it all the same."""
    remote = folder.parent / "remote.git"
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
    (folder / "page").write_text("one")
    git(folder, "add", "page")
    git(folder, "commit", "--quiet", "-m", "Begin")
    url = f"https://{WORDS['GIT']}@github.invalid/owner/app.git"
    git(folder, "remote", "add", "origin", url)
    git(folder, "config", f"url.{remote}.insteadOf", url)
    git(folder, "push", "--quiet", "origin", "main")
    git(folder, "fetch", "--quiet", "origin")


@pytest.fixture
def debug() -> Iterator[io.StringIO]:
    """The log as Invoke's --debug turns it on: every logger of every library."""
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield log
    root.removeHandler(handler)
    root.setLevel(level)


def flags_of(canary: Canary) -> dict[str, dict[str, object]]:
    """Flags with which each command does the most it can here."""
    folder = str(canary.folder)
    return {
        "deploy": {"tag": "x", "no_build": True, "build_dir": f"{folder}/work/site"},
        "build-image": {"tag": "x", "file": f"{folder}/Dockerfile", "context": folder},
        "deploy-service": {"tag": "x", "no_wait": True},
        "healthcheck": {"version": "x", "timeout": "0.2"},
        "migrate-database": {"tag": "x"},
        "release-static": {"no_build": True, "build_dir": f"{folder}/work/site"},
        "release-storybook": {"bucket": "a-bucket", "build_dir": f"{folder}/work/site"},
        "check-image": {"tag": "x", "timeout": "0.2"},
        "revert": {"commit": "main", "env": None},
        "announce-failure": {"step": "x", "reason": "x"},
        "package-ecs-manager": {"output": f"{folder}/tmp/manager.zip", "env": None},
        "local.up": {"dry_run": True, "env": "local"},
        "local.down": {"dry_run": True, "env": "local"},
        "local.status": {"dry_run": True, "env": "local"},
    }


@pytest.mark.parametrize("quotes", [False, True], ids=["servers that answer", "servers that quote what they are sent"])
@pytest.mark.parametrize("actions", [True, False], ids=["in Actions", "at home"])
def test_no_secret_leaves(
    quotes: bool,
    actions: bool,
    canary: Canary,
    debug: io.StringIO,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every command: not in what it prints or logs, in its files, or in the arguments of programs."""
    canary.quotes = quotes
    if actions:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            monkeypatch.setenv(name, str(canary.folder / "work" / name))
    found, codes = {}, {}
    for name, task in TASKS.items():
        given = {argument.name.replace("-", "_"): argument.default for argument in task.get_arguments()}
        try:
            task.body(Context(), **{**given, "env": "dev", "json": True, **flags_of(canary).get(name, {})})
            codes[name] = 0
        except DeployError as error:
            codes[name] = error.code
            print(error, file=sys.stderr)
        printed, said = capsys.readouterr()
        # What the frontend's build sees is public once it is built: its plan shows it.
        public = ("OKTA",) if name in ("build-frontend", "deploy") else ()
        where = {"stdout": printed, "stderr": said, "log": debug.getvalue(), "files": canary.left()}
        found |= {f"{name}: {place}": leaks(text, public) for place, text in where.items() if leaks(text, public)}
        debug.seek(0)
        debug.truncate()

    assert found == {}
    signed = [request["headers"] for request in canary.aws.requests if "X-Amz-Date" in request["headers"]]
    assert all(WORDS["AWS_SESSION_TOKEN"] in str(headers) for headers in signed)
    succeeded = {name for name, code in codes.items() if code == 0}
    expected = {"settings", "announce-failure", "package-ecs-manager", "build-frontend"}
    assert succeeded >= (expected if quotes else expected | {"build-image", "deploy-service", "revert", "status"})
    sent = str([request["headers"] for request in canary.aws.requests])
    assert WORDS["GITHUB_TOKEN"] in sent


@pytest.mark.parametrize(
    "words",
    [
        ["build-image", "--env=dev", "--tag=x", "--file=../Dockerfile", "--context=.."],
        ["release-static", "--env=dev", "--no-build", "--build-dir=site"],
        ["revert", "--commit=main"],
        ["settings", "--env=dev"],
    ],
    ids=lambda words: words[0],
)
def test_invoke_with_debug_shows_no_secret(words: list[str], canary: Canary, invoke: Invoke) -> None:
    """`invoke -d`: its own log, and that of sh, botocore and urllib3."""
    done = invoke("-d", f"--search-root={ROOT}", *words, cwd=canary.folder / "work")

    assert "DEBUG" in done.stderr or "invoke." in done.stderr
    assert "Traceback" not in done.stderr
    assert leaks(done.stderr + done.stdout + canary.left()) == []


def test_the_registrys_token_is_read_by_this_user_alone_and_gone_afterwards(canary: Canary, invoke: Invoke) -> None:
    """docker keeps it in a folder of our own."""
    where = [f"--file={canary.folder}/Dockerfile", f"--context={canary.folder}"]
    done = invoke("build-image", "--env=dev", "--tag=x", *where)

    assert done.returncode == 0, done.stderr
    assert (canary.folder / "modes").read_text() == "700\n"
    assert list((canary.folder / "tmp").iterdir()) == []


def test_a_command_that_is_stopped_shows_no_secret_and_leaves_none(
    canary: Canary, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a push by docker, of a call of the Lambda, and of a message to Slack."""
    docker = canary.folder / "bin" / "docker"
    hang = f'if [ "$2" = push ]; then touch {canary.folder}/busy; sleep 30; fi; exit 0'
    docker.write_text(docker.read_text().replace("exit 0", hang))
    answer, hangs = canary.answer, [WORDS["SLACK"], "/functions/"]

    def answer_late(method: str, path: str) -> Reply:
        if any(word in path for word in hangs):
            (canary.folder / "busy").touch()
            return Reply(b"", delay=1, drop=True)
        return answer(method, path)

    canary.aws.answer = answer_late
    commands = {
        ("build-image", "--env=dev", "--tag=x", f"--file={canary.folder}/Dockerfile", f"--context={canary.folder}"): 3,
        ("deploy-service", "--env=dev", "--no-image"): 3,
        ("announce-failure", "--env=dev"): 3,
    }
    for words, code in commands.items():
        running = command_line.start(["-d", *words], ROOT, dict(os.environ))
        with ThreadPoolExecutor(2) as pool:
            streams = [pool.submit(stream.read) for stream in (running.stdout, running.stderr)]
            wait_for(canary.folder / "busy")
            os.kill(running.pid, signal.SIGTERM)
            ended = running.wait()
            said = "".join(stream.result() for stream in streams)
        running.close()
        (canary.folder / "busy").unlink()

        assert (ended, "stopped by SIGTERM" in said) == (code, True), said
        assert leaks(said + canary.left()) == []
        assert list((canary.folder / "tmp").iterdir()) == []


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


BUG = """
import os, sys, threading
sys.path.insert(0, {root!r})
import scripts.settings, tasks

def settings(run):
    def fail():
        raise ValueError("\\n::error::" + " ".join(os.environ[name] for name in {names!r}))
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()

scripts.settings.settings = settings
namespace = tasks.namespace
"""


def test_the_traceback_of_a_bug_shows_no_secret(canary: Canary, tmp_path: Path) -> None:
    """It is shown, with what acts and what is secret in its message made harmless, and that of a thread too."""
    names = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "SLACK_WEBHOOK_URL"]
    (tmp_path / "bug.py").write_text(BUG.format(root=str(ROOT), names=names))
    words = ["-m", "invoke", "-c", "bug", f"--search-root={tmp_path}", "settings", "--env=dev"]
    env = {**os.environ, "GITHUB_ACTIONS": "true"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last):") == 2
    assert done.stderr.count("ValueError: ") == 2
    assert "in fail" in done.stderr
    assert leaks(done.stderr + done.stdout) == []
    assert acts(done.stderr) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_temporary_folder_is_this_users_alone(umask: int, canary: Canary) -> None:
    """Whatever the umask is."""
    before = os.umask(umask)
    try:
        with temporary_folder("x-") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_the_password_of_a_proxy_or_a_remote_is_not_in_the_error(canary: Canary, invoke: Invoke) -> None:
    """Where the proxy cannot be reached, and where git cannot reach the remote."""
    git(canary.folder / "work", "config", "--unset-all", f"url.{canary.folder / 'remote.git'}.insteadOf")
    at_aws = invoke("deploy-service", "--env=dev", "--no-image", AWS_ENDPOINT_URL="https://aws.invalid")
    to_slack = invoke("announce-failure", "--env=dev", SLACK_WEBHOOK_URL=f"https://slack.invalid{WORDS['SLACK']}")
    fetched = invoke(f"--search-root={ROOT}", "revert", "--commit=main", cwd=canary.folder / "work")

    for done in (at_aws, to_slack, fetched):
        assert leaks(done.stderr + done.stdout) == []
    # Whether somebody holds the lock cannot be asked, so nothing was changed.
    assert at_aws.returncode == 2
    assert "roxy" in at_aws.stderr
    assert fetched.returncode != 0


def test_the_services_own_secrets_stay_in_ssm(cloud: EmbeddedCloud, invoke: Invoke) -> None:
    """Who deploys sees their names and never their values."""
    for name in ("/local/mint-app/PASSWORD", "/local/mint-app/TOKEN"):
        cloud.client("ssm").put_parameter(Name=name, Value=WORDS["SSM"], Type="SecureString")

    done = invoke("-d", "deploy-service", "--no-image", "--json", **cloud.env)

    assert done.returncode == 0, done.stderr
    assert leaks(done.stderr + done.stdout) == []


def test_a_leak_would_be_found() -> None:
    """In each encoding, at any offset."""
    word = WORDS["AWS_SESSION_TOKEN"]
    for prefix in ("", "x", "ab", "AWS:"):
        assert leaks(base64.b64encode(f"{prefix}{word} and more".encode()).decode()) == ["AWS_SESSION_TOKEN"]
    assert leaks(f"x={quote(word, safe='')}") == ["AWS_SESSION_TOKEN"]
    assert leaks(f"::add-mask::{word}\n") == []
    assert leaks("nothing") == []
