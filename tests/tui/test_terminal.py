"""On a real terminal: it is given back as it was, and nobody's escape sequence gets through."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIMIT = 40.0
EVIL = "\\x1b]0;owned\\x07\\x1b]52;c;aGk=\\x07\\x9b31m\\x1b[2J[red]x[/red][/nope]\\u202egnp"
APP = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from computeswarm.core.text import clean, clean_line
from computeswarm.tui.views import LogLine
from tui_drive import make_app
from tui_fake import FakeBuyer, job, node
from tui_fake_seller import FakeSeller
evil = "{EVIL}"
listed = node(0, name=clean_line("NODE" + evil), title=clean_line("GPU" + evil))
journal = [job(0, name=clean_line(evil + "JOB"))]
log = [LogLine(clean(evil + "LOGLINE"), "stdout", 1)]
app = make_app(FakeBuyer(nodes=(listed,), jobs=journal, log=log), FakeSeller())
if "crash" in sys.argv:
    secret = "hunter2-very-secret"
    def boom(secret=secret):
        raise ValueError("boom")
    app._booted = boom
app.run()
sys.exit(app.return_code or 0)
"""
# what Textual itself writes: CSI, and OSC 22 for the pointer's shape
OWN = re.compile(rb"\x1b(?:\[[0-9;:?<>=$!]*[A-Za-z@`~]|\]22;[a-z-]*\x07)")


class Terminal:
    """A child on a pty of 100 by 30."""

    def __init__(self, *args: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
            kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
            environ = {**kept, "TERM": "xterm-256color"}
            os.execve(sys.executable, [sys.executable, "-c", APP, *args], environ)
        self.seen = b""

    def read_until(self, mark: bytes, start: int = 0) -> None:
        end = time.monotonic() + LIMIT
        while mark not in self.seen[start:]:
            assert time.monotonic() < end, self.seen[-2000:]
            self._read(0.2)

    def _read(self, wait: float) -> bool:
        if not select.select([self.master], [], [], wait)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the child is gone
            return False
        self.seen += data
        return bool(data)

    def wait(self) -> int:
        """The exit code, once all was read."""
        end = time.monotonic() + LIMIT
        while self._read(0.2):
            assert time.monotonic() < end
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_gives_the_terminal_back(number: signal.Signals, code: int) -> None:
    terminal = Terminal()
    terminal.read_until(b"LOGLINE")
    os.kill(terminal.pid, number)
    assert terminal.wait() == code
    for switched_off in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
        assert terminal.seen.rindex(switched_off) > terminal.seen.rindex(b"LOGLINE")


def test_no_foreign_escape_reaches_the_terminal() -> None:
    terminal = Terminal()
    terminal.read_until(b"LOGLINE")
    terminal.read_until(b"GPU")
    os.write(terminal.master, b"2")
    terminal.read_until(b"Earnings")
    here = len(terminal.seen)
    os.write(terminal.master, b"1")
    terminal.read_until(b"LOGLINE", here)
    os.write(terminal.master, b"i")
    terminal.read_until(b"signed by", here)
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.wait()
    left = OWN.sub(b"", terminal.seen)
    assert b"\x1b" not in left
    assert b"owned" not in terminal.seen
    assert b"\x07" not in left
    assert "\u202e".encode() not in terminal.seen
    assert "\x9b".encode() not in terminal.seen
    assert b"[red]x" in terminal.seen


def test_a_crash_shows_no_locals_and_fails() -> None:
    terminal = Terminal("crash")
    code = terminal.wait()
    assert code == 1
    assert b"boom" in terminal.seen
    assert b"hunter2" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen
