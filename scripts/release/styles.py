"""What a style sheet references, read from its tokens: https://www.w3.org/TR/css-values-4/#urls"""

import re
from collections.abc import Iterator, Sequence

import tinycss2
from tinycss2.ast import Node

# A style sheet up to the next semicolon or brace that is not in a string, comment or URL. Only pieces with a URL are
# tokenized: all of them would take a second per megabyte.
PIECE = re.compile(
    r"""(?:
        [^;{}"'/\\(]++
        | "[^"\\\n]*+(?:\\.[^"\\\n]*+)*"?+
        | '[^'\\\n]*+(?:\\.[^'\\\n]*+)*'?+
        | /\*(?:[^*]++|\*(?!/))*(?:\*/)?
        | (?<=url)\(\s*+(?!["'])(?:[^)\\]++|\\.)*
        | [/(] | \\.?+
    )*[;{}]?+""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
WITH_URL = re.compile(r"url\(|src\(|image-set\(|@import", re.IGNORECASE)
IMAGE_SETS = ("image-set", "-webkit-image-set")


def references(text: str) -> Iterator[str]:
    """The URLs of url(), src(), image-set() and @import. text: a style sheet, or the value of a style attribute."""
    if WITH_URL.search(text):
        for found in PIECE.finditer(text):
            if WITH_URL.search(found[0]):
                yield from _urls(found[0])


def _urls(piece: str) -> Iterator[str]:
    pending = [tinycss2.parse_component_value_list(piece, skip_comments=True)]
    while pending:
        imports = False
        for token in pending.pop():
            if token.type == "url" or (token.type == "string" and imports):
                yield token.value
            elif token.type == "function":
                yield from _strings(token.lower_name, token.arguments)
                pending.append(token.arguments)
            elif token.type in ("{} block", "() block", "[] block"):
                pending.append(token.content)
            if token.type != "whitespace":
                imports = token.type == "at-keyword" and token.lower_value == "import"


def _strings(function: str, arguments: Sequence[Node]) -> list[str]:
    """The arguments of a function that are URLs."""
    strings = [token.value for token in arguments if token.type == "string"]
    if function in ("url", "src"):
        return strings[:1]
    return strings if function in IMAGE_SETS else []
