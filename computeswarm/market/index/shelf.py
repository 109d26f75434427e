"""The orders that are in use, each kept right while nodes change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from computeswarm.market.columns import Array
from computeswarm.market.index.keys import Sort
from computeswarm.market.index.orders import Order
from computeswarm.market.index.plan import generation
from computeswarm.market.table import NodeTable

FORGET_SECONDS = 300.0
_LEAST_ASIDE = 1_000
_SHARE_ASIDE = 64
"""An order is made anew when one slot in so many was set aside."""
_TEXTS_ASIDE = 16
"""Where one in so many was and has a text to be compared, it is no more use as it is."""
_REST = 5
"""An order is made anew at most in one part of so many of the time."""


@dataclass(slots=True)
class _Kept:
    order: Order
    generation: int
    used: float
    made: float = 0.0
    took: float = 0.0


@dataclass(slots=True)
class _Building:
    sort: Sort
    generation: int
    touched: list[Array] = field(default_factory=list)


class Shelf:
    """Orders by their sort. All but the function that ``begin`` returns belongs on the loop."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._kept: dict[str, _Kept] = {}
        self._building: dict[str, _Building] = {}
        for kind in (table.touches.records, table.touches.leases, table.touches.figures):
            kind.wanted = True

    @property
    def nbytes(self) -> int:
        """Bytes of all orders."""
        return sum(kept.order.nbytes for kept in self._kept.values())

    def get(self, sort: Sort, now: float) -> Order | None:
        """The order of a sort with all changes in it, if there is one of use. ``now`` is any
        steady clock's, in seconds."""
        self.drain()
        kept = self._kept.get(sort.name)
        if kept is None or (sort.text and kept.generation != generation(self._table)):
            return None
        if sort.text and kept.order.changed > max(_LEAST_ASIDE, len(kept.order) // _TEXTS_ASIDE):
            return None
        kept.used = now
        return kept.order

    def begin(self, sort: Sort) -> Callable[[], Order]:
        """Begin an order; the function that is returned makes it, on the loop or in a thread.
        ``end`` takes it in."""
        self.drain()
        self._building[sort.name] = _Building(sort, generation(self._table))
        table, columns, size = self._table, self._table.columns, self._table.size

        def build() -> Order:
            order = Order(sort)
            order.build(table, columns, size)
            return order

        return build

    def end(self, order: Order, *, now: float, took: float) -> None:
        """Take in an order that was made, with what has changed since it was begun."""
        self.drain()
        building = self._building.pop(order.sort.name)
        if building.touched:
            order.touch(np.concatenate(building.touched))
        self._kept[order.sort.name] = _Kept(order, building.generation, now, now, took)

    def abandon(self, sort: Sort) -> None:
        """An order that was begun will not come."""
        self._building.pop(sort.name, None)

    def building(self, sort: Sort) -> bool:
        """Whether one was begun."""
        return sort.name in self._building

    def due(self, now: float) -> list[Sort]:
        """Orders to be made anew; forgets those nobody has asked for in a while."""
        self.drain()
        for name, kept in list(self._kept.items()):
            if now - kept.used > FORGET_SECONDS:
                del self._kept[name]
        return [
            kept.order.sort
            for kept in self._kept.values()
            if kept.order.changed > max(_LEAST_ASIDE, len(kept.order) // _SHARE_ASIDE)
            and now - kept.made > _REST * kept.took
            and not self.building(kept.order.sort)
        ]

    def drain(self) -> None:
        """Tell the orders what has changed in the table."""
        sorts = [kept.order.sort for kept in self._kept.values()]
        sorts += [building.sort for building in self._building.values()]
        touches = self._table.touches
        for kind in (touches.records, touches.leases, touches.figures):
            moved = {sort.name for sort in sorts if kind in sort.moved_by(self._table)}
            if not moved:
                kind.clear()
                continue
            slots = kind.drain()
            if not len(slots):
                continue
            for name in moved:
                if name in self._kept:
                    self._kept[name].order.touch(slots)
                if name in self._building:
                    self._building[name].touched.append(slots)
