"""The jobs of the workflow files really deploy: tests/github.py runs them, and each `run:` line in bash."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_aws.server import Server
from tests.conftest import ROOT, EmbeddedCloud
from tests.github import Environment, GitHub, Run
from tests.local_aws.test_scenarios import stage
from tests.runner import ENVIRONMENTS, SHA, Runner, prepared
from tests.stand_in import Reply, StandIn, stand_in
from tests.test_workflows import NEXT, deployed, event, repository


@pytest.fixture
def slack() -> Iterator[StandIn]:
    """A Slack that accepts everything."""
    with stand_in(lambda *_: Reply(b"ok")) as server:
        yield server


@pytest.fixture
def runner(cloud: EmbeddedCloud, embedded_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A runner with a checkout whose dev, impl and prod are on the embedded AWS."""
    return prepared(cloud, embedded_server, tmp_path, monkeypatch, ROOT / "environments.toml", "main")


def started(runner: Runner, slack: StandIn) -> tuple[GitHub, Run]:
    """A push to main, on a repository whose deployments really run."""
    github = repository(runner)
    github.secrets |= {"SLACK_WEBHOOK_URL": f"{slack.url}/slack"}
    github.secrets |= {f"STATIC_S3_BUCKET_{name.upper()}": f"mint-static-{name}" for name in ENVIRONMENTS}
    return github, github.start("build.yml", event())


def pushed(runner: Runner) -> None:
    """Images and frontends as if the jobs that build had run."""
    server, migrations = runner.cloud.push(SHA, "mint-backend", "mint-db-migrate")
    runner.built = {"build_server_image": server, "build_db_migrate_image": migrations}
    runner.artifacts |= {f"frontend-{name}": runner.artifacts["storybook"] for name in ENVIRONMENTS}


def answers(cloud: EmbeddedCloud, name: str) -> str:
    """The version that an environment answers with."""
    with urllib.request.urlopen(f"{cloud.url}/{name}/api/v1/healthcheck") as answer:
        return str(json.load(answer)["version"])


def test_the_jobs_deploy_to_all_three_environments(runner: Runner, slack: StandIn) -> None:
    """Then each runs the version, the snapshots exist, and the frontends have their own values."""
    github, run = started(runner, slack)
    for name in ("impl", "prod"):
        assert run[f"deploy_{name}/approve"].state == "waiting", "\n".join(runner.log)
        github.approve(run, f"{name}_gate")

    assert deployed(run) == [*ENVIRONMENTS], "\n".join(runner.log)
    cloud, digests = (
        runner.cloud,
        {name: run[f"build_{name}"].outputs["digest"] for name in ("server_image", "db_migrate_image")},
    )
    s3, rds = cloud.client("s3"), cloud.client("rds")
    for name in ENVIRONMENTS:
        assert answers(cloud, name) == SHA
        page = s3.get_object(Bucket=f"mint-static-{name}", Key="index.html")["Body"].read().decode()
        script = re.search(r'src="/(assets/index-[^"]+\.js)"', page)
        assert script
        code = s3.get_object(Bucket=f"mint-static-{name}", Key=script[1])["Body"].read().decode()
        assert f'"REACT_APP_APP_ENV": "{name}"' in code
        assert f'"REACT_APP_OKTA_CLIENT_ID": "okta_client_id-of-{name}"' in code
        manual = rds.describe_db_snapshots(DBInstanceIdentifier=f"mint{name}", SnapshotType="manual")["DBSnapshots"]
        assert len(manual) == (0 if name == "dev" else 1)
    invoked = [r for r in cloud.requests("lambda", "Invoke") if "command" in r["parameters"]]
    assert [(r["path"].split("/")[3], r["parameters"]["command"]) for r in invoked] == [
        ("mint-app-db-clean-tmp", "runtask"),
        *[
            (f"{name}-ecs-manager-docker", command)
            for name in ENVIRONMENTS
            for command in ("deploy", "runtask", "deploy")
        ],
    ]
    registry = f"127.0.0.1:{cloud.server.cloud.port}"
    assert {image for r in invoked if (image := r["parameters"]["body"].get("image"))} == {
        f"{registry}/mint-backend@{digests['server_image']}",
        f"{registry}/mint-db-migrate@{digests['db_migrate_image']}",
    }
    assert slack.requests == []
    assert run["deploy_storybook_dev"].state == "success"
    assert "index.html" in cloud.objects("storybook-of-dev")
    told = runner.summaries["deploy_prod/deploy"]
    assert len(re.findall("^### ", told, re.MULTILINE)) == 1
    assert "```mermaid" in told
    assert "| deploy the service | " in told
    commit = f"https://github.com/somebody/another-name/commit/{SHA}"
    # The account's id is a secret, so a link to ECR's page would be masked.
    assert re.search(rf"mint-backend \[sha256&#58;{digests['server_image'][7:14]}\]\({commit}\)", told)
    assert "#### frontend" in runner.summaries["deploy_prod/preview"]
    assert run["deploy_prod/preview"].outputs == {"site": f"{cloud.url}/prod"}
    assert [run[f"deploy_{name}/deploy"].url for name in ENVIRONMENTS] == [f"{cloud.url}/{n}" for n in ENVIRONMENTS]
    assert run["deploy_storybook_dev"].url == f"{cloud.url}/dev"


