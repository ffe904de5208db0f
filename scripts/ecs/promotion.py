"""Promotion: a version goes to an environment only after the one before it has run it well, with the same image.

What the environment before has run is read from its receipts, else from its healthcheck, else from ECS. What cannot be
read is no consent.
"""

from collections.abc import Sequence

from msgspec import Struct

from scripts.ecs import images, receipts
from scripts.ecs.images import Image
from scripts.ecs.reader import Reader
from scripts.ecs.receipts import Receipt
from scripts.ecs.rollout import Service
from scripts.frame import settings, text, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.settings import Environment

# Receipts that are looked through, and seconds for the healthcheck.
MOST, TIMEOUT = 200, 5.0


class Wanted(Struct, frozen=True):
    """What is to be promoted. digest: of its image, empty if it is not known."""

    version: str
    digest: str = ""


class Promoted(Report, Struct, frozen=True):
    """A version that may go on. before: the environment that has run it. proof: in a sentence."""

    environment: str
    before: str
    version: str
    proof: str

    def line(self) -> str:
        return f"{version.short(self.version)} may go to {self.environment}: {self.proof}"


def environment_before(environment: Environment) -> str:
    """The environment that a version has to run in first, empty if it may go there at once.

    An embedded environment is nobody's production, and has nothing before it.
    """
    order = environment.application.promotion
    if environment.endpoint_url or environment.name not in order:
        return ""
    number = order.index(environment.name)
    return order[number - 1] if number else ""


def check(environment: Environment, wanted_version: str, digest: str | None) -> Promoted:
    """Look whether the environment before has run a version. digest: of its image, None to look it up in ECR.

    Raises Refused if it has not, or if that cannot be read.
    """
    name = environment_before(environment)
    before = settings.environment(name, dry_run=True)
    wanted = Wanted(wanted_version, _digest(environment, wanted_version) if digest is None else digest)
    short, unread = version.short(wanted.version), []
    try:
        proof = by_receipts(receipts.read(before, MOST).receipts, wanted, before)
        if proof:
            return Promoted(environment.name, name, wanted.version, proof)
    except NotPromoted as error:
        raise _refused(environment, name, short, [str(error)]) from error
    except DeployError as error:
        unread.append(f"its receipts cannot be read: {error}")
    try:
        answers = version.ask(before.healthcheck, TIMEOUT)
    except DeployError as error:
        unread.append(f"its healthcheck does not answer: {error}")
    else:
        if answers == wanted.version:
            return Promoted(environment.name, name, wanted.version, f"{name} answers with it")
        raise _refused(environment, name, short, [*unread, f"it answers with {version.short(answers)}"])
    try:
        runs = by_ecs(Reader(before, before.service.name).look(), wanted, before.service.image)
    except DeployError as error:
        raise _refused(environment, name, short, [*unread, f"ECS cannot be read: {error}"]) from error
    if not runs:
        raise _refused(environment, name, short, [*unread, "in ECS it runs another image"])
    return Promoted(environment.name, name, wanted.version, f"{name} runs it in ECS")


class NotPromoted(Exception):
    """The environment before is known not to have run this image."""


def by_receipts(kept: Sequence[Receipt], wanted: Wanted, before: Environment) -> str:
    """The proof in an environment's receipts, newest first; empty if there is none.

    Raises NotPromoted if the version was rolled back from there, or ran only with another image.
    """
    if wanted.version in receipts.rolled_back_from(kept):
        raise NotPromoted("it was rolled back from there")
    ran = [one for one in kept if one.is_good(before.service.name) and one.version == wanted.version]
    same = [one for one in ran if not (one.digest and wanted.digest) or one.digest == wanted.digest]
    if same:
        when = f"{text.minute(same[0].started)} UTC"
        image = "" if same[0].digest and wanted.digest else ", with an image whose digest is not known"
        return f"{before.name} has run it well, deployed {when}{image}"
    if ran:
        raise NotPromoted(f"it ran there with another image, {ran[0].digest} and not {wanted.digest}")
    return ""


def by_ecs(service: Service, wanted: Wanted, repository: str) -> bool:
    """Whether a service has rolled the wanted image out."""
    primary = service.primary
    if primary is None or primary.state == "FAILED" or not primary.running:
        return False
    return any(_is_wanted(images.parse(reference), wanted, repository) for reference in primary.images)


def _is_wanted(image: Image | None, wanted: Wanted, repository: str) -> bool:
    if image is None or image.repository != repository:
        return False
    return image.digest == wanted.digest if image.digest and wanted.digest else image.tag == wanted.version


def _digest(environment: Environment, tag: str) -> str:
    """The digest that the version's image has in ECR.

    Raises Refused if there is no such image, or if ECR cannot be asked.
    """
    image = Image(environment.registry.require(), environment.service.image, tag)
    try:
        stored = images.look_up(environment, image)
    except DeployError as error:
        raise Refused(f"The digest of {image} is not known: {error} Give --digest.") from error
    if stored is None:
        raise Refused(f"There is no image {image}. Nothing was changed.")
    return stored.digest


def _refused(environment: Environment, before: str, short: str, why: Sequence[str]) -> Refused:
    return Refused(
        f"{short} does not go to {environment.name}: it is not known to have run well in {before}. {'; '.join(why)}."
        f" Deploy it to {before} first, or give --skip-promotion. Nothing was changed."
    )
