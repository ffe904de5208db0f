"""What can go wrong, and the exit codes that callers may rely on.

0 done
1 failed: it was tried and did not work
2 refused: nothing was changed (bad input, a guard, no credentials)
3 unknown: timed out, stopped, or the connection was lost; it may still be happening
4 rolled back: the previous version runs

Anything that is not a DeployError is a bug and keeps its traceback. A stop is not an error: see stop.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from invoke.exceptions import Exit

from scripts.frame import text

FAILED, REFUSED, UNKNOWN, ROLLED_BACK = 1, 2, 3, 4


class DeployError(Exit):
    """An expected failure. The message says what failed, where, and what to do next.

    Invoke prints an Exit to stderr without traceback and ends with its code. Most messages quote somebody else's
    words: they are made harmless here.
    """

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        message = text.plain(message)
        super().__init__(message, code=self.exit_code)
        # Whatever else a kind of error is made of, its text is the message.
        self.args = (message,)

    def with_message(self, message: str) -> "DeployError":
        """An error with another message and the same exit code."""
        kinds = {REFUSED: Refused, UNKNOWN: OutcomeUnknown, ROLLED_BACK: RolledBack}
        return kinds.get(self.exit_code, DeployError)(message)


class Refused(DeployError):
    """Nothing was changed: the input, the machine or a guard does not allow it."""

    exit_code = REFUSED


class OutcomeUnknown(DeployError):
    """The answer was lost or late: what was asked for may still be happening."""

    exit_code = UNKNOWN


class RolledBack(DeployError):
    """The new version was taken back: the previous one runs."""

    exit_code = ROLLED_BACK


@contextmanager
def unknown_after(begun: str) -> Iterator[None]:
    """What fails inside leaves open how something ends that was begun before, whatever kind of error it is.

    begun: what was begun and what it means, as the beginning of a sentence that the error's text ends.
    """
    try:
        yield
    except DeployError as error:
        raise OutcomeUnknown(f"{begun}: {error}") from error
