"""Records the real app for the README: a newcomer buys a job on a demo, as a cast and a picture.

    python scripts/record.py [FOLDER]        (docs/ by default)

Types into ``computeswarm demo`` on a pseudo-terminal as a person would, waiting each time for what
the screen shows, and writes demo.cast (asciicast v2, for ``asciinema play``) and demo.svg (the
same, moving, for a browser).
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyte
from animate import animated

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 110, 34
LIMIT = 120.0
PAUSE = 1.2
"""Seconds for which a viewer looks at each screen."""
SAME_FRAME = 0.02
"""Seconds within which what comes belongs together."""
MOST_GAP = 2.0
"""Waiting is cut to so much in the cast."""


@dataclass
class Recording:
    """A program on a terminal; what it wrote, and when."""

    command: list[str]
    events: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            environ = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            environ["TEXTUAL_ANIMATIONS"] = "none"  # a fade is many screens that nobody looks at
            for name in ("COLUMNS", "LINES", "NO_COLOR", "COMPUTESWARM_HOME", "TMUX"):
                environ.pop(name, None)
            os.execvpe(self.command[0], self.command, environ)  # noqa: S606 -- no shell is meant
        self._began = time.monotonic()

    def read(self, wait: float) -> bool:
        """Take what comes within ``wait`` seconds; False once the program is gone."""
        if not select.select([self._master], [], [], wait)[0]:
            return True
        data = b""
        # a frame comes in pieces that mean nothing by themselves
        while select.select([self._master], [], [], SAME_FRAME if data else 0)[0]:
            try:
                piece = os.read(self._master, 65_536)
            except OSError:
                break
            if not piece:
                break
            data += piece
        if not data:
            return False
        self._stream.feed(data)
        self.events.append((time.monotonic() - self._began, data.decode("utf-8", "replace")))
        return True

    def until(self, text: str) -> None:
        """Go on when the screen shows ``text``, and a viewer has seen it."""
        end = time.monotonic() + LIMIT
        while not any(text in line for line in self.screen.display):
            if time.monotonic() > end or not self.read(0.1):
                shown = "\n".join(self.screen.display)
                raise TimeoutError(f"The screen never showed {text!r}:\n{shown}")
        self.look(PAUSE)

    def until_gone(self, text: str) -> None:
        """Go on when the screen shows ``text`` no more."""
        end = time.monotonic() + LIMIT
        while any(text in line for line in self.screen.display):
            if time.monotonic() > end or not self.read(0.1):
                raise TimeoutError(f"The screen never lost {text!r}.")

    def look(self, seconds: float) -> None:
        """Record for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def type(self, keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            os.write(self._master, key.encode())
            self.look(0.12)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        while self.read(1.0):
            pass
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def walk(tape: Recording) -> None:
    """From the first screen to a finished job and its receipt."""
    tape.until("Welcome")
    tape.look(PAUSE)
    tape.type("\r")
    tape.until("computeswarm run")
    tape.type("\r")
    tape.until("Most you can lose")
    tape.type("p")
    tape.until("running")
    tape.until("done")
    tape.type("r")
    tape.until("Receipt")
    tape.type("\x1b")
    tape.until_gone("Receipt")
    tape.type("2")
    tape.until("Earnings")
    tape.look(2 * PAUSE)
    tape.type("3")
    tape.until("USDC")
    tape.look(PAUSE)
    tape.type("q")


def seen(events: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Without what changes nothing on the screen: the app draws more often than things change."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    kept: list[tuple[float, str]] = []
    for at, text in events:
        before = [dict(screen.buffer[y]) for y in range(ROWS)]
        stream.feed(text)
        switches = "\x1b[?1049" in text
        if switches or before != [dict(screen.buffer[y]) for y in range(ROWS)]:
            kept.append((at, text))
    return kept


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs")
    folder.mkdir(parents=True, exist_ok=True)
    tape = Recording([sys.executable, "-m", "computeswarm", "demo"])
    walk(tape)
    code = tape.end()
    events, cut, before = [], 0.0, 0.0
    for at, text in seen(tape.events):
        cut += max(0.0, at - before - MOST_GAP)
        before = at
        events.append((round(at - cut, 3), text))
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "computeswarm demo"}
    lines = [json.dumps(header), *(json.dumps([at, "o", text]) for at, text in events)]
    (folder / "demo.cast").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "demo.svg").write_text(animated(events, COLUMNS, ROWS), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
