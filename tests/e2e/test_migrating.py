"""Each new line of docs/migrating.md does what its old line did, on the embedded AWS."""

import shlex
from pathlib import Path

import pytest

from tests.conftest import EmbeddedCloud, Invoke
from tests.release import sites
from tests.test_docs import rows


@pytest.mark.parametrize("line", [new for _, new in rows()])
def test_the_new_command_works(line: str, cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path) -> None:
    """On the embedded AWS, with the values of the old line."""
    values = {'"$IMAGE_TAG"': "v0", '"$ECR_REPOSITORY"': "mint-backend", " --env=dev": ""}
    for old, new in values.items():
        line = line.replace(old, new)
    words = shlex.split(line)[1:]
    if "release-storybook" in words:
        words.append(f"--build-dir={sites.build(tmp_path / 'storybook', 'one')}")
    github = {
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_RUN_ID": "1",
        "GITHUB_JOB": "deploy",
        "GITHUB_REPOSITORY": "owner/app",
        "GITHUB_ACTOR": "octocat",
    }

    done = invoke(*words, **cloud.env, **github, DOCKER_HOST="unix:///nowhere")

    assert done.returncode == 0, done.stderr
