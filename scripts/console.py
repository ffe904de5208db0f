"""What a person sees: narration on stderr, results on stdout, and GitHub's own lines in Actions.

Lines are whole and flushed at once. Nothing in here ever reads stdin except `confirm`, and that only
where a terminal is attached.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def in_actions() -> bool:
    """Whether GitHub Actions runs this process (it sets GITHUB_ACTIONS=true)."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def say(line: str = "") -> None:
    """Narrate: one sentence on stderr."""
    print(line, file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Print what a program may read, on stdout."""
    print(text, flush=True)


def progress(line: str) -> None:
    """Show how far long work is: rewritten in place on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def progress_done() -> None:
    """Remove the progress line again."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def github(path: str) -> str:
    """The URL of a page on GitHub, or on the server of its own that runs the workflow ($GITHUB_SERVER_URL)."""
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{path}"


@contextmanager
def group(title: str) -> Iterator[None]:
    """Fold what is said inside into one group of the Actions log."""
    if not in_actions():
        say(title)
        yield
        return
    say(f"::group::{escape(title)}")
    try:
        yield
    finally:
        say("::endgroup::")


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
        properties = ",".join(f"{name}={escape_property(value)}" for name, value in where.items())
        say(f"::{level}{' ' + properties if properties else ''}::{escape(message)}")


def mask(secret: str) -> None:
    """Have Actions replace a secret by *** in everything that is printed after this line."""
    if in_actions() and secret:
        for line in secret.splitlines():
            say(f"::add-mask::{escape(line)}")


def summary(markdown: str) -> None:
    """Add to the step's summary page in Actions."""
    _append("GITHUB_STEP_SUMMARY", markdown + "\n")


def output(name: str, value: str) -> None:
    """Set an output of the step in Actions."""
    if "\n" in value:
        raise ValueError(f"the output {name} has more than one line")
    _append("GITHUB_OUTPUT", f"{name}={value}\n")


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if in_actions() and path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def escape(text: str) -> str:
    """Make a text fit for the message of a workflow command, as GitHub's toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Make a text fit for a property of a workflow command."""
    return escape(text).replace(":", "%3A").replace(",", "%2C")


def interactive() -> bool:
    """Whether a person at a terminal can be asked: never in CI."""
    return sys.stdin.isatty() and not os.environ.get("CI")


def confirm(question: str, answer: str) -> bool:
    """Ask a person to type `answer`; anything else, end of input included, is a no."""
    print(question, end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == answer
