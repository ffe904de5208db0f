"""The workflows that an application gets: what its settings say, and a workflow of ours with that."""

import pytest
from msgspec.structs import replace

from scripts.edges.workflows import Facts, facts, fitted
from scripts.frame.errors import Refused

SETTINGS = """
[application]
main_branch = "trunk"
[defaults]
region = "eu-west-1"
account = "${AWS_ACCOUNT_ID}"
site = "https://${name}.${A_HOST2}/${lower}"
[defaults.frontend]
bucket = "${SITE_BUCKET}"
folder = "dist"
[defaults.frontend.variables]
KEY = "${VITE_KEY}"
[defaults.tasks.migrate]
subnets = ["${SUBNET}", "${SITE_BUCKET}"]
timeout = 30
[environments.staging]
storybook.bucket = "${STORYBOOK_S3_BUCKET}"
[environments.live]
region = "us-east-1"
confirm = true
again = "${VITE_KEY}"
[environments.live.frontend.variables]
KEY = "${LIVE_KEY}"
[environments.other]
region = "eu-west-1"
[environments.local]
endpoint_url = "http://127.0.0.1:4566"
region = "local-1"
account = "${UNUSED}"
"""


def test_what_settings_say_that_workflows_say_too() -> None:
    """A variable is named once, and as one of the build where that needs it. An embedded environment is left out."""
    assert facts(SETTINGS) == Facts(
        regions=("eu-west-1", "us-east-1"),
        environments=("staging", "live", "other"),
        main="trunk",
        folder="dist",
        built=("VITE_KEY", "LIVE_KEY"),
        deployed=("A_HOST2", "SITE_BUCKET", "SUBNET"),
    )
    assert facts('[application]\nmain_branch = "main"') == Facts((), (), "main", "build", (), ())


@pytest.mark.parametrize(
    "settings",
    [
        "[application",
        "",
        "[application]",
        "application = 3",
        "[application]\nmain_branch = 3",
        '[application]\nmain_branch = "main"\n[environments]\ndev = 3',
        '[application]\nmain_branch = "main"\n[defaults]\nfrontend = "x"',
        '[application]\nmain_branch = "main"\n[defaults]\nregion = ["eu-west-1"]',
        '[application]\nmain_branch = "main"\n[defaults]\nregion = 3',
        '[application]\nmain_branch = "main"\n[defaults.frontend]\nfolder = 3',
    ],
)
def test_settings_that_cannot_be_read_are_refused(settings: str) -> None:
    with pytest.raises(Refused, match=r"^environments\.toml cannot be read: ."):
        facts(settings)


OURS = Facts(("us-west-2", "us-east-1"), ("dev", "prod"), "main", "build", ("KEY", "ID"), ("BUCKET",))
THEIRS = Facts(("eu-west-1", "eu-west-2"), ("live",), "trunk", "dist", ("VITE_KEY",), ("SUBNET", "CDN"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("  aws-region: us-west-2\n", "  aws-region: eu-west-1\n"),
        ("  options: [dev, prod]\n", "  options: [live]\n"),
        ("  options: [verify, deploy]\n", "  options: [verify, deploy]\n"),
        ("  if: ${{ github.ref == 'refs/heads/main' }}\n", "  if: ${{ github.ref == 'refs/heads/trunk' }}\n"),
        ("  path: build\n  # why\n", "  path: dist\n  # why\n"),
        ("  path: build\n  if: x\n", "  path: build\n  if: x\n"),
        (
            "      KEY:\n        required: true\n      ID:\n        required: true\n",
            "      VITE_KEY:\n        required: true\n",
        ),
        (
            "      BUCKET:\n        required: true\n",
            "      SUBNET:\n        required: true\n      CDN:\n        required: true\n",
        ),
        ("      KEY: ${{ secrets.KEY }}\n      ID: ${{ secrets.ID }}\n", "      VITE_KEY: ${{ secrets.VITE_KEY }}\n"),
        (
            "      BUCKET: ${{ secrets.BUCKET }}\n",
            "      SUBNET: ${{ secrets.SUBNET }}\n      CDN: ${{ secrets.CDN }}\n",
        ),
    ],
    ids=[
        "the region",
        "the environments to choose from",
        "other choices",
        "the main branch",
        "the folder of the build, where a comment explains it",
        "the folder of a download",
        "secrets of the build",
        "secrets of a deployment",
        "variables of the build",
        "variables of a deployment",
    ],
)
def test_a_workflow_gets_the_values_of_another_application(ours: str, theirs: str) -> None:
    """Around them it stays as it is."""
    assert fitted(f"a:\n{ours}  z: 1\n", OURS, THEIRS) == f"a:\n{theirs}  z: 1\n"


def test_what_an_application_does_not_have_is_left_out() -> None:
    """Without a region ours stays, and without secrets so does no empty list of them."""
    theirs = replace(THEIRS, regions=(), built=(), deployed=())
    secrets = "      KEY:\n        required: true\n      ID:\n        required: true\n"

    assert (
        fitted(f"aws-region: us-west-2\n    secrets:\n{secrets}\njobs:\n", OURS, theirs)
        == "aws-region: us-west-2\n\njobs:\n"
    )
