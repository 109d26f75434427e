"""Copying where the terminal takes no OSC 52: the text by itself, to be marked by hand."""

from __future__ import annotations

import os
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.modals.dialog import Dialog

_DEAF_TERMS = ("linux", "dumb", "vt100", "vt220")


def takes_osc52(driver: Any) -> bool:
    """Whether the terminal may be expected to take OSC 52: the console and dumb ones don't."""
    if driver is None or os.environ.get("TERM_PROGRAM") == "Apple_Terminal":
        return False
    return os.environ.get("TERM", "") not in _DEAF_TERMS


class CopyModal(Dialog[None]):
    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"Copy the {what}")
        self._text = text

    def content(self) -> ComposeResult:
        yield Static(Content(self._text), id="copy-text")
        yield Static(
            Content("This terminal takes no copies from programs: mark the text and copy it."),
            classes="hint",
        )

    def on_mount(self) -> None:
        self.foot(("esc closes", "$muted"))
