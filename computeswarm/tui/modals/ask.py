"""A question whose safe answer is the default."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Static

from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line, lines


class AskModal(Dialog[bool]):
    """Dismissed with True only by the button that says so."""

    def __init__(self, question: str, *details: str, yes: str, no: str) -> None:
        super().__init__(question)
        self._details = details
        self._yes, self._no = yes, no

    def content(self) -> ComposeResult:
        yield Static(lines(*(line(detail) for detail in self._details)))
        with Horizontal(classes="buttons"):
            yield Button(Content(f"{self._no} (esc)"), id="no", compact=True)
            yield Button(Content(self._yes), id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def key_left(self) -> None:
        self.query_one("#no").focus()

    def key_right(self) -> None:
        self.query_one("#yes").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
