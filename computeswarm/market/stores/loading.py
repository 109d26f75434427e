"""Reading all nodes at a start: as columns, and the next of them while the last are taken in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from computeswarm.market.rows import LEASE, NodeColumns

COLUMNS = (
    *("node_id", "wallet", "record", "facts", "words", "session_key", "session_until"),
    *("registered_at", "succeeded", "failed", "gone", "number", "seq", "counter", "last_seen"),
    *("lease_until", "alive_seconds", "queued", "running", "status"),
)
"""The order in which stores select them: ``NodeColumns`` and ``LEASE``."""
_WIDE = COLUMNS.index("number")


def columns(rows: Sequence[Sequence[Any]]) -> NodeColumns:
    """Rows that were selected in the order of ``COLUMNS``."""
    turned = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    leases = np.empty(len(rows), LEASE)
    for name, values in zip(COLUMNS[_WIDE:], turned[_WIDE:], strict=True):
        leases[name] = values
    parts = (*turned[:_WIDE], leases)
    return NodeColumns(*parts)


async def ahead(
    fetch: Callable[[int], Awaitable[NodeColumns]],
) -> AsyncIterator[NodeColumns]:
    """Batch by batch, each fetched after a number; one is always under way."""
    task = asyncio.ensure_future(fetch(0))
    try:
        while batch := await task:
            task = asyncio.ensure_future(fetch(int(batch.leases["number"][-1])))
            yield batch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
