"""Where to save a log, or other text."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.widgets import Input, Static

from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line


class SaveModal(Dialog[None]):
    """Writes on enter; never over a file that is there."""

    def __init__(self, path: Path, text: str, title: str = "Save the log") -> None:
        super().__init__(title)
        self._path, self._text = path, text

    def content(self) -> ComposeResult:
        yield Input(str(self._path), id="save-path", compact=True, select_on_focus=False)
        yield Static("", id="save-problem", classes="problem", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.foot((f"{self._text.count(chr(10)):,} lines · ⏎ save · esc cancel", "$muted"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        path = Path(event.value).expanduser()
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(self._text)
        except FileExistsError:
            self._problem(f"{path} is there already; give another name.")
        except OSError as error:
            self._problem(f"It can't be written: {error.strerror}.")
        else:
            self.swarm.say(f"Saved {path.absolute()}")
            self.dismiss(None)

    def _problem(self, text: str) -> None:
        self.query_one("#save-problem", Static).update(line((text, "$error")))
