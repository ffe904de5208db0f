"""What a script references, read from its lexical structure: https://tc39.es/ecma262/#sec-ecmascript-language-lexical-grammar

Strings, templates, comments and regular expressions are told apart from code, no more. A script may put names
together while it runs, and may hold names that it never asks for: what is found here is likely, never certain.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a script uses a URL, which decides what the URL is relative to."""

    IMPORTED = "relative to the script"
    LOADED = "relative to the page that runs the script"
    LISTED = "in the bundler's list: relative to the script with a dot, else to the folder of the build"
    NAMED = "a string in the form of a bundler's file name, relative as LISTED is"


@dataclass(frozen=True, slots=True)
class Reference:
    """A URL as the script holds it."""

    url: str
    kind: Kind


# Code, and strings and templates without a dot or an escape, which name no file. Most of a script is passed over
# by these two: a loop in Python would take seconds for megabytes.
PLAIN = r"""|"[^"\\\n.]*+"|'[^'\\\n.]*+'|`[^`\\$.]*+`)*+"""
CODE = re.compile(r"""(?:[^"'`/]++""" + PLAIN)
# Inside ${…}, where braces are counted to find its end.
SUBSTITUTION = re.compile(r"""(?:[^"'`/{}]++""" + PLAIN)
# A string that its line does not close ends with the line.
STRING = {
    quote: re.compile(rf"{quote}[^{quote}\\\n]*+(?:\\.[^{quote}\\\n]*+)*+{quote}?+", re.DOTALL) for quote in ('"', "'")
}
TEMPLATE = re.compile(r"[^`\\$]*+(?:(?:\\.|\$(?!\{))[^`\\$]*+)*+(?:`|\$\{)?+", re.DOTALL)
REGEX = re.compile(r"/(?:[^\\/\[\n]++|\\.|\[(?:[^\]\\\n]++|\\.)*+\])++/[a-z]*+")
TESTED = re.compile(r"\s*\.\s*(?:test|exec)\s*\(")
# After these words and at the beginning of an expression a slash begins a regular expression.
OPERATOR = re.compile(
    r"(?:^|[^\w$.])(?:return|typeof|case|do|else|in|instanceof|new|void|delete|throw|yield|await|default|extends)$"
)
LONGEST_OPERATOR = len(" instanceof")
# How much code before a string or a slash is looked at, in characters.
REACH = 160
LONGEST = 1024
ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,5})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)

PATH = re.compile(r"""[^\s<>{}|"'`]*\.[A-Za-z0-9]{1,11}(?:[?#][^\s<>{}|"'`]*)?""")
CONTEXT = re.compile(
    r"""(?<![\w$])(?:
        (?P<module>(?:import|from)\s*|import\s*\(\s*|System\.register\s*\((?:\s*[^\s,()\[\]]+\s*,)?\s*\[\s*)
        |(?P<script>importScripts\s*\(\s*)
        |(?P<url>new\s+URL\s*\(\s*)
        |(?P<loaded>new\s+(?:Shared)?Worker\s*\(\s*|serviceWorker\s*\.\s*register\s*\(\s*)
        |(?P<listed>__vite__mapDeps\b[^;]*\[\s*)
    )$""",
    re.VERBOSE,
)
# The last characters of what CONTEXT finds.
CONTEXT_ENDS = ("(", "[", "m", "t")
# What makes new URL("…", …) relative to the script: ES modules, SystemJS, scripts of one file, workers.
OWN_URL = re.compile(
    r"\s*,\s*(?:''\s*\+|\"\"\s*\+|``\s*\+)?\s*(?:[\w$]+\.meta\.url|document\.currentScript|self\.location)"
)
ADDED = re.compile(r"\s*\+")
COMMA = re.compile(r"\s*,\s*")
ENDINGS = "avif|bin|css|eot|gif|ico|jpe?g|json|m?js|mp[34]|ogg|otf|pdf|png|svg|ttf|txt|wasm|wav|web[mp]|woff2?|xml"
# dir/name-hash.ending with a folder before it: eight characters of base64url, or more of letters and digits.
HASHED = re.compile(
    r"(?:\.{0,2}/)?[^?#]*/(?:[^/?#]*[-.](?=[\w-]*[\dA-Z])(?:[\w-]{8}|[0-9A-Za-z]{8,64})|(?=[a-f]*\d)[0-9a-f]{8,64})"
    rf"(?:\.chunk|\.module|\.min)?\.(?:{ENDINGS})"
)
# A picture, font or film below a folder of the site's root.
MEDIA = re.compile(r"/[^/?#]+/[^?#]*\.(?:avif|gif|ico|jpe?g|mp[34]|otf|png|svg|ttf|web[mp]|woff2?)")


def references(text: str) -> Iterator[Reference]:
    """What a script references, in its order."""
    last: Reference | None = None
    last_end = 0
    for start, end, context in _Lexer(text).strings():
        url = _value(text[start + 1 : end - 1])
        follows = last is not None and COMMA.fullmatch(text[last_end:start][:REACH])
        last = _reference(url, last.kind if last and follows else None, context, text, end)
        last_end = end
        if last:
            yield last


