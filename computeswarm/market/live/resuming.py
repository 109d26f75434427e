"""Cursors: what they look like, and what a reader who comes back with one has missed.

Where a process is alone, a cursor is its own epoch and a batch's number. On a shared store it is a
place in the store's log and when that was, so that any instance can go on where another one was
killed: from its own ring if it was at that place itself, else from the log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from computeswarm.core.clock import Clock
from computeswarm.market.live.nodes import Nodes
from computeswarm.market.live.ring import Batch, Ring
from computeswarm.market.stores.protocol import Change, Kind, Position

History = Callable[[Position, int], Awaitable[Sequence[Change] | None]]
"""``Store.changes``."""

MAX_MISSED = 20_000
"""Things; where more changed, a search is the shorter way to know how they stand."""
LOG_SECONDS = 240.0
"""For so long the log surely holds everything."""
_SKEW_SECONDS = 5.0
"""By so much two instances may differ in when they saw a lease run out."""
_READ, _READS = 1_000, 20
_READERS_AT_ONCE = 4
_PLACE = re.compile(r"([0-9]{1,20})\.([0-9]{1,12})\Z", re.ASCII)
_EPOCH = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})\Z", re.ASCII)


class Cursors:
    """The way from a batch to its cursor and back.

    Args:
        history: the shared log; None where there is none.
        epoch: differs from process to process.
    """

    def __init__(
        self, nodes: Nodes, clock: Clock, ring: Ring, history: History | None, epoch: str
    ) -> None:
        self.position = Position("")
        self._number = 0
        self._nodes, self._clock, self._ring = nodes, clock, ring
        self._history, self._epoch = history, epoch
        self._at_once = asyncio.Semaphore(_READERS_AT_ONCE)

    def after(self, batch: Batch) -> str:
        """The cursor of one who was told of this batch, the latest one."""
        self._number = batch.number
        if self._history is None:
            return f"{self._epoch}-{batch.number}"
        if batch.positions:
            self.position = batch.positions[-1]
        return f"{self.position}.{int(self._clock.now())}"

    async def missed(self, cursor: str) -> Batch | None:
        """What a reader with this cursor was not told of; None where nobody knows.

        Raises:
            Unavailable: the log can't be read now.
        """
        if self._history is None:
            return self._from_epoch(cursor)
        place = _PLACE.match(cursor)
        if place is None:
            return None
        position, age = Position(place[1]), max(0.0, self._clock.now() - int(place[2]))
        number = self._ring.number_of(position)
        if number is not None:
            # the batch that reached it may have gone on behind it
            batches = self._ring.after(number - 1)
            found = None if batches is None else _merged(batches)
        elif position == self.position:
            found = Batch(0)
        else:
            found = None if age > LOG_SECONDS else await self._from_log(self._history, position)
        return None if found is None else self._with_lapsed(found, age + _SKEW_SECONDS)

    def _from_epoch(self, cursor: str) -> Batch | None:
        place = _EPOCH.match(cursor)
        if place is None or place[1] != self._epoch or int(place[2]) > self._number:
            return None
        batches = self._ring.after(int(place[2]))
        return None if batches is None else _bounded(_merged(batches))

    async def _from_log(self, history: History, position: Position) -> Batch | None:
        found, after = Batch(0), position
        async with self._at_once:
            for _ in range(_READS):
                changes = await history(after, _READ)
                if changes is None:
                    return None
                for change in changes:
                    self._take(found, change)
                if _bounded(found) is None:
                    return None
                if len(changes) < _READ:
                    return found
                after = changes[-1].position
        return None

    def _take(self, found: Batch, change: Change) -> None:
        if change.kind is Kind.JOB and change.job is not None:
            found.jobs[change.job.job_id] = change.job
        elif change.kind is Kind.LEASES and change.leases is not None:
            found.hot.update(self._nodes.slots_of(change.leases["number"]).tolist())
        elif change.kind is Kind.NODE:
            slot = self._nodes.slot(change.key)
            if slot is None or self._nodes.gone(slot):
                found.left.add(change.key)
            else:
                found.full.add(slot)

    def _with_lapsed(self, found: Batch, seconds: float) -> Batch | None:
        """With the nodes whose lease ran out since: each instance sees that for itself."""
        now = self._clock.now()
        found.hot.update(self._nodes.lapsed(now - seconds, now).tolist())
        return _bounded(found)


def _merged(batches: Sequence[Batch]) -> Batch:
    found = Batch(0)
    for batch in batches:
        found.add(batch)
    return found


def _bounded(found: Batch) -> Batch | None:
    return found if len(found) <= MAX_MISSED else None
