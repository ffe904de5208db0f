"""Records the build of a real bundler as a small tree of names and texts, for tests/release/test_references.py.

    python -m tests.release.record FOLDER tests/release/builds/NAME.json "bundler and version, what is special" [BASE]

Pictures and fonts become empty. Of a large script only the code around its references stays, with which exactly the
same references are found. `not_needed` and `needed_by_scripts` are what is found now: read them before you commit them.
"""

import json
import sys
from pathlib import Path

from scripts.release import javascript, references, site
from scripts.release.javascript import Kind
from scripts.release.references import Certainty
from scripts.release.site import Site

TEXTS = (".html", ".css", ".js", ".mjs", ".json", ".webmanifest")
# A statement for each kind of reference.
WRITTEN = {
    Kind.IMPORTED: "import({});\n",
    Kind.LOADED: "new Worker({});\n",
    Kind.LISTED: "__vite__mapDeps(m.f=[{}]);\n",
    Kind.NAMED: "x={};\n",
}
# Characters of a script that is kept whole, and of code before and after a reference.
WHOLE, AROUND = 3000, 90


def reduced(text: str) -> str:
    """A script without the code that has nothing to do with its references."""
    if len(text) <= WHOLE:
        return text
    wanted, kept = list(javascript.references(text)), []
    for start, end, _ in javascript._Lexer(text).strings():
        alone = text[max(0, start - AROUND) : end + AROUND]
        url = javascript._value(text[start + 1 : end - 1])
        if any(one.url == url for one in wanted):
            kept.append(alone)
    for glue in ("\n;", "\n"):
        if list(javascript.references(glue.join(kept))) == wanted:
            return glue.join(kept)
    # What stands around them is cut in the middle of a string or a regular expression.
    alone = "".join(WRITTEN[one.kind].format(json.dumps(one.url)) for one in wanted)
    return alone if list(javascript.references(alone)) == wanted else text


def recorded(folder: Path, made_with: str, base: str) -> dict[str, object]:
    """The build in a folder."""
    found = site.read(folder)
    files = {}
    for key, file in sorted(found.files.items()):
        text = Path(file.path).read_text(encoding="utf-8") if key.endswith(TEXTS) else ""
        files[key] = reduced(text) if key.endswith((".js", ".mjs")) else text
    not_needed, by_scripts = [], []
    for key in files.keys() - {"index.html"}:
        less = Site(found.folder, {other: file for other, file in found.files.items() if other != key})
        gone = references.missing(less, base)
        if not gone and not key.endswith(".map"):
            not_needed.append(key)
        elif gone and gone[0].certainty is not Certainty.CERTAIN:
            by_scripts.append(key)
    about = {"made_with": made_with, "base": base}
    return {**about, "not_needed": sorted(not_needed), "needed_by_scripts": sorted(by_scripts), "files": files}


if __name__ == "__main__":
    made = recorded(Path(sys.argv[1]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else "/")
    Path(sys.argv[2]).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{Path(sys.argv[2]).stat().st_size:,} bytes; not needed: {made['not_needed']}")
