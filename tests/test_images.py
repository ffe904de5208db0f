"""Images in ECR: in whose registry they are looked up, and for which platform they are."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from scripts.ecs import images
from scripts.ecs.images import Image, Stored
from scripts.frame import settings
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment
from tests.stand_in import DENIED, Reply, StandIn, stand_in

DIGEST = "sha256:" + "a" * 64
OWN = "123456789012.dkr.ecr.us-west-2.amazonaws.com"
OTHER = "222222222222.dkr.ecr.us-east-1.amazonaws.com"
INDEX = {
    "manifests": [
        {"platform": {"os": "linux", "architecture": "amd64"}},
        {"platform": {"os": "linux", "architecture": "arm64"}},
        {"platform": {"os": "unknown", "architecture": "unknown"}},
    ]
}
SINGLE = {"config": {"digest": DIGEST}}


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment of the real AWS, with credentials."""
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ACCOUNT_ID": OWN[:12]}.items():
        monkeypatch.setenv(name, value)
    return settings.environment("dev")


def ecr(*replies: dict[str, Any]) -> Callable[[str, str], Reply]:
    """Answer ECR's requests with these in turn, and a download with a configuration."""
    left = list(replies)
    configuration = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
    return lambda method, path: Reply(configuration if method == "GET" else json.dumps(left.pop(0)).encode())


def asked(server: StandIn) -> list[tuple[str, dict[str, Any], str]]:
    """Operation, parameters and region of each request to ECR."""
    return [
        (
            request["headers"]["X-Amz-Target"].rpartition(".")[2],
            json.loads(request["body"]),
            request["headers"]["Authorization"].split("/")[2],
        )
        for request in server.requests
        if request["method"] == "POST"
    ]


@pytest.mark.parametrize(
    ("image", "where", "which"),
    [
        (Image(OWN, "mint-backend", "v1"), (OWN[:12], "us-west-2"), {"imageTag": "v1"}),
        (Image(OTHER, "mint-backend", "v1"), (OTHER[:12], "us-east-1"), {"imageTag": "v1"}),
        (Image(OTHER, "mint-backend", "v1", DIGEST), (OTHER[:12], "us-east-1"), {"imageDigest": DIGEST}),
        (Image(OWN, "mint-backend"), (OWN[:12], "us-west-2"), {"imageTag": "latest"}),
    ],
    ids=["the environment's registry", "another account's", "by its digest", "without a tag"],
)
def test_an_image_is_looked_up_in_the_account_and_region_of_its_registry(
    image: Image, where: tuple[str, str], which: dict[str, str], dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the caller's."""
    with stand_in(ecr({"imageDetails": [{"imageDigest": DIGEST, "imageManifestMediaType": "m"}]})) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert images.look_up(dev, image) == Stored(DIGEST, "m")

    parameters = {"registryId": where[0], "repositoryName": "mint-backend", "imageIds": [which]}
    assert asked(server) == [("DescribeImages", parameters, where[1])]


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        (OWN, True),
        (OTHER, True),
        ("222222222222.dkr.ecr-fips.us-gov-west-1.amazonaws.com", True),
        ("222222222222.dkr-ecr.us-east-1.on.aws", True),
        ("public.ecr.aws", False),
        ("ghcr.io", False),
        ("222222222222.dkr.ecr.us-east-1.amazonaws.com.example.org", False),
        ("", False),
    ],
)
def test_which_registries_are_ecr(registry: str, expected: bool, dev: Environment) -> None:
    """Those of other registries cannot be looked up."""
    assert images.is_in_ecr(dev, Image(registry, "app", "v1")) is expected


