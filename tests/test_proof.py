"""What running tasks and answers prove, as tables."""

import pytest

from scripts.ecs import proof
from scripts.ecs.proof import Answers, Tasks
from scripts.ecs.rollout import Container, Task

NEW, OLD = "arn:task-definition/app:2", "arn:task-definition/app:1"
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def task(definition: str = NEW, deployment: str = "new", image: str = "r.io/app:v2", digest: str = DIGEST) -> Task:
    """A running task of the application beside a sidecar."""
    own = Container("app", image, digest)
    return Task(
        "t", definition, deployment, "RUNNING", containers=(own, Container("proxy", "r.io/proxy:v2", "sha256:c"))
    )


@pytest.mark.parametrize(
    ("tasks", "digests", "proven", "says", "drains"),
    [
        ([task(), task()], [DIGEST], True, f"2 of 2 running tasks are on app:2 and {DIGEST[:19]}…", 0),
        ([task()], [DIGEST], True, f"the running task is on app:2 and {DIGEST[:19]}…", 0),
        ([task()], [OTHER, DIGEST], True, f"the running task is on app:2 and {DIGEST[:19]}…", 0),
        ([task()], [], True, "the running task is on app:2", 0),
        ([task(digest="")], [DIGEST], True, "the running task is on app:2", 0),
        ([task(image="r.io/team/app:v2")], [OTHER], True, "the running task is on app:2", 0),
        ([task(image="not an image")], [OTHER], True, "the running task is on app:2", 0),
        ([task(), task(OLD, "old")], [DIGEST], True, f"the running task is on app:2 and {DIGEST[:19]}…, 1 of", 1),
        ([task(), task(OLD)], [DIGEST], False, "1 of 2 running tasks are on app:2", 0),
        ([task(OLD, "old")], [DIGEST], False, "0 of 0 running tasks are on app:2, 1 of older deployments", 1),
        ([], [DIGEST], False, "0 of 0 running tasks are on app:2", 0),
        ([task(), task(digest=OTHER)], [DIGEST], False, f"a task on app:2 runs the digest {OTHER}, which", 0),
        ([task(digest="sha256:1")], ["sha256:1"], True, "the running task is on app:2 and sha256:1", 0),
    ],
)
def test_every_running_task_must_be_on_the_revision_and_the_digest(
    tasks: list[Task], digests: list[str], proven: bool, says: str, drains: int
) -> None:
    """Those of older deployments only drain, and sidecars have digests of their own."""
    found = proof.of_tasks(tasks, NEW, {"old"}, "app", digests)

    assert (found.proven, found.drains) == (proven, drains)
    assert found.says.startswith(says)
    assert found == Tasks(found.proven, found.says, found.drains)


def heard(*answers: str) -> Answers:
    """What is known after these answers: a version, "!" for none of it, "-" for no answer at all."""
    known = Answers()
    for answer in answers:
        if answer == "-":
            known = known.without_version("refused", reached=False)
        elif answer == "!":
            known = known.without_version("HTTP status 503", reached=True)
        else:
            known = known.with_version(answer, "v2")
    return known


@pytest.mark.parametrize(
    ("answers", "proven", "unreachable", "contradicts"),
    [
        ([], False, False, False),
        (["v2"] * 2, False, False, False),
        (["v2"] * 3, True, False, False),
        (["v1", *["v2"] * 3], True, False, False),
        ([*["v2"] * 3, "v1"], False, False, True),
        ([*["v2"] * 3, "!"], False, False, False),
        ([*["v2"] * 3, "-"], False, False, False),
        (["v2", "v2", "-", "v2"], False, False, False),
        (["v1"], False, False, True),
        (["v1", "!"], False, False, False),
        (["v1", "-"], False, False, False),
        (["v1", "v2"], False, False, False),
        (["!"], False, False, False),
        (["-"] * 2, False, False, False),
        (["-"] * 3, False, True, False),
        (["!", *["-"] * 9], False, False, False),
        ([*["-"] * 3, "v1"], False, False, True),
    ],
)
def test_only_the_last_answers_in_a_row_prove_a_version(
    answers: list[str], proven: bool, unreachable: bool, contradicts: bool
) -> None:
    """What has answered before can be reached; what has never answered cannot."""
    known = heard(*answers)

    assert (known.proven, known.unreachable, known.contradicts) == (proven, unreachable, contradicts)


def test_old_and_new_answers_are_counted() -> None:
    """And the last one, and the last other version, are known."""
    known = heard("-", "v1", "v2", "v0", "v2", "!")

    assert known.counts == "2 new and 2 old answers"
    assert (known.other, known.failed, known.reached) == ("v0", 1, True)
    assert known.last == "answers without a version: HTTP status 503"
    assert heard("v1").last == "answers with v1"
    assert heard("a" * 40).last == "answers with aaaaaaa"
    assert heard("-").last == "does not answer: refused"
