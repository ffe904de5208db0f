"""Expected errors, and the exit codes that callers may rely on.

0 done
1 failed: it was tried and did not work
2 refused: nothing was changed (bad input, a guard, no credentials)
3 unknown: timed out, stopped, or the connection was lost; it may still be happening
4 rolled back: the previous version runs

Anything that is not a DeployError is a bug and is shown with its traceback. A stop is not an error: see stop.py.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from invoke.exceptions import Exit

from scripts.frame import text

FAILED, REFUSED, UNKNOWN, ROLLED_BACK = 1, 2, 3, 4


class DeployError(Exit):
    """An expected failure. The message says what failed, where, and what to do next.

    Invoke prints an Exit to stderr without a traceback and exits with its code. Messages quote text from outside, so
    they are sanitized here.
    """

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        message = text.plain(message)
        super().__init__(message, code=self.exit_code)
        # Exit sets args to more than the message; str(error) must be the message alone.
        self.args = (message,)

    def with_message(self, message: str) -> "DeployError":
        """An error with another message and the same exit code."""
        kinds = {REFUSED: Refused, UNKNOWN: OutcomeUnknown, ROLLED_BACK: RolledBack}
        return kinds.get(self.exit_code, DeployError)(message)


class Refused(DeployError):
    """Refused before anything was changed: bad input, missing credentials or programs, or a guard."""

    exit_code = REFUSED


class OutcomeUnknown(DeployError):
    """The response was lost or late: what was requested may still be happening."""

    exit_code = UNKNOWN


class RolledBack(DeployError):
    """ECS rolled the new version back: the previous one runs."""

    exit_code = ROLLED_BACK


_erase: Callable[[], str] = str


def erase_with(erase: Callable[[], str]) -> None:
    """Register what returns the control sequence that removes from the terminal what is drawn there."""
    global _erase
    _erase = erase


def erased() -> str:
    """What comes before a line that cannot wait for the display to close. Empty where nothing is drawn."""
    return _erase()


def hook_tracebacks() -> None:
    """Sanitize the traceback of a bug too: the messages in it may quote text from outside, and secrets."""
    sys.excepthook = _traceback
    threading.excepthook = _of_thread


def _of_thread(end: threading.ExceptHookArgs) -> None:
    # A stop ends a thread, and the main thread says so.
    if not issubclass(end.exc_type, KeyboardInterrupt):
        _traceback(end.exc_type, end.exc_value, end.exc_traceback)


def _traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    import traceback

    lines = text.plain("".join(traceback.format_exception(kind, error, trace)))
    print(f"{erased()}{lines}", end="", file=sys.stderr, flush=True)


@contextmanager
def unknown_after(begun: str) -> Iterator[None]:
    """Turn any DeployError inside into OutcomeUnknown, because something was started before that may still go on.

    begun: what was started and what to do about it; the message is `begun: error`.
    """
    try:
        yield
    except DeployError as error:
        raise OutcomeUnknown(f"{begun}: {error}") from error
