"""A stop is not an error: SIGINT, SIGTERM and SIGHUP end the command and what it started, wherever they arrive.

`Stopped` is a KeyboardInterrupt: no handler of failures catches it, and asyncio, urllib3 and botocore let it pass.
What is acquired (a lease, a folder, a program) is acquired and given back through `owned`, which a stop cannot
interrupt. If an exception is lost all the same (raised inside a finalizer, say), `check` raises it again before the
next step; and a process that has not ended in LIMIT seconds is ended without further ado.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

from scripts.frame.errors import REFUSED, UNKNOWN

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds from the signal to the end of the process, at the latest.
LIMIT = 1.8


class Stopped(KeyboardInterrupt):
    """A signal ends the command. Its text is the signal's name."""


class _State:
    """What this process knows of a stop. groups: process groups of programs that were started."""

    def __init__(self) -> None:
        self.running = False
        self.changing = False
        self.signal = ""
        self.raised = False
        self.deferred = 0
        self.groups: set[int] = set()
        self.alarm = -1


_state = _State()


def listen() -> None:
    """Handle the signals from now on. Before a command runs, nothing is changed and there is nothing to put away."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            # What the parent ignores (nohup, a background job of a shell without job control) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)


def begin(*, running: bool = True) -> None:
    """A command begins (or is over): from here on a stop unwinds it instead of ending the process at once."""
    if running and _state.alarm < 0:
        # A pipe, because a signal may arrive while the main thread holds any of the interpreter's own locks.
        waiting, _state.alarm = os.pipe()
        threading.Thread(target=_watchdog, args=(waiting,), daemon=True).start()
    _state.running, _state.changing = running, False


def changing() -> None:
    """Something is about to be changed: a stop leaves the outcome unknown from here on. Raises a pending stop."""
    check()
    _state.changing = True


def exit_code() -> int:
    """The exit code of a stop: 2 where nothing was changed yet, else 3."""
    return UNKNOWN if _state.changing else REFUSED


def check() -> None:
    """Raise a stop whose exception was lost on its way. Called before each step, never while cleaning up."""
    if _state.signal:
        _state.raised = True
        raise Stopped(_state.signal)


@contextmanager
def deferred() -> Iterator[None]:
    """A stop waits until the block is left, but never longer than LIMIT. Only the main thread is ever stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.deferred += 1
    try:
        yield
    finally:
        _state.deferred -= 1
        if _state.signal and not _state.deferred and not _state.raised:
            check()


@contextmanager
def owned(acquire: Callable[[], T], give_back: Callable[[T], object]) -> Iterator[T]:
    """Acquire something, and give it back however the block ends. A stop interrupts neither of the two."""
    acquired: list[T] = []
    try:
        with deferred():
            acquired.append(acquire())
        yield acquired[0]
    finally:
        with deferred():
            for thing in acquired:
                give_back(thing)


def watch(group: int) -> None:
    """Remember a process group that has to end with this process."""
    _state.groups.add(group)


def unwatch(group: int) -> None:
    """Forget a process group that has ended."""
    _state.groups.discard(group)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads, which may hang in a request, and with it what it started."""
    for group in _state.groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    # Everything that was printed is flushed already, and a reader that has stalled must not hold us up.
    os._exit(code)


def _handle(number: int, _: FrameType | None) -> None:
    if _state.signal:
        # It is on its way out already; LIMIT holds whatever it does.
        return
    name = signal.Signals(number).name
    if not _state.running:
        _say(f"stopped by {name}: nothing was changed")
        leave(REFUSED)
    _state.signal = name
    os.write(_state.alarm, b"!")
    if not _state.deferred:
        _state.raised = True
        raise Stopped(name)


def _watchdog(waiting: int) -> None:
    os.read(waiting, 1)
    time.sleep(LIMIT)
    _say(f"stopped by {_state.signal}, before everything was put away: look at what it had begun, or run it again")
    leave(exit_code())


def _say(line: str) -> None:
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
