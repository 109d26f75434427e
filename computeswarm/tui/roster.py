"""The nodes that are here of a long list: pages from its beginning and from its end.

A page is fetched again by itself, by the cursor that leads to it, so a long list costs no more than
what is looked at. Between the two ends a ``Gap`` stands for what nobody has seen yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from computeswarm.tui.views import Gap, NodeItem, NodePage

End = Literal["top", "bottom"]
ENDS: tuple[End, End] = ("top", "bottom")
MOST_KEPT = 10
"""Pages that are fetched at once for another order of the same nodes."""
Row = NodeItem | Gap
AT_LEAST = 1
"""A gap's size where the count says that nothing is missing, and a cursor that something is."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A page to fetch.

    Args:
        end: from the beginning on, or from the last one backwards (the order reversed).
        place: the how-many-eth page it is from there.
        cursor: leads to it; empty for the first.
    """

    end: End
    place: int
    cursor: str = ""


@dataclass(slots=True)
class _Sheet:
    """A page that came; ``nodes`` is in its own end's order."""

    cursor: str
    nodes: tuple[NodeItem, ...]
    following: str
    rejected: int = 0
    stale: bool = False
    """Whether it no longer begins where the page before it ends."""


@dataclass(slots=True)
class _Side:
    """The pages from one end, without a hole between them."""

    sheets: list[_Sheet] = field(default_factory=list)
    wanted: int = 0

    @property
    def complete(self) -> bool:
        return bool(self.sheets) and not self.sheets[-1].following

    def take(self, place: int, page: NodePage, cursor: str) -> None:
        if place > len(self.sheets):
            return  # the page before it was dropped meanwhile
        fresh = _Sheet(cursor, page.nodes, page.next, page.rejected)
        self.sheets[place : place + 1] = [fresh]
        if not page.next:  # the list has become shorter
            del self.sheets[place + 1 :]
        elif place + 1 < len(self.sheets):
            behind = self.sheets[place + 1]
            behind.stale = behind.stale or behind.cursor != page.next
            behind.cursor = page.next

    def nodes(self) -> Iterable[NodeItem]:
        for sheet in self.sheets:
            yield from sheet.nodes


class Roster:
    """Pages as they come to rows as they are shown."""

    def __init__(self) -> None:
        self.total = 0
        self.exact = True
        self.rows: list[Row] = []
        self._top, self._bottom = _Side(wanted=1), _Side()
        self._whole = False

    @property
    def whole(self) -> bool:
        """Whether all nodes that match are here."""
        return self._whole

    @property
    def rejected(self) -> int:
        """Records with a wrong signature in the pages that are here."""
        sheets = [*self._top.sheets, *self._bottom.sheets]
        return sum(sheet.rejected for sheet in sheets)

    @property
    def shown(self) -> int:
        """How many nodes are here."""
        return len(self.rows) - (self.gap is not None)

    @property
    def gap(self) -> int | None:
        """The place of the gap among the rows; None where there is none."""
        return self._gap

    _gap: int | None = None

    @property
    def ends(self) -> bool:
        """Whether the last node of all is here."""
        return self._whole or bool(self._bottom.sheets)

    def clear(self, *, same: bool = False) -> None:
        """Another list: only its first page is wanted. The rows stay until ``arrange``.

        Args:
            same: of the same nodes in another order; where all were here, all are wanted.
        """
        pages = len(self._top.sheets) + len(self._bottom.sheets) if same and self._whole else 1
        self._top, self._bottom = _Side(wanted=max(1, min(pages, MOST_KEPT))), _Side()

    def hold(self, nodes: Sequence[NodeItem], rejected: int = 0) -> None:
        """These are all."""
        self.rows = list(nodes)
        self.total, self.exact, self._whole, self._gap = len(self.rows), True, True, None
        sheet = _Sheet("", tuple(nodes), "", rejected)
        self._top, self._bottom = _Side([sheet], wanted=1), _Side()

    def grow(self, end: End) -> bool:
        """Want one more page from that end; whether there is one to want that is not yet."""
        side = self._side(end)
        if side.complete or self._whole or side.wanted > len(side.sheets):
            return False
        side.wanted = len(side.sheets) + 1
        return True

    def lacking(self) -> Ask | None:
        """The next page that is wanted and was never here."""
        for end in ENDS:
            side = self._side(end)
            if len(side.sheets) < side.wanted and not side.complete:
                cursor = side.sheets[-1].following if side.sheets else ""
                return Ask(end, len(side.sheets), cursor)
        return None

    def due(self, first: int, last: int) -> list[Ask]:
        """The pages to fetch where the rows from ``first`` to ``last`` are in view.

        Those in view, and those that no longer fit to the one before. The first is always among
        them: its answer counts how many there are.
        """
        asks = [Ask("top", 0)]
        last_row = len(self.rows) - 1
        views: dict[End, tuple[int, int]] = {
            "top": (first, last),
            "bottom": (last_row - last, last_row - first),
        }
        for end, (begin, stop) in views.items():
            at = 0
            for place, sheet in enumerate(self._side(end).sheets):
                if (at <= stop and begin < at + len(sheet.nodes)) or sheet.stale:
                    asks.append(Ask(end, place, sheet.cursor))
                at += len(sheet.nodes)
        return list(dict.fromkeys(asks))

    def take(self, ask: Ask, page: NodePage) -> None:
        """A page came; ``arrange`` makes the rows of what is here."""
        self._side(ask.end).take(ask.place, page, ask.cursor)
        if ask == Ask("top", 0):
            self.total, self.exact = page.total, page.exact

    def arrange(self) -> None:
        """Put the pages together: each node once, and a gap where some are missing."""
        seen: dict[str, NodeItem] = {}
        for node in self._top.nodes():
            seen.setdefault(node.node_id, node)
        top = len(seen)
        below: dict[str, NodeItem] = {}
        for node in self._bottom.nodes():
            below.setdefault(node.node_id, node)
        met = any(node_id in seen for node_id in below)
        rows: list[Row] = list(seen.values())
        tail = [node for node_id, node in below.items() if node_id not in seen]
        here = len(rows) + len(tail) + self.rejected
        met = met or (bool(tail) and self.exact and here >= self.total)
        self._whole = self._top.complete or self._bottom.complete or met
        self._gap = None
        if not self._whole and tail:
            missing = max(AT_LEAST, self.total - len(rows) - len(tail))
            rows.append(Gap(missing))
            self._gap = top
        # what the top holds whole, it holds in the right order; a rest is of another moment
        if not self._top.complete:
            rows += reversed(tail)
        self.rows = rows

    def _side(self, end: End) -> _Side:
        return self._top if end == "top" else self._bottom
