"""The live feed: takes changes as they happen, and hands them on four times a second."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from computeswarm.core.changes import PriceChanged, Topic
from computeswarm.core.clock import Clock
from computeswarm.core.jobs import MarketJob
from computeswarm.core.query import Query
from computeswarm.market.live.nodes import Nodes, Slots
from computeswarm.market.live.readers import Readers
from computeswarm.market.live.resuming import Cursors, History
from computeswarm.market.live.ring import Batch, Ring
from computeswarm.market.live.subscription import Held, Interest, Subscription, event, mark, reset
from computeswarm.market.live.telling import Teller
from computeswarm.market.live.views import View
from computeswarm.market.stores.protocol import Position

BATCH_SECONDS = 0.25
STATS_SECONDS = 2.0
_AT_ONCE = 32
_OLD = "The market can't tell any more what changed since then."

_log = logging.getLogger(__name__)


class LiveFeed:
    """Everything that changes, to everybody who listens.

    The calls that tell of a change cost about a microsecond and never wait. A node's changes within
    ``BATCH_SECONDS`` become one, which says how the node stands when the batch goes out.

    Args:
        nodes: the nodes in memory.
        clock: for what nodes' documents say.
        stats: JSON of ``core.stats.MarketStats`` now; asked for while somebody listens to it.
        history: the shared store's log; None where this process is the only one.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        clock: Clock,
        stats: Callable[[], bytes],
        history: History | None = None,
        ring: Ring | None = None,
        readers: Readers | None = None,
    ) -> None:
        self._nodes, self._clock, self._stats = nodes, clock, stats
        self._ring = Ring() if ring is None else ring
        self._readers = Readers() if readers is None else readers
        self._cursors = Cursors(nodes, clock, self._ring, history, secrets.token_hex(4))
        self._last = Batch(0)
        self._batch = Batch(1)
        self._resets = 0
        self._held = Held()
        self._figures, self._figures_at = b"", float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._readers)

    @property
    def dropped(self) -> int:
        """How many were turned away for want of room."""
        return self._readers.turned_away

    @property
    def resets(self) -> int:
        """How often a reader had to load anew."""
        return self._resets + sum(one.resets for one in self._readers)

    def start(self, position: Position | None = None) -> None:
        """Begin to hand on; ``position`` is the shared log's end when the nodes were loaded."""
        self._cursors.position = position or Position("")
        self._tasks = [
            asyncio.create_task(self._regularly(BATCH_SECONDS, self.flush), name="live-batches"),
            asyncio.create_task(
                self._regularly(STATS_SECONDS, self._tell_stats), name="live-stats"
            ),
        ]

    async def close(self) -> None:
        """End all streams, so that their readers go on elsewhere."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in self._readers:
            one.close()

    # what happens

    def node_changed(self, slot: int, what: str, *, old_price: int | None = None) -> None:
        """Something happened to a node.

        Args:
            what: ``registered``; ``left`` or ``revoked``, told while the slot still has its id;
                anything else for how the node goes.
            old_price: what it asked before, where it is a known one that registers.
        """
        batch = self._batch
        if what == "registered":
            batch.full.add(slot)
            if old_price is not None:
                self._price_changed(slot, old_price)
        elif what in ("left", "revoked"):
            batch.full.discard(slot)
            batch.hot.discard(slot)
            batch.left.add(self._nodes.node_id(slot))
        elif slot in batch.hot:
            batch.full.add(slot)  # it may have gone out of view and come back
        else:
            batch.hot.add(slot)

    def nodes_changed(self, slots: Slots) -> None:
        """How these nodes go has changed."""
        new = set(slots.tolist())
        batch = self._batch
        batch.full |= batch.hot & new
        batch.hot |= new

    def job_changed(self, job: MarketJob) -> None:
        """A job was submitted, or goes on."""
        self._batch.jobs[job.job_id] = job

    def reached(self, position: Position) -> None:
        """All up to here in the shared log was applied, and told by the calls above."""
        self._batch.positions.append(position)

    def start_over(self) -> None:
        """Changes went by unseen: whoever listens loads anew, and old cursors are worth nothing."""
        lost = self._batch
        self._last = Batch(lost.number)
        self._batch = Batch(lost.number + 1, positions=lost.positions)
        self._ring.clear(lost.number)
        cursor = self._cursors.after(self._last)
        for one in self._readers:
            one.cursor = cursor
            one.reset(_OLD)

    def _price_changed(self, slot: int, before: int) -> None:
        model, price = self._nodes.price(slot)
        node_id = self._nodes.node_id(slot)
        told = self._batch.prices.get(node_id)
        if price != before:
            self._batch.prices[node_id] = PriceChanged(
                node_id=node_id,
                model=model,
                before=told.before if told else before,
                price_per_hour=price,
                at=int(self._clock.now()),
            )

    # who listens

    async def subscribe(
        self,
        topics: Iterable[Topic],
        query: Query | None = None,
        *,
        since: str = "",
        wallet: str = "",
        address: str = "",
    ) -> Subscription:
        """Listen from now on, or from a cursor on; ``unsubscribe`` must follow.

        Args:
            query: only nodes that a search for it would find; None for all, offline ones too.
            wallet: whose jobs, where jobs are among the topics; its permit was checked.
            address: whom this counts for.

        Raises:
            TooManyRequests: too many listen, overall or from this address.
            Unavailable: what was missed can't be looked up now.
        """
        self._readers.check_room(address)
        interest = Interest(frozenset(topics), query, wallet.lower())
        cursor = self._cursors.after(self._last)
        made = Subscription(interest, address, cursor, self._held)
        self._readers.add(made)
        try:
            missed = await self._cursors.missed(since) if since else Batch(0)
            made.resets += missed is None
            made.begin(self._opening(interest, missed, mark(cursor)))
        except BaseException:
            self.unsubscribe(made)
            raise
        if Topic.STATS in interest.topics:
            made.put(self._stats_event())
        if self._closing:
            made.close()
        return made

    def unsubscribe(self, one: Subscription) -> None:
        """Forget a reader; harmless where that was done."""
        if self._readers.remove(one):
            self._resets += one.resets
            one.end()

    async def _opening(
        self, interest: Interest, missed: Batch | None, begin: bytes
    ) -> AsyncIterator[bytes]:
        if missed is None:
            yield reset(_OLD) + begin
            return
        view = None if interest.query is None else View(interest.query, remembers=False)
        teller = Teller(self._nodes, missed, self._clock.now())
        async for told in teller.told_once(interest.topics, view):
            if told:
                yield told
        yield teller.jobs_of(interest.wallet) + begin

    # what they are told

    async def flush(self) -> None:
        """Hand on what has gathered."""
        batch = self._batch
        if not len(batch) and not batch.positions:
            return
        batch.at = self._clock.now()
        self._batch, self._last = Batch(batch.number + 1), batch
        self._ring.add(batch)
        cursor = self._cursors.after(batch)
        if not len(self._readers):
            return
        teller, end = Teller(self._nodes, batch, batch.at), mark(cursor)
        jobs = {
            reader: told
            for wallet, readers in self._readers.wallets().items()
            if (told := teller.jobs_of(wallet))
            for reader in readers
        }
        # those who come while this goes on have missed it, and are told by ``subscribe``
        groups = [(group, tuple(group.members)) for group in self._readers.groups()]
        for group, members in groups:
            told = await teller.told(group.topics, group.view)
            shared = told + end
            async for reader in _in_turns(members):
                reader.cursor = cursor
                if own := jobs.get(reader):
                    reader.put(told + own + end)
                elif told:
                    reader.put(shared)

    async def _tell_stats(self) -> None:
        groups = [group for group in self._readers.groups() if Topic.STATS in group.topics]
        if groups:
            told = self._stats_event()
            members = [reader for group in groups for reader in group.members]
            async for reader in _in_turns(members):
                reader.put(told)

    def _stats_event(self) -> bytes:
        """The figures, made once for all who come within the same second or two."""
        now = time.monotonic()
        if now - self._figures_at >= STATS_SECONDS / 2:
            self._figures_at = now
            self._figures = event("stats", b'{"type":"stats","stats":%b}' % self._stats())
        return self._figures

    async def _regularly(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                _log.exception("live")  # what is wrong with one batch need not be with the next


async def _in_turns(readers: Sequence[Subscription]) -> AsyncIterator[Subscription]:
    """All of them, a few at a time: what was put is written in the next turn of the loop, and a
    thousand writes in one turn would keep everybody else waiting."""
    for place, reader in enumerate(readers, 1):
        yield reader
        if place % _AT_ONCE == 0:
            await asyncio.sleep(0)