@pytest.mark.parametrize(
    ("manifest", "expected", "operations"),
    [
        (INDEX, ("linux/amd64", "linux/arm64"), ["BatchGetImage"]),
        (SINGLE, ("linux/arm64",), ["BatchGetImage", "GetDownloadUrlForLayer"]),
    ],
    ids=["an index", "one image"],
)
def test_the_platforms_of_an_image(
    manifest: dict[str, Any],
    expected: tuple[str, ...],
    operations: list[str],
    dev: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From its index, else from its configuration. Attestations are for no platform."""
    with stand_in(lambda *_: Reply(b"")) as server:
        server.answer = ecr(
            {"images": [{"imageManifest": json.dumps(manifest)}]}, {"downloadUrl": f"{server.url}/layer?signed=1"}
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert images.platforms(dev, Image(OTHER, "app", "v1")) == expected

    assert [operation for operation, _, _ in asked(server)] == operations
    kinds = asked(server)[0][1]["acceptedMediaTypes"]
    assert [("index" in kind or "list" in kind) for kind in kinds] == [True, True, False, False]
    assert all(parameters["registryId"] == OTHER[:12] for _, parameters, _ in asked(server))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({}, "ECR does not return the manifest of {}."),
        ({"images": []}, "ECR does not return the manifest of {}."),
        ({"images": [{"imageManifest": "{"}]}, "The manifest of {} cannot be read: "),
        ({"images": [{"imageManifest": "{}"}]}, "reading the configuration of {}"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error(
    reply: dict[str, Any], says: str, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a platform."""
    image = Image(OWN, "mint-backend", "v1")
    with stand_in(ecr(reply)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(DeployError) as error:
            images.platforms(dev, image)

    assert says.format(image) in str(error.value)


CONFIGURATION = json.dumps({"os": "linux", "architecture": "arm64"}).encode()


@pytest.mark.parametrize(
    ("answered", "says"),
    [
        (Reply(b" " * (3 << 20) + CONFIGURATION), ""),
        (Reply(b" " * (4 << 20) + CONFIGURATION), "cannot be read: "),
        (Reply(CONFIGURATION, 403), "cannot be read: HTTP status 403."),
    ],
    ids=["large", "too large", "refused"],
)
def test_a_configuration_is_read_up_to_four_megabytes(
    answered: Reply, says: str, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry of another account may send anything."""
    replies = ecr({"images": [{"imageManifest": json.dumps(SINGLE)}]}, {"downloadUrl": "<the layer's>"})

    def answer(method: str, path: str) -> Reply:
        if method == "GET":
            return answered
        return Reply(replies(method, path).body.replace(b"<the layer's>", f"{server.url}/layer".encode()))

    image = Image(OTHER, "app", "v1")
    with stand_in(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        if says:
            with pytest.raises(DeployError) as error:
                images.platforms(dev, image)
            assert str(error.value).startswith(f"The configuration of {image} {says}")
        else:
            assert images.platforms(dev, image) == ("linux/arm64",)


COMMIT, OLDER = "a" * 40, "b" * 40
NOT_FOUND = Reply(json.dumps({"__type": "ImageNotFoundException"}).encode(), 400)


@pytest.mark.parametrize(
    ("uri", "tags", "expected"),
    [
        (f"{OWN}/app@{DIGEST}", [COMMIT], COMMIT),
        (f"{OTHER}/app@{DIGEST}", ["v1"], "v1"),
        (f"{OWN}/app@{DIGEST}", ["latest", COMMIT, "v1"], COMMIT),
        (f"{OWN}/app@{DIGEST}", [COMMIT, OLDER], ""),
        (f"{OWN}/app@{DIGEST}", ["v1", "latest"], ""),
        (f"{OWN}/app@{DIGEST}", [], ""),
        (f"{OWN}/app@{DIGEST}", None, ""),
        (f"{OWN}/app@{DIGEST}", DENIED, ""),
        ("ghcr.io/o/app:v1", [COMMIT], ""),
        ("<no reference>", [COMMIT], ""),
    ],
    ids=[
        "its commit",
        "its only tag",
        "its only commit",
        "two commits",
        "two tags",
        "no tag",
        "no image",
        "not for this role",
        "another registry",
        "no reference",
    ],
)
def test_the_version_of_an_image_is_what_its_tags_say(
    uri: str, tags: list[str] | Reply | None, expected: str, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they say one thing only, and can be read."""
    details = {"imageDetails": [{"imageDigest": DIGEST, "imageTags": tags}]}
    reply = tags if isinstance(tags, Reply) else NOT_FOUND if tags is None else Reply(json.dumps(details).encode())
    with stand_in(lambda *_: reply) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert images.version_of(dev, uri) == expected

    assert bool(server.requests) is (".dkr.ecr." in uri)


def test_a_tag_in_the_environments_registry_has_a_digest(dev: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty if no image has it."""
    replies = [Reply(json.dumps({"imageDetails": [{"imageDigest": DIGEST}]}).encode()), NOT_FOUND]
    with stand_in(lambda *_: replies.pop(0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert [images.find(dev, "app", "v1"), images.find(dev, "app", "v2")] == [DIGEST, ""]

    assert [parameters["registryId"] for _, parameters, _ in asked(server)] == [OWN[:12]] * 2


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        '{"manifests": {}}',
        '{"manifests": [7]}',
        '{"config": {"digest": 7}}',
        '{"manifests": [{"platform": {"os": null}}]}',
        '{"config": ' * 100_000,
        b"\xff",
    ],
    ids=["empty", "a list", "null", "no list", "no entries", "no digest", "no system", "deep", "not UTF-8"],
)
def test_a_damaged_manifest_is_one_sentence(document: str | bytes) -> None:
    """The registry of another account may hold anything."""
    with pytest.raises(DeployError, match=r"^The manifest of x cannot be read: .*\.$"):
        images.decoded(document, images.Manifest, "The manifest of x")


@pytest.mark.parametrize(
    ("uri", "reply", "expected"),
    [
        (f"{OWN}/app:v1", {"imageDetails": [{"imageDigest": DIGEST}]}, DIGEST),
        (f"{OWN}/app:v1", NOT_FOUND, ""),
        (f"{OWN}/app:v1", DENIED, ""),
        (f"{OWN}/app:v1@sha256:{'b' * 64}", None, f"sha256:{'b' * 64}"),
        (f"{OWN}/app", None, ""),
        ("ghcr.io/o/app:v1", None, ""),
        ("<no reference>", None, ""),
    ],
    ids=["ECR's", "no image", "not for this role", "its own", "no tag", "another registry", "no reference"],
)
def test_the_digest_of_an_image_is_its_own_else_that_of_its_tag(
    uri: str, reply: dict[str, Any] | Reply | None, expected: str, dev: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a tag in ECR is looked up."""
    answer = reply if isinstance(reply, Reply) else Reply(json.dumps(reply).encode())
    with stand_in(lambda *_: answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert images.digest_of(dev, uri) == expected

    assert bool(server.requests) is (reply is not None)
