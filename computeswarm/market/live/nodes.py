"""What the stream reads of the nodes in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from computeswarm.core.nodes import NodeStatus
from computeswarm.core.query import Query
from computeswarm.market.columns import ABSENT
from computeswarm.market.rows import STATUSES
from computeswarm.market.table import NodeTable

Slots = npt.NDArray[np.int64]


class Nodes(Protocol):
    """The nodes by their slots, as they stand when asked. Times in unix seconds."""

    def slot(self, node_id: str) -> int | None:
        """Where a node is; None where it never was, or is not any more."""
        ...

    def gone(self, slot: int) -> bool:
        """Whether nobody is there, or only one who left."""
        ...

    def node_id(self, slot: int) -> str: ...

    def listing(self, slot: int, now: float) -> bytes:
        """The node as a search gives it: JSON of ``core.nodes.ComputeNode``."""
        ...

    def pulse(self, slot: int, now: float) -> bytes:
        """JSON of ``core.changes.NodeChanged``."""
        ...

    def price(self, slot: int) -> tuple[str, int]:
        """The model of its first GPU (``cpu`` without one), and atoms per GPU and hour."""
        ...

    def matches(self, query: Query, slots: Slots) -> npt.NDArray[np.bool_]:
        """Which of them a search for ``query`` would find."""
        ...

    def slots_of(self, numbers: npt.NDArray[np.int64]) -> Slots:
        """The slots of nodes by the store's numbers; unknown ones are left out."""
        ...

    def lapsed(self, since: float, now: float) -> Slots:
        """Nodes whose lease ran out between two moments."""
        ...


class TableNodes:
    """The nodes of a ``NodeTable``.

    Args:
        matching: ``market.index.matching``: which of some slots a query finds.
    """

    def __init__(
        self,
        table: NodeTable,
        matching: Callable[[NodeTable, Query, Slots], npt.NDArray[np.bool_]],
    ) -> None:
        self._table, self._matching = table, matching

    def slot(self, node_id: str) -> int | None:
        return self._table.slot(node_id)

    def gone(self, slot: int) -> bool:
        return self._table.gone(slot)

    def node_id(self, slot: int) -> str:
        return self._table.node_id(slot)

    def listing(self, slot: int, now: float) -> bytes:
        return self._table.json(slot, now)

    def pulse(self, slot: int, now: float) -> bytes:
        table, hot = self._table, self._table.hot
        status = STATUSES[hot.status[slot]]
        kind = "offline" if status is NodeStatus.OFFLINE else "changed"
        return (
            f'{{"type":"{kind}","node_id":"{table.node_id(slot)}","status":"{status}",'
            f'"last_seen":{int(hot.last_seen[slot])},"queued":{hot.queued[slot]},'
            f'"running":{hot.running[slot]},"jobs_succeeded":{hot.succeeded[slot]},'
            f'"jobs_failed":{hot.failed[slot]},"uptime_permille":{table.uptime(slot, now)}}}'
        ).encode()

    def price(self, slot: int) -> tuple[str, int]:
        return self._table.model(slot), self._table.hot.price[slot]

    def matches(self, query: Query, slots: Slots) -> npt.NDArray[np.bool_]:
        return self._matching(self._table, query, slots)

    def slots_of(self, numbers: npt.NDArray[np.int64]) -> Slots:
        slots = self._table.slots_of(numbers)
        return slots[slots >= 0]

    def lapsed(self, since: float, now: float) -> Slots:
        size = self._table.size
        ended = self._table.columns.lease_until[:size]
        absent = self._table.columns.status[:size] == ABSENT
        return np.flatnonzero((ended > since) & (ended <= now) & ~absent)
