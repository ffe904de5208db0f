"""The one way to wait: poll until there is a result, up to a deadline."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from scripts.frame import console, stop
from scripts.frame.errors import OutcomeUnknown, Refused

T = TypeVar("T")

# One day, in seconds: the longest timeout that is accepted.
LONGEST = 86400.0
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?(e[0-9]{1,3})?")


class Clock(Struct, frozen=True):
    """Time as waiting sees it, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


class TimedOut(OutcomeUnknown):
    """The deadline has passed. The message is the line of the last look."""


def wait(
    look: Callable[[], tuple[str, T | None]],
    *,
    seconds: float,
    every: float,
    clock: Clock = CLOCK,
    say: Callable[[str], None] = console.say,
) -> T:
    """Call `look` every few seconds until it returns a result, and return that.

    look: returns a line to print and the result or None. A line is printed if it differs from the one before and is not
    empty. seconds: until the deadline, after which no look begins. every: seconds between two looks.
    Raises TimedOut at the deadline, and whatever `look` raises.
    """
    deadline, said = clock.now() + seconds, ""
    while True:
        stop.check()
        line, answer = look()
        if line not in ("", said):
            say(line)
            said = line
        if answer is not None:
            return answer
        if clock.now() + every > deadline:
            raise TimedOut(line)
        clock.sleep(every)


def seconds(flag: str | None, default: float, name: str = "--timeout") -> float:
    """The value of a timeout flag, in seconds. Raises Refused for an invalid one."""
    if flag is None:
        return default
    given = float(flag) if SECONDS.fullmatch(flag) else 0.0
    if not 0 < given <= LONGEST:
        raise Refused(
            f"{name} must be a number of seconds between 0 and {LONGEST:g}, such as {default:g}, not {flag[:50]!r}."
        )
    return given
