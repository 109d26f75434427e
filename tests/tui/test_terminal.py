"""On a real terminal: it is given back as it was, and nobody's escape sequence gets through."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from tui_terminal import Terminal

HERE = Path(__file__).parent
EVIL = "\\x1b]0;owned\\x07\\x1b]52;c;aGk=\\x07\\x9b31m\\x1b[2J[red]x[/red][/nope]\\u202egnp"
APP = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_gives_the_terminal_back(number: signal.Signals, code: int) -> None:
    terminal = Terminal(APP)
    terminal.read_until(b"LOGLINE")
    terminal.signal(number)
    assert terminal.wait() == code
    for switched_off in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
        assert terminal.seen.rindex(switched_off) > terminal.seen.rindex(b"LOGLINE")


def test_no_foreign_escape_reaches_the_terminal() -> None:
    terminal = Terminal(APP)
    terminal.read_until(b"LOGLINE")
    terminal.read_until(b"GPU")
    terminal.press(b"2")
    terminal.read_until(b"Earnings")
    here = len(terminal.seen)
    terminal.press(b"1")
    terminal.read_until(b"LOGLINE", here)
    terminal.press(b"i")
    terminal.read_until(b"signed by", here)
    terminal.signal(signal.SIGTERM)
    terminal.wait()
    left = OWN.sub(b"", terminal.seen)
    assert b"\x1b" not in left
    assert b"owned" not in terminal.seen
    assert b"\x07" not in left
    assert "\u202e".encode() not in terminal.seen
    assert "\x9b".encode() not in terminal.seen
    assert b"[red]x" in terminal.seen


def test_a_crash_shows_no_locals_and_fails() -> None:
    terminal = Terminal(APP, "crash")
    code = terminal.wait()
    assert code == 1
    assert b"boom" in terminal.seen
    assert b"hunter2" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen


@pytest.mark.parametrize(
    "opened", [b"n", b"?", b"i", b"c"], ids=["wizard", "help", "info", "counts"]
)
def test_a_signal_gives_the_terminal_back_from_a_dialog_too(opened: bytes) -> None:
    terminal = Terminal(APP)
    terminal.until("LOGLINE")
    terminal.press(opened)
    terminal.read_until(b"esc")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 143
    assert terminal.seen.rindex(b"\x1b[?1049l") > terminal.seen.rindex(b"\x1b[?1049h")


def test_ctrl_c_asks_while_a_job_runs_and_leaves_on_enter() -> None:
    terminal = Terminal(APP)
    terminal.until("LOGLINE")
    terminal.press(b"\x03")
    terminal.until("Leave while a job runs?")
    terminal.press(b"\x1b")
    terminal.until("LOGLINE", gone="Leave while a job runs?")
    terminal.press(b"q")
    terminal.until("Leave while a job runs?")
    terminal.press(b"\t\r")
    assert terminal.wait() == 0
    assert b"\x1b[?1049l" in terminal.seen


def test_every_size_is_drawn_and_the_next_one_too() -> None:
    terminal = Terminal(APP, size=(120, 40))
    terminal.until("LOGLINE", "Nodes", "Jobs")
    for columns, rows in ((80, 24), (300, 100), (20, 5), (40, 10), (120, 40)):
        terminal.resize(columns, rows)
        terminal.press(b"2")
        here = len(terminal.seen)
        terminal.press(b"1")
        terminal.read_until(b"BUYER" if columns >= 80 else b"\x1b[", here)
    terminal.until("LOGLINE", "Nodes", "Jobs")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 143
    assert b"Traceback" not in terminal.seen