def _reference(url: str, kind: Kind | None, context: str, text: str, end: int) -> Reference | None:
    """The reference that a string makes, if any. kind: of the list that it stands in."""
    if not PATH.fullmatch(url) or ADDED.match(text, end):
        return None
    kind = kind or _kind(url, context, text, end)
    return Reference(url, kind) if kind else None


def _kind(url: str, context: str, text: str, end: int) -> Kind | None:
    """How a string is used, by the code before and behind it; None where it is a string like any other."""
    found = CONTEXT.search(context) if context.rstrip()[-1:] in CONTEXT_ENDS else None
    group = found.lastgroup if found else ""
    if group == "module" and url.startswith(("./", "../", "/")):
        return Kind.IMPORTED
    if group == "script" or (group == "url" and OWN_URL.match(text, end)):
        return Kind.IMPORTED
    if group in ("loaded", "listed"):
        return Kind.LOADED if group == "loaded" else Kind.LISTED
    return Kind.NAMED if HASHED.fullmatch(url) or MEDIA.fullmatch(url) else None


def _value(raw: str) -> str:
    """A string's value: https://tc39.es/ecma262/#sec-static-semantics-sv"""
    if "\\" not in raw:
        return raw

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else match[4].strip("\r\n")

    # Two escapes may be the halves of one character.
    return ESCAPE.sub(character, raw).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Lexer:
    """Goes through a script once. at: where it is."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        # The code before `mark`, without its comments.
        self.mark, self.before = 0, ""
        # For every ${…} that is open, the braces that are open in it.
        self.braces: list[int] = []
        # Reading on for the end of what then was no regular expression is paid from this, so that a text of slashes
        # takes no time in the square of its length.
        self.patience = 8 * len(text) + 100_000

    def strings(self) -> Iterator[tuple[int, int, str]]:
        """Start, end and the code before, of each string and template that may hold a path."""
        text, size = self.text, len(self.text)
        while True:
            passed = (SUBSTITUTION if self.braces else CODE).match(text, self.at)
            start = self.at = passed.end() if passed else size
            if start == size:
                return
            character = text[start]
            if character == "/":
                self._slash()
            elif character in "{}":
                self._brace(character)
            else:
                context = self._context(start)
                if self._literal(character) and self.at - start <= LONGEST:
                    yield start, self.at, context

    def _literal(self, quote: str) -> bool:
        """Pass over a string or the first part of a template, and say whether it is a whole literal."""
        if quote == "`":
            return self._template()
        found = STRING[quote].match(self.text, self.at)
        start, self.at = self.at, found.end() if found else len(self.text)
        return self.at - start > 1 and self.text[self.at - 1] == quote

    def _template(self) -> bool:
        """Pass over a template's text behind its ` or }, and say whether it ends there."""
        found = TEMPLATE.match(self.text, self.at + 1)
        self.at = found.end() if found else len(self.text)
        self.mark, self.before = self.at - 1, ""
        if self.text[self.mark] == "{":
            self.braces.append(0)
        return self.text[self.mark] == "`"

    def _brace(self, character: str) -> None:
        if character == "}" and self.braces[-1] == 0:
            self.braces.pop()
            self._template()
            return
        self.braces[-1] += 1 if character == "{" else -1
        self.at += 1

    def _slash(self) -> None:
        """Pass over a comment, a regular expression, or a slash that divides."""
        text, start = self.text, self.at
        if text.startswith(("//", "/*"), start):
            self.before = self._context(start) + " "
            end = text.find("\n" if text[start + 1] == "/" else "*/", start + 2)
            comment_end = len(text) if end < 0 else end + (text[start + 1] == "*") * 2
            self.at = self.mark = comment_end
        else:
            self.at = self._regex() or start + 1

    def _regex(self) -> int:
        """Where the regular expression ends that begins here; 0 where the slash divides."""
        before = self._context(self.at).rstrip()
        closed = before.endswith((")", "}"))
        if self.patience <= 0 or (not closed and _ends_value(before)):
            return 0
        found = REGEX.match(self.text, self.at)
        # Behind a bracket that may end a value as well as a condition or a block, an expression that nothing is
        # assigned from: only a call of its methods is of use there.
        if found and (not closed or TESTED.match(self.text, found.end())):
            return found.end()
        tried = found.end() if found else self.text.find("\n", self.at)
        self.patience -= (tried if tried >= 0 else len(self.text)) - self.at
        return 0

    def _context(self, end: int) -> str:
        """The code before a place, as much as matters, without comments."""
        return (self.before + self.text[max(self.mark, end - REACH) : end])[-REACH:]


def _ends_value(code: str) -> bool:
    """Whether code ends with a value, so that a slash behind it divides."""
    if not code:
        return False
    if code[-1].isalnum() or code[-1] in "_$":
        return not OPERATOR.search(code, max(0, len(code) - LONGEST_OPERATOR))
    # 1./2 divides, [.../a/.exec(b)] does not.
    return (code[-1] in "]\"'`/." and not code.endswith("...")) or code.endswith(("++", "--"))
