"""Text from outside is made harmless for every place where it is shown."""

import base64
import html
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.frame import console, text

# Text with a meaning somewhere: line breaks, escapes, right-to-left marks, workflow commands, markup.
PIECES = [
    *("\n", "\r", "\r\n", "\t", "\0", "\x1b[31m", "\x1b]8;;http://x\x07", "\x7f", "\x85", "\x9b1m", "\u2028", "\u202e"),
    *("\u2066", "\u200b", "\u061c", "\ufeff", "\ud800", "\U000e0041", "::error::x", "::add-mask::x", "##[error]x"),
    *("::", "##[", ":", "#", "[", "]", "@team", "#123", "<", ">", "&", "<script>", "</pre>", "<!channel>", "&lt;", "|"),
    *(
        "[a](http://x)",
        "![a](x)",
        "`",
        "```",
        "*",
        "_",
        "~~",
        "\\",
        "$x$",
        "https://evil.example",
        "x",
        " ",
        "%0a",
        "é",
    ),
]
anything = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join)
# As in the runner's source: a command starts a line, after blanks; the old kind can be anywhere in a line.
V2 = re.compile(r"^\s*::[^:\s][^\n]*?::", re.M)
V1 = re.compile(r"##\[")


@pytest.fixture
def _actions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


# Characters of category Cf that are visible or needed: in Arabic, Syriac and other scripts, music, and the two joiners.
SEEN = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u200c\u200d"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)


def acts(shown: str, allowed: str = "\n\t") -> list[str]:
    """The control and invisible characters in a text."""
    hidden = [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in allowed]
    return [c for c in hidden if not SEEN.match(c)]


@given(anything)
def test_plain_text_has_no_control_characters(given: str) -> None:
    """Line breaks and tabs are kept; others are shown by their number."""
    assert acts(text.plain(given)) == []
    text.plain(given).encode()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("é 漢 🙂 keep", "é 漢 🙂 keep"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb", r"a\rb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("::error::x ##[error]", "::error::x ##[error]"),
        ("https://user:secret@host/@x and ssh://git@host", "https://host/@x and ssh://host"),
    ],
)
def test_plain_text_is_otherwise_unchanged(given: str, shown: str) -> None:
    """Outside Actions, workflow commands are ordinary text."""
    assert text.plain(given) == shown


@pytest.mark.usefixtures("_actions")
@given(anything)
def test_in_actions_no_text_is_a_workflow_command(given: str) -> None:
    """Of neither kind."""
    for shown in (text.plain(given), text.one_line(given), text.document(json.dumps(given))):
        assert not V2.search(shown)
        assert not V1.search(shown)


@given(anything)
def test_a_json_document_keeps_its_values(given: str) -> None:
    """Although it contains no workflow command."""
    assert not re.search(r"::|##\[", text.document(json.dumps({"said": given, "::": [given]})))
    assert json.loads(text.document(json.dumps({"said": given, "::": [given]}))) == {"said": given, "::": [given]}


@given(anything, st.integers(1, 50))
def test_one_line_has_no_line_break_and_a_maximum_length(given: str, most: int) -> None:
    line = text.one_line(given, most)

    assert line.splitlines() in ([], [line])
    assert len(line) <= most
    assert acts(line, "") == []


def test_a_line_that_is_cut_ends_with_an_ellipsis() -> None:
    """Blanks and line breaks are joined to one blank."""
    assert text.one_line("a \n\t b", 3) == "a b"
    assert text.one_line("abcdef", 4) == "abc…"
    assert text.one_line("x" * 501) == "x" * 499 + "…"
    assert text.markdown("x" * 5001) == "x" * 4999 + "…"


def test_times_are_shown_in_utc() -> None:
    """As a sentence, to the minute, and as a name that sorts."""
    at = 1_800_000_000.0625

    assert text.when(at) == "2027-01-15 08:00:00 UTC"
    assert text.minute(at) == "2027-01-15 08:00"
    assert text.stamp(at) == "20270115T080000.062Z"


