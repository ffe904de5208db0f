"""Three complete settings files: MINT as it was with its build.yml, MINT as it is, and EASi. Each fact in them has its
source in a comment; the tests hold what the old scripts and workflows did.
"""

import json
from pathlib import Path

import pytest

from local_aws.server import Server
from scripts.ecs import manager
from scripts.frame import settings
from scripts.frame.errors import Refused
from tests.conftest import ROOT, EmbeddedCloud, Invoke

FILES = {name: str(Path(__file__).parent / f"{name}.toml") for name in ("mint_2022", "mint_2026", "easi")}
FAKTORY = str(Path(__file__).parent / "mint_faktory.toml")
ENVIRONMENTS = {
    "mint_2022": ("dev", "impl", "prod"),
    "mint_2026": ("dev", "test", "impl", "prod"),
    "easi": ("dev", "impl", "prod"),
}
BY_SCRIPT = {"APP_ENV", "OKTA_DOMAIN", "OKTA_CLIENT_ID", "OKTA_SERVER_ID", "OKTA_ISSUER", "OKTA_REDIRECT_URI"}
BY_SCRIPT |= {"LD_CLIENT_ID", "API_ADDRESS", "GRAPHQL_ADDRESS"}
NEWER = {"LOCAL_AUTH_ENABLED", "ECHIMP_URL", "BEACON_ID", "GA_TRACKING_ID", "GITHUB_TOKEN"}
VARIABLES = ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID", "VITE_BEACON_ID", "VITE_GA_TRACKING_ID")


