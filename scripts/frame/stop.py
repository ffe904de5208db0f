"""A stop is not an error: SIGINT, SIGTERM and SIGHUP end the command and what it started, wherever they arrive.

`Stopped` is a KeyboardInterrupt: no handler of failures catches it, and asyncio, urllib3 and botocore let it pass.
A lease, a folder or a program is acquired and released through `owned`, which a stop cannot interrupt. If the exception
is lost (raised inside a finalizer, for example), it is raised again, at the latest by `check` before the next step. A
process that has not ended LIMIT seconds after the signal is ended by a watchdog.
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

from scripts.frame.errors import REFUSED, UNKNOWN, erased

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds from the signal until the watchdog ends the process.
LIMIT = 1.5
# Seconds until a stop that found the main thread in the middle of acquiring something is tried again.
AGAIN = 0.005
NAMES = {one.value: one.name for one in signal.Signals}
MAIN = threading.main_thread().ident


class Stopped(KeyboardInterrupt):
    """A signal ends the command. Its text is the signal's name."""


class _State:
    """The state of a stop in this process.

    phase: "before" a command, "running" or "over". raised: Stopped was raised in the main thread. deferred: how many
    `deferred` blocks the main thread is in. groups: process groups of programs that were started.
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
    """Handle the signals from now on. Until `begin`, a signal ends the process at once: nothing has been changed."""
    if get_ident() == MAIN:
        for number in SIGNALS:
            # What the parent ignores (nohup, a background job of a shell without job control) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)
        sys.unraisablehook = _lost
        atexit.register(_ignore)


def begin() -> None:
    """Start of a command: from here on a stop raises Stopped instead of ending the process at once."""
    if _state.alarm < 0:
        # A pipe, because a signal may arrive while the main thread holds a lock of the interpreter.
        waiting, _state.alarm = os.pipe()
        threading.Thread(target=_watchdog, args=(waiting,), daemon=True).start()
    _state.phase = "running"
    check()


def end() -> None:
    """End of a command, once its outcome is known: later signals are ignored."""
    _state.phase = "over"


def changing() -> None:
    """Call this before the first change: from here on a stop exits with 3 instead of 2. Raises a pending stop."""
    check()
    _state.changing = True


def exit_code() -> int:
    """The exit code of a stop: 2 if nothing was changed yet, else 3."""
    return UNKNOWN if _state.changing else REFUSED


def received() -> str:
    """The name of the signal, empty if there was none. Codecs raise a Stopped again with a text of their own."""
    return _state.signal


def check() -> None:
    """Raise Stopped if a stop is pending or its exception was lost; not inside `deferred`."""
    main = get_ident() == MAIN
    if _state.signal and not (main and _state.deferred):
        _state.raised = _state.raised or main
        raise Stopped(_state.signal)


class deferred:  # noqa: N801 - it reads like contextlib's own
    """Delay a stop until the end of the block, for at most LIMIT seconds. Only the main thread is ever stopped."""

    def __enter__(self) -> None:
        _state.deferred += get_ident() == MAIN

    def __exit__(self, *_: object) -> None:
        if get_ident() == MAIN:
            _state.deferred -= 1
            if _state.signal and not (_state.deferred or _state.raised):
                _state.raised = True
                raise Stopped(_state.signal)


class owned(Generic[T]):  # noqa: N801 - it reads like contextlib's own
    """Acquire something, and release it however the block ends. A stop interrupts neither of the two.

    A stop that arrives during `acquire` is raised inside the block.
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
    """Register a process group that has to end with this process."""
    _state.groups.add(group)


def unwatch(group: int) -> None:
    """Unregister a process group that has ended."""
    _state.groups.discard(group)


def leave(code: int) -> NoReturn:
    """End the process and the programs that it started, without waiting for threads that may hang in a request."""
    for group in tuple(_state.groups):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    # All output is already flushed, and a stalled reader must not delay the exit.
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
    """Ignore signals at exit: Python is about to restore their default action, which would change the exit code."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_IGN)


def _is_between(frame: FrameType | None) -> bool:
    """Whether a context manager is being entered or left right now. The watchdog tries again a moment later."""
    return frame is not None and (frame.f_code in UNINTERRUPTED or frame.f_globals is vars(contextlib))


# In these, something was acquired but its block is not yet entered, or was left but is not yet released. A second
# signal may interrupt the handler of the first one there.
UNINTERRUPTED = {one.__code__ for kind in (deferred, owned) for one in (kind.__enter__, kind.__exit__)}
UNINTERRUPTED |= {_handle.__code__, _is_between.__code__}


def _lost(unraisable: "sys.UnraisableHookArgs") -> None:
    """Python drops an exception that is raised inside a finalizer. If it was a stop, the watchdog tries again."""
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
    _say(f"stopped by {_state.signal}; cleanup did not finish in time. Check what is left over, then run it again.")
    leave(exit_code())


def _say(line: str) -> None:
    """Write a line to stderr, unless that would block."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{erased()}{line}\n".encode())
