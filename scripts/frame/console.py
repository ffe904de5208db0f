"""Output: narration on stderr, results on stdout, and workflow commands in GitHub Actions.

Lines are complete, sanitized (text.py) and flushed at once. Only `confirm` reads stdin, and only from a terminal. On a
terminal, a display (display.py) keeps steps and progress below the lines while a command runs.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import quote

from scripts.frame import stop, text
from scripts.frame.report import Bar
from scripts.frame.text import in_actions, plain

if TYPE_CHECKING:
    from scripts.frame.display import Display

TRUE = {"true", "1", "yes", "on"}
SERVER = re.compile(r"https?://[\w.:-]+", re.ASCII)


class _Live:
    """What is live on the terminal. title: of the running command, empty if nothing may be shown."""

    title = ""
    display: "Display | None" = None


_live = _Live()


def say(line: str = "") -> None:
    """Narrate: one sentence on stderr."""
    _narrate(f"{plain(line)}\n")


def relay(chunk: str) -> None:
    """Copy a line that another program printed to stderr. A newline is added where it has none."""
    _narrate(plain(chunk) if chunk.endswith("\n") else f"{plain(chunk)}\n")


def _narrate(lines: str) -> None:
    if _live.display:
        _live.display.write(lines)
    else:
        print(lines, end="", file=sys.stderr, flush=True)


def result(lines: str) -> None:
    """Print what a person asked for, or a program may read, on stdout."""
    with _hidden(sys.stdout.isatty()):
        print(plain(lines), flush=True)


def document(json: str) -> None:
    """Print a JSON document on stdout."""
    print(text.document(json), flush=True)


def width() -> int:
    """The columns of the terminal that stdout is; 0 if it is none, or does not tell."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0


def _command(line: str) -> None:
    """Write a workflow command. No other output may look like one to the runner."""
    print(line, file=sys.stderr, flush=True)


def live(title: str) -> AbstractContextManager[None]:
    """Let steps and progress of a command be seen during the block, if a person watches it at a terminal."""
    return stop.owned(lambda: _allow(title if _is_watched() else ""), lambda _: close())


def _is_watched() -> bool:
    """Whether stderr is a terminal that can be drawn on. Never in CI."""
    able = os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return able and sys.stderr.isatty() and not (in_ci() or in_actions())


def _allow(title: str) -> None:
    _live.title = title


def close() -> None:
    """Remove the display from the terminal."""
    display, _live.display, _live.title = _live.display, None, ""
    if display:
        display.close()


def _shown() -> "Display | None":
    """The display, None if nobody watches."""
    if _live.title and not _live.display:
        # rich is imported where there is something to show on a terminal, and nowhere else.
        from scripts.frame.display import Display

        with stop.deferred():
            _live.display = Display(sys.stderr, plain(_live.title))
    return _live.display


def step(names: Sequence[str], number: int) -> None:
    """Show on a terminal that the step of this number, among these names, begins."""
    if display := _shown():
        display.step(names, number)


def progress(*bars: Bar, event: str = "") -> None:
    """Show on a terminal how far the step is; nothing for neither. event: the last one that no line tells."""
    if display := _shown():
        display.progress(bars, event)


def _hidden(needed: bool) -> AbstractContextManager[None]:
    """Leave the terminal to the block."""
    return _live.display.hidden() if _live.display and needed else nullcontext()


def github(path: str) -> str:
    """The URL of a page on GitHub, or on the server in $GITHUB_SERVER_URL (GitHub Enterprise).

    path: with its query, if any; characters that a URL cannot hold are percent-encoded.
    """
    server = os.environ.get("GITHUB_SERVER_URL", "")
    server = server if SERVER.fullmatch(server) else "https://github.com"
    return f"{server}/{quote(path, safe='/?=%', errors='replace')}"


@contextmanager
def group(title: str) -> Iterator[None]:
    """Fold everything that is printed inside into one group of the Actions log."""
    if not in_actions():
        say(title)
        yield
        return
    _command(f"::group::{escape(title)}")
    try:
        yield
    finally:
        _command("::endgroup::")


def error(message: str, **where: str) -> None:
    """Annotate the run in Actions; elsewhere Invoke prints the error itself.

    `where` may give file, line and title, as GitHub's workflow commands name them.
    """
    annotate("error", message, **where)


def warn(message: str, **where: str) -> None:
    """Warn: an annotation in Actions, a line elsewhere."""
    if in_actions():
        annotate("warning", message, **where)
    else:
        say(f"warning: {message}")


def annotate(level: str, message: str, **where: str) -> None:
    """Write one `::error` or `::warning` line, in Actions only."""
    if in_actions():
        properties = ",".join(f"{name}={escape_property(plain(value))}" for name, value in where.items())
        _command(f"::{level}{' ' + properties if properties else ''}::{escape(plain(message))}")


def mask(secret: str) -> None:
    """Hide a secret in all output from now on, and have Actions replace it by *** in that of other programs."""
    text.hide(secret)
    if in_actions() and secret:
        for line in secret.splitlines():
            _command(f"::add-mask::{escape(line)}")


def summary(markdown: str) -> None:
    """Add to the step's summary page in Actions."""
    _append("GITHUB_STEP_SUMMARY", markdown + "\n")


def output(name: str, value: str) -> None:
    """Set an output of the step in Actions."""
    _append("GITHUB_OUTPUT", f"{name}={text.one_line(value, 5000)}\n")


def _append(variable: str, lines: str) -> None:
    """Append to one of the runner's files. A failure is only a warning: it does not change the command's outcome."""
    path = os.environ.get(variable)
    if in_actions() and path:
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            warn(f"{variable} cannot be written: {error.strerror}")


def escape(message: str) -> str:
    """Escape a text for the message of a workflow command, as GitHub's toolkit does."""
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(value: str) -> str:
    """Escape a text for a property of a workflow command."""
    return escape(value).replace(":", "%3A").replace(",", "%2C")


def in_ci() -> bool:
    """Whether this process runs in CI, by the variable CI. `CI=false` and `CI=0` mean no."""
    return os.environ.get("CI", "").strip().lower() in TRUE


def interactive() -> bool:
    """Whether a person at a terminal can be asked: never in CI."""
    return sys.stdin.isatty() and not in_ci()


def confirm(question: str, answer: str) -> bool:
    """Ask a person to type `answer`. Returns False for anything else, end of input included."""
    with _hidden(True):
        print(plain(question), end=" ", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() == answer
