"""Promotion: from which environment to which, and what counts as having run well."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from scripts.ecs import promotion
from scripts.ecs.images import Image, Stored
from scripts.ecs.promotion import NotPromoted, Wanted
from scripts.ecs.receipts import Receipt
from scripts.ecs.rollout import Deployment, Service
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import Environment
from tests.conftest import ROOT, Invoke
from tests.stand_in import DENIED, Reply, stand_in
from tests.test_cli import ACCOUNT, KEYS
from tests.test_receipts import DIGEST, receipt

OTHER = "sha256:" + "b" * 64
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(("name", "before"), [("dev", ""), ("impl", "dev"), ("prod", "impl"), ("local", "")], ids=str)
def test_the_environment_before(name: str, before: str) -> None:
    """The first one has none, an embedded one neither, nor one that is not in the order."""
    environment = settings.environment(name, dry_run=True)
    alone = structs.replace(environment, application=structs.replace(environment.application, promotion=("prod",)))

    assert promotion.environment_before(environment) == before
    assert promotion.environment_before(alone) == ""
    embedded = structs.replace(environment, endpoint_url="http://127.0.0.1:1")
    assert promotion.environment_before(embedded) == ""


@pytest.mark.parametrize(
    ("kept", "digest", "answer"),
    [
        ([receipt("v2", digest=DIGEST)], DIGEST, "dev has run it well"),
        ([receipt("v3"), receipt("v2", digest=DIGEST)], DIGEST, "dev has run it well"),
        ([receipt("v2", digest=OTHER), receipt("v2", digest=DIGEST)], DIGEST, "dev has run it well"),
        ([receipt("v2", digest=DIGEST)], "", "whose digest is not known"),
        ([receipt("v2")], DIGEST, "whose digest is not known"),
        ([receipt("v1", digest=DIGEST)], DIGEST, ""),
        ([receipt("v2", digest=DIGEST, verdict="rolled back")], DIGEST, ""),
        ([receipt("v2", digest=DIGEST, service="worker")], DIGEST, ""),
        ([], DIGEST, ""),
        ([receipt("v2", digest=OTHER)], DIGEST, NotPromoted("another image")),
        ([receipt("v1", left="v2"), receipt("v2", digest=DIGEST)], DIGEST, NotPromoted("rolled back from")),
    ],
    ids=[
        "it ran",
        "it ran before another one",
        "it ran with two images",
        "the wanted digest is not known",
        "the digest that ran is not known",
        "another version",
        "it was taken back",
        "another service",
        "nothing",
        "another image",
        "rolled back from",
    ],
)
def test_what_receipts_prove(kept: list[Receipt], digest: str, answer: str | NotPromoted) -> None:
    """The same version with the same image and a good verdict. Nothing in them is no proof."""
    dev = settings.environment("dev", dry_run=True)

    if isinstance(answer, NotPromoted):
        with pytest.raises(NotPromoted, match=str(answer)):
            promotion.by_receipts(kept, Wanted("v2", digest), dev)
    else:
        proof = promotion.by_receipts(kept, Wanted("v2", digest), dev)
        assert answer in proof
        assert bool(proof) is bool(answer)


IMAGES = ("r.example/otel:v9", "r.example/mint-backend:v2")
RUNS = Deployment("ecs-svc/1", "PRIMARY", "arn:1", IMAGES, "COMPLETED", "", 1.0, 1, 1, 0)


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({}, True),
        ({"images": (f"r.example/mint-backend@{DIGEST}",)}, True),
        ({"images": (f"r.example/mint-backend@{OTHER}",)}, False),
        ({"images": ("r.example/mint-backend:v1",)}, False),
        ({"images": ("r.example/other:v2",)}, False),
        ({"state": "FAILED"}, False),
        ({"running": 0}, False),
        ({"status": "ACTIVE"}, False),
    ],
    ids=["by its tag", "by its digest", "another digest", "another tag", "a sidecar's tag", "failed", "none", "drains"],
)
def test_what_ecs_proves(changes: dict[str, object], runs: bool) -> None:
    """The image of the deployment that runs, and of no other."""
    service = Service("mint-app", (replace(RUNS, **changes),), (), breaker=True)  # type: ignore[arg-type]

    assert promotion.by_ecs(service, Wanted("v2", DIGEST), "mint-backend") is runs


RAN, UNREAD, GONE = [receipt("v2", digest=DIGEST)], DeployError("no right"), DeployError("no answer")
SERVICE = Service("mint-app", (RUNS,), (), breaker=True)


@pytest.mark.parametrize(
    ("kept", "answers", "shown", "said"),
    [
        (RAN, GONE, GONE, "v2 may go to impl: dev has run it well, deployed "),
        ([], "v2", GONE, "v2 may go to impl: dev answers with it"),
        (UNREAD, "v2", GONE, "v2 may go to impl: dev answers with it"),
        ([], GONE, SERVICE, "v2 may go to impl: dev runs it in ECS"),
        ([receipt("v1", left="v2")], "v2", SERVICE, "it was rolled back from there. "),
        ([], "v1", SERVICE, "run well in dev. it answers with v1. "),
        (UNREAD, "v1", SERVICE, "run well in dev. its receipts cannot be read: no right; it answers with v1. "),
        (
            UNREAD,
            GONE,
            DeployError("throttled"),
            "run well in dev. its receipts cannot be read: no right; its healthcheck does not answer: no answer; ECS"
            " cannot be read: throttled. Deploy it to dev first, or give --skip-promotion. Nothing was changed.",
        ),
        ([], GONE, replace(SERVICE, deployments=()), "no answer; in ECS it runs another image. "),
    ],
    ids=[
        "its receipts say so",
        "it answers with it",
        "it answers, without receipts",
        "ECS runs it",
        "it was rolled back",
        "it answers with another",
        "it answers with another, without receipts",
        "nothing can be read",
        "ECS runs another",
    ],
)
def test_what_the_environment_before_has_run_is_asked_for_in_three_places(
    kept: list[Receipt] | DeployError,
    answers: str | DeployError,
    shown: Service | DeployError,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first that knows it decides, and the refusal says of each why it does not."""

    def told(found: Any) -> Any:
        if isinstance(found, DeployError):
            raise found
        return found

    def ask(url: str, seconds: float) -> Any:
        assert (url, seconds) == ("https://dev.mint.cms.gov/api/v1/healthcheck", 5.0)
        return told(answers)

    def read(environment: Environment, most: int) -> Any:
        # Its variables may not be set in a job for another environment.
        assert (environment.name, environment.dry_run) == ("dev", True)
        return SimpleNamespace(receipts=told(kept))

    monkeypatch.setattr(promotion.receipts, "read", read)
    monkeypatch.setattr(promotion.version, "ask", ask)
    monkeypatch.setattr(promotion, "Reader", lambda env, name: SimpleNamespace(look=lambda: told(shown)))
    impl = settings.environment("impl", dry_run=True)

    if " may go to impl" in said:
        found = promotion.check(impl, "v2", DIGEST)
        assert found.line().startswith(said)
        assert (found.environment, found.before, found.version) == ("impl", "dev", "v2")
    else:
        with pytest.raises(Refused, match=r"^v2 does not go to impl: it is not known to have ") as error:
            promotion.check(impl, "v2", DIGEST)
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Stored(OTHER, ""), OTHER),
        (None, "There is no image .*/mint-backend:v2. Nothing was changed."),
        (DeployError("throttled"), "The digest of .*/mint-backend:v2 is not known: throttled Give --digest."),
    ],
    ids=["ECR's", "no image", "cannot be read"],
)
def test_the_digest_of_what_is_promoted_is_that_of_its_tag_in_ecr(
    stored: Stored | DeployError | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is not there is not promoted."""

    def look_up(environment: Environment, image: Image) -> Stored | None:
        assert image == Image(ECR, "mint-backend", "v2")
        if isinstance(stored, DeployError):
            raise stored
        return stored

    monkeypatch.setattr(promotion.images, "look_up", look_up)
    impl = settings.environment("impl", dry_run=True)
    impl = structs.replace(impl, registry=settings.Setting(settings.Filled(ECR)))

    if " " in expected:
        with pytest.raises(Refused, match=f"^{expected}$"):
            promotion._digest(impl, "v2")
    else:
        assert promotion._digest(impl, "v2") == expected


@pytest.mark.parametrize(
    ("answers", "flags", "code", "said"),
    [
        ("v2", [], 1, "may go to impl: dev answers with it"),
        ("v1", [], 2, "v2 does not go to impl: it is not known to have run well in dev. "),
        ("", [], 2, "its healthcheck does not answer: HTTP status 404; ECS cannot be read: "),
        ("", ["--skip-promotion"], 1, "it is not looked at whether v2 has run before impl"),
    ],
    ids=["it runs", "another one runs", "nothing can be read", "skipped"],
)
def test_a_deployment_goes_on_only_if_the_environment_before_has_run_the_version(
    answers: str, flags: list[str], code: int, said: str, invoke: Invoke, build: Path, tmp_path: Path
) -> None:
    """The refusal comes before the first change; what cannot be read is no consent. Here the backup fails then."""

    def answer(method: str, path: str) -> Reply:
        if path == "/api/v1/healthcheck":
            return Reply(f'{{"version": "{answers}"}}'.encode()) if answers else Reply(b"", 404)
        return DENIED

    with stand_in(answer) as server:
        text = (ROOT / "environments.toml").read_text().replace("https://dev.mint.cms.gov", server.url)
        (tmp_path / "settings.toml").write_text(text)
        given = {**ACCOUNT, **KEYS, "AWS_ENDPOINT_URL": server.url, "STATIC_S3_BUCKET": "a-bucket"}
        words = ("deploy", "--env=impl", "--yes", "--tag=v2", f"--digest={DIGEST}", "--no-build")
        told = {**given, "ENVIRONMENTS_FILE": str(tmp_path / "settings.toml")}
        done = invoke(*words, f"--build-dir={build}", *flags, **told)

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert any(b"DescribeDBInstances" in request["body"] for request in server.requests) is (code == 1)
