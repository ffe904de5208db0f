"""What proves that a version runs: the tasks that ECS shows, and the answers of the endpoint. No input or output."""

from collections.abc import Collection, Sequence

from msgspec import Struct
from msgspec.structs import replace

from scripts.ecs import images
from scripts.ecs.rollout import Task
from scripts.frame import version as versions

# Answers in a row that prove a version: during a rollout, old and new tasks answer in turn.
MATCHES = 3
# Requests without any answer, after which an endpoint counts as one that this machine cannot reach.
UNREACHED = 3


class Tasks(Struct, frozen=True):
    """What the running tasks of a service prove. says: in one sentence. drains: old tasks that still run."""

    proven: bool
    says: str
    drains: int = 0


def of_tasks(
    tasks: Sequence[Task], task_definition: str, draining: Collection[str], repository: str, digests: Collection[str]
) -> Tasks:
    """Whether every running task is on a task definition, and on one of the digests that the image has.

    draining: ids of older deployments, whose tasks do not count. digests: empty if not known.
    """
    current = [task for task in tasks if task.deployment not in draining]
    drains, revision = len(tasks) - len(current), task_definition.rpartition("/")[2]
    old = f", {drains} of older deployments still drain" if drains else ""
    others = sum(task.task_definition != task_definition for task in current)
    if not current or others:
        return Tasks(False, f"{len(current) - others} of {len(current)} running tasks are on {revision}{old}", drains)
    foreign = next(iter(sorted(_digests(current, repository) - set(digests))), "") if digests else ""
    if foreign:
        return Tasks(False, f"a task on {revision} runs the digest {foreign}, which the version does not have", drains)
    of_image = f" and {short(min(digests))}" if digests and _digests(current, repository) else ""
    count = f"{len(current)} of {len(current)} running tasks are" if len(current) > 1 else "the running task is"
    return Tasks(True, f"{count} on {revision}{of_image}{old}", drains)


def _digests(tasks: Sequence[Task], repository: str) -> set[str]:
    """The digests of the service's own image in tasks, as far as ECS gives them."""
    found = set()
    for container in (container for task in tasks for container in task.containers):
        image = images.parse(container.image)
        if image and image.repository == repository and container.digest:
            found.add(container.digest)
    return found


def short(digest: str) -> str:
    """A digest for a sentence."""
    return f"{digest[:19]}…" if len(digest) > 20 else digest


class Answers(Struct, frozen=True):
    """What an endpoint has answered so far.

    new, old: how many answers had the wanted version, and another one. row: how many of the last ones in a row had it.
    other: the last other version. last: the last answer as a sentence. failed: requests without any answer.
    reached: whether it has ever answered anything. unclear: whether the last answer had no version.
    """

    new: int = 0
    old: int = 0
    row: int = 0
    other: str = ""
    last: str = ""
    failed: int = 0
    reached: bool = False
    unclear: bool = False

    def with_version(self, found: str, wanted: str) -> "Answers":
        """The same after an answer with a version."""
        known = replace(self, reached=True, unclear=False, last=f"answers with {versions.short(found)}")
        if found == wanted:
            return replace(known, new=self.new + 1, row=self.row + 1)
        return replace(known, old=self.old + 1, row=0, other=found)

    def without_version(self, why: str, *, reached: bool) -> "Answers":
        """The same after an answer without a version, or after none."""
        last = f"answers without a version: {why}" if reached else f"does not answer: {why}"
        known = replace(self, row=0, last=last, unclear=True)
        return replace(known, reached=True) if reached else replace(known, failed=self.failed + 1)

    @property
    def proven(self) -> bool:
        """Whether the version answered often enough in a row."""
        return self.row >= MATCHES

    @property
    def unreachable(self) -> bool:
        """Whether this machine has never got an answer, and has tried often enough."""
        return not self.reached and self.failed >= UNREACHED

    @property
    def contradicts(self) -> bool:
        """Whether the last answer was another version."""
        return self.reached and not self.unclear and self.row == 0

    @property
    def counts(self) -> str:
        """How many answers were old and new."""
        return f"{self.new} new and {self.old} old answers"
