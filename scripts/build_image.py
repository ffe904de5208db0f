"""Builds the image of a version and pushes it to ECR.

Was `docker image build` and `docker image push` inside build.yml; the build arguments are theirs.
"""

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from scripts.ecs import images
from scripts.ecs.images import Image
from scripts.edges import aws, shell
from scripts.frame import console, files, version
from scripts.frame.errors import DeployError, Refused, unknown_after
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import ROOT, Environment

# One platform and no attestations, because an image scanner cannot read an index of several manifests. These are
# variables, because builders ignore those that they do not know.
BUILDER = {"DOCKER_DEFAULT_PLATFORM": "linux/amd64", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


class ImageBuild(Struct, frozen=True):
    """An image to be built. digest: of the image that already has the tag, empty if there is none.

    rebuild: build it all the same; the tag then moves to the new image.
    """

    uri: str
    registry: str
    repository: str
    tag: str
    file: str
    context: str
    arguments: Mapping[str, str]
    push: bool
    digest: str
    rebuild: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether anything has to be built."""
        return self.rebuild or not self.digest

    def describe(self) -> list[str]:
        if not self.is_needed:
            return [f"skip the build and the push: {self.uri} is in the registry already ({self.digest})"]
        lines = [f"move the tag, which {self.digest} has"] if self.digest and self.push else []
        lines += ["run " + shell.words([f"{k}={v}" for k, v in BUILDER.items()] + self.build_command())]
        if self.push:
            lines += ["run " + shell.words(command) for command in (self.login_command(), self.push_command())]
        return lines

    def build_command(self) -> list[str]:
        """`docker image build` as the old workflow had it."""
        arguments = [word for name, value in self.arguments.items() for word in ("--build-arg", f"{name}={value}")]
        head = ["docker", "image", "build", "--quiet", "--no-cache", "--tag", self.uri]
        return [*head, *arguments, "--file", self.file, self.context]

    def login_command(self) -> list[str]:
        """`docker login`, which reads the token from stdin."""
        return ["docker", "login", "--username", "AWS", "--password-stdin", self.registry]

    def push_command(self) -> list[str]:
        """`docker image push`."""
        return ["docker", "image", "push", self.uri]


class ImageBuilt(Report, Struct, frozen=True):
    """An image that was built, or was there already. digest: in the registry, empty if it was not pushed."""

    uri: str
    digest: str
    built: bool

    def line(self) -> str:
        if not self.digest:
            return f"{self.uri} was built and not pushed"
        return f"{self.uri} is in the registry{'' if self.built else ' already: not pushed again'} ({self.digest})"

    def outputs(self) -> dict[str, str]:
        """The image by tag, and pinned by digest, so that exactly this image is deployed and promoted."""
        pinned = replace(images.checked(self.uri), tag="", digest=self.digest)
        known = {"pinned": str(pinned), "digest": self.digest} if self.digest else {}
        return {"image": self.uri, **known}


def build_image(
    run: Run,
    *,
    image: str | None = None,
    file: str | None = None,
    context: str | None = None,
    tag: str | None = None,
    no_push: bool = False,
    rebuild: bool = False,
) -> ImageBuilt | None:
    """Build and push an image, unless the registry already has it. rebuild: even then."""
    env = run.environment
    repository, tag = planned(env, image, tag)
    known = None if no_push else run.read(f"{repository} in ECR", lambda: images.find(env, repository, tag))
    decided = plan(env, image=image, file=file, context=context, tag=tag, push=not no_push, digest=known or "")
    decided = replace(decided, rebuild=rebuild)
    run.read("what is to be built", lambda: check_sources(decided))
    return run.act(decided, partial(build, env), f"build {repository}")


def planned(environment: Environment, image: str | None, tag: str | None) -> tuple[str, str]:
    """Repository and tag of the image to be built. Raises Refused if one is malformed."""
    repository = environment.service.image if image is None else image
    return version.repository(repository), version.wanted(tag)


def plan(
    environment: Environment,
    *,
    image: str | None = None,
    file: str | None = None,
    context: str | None = None,
    tag: str | None = None,
    push: bool = True,
    digest: str = "",
    now: float | None = None,
) -> ImageBuild:
    """Decide the build and its arguments. digest: of the image that has the tag. now: Unix time in seconds.

    Raises Refused for bad input.
    """
    repository, chosen = planned(environment, image, tag)
    registry = environment.registry.require()
    file = str(ROOT / dockerfile(environment, repository)) if file is None else file
    context = str(ROOT / environment.build_context) if context is None else context
    instant = datetime.fromtimestamp(int(time.time() if now is None else now), UTC)
    arguments = {
        "ARG_APPLICATION_VERSION": chosen,
        "ARG_APPLICATION_DATETIME": instant.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        "ARG_APPLICATION_TS": str(int(instant.timestamp())),
    }
    uri = str(Image(registry, repository, chosen))
    return ImageBuild(uri, registry, repository, chosen, file, context, arguments, push, digest)


def dockerfile(environment: Environment, repository: str) -> str:
    """The Dockerfile of an image, by the settings. Raises Refused for an image that they do not know."""
    service, migrations, cleaner = environment.service, environment.migrations, environment.cleaner
    known = {cleaner.image: cleaner.file, migrations.image: migrations.file, service.image: service.file}
    if not known.get(repository):
        names = ", ".join(name for name, file in known.items() if name and file)
        raise Refused(f"The settings know no Dockerfile of {repository}, only of {names}: give --file.")
    return known[repository]


def check_sources(plan: ImageBuild) -> None:
    """Raises Refused if the Dockerfile or the context does not exist."""
    # Not Path.is_dir and Path.is_file, which raise for a name that is too long.
    if not os.path.isdir(plan.context):
        raise Refused(f"The build context {plan.context} is not a folder.")
    if not os.path.isfile(plan.file):
        raise Refused(f"There is no Dockerfile {plan.file}: give --file.")


def build(environment: Environment, plan: ImageBuild) -> ImageBuilt:
    """Build the image, push it, and check that ECR has it.

    Raises Refused if no Docker engine answers, DeployError if building or pushing fails.
    """
    if not plan.is_needed:
        console.say(plan.describe()[0].replace("skip", "skipping", 1))
        return ImageBuilt(plan.uri, plan.digest, built=False)
    missing = engine_fault()
    if missing and not environment.endpoint_url:
        raise Refused(missing)
    if missing and not plan.push:
        raise Refused(f"{missing} --no-push needs one.")
    if missing:
        from local_aws import image_assembly

        console.say(f"{missing} The image is assembled without one.")
        image_assembly.assemble_and_push(
            plan.uri, Path(plan.file), Path(plan.context), plan.arguments, token(environment)
        )
    else:
        console.say(f"building {plan.uri}")
        shell.stream(plan.build_command(), env=BUILDER)
        if not plan.push:
            return ImageBuilt(plan.uri, "", built=True)
        _push(environment, plan)
    with unknown_after(f"{plan.uri} was pushed, but it could not be checked that ECR has it"):
        digest = images.find(environment, plan.repository, plan.tag)
    if not digest:
        raise DeployError(f"{plan.uri} was pushed, but ECR does not have it: check the registry {plan.registry}.")
    return ImageBuilt(plan.uri, digest, built=True)


def engine_fault() -> str:
    """Why no Docker engine can be used, empty if one can."""
    if not shell.available("docker"):
        return "docker is not installed."
    try:
        shell.capture(["docker", "version", "--format", "{{.Server.Version}}"], timeout=20)
    except DeployError as error:
        return f"No Docker engine answers: {str(error).rpartition(': ')[2].rstrip('.?')}."
    return ""


def token(environment: Environment) -> str:
    """ECR's password for docker, masked in the log of Actions."""
    import base64

    client = aws.client("ecr", environment)
    with aws.errors("getting a token for the registry", environment):
        data = client.get_authorization_token()["authorizationData"][0]
        secret = base64.b64decode(data["authorizationToken"]).decode().partition(":")[2]
    # docker stores and sends the token in its original form, which includes the user.
    for form in (data["authorizationToken"], secret):
        console.mask(form)
    return secret


def _push(environment: Environment, plan: ImageBuild) -> None:
    """Log in and push with a temporary Docker configuration, so that the token does not stay on the machine."""
    console.say(f"pushing {plan.uri}")
    with files.temporary_folder("docker-") as folder:
        env = {"DOCKER_CONFIG": str(folder)}
        shell.capture(plan.login_command(), env=env, stdin=token(environment))
        shell.stream(plan.push_command(), env=env)
