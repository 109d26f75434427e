"""Telling somebody who looks elsewhere: the terminal's bell, and the desktop by OSC 9.

OSC 9 is iTerm2's way to post a notification; Windows Terminal, WezTerm, kitty, Ghostty and foot
know it, and others ignore it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from computeswarm.core.text import clean_line

LONGEST = 200


def osc9(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The escape sequence that shows ``text`` on the desktop; within tmux, wrapped to get through.

    Whatever is in the text, it can't end the sequence: control characters are taken out.
    """
    environ = os.environ if environ is None else environ
    words = clean_line(text, limit=LONGEST).strip()
    # a text that begins with "4;" would be a progress bar (ConEmu's other use of the number)
    plain = f"\x1b]9;{'· ' if words[:1].isdigit() else ''}{words}\x07"
    if environ.get("TMUX"):
        return "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return plain
