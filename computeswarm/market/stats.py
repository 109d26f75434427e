"""The market's figures: nodes from the table's columns, jobs from the store's sums."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from time import perf_counter

from computeswarm.core.clock import Clock
from computeswarm.core.metrics import Histogram
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.states import JobState
from computeswarm.core.stats import MarketStats
from computeswarm.market.rows import STATUSES
from computeswarm.market.stores.protocol import JobTotals
from computeswarm.market.table import NodeTable
from computeswarm.market.tally import Columns, Tally, tally

STALE_SECONDS = 1.0
_ON_THE_SPOT = 2_000
"""Nodes that are counted faster than a thread could be asked to."""


class Statistics:
    """The market's figures: at most a second old, made once for all who ask.

    A small market is counted on the spot. A large one in a thread, and whoever asks meanwhile waits
    for the same count.

    Args:
        totals: sums over all jobs now.
        brake: whether nobody is taken for offline now.
        stale: seconds since the database was last heard of; 0 while it answers.
    """

    def __init__(
        self,
        table: NodeTable,
        *,
        clock: Clock,
        totals: Callable[[], JobTotals],
        brake: Callable[[], bool] = lambda: False,
        stale: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.seconds = Histogram()
        """How long counting took."""
        self._table, self._clock, self._totals = table, clock, totals
        self._brake, self._stale = brake, stale
        self._tally = Tally((0,) * len(STATUSES), ())
        self._tallied_at = -math.inf
        self._version = -1
        self._running: asyncio.Task[None] | None = None

    async def get(self) -> MarketStats:
        """The figures now."""
        if self._due():
            if self._table.size <= _ON_THE_SPOT:
                self._count_here()
            else:
                await asyncio.shield(self._refresh())
        return self._made()

    def recent(self) -> MarketStats:
        """The figures without waiting: of a large market as last counted, and counted anew for the
        next one who asks."""
        if self._due():
            if self._table.size <= _ON_THE_SPOT or self._tallied_at == -math.inf:
                self._count_here()
            else:
                self._refresh()
        return self._made()

    async def close(self) -> None:
        """Wait for a count that is under way."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    # inside

    def _due(self) -> bool:
        if self._table.version == self._version:
            return False
        old = self._clock.monotonic() - self._tallied_at
        return self._table.size <= _ON_THE_SPOT or old >= STALE_SECONDS

    def _columns(self) -> Columns:
        """What is counted by is copied, what is only looked up may still change meanwhile."""
        columns, size = self._table.columns, self._table.size
        return Columns(
            status=columns.status[:size].copy(),
            gpu=columns.gpu[:size].copy(),
            price=columns.price[:size],
            wallet=columns.wallet_a[:size],
            succeeded=columns.succeeded[:size],
        )

    def _count_here(self) -> None:
        self._version, self._tallied_at = self._table.version, self._clock.monotonic()
        self._tally = self._timed(self._columns(), self._table.gpus.labels)

    def _refresh(self) -> asyncio.Task[None]:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._count_beside(), name="statistics")
        return self._running

    async def _count_beside(self) -> None:
        version, started = self._table.version, self._clock.monotonic()
        columns, labels = self._columns(), self._table.gpus.labels
        self._tally = await asyncio.to_thread(self._timed, columns, labels)
        self._version, self._tallied_at = version, started

    def _timed(self, columns: Columns, labels: Sequence[str]) -> Tally:
        started = perf_counter()
        made = tally(columns, labels)
        self.seconds.observe(perf_counter() - started)
        return made

    def _made(self) -> MarketStats:
        jobs, counted = self._totals(), self._tally
        total, offline = sum(counted.by_status), counted.of(NodeStatus.OFFLINE)
        return MarketStats.model_construct(
            time=int(self._clock.now()),
            nodes_total=total,
            nodes_online=total - offline,
            nodes_idle=counted.of(NodeStatus.IDLE),
            nodes_busy=counted.of(NodeStatus.BUSY),
            nodes_draining=counted.of(NodeStatus.DRAINING),
            gpus=counted.gpus,
            jobs_total=sum(jobs.by_state.values()),
            jobs={state: count for state, count in sorted(jobs.by_state.items()) if count},
            jobs_ended=jobs.ended,
            jobs_completed=jobs.by_state.get(JobState.SUCCEEDED, 0),
            mean_job_ms=jobs.metered_ms // jobs.ended if jobs.ended else 0,
            paid=max(0, jobs.paid),
            jobs_paid=jobs.settled,
            payment_success_permille=1000 * jobs.settled // jobs.ended if jobs.ended else None,
            brake=self._brake(),
            stale_seconds=int(self._stale()),
        )
