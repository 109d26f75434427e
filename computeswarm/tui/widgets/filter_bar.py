"""The market's query language in one line, with what is wrong said under the wrong word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Static

from computeswarm.core.errors import InvalidQuery
from computeswarm.tui.searching import completions, split
from computeswarm.tui.widgets.pane import Part, line, lines

MOST_WORDS = 12
PAUSE_SECONDS = 0.2
"""A query counts once nobody typed for so long."""


class _Fields(Suggester):
    """Completes the word being typed from the language's own fields, and the values there are."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.known: Mapping[str, Sequence[str]] = {}

    async def get_suggestion(self, value: str) -> str | None:
        found = completions(value, self.known)
        word = value.rpartition(" ")[2]
        return value + found[0][len(word) :] if word and found else None


class _Query(Input):
    """Tab takes what is proposed; where nothing is, it goes to the next pane as everywhere."""

    BINDINGS: ClassVar = [Binding("tab", "complete", show=False, id="filter.complete")]

    def action_complete(self) -> None:
        if len(self._suggestion) <= len(self.value):  # what stands there is proposed, too
            raise SkipAction
        self.value = self._suggestion
        self.cursor_position = len(self.value)


class FilterBar(Vertical):
    """Posts ``Asked`` with a query that reads well; keeps a wrong one to itself and explains."""

    class Asked(Message):
        def __init__(self, query: str) -> None:
            super().__init__()
            self.query = query

    class Left(Message):
        """Enter or down: back to the table."""

    class Entered(Message):
        """Somebody is about to type."""

    def __init__(self) -> None:
        super().__init__()
        self._fields = _Fields()

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static("/", id="filter-slash", markup=False)
            yield _Query(
                placeholder="gpu:4090|a100 vram>=24 price<2 online",
                id="filter-input",
                compact=True,
                select_on_focus=False,
                max_length=500,
                suggester=self._fields,
            )
            yield Static("", id="filter-count", markup=False)
        yield Static("", id="filter-words", markup=False)
        yield Static("", id="filter-error", markup=False)

    def on_mount(self) -> None:
        self._timer = self.set_timer(PAUSE_SECONDS, self._ask, pause=True)

    @property
    def text(self) -> str:
        return self.query_one(Input).value

    def count(self, text: str) -> None:
        """What the last answer held, on the right."""
        self.query_one("#filter-count", Static).update(line((text, "$muted")))

    @property
    def known(self) -> Mapping[str, Sequence[str]]:
        """Values by field that completion proposes."""
        return self._fields.known

    @known.setter
    def known(self, values: Mapping[str, Sequence[str]]) -> None:
        self._fields.known = values

    def fill(self, text: str) -> None:
        """Ask for this, as though it had been typed: what is typed next comes after it."""
        field = self.query_one(Input)
        field.value = text
        field.cursor_position = len(text)

    def clear(self) -> None:
        self.fill("")

    def ask(self, text: str) -> None:
        """Fill it in and ask at once."""
        self.fill(text)
        self._ask()

    def on_descendant_focus(self) -> None:
        self.post_message(self.Entered())

    def on_descendant_blur(self) -> None:
        self.set_class(False, "-words")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show_words(event.value)
        self._timer.stop()
        self._timer = self.set_timer(PAUSE_SECONDS, self._ask)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._ask()
        if not self.has_class("-wrong"):
            self.post_message(self.Left())

    def _show_words(self, text: str) -> None:
        """What the word being typed may become, the one that tab takes first."""
        typing = self.query_one(Input).has_focus and bool(text.rpartition(" ")[2])
        found = completions(text, self.known)[:MOST_WORDS] if typing else []
        self.set_class(bool(found), "-words")
        if found:
            rest: list[Part] = [(f"  {word}", "$muted") for word in found[1:]]
            self.query_one("#filter-words", Static).update(
                line(("  tab ", "$faint"), (found[0], "bold $primary"), *rest)
            )

    def key_down(self) -> None:
        self.post_message(self.Left())

    def _ask(self) -> None:
        self._timer.stop()
        from computeswarm.core.query import parse

        try:
            parse(split(self.text)[0])
        except InvalidQuery as error:
            self.blame(error)
        else:
            self.set_class(False, "-wrong")
            self.post_message(self.Asked(self.text))

    def blame(self, error: InvalidQuery) -> None:
        """Point at the word that can't be read."""
        text, field = self.text, self.query_one(Input)
        at, length = (error.extra.get(name) for name in ("position", "length"))
        begin = at if isinstance(at, int) and 0 <= at <= len(text) else 0
        end = begin + length if isinstance(length, int) and length > 0 else begin + 1
        # a long query has moved to the left under its word
        first = max(0, cell_len(text[:begin]) - int(field.scroll_x))
        mark = "▔" * max(1, min(cell_len(text[begin:end]), field.size.width - first))
        self.query_one("#filter-error", Static).update(
            lines(line(" " * (2 + first), (mark, "$error")), line((error.detail, "$error")))
        )
        self.set_class(True, "-wrong")
