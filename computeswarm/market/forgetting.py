"""Nodes that went long ago are not kept for ever: listing one is free, and they would add up."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.logs import get_logger
from computeswarm.market.replica import Replica
from computeswarm.market.stores.protocol import Store

KEEP_SECONDS = 7 * 86_400.0
"""Since the last sign of life, for a node that has finished no job well."""
KEEP_PROVEN_SECONDS = 180 * 86_400.0
"""For all others: a past is worth something, and was not free."""
LOOK_SECONDS = 3_600.0
_log = get_logger("market")


class Forgetting:
    """Looks for them about once an hour, at each instance."""

    def __init__(self, store: Store, replica: Replica, *, clock: Clock) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._forever(), name="market-forgetting")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> int:
        """Forget who is due now; returns how many.

        Raises:
            Unavailable: the store does not answer; those forgotten so far are.
        """
        now, total = self._clock.now(), 0
        while found := await self._store.forget_nodes(
            before=now - KEEP_SECONDS, proven_before=now - KEEP_PROVEN_SECONDS
        ):
            for node_id in found:
                self._replica.drop(node_id)
            total += len(found)
        if total:
            _log.info("nodes_forgotten", count=total)
        return total

    async def _forever(self) -> None:
        while True:
            # apart from the other instances'
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            try:
                await self.look()
            except ComputeSwarmError:
                continue  # another time
            except Exception as error:
                _log.error("forgetting_failed", exc=error)
