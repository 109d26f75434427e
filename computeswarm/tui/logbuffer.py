"""A job's output in memory: the last 10,000 lines, searchable, foldable to any width."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.cells import cell_len, get_character_cell_size

from computeswarm.tui.views import LogLine

MAX_LINES = 10_000
_SLACK = (
    1_000  # lines are dropped from the front so many at a time: cutting a list costs its length
)
_ERROR = re.compile(
    r"^Traceback \(most recent|\b\w*(Error|Exception)\b|(?i:\berror\b ?:|\bfatal\b|\bpanic\b)"
    r"|out of memory|^Killed\b|Segmentation fault|core dumped"
)


class LogBuffer:
    """Lines with absolute numbers, so that a place stays valid while old lines fall out."""

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self.max_lines = max_lines
        self.lines: list[LogLine] = []
        self.first = 0
        """The number of the oldest line still held: as many were dropped."""

    @property
    def end(self) -> int:
        """One more than the number of the newest line: as many ever came."""
        return self.first + len(self.lines)

    @property
    def dropped(self) -> int:
        return self.first

    def extend(self, lines: Iterable[LogLine]) -> None:
        """Append; the oldest lines fall out beyond ``max_lines``."""
        self.lines.extend(lines)
        surplus = len(self.lines) - self.max_lines
        if surplus > 0:
            surplus = min(len(self.lines), surplus + _SLACK)
            del self.lines[:surplus]
            self.first += surplus

    def __getitem__(self, number: int) -> LogLine:
        return self.lines[number - self.first]

    def find(self, needle: str, start: int, step: int) -> int | None:
        """The nearest line from ``start`` on (``step`` 1 or -1) that holds ``needle``, any case."""
        low = needle.lower()
        stop = self.end if step > 0 else self.first - 1
        start = min(max(start, self.first), self.end - 1)
        for number in range(start, stop, step):
            if low in self[number].text.lower():
                return number
        return None

    def find_error(self, start: int) -> int | None:
        """The first line from ``start`` on that tells of an error, as programs usually write it."""
        for number in range(max(start, self.first), self.end):
            line = self[number]
            if line.kind == "bad" or _ERROR.search(line.text):
                return number
        return None

    def text(self) -> str:
        """Everything held, as it is saved to a file."""
        return "".join(f"{line.text}\n" for line in self.lines)


def fold(text: str, width: int) -> list[str]:
    """``text`` in pieces of at most ``width`` cells; one empty piece for an empty line."""
    if width <= 0 or (len(text) * 2 <= width) or cell_len(text) <= width:
        return [text]
    if text.isascii():
        return [text[i : i + width] for i in range(0, len(text), width)]
    pieces, piece, used = [], "", 0
    for char in text:
        cells = get_character_cell_size(char)
        if used + cells > width and piece:
            pieces.append(piece)
            piece, used = "", 0
        piece += char
        used += cells
    return [*pieces, piece]
