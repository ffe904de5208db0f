"""A terminal: runs a command on a real pty, and shows what is on its screen."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte

from tests.conftest import ROOT

# Begins what removes rows from the screen.
REMOVED = re.compile(rb"(?=\r(?:\x1b\[\d+A)?\x1b\[J)")


class Terminal:
    """A command that runs on a terminal. output: all that it has written, with the seconds since its start."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], columns: int = 80, rows: int = 24) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = os.openpty()
        self._began = time.monotonic()
        self.output: list[tuple[float, bytes]] = []
        self.resize(columns, rows)
        # The first terminal that the leader of a session opens is the one whose Ctrl-C it gets.
        opened = ["sh", "-c", 'exec "$@" 0<>"$0" 1>&0 2>&0', os.ttyname(slave), *words]
        self.process = subprocess.Popen(opened, env=env, cwd=ROOT, start_new_session=True)
        self._slave = slave

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def until(self, reached: Callable[[], bool], seconds: float = 60) -> None:
        """Read until something is so on the screen."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, "\n".join(self.lines())
            self._read(0.1)

    def end(self) -> int:
        """Read to the end. Returns the exit code."""
        self.until(lambda: self.process.poll() is not None)
        while self._read(0):
            pass
        os.close(self._slave)
        os.close(self._master)
        return self.process.returncode

    def _read(self, wait: float) -> bool:
        if not select.select([self._master], [], [], wait)[0]:
            return False
        chunk = os.read(self._master, 1 << 16)
        self.output.append((time.monotonic() - self._began, chunk))
        self._stream.feed(chunk)
        return True

    def seen(self) -> set[str]:
        """Every row that was on the screen before something was removed from it, and at the end."""
        screen = pyte.Screen(self.screen.columns, self.screen.lines)
        stream, rows = pyte.ByteStream(screen), set[str]()
        for shown in REMOVED.split(b"".join(chunk for _, chunk in self.output)):
            stream.feed(shown)
            rows.update(row.rstrip() for row in screen.display)
        return rows

    def lines(self) -> list[str]:
        """The rows of the screen and of what has scrolled out of it, without empty ones at the end."""
        gone = ["".join(row[column].data for column in range(self.screen.columns)) for row in self.screen.history.top]
        rows = [row.rstrip() for row in [*gone, *self.screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows
