"""The market's nodes: filter, table, and how the list stands."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.marks import Marks
from computeswarm.tui.roster import Roster
from computeswarm.tui.searching import split
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.node_columns import (
    Row,
    gap_text,
    marks_cell,
    node_columns,
    row_key,
)
from computeswarm.tui.widgets.pane import Notice, Pane
from computeswarm.tui.widgets.table import Table


class NodePane(Pane):
    """Shows a roster. ``marks`` and ``favourites`` are read when a row is drawn."""

    marks = Marks()
    favourites: frozenset[str] = frozenset()
    _count = ""
    """How many match in all, where not all are here."""
    _gap: int | None = None
    _missing = 0

    def compose(self) -> ComposeResult:
        cell = marks_cell(lambda: self.favourites, lambda: self.marks.best)
        yield FilterBar()
        yield Table[Row](node_columns(cell), row_key, spans=gap_text, id="nodes")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Nodes", "bold"))
        self.notice("◌", "Looking for nodes…", tone="$muted")

    @property
    def table(self) -> Table[Any]:
        """Its rows are nodes, and a ``Gap`` where some are missing."""
        return self.query_one("#nodes", Table)

    def load(self, roster: Roster, query: str) -> None:
        """What is here of the list."""
        rest, marked = split(query)
        shown, word = roster.shown, "match" if rest.strip() else "listed"
        # where all are here, they are the count: pages that came after one another, perhaps from
        # several instances, may have counted otherwise
        known = f"{roster.total:,}{'' if roster.exact else '+'}"
        self._count = "" if roster.whole else known
        text = f"{shown:,} {word}" if roster.whole else f"{shown:,} here of {known} {word}"
        if marked:
            text = f"{shown:,} of {len(self.favourites):,} favourites"
        if roster.rejected:
            text += f" · {roster.rejected} with a bad signature left out"
        self._gap, self._missing = roster.gap, roster.total - shown
        self.query_one(FilterBar).count(text)
        self.table.set_rows(roster.rows)
        if roster.rows:
            self.show_body()
        else:
            self._say_empty(rest, marked=marked)

    def _say_empty(self, rest: str, *, marked: bool) -> None:
        if marked and not self.favourites:
            self.notice("♡", "You have no favourite yet", "f marks the node under the cursor",
                        "esc shows all nodes")  # fmt: skip
        elif marked or rest.strip():
            which = "None of your favourites matches" if marked else "No node matches"
            self.notice("○", which, "esc clears the filter, / changes it")
        else:
            self.notice(
                "◇",
                "No node is listed here yet",
                "Start one on this or any machine:  computeswarm seller",
                "It appears here by itself.",
            )

    def fail(self, error: ComputeSwarmError) -> None:
        """The market can't be reached; what was there stays on screen."""
        if not self.table.rows:
            self.notice(
                "✗",
                error.title,
                error.detail,
                "Trying again by itself. Another market:  computeswarm --market URL",
                tone="$error",
            )

    def place(self, busy: str = "") -> None:
        """Say in the lower edge where the cursor is in the whole list, and what is under way."""
        cursor = self.table.cursor
        if not self.table.rows:
            self.foot((busy, "$muted"))
            return
        behind = self._gap is not None and cursor >= self._gap
        number = cursor + (self._missing if behind else 1)
        count = self._count or f"{len(self.table.rows):,}"
        self.foot((f"{busy}  " if busy else "", "$warning"), (f"{number:,} of {count}", "$muted"))