def read(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> settings.Environment:
    """An environment of a file, as a dry run reads it."""
    monkeypatch.setenv("ENVIRONMENTS_FILE", FILES[file])
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    return settings.environment(name, dry_run=True)


@pytest.mark.parametrize(
    ("file", "channel", "branch", "promotion"),
    [
        ("mint_2022", "#cmmi-mint-alerts", "master", ("dev", "impl", "prod")),
        ("mint_2026", "#cmmi-mint-alerts", "main", ("test", "impl", "prod")),
        ("easi", "#oit-easi-alerts", "master", ("dev", "impl", "prod")),
    ],
)
def test_what_the_environments_share(
    file: str, channel: str, branch: str, promotion: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where failures are announced, what is deployed, and in which order."""
    application = read(file, "prod", monkeypatch).application

    assert settings.names() == ENVIRONMENTS[file]
    assert (application.slack_channel, application.main_branch, application.promotion) == (channel, branch, promotion)


DATABASES = [
    *[("mint_2022", name, f"mint{name}", name != "dev", name == "dev") for name in ENVIRONMENTS["mint_2022"]],
    *[("easi", name, f"easi{name}", name != "dev", name == "dev") for name in ENVIRONMENTS["easi"]],
    ("mint_2026", "dev", "mint-db-dev", False, True),
    ("mint_2026", "test", "mint-db-test", False, False),
    ("mint_2026", "impl", "mint-db-impl", True, False),
    ("mint_2026", "prod", "mint-db-prod", True, False),
]


@pytest.mark.parametrize(("file", "name", "database", "backup", "cleaned"), DATABASES)
def test_what_happens_to_the_database(
    file: str, name: str, database: str, *, backup: bool, cleaned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a snapshot is taken, and where it is emptied."""
    env = read(file, name, monkeypatch)

    assert (str(env.database.name.require()), env.database.backup) == (database, backup)
    assert bool(env.cleaner.service) is cleaned


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, names in ENVIRONMENTS.items() for name in names], ids=str
)
def test_the_frontends_variables(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly those that the old script gave the build, with the values of the environment."""
    for variable in VARIABLES:
        monkeypatch.setenv(f"{variable}_{name.upper()}", f"{variable}-value")
    found = read(file, name, monkeypatch).frontend_variables()
    prefix, more = ("VITE_", NEWER) if file == "mint_2026" else ("REACT_APP_", set())

    assert set(found) == {f"{prefix}{one}" for one in BY_SCRIPT | more}
    app = "easi" if file == "easi" else "mint"
    site = f"https://{app}.cms.gov" if name == "prod" else f"https://{name}.{app}.cms.gov"
    assert found[f"{prefix}API_ADDRESS"] == f"{site}/api/v1"
    assert found[f"{prefix}GRAPHQL_ADDRESS"] == f"{site}/api/graph/query"
    assert found[f"{prefix}OKTA_REDIRECT_URI"] == f"{site}/implicit/callback"
    assert found[f"{prefix}OKTA_ISSUER"] == f"{found[f'{prefix}OKTA_DOMAIN']}/oauth2/OKTA_SERVER_ID-value"
    domains = {"prod": "https://idm.cms.gov", "impl": "https://impl.idp.idm.cms.gov"}
    assert found[f"{prefix}OKTA_DOMAIN"] == domains.get(name, "https://test.idp.idm.cms.gov")


@pytest.mark.parametrize(("file", "qualifiers"), [("mint_2022", "876"), ("easi", "987")])
def test_the_lambdas_of_the_old_workflows(file: str, qualifiers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions that build.yml named, and the cleaner of dev."""
    found = [read(file, name, monkeypatch) for name in ENVIRONMENTS[file]]

    assert "".join(env.manager.qualifier for env in found) == qualifiers
    assert [env.manager.function for env in found] == [f"{env.name}-ecs-manager-docker" for env in found]
    app = found[0].application.name
    cleaner = found[0].cleaner
    assert (cleaner.function, cleaner.qualifier, cleaner.service) == (f"{app}-db-clean-tmp", "2", f"{app}-db-clean")
    assert {env.region for env in found} == {"us-west-2"}
    assert str(found[0].storybook.bucket.known()) == ""
    monkeypatch.setenv("STORYBOOK_S3_BUCKET_DEV", "the-storybook")
    assert read(file, "dev", monkeypatch).storybook.bucket.require() == "the-storybook"


def test_mint_goes_to_ecs_itself_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its migrations are a family without a service; the secrets of its service are left as they are."""
    monkeypatch.setenv("PRIVATE_SUBNET_A_IMPL", "subnet-a")
    monkeypatch.setenv("PRIVATE_SUBNET_B_IMPL", "subnet-b")
    monkeypatch.setenv("DB_MIGRATE_SECURITY_GROUP_IMPL", "sg-1")
    monkeypatch.setenv("CLOUDFRONT_DISTRIBUTION_IMPL", "E1")
    env = read("mint_2026", "impl", monkeypatch)

    assert (env.manager.via, env.region, env.frontend.distribution.require()) == ("ecs", "us-east-1", "E1")
    assert manager.deploy_event(env, "mint-app", "image")["body"] == {
        "cluster_id": "impl-mint-app",
        "service_ids": ["mint-app"],
        "image": "image",
    }
    body = manager.run_event(env, "db-migrate")["body"]
    assert (body["family"], body["subnets"], body["security_groups"]) == (
        "db-migrate-impl",
        ["subnet-a", "subnet-b"],
        ["sg-1"],
    )
    assert env.database.keep_snapshots == 10


def test_a_job_needs_only_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variables of tasks and CDN it can build and announce; what uses them names what is missing."""
    read("mint_2026", "dev", monkeypatch)
    env = settings.environment("dev")

    with pytest.raises(Refused, match=r"PRIVATE_SUBNET_A is not set, and tasks\.db-migrate\.subnets of dev needs it"):
        manager.run_event(env, "db-migrate")
    with pytest.raises(Refused, match="CLOUDFRONT_DISTRIBUTION is not set"):
        env.frontend.distribution.require()


def test_the_embedded_aws_stands_in_any_region(
    cloud: EmbeddedCloud, embedded_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In MINT's of today too, which S3 names nowhere."""
    file = tmp_path / "settings.toml"
    file.write_text((ROOT / "environments.toml").read_text().replace('region = "us-west-2"', 'region = "us-east-1"'))
    monkeypatch.setenv("ENVIRONMENTS_FILE", str(file))

    embedded_server.reset()

    cloud.client("s3", "us-east-1").put_object(Bucket="local-mint-app-static", Key="index.html", Body=b"page")
    assert set(cloud.objects("local-mint-app-static")) == {"index.html"}


@pytest.mark.parametrize("name", ENVIRONMENTS["mint_2026"])
def test_mints_job_server_is_deployed_by_itself(name: str, invoke: Invoke) -> None:
    """In its own cluster, with its own image; it has no endpoint, so ECS proves that it runs."""
    env = {"ENVIRONMENTS_FILE": FAKTORY, "AWS_ACCOUNT_ID": "123456789012"}

    done = invoke("deploy-service", f"--env={name}", "--tag=abc", "--dry-run", "--json", **env)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["plan"]["invocation"]["payload"]["body"] == {
        "cluster_id": f"{name}-mint-faktory",
        "service_ids": ["mint-faktory"],
        "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mint-faktory:abc",
    }


@pytest.mark.parametrize("file", FILES)
def test_every_fact_has_its_source(file: str) -> None:
    """The commit at the top, and a file of it beside what is not the same everywhere."""
    text = Path(FILES[file]).read_text()

    assert " at " in text.partition("[application]")[0]
    facts = ("manager.qualifier", "main_branch", "promotion", "slack_channel", "region =", "family =")
    named = [line for line in text.splitlines() if line.startswith(facts)]
    assert named
    assert [line for line in named if "# " not in line.partition('"')[2]] == []


@pytest.mark.parametrize("file", FILES)
def test_a_whole_deployment_can_be_shown(file: str, invoke: Invoke, tmp_path: Path) -> None:
    """Without credentials or network, by the settings alone."""
    env = {"ENVIRONMENTS_FILE": FILES[file], "AWS_ACCOUNT_ID": "123456789012", "BUILD_PATH": str(tmp_path)}

    done = invoke("deploy", "--env=impl", "--tag=abc", "--dry-run", "--json", **env)

    assert done.returncode == 0, done.stderr
    steps = [step["name"] for step in json.loads(done.stdout)["steps"]]
    assert any("snapshot" in json.dumps(step) for step in json.loads(done.stdout)["steps"])
    assert len(steps) >= 4
