"""Text from outside, through every source that there is, at every place where it ends up: shown, and nothing acts."""

import io
import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from invoke import Context

from scripts.frame.errors import DeployError
from tests.conftest import ROOT, git
from tests.stand_in import DENIED, Reply, StandIn, stand_in
from tests.test_cli import ACCOUNT, KEYS
from tests.test_odd_text import TASKS, acts

PIECES = [
    "\n::error::hostile",
    "\r\n  ::add-mask::e",
    "\r::stop-commands::hostile",
    "\n::set-output name=digest::hostile",
    "\ndigest=hostile",
    "\ndigest<<EOF\nhostile\nEOF",
    " ##[error]hostile",
    "\x1b[31m\x1b]8;;http://hostile\x07",
    "\x9b1m\x7f\x08\x00",
    "\u202etxt.exe\u2028\u200b\ufeff",
    " | a | cell |",
    " <img src=x onerror=y> <!-- </pre><script>x</script>",
    "\n```\n# heading\n- item\n1. item\n```\n",
    " @everyone @team/x",
    " closes #1",
    " fixes owner/app#2",
    " [x](javascript:hostile) ![x](http://hostile/x.png) www.hostile.example",
    " <!channel> <@U1> <http://hostile|click> &lt;!here&gt;",
    " & &amp; * _ ~~ $x$ \\",
    " https://user:hunter2@hostile.example/",
    "\u00e9\u6f22\U0001f642",
]
NASTY = "hostile" + "".join(PIECES)
# In JSON a half of a surrogate pair may stand, and in a line of a program bytes that are no text.
ALL = NASTY + "\ud800" + "x" * 10_000
BYTES = NASTY.encode() + b"\xff\xfe\n"
ARN = "arn:aws:ecs:us-west-2:1:task-definition/mint-app:42"
# Names of the outputs that commands have.
OUTPUTS = {"image", "pinned", "digest", "task-definition", "deployment-id", "version", "task", "snapshot", "findings"}
OUTPUTS |= {"release", "branch", "pull-request", "url", "invalidation", "site"}


