"""Requests to GitHub: where they go, what they hold, and what an answer has to be."""

import pytest

from scripts.edges import github
from scripts.edges.http import Answer
from scripts.frame.errors import DeployError, Refused
from tests.stand_in import Reply, stand_in


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        (None, "https://api.github.com"),
        ("", "https://api.github.com"),
        ("https://github.example.org/api/v3/", "https://github.example.org/api/v3"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_the_address_is_that_of_the_variable_or_githubs_own(
    variable: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub Enterprise sets it. A token may be sent to both."""
    if variable is not None:
        monkeypatch.setenv("GITHUB_API_URL", variable)

    assert github.api() == github.api_for_token() == address


def test_no_token_is_sent_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except to this machine. Without a token such an address can be asked."""
    monkeypatch.setenv("GITHUB_API_URL", "http://example.org")

    assert github.api() == "http://example.org"
    with pytest.raises(Refused, match=r"^GITHUB_API_URL must begin with https://.*not 'http://example\.org'\.$"):
        github.api_for_token()
    monkeypatch.setenv("GITHUB_API_URL", "ftp://example.org")
    with pytest.raises(Refused, match=r"^'ftp://example\.org' is not GITHUB_API_URL: "):
        github.api()


def test_the_token_is_that_of_the_variable_and_is_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the output of other programs too. Without blanks around it; what a header cannot hold is refused."""
    assert github.token() == ""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_TOKEN", " a-token-of-this-test\n")
    assert github.token() == "a-token-of-this-test"
    assert "::add-mask::a-token-of-this-test\n" in "".join(capsys.readouterr())
    for impossible in ("ghp_\nx-header: x", "ghp_\N{LATIN SMALL LETTER E WITH ACUTE}"):
        monkeypatch.setenv("GITHUB_TOKEN", impossible)
        with pytest.raises(Refused, match=r"^GITHUB_TOKEN is not a token: it contains"):
            github.token()


JSON, VERSION = "application/vnd.github+json", "2022-11-28"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, (JSON, VERSION, None, None)),
        ({"token": "ghp_x"}, (JSON, VERSION, "Bearer ghp_x", None)),
        ({"body": b"{}"}, (JSON, VERSION, None, "application/json")),
        ({"body": b""}, (JSON, VERSION, None, "application/json")),
    ],
)
def test_a_request_says_what_it_wants_and_who_asks(given: dict[str, str], sent: tuple[str | None, ...]) -> None:
    """In the form that https://docs.github.com/en/rest asks for."""
    names = ("Accept", "X-Github-Api-Version", "Authorization", "Content-Type")
    with stand_in(lambda *_: Reply(b"{}")) as server:
        github.request("POST", f"{server.url}/repos", timeout=5, **given)  # type: ignore[arg-type]

    (asked,) = server.requests
    assert tuple(asked["headers"].get(name) for name in names) == sent
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/repos", given.get("body", b""))


def test_an_answer_may_be_large() -> None:
    """A pull request contains the data of both repositories."""
    body = b'["' + b"x" * (1000 << 10) + b'"]'
    with stand_in(lambda *_: Reply(body)) as server:
        answer = github.request("GET", server.url, timeout=5)

    assert answer.body == body


def test_an_answer_is_a_record_or_a_sentence() -> None:
    assert github.document(Answer(201, {}, b'{"a": 1}'), dict[str, int], "a thing") == {"a": 1}
    with pytest.raises(DeployError, match=r"^GitHub answered with HTTP status 404$"):
        github.document(Answer(404, {}, b'{"a": 1}'), dict[str, int], "a thing")
    with pytest.raises(DeployError, match=r"^GitHub's answer is not a thing$"):
        github.document(Answer(200, {}, b'{"a": "x"}'), dict[str, int], "a thing")
