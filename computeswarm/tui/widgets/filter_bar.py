"""The market's query language in one line, with what is wrong said under the wrong word."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Static

from computeswarm.core.errors import InvalidQuery
from computeswarm.tui.widgets.pane import line, lines

PAUSE_SECONDS = 0.2
"""A query counts once nobody typed for so long."""


class _Fields(Suggester):
    """Completes the word being typed from the language's own fields and values."""

    async def get_suggestion(self, value: str) -> str | None:
        from computeswarm.core.query import completions  # after the first frame: brings the models

        found = completions(value)
        word = value.rpartition(" ")[2]
        return value + found[0][len(word) :] if word and found else None


class FilterBar(Vertical):
    """Posts ``Asked`` with a query that reads well; keeps a wrong one to itself and explains."""

    class Asked(Message):
        def __init__(self, query: str) -> None:
            super().__init__()
            self.query = query

    class Left(Message):
        """Enter or down: back to the table."""

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static("/", id="filter-slash", markup=False)
            yield Input(
                placeholder="gpu:4090|a100 vram>=24 price<2 online",
                id="filter-input",
                compact=True,
                select_on_focus=False,
                max_length=500,
                suggester=_Fields(use_cache=False, case_sensitive=True),
            )
            yield Static("", id="filter-count", markup=False)
        yield Static("", id="filter-error", markup=False)

    def on_mount(self) -> None:
        self._timer = self.set_timer(PAUSE_SECONDS, self._ask, pause=True)

    @property
    def text(self) -> str:
        return self.query_one(Input).value

    def count(self, text: str) -> None:
        """What the last answer held, on the right."""
        self.query_one("#filter-count", Static).update(line((text, "$muted")))

    def clear(self) -> None:
        self.query_one(Input).value = ""

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._timer.stop()
        self._timer = self.set_timer(PAUSE_SECONDS, self._ask)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._ask()
        if not self.has_class("-wrong"):
            self.post_message(self.Left())

    def key_down(self) -> None:
        self.post_message(self.Left())

    def _ask(self) -> None:
        self._timer.stop()
        from computeswarm.core.query import parse

        try:
            parse(self.text)
        except InvalidQuery as error:
            self.blame(error)
        else:
            self.set_class(False, "-wrong")
            self.post_message(self.Asked(self.text))

    def blame(self, error: InvalidQuery) -> None:
        """Point at the word that can't be read."""
        at = error.extra.get("position", 0)
        word = str(error.extra.get("word", ""))
        indent = max(0, at if isinstance(at, int) else 0)
        mark = "▔" * max(1, min(len(word), 60))
        self.query_one("#filter-error", Static).update(
            lines(
                line(" " * (2 + min(indent, 200)), (mark, "$error")), line((error.detail, "$error"))
            )
        )
        self.set_class(True, "-wrong")
