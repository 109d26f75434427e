"""The bell and the desktop: only where wanted, and no text gets out of its sequence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tui_terminal import Terminal

from computeswarm.tui.notices import LONGEST, osc9

HERE = Path(__file__).parent
APP = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
from tui_drive import make_app
from tui_fake import FakeBuyer
app = make_app(FakeBuyer())
app.rings = "bell" in sys.argv
app.tells_desktop = "desktop" in sys.argv
evil = "job" + chr(27) + "]52;c;aGk=" + chr(7) + " ended" + chr(0x9c) + chr(10) + "now"
def ring():
    app.alert(evil, title="train.py is done")
    app.set_timer(0.5, app.exit)
app.call_later(lambda: app.set_timer(1.0, ring))
app.run()
"""


@given(st.text(max_size=400))
def test_no_text_ends_the_sequence(text: str) -> None:
    sent = osc9(text, {})
    assert re.fullmatch(r"\x1b\]9;[^\x00-\x1f\x7f-\x9f]*\x07", sent)
    assert len(sent) <= LONGEST + 8
    assert not sent.startswith("\x1b]9;4;")
    wrapped = osc9(text, {"TMUX": "/tmp/tmux"})
    assert wrapped == "\x1bPtmux;" + sent.replace("\x1b", "\x1b\x1b") + "\x1b\\"


@pytest.mark.parametrize("wanted", [(), ("bell",), ("desktop",), ("bell", "desktop")])
def test_a_real_terminal_gets_what_was_wanted(wanted: tuple[str, ...]) -> None:
    terminal = Terminal(APP, *wanted)
    assert terminal.wait() == 0
    seen = re.sub(rb"\x1b\]22;[a-z-]*\x07", b"", terminal.seen)
    told = re.findall(rb"\x1b\]9;([^\x07]*)\x07", seen)
    assert len(told) == ("desktop" in wanted)
    if told:
        assert told[0].startswith(b"train.py is done: job")
        assert b"now" in told[0]
    assert b"\x1b]52" not in seen
    rest = re.sub(rb"\x1b\][^\x07]*\x07", b"", seen)
    assert rest.count(b"\x07") == ("bell" in wanted)
