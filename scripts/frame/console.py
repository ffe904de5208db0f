"""Output: narration on stderr, results on stdout, and workflow commands in GitHub Actions.

Lines are complete, sanitized (text.py) and flushed at once. Only `confirm` reads stdin, and only from a terminal.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from scripts.frame import text
from scripts.frame.text import in_actions, plain

TRUE = {"true", "1", "yes", "on"}
SERVER = re.compile(r"https?://[\w.:-]+", re.ASCII)


def say(line: str = "") -> None:
    """Narrate: one sentence on stderr."""
    print(plain(line), file=sys.stderr, flush=True)


def result(lines: str) -> None:
    """Print what a person asked for, or a program may read, on stdout."""
    print(plain(lines), flush=True)


def document(json: str) -> None:
    """Print a JSON document on stdout."""
    print(text.document(json), flush=True)


def relay(chunk: str) -> None:
    """Copy a line that another program printed to stderr. A newline is added where it has none."""
    print(plain(chunk), end="" if chunk.endswith("\n") else "\n", file=sys.stderr, flush=True)


def _command(line: str) -> None:
    """Write a workflow command. No other output may look like one to the runner."""
    print(line, file=sys.stderr, flush=True)


def progress(line: str) -> None:
    """Show progress: a line that is rewritten in place on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{plain(line)}", end="", file=sys.stderr, flush=True)


def progress_done() -> None:
    """Remove the progress line again."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


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
    print(plain(question), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == answer