def test_a_broken_step_stops_the_job_and_is_announced(runner: Runner, slack: StandIn) -> None:
    """The snapshot of impl fails: impl is not changed, and a message is sent to Slack."""
    pushed(runner)
    runner.cloud.fail(service="rds", operation="CreateDBSnapshot", status=400, code="SnapshotQuotaExceeded", times=9)
    github, run = started(runner, slack)
    before = len(runner.cloud.requests("ecs", "UpdateService"))

    github.approve(run, "impl_gate")

    assert (run["deploy_impl/deploy"].state, run["deploy_prod"].state) == ("failure", "skipped")
    assert len(runner.cloud.requests("ecs", "UpdateService")) == before
    (posted,) = slack.requests
    assert b"danger" in posted["body"]
    said = "".join(runner.log)
    assert said.count("::error ") == 1
    assert "::error title=deploy::back up the database failed" in said
    assert f"{slack.url}/slack" not in said


def test_an_image_that_cannot_be_pulled_ends_the_job_with_exit_code_4(runner: Runner, slack: StandIn) -> None:
    """The previous version answers, the frontend is untouched, and a message is sent to Slack."""
    pushed(runner)
    stage(runner.cloud, "image-missing")

    _, run = started(runner, slack)

    assert run["deploy_dev/deploy"].state == "failure"
    assert runner.codes[-2:] == [4, 0], "\n".join(runner.log)
    said = "".join(runner.log)
    assert "was rolled back" in said
    assert "CannotPullContainerError" in said
    assert "index.html" not in runner.cloud.objects("mint-static-dev")
    assert len(slack.requests) == 1


def test_an_image_that_does_not_exist_is_refused_before_anything_changes(runner: Runner, slack: StandIn) -> None:
    """The database of dev keeps its data."""
    pushed(runner)
    runner.built = {**(runner.built or {}), "build_server_image": "sha256:" + "0" * 64}

    _, run = started(runner, slack)

    assert run["deploy_dev/deploy"].state == "failure"
    assert runner.codes[-2:] == [2, 0], "\n".join(runner.log)
    assert runner.cloud.requests("ecs", "RunTask") == []
    assert answers(runner.cloud, "dev") == "v0"


def test_each_action_by_hand_is_one_command(runner: Runner, tmp_path: Path) -> None:
    """With the version only where there is one, and as a dry run if that was asked for."""
    program = tmp_path / "bin" / "invoke"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "invoke $*" >&2\n')
    program.chmod(0o755)
    runner.variables["PATH"] = f"{program.parent}:/usr/bin:/bin"
    github = repository(runner)
    github.environments["dev"] = Environment({"AWS_ROLE_TO_ASSUME": "role-of-dev"})
    said = []
    for action, version, dry, migrations in (
        ("deploy", SHA, False, False),
        ("rollback", "", True, False),
        ("rollback", NEXT, False, True),
        ("verify", NEXT, False, False),
        ("history", "", False, False),
        ("deploy", "", False, False),
    ):
        inputs = {"environment": "dev", "action": action, "version": version}
        inputs |= {"dry-run": dry, "keep-migrations": migrations}
        github.start("operate.yml", event(name="workflow_dispatch"), inputs)
        said.append(re.findall("^invoke (?!announce).*$", runner.log[-1], re.MULTILINE))

    assert said == [
        [f"invoke deploy --tag={SHA} --lock-wait=900"],
        ["invoke rollback --lock-wait=900 --dry-run"],
        [f"invoke rollback --to={NEXT} --lock-wait=900 --yes"],
        [f"invoke verify --tag={NEXT}"],
        ["invoke history"],
        [],
    ]
