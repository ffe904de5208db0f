"""What a revert decides and says, from what was observed, without a repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from scripts import revert
from scripts.edges.git import Commit
from scripts.edges.http import Answer
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.revert import Branch, Observed, Revert, Reverted
from tests.stand_in import Reply, stand_in

SHA = "abcdef1" + "0" * 33
COMMIT = Commit(SHA, "Change the page (#13)", 0, ("b" * 40,))
MERGE = replace(COMMIT, parents=("b" * 40, "c" * 40))
OBSERVED = Observed(
    folder="/app",
    base="main",
    commit=COMMIT,
    on_base=True,
    reverted_by="",
    branch_exists="",
    repository="owner/app",
    migrations=(),
    running=(),
    why="from --commit",
)
COMPARE = "https://github.com/owner/app/compare/main...revert-abcdef1?expand=1"
API = "https://api.github.com/repos/owner/app/pulls"
PLAN = Revert(
    folder="/app",
    commit=COMMIT,
    base="main",
    branch="revert-abcdef1",
    title='Revert "Change the page (#13)"',
    body=revert.body(OBSERVED),
    push=True,
    api="",
    compare=COMPARE,
    why="from --commit",
)


@pytest.mark.parametrize(
    ("observed", "token", "flags", "changes"),
    [
        ({}, "", {}, {}),
        ({}, "t", {}, {"api": API}),
        ({}, "t", {"pull_request": False}, {}),
        ({}, "t", {"push": False}, {"push": False}),
        ({"repository": ""}, "", {}, {"compare": ""}),
        ({"repository": ""}, "t", {"pull_request": False}, {"compare": ""}),
        ({"base": "release 1/x"}, "", {}, {"base": "release 1/x", "compare": COMPARE.replace("main", "release%201/x")}),
        ({"repository": "o.x_1/a-b"}, "", {}, {"compare": COMPARE.replace("owner/app", "o.x_1/a-b")}),
    ],
)
def test_the_pull_request_is_opened_with_a_token_and_else_by_a_person(
    observed: dict[str, str],
    token: str,
    flags: dict[str, bool],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its link is there wherever the repository is known."""
    monkeypatch.setenv("GITHUB_TOKEN", token)

    assert revert.plan(replace(OBSERVED, **observed), **flags) == replace(PLAN, **changes)


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        ({"on_base": False}, "abcdef1 (Change the page (#13)) is not on main: there is nothing to revert there."),
        (
            {"reverted_by": "0123456789"},
            "abcdef1 (Change the page (#13)) is already reverted on main, by 0123456.",
        ),
        (
            {"branch_exists": "on origin"},
            "The branch revert-abcdef1 exists on origin: a revert of abcdef1 was already started."
            " Continue with it, or delete the branch first.",
        ),
        *(
            ({"repository": odd}, f"{odd!r} is not a repository on GitHub: set GITHUB_REPOSITORY to owner/name.")
            for odd in ("app", "owner/app/x", "owner/", "owner/a b", "\u00e9/app", "owner/app\n")
        ),
        (
            {"repository": ""},
            "The repository on GitHub is not known from the URL of origin: set GITHUB_REPOSITORY.",
        ),
    ],
)
def test_what_cannot_be_reverted_now_is_refused(
    observed: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, before anything is changed."""
    monkeypatch.setenv("GITHUB_TOKEN", "t")

    with pytest.raises(Refused) as refused:
        revert.plan(replace(OBSERVED, **observed))

    assert str(refused.value) == said


def test_a_title_is_not_longer_than_github_takes() -> None:
    """And is one line."""
    title = revert.plan(replace(OBSERVED, commit=replace(COMMIT, subject="x\n" * 300))).title

    assert title.startswith('Revert "x x ')
    assert len(title) == 256


GIT = [
    "run git branch --no-track revert-abcdef1 origin/main",
    "run git worktree add --quiet --no-checkout WORKTREE revert-abcdef1",
    f"run git revert --no-edit {SHA}",
]
PUSH = "run git push origin revert-abcdef1:revert-abcdef1"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, [*GIT, PUSH, f"leave the pull request to you: {COMPARE}"]),
        ({"compare": ""}, [*GIT, PUSH, "leave the pull request to you: on GitHub, at the branch"]),
        ({"push": False}, GIT),
        (
            {"api": API},
            [
                *(*GIT, PUSH, f"post to {API}"),
                json.dumps(
                    {"title": PLAN.title, "head": "revert-abcdef1", "base": "main", "body": PLAN.body},
                ),
            ],
        ),
        ({"push": False, "commit": MERGE}, [*GIT[:2], f"run git revert --no-edit -m 1 {SHA}"]),
    ],
)
def test_a_plan_says_what_it_runs_and_posts(changes: dict[str, Any], lines: list[str]) -> None:
    """And which commit was chosen, and why."""
    first = f"revert {SHA} (Change the page (#13)), from --commit"

    assert replace(PLAN, **changes).describe() == [first, *lines]


@pytest.mark.parametrize(
    ("pushed", "pull_request", "line"),
    [
        (True, "https://x", "abcdef1 is reverted on the branch b: https://x"),
        (True, "", "abcdef1 is reverted on the branch b: it was pushed to origin"),
        (False, "", "abcdef1 is reverted on the branch b, which was not pushed"),
    ],
)
def test_the_result_says_where_the_revert_is(pushed: bool, pull_request: str, line: str) -> None:
    """The branch and the address are outputs of a step in Actions."""
    done = Reverted(SHA, "b", pushed, pull_request)

    assert (done.line(), done.outputs()) == (line, {"branch": "b", "pull-request": pull_request})


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["It came with #13.", "", "Running it now: no environment that answers."]),
        ({"commit": replace(COMMIT, subject="Change the page")}, ["", "Running it now: no environment that answers."]),
        (
            {"running": ("dev", "impl"), "migrations": ("migrations/V1.sql", "migrations/V2.sql")},
            [
                *("It came with #13.", "", "Running it now: dev, impl.", ""),
                "It holds migrations, which a revert does not undo in a database that has them:",
                *("", "- migrations/V1.sql", "- migrations/V2.sql"),
            ],
        ),
    ],
)
def test_the_pull_requests_text_says_what_a_revert_does_not_undo(changes: dict[str, Any], lines: list[str]) -> None:
    """And who runs what is reverted."""
    first, *others = revert.body(replace(OBSERVED, **changes)).splitlines()

    assert first.startswith(f"Reverts {SHA}: Change the page")
    assert others == lines


@pytest.mark.parametrize(
    ("flag", "of_environment", "answer", "expected"),
    [
        (None, "", "", ("origin/main", "the newest on main")),
        ("v1", "", "", ("v1", "from --commit")),
        ("v1", "dev", SHA, ("v1", "from --commit")),
        ("", "dev", SHA, ("", "from --commit")),
        (None, "dev", SHA, (SHA, "which dev runs")),
        (None, "dev", SHA[:7], (SHA[:7], "which dev runs")),
        (None, "dev", "", "The healthcheck of dev returns no version: give --commit."),
        (None, "prod", SHA, "The healthcheck of prod returns no version: give --commit."),
        *(
            (
                *(None, "dev", odd),
                f"The healthcheck of dev returns {odd[:100]!r}, which is not a commit's hash: give --commit.",
            )
            for odd in ("HEAD", SHA[:6], f"{SHA}0", SHA.upper(), "x" * 101)
        ),
    ],
)
def test_the_commit_is_that_of_the_flag_or_of_the_environment_or_the_newest(
    flag: str | None, of_environment: str, answer: str, expected: tuple[str, str] | str
) -> None:
    """answer: what the healthcheck of dev returns, the only one that does."""
    running = {"dev": answer} if answer else {}
    if isinstance(expected, tuple):
        assert revert._wanted(flag, "main", running, of_environment) == expected
    else:
        with pytest.raises(Refused) as refused:
            revert._wanted(flag, "main", running, of_environment)
        assert str(refused.value) == expected


URL = "https://github.com/owner/app/pull/99"
REMOVED = "The branch revert-abcdef1 was removed again; to keep it, use --no-pr."
STAYS = f"It may be open, so the branch revert-abcdef1 stays. Check there: {COMPARE}"


def rejected(status: int, said: str) -> str:
    """The message for a status that is no success."""
    return f"GitHub did not confirm the pull request: HTTP {status}: {said}"


@pytest.mark.parametrize(
    ("reply", "said", "stays"),
    [
        (Reply(json.dumps({"html_url": URL}).encode(), 201), "", False),
        (Reply(b'{"message": "Moved"}', 307), f"{rejected(307, 'Moved.')} {REMOVED}", False),
        (Reply(b"", 300), f"{rejected(300, 'no reason given.')} {REMOVED}", False),
        (Reply(b"[]", 422), f"{rejected(422, 'no reason given.')} {REMOVED}", False),
        (Reply(b"{}", 499), f"{rejected(499, 'no reason given.')} {REMOVED}", False),
        (Reply(json.dumps({"html_url": URL}).encode(), 404), f"{rejected(404, 'no reason given.')} {REMOVED}", False),
        (Reply(b'{"message": "Sorry"}', 500), f"{rejected(500, 'Sorry.')} {STAYS}", True),
        (Reply(b"{}", 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b'{"html_url": null}', 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b'{"html_url": 9}', 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b'{"html_url": "javascript:x"}', 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b"[]", 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b"", 201), f"{rejected(201, 'no reason given.')} {STAYS}", True),
        (Reply(b"", drop=True), "GitHub's response to the pull request was lost: ", True),
    ],
    ids=lambda value: f"{value.status} {value.body!r}" if isinstance(value, Reply) else "",
)
def test_a_branch_stays_where_its_pull_request_may_be_open(
    reply: Reply, said: str, stays: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the outcome is unknown; after a rejection it is removed, and everything is as before."""
    monkeypatch.setenv("GITHUB_TOKEN", "github_pat_x")
    branch = Branch(Path("/app"), "revert-abcdef1")
    with stand_in(lambda *_: reply) as api:
        plan = replace(PLAN, api=f"{api.url}/repos/owner/app/pulls")
        if said:
            with pytest.raises(OutcomeUnknown if stays else Refused) as error:
                revert._pull_request(plan, branch)
            assert str(error.value).startswith(said)
            assert str(error.value).endswith(STAYS if stays else REMOVED)
        else:
            assert revert._pull_request(plan, branch) == URL

    assert branch.stays is stays
    (request,) = api.requests
    assert (request["method"], request["path"]) == ("POST", "/repos/owner/app/pulls")
    assert request["headers"]["Authorization"] == "Bearer github_pat_x"
    assert json.loads(request["body"]) == PLAN.request()
    assert capsys.readouterr().err == ""


def test_a_github_that_is_not_reached_has_opened_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch is removed again."""
    branch = Branch(Path("/app"), "revert-abcdef1")

    with pytest.raises(Refused) as refused:
        revert._pull_request(replace(PLAN, api="http://127.0.0.1:9/"), branch)

    assert str(refused.value) == f"GitHub cannot be reached for the pull request: Connection refused. {REMOVED}"
    assert not branch.stays


@pytest.mark.parametrize(
    ("compare", "said"),
    [
        (COMPARE, "no pull request was opened: open it with the link"),
        ("", "no pull request was opened: open it on GitHub"),
    ],
)
def test_without_a_token_a_person_opens_the_pull_request(
    compare: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the link, where it is known."""
    assert revert._pull_request(replace(PLAN, compare=compare), Branch(Path("/app"), "b")) == compare
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize(
    ("token", "actions", "warned"),
    [("github_pat_x", False, False), ("ghs_x", False, True), ("github_pat_x", True, True), ("x_ghs_", False, False)],
)
def test_a_workflows_own_token_is_warned_of(
    token: str, actions: bool, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pull request that it opens starts no workflow."""
    monkeypatch.setenv("GITHUB_TOKEN", token)
    if actions:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with stand_in(lambda *_: Reply(b"{}", 201)) as api:
        revert._ask_github(replace(PLAN, api=api.url))

    assert ("GITHUB_TOKEN is the workflow's own" in capsys.readouterr().err) is warned


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"message": "Invalid", "errors": [{"message": "a"}, {"message": "b"}]}', "Invalid: a: b."),
        (b'{"message": "Invalid", "errors": [{"code": "x"}, "y", 3, null]}', "Invalid."),
        (b'{"message": "Invalid", "errors": {"message": "a"}}', "Invalid."),
        (b'{"errors": [{"message": "a\\n::error::b"}]}', "a ::error::b."),
        (b'{"message": 3}', "3."),
        (b'{"message": ""}', "no reason given."),
        (b"<html>", "no reason given."),
        (b"[" * 100_000, "no reason given."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_githubs_reason_is_one_line(body: bytes, reason: str) -> None:
    """What it says of each error too."""
    assert revert._reason(Answer(422, {}, body)) == reason


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("`git push` failed with exit code 1: hook: no", "hook: no"),
        ("`git push` failed with exit code 1", "`git push` failed with exit code 1"),
        ("git is not installed", "git is not installed"),
    ],
)
def test_gits_own_words_are_shown_where_there_are_any(message: str, words: str) -> None:
    assert revert._words(DeployError(message)) == words


def test_a_conflict_names_the_files_and_what_to_type() -> None:
    """As a shell takes it, and a merge against its first parent."""
    assert revert._conflict(replace(PLAN, commit=MERGE), ["a b.txt", "c.txt"]).splitlines() == [
        "abcdef1 cannot be reverted by itself: later commits changed the same lines of a b.txt, c.txt."
        " Nothing was changed. By hand:",
        "  git switch -c revert-abcdef1 origin/main",
        f"  git revert --no-edit -m 1 {SHA}",
        "  # correct the files, then",
        "  git add 'a b.txt' c.txt",
        "  git revert --continue",
        "  git push origin revert-abcdef1",
    ]