# Its base64 ends with an X and needs no padding.
SECRET = "a/secret?of+18 chW"


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "SLACK_WEBHOOK_URL", ""],
)
@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        "a%2Fsecret%3Fof%2B18%20chW",
        "a/secret%3Fof%2B18%20chW",
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_hidden_in_each_form(name: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment, and those that were read, in every kind of output."""
    monkeypatch.setattr(text, "_hidden", set())
    if name:
        monkeypatch.setenv(name, f" {SECRET}\n")
    else:
        text.hide(SECRET)

    for show in (text.plain, text.one_line, text.slack, text.without_credentials):
        assert show(f"it is <{shown}>").replace("&lt;", "<").replace("&gt;", ">") == "it is <***>"
    assert SECRET not in html.unescape(text.markdown(SECRET) + text.markdown_block(SECRET))


def test_a_longer_secret_is_hidden_before_one_that_it_contains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the rest of it would be shown. Text of fewer than 16 characters is no secret."""
    monkeypatch.setattr(text, "_hidden", {"a" * 16, "a" * 16 + "-rest-of-it", "b" * 15, "before-" + "a" * 16})

    assert text.plain(f"{'a' * 16}-rest-of-it {'a' * 16} before-{'a' * 16} {'b' * 15}") == f"*** *** *** {'b' * 15}"


def test_a_secret_that_is_no_text_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel allows any byte in a variable."""
    monkeypatch.setenv("GITHUB_TOKEN", "no-utf-8-here-\udcff\udcfe")

    assert text.plain("no-utf-8-here-\udcff\udcfe is hidden") == "*** is hidden"


@given(anything)
def test_markdown_shows_the_text_without_any_markup(given: str) -> None:
    """No link, mention, picture, code, table or HTML: each special character is written by its number."""
    shown = text.markdown(given)
    without = re.sub(r"&#\d+;", "", shown)

    assert not re.search(r"[\\`*_{}\[\]()<>#!|~@&$\n]", without)
    assert not re.search(r"https?://|www\.", without)
    assert html.unescape(shown).replace("\u200b", "") == text.one_line(given, 5000)


@pytest.mark.parametrize("given", ["1. one", "23) one", "- one", "+ one", "* one", "===", "---", "# one", "> one"])
def test_a_line_of_markdown_starts_no_block(given: str) -> None:
    """No list, heading, rule or quotation."""
    assert text.markdown(given).startswith("&#")


@pytest.mark.parametrize(
    "given", ["www.x.example", "WWW.x.example", "https://x.example", "a@b.example", "@team", "#12"]
)
def test_github_autolinks_nothing(given: str) -> None:
    """Neither URLs nor mentions, not even after it resolves the character references."""
    shown = text.markdown(given)

    assert not re.search(r"https?:|www\.|@|#\d", re.sub(r"&#\d+;", "·", shown), re.IGNORECASE)
    assert not re.search(r"@\w|#\d", html.unescape(shown))


@given(anything)
def test_no_text_ends_a_block_of_markdown(given: str) -> None:
    """And nobody is mentioned."""
    block = text.markdown_block(given)

    assert re.fullmatch(r"<pre>[^<>]*</pre>", block, re.S)
    assert "@" not in block
    assert acts(block) == []


def test_a_block_of_markdown_stays_readable() -> None:
    """Quotes, line breaks and markdown are unchanged in the source."""
    assert text.markdown_block('it\'s "so"\n* a <b> & c') == '<pre>it\'s "so"\n* a &lt;b&gt; &amp; c</pre>'


@given(anything)
def test_slack_shows_the_text_without_any_markup(given: str) -> None:
    """No mention and no link."""
    shown = text.slack(given)

    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", shown)
    assert acts(shown) == []


@pytest.mark.usefixtures("_actions")
@given(anything)
def test_an_annotation_is_one_command_with_the_whole_text(given: str) -> None:
    """Line breaks and colons in title or message start nothing new."""
    title, message = console.escape_property(given), console.escape(given)

    assert not re.search(r"[\n\r:,]", title)
    assert not re.search(r"[\n\r]", message)
    undone = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    assert undone == given


@pytest.mark.usefixtures("_actions")
@pytest.mark.parametrize("say", [console.say, console.result, console.relay, console.error, console.warn])
def test_the_only_workflow_commands_printed_are_our_own(say: object, capsys: pytest.CaptureFixture[str]) -> None:
    say("x\n::set-env name=PATH::/evil\r\x1b[2J##[add-mask]y\n  ::stop-commands::z")  # type: ignore[operator]

    printed = "".join(capsys.readouterr())
    assert V2.findall(printed) in ([], ["::error::"], ["::warning::"])
    assert not V1.search(printed)
    assert acts(printed) == []


@pytest.mark.parametrize("end", [".", "!", "?", "…"])
def test_a_text_that_another_sentence_follows_ends_like_one(end: str) -> None:
    assert text.sentence("Access Denied") == "Access Denied."
    assert text.sentence(f"Access Denied{end}") == f"Access Denied{end}"
