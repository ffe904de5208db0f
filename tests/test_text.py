"""Text from outside, made harmless for every place where it ends up."""

import html
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.frame import console, text

# What acts somewhere: line breaks, escapes, writing from right to left, commands of Actions, markup.
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
# How the runner finds a command, by its source: at the start of a line after blanks, the old kind anywhere.
V2 = re.compile(r"^\s*::[^:\s][^\n]*?::", re.M)
V1 = re.compile(r"##\[")


@pytest.fixture
def _actions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


# Signs of Arabic, Syriac, Kaithi, hieroglyphs, shorthand and music, and the two joiners.
SEEN = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u200c\u200d"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)


def acts(shown: str, allowed: str = "\n\t") -> list[str]:
    """The characters that a terminal or a reader would not see as they are."""
    hidden = [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in allowed]
    return [c for c in hidden if not SEEN.match(c)]


@given(anything)
def test_plain_text_has_no_character_that_acts(given: str) -> None:
    """Lines and tabs stay; an escape, a lone surrogate or a mark of direction is shown by its number."""
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
def test_plain_text_is_shown_as_it_is_but_for_what_acts(given: str, shown: str) -> None:
    """Outside Actions its commands are only text."""
    assert text.plain(given) == shown


@pytest.mark.usefixtures("_actions")
@given(anything)
def test_in_actions_nothing_is_a_command(given: str) -> None:
    """Neither of the new kind at the start of a line, nor of the old kind anywhere."""
    for shown in (text.plain(given), text.one_line(given), text.document(json.dumps(given))):
        assert not V2.search(shown)
        assert not V1.search(shown)


@given(anything)
def test_a_document_keeps_its_values(given: str) -> None:
    """JSON that the runner cannot take up is still the same JSON."""
    assert not re.search(r"::|##\[", text.document(json.dumps({"said": given, "::": [given]})))
    assert json.loads(text.document(json.dumps({"said": given, "::": [given]}))) == {"said": given, "::": [given]}


@given(anything, st.integers(1, 50))
def test_one_line_is_one_line_and_no_longer_than_it_may_be(given: str, most: int) -> None:
    """Whatever takes the place of a line break."""
    line = text.one_line(given, most)

    assert line.splitlines() in ([], [line])
    assert len(line) <= most
    assert acts(line, "") == []


def test_a_line_that_is_cut_says_so() -> None:
    """Blanks and line breaks count as one."""
    assert text.one_line("a \n\t b", 3) == "a b"
    assert text.one_line("abcdef", 4) == "abc…"


@given(anything)
def test_markdown_shows_the_text_and_nothing_acts(given: str) -> None:
    """No link, mention, picture, code, table or HTML: each sign of markup is written by its number."""
    shown = text.markdown(given)
    without = re.sub(r"&#\d+;", "", shown)

    assert not re.search(r"[\\`*_{}\[\]()<>#!|~@&$\n]", without)
    assert not re.search(r"https?://|www\.", without)
    assert html.unescape(shown).replace("\u200b", "") == text.one_line(given, 5000)


@pytest.mark.parametrize("given", ["1. one", "23) one", "- one", "+ one", "* one", "===", "---", "# one", "> one"])
def test_a_line_of_markdown_begins_nothing(given: str) -> None:
    """No list, no heading, no rule, no quotation."""
    assert text.markdown(given).startswith("&#")


@pytest.mark.parametrize(
    "given", ["www.x.example", "WWW.x.example", "https://x.example", "a@b.example", "@team", "#12"]
)
def test_github_makes_no_link_of_a_text(given: str) -> None:
    """Neither of what looks like one, nor of who and what is mentioned in the finished page."""
    shown = text.markdown(given)

    assert not re.search(r"https?:|www\.|@|#\d", re.sub(r"&#\d+;", "·", shown), re.IGNORECASE)
    assert not re.search(r"@\w|#\d", html.unescape(shown))


@given(anything)
def test_a_block_of_markdown_holds_its_text_in_whole(given: str) -> None:
    """Nothing ends the block, and nobody is mentioned."""
    block = text.markdown_block(given)

    assert re.fullmatch(r"<pre>[^<>]*</pre>", block, re.S)
    assert "@" not in block
    assert acts(block) == []


def test_a_block_of_markdown_is_shown_as_it_is() -> None:
    """Quotes, lines and signs of markdown stay readable in the raw page."""
    assert text.markdown_block('it\'s "so"\n* a <b> & c') == '<pre>it\'s "so"\n* a &lt;b&gt; &amp; c</pre>'


@given(anything)
def test_slack_shows_the_text_and_nothing_acts(given: str) -> None:
    """No mention, no link, no markup."""
    shown = text.slack(given)

    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", shown)
    assert acts(shown) == []


@pytest.mark.usefixtures("_actions")
@given(anything)
def test_an_annotation_is_one_command_and_its_text_is_whole(given: str) -> None:
    """A line break or a colon in a title or a message starts nothing."""
    title, message = console.escape_property(given), console.escape(given)

    assert not re.search(r"[\n\r:,]", title)
    assert not re.search(r"[\n\r]", message)
    undone = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    assert undone == given


@pytest.mark.usefixtures("_actions")
@pytest.mark.parametrize("say", [console.say, console.result, console.relay, console.error, console.warn])
def test_whatever_is_printed_is_harmless(say: object, capsys: pytest.CaptureFixture[str]) -> None:
    """The only commands in what is printed are ours."""
    say("x\n::set-env name=PATH::/evil\r\x1b[2J##[add-mask]y\n  ::stop-commands::z")  # type: ignore[operator]

    printed = "".join(capsys.readouterr())
    assert V2.findall(printed) in ([], ["::error::"], ["::warning::"])
    assert not V1.search(printed)
    assert acts(printed) == []
