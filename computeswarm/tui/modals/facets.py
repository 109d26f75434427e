"""How many nodes match, by what they are; a value that is chosen narrows the filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding

from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import FacetItem
from computeswarm.tui.widgets.table import Column, Table

_TITLES = {"gpu": "model", "gpus": "GPUs", "vram": "VRAM, GiB", "network": "internet"}


class FacetsModal(Dialog[str]):
    """Its result is a word of the query language."""

    BINDINGS: ClassVar = [Binding("enter", "choose", "choose", show=False, id="facets.choose")]

    def __init__(self, items: Sequence[FacetItem], query: str) -> None:
        super().__init__(f"What matches {query}" if query else "What is for rent")
        self._items = items
        self._firsts = {id(item) for item in _firsts(items)}

    def content(self) -> ComposeResult:
        columns: tuple[Column[FacetItem], ...] = (
            Column("", 10, self._kind),
            Column("", 24, lambda item: (item.label, "bright"), grow=True),
            Column("NODES", 9, lambda item: (f"{item.nodes:,}", ""), right=True),
        )
        yield Table[FacetItem](columns, lambda item: item.word, id="facets")

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.set_rows(self._items)
        table.styles.height = min(len(self._items) + 1, 40)
        table.focus()
        self.foot(("⏎ narrows the filter · esc closes", "$muted"))

    def _kind(self, item: FacetItem) -> tuple[str, str]:
        """The heading of a kind, on its first row."""
        title = _TITLES.get(item.field, item.field)
        return (title if id(item) in self._firsts else "", "accent")

    def action_choose(self) -> None:
        item = self.query_one(Table).current
        if item is not None:
            self.dismiss(item.word)

    @on(Table.Chosen, "#facets")
    def _chosen(self) -> None:
        self.action_choose()


def _firsts(items: Sequence[FacetItem]) -> list[FacetItem]:
    return [one for at, one in enumerate(items) if not at or items[at - 1].field != one.field]
