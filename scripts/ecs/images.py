"""References to images: parsing, formatting, and lookup in the environment's registry."""

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from scripts.edges import aws, http
from scripts.frame import version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.settings import Environment

# https://pkg.go.dev/github.com/distribution/reference has the grammar.
REFERENCE = re.compile(
    r"((?P<registry>(?=[^/]*[.:]|localhost/)[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?)/)?"
    r"(?P<repository>[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
R = TypeVar("R", bound=Struct)
LONGEST = 512
# The host of an ECR registry: https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-requests.html
ECR = re.compile(
    r"(?P<account>[0-9]{12})\.dkr[.-]ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.(amazonaws\.com(\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
# Of one image, and of an index of several platforms.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# The most that is read of an image's configuration, in bytes.
CONFIGURATION = 4 << 20


class Platform(Struct, frozen=True):
    """What an image runs on, in an index or in the image's own configuration."""

    os: str = "unknown"
    architecture: str = "unknown"

    @property
    def name(self) -> str:
        """Such as linux/amd64."""
        return f"{self.os}/{self.architecture}"


class Entry(Struct, frozen=True):
    """A document that a manifest names: the configuration of an image, or one image of an index."""

    digest: str = ""
    platform: Platform = Platform()


class Manifest(Struct, frozen=True):
    """The manifest of one image, which has a configuration, or an index of several.

    https://github.com/opencontainers/image-spec/blob/main/image-index.md
    """

    config: Entry = Entry()
    manifests: tuple[Entry, ...] = ()


class Image(Struct, frozen=True):
    """A reference to an image. registry: host and port, empty for Docker Hub. tag, digest: empty if not given."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        host = f"{self.registry}/" if self.registry else ""
        tag = f":{self.tag}" if self.tag else ""
        return f"{host}{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(reference: str) -> Image | None:
    """Parse a reference. None for an invalid one."""
    found = REFERENCE.fullmatch(reference) if len(reference) <= LONGEST else None
    return Image(**{name: found[name] or "" for name in ("registry", "repository", "tag", "digest")}) if found else None


def checked(uri: str) -> Image:
    """The image that a person gave by its full URI. Raises Refused for an invalid one."""
    found = parse(uri)
    if found is None or "/" not in uri:
        raise Refused(f"{uri[:200]!r} is not an image's URI: it must look like registry/repository:tag.")
    return found


def checked_digest(digest: str, what: str = "--digest") -> str:
    """A digest that a person gave. Raises Refused for an invalid or empty one."""
    if not DIGEST.fullmatch(digest):
        raise Refused(f"{what} must be sha256: and 64 hexadecimal digits, not {digest[:200]!r}.")
    return digest


def named(environment: Environment, repository: str, tag: str | None, digest: str | None) -> Image:
    """An image in the environment's registry: by its digest if that is given, else by its tag.

    tag: None for the default version. Raises Refused for a malformed part, and for tag and digest at once.
    """
    if tag is not None and digest is not None:
        raise Refused("--digest and --tag exclude each other: leave one of them out.")
    registry, repository = environment.registry.require(), version.repository(repository)
    if digest is not None:
        return Image(registry, repository, digest=checked_digest(digest))
    return Image(registry, repository, tag=version.wanted(tag))


def find(environment: Environment, repository: str, tag: str) -> str:
    """The digest of an image in the environment's registry, empty if no image has the tag.

    Raises DeployError if the repository does not exist or ECR cannot be asked.
    """
    stored = look_up(environment, Image(environment.registry.known(), repository, tag))
    return stored.digest if stored else ""


class Stored(Struct, frozen=True):
    """An image in ECR. media_type: of its manifest, empty if ECR does not say. tags: all that it has there."""

    digest: str
    media_type: str
    tags: tuple[str, ...] = ()


def is_in_ecr(environment: Environment, image: Image) -> bool:
    """Whether an image's registry is ECR: that of the environment, or that of any account."""
    return image.registry == environment.registry.known() or bool(ECR.fullmatch(image.registry))


def _registry(environment: Environment, image: Image) -> tuple[Any, dict[str, str]]:
    """A client for the region of an image's registry, and the account to ask: it may be another than the caller's."""
    found = ECR.fullmatch(image.registry)
    if found is None:
        return aws.client("ecr", environment), {}
    there = structs.replace(environment, region=found["region"])
    return aws.client("ecr", there), {"registryId": found["account"]}


def _id(image: Image) -> dict[str, str]:
    """How ECR names an image. Without digest and tag it is the one that Docker pulls."""
    return {"imageDigest": image.digest} if image.digest else {"imageTag": image.tag or "latest"}


def look_up(environment: Environment, image: Image) -> Stored | None:
    """An image in ECR, by its digest, else by its tag; None if there is none.

    Raises DeployError if the repository does not exist or ECR cannot be asked.
    """
    client, account = _registry(environment, image)
    which = _id(image)
    with aws.errors(f"looking for {image}", environment):
        try:
            answer = client.describe_images(repositoryName=image.repository, imageIds=[which], **account)
        except client.exceptions.ImageNotFoundException:
            return None
        except client.exceptions.RepositoryNotFoundException as error:
            own = image.registry == environment.registry.known()
            where = f"of {environment.name}" if own else image.registry
            raise DeployError(f"There is no repository {image.repository} in the registry {where}.") from error
        found = answer["imageDetails"][0]
        tags = tuple(str(tag) for tag in found.get("imageTags", []))
        return Stored(str(found["imageDigest"]), str(found.get("imageManifestMediaType", "")), tags)


def version_of(environment: Environment, uri: str) -> str:
    """The version that an image named by its digest is, by its tags in ECR; empty if they do not say which."""
    image = parse(uri)
    if image is None or not is_in_ecr(environment, image):
        return ""
    try:
        stored = look_up(environment, image)
    except DeployError:
        return ""
    tags = stored.tags if stored else ()
    known = [tag for tag in tags if version.COMMIT.fullmatch(tag)] or tags
    return known[0] if len(known) == 1 else ""


def manifest(environment: Environment, image: Image) -> Manifest:
    """The manifest of an image in ECR, or of an index. Raises DeployError if it cannot be read."""
    client, account = _registry(environment, image)
    with aws.errors(f"reading the manifest of {image}", environment):
        answer = client.batch_get_image(
            repositoryName=image.repository, imageIds=[_id(image)], acceptedMediaTypes=MANIFESTS, **account
        )
        if not answer.get("images"):
            raise DeployError(f"ECR does not return the manifest of {image}.")
        document = answer["images"][0]["imageManifest"]
    return decoded(document, Manifest, f"The manifest of {image}")


def platforms(environment: Environment, image: Image) -> tuple[str, ...]:
    """The platforms that an image in ECR is for, such as linux/amd64. Raises DeployError if they cannot be read."""
    found = manifest(environment, image)
    if found.manifests:
        names = [entry.platform.name for entry in found.manifests]
        # Attestations are listed as unknown/unknown.
        return tuple(dict.fromkeys(name for name in names if "unknown" not in name))
    client, account = _registry(environment, image)
    with aws.errors(f"reading the configuration of {image}", environment):
        layer = client.get_download_url_for_layer(
            repositoryName=image.repository, layerDigest=found.config.digest, **account
        )
        url = http.checked(layer["downloadUrl"], "the URL of a layer")
    answered = http.request("GET", url, timeout=10, most=CONFIGURATION)
    if not answered.ok:
        raise DeployError(f"The configuration of {image} cannot be read: HTTP status {answered.status}.")
    return (decoded(answered.body, Platform, f"The configuration of {image}").name,)


def decoded(document: str | bytes, record: type[R], what: str) -> R:
    """A document of a registry. what: for the message. Raises DeployError for one that is not what it should be."""
    try:
        return msgspec.json.decode(document, type=record)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DeployError(f"{what} cannot be read: {error}.") from error


def digest_of(environment: Environment, uri: str) -> str:
    """The digest of an image: its own, else ECR's for its tag; empty if it is not known."""
    image = parse(uri)
    if image is None or image.digest or not is_in_ecr(environment, image):
        return image.digest if image else ""
    try:
        found = look_up(environment, image) if image.tag else None
    except DeployError:
        return ""
    return found.digest if found else ""
