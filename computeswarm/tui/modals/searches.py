"""Saved searches: choose one, save the present one under a name, delete one."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input, Static

from computeswarm.core.text import clean_line
from computeswarm.tui.memory import Memory, SavedSearch
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.searching import WORD
from computeswarm.tui.widgets.pane import line
from computeswarm.tui.widgets.table import Column, Table

SUGGESTED = (
    SavedSearch("Favourites", WORD),
    SavedSearch("Cheapest finished work", "idle gpu", "cost"),
    SavedSearch("Most for the money", "idle gpu", "value"),
    SavedSearch("Large models", "idle vram>=48", "cost"),
    SavedSearch("Safe hands", "idle rel>=99%", "reputation"),
)
_NAME = 60


class SearchesModal(Dialog[SavedSearch]):
    """Its result is the search to apply. What is saved or deleted is so at once."""

    BINDINGS: ClassVar = [
        Binding("enter", "choose", "apply", show=False, id="searches.choose"),
        Binding("s", "name", "save", show=False, id="searches.save"),
        Binding("x,delete", "forget", "delete", show=False, id="searches.delete"),
    ]

    def __init__(self, present: SavedSearch, memory: Memory) -> None:
        super().__init__("Saved searches")
        self._present, self._memory = present, memory

    def content(self) -> ComposeResult:
        columns: tuple[Column[SavedSearch], ...] = (
            Column("NAME", 22, lambda s: (clean_line(s.name, limit=_NAME), "bright")),
            Column("FILTER", 22, lambda s: (clean_line(s.query) or "all", ""), grow=True),
            Column("SORT", 10, lambda s: (clean_line(s.sort, limit=20), "muted")),
        )
        yield Table[SavedSearch](columns, lambda s: s.name, id="searches")
        yield Input(
            placeholder="s, then a name, saves the present search",
            id="search-name",
            compact=True,
            max_length=_NAME,
        )
        yield Static("", id="search-note", classes="problem", markup=False)

    def on_mount(self) -> None:
        self._fill()
        self.query_one(Table).focus()
        self.foot(("⏎ apply · s save the present one · x delete · esc close", "$muted"))

    def _fill(self) -> None:
        saved = self._memory.searches
        names = {search.name for search in saved}
        table = self.query_one(Table)
        table.set_rows([*saved, *(s for s in SUGGESTED if s.name not in names)])
        table.styles.height = min(len(table.rows) + 1, 16)

    def _note(self, text: str) -> None:
        self.query_one("#search-note", Static).update(line((text, "$warning")))

    def action_choose(self) -> None:
        search = self.query_one(Table).current
        if search is not None:
            self.dismiss(search)

    @on(Table.Chosen, "#searches")
    def _chosen(self) -> None:
        self.action_choose()

    def action_name(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        name = clean_line(event.value, limit=_NAME)
        if not name:
            self._note("Give it a name first.")
            return
        self._memory.save_search(SavedSearch(name, self._present.query, self._present.sort))
        event.input.value = ""
        self._fill()
        table = self.query_one(Table)
        table.select(name)
        table.focus()
        self._note(self._memory.trouble or f"Saved as {name}.")

    def action_forget(self) -> None:
        search = self.query_one(Table).current
        if search is None:
            return
        if search not in self._memory.searches:
            self._note("A suggestion; it can't be deleted.")
            return
        self._memory.forget_search(search.name)
        self._fill()
        self._note(f"Deleted {search.name}.")