@dataclass
class Sinks:
    """Where text ends up, and the folder of a run in Actions. said: what went to stderr, printed: to stdout."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    aws: StandIn
    said: str = ""
    printed: str = ""
    error: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)

    def run(self, name: str, env: str | None = "dev", **flags: object) -> str:
        """Run a command in this process, and check all that it told. Returns what it said."""
        task = TASKS[name]
        given = {argument.name.replace("-", "_"): argument.default for argument in task.get_arguments()}
        try:
            task.body(Context(), **{**given, "env": env, "json": True, **flags})
        except DeployError as error:
            self.error = str(error)
        self.printed, self.said = self.capsys.readouterr()
        check_log(self.said + self.printed)
        check_log(self.error)
        json.loads(self.printed)
        for path in self.folder.glob("GITHUB_*"):
            {"GITHUB_OUTPUT": check_outputs, "GITHUB_STEP_SUMMARY": check_markdown}[path.name](path.read_text())
        return self.said

    def answers(self, replies: Mapping[str, Any]) -> None:
        """What AWS answers: operation, or a word of the path -> a document, or the whole reply."""
        for name, reply in replies.items():
            made = reply if isinstance(reply, Reply) else Reply(json.dumps(reply).encode())
            self.replies[name] = made


def check_log(said: str) -> None:
    """A terminal and the runner of Actions see text, and our own commands in whole lines."""
    assert acts(said) == []
    for line in said.splitlines():
        if "::add-mask::" in line:
            assert line.startswith("::add-mask::")
            assert "hostile" not in line
    assert "user:hunter2@" not in said


def check_outputs(content: str) -> None:
    """One line for each output, whose name is one of ours."""
    names = [line.partition("=")[0] for line in content.splitlines()]
    assert set(names) <= OUTPUTS
    assert all("=" in line and "<<" not in line.partition("=")[0] for line in content.splitlines())
    assert acts(content) == []


# What GitHub makes something of: tags and comments, links and pictures, mentions, issues, addresses, code.
LIVE = re.compile(r"<(?!/?pre>)|\]\((?!https?://[\w./:-]+\))|@[A-Za-z]|(?<!&)#[0-9]|(?<!\()https?://|www\.|```|[*_~`$]")


# Our own headings, and links.
OURS = re.compile(r"### [\u274c\U0001f4dd\u2705] [\w.-]+ \u00b7 \w+|<details><summary>receipt</summary>|</details>")
LINK = re.compile(r"\[[^\]]*\]\(https?://[\w./:-]+\)")


def check_markdown(content: str) -> None:
    """GitHub shows it, and makes nothing of it but our own heading, table, block and links."""
    assert acts(content) == []
    # Between <pre> and </pre> nothing but HTML counts, and no blank line can end the block's text early.
    blocks = re.findall(r"<pre>(.*?)</pre>", content, re.DOTALL)
    rest = re.sub(r"<pre>.*?</pre>", "", content, flags=re.DOTALL)
    # The chart of the steps: our own names, and numbers.
    rest = re.sub(r"^```mermaid\ngantt\n(  [\w' .,:()%/-]+\n)+```$", "", rest, flags=re.MULTILINE)
    assert all("<" not in block and "@" not in block for block in blocks)
    assert "user:hunter2@" not in content
    for line in rest.splitlines():
        ours = "" if OURS.fullmatch(line) else LINK.sub("", line)
        assert not LIVE.search(ours), line
        if line.startswith("|"):
            assert line.count("|") == 4, line
        else:
            # A list of reasons is ours; what is in it starts nothing.
            assert not re.match(r"\s*([-+=#>]|\d+[.)])", ours.removeprefix("- ")), line


def check_slack(payload: Mapping[str, Any]) -> None:
    """Slack shows it: no mention, no link but ours, no control characters."""
    for text in [*payload["attachments"][0].values()]:
        if isinstance(text, str):
            assert "<" not in text
            assert ">" not in text
            assert not re.search(r"&(?!amp;|lt;|gt;)", text)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\ud800-\udfff]", text)
            assert "user:hunter2@" not in text


@pytest.fixture
def sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Sinks]:
    """GitHub Actions with an AWS that answers what a test sets, and denies everything else."""

    def answer(_: str, path: str) -> Reply:
        headers = here.aws.requests[-1]["headers"]
        operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
        return next((r for name, r in here.replies.items() if name in (operation, path) or name in path), DENIED)

    folder = tmp_path / "actions"
    folder.mkdir()
    text = (ROOT / "environments.toml").read_text()
    with stand_in(answer) as server:
        here = Sinks(folder, capsys, server)
        settings = tmp_path / "settings.toml"
        for site in ("https://dev.mint", "https://impl.mint", "https://mint"):
            text = text.replace(f'"{site}.cms.gov"', f'"{server.url}"')
        settings.write_text(text.replace('install = ["yarn", "install", "--frozen-lockfile"]', "install = []"))
        variables = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(folder / "GITHUB_OUTPUT"),
            "GITHUB_STEP_SUMMARY": str(folder / "GITHUB_STEP_SUMMARY"),
            "AWS_ENDPOINT_URL": server.url,
            "ENVIRONMENTS_FILE": str(settings),
            "STATIC_S3_BUCKET": "a-bucket",
        }
        for name, value in {**ACCOUNT, **KEYS, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        yield here


def reply(**response: Any) -> dict[str, Any]:
    """What the ECS manager answers."""
    return {"data": {"response": {"ResponseMetadata": {"HTTPStatusCode": 200}, **response}}}


def test_what_lambda_answers(sinks: Sinks) -> None:
    """Errors of the manager and of the function, unreadable replies, and what a success names."""
    failed = {"X-Amz-Function-Error": "Unhandled"}
    replies: list[Any] = [
        reply(title=ALL, message=ALL),
        {"level": ALL, "msg": ALL, "data": ALL},
        {"level": "critical", "msg": ALL, "data": {}},
        ALL,
        Reply(json.dumps({"errorType": ALL, "errorMessage": ALL}).encode(), headers=failed),
        Reply(json.dumps({"errorMessage": f"Task timed out {ALL}"}).encode(), headers=failed),
        Reply(BYTES),
        Reply(json.dumps({"message": ALL}).encode(), 403, {"x-amzn-ErrorType": "AccessDeniedException"}),
        reply(taskArn=ALL, taskStatus={"exitCode": 1, "stoppedReason": ALL}),
        reply(taskArn=ALL, taskStatus={"exitCode": ALL, "stopCode": ALL}),
        reply(taskArn=ALL, taskStatus={"exitCode": 0, "stoppedReason": ALL}),
    ]
    for one in replies:
        sinks.answers({"/functions/": one})
        assert "hostile" in sinks.run("run-task") + sinks.printed
    sinks.answers({"/functions/": reply(NewTaskdefArn=ALL, UpdatedServiceArns=[ALL])})
    assert "xxxxxxxx" in sinks.run("deploy-service", no_image=True, no_wait=True)


def service(text: str, state: str = "FAILED") -> dict[str, Any]:
    """A service as ECS describes it, with words of somebody else."""
    deployment = {
        "id": "ecs-svc/1",
        "status": "PRIMARY",
        "taskDefinition": ARN,
        "rolloutState": state,
        "rolloutStateReason": text,
        "createdAt": 1.0,
    }
    events = [{"id": "1", "createdAt": 2.0, "message": f"unable to place a task: {text}"}]
    return {"services": [{"status": "ACTIVE", "deployments": [deployment], "events": events}]}


def definition(text: str) -> dict[str, Any]:
    """A task definition with names of somebody else."""
    options = {"awslogs-group": text, "awslogs-stream-prefix": text}
    logs = {"logDriver": "awslogs", "options": options}
    container = {"name": text, "image": f"registry/mint-backend:{text}", "logConfiguration": logs}
    return {"taskDefinition": {"taskDefinitionArn": text, "containerDefinitions": [container]}}


def test_what_ecs_and_the_containers_say(sinks: Sinks) -> None:
    """Reasons, events, names and the lines that a migration prints."""
    lines = [{"timestamp": 1, "message": line, "logStreamName": "x"} for line in (ALL, *ALL.split("\n"))]
    sinks.answers(
        {
            "DescribeServices": service(ALL),
            "DescribeTaskDefinition": definition(ALL),
            "FilterLogEvents": {"events": lines},
            "/functions/": reply(taskArn=ALL, taskStatus={"exitCode": 0}),
            "/api/v1/healthcheck": {"version": "x"},
        }
    )

    followed = sinks.run("healthcheck", version="x", timeout="5", deployment_id="ecs-svc/1")
    migrated = sinks.run("migrate-database", tag="x")

    assert "unable to place a task: hostile" in followed
    assert migrated.count("hostile") > 10


def test_what_the_application_answers(sinks: Sinks) -> None:
    """Its version, wherever it is asked for."""
    sinks.answers({"/api/v1/healthcheck": {"version": ALL}})

    shown = [
        sinks.run("healthcheck", version="x", timeout="0.1"),
        sinks.run("check-image", running=True),
        sinks.run("check-image", tag="x", against_running=True),
        sinks.run("status"),
    ]
    TASKS["status"].body(Context(), env="dev", json=False, yes=False, dry_run=False)
    table = sinks.capsys.readouterr().out

    assert all("hostile" in said for said in shown[:2])
    check_log(table)
    assert len(table.splitlines()) == 2


def test_what_the_scanner_found(sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, packages and addresses of findings: as a table, as annotations, and in Slack."""
    basic = {
        "name": ALL,
        "severity": NASTY,
        "uri": NASTY,
        "attributes": [{"key": "package_name", "value": NASTY}, {"key": "package_version", "value": NASTY}],
    }
    package = {"name": NASTY, "version": NASTY, "fixedInVersion": NASTY}
    enhanced = {
        "title": NASTY,
        "severity": NASTY,
        "packageVulnerabilityDetails": {"sourceUrl": NASTY, "vulnerablePackages": [package]},
    }
    found = {"findings": [basic], "enhancedFindings": [enhanced]}
    sinks.answers(
        {"DescribeImageScanFindings": {"imageScanStatus": {"status": "COMPLETE"}, "imageScanFindings": found}}
    )
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"{sinks.aws.url}/slack")
    sinks.answers({"/slack": Reply(b"ok")})

    failed = sinks.run("check-image", tag="x")
    sinks.run("check-image", tag="x", announce=True)
    sinks.answers({"DescribeImageScanFindings": {"imageScanStatus": {"status": NASTY, "description": NASTY}}})
    unscanned = sinks.run("check-image", tag="x", timeout="0.1")

    assert failed.count("::error title=") == 3
    assert "hostile" in unscanned
    (sent,) = posted(sinks)
    check_slack(sent)
    assert "hostile" in sent["attachments"][0]["text"]


