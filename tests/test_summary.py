"""The page of a run in GitHub Actions: reasons, links, and the chart of its steps."""

import pytest

from scripts.frame.summary import Links, Phase, linked, page, reasons, timeline

DIGEST = "sha256:" + "a1" * 32
COMMIT = "5" * 40
REGISTRY = "123456789012.dkr.ecr.us-west-2.amazonaws.com"
COMMITS = "https://github.com/a/b/commit/"
CONSOLE = "https://us-west-2.console.aws.amazon.com/ecr/repositories/private/123456789012/mint-backend/_/image"


def links(**given: object) -> Links:
    """Of a run that worked on one image."""
    known = {"commit": COMMIT, "images": {f"{REGISTRY}/mint-backend:{COMMIT}": DIGEST}, "console": True}
    return Links("https://dev.mint.cms.gov", COMMITS, **{**known, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, f"{CONSOLE}/{DIGEST}/details"),
        # GitHub would mask the account in the link.
        ({"console": False}, f"{COMMITS}{COMMIT}"),
        ({"images": {"127.0.0.1:4566/mint-backend:v0": DIGEST}}, f"{COMMITS}{COMMIT}"),
        ({"images": {}}, ""),
        ({"console": False, "commit": "v0"}, ""),
    ],
    ids=["ECR", "the account is a secret", "another registry", "another image", "no commit"],
)
def test_a_digest_is_short_and_leads_to_its_page(given: dict[str, object], url: str) -> None:
    """To ECR's, else to the commit that it was built from."""
    made = links(**given)
    short = "sha256&#58;a1a1a1a"
    expected = f"[{short}]({url})" if url else short

    assert linked(f"runs {DIGEST} of {COMMIT}", made) == f"runs {expected} of [5555555]({COMMITS}{COMMIT})"


def test_what_people_copy_is_whole() -> None:
    """A flag of a command that a message recommends."""
    assert linked(f"invoke rollback --to={COMMIT} --digest={DIGEST}", links()) == (
        f"invoke rollback --to={COMMIT} --digest={DIGEST.replace(':', '&#58;')}"
    )


def test_the_reasons_are_a_list() -> None:
    """Below the sentence that they explain; neither can become markup."""
    error = "dev: it *failed*:\n  - 2 tasks died: <b>\n  | panic: #1\nDone: nothing."

    assert reasons(error, links()) == [
        "",
        "dev&#58; it &#42;failed&#42;&#58;",
        "- 2 tasks died&#58; &#60;b&#62;",
        "- &#124; panic&#58; &#35;&#8203;1",
        "",
        "Done&#58; nothing.",
    ]


def test_a_page_says_how_it_ended_and_where_to_look() -> None:
    """One heading, the steps, and links to the site, the commit and the images."""
    told = page("❌ deploy · dev", "it failed", [("migrate", "failed", 1.25)], [], links()).splitlines()

    assert [line for line in told if line.startswith("#")] == ["### ❌ deploy · dev"]
    assert "| migrate | failed | 1.2 |" in told
    assert told[-1] == (
        "[https&#58;//dev.mint.cms.gov](https://dev.mint.cms.gov)"
        f" · [5555555]({COMMITS}{COMMIT}) · mint-backend [sha256&#58;a1a1a1a]({CONSOLE}/{DIGEST}/details)"
    )


def test_the_chart_has_a_bar_for_each_step() -> None:
    """With characters that mean something to the chart left out; one step needs no chart."""
    phases = [Phase("build the service's image", 0.5, 2.0, "done"), Phase("migrate: a;b#c", 2.5, 1.0)]

    assert timeline(phases) == [
        "```mermaid",
        "gantt",
        "  dateFormat x",
        "  axisFormat %M:%S",
        "  build the service's image :done, 500, 2500",
        "  migrate a b c :crit, 2500, 3500",
        "```",
    ]
    assert timeline(phases[:1]) == []


def test_a_step_that_took_no_time_still_has_a_bar() -> None:
    """Of a tenth of a second."""
    assert timeline([Phase("one", 0.0, 0.0, "done"), Phase("two", 0.0)])[4:6] == [
        "  one :done, 0, 100",
        "  two :crit, 0, 100",
    ]
