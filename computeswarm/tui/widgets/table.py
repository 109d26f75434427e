"""A table that draws only what is seen: 100,000 rows cost as much as ten.

Textual's DataTable blocks for seconds at 10,000 rows. Here rows stay the caller's own values, and
a line is made when it is drawn first, and kept while only the cursor moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from computeswarm.tui.keymap import bindings

Row = TypeVar("Row")
KEPT = 1_000
"""Lines that are kept."""
NEAR = 64
"""Rows round its old place among which a row is looked for before all are numbered."""
TONES = ("muted", "faint", "bright", "success", "warning", "error", "accent", "secondary")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    Args:
        title: its heading.
        width: cells it takes at least.
        cell: text and tone of a row's cell.
        sort: the sort key it stands for; empty when rows can't be sorted by it.
        right: numbers stand on the right.
        falls: its natural order is from much to little.
        rank: columns with the highest rank are dropped first on a narrow screen; 0 never is.
        grow: takes what is left of the width.
    """

    title: str
    width: int
    cell: Callable[[Row], tuple[str, str]]
    sort: str = ""
    right: bool = False
    rank: int = 0
    grow: bool = False
    falls: bool = False


class Table(ScrollView, Generic[Row], can_focus=True):
    """Rows with a cursor that stays on its row (by key) when rows come, go and move."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--sorted",
        "table--cursor",
        "table--cursor-quiet",
        *(f"tone--{tone}" for tone in TONES),
    }
    BINDINGS = bindings("table")

    cursor: reactive[int] = reactive(0)
    sort_key: reactive[str] = reactive("")
    descending: reactive[bool] = reactive(default=False)

    class Moved(Message):
        """The cursor is on another row, or that row has new values; ``row`` None when empty."""

        def __init__(self, table: Table[Row], row: Row | None) -> None:
            super().__init__()
            self.table = table
            self.row = row

        @property
        def control(self) -> Widget:
            return self.table

    class Chosen(Message):
        """Enter or a second click on a row."""

        def __init__(self, table: Table[Row], row: Row) -> None:
            super().__init__()
            self.table = table
            self.row = row

        @property
        def control(self) -> Widget:
            return self.table

    class End(Message):
        """Somebody asked for the last row of all; here may be more than these."""

        def __init__(self, table: Table[Row]) -> None:
            super().__init__()
            self.table = table

        @property
        def control(self) -> Widget:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        key: Callable[[Row], str],
        *,
        spans: Callable[[Row], str] = lambda _: "",
        id: str | None = None,  # noqa: A002 -- Textual's own name for it
    ) -> None:
        """``spans`` gives the one text of a row that has no cells."""
        super().__init__(id=id)
        self.rows: Sequence[Row] = ()
        self._columns = columns
        self._key = key
        self._spans = spans
        self._numbers: dict[str, int] | None = None
        """Each row's place by its key; made when it is needed."""
        self._strips: dict[int, Strip] = {}
        """Lines that were drawn, by their row's place; without the one under the cursor."""
        self._shades: dict[tuple[str, str], Style] = {}
        self._places: list[tuple[Column[Row], int]] = []
        self._laid_out_for = -1

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    @property
    def sorts(self) -> tuple[str, ...]:
        """The keys of the columns there is room for, from left to right."""
        return tuple(c.sort for c, _ in self._lay_out(self.size.width) if c.sort)

    @property
    def in_view(self) -> tuple[int, int]:
        """The places of the first and the last row on screen."""
        first = int(self.scroll_y)
        return first, max(first, min(len(self.rows), first + self.size.height - 1) - 1)

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these rows; the cursor stays on its row, or at its place if that row is gone."""
        held = self.current
        self.rows = rows
        self._numbers = None
        self._strips.clear()
        if held is not None and not self._spans(held):
            self._find(self._key(held))
        self.set_reactive(Table.cursor, max(0, min(self.cursor, len(rows) - 1)))
        self.virtual_size = Size(0, len(rows) + 1)  # columns fit: nothing scrolls sideways
        self.refresh()
        self.post_message(self.Moved(self, self.current))

    def changed(self) -> None:
        """What the cells say of the same rows is another."""
        self._strips.clear()
        self.refresh()

    def select(self, key: str) -> None:
        """Put the cursor on the row with that key, if there is one."""
        if self._find(key):
            self._show_cursor()
            self.refresh()
            self.post_message(self.Moved(self, self.current))

    def _find(self, key: str) -> bool:
        place = self._place_of(key)
        if place is not None:
            self.set_reactive(Table.cursor, place)
        return place is not None

    def _place_of(self, key: str) -> int | None:
        if self._numbers is None:
            # most lists change little: a row is where it was, or close to that
            near = range(max(0, self.cursor - NEAR), min(len(self.rows), self.cursor + NEAR))
            for place in sorted(near, key=lambda place: abs(place - self.cursor)):
                if self._key(self.rows[place]) == key:
                    return place
            self._numbers = {self._key(row): place for place, row in enumerate(self.rows)}
        return self._numbers.get(key)

    # -- movement

    def watch_cursor(self, before: int, after: int) -> None:
        top = self.scroll_y
        self._show_cursor()
        if self.scroll_y == top:  # nothing moved but the cursor
            lines = (place + 1 - int(top) for place in (before, after))
            self.refresh(*(Region(0, y, self.size.width, 1) for y in lines if y > 0))
        else:
            self.refresh()
        self.post_message(self.Moved(self, self.current))

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, len(self.rows) - 1))

    def _show_cursor(self) -> None:
        # the heading covers the first line, so the row's own line lies one below its number
        self.scroll_to_region(
            Region(0, self.cursor, 1, 2), animate=False, force=True, immediate=True
        )

    def action_down(self) -> None:
        self.cursor += 1

    def action_up(self) -> None:
        self.cursor -= 1

    def action_page_down(self) -> None:
        self.cursor += max(1, self.size.height - 2)

    def action_page_up(self) -> None:
        self.cursor -= max(1, self.size.height - 2)

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.post_message(self.End(self))  # before it moves: who listens knows where to
        self.cursor = len(self.rows) - 1

    def on_click(self, event: events.Click) -> None:
        line = int(event.y) - 1
        if line < 0:
            return
        index = line + int(self.scroll_y)
        if index < len(self.rows):
            if index == self.cursor and event.chain > 1:
                self.post_message(self.Chosen(self, self.rows[index]))
            self.cursor = index

    # -- drawing

    def on_resize(self) -> None:
        self.virtual_size = Size(0, len(self.rows) + 1)
        self._show_cursor()

    def _lay_out(self, width: int) -> list[tuple[Column[Row], int]]:
        columns = list(self._columns)
        room = width - 3  # the cursor's mark, and air on the right
        while len(columns) > 1 and sum(c.width + 2 for c in columns) - 2 > room:
            worst = max(columns, key=lambda c: c.rank)
            if worst.rank == 0:
                break
            columns.remove(worst)
        spare = max(0, room - sum(c.width + 2 for c in columns) + 2)
        growing = [c for c in columns if c.grow]
        return [(c, c.width + (spare // len(growing) if c.grow else 0)) for c in columns]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if width != self._laid_out_for:
            self._places, self._laid_out_for = self._lay_out(width), width
            self._strips.clear()
        if y == 0:
            return self._heading(width)
        index = y - 1 + int(self.scroll_y)
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        if index == self.cursor:
            return self._row(self.rows[index], width, selected=True)
        strip = self._strips.get(index)
        if strip is None:
            if len(self._strips) > KEPT:
                self._strips.clear()
            strip = self._strips[index] = self._row(self.rows[index], width, selected=False)
        return strip

    def notify_style_update(self) -> None:
        """Another theme, or other classes: nothing that was drawn holds."""
        super().notify_style_update()
        self._strips.clear()
        self._shades.clear()

    def _tone(self, name: str) -> Style:
        return self.get_component_rich_style(name, partial=True)

    def _shade(self, base: str, tone: str) -> Style:
        """The style of a cell: that of its line, and its own tone."""
        shade = self._shades.get((base, tone))
        if shade is None:
            shade = self.rich_style + self._tone(base) if base else self.rich_style
            shade = shade + self._tone(f"tone--{tone}") if tone else shade
            self._shades[base, tone] = shade
        return shade

    def _heading(self, width: int) -> Strip:
        plain = self.rich_style + self._tone("table--header")
        lit = self.rich_style + self._tone("table--sorted")
        segments = [Segment("  ", plain)]
        for column, cells in self._places:
            is_sorted = bool(column.sort) and column.sort == self.sort_key
            title = column.title
            if is_sorted:
                title += " ▼" if self.descending != column.falls else " ▲"
            segments.append(
                Segment(_fit(title, cells, column.right) + "  ", lit if is_sorted else plain)
            )
        return Strip(segments).adjust_cell_length(width, plain)

    def _row(self, row: Row, width: int, *, selected: bool) -> Strip:
        mark, base = "  ", ""
        if selected:
            mark = "▸ " if self.has_focus else "› "
            base = "table--cursor" if self.has_focus else "table--cursor-quiet"
        style = self._shade(base, "")
        segments = [Segment(mark, self._shade(base, "accent" if selected else ""))]
        if text := self._spans(row):
            segments.append(Segment(_fit(text, width - 3, False), self._shade(base, "muted")))
            return Strip(segments).adjust_cell_length(width, style)
        for column, cells in self._places:
            text, tone = column.cell(row)
            segments.append(Segment(_fit(text, cells, column.right), self._shade(base, tone)))
            segments.append(Segment("  ", style))
        return Strip(segments).adjust_cell_length(width, style)


def _fit(text: str, cells: int, right: bool) -> str:
    used = cell_len(text)
    if used > cells:
        return set_cell_size(text, cells - 1) + "…"
    return " " * (cells - used) + text if right else text + " " * (cells - used)
