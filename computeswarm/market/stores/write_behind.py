"""Leases on their way into a store: kept, written some thousands at a time, and tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.logs import get_logger
from computeswarm.core.metrics import Histogram
from computeswarm.market.stores.pending import Pending
from computeswarm.market.stores.protocol import Leases

LEASES_A_COMMIT = 4_000
RETRY_SECONDS = 1.0
_log = get_logger("market")


class WriteBehind:
    """Writes whatever waits as soon as it can.

    Args:
        write: takes some of what waits and commits it, or puts it back and raises.
    """

    def __init__(self, write: Callable[[Pending], Awaitable[None]]) -> None:
        self.seconds = Histogram()
        self._write = write
        self._pending = Pending()
        self._one = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many nodes' leases are not known to be written."""
        return len(self._pending)

    def touch(self, leases: Leases) -> None:
        """See ``Store.touch``."""
        self._pending.add(leases)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._forever())

    async def flush(self) -> None:
        """See ``Store.flush``.

        Raises:
            StorageFull, Unavailable: some is not written, and kept.
        """
        async with self._one:
            while len(self):
                began = time.perf_counter()
                await self._write(self._pending)
                self.seconds.observe(time.perf_counter() - began)

    async def close(self) -> None:
        """Write the rest; what can't be written is told of in the log."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self.flush()
        except ComputeSwarmError as error:
            _log.warning("leases_not_written", leases=len(self), reason=error.detail)

    async def _forever(self) -> None:
        while True:
            try:
                return await self.flush()
            except ComputeSwarmError:
                await asyncio.sleep(RETRY_SECONDS)  # they are kept meanwhile