def posted(sinks: Sinks) -> list[dict[str, Any]]:
    """What Slack was sent."""
    bodies = [request["body"].decode() for request in sinks.aws.requests if request["path"] == "/slack"]
    return [json.loads(parse_qs(body)["payload"][0]) for body in bodies]


@pytest.mark.parametrize("answer", [Reply(NASTY.encode()), Reply(NASTY.encode(), 404)], ids=["200", "404"])
def test_what_people_and_github_name_reaches_slack_as_text(
    answer: Reply, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step and reason, actor, job and repository; and what Slack answers."""
    sinks.answers({"/slack": answer, "/api/v1/healthcheck": {"version": NASTY}})
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"{sinks.aws.url}/slack")
    monkeypatch.setenv("GITHUB_REF", "refs/heads/main")
    for name in ("GITHUB_RUN_ID", "GITHUB_JOB", "GITHUB_REPOSITORY", "GITHUB_ACTOR"):
        monkeypatch.setenv(name, NASTY.replace("\0", ""))

    sinks.run("announce-failure", step=NASTY * 20, reason=NASTY)

    (sent,) = posted(sinks)
    check_slack(sent)
    assert sent["attachments"][0]["text"].count("hostile") > 5


SHA = "0" * 64
RELEASE = {"version": NASTY, "at": 1700000000, "actor": NASTY, "run": NASTY}
MANIFEST = {
    "format": 1,
    "application": "mint-app",
    "environment": "dev",
    "pending": [],
    "releases": [
        {"release": {"id": f"1{NASTY}", **RELEASE}, "files": {f"1{NASTY}": [SHA, 1, "e", 0]}, "without": []},
        {"release": {"id": f"2{NASTY}", **RELEASE}, "files": {f"2{NASTY}": [SHA, 1, "e", 0]}, "without": []},
    ],
    "headers": [{"Cache-Control": "no-cache"}],
}
HOLDER = {"id": NASTY, "actor": NASTY, "run": NASTY, "host": NASTY, "pid": 0, "expires": 4_000_000_000}
LISTING = """<ListBucketResult><IsTruncated>false</IsTruncated>
<Contents><Key>_release/manifest.json</Key><ETag>e</ETag><Size>1</Size></Contents>
<Contents><Key>_release/lease.json</Key><ETag>e</ETag><Size>1</Size></Contents></ListBucketResult>"""


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, {**MANIFEST, "environment": NASTY}, {NASTY: NASTY}],
    ids=["releases", "of another environment", "damaged"],
)
def test_what_a_bucket_holds(manifest: Mapping[str, Any], sinks: Sinks) -> None:
    """Ids and actors of releases, keys of files, the holder of a lease."""
    sinks.answers({"manifest.json": manifest, "lease.json": HOLDER, "/a-bucket": Reply(LISTING.encode())})
    site = sinks.folder / "site"
    site.mkdir()
    (site / "index.html").write_text("<title>x</title>")

    for name in ("release.list", "release.diff", "release.verify", "release.rollback"):
        sinks.run(name)
        sinks.run(name, dry_run=True)
    sinks.run("release-static", no_build=True, build_dir=str(site))
    said = sinks.run("release.rollback", to=NASTY.replace("\0", ""))

    assert ("hostile" in said) == (NASTY not in manifest)


def test_what_s3_refuses_with(sinks: Sinks) -> None:
    """Code and message of its error."""
    escaped = NASTY.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", "", escaped)
    sinks.answers({"/a-bucket": Reply(f"<Error><Code>{text}</Code><Message>{text}</Message></Error>".encode(), 403)})

    assert "hostile" in sinks.run("release.list")


def stub(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that comes first on the PATH and knows where the nasty bytes are."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (folder / "nasty").write_bytes(BYTES)
    path = programs / name
    path.write_text(f"#!/bin/sh\nnasty='{folder / 'nasty'}'\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs), prepend=":")


@pytest.mark.parametrize("fails", [True, False])
def test_what_programs_print(fails: bool, sinks: Sinks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker and yarn, on both of their streams, in pieces and whether they fail or not."""
    code = f"cat $nasty; cat $nasty >&2; head -c 9 $nasty; exit {int(fails)}"
    stub(tmp_path, "docker", f'[ "$1" = version ] && exit 0; {code}', monkeypatch)
    stub(tmp_path, "yarn", code, monkeypatch)
    monkeypatch.setenv("OKTA_CLIENT_ID_DEV", "x")
    monkeypatch.setenv("OKTA_SERVER_ID_DEV", "x")
    monkeypatch.setenv("LD_CLIENT_ID_DEV", "x")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch")

    built = sinks.run("build-image", tag="x", no_push=True, file=str(dockerfile), context=str(tmp_path))
    frontend = sinks.run("build-frontend")
    stub(tmp_path, "docker", "cat $nasty >&2; exit 1", monkeypatch)
    no_engine = sinks.run("build-image", tag="x", no_push=True, file=str(dockerfile), context=str(tmp_path))

    assert all("hostile" in said for said in (built, frontend, no_engine))


GITHUB_SAYS = [
    Reply(json.dumps({"message": ALL, "errors": [{"message": NASTY}, NASTY]}).encode(), 422),
    Reply(json.dumps({"html_url": NASTY}).encode(), 201),
]


def commit(folder: Path, name: str, message: str) -> None:
    """Commit a file whose name and whose commit's words somebody else has chosen."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.exists()} {message[:20]}")
    git(folder, "add", "--all")
    (folder.parent / "message").write_text(message, errors="replace")
    git(folder, "commit", "--quiet", "--cleanup=verbatim", "--file", str(folder.parent / "message"))


def test_what_commits_and_github_say(sinks: Sinks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subjects and file names in the log, in a pull request and in a conflict; and what GitHub answers."""
    remote, folder = tmp_path / "remote.git", tmp_path / "checkout"
    subject = re.sub(r"[\n\r\x00]+", " ", NASTY)
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
    git(tmp_path, "clone", "--quiet", str(remote), str(folder))
    git(folder, "switch", "--quiet", "-c", "main")
    name = "migrations/" + re.sub(r"[/\x00]", "", NASTY)[:80]
    commit(folder, "page", "Begin")
    commit(folder, name, subject)
    git(folder, "push", "--quiet", "origin", "main")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/app")
    monkeypatch.setenv("GITHUB_TOKEN", "github_pat_x")
    monkeypatch.setenv("GITHUB_API_URL", sinks.aws.url)

    sinks.run("revert", env=None, dry_run=True)
    shown = []
    for answer in GITHUB_SAYS:
        sinks.answers({"/pulls": answer})
        shown.append("hostile" in sinks.run("revert", env=None, commit="main"))
        for where in (folder, remote):
            branches = git(where, "for-each-ref", "--format=%(refname:short)", "refs/heads/revert-*").split()
            for branch in branches:
                git(where, "branch", "--quiet", "-D", branch)
    sent = [json.loads(request["body"]) for request in sinks.aws.requests if request["path"].endswith("/pulls")]
    commit(folder, name, "Change the same lines")
    git(folder, "push", "--quiet", "origin", "main")
    conflict = sinks.run("revert", env=None, commit="main~1")

    assert len(sent) == len(GITHUB_SAYS)
    assert shown == [True, False]
    assert "hostile" in conflict
    for request in sent:
        assert acts(request["title"]) == []
        assert len(request["title"]) <= 256
        check_body(request["body"])


def check_body(body: str) -> None:
    """A pull request's text: our sentences and lists, and of the commit nothing that acts."""
    assert "hostile" in body
    for line in body.splitlines():
        words = re.sub(r"^(- |Reverts [0-9a-f]{40}: )", "", line)
        assert not LIVE.search(words), line


def test_what_a_person_gives(sinks: Sinks) -> None:
    """Every flag of a command at once; more of them in tests/test_odd_text.py."""
    text = NASTY.replace("\0", "").replace("user:hunter2@", "")
    for name, task in TASKS.items():
        flags = {
            argument.name.replace("-", "_"): text
            for argument in task.get_arguments()
            if argument.kind is not bool and argument.name != "env"
        }
        if flags:
            sinks.run(name, **{"env": "local" if name.startswith("local.") else "dev", **flags, "dry_run": True})


def test_a_terminal_gets_no_escapes_either(sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside Actions lines may begin as they like, and still nothing moves a cursor."""
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name)
    sinks.answers({"/functions/": reply(title=ALL, message=ALL)})
    task = TASKS["run-task"]
    given = {argument.name.replace("-", "_"): argument.default for argument in task.get_arguments()}

    with pytest.raises(DeployError) as error:
        task.body(Context(), **{**given, "env": "dev", "json": True})

    printed, said = sinks.capsys.readouterr()
    assert json.loads(printed)["exit_code"] == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", said + printed + str(error.value))
    assert "user:hunter2@" not in said + str(error.value)
    assert io.StringIO(str(error.value)).readline().startswith("dev-ecs-manager-docker failed: hostile")
