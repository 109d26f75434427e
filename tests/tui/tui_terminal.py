"""A program of Python on a pseudo-terminal: what it wrote, what a person sees, how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte

LIMIT = 40.0


class Terminal:
    """A child on a terminal, which pyte draws as a real one would.

    Args:
        program: Python's text of it.
        args: its arguments.
        size: columns and rows.
    """

    def __init__(
        self, program: str, *args: str, size: tuple[int, int] = (100, 30), **env: str
    ) -> None:
        columns, rows = size
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.seen = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            self._set_size(0, columns, rows)
            kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "TMUX")}
            environ = {**kept, "TERM": "xterm-256color", **env}
            os.execve(sys.executable, [sys.executable, "-c", program, *args], environ)

    @staticmethod
    def _set_size(descriptor: int, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)

    @property
    def shown(self) -> str:
        """What stands on the screen."""
        return "\n".join(self.screen.display)

    def press(self, keys: bytes) -> None:
        """Send keys as a terminal does."""
        os.write(self.master, keys)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    def resize(self, columns: int, rows: int) -> None:
        """Another size; the kernel tells the program."""
        self.screen.resize(rows, columns)
        self._set_size(self.master, columns, rows)

    def read_until(self, mark: bytes, start: int = 0) -> None:
        """Wait until ``mark`` was written behind ``start``."""
        end = time.monotonic() + LIMIT
        while mark not in self.seen[start:]:
            assert time.monotonic() < end, self.seen[-2000:]
            self._read(0.2)

    def until(self, *texts: str, gone: str = "") -> None:
        """Wait until the screen shows all of ``texts``, and no ``gone``."""
        end = time.monotonic() + LIMIT
        while not all(text in self.shown for text in texts) or (gone and gone in self.shown):
            assert time.monotonic() < end, self.shown
            self._read(0.2)

    def _read(self, wait: float) -> bool:
        if not select.select([self.master], [], [], wait)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the child is gone
            return False
        self.seen += data
        self._stream.feed(data)
        return bool(data)

    def wait(self) -> int:
        """The exit code, once all was read."""
        end = time.monotonic() + LIMIT
        while self._read(0.2):
            assert time.monotonic() < end
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
