"""What a script references, read from its lexical structure: https://tc39.es/ecma262/#sec-ecmascript-language-lexical-grammar

Only strings, templates, comments and regular expressions are told apart from code. A script may build URLs at run time
and may contain URLs that it never requests, so what is found here is likely to be needed, but never certain.
"""

import re
from collections.abc import Iterator
from enum import Enum

from msgspec import Struct


class Kind(Enum):
    """How a script uses a URL, which decides what the URL is relative to."""

    IMPORTED = "relative to the script"
    LOADED = "relative to the page that runs the script"
    LISTED = "in a bundler's list: relative to the script if it begins with a dot, else to the folder of the build"
    NAMED = "a string that looks like a bundler's file name, relative to the same as LISTED"


class Reference(Struct, frozen=True):
    """A URL as it is written in the script."""

    url: str
    kind: Kind


# Code, and the strings and templates in it that cannot name a file because they have no dot or escape. CODE and
# SUBSTITUTION skip most of a script: a loop in Python would take seconds for a script of megabytes.
PLAIN = r"""|"[^"\\\n.]*+"|'[^'\\\n.]*+'|`[^`\\$.]*+`)*"""
CODE = re.compile(r"""(?:[^"'`/]++""" + PLAIN)
# The same inside ${…}, where braces are counted to find its end.
SUBSTITUTION = re.compile(r"""(?:[^"'`/{}]++""" + PLAIN)
# An unterminated string ends with its line.
STRING = {
    quote: re.compile(rf"{quote}[^{quote}\\\n]*+(?:\\.[^{quote}\\\n]*+)*{quote}?+", re.DOTALL) for quote in ('"', "'")
}
TEMPLATE = re.compile(r"[^`\\$]*+(?:(?:\\.|\$(?!\{))[^`\\$]*+)*(?:`|\$\{)?", re.DOTALL)
REGEX = re.compile(r"/(?:[^\\/\[\n]++|\\.|\[(?:[^\]\\\n]++|\\.)*\])+/[a-z]*+")
METHOD_CALL = re.compile(r"\s*\.\s*(?:test|exec)\s*\(")
# A slash after one of these words begins a regular expression.
OPERATOR = re.compile(
    r"(?:^|[^\w$.])(?:return|typeof|case|do|else|in|instanceof|new|void|delete|throw|yield|await|default|extends)$"
)
LONGEST_OPERATOR = len(" instanceof")
# How much code before a string or a slash is looked at, in characters.
LOOK_BEHIND = 160
# Longer strings are not taken for paths, in characters.
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
# Every match of CONTEXT ends with one of these and spaces: a cheap test before the search.
CONTEXT_ENDS = ("(", "[", "m", "t")
# The second arguments that make new URL("…", …) relative to the script: in ES modules, SystemJS, classic scripts and
# workers.
OWN_URL = re.compile(
    r"\s*,\s*(?:''\s*\+|\"\"\s*\+|``\s*\+)?\s*(?:[\w$]+\.meta\.url|document\.currentScript|self\.location)"
)
# A string before a + is only a part of a name.
PLUS = re.compile(r"\s*\+")
COMMA = re.compile(r"\s*,\s*")
ENDINGS = "avif|bin|css|eot|gif|ico|jpe?g|json|m?js|mp[34]|ogg|otf|pdf|png|svg|ttf|txt|wasm|wav|web[mp]|woff2?|xml"
# folder/name-hash.ending or folder/hash.ending. The hash after a name: eight characters of base64url, or 8 to 64
# letters and digits; alone: 8 to 64 hexadecimal digits, and 13 other characters in the folder of Turbopack.
HASHED = re.compile(
    r"(?:(?:\.{0,2}/)?[^?#]*/(?:[^/?#]*[-.](?=[\w-]*[\dA-Z])(?:[\w-]{8}|[0-9A-Za-z]{8,64})|(?=[a-f]*\d)[0-9a-f]{8,64})"
    rf"(?:\.chunk|\.module|\.min)?|static/chunks/(?:[^/?#]+[-.])?[0-9a-z_-]{{13}})\.(?:{ENDINGS})"
)
# The absolute path of an image, font, sound or video in a folder.
MEDIA = re.compile(r"/[^/?#]+/[^?#]*\.(?:avif|gif|ico|jpe?g|mp[34]|otf|png|svg|ttf|web[mp]|woff2?)")


def references(text: str) -> Iterator[Reference]:
    """What a script references, in the order of its text."""
    last: Reference | None = None
    last_end = 0
    for start, end, context in _Lexer(text).strings():
        url = _value(text[start + 1 : end - 1])
        follows = last is not None and COMMA.fullmatch(text[last_end:start][:LOOK_BEHIND])
        last = _reference(url, last.kind if last and follows else None, context, text, end)
        last_end = end
        if last:
            yield last


def strings(text: str) -> Iterator[str]:
    """The values of the strings that may be paths, in the order of the script."""
    for start, end, _ in _Lexer(text).strings():
        yield _value(text[start + 1 : end - 1])


def _reference(url: str, kind: Kind | None, context: str, text: str, end: int) -> Reference | None:
    """The reference in a string, if it is one. kind: that of the reference before it in the same list, if any."""
    if not PATH.fullmatch(url) or PLUS.match(text, end):
        return None
    kind = kind or _kind(url, context, text, end)
    return Reference(url, kind) if kind else None


def _kind(url: str, context: str, text: str, end: int) -> Kind | None:
    """How a string is used, by the code before and after it. None if it is not a reference."""
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

    # Two escapes may be a surrogate pair.
    return ESCAPE.sub(character, raw).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Lexer:
    """Goes through a script once. at: the current position."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        # The code before `mark`, without its comments.
        self.mark, self.before = 0, ""
        # For each open ${…}: how many braces are open in it.
        self.braces: list[int] = []
        # How many characters may still be searched in vain for the end of a regular expression. Without a limit, a
        # text full of slashes takes quadratic time.
        self.search_budget = 8 * len(text) + 100_000

    def strings(self) -> Iterator[tuple[int, int, str]]:
        """Start and end of each string and template that may be a path, and the code before it."""
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
        """Skip a string, or a template up to its first ${. Returns whether the literal is complete."""
        if quote == "`":
            return self._template()
        found = STRING[quote].match(self.text, self.at)
        self.at = found.end() if found else len(self.text)
        return self.text[self.at - 1] == quote

    def _template(self) -> bool:
        """Skip a template's text after a ` or }. Returns whether the template ends there."""
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
        """Skip a comment, a regular expression, or a slash that divides."""
        text, start = self.text, self.at
        if text.startswith(("//", "/*"), start):
            self.before = self._context(start) + " "
            end = text.find("\n" if text[start + 1] == "/" else "*/", start + 2)
            comment_end = len(text) if end < 0 else end + (text[start + 1] == "*") * 2
            self.at = self.mark = comment_end
        else:
            self.at = self._regex() or start + 1

    def _regex(self) -> int:
        """The end of the regular expression that begins here, 0 if the slash divides."""
        before = self._context(self.at).rstrip()
        closed = before.endswith((")", "}"))
        if self.search_budget <= 0 or (not closed and _ends_value(before)):
            return 0
        found = REGEX.match(self.text, self.at)
        # After ) or } the slash divides a value, or begins a statement after a condition or a block. A statement that
        # begins with a regular expression is only useful if it calls test() or exec().
        if found and (not closed or METHOD_CALL.match(self.text, found.end())):
            return found.end()
        tried = found.end() if found else self.text.find("\n", self.at)
        self.search_budget -= (tried if tried >= 0 else len(self.text)) - self.at
        return 0

    def _context(self, end: int) -> str:
        """Up to LOOK_BEHIND characters of code before a position, without comments."""
        return (self.before + self.text[max(self.mark, end - LOOK_BEHIND) : end])[-LOOK_BEHIND:]


def _ends_value(code: str) -> bool:
    """Whether code ends with a value, so that a slash after it divides."""
    if not code:
        return False
    if code[-1].isalnum() or code[-1] in "_$":
        return not OPERATOR.search(code, max(0, len(code) - LONGEST_OPERATOR))
    # 1./2 is a division, [.../a/.exec(b)] is not.
    return (code[-1] in "]\"'`/." and not code.endswith("...")) or code.endswith(("++", "--"))
