"""Sanitizes text from outside before it is shown: one function for each kind of output.

Text from AWS, GitHub, containers, git and people may hold line breaks, terminal escapes, markup and workflow commands.
All of it is shown, but none of it has an effect.
"""

import base64
import os
import re
import time
from functools import lru_cache
from urllib.parse import quote

# C0 except tab and newline, DEL, C1, Unicode line breaks, bidirectional controls, invisible characters (except the
# joiners that words and emoji need), and lone surrogates.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# The runner executes `::name::` at the beginning of a line and `##[name]` anywhere in it:
# https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
WORKFLOW_COMMAND = re.compile(r"::|##(?=\[)")
# GitHub turns these into links, mentions, closed issues, pictures, tables, code; at the start of a line into lists,
# headings and rules.
MARKDOWN = re.compile(r"^(?:[-+=]|\d+(?=[.)]))|[\\`*_{}\[\]()<>#!|~@&$:]|(?<=www)\.", re.IGNORECASE)
# The user part of a URL, which may hold a password or a token: https://user:token@host/.
USER_OF_URL = re.compile(r"(?<=://)[^\s/?#]*@")
# Variables whose values are never shown. AWS itself quotes them if a signature is wrong.
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "SLACK_WEBHOOK_URL")
# Shorter texts are not treated as secrets: they would be cut out of ordinary words.
SHORTEST = 16


def when(at: float) -> str:
    """A Unix time as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def minute(at: float) -> str:
    """A Unix time to the minute, in UTC, which whoever shows it has to say."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def stamp(at: float) -> str:
    """A Unix time as the beginning of a name, to the millisecond, so that names sort by it: 20261126T090317.775Z."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at))}.{int(at * 1000) % 1000:03d}Z"


def in_actions() -> bool:
    """Whether GitHub Actions runs this process (it sets GITHUB_ACTIONS=true)."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def plain(text: str) -> str:
    """Text for the terminal and the log of Actions: keeps its lines, without control characters, workflow commands and
    credentials."""
    text = CONTROL.sub(lambda match: ascii(match[0])[1:-1], without_credentials(text))
    return WORKFLOW_COMMAND.sub(lambda match: " ".join(match[0]), text) if in_actions() else text


def hide(secret: str) -> None:
    """Replace a secret by *** in all output from now on, also percent-encoded and in base64. Short texts are not."""
    _hidden.add(secret)


_hidden: set[str] = set()


def without_credentials(text: str) -> str:
    """Text without the user part of URLs, and with *** in place of every known secret."""
    known = _hidden.union(os.environ.get(name, "").strip() for name in SECRETS)
    for form in _forms(frozenset(known)):
        text = text.replace(form, "***")
    return USER_OF_URL.sub("", text)


@lru_cache
def _forms(secrets: frozenset[str]) -> list[str]:
    """All forms of the secrets, longest first: as they are, percent-encoded, in base64, and the path of a webhook."""
    paths = {re.sub("^https?://[^/]*", "", secret) for secret in secrets}
    found = set()
    for secret in secrets | paths:
        if len(secret) >= SHORTEST:
            encoded = base64.b64encode(secret.encode(errors="replace")).decode().rstrip("=")
            found |= {secret, quote(secret, safe="", errors="replace"), quote(secret, errors="replace"), encoded}
    return sorted(found, key=lambda form: (-len(form), form))


def document(json: str) -> str:
    """A JSON document for stdout: the same values, escaped so that it holds no workflow command."""
    return json.replace("::", ":\\u003a").replace("##[", "#\\u0023[")


def one_line(text: str, most: int = 500) -> str:
    """Text in one line, cut to at most `most` characters."""
    line = " ".join(plain(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def sentence(text: str) -> str:
    """Text that another sentence may follow."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def markdown(text: str) -> str:
    """Text for a line of markdown on GitHub: a table's cell, a pull request's body."""

    def escaped(match: re.Match[str]) -> str:
        # GitHub looks for mentions and issues in the rendered page: a zero-width space prevents that.
        return "".join(f"&#{ord(sign)};{'&#8203;' if sign in '@#' else ''}" for sign in match[0])

    return MARKDOWN.sub(escaped, one_line(text, 5000))


def markdown_block(text: str) -> str:
    """Text of several lines for markdown on GitHub, shown verbatim."""
    return f"<pre>{_escaped(CONTROL.sub('', without_credentials(text))).replace('@', '&#64;')}</pre>"


def slack(text: str) -> str:
    """Text for Slack: without mentions and links. https://api.slack.com/reference/surfaces/formatting#escaping"""
    return _escaped(CONTROL.sub(" ", without_credentials(text)))


def _escaped(text: str) -> str:
    # Importing html, for the same, takes longer than any other part of this module.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
