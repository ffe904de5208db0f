"""A GitHub runner for the jobs of tests/github.py: `run:` lines run in bash, on a checkout and the embedded AWS."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local_aws.server import Server
from tests.conftest import EmbeddedCloud, copy_of_project
from tests.github import Job, condition, masked, resolve

BIN = Path(sys.executable).parent
ENVIRONMENTS = ("dev", "impl", "prod")
SHA = "5" * 40
# Actions whose effect is not needed, by the beginnings of their names.
PREPARED = ("actions/checkout", "actions/setup-", "actions/cache", "docker/login-action")
PREPARED += ("pre-commit/action", "actions/github-script")


@dataclass
class Runner:
    """A GitHub runner with a checkout. Lines that call none of our commands succeed without being run.

    built: what the jobs that build are taken to have built, None to run them. failing: jobs whose other lines fail.
    keys: whether access keys without a role are credentials too.
    """

    workspace: Path
    cloud: EmbeddedCloud
    variables: dict[str, str]
    built: Mapping[str, str] | None = None
    failing: set[str] = field(default_factory=set)
    keys: bool = False
    artifacts: dict[str, Path] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    summaries: dict[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    def __call__(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Run a job. Returns how it ended, and the outputs of its steps."""
        if self.built is not None and job.name.startswith("build_"):
            return "success", {"image": {"outputs": {"digest": self.built.get(job.name, "")}}}
        status, outputs = "success", dict[str, Any]()
        context = {**job.context(), "secrets": job.secrets}
        given = {**job.given["env"], **job.spec.get("env", {})}
        env = {name: resolve(value, context) for name, value in given.items()}
        for step in job.spec["steps"]:
            here = {**context, "env": env, "status": status, "steps": outputs}
            if not condition(step.get("if", "success()"), here):
                continue
            code, told = 0, dict[str, str]()
            if "uses" in step:
                given = {key: resolve(value, here) for key, value in step.get("with", {}).items()}
                variables, told = self._use(step["uses"].partition("@")[0], given)
                env |= variables
            elif "invoke" in step["run"]:
                own = {name: resolve(value, here) or "" for name, value in step.get("env", {}).items()}
                code, told = self._bash(job, step["run"], {**env, **own})
            else:
                code = int(job.name in self.failing)
            outputs[step.get("id", "")] = {"outputs": told, "outcome": "failure" if code else "success"}
            status = "failure" if code and not step.get("continue-on-error") else status
        return status, outputs

    def _use(self, action: str, given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """The effect of an action. Returns the variables that it sets, and its outputs."""
        if action == "actions/download-artifact":
            shutil.rmtree(self.workspace / given["path"], ignore_errors=True)
            shutil.copytree(self.artifacts[given["name"]], self.workspace / given["path"])
        elif action == "actions/upload-artifact":
            # What a line would have made that was not run is in the artifacts already.
            made, kept = self.workspace / given["path"], self.workspace.parent / "artifacts" / given["name"]
            assert made.exists() or given["name"] in self.artifacts, given
            if made.exists():
                shutil.rmtree(kept, ignore_errors=True)
                self.artifacts[given["name"]] = Path(shutil.copytree(made, kept))
        elif action == "aws-actions/configure-aws-credentials":
            assert given.get("role-to-assume") or (self.keys and given.get("aws-access-key-id"))
            return {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": given["aws-region"]}, {}
        elif action == "aws-actions/amazon-ecr-login":
            return {}, {"registry": f"127.0.0.1:{self.cloud.server.cloud.port}"}
        elif action != "$/.github/actions/setup" and not action.startswith(PREPARED):
            raise ValueError(f"this action is not understood: {action}")
        return {}, {}

    def _bash(self, job: Job, line: str, env: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
        """Run a line as GitHub does. Returns its exit code, and the outputs that it set."""
        files = {name: self.workspace.parent / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
            cwd=self.workspace,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": os.environ["HOME"],
                **self.variables,
                "GITHUB_JOB": job.name.rpartition("/")[2],
                **{name: str(path) for name, path in files.items()},
                **{name: str(value) for name, value in env.items() if value is not None},
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.log.append(masked(f"$ {line}\n{done.stdout}{done.stderr}", job))
        self.summaries[job.name] = self.summaries.get(job.name, "") + masked(
            files["GITHUB_STEP_SUMMARY"].read_text(), job
        )
        self.codes.append(done.returncode)
        return done.returncode, dict(item.split("=", 1) for item in files["GITHUB_OUTPUT"].read_text().splitlines())


def prepared(
    cloud: EmbeddedCloud, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Path, main: str
) -> Runner:
    """A runner with a checkout. The environments of a settings file are on the embedded AWS. main: the main branch."""
    url = server.cloud.url
    text = settings.read_text().partition("# The embedded AWS (local_aws/)")[0]
    for name, site in zip(ENVIRONMENTS, ("https://dev.mint", "https://impl.mint", "https://mint"), strict=True):
        text = text.replace(f'site = "{site}.cms.gov"', f'site = "{url}/{name}"\nendpoint_url = "{url}"')
    for old, new in {
        'registry = "${account}.dkr.ecr.${region}.amazonaws.com"': 'registry = "${endpoint_host}"',
        'build_context = "."': 'build_context = "examples/backend"',
        '"Dockerfile"': '"examples/backend/Dockerfile"',
        '"Dockerfile.db_migrations"': '"examples/backend/Dockerfile.db_migrations"',
        'install = ["yarn", "install", "--frozen-lockfile"]': "install = []",
        'build = ["yarn", "run", "build"]': 'build = ["bash", "build.sh"]',
    }.items():
        assert old in text
        text = text.replace(old, new)
    workspace = copy_of_project(folder / "workspace", ".git", ".venv", ".local", ".*_cache")
    (workspace / "build.sh").write_text(
        "python3 examples/frontend/build.py && rm -rf build && mv examples/frontend/build build"
    )
    file = workspace / "settings.toml"
    file.write_text(text)
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))
    monkeypatch.delenv("BUILD_PATH")
    # The embedded AWS is seeded with the buckets of these settings.
    monkeypatch.setenv("STORYBOOK_S3_BUCKET_DEV", "storybook-of-dev")
    for name in ENVIRONMENTS:
        monkeypatch.setenv(f"STATIC_S3_BUCKET_{name.upper()}", f"mint-static-{name}")
    server.reset()
    variables = {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": SHA,
        "GITHUB_REF": f"refs/heads/{main}",
        "GITHUB_REPOSITORY": "somebody/another-name",
        "GITHUB_RUN_ID": "77",
        "GITHUB_ACTOR": "octocat",
        "ENVIRONMENTS_FILE": str(file),
        "AWS_ENDPOINT_URL": url,
        "DOCKER_HOST": "unix:///nowhere",
    }
    page = folder / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>page</title>")
    return Runner(workspace, cloud, variables, artifacts={"storybook": page})
