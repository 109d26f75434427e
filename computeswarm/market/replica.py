"""The copy of a shared store in memory: loaded once, then kept in step by the change log.

Everything another instance has written arrives here, and so does everything of our own a second
time; each is applied so that what is known already, or known better, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError, Unavailable
from computeswarm.core.jobs import MarketJob
from computeswarm.core.logs import get_logger
from computeswarm.market.columns import Array
from computeswarm.market.rows import NodeRow
from computeswarm.market.stores.protocol import Change, Kind, Leases, Position, Store
from computeswarm.market.table import NodeTable

CHANGES = 1_000
"""Read at a time."""
WAIT_SECONDS = 0.25
"""Between looks at the log where nothing wakes us: a missed notice costs that much."""
RETRY_SECONDS = 0.5
STEP_SECONDS = 0.005
"""After so long a batch of changes lets requests have their turn."""
ASKED_PER_SECOND = 100
"""Nodes that the store is asked for on the word of a stranger."""
BLIND_SECONDS = 5.0
"""So long out of step, and leases that were renewed elsewhere can no longer be told from others."""
_log = get_logger("market")


class Audience(Protocol):
    """Who is told what changed in the table, see ``market.live``."""

    def node_changed(self, slot: int, what: str, *, old_price: int | None = None) -> None: ...

    def nodes_changed(self, slots: Array) -> None: ...

    def reached(self, position: Position) -> None:
        """All up to here in the shared log was applied and told."""
        ...

    def start_over(self) -> None:
        """Changes were missed: whoever follows must read everything anew."""
        ...


class Book(Protocol):
    """Who is told of jobs, see ``market.jobs``."""

    def changed_elsewhere(self, job: MarketJob) -> None: ...


class Replica:
    """Keeps a table in step with a store."""

    def __init__(
        self, store: Store, table: NodeTable, *, audience: Audience, book: Book, clock: Clock
    ) -> None:
        self.position: Position | None = None
        self.reloads = 0
        """How often the log did not reach back far enough."""
        self._store = store
        self._table = table
        self._audience = audience
        self._book = book
        self._clock = clock
        self._in_step = self._moved = clock.monotonic()
        self._blind_until = 0.0
        self._second = 0.0
        self._asked = 0
        self._reading: dict[str, asyncio.Task[None]] = {}

    @property
    def lag_seconds(self) -> float:
        """How old what we know may be: since when the log's end was last reached; 0 with a store
        that is ours alone."""
        return self._clock.monotonic() - self._in_step if self._store.shared else 0.0

    @property
    def position_age_seconds(self) -> float:
        """Since when nothing has come by the log."""
        return self._clock.monotonic() - self._moved

    @property
    def blind(self) -> bool:
        """Whether others' heartbeats may be missing: they, too, have to come back first."""
        return self.lag_seconds > BLIND_SECONDS or self._clock.monotonic() < self._blind_until

    async def load(self) -> None:
        """Read every node.

        Raises:
            Unavailable: the store does not answer.
        """
        position, first = await self._store.position(), not self._table.size
        async for columns in self._store.load_nodes():
            if first:
                self._table.put_columns(columns)
            else:
                for row in columns.rows():
                    self.take(row)
                self._renew(columns.leases)
                await asyncio.sleep(0)
        self._reached(position)
        if self._store.shared:
            while await self._catch_up():  # what came while we read
                pass

    async def follow(self) -> None:
        """Apply changes as they come, for ever; an absent store is waited for.

        After an error that nobody foresaw everything is read anew, since who knows where it came.
        """
        sound = True
        while True:
            try:
                if not sound:
                    await self._reload()
                    sound = True
                elif not await self._catch_up():
                    await self._store.wait(WAIT_SECONDS)
            except ComputeSwarmError:
                await asyncio.sleep(RETRY_SECONDS)  # ``lag_seconds`` tells of it
            except Exception as error:
                _log.error("replica_failed", exc=error)
                sound = False
                await asyncio.sleep(RETRY_SECONDS)

    async def ask(self, node_id: str) -> None:
        """Read one node, which may have been registered elsewhere a moment ago.

        Once for all who ask at the same time, and at most ``ASKED_PER_SECOND`` altogether, so that
        a flood of bad calls does not become one of queries.

        Raises:
            Unavailable: the store does not answer or is asked too much, so nobody knows.
        """
        if not self._store.shared:
            return
        task = self._reading.get(node_id)
        if task is None:
            now = self._clock.monotonic()
            if now - self._second >= 1:
                self._second, self._asked = now, 0
            if self._asked >= ASKED_PER_SECOND:
                raise Unavailable("Too many unknown sessions at once; try again.", retry_after=1)
            self._asked += 1
            task = self._reading[node_id] = asyncio.create_task(self._read(node_id))
        await asyncio.shield(task)

    async def _read(self, node_id: str) -> None:
        try:
            row = await self._store.node(node_id)
        finally:
            del self._reading[node_id]  # whoever asks from now on wants to know what is then
        if row is not None:
            self.take(row)

    async def _catch_up(self) -> bool:
        """Read the log on; True where there may be more."""
        assert self.position is not None
        asked_at = self._clock.monotonic()
        found = await self._store.changes(self.position, CHANGES)
        if found is None:
            _log.warning("change_log_pruned", position=self.position)
            await self._reload()
            return True
        await self._apply(found)
        if len(found) >= CHANGES:
            return True
        if asked_at - self._in_step > BLIND_SECONDS:
            self._blind_until = asked_at + BLIND_SECONDS
        self._in_step = asked_at
        return False

    async def _reload(self) -> None:
        self.reloads += 1
        await self.load()
        self._audience.start_over()

    async def _apply(self, found: Sequence[Change]) -> None:
        pause_at = perf_counter() + STEP_SECONDS
        for change in found:
            if perf_counter() > pause_at:
                await asyncio.sleep(0)
                pause_at = perf_counter() + STEP_SECONDS
            others = change.instance != self._store.instance
            if change.kind is Kind.NODE:
                if change.row is not None:
                    self.take(change.row)
                else:
                    self.drop(change.key)
            elif change.kind is Kind.LEASES and change.leases is not None and others:
                self._renew(change.leases)
            elif change.kind is Kind.JOB and change.job is not None and others:
                self._book.changed_elsewhere(change.job)
            self._reached(change.position)
            self._audience.reached(change.position)

    def _reached(self, position: Position) -> None:
        self.position = position
        self._moved = self._clock.monotonic()

    def take(self, row: NodeRow) -> int:
        """Take over a node as the store had it when it was read, which may be a while ago.

        Returns its slot. What is known already, or known better, changes nothing.
        """
        table = self._table
        slot, old_price = table.slot(row.node_id), None
        if slot is not None:
            gone = table.gone(slot)
            ours = (table.hot.seq[slot], gone, not table.session_key(slot))
            theirs = (row.seq, row.gone, not row.session_key)
            if theirs <= ours:
                counts = table.hot.succeeded[slot], table.hot.failed[slot]
                if theirs == ours and counts != (row.succeeded, row.failed):
                    table.set_counts(slot, row.succeeded, row.failed)
                    self._audience.node_changed(slot, "counts")
                return slot
            old_price = None if gone else table.hot.price[slot]
        slot = table.put(row)
        what = "registered" if not row.gone else "left" if row.session_key else "revoked"
        self._audience.node_changed(slot, what, old_price=old_price)
        return slot

    def take_off(self, slot: int, *, revoked: int | None = None) -> None:
        """A node left, or was revoked up to that ``seq``, and the store knows it."""
        row = self._table.row(slot)
        if revoked is not None:
            row = replace(row, seq=revoked, session_key=b"")
        self.take(replace(row, gone=True))

    def drop(self, node_id: str) -> None:
        """The store has forgotten a node."""
        slot = self._table.slot(node_id)
        if slot is not None:
            if not self._table.gone(slot):
                self._audience.node_changed(slot, "left")
            self._table.remove(slot)

    def _renew(self, leases: Leases) -> None:
        table = self._table
        slots = table.slots_of(leases["number"])
        slots = slots[slots >= 0]
        columns = table.columns
        before = columns.status[slots], columns.queued[slots], columns.running[slots]
        table.apply(leases)
        after = columns.status[slots], columns.queued[slots], columns.running[slots]
        changed = (before[0] != after[0]) | (before[1] != after[1]) | (before[2] != after[2])
        if changed.any():
            self._audience.nodes_changed(slots[changed])
