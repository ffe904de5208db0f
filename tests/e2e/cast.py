"""Records a deployment of examples/ on a terminal, as an asciicast and as a picture of its middle: `make cast`."""

import json
import os
import sys
from io import StringIO
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

from local_aws.server import Server
from tests.conftest import ROOT
from tests.terminal import Terminal

COLUMNS, ROWS = 100, 30
# What the picture shows: the last moment at which old tasks still run.
MOMENT = "old local-mint-app:"
# rich's own frame asks the network for a font.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, monospace; font-variant: none }}
{styles}</style>
<defs>{lines}</defs><rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g transform="translate(9, 9)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def style_of(sign: pyte.screens.Char) -> str:
    """The style of a character, as rich names it."""
    colour = "white" if sign.fg == "default" else sign.fg.replace("brown", "yellow")
    return f"{'bold ' if sign.bold else ''}{colour if colour.isalpha() else f'#{colour}'}"


def picture(screen: pyte.Screen) -> str:
    """A screen as an SVG."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for row in range(ROWS):
        line, signs = Text(no_wrap=True), [screen.buffer[row][column] for column in range(COLUMNS)]
        for style, run in groupby(signs, style_of):
            line.append("".join(sign.data for sign in run), style)
        console.print(line)
    return console.export_svg(code_format=SVG, unique_id="t")


def main(cast: Path, svg: Path) -> None:
    """Write both files."""
    server = Server()
    server.start()
    try:
        given = {"AWS_ENDPOINT_URL": server.cloud.url, "TERM": "xterm-256color", "DOCKER_HOST": "unix:///nowhere"}
        env = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS", "NO_COLOR")}
        words = [sys.executable, "-m", "invoke", "deploy", "--env=local"]
        terminal = Terminal(words, env | given, COLUMNS, ROWS)
        pictures = list[str]()

        def looked() -> bool:
            if any(MOMENT in row for row in terminal.screen.display):
                pictures[:] = [picture(terminal.screen)]
            return terminal.process.poll() is not None

        terminal.until(looked, 120)
        assert terminal.end() == 0, terminal.lines()
    finally:
        server.stop()
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "invoke deploy"}
    shown = ((round(at, 3), chunk.decode().replace(str(ROOT), "~/deployment")) for at, chunk in terminal.output)
    cast.write_text("".join(f"{json.dumps(line)}\n" for line in [head, *([at, "o", text] for at, text in shown)]))
    svg.write_text(pictures[0].replace(str(ROOT), "~/deployment"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
