"""The live log: 10,000 lines a second without a stutter, follow, find, wrap.

Drawn line by line from a buffer like the table, because Textual's Log neither wraps nor colours and
takes a worker for every line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import perf_counter
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.actions import SkipAction
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from computeswarm.tui.format import time_of_day
from computeswarm.tui.keymap import bindings
from computeswarm.tui.logbuffer import LogBuffer, fold
from computeswarm.tui.views import LogLine
from computeswarm.tui.widgets.table import TONES

TIMES_FROM = 70
"""Cells of width from which each line has its time before it."""
FOLDING_SECONDS = 0.01
"""So long lines are folded at once, before keys and other widgets have their turn …"""
BREATH_SECONDS = 0.01
"""… for so long."""
_TONE_OF = {
    "stderr": "warning",
    "note": "secondary",
    "good": "success",
    "warn": "warning",
    "bad": "error",
}
_MARK_OF = {"note": "· ", "good": "✓ ", "warn": "! ", "bad": "✗ "}


class LogView(ScrollView, can_focus=True):
    """Shows one buffer; ``show`` another one, ``grew`` after lines were added to it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--match",
        "log--match-line",
        *(f"tone--{tone}" for tone in TONES),
    }
    BINDINGS = bindings("log")

    follow: reactive[bool] = reactive(default=True)
    wrap: reactive[bool] = reactive(default=False)
    needle: reactive[str] = reactive("")

    class Changed(Message):
        """Following, wrapping, the match or the amount changed: the frame's text does too."""

    class SaveAsked(Message):
        """Ctrl+S in the log."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 -- Textual's own name
        super().__init__(id=id)
        self.buffer = LogBuffer()
        self.match: int | None = None
        self._at_error = False
        """Whether the match was found as an error, not as the needle."""
        self._rows: list[tuple[int, str]] = []  # number of the line, and a piece of its text
        self._end = 0  # the next line that has no rows yet
        self._folding = False  # whether a timer will make the rows that are missing
        self._widest = 0

    def show(self, buffer: LogBuffer) -> None:
        """Another job's log, from its end."""
        if buffer is not self.buffer:
            self.buffer = buffer
            self.match = None
            self.follow = True
            self._rebuild()

    def grew(self) -> None:
        """The buffer has more lines (or lost old ones)."""
        first = self.buffer.first
        if self._rows and self._rows[0][0] < first:
            gone = _bisect(self._rows, first)
            del self._rows[:gone]
            if not self.follow:
                self.scroll_to(y=max(0, self.scroll_y - gone), animate=False, force=True)
        self._end = max(self._end, first)
        self._append()

    # -- rows

    def _gutter(self) -> int:
        return 9 if self.size.width >= TIMES_FROM else 0

    def _room(self) -> int:
        return max(10, self.size.width - self._gutter() - 1)

    def _rebuild(self) -> None:
        self._rows = []
        self._end = self.buffer.first
        self._widest = 0
        self._append()

    def _append(self) -> None:
        """Make rows of what has none yet. Folding is bounded in time: whoever writes long lines of
        wide characters would hold up the whole app by it; what is left comes a moment later."""
        room = self._room()
        stop = perf_counter() + FOLDING_SECONDS
        number = self._end
        while number < self.buffer.end:
            line = self.buffer[number]
            text = _MARK_OF.get(line.kind, "") + line.text
            number += 1
            if not self.wrap:
                self._rows.append((number - 1, text))
                self._widest = max(self._widest, len(text))
                continue
            self._rows.extend((number - 1, piece) for piece in fold(text, room))
            if perf_counter() > stop:
                break
        self._end = number
        if number < self.buffer.end and not self._folding:
            self._folding = True
            self.set_timer(BREATH_SECONDS, self._fold_on)
        width = self.size.width if self.wrap else max(self.size.width, self._widest + 10)
        self.virtual_size = Size(width, len(self._rows))
        if self.follow:
            self.scroll_end(animate=False, force=True, immediate=True, x_axis=False)
        self.refresh()
        self.post_message(self.Changed())

    def _fold_on(self) -> None:
        self._folding = False
        self.grew()

    def on_resize(self) -> None:
        self._rebuild()

    def watch_wrap(self) -> None:
        self._rebuild()

    def watch_follow(self) -> None:
        if self.follow:
            self.scroll_end(animate=False, force=True, immediate=True, x_axis=False)
        self.post_message(self.Changed())

    def watch_needle(self) -> None:
        self.match = None
        if self.needle:
            self._jump(self.buffer.find(self.needle, self.buffer.end - 1, -1))
        self.refresh()
        self.post_message(self.Changed())

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if new < old and not self.is_vertical_scroll_end:
            self.follow = False

    # -- keys

    def action_follow(self) -> None:
        self.follow = not self.follow

    def action_wrap(self) -> None:
        self.wrap = not self.wrap

    def action_save(self) -> None:
        self.post_message(self.SaveAsked())

    def action_top(self) -> None:
        self.follow = False
        self.scroll_home(animate=False, force=True, immediate=True)

    def action_end(self) -> None:
        self.follow = True
        self.scroll_end(animate=False, force=True, immediate=True, x_axis=False)

    def action_next_match(self) -> None:
        self._step(1)

    def action_previous_match(self) -> None:
        self._step(-1)

    def action_next_error(self) -> None:
        """To the first line that tells of an error, then to the next; round the end again."""
        if not self.buffer.lines:
            return
        here = self.match + 1 if self.match is not None and self._at_error else self.buffer.first
        found = self.buffer.find_error(here)
        if found is None:
            found = self.buffer.find_error(self.buffer.first)
        if found is None:
            self.notify("No line of this log tells of an error.", markup=False)
            return
        self._jump(found)
        self._at_error = True

    def _step(self, step: int) -> None:
        if not self.needle:
            raise SkipAction  # without a search these letters are the screen's
        if not self.buffer.lines:
            return
        here = self.match if self.match is not None else self.buffer.first
        wrapped = self.buffer.first if step > 0 else self.buffer.end - 1
        beyond = here + step
        found = None
        if self.buffer.first <= beyond < self.buffer.end:
            found = self.buffer.find(self.needle, beyond, step)
        self._jump(found if found is not None else self.buffer.find(self.needle, wrapped, step))

    def _jump(self, number: int | None) -> None:
        self.match = number
        self._at_error = False
        if number is not None:
            self.follow = False
            row = _bisect(self._rows, number)
            self.scroll_to(y=max(0, row - self.size.height // 2), animate=False, force=True)
        self.refresh()
        self.post_message(self.Changed())

    # -- drawing

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = y + int(self.scroll_y)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        number, piece = self._rows[index]
        if not self.buffer.first <= number < self.buffer.end:
            return Strip.blank(width, self.rich_style)
        line = self.buffer[number]
        style = self.rich_style
        if number == self.match:
            style += self.get_component_rich_style("log--match-line", partial=True)
        body = style
        if tone := _TONE_OF.get(line.kind):
            body += self.get_component_rich_style(f"tone--{tone}", partial=True)
        continued = index > 0 and self._rows[index - 1][0] == number
        segments = [*self._time(line, style, blank=continued), *self._marked(piece, body)]
        strip = Strip(segments)
        gutter = self._gutter()
        if not self.wrap and self.scroll_x:
            head, tail = strip.divide([gutter, max(strip.cell_length, gutter)])[:2]
            strip = Strip.join([head, tail.crop(int(self.scroll_x))])
        return strip.adjust_cell_length(width, style)

    def _time(self, line: LogLine, style: Style, *, blank: bool) -> Iterator[Segment]:
        if self._gutter():
            faint = style + self.get_component_rich_style("tone--faint", partial=True)
            text = time_of_day(line.at_ms / 1000) if line.at_ms and not blank else " " * 8
            yield Segment(f"{text} ", faint)

    def _marked(self, text: str, style: Style) -> Iterator[Segment]:
        if not self.needle:
            yield Segment(text, style)
            return
        lit = style + self.get_component_rich_style("log--match", partial=True)
        at = 0
        for found in re.finditer(re.escape(self.needle), text, re.IGNORECASE):
            yield Segment(text[at : found.start()], style)
            yield Segment(found.group(), lit)
            at = found.end()
        yield Segment(text[at:], style)


def _bisect(rows: list[tuple[int, str]], number: int) -> int:
    """The first row of line ``number`` or of a later one."""
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        if rows[middle][0] < number:
            low = middle + 1
        else:
            high = middle
    return low
