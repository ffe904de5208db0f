"""The one way to wait: look again and again until there is an answer, up to a deadline by the clock."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from scripts.frame import console, stop
from scripts.frame.errors import OutcomeUnknown, Refused

T = TypeVar("T")

# A day: nothing that is waited for takes longer.
LONGEST = 86400.0
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?(e[0-9]{1,3})?")


@dataclass(frozen=True)
class Clock:
    """Time as waiting sees it, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


class TimedOut(OutcomeUnknown):
    """The deadline came first. Its text is what the last look had to say."""


def wait(
    look: Callable[[], tuple[str, T | None]],
    *,
    seconds: float,
    every: float,
    clock: Clock = CLOCK,
    say: Callable[[str], None] = console.say,
) -> T:
    """Look every few seconds until a look gives an answer, and return that.

    look: what there is to say, and the answer or None. A line is said when it differs from the one before; an empty
    one never. seconds: until the deadline; the last look is the last that begins before it.
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
    """A time-out that a person gave, in seconds. Raises Refused for what is none."""
    if flag is None:
        return default
    given = float(flag) if SECONDS.fullmatch(flag) else 0.0
    if not 0 < given <= LONGEST:
        raise Refused(f"{name} must be seconds between 0 and {LONGEST:g}, such as {default:g}, not {flag[:50]!r}.")
    return given
