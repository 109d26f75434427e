"""From process start to the first frame on a real pty: our app against a bare Textual app.

    python benchmarks/first_frame.py [ROUNDS]

Both run alternately in one go, so the ratio holds on a noisy machine. Ours is the whole app with
its style sheet: once to its skeleton (frames and words), once to all widgets of Buyer mode, which
take keys. It connects after that.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import sys
import termios
import time

GOAL = 1.2
MARK = b"Looking for nodes"
FULL_MARK = b"gpu:4090"  # stands in the filter of the mode itself, which replaces the skeleton
BARE = f"""
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static({MARK.decode()!r})
Bare().run()
"""
OURS = """
import asyncio
from computeswarm.tui.app import ComputeSwarmApp
async def connect():
    await asyncio.sleep(3600)
ComputeSwarmApp(connect=connect).run()
"""
PASS = f"print({MARK.decode()!r}); import time; time.sleep(60)"


def first_frame(code: str, mark: bytes = MARK, limit: float = 30.0) -> float:
    """Seconds until the mark stands on a 120x40 terminal; the process is ended then."""
    began = time.perf_counter()
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
        os.execve(sys.executable, [sys.executable, "-c", code], environ)
    seen = b""
    try:
        while mark not in seen:
            if time.perf_counter() - began > limit:
                raise TimeoutError(f"no frame in {limit:.0f} s; last seen: {seen[-300:]!r}")
            if select.select([master], [], [], 0.5)[0]:
                seen += os.read(master, 65536)
        return time.perf_counter() - began
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


def measure(rounds: int) -> dict[str, float]:
    """Medians in seconds, of alternating runs after one unmeasured run each."""
    codes = {
        "python": (PASS, MARK),
        "bare": (BARE, MARK),
        "ours": (OURS, MARK),
        "full": (OURS, FULL_MARK),
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for turn in range(rounds + 1):
        for name, (code, mark) in codes.items():
            took = first_frame(code, mark)
            if turn:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    took = measure(rounds)
    ratio, full = took["ours"] / took["bare"], took["full"] / took["bare"]
    print(f"python -c pass         {took['python'] * 1000:7.0f} ms")
    print(f"bare Textual app       {took['bare'] * 1000:7.0f} ms")
    print(f"computeswarm's app     {took['ours'] * 1000:7.0f} ms")
    print(f"  with all its widgets {took['full'] * 1000:7.0f} ms")
    print(f"first frame, skeleton  {ratio:7.2f} x bare Textual (goal {GOAL})")
    print(f"first frame, widgets   {full:7.2f} x bare Textual (goal {GOAL})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
