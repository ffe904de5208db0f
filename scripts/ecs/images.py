"""References to images: parsing, formatting, and lookup in the environment's registry."""

import re
from dataclasses import dataclass

from scripts.edges import aws
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
LONGEST = 512


@dataclass(frozen=True)
class Image:
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
    """The digest of an image in ECR, empty if no image has the tag.

    Raises DeployError if the repository does not exist or ECR cannot be asked.
    """
    client = aws.client("ecr", environment)
    with aws.errors(f"looking for {repository}:{tag}", environment):
        try:
            found = client.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
            return str(found["imageDetails"][0]["imageDigest"])
        except client.exceptions.ImageNotFoundException:
            return ""
        except client.exceptions.RepositoryNotFoundException as error:
            raise DeployError(f"There is no repository {repository} in the registry of {environment.name}.") from error


def digest_of(environment: Environment, uri: str) -> str:
    """The digest of an image: its own, else ECR's for its tag; empty if it is not known."""
    image = parse(uri)
    if image is None or image.digest or image.registry != environment.registry.require():
        return image.digest if image else ""
    try:
        return find(environment, image.repository, image.tag) if image.tag else ""
    except DeployError:
        return ""
