"""A stop is not an error: SIGINT, SIGTERM and SIGHUP end the command and what it started, wherever they arrive.

`Stopped` is a KeyboardInterrupt: no handler of failures catches it, and asyncio, urllib3 and botocore let it pass.
What is acquired (a lease, a folder, a program) is acquired and given back through `owned`, which a stop cannot
interrupt. An exception that is lost (raised inside a finalizer, say) is raised again, at the latest by `check` before
the next step; and a process that has not ended LIMIT seconds after the signal is ended without further ado.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Generic, NoReturn, TypeVar

from scripts.frame.errors import REFUSED, UNKNOWN

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds from the signal to the end of the process, at the latest.
LIMIT = 1.5
# Seconds until a stop is tried again where it found the main thread in the middle of acquiring something.
AGAIN = 0.005
NAMES = {one.value: one.name for one in signal.Signals}
MAIN = threading.main_thread().ident


class Stopped(KeyboardInterrupt):
    """A signal ends the command. Its text is the signal's name."""


class _State:
    """What this process knows of a stop.

    phase: "before" a command, "running" or "over". raised: Stopped was raised in the main thread. deferred: how many
    blocks of the main thread must be left first. groups: process groups of programs that were started.
    """

    def __init__(self) -> None:
        self.phase = "before"
        self.changing = False
        self.signal = ""
        self.raised = False
        self.deferred = 0
        self.groups: set[int] = set()
        self.alarm = -1


_state = _State()


def listen() -> None:
    """Handle the signals from now on. Before a command runs, nothing is changed and there is nothing to clean up."""
    if get_ident() == MAIN:
        for number in SIGNALS:
            # What the parent ignores (nohup, a background job of a shell without job control) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)
        sys.unraisablehook = _lost
        atexit.register(_ignore)


def begin() -> None:
    """A command begins: from here on a stop unwinds it instead of ending the process at once."""
    if _state.alarm < 0:
        # A pipe, because a signal may arrive while the main thread holds any of the interpreter's own locks.
        waiting, _state.alarm = os.pipe()
        threading.Thread(target=_watchdog, args=(waiting,), daemon=True).start()
    _state.phase = "running"
    check()


def end() -> None:
    """A command is over and has said how: a signal does not change that any more."""
    _state.phase = "over"


def changing() -> None:
    """Something is about to be changed: a stop leaves the outcome unknown from here on. Raises a pending stop."""
    check()
    _state.changing = True


def exit_code() -> int:
    """The exit code of a stop: 2 where nothing was changed yet, else 3."""
    return UNKNOWN if _state.changing else REFUSED


def check() -> None:
    """Raise a stop that is pending, or whose exception was lost on its way; not inside of `deferred`."""
    main = get_ident() == MAIN
    if _state.signal and not (main and _state.deferred):
        _state.raised = _state.raised or main
        raise Stopped(_state.signal)


class deferred:  # noqa: N801 - it reads like contextlib's own
    """A stop waits until the block is left, but never longer than LIMIT. Only the main thread is ever stopped."""

    def __enter__(self) -> None:
        _state.deferred += get_ident() == MAIN

    def __exit__(self, *_: object) -> None:
        if get_ident() == MAIN:
            _state.deferred -= 1
            if _state.signal and not (_state.deferred or _state.raised):
                _state.raised = True
                raise Stopped(_state.signal)


class owned(Generic[T]):  # noqa: N801 - it reads like contextlib's own
    """Acquire something, and give it back however the block ends. A stop interrupts neither of the two.

    One that arrives while it is acquired is raised inside the block.
    """

    def __init__(self, acquire: Callable[[], T], give_back: Callable[[T], object]) -> None:
        self._acquire, self._give_back = acquire, give_back

    def __enter__(self) -> T:
        main = get_ident() == MAIN
        _state.deferred += main
        try:
            self._thing = self._acquire()
        finally:
            _state.deferred -= main
        return self._thing

    def __exit__(self, *_: object) -> None:
        with deferred():
            self._give_back(self._thing)


def watch(group: int) -> None:
    """Remember a process group that has to end with this process."""
    _state.groups.add(group)


def unwatch(group: int) -> None:
    """Forget a process group that has ended."""
    _state.groups.discard(group)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads, which may hang in a request, and with it what it started."""
    for group in tuple(_state.groups):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    # Everything that was printed is flushed already, and a reader that has stalled must not hold us up.
    os._exit(code)


def _handle(number: int, frame: FrameType | None) -> None:
    if not _state.signal:
        if _state.phase == "before":
            _say(f"stopped by {NAMES[number]}: nothing was changed")
            leave(REFUSED)
        _state.signal = NAMES[number]
        os.write(_state.alarm, b"!")
    if _state.phase == "running" and not (_state.raised or _state.deferred or _is_between(frame)):
        _state.raised = True
        raise Stopped(_state.signal)


def _ignore() -> None:
    """All is said and done: Python is about to give the signals back to the system, which would end us with them."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_IGN)


def _is_between(frame: FrameType | None) -> bool:
    """Whether a context manager is just being entered or left. The watchdog tries again a moment later."""
    return frame is not None and (frame.f_code in UNINTERRUPTED or frame.f_globals is vars(contextlib))


# In these, something is acquired and its block is not entered yet, or it is left and nothing is given back yet. A
# second signal may find the handler of the first in their place.
UNINTERRUPTED = {one.__code__ for kind in (deferred, owned) for one in (kind.__enter__, kind.__exit__)}
UNINTERRUPTED |= {_handle.__code__, _is_between.__code__}


def _lost(unraisable: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised inside a finalizer; of a stop, the watchdog tries again."""
    if issubclass(unraisable.exc_type, Stopped):
        _state.raised = False
    else:
        sys.__unraisablehook__(unraisable)


def _watchdog(waiting: int) -> None:
    os.read(waiting, 1)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        time.sleep(AGAIN)
        if _state.phase == "running" and not (_state.raised or _state.deferred):
            signal.pthread_kill(MAIN or 0, signal.SIGINT)
    _say(f"stopped by {_state.signal}; cleanup did not finish in time. Check what is left over, or run it again.")
    leave(exit_code())


def _say(line: str) -> None:
    """Write a line to stderr, unless that would block."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{line}\n".encode())
