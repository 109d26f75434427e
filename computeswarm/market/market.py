"""The market: who is listed, who is alive, which jobs were made; a thin front over its rooms.

Nodes live in a table in memory, which the store can always rebuild. What must not be lost is in the
store before it is answered; signs of life are checked and kept in memory and written behind.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from computeswarm.core.chains import BASE_SEPOLIA, ChainInfo
from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.errors import Unauthorized
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission, JobUpdate, MarketJob
from computeswarm.core.logs import get_logger
from computeswarm.core.nodes import ComputeNode, Registration
from computeswarm.core.query import parse
from computeswarm.core.sessions import Enrolment
from computeswarm.core.signing import Signed, parse_json
from computeswarm.core.stats import MarketStats
from computeswarm.market.forgetting import Forgetting
from computeswarm.market.health import Journal, market_health
from computeswarm.market.heartbeats import read_heartbeat
from computeswarm.market.identity import (
    Call,
)
from computeswarm.market.index import MAX_PAGE, Page, Search, matching
from computeswarm.market.jobs import JobBook
from computeswarm.market.leases import HEARTBEAT_SECONDS, OFFLINE, Leases
from computeswarm.market.limits import DEFAULTS, Kind, Limit, Limits, wallet_key
from computeswarm.market.live import LiveFeed, TableNodes
from computeswarm.market.manifest import Shelf, Wanted
from computeswarm.market.prices import Prices
from computeswarm.market.registry import Registry
from computeswarm.market.replica import Replica
from computeswarm.market.stats import Statistics
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store
from computeswarm.market.table import NodeTable

TICK_SECONDS = 0.5
STALE_SECONDS = 2.0
"""A replica is behind by a moment all the time; that is nothing to tell anybody of."""
_log = get_logger("market")


class Market:
    """One instance of a market on one chain. ``start`` and ``close`` frame its use.

    Args:
        names: the market's addresses as ``core.urls.server_name`` spells them; sessions signed for
            others are refused, where any are given.
        limits: what one client may ask; those of wallets are charged here, where a wallet's
            signature was checked, so that nobody can use up another's.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        chain: ChainInfo = BASE_SEPOLIA,
        names: Iterable[str] = (),
        limits: Mapping[Kind, Limit] = DEFAULTS,
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
    ) -> None:
        self.chain, self.clock, self.store = chain, clock, store
        self.names = frozenset(names)
        self.limits = Limits(clock, limits, store=store)
        self.loaded = False
        self.closing = False
        self.started_at = clock.now()
        self.heartbeats = 0
        self.table = NodeTable()
        self.search = Search(self.table)
        self.leases = Leases(self.table, base_seconds=heartbeat_seconds)
        self.statistics = Statistics(
            self.table,
            clock=clock,
            totals=lambda: self.jobs.totals,
            brake=lambda: self.leases.braked,
            stale=lambda: self.stale_seconds,
        )
        self.shelf = Shelf(self.table, chain, clock)
        self.prices = Prices(store, self.statistics, clock=clock)
        self.live = LiveFeed(
            TableNodes(self.table, matching),
            clock=clock,
            stats=lambda: self.statistics.recent().model_dump_json().encode(),
            history=store.changes if store.shared else None,
        )
        self.jobs = JobBook(store, changed=self.live.job_changed)
        self.replica = Replica(store, self.table, audience=self.live, book=self.jobs, clock=clock)
        self.registry = Registry(
            store,
            self.table,
            self.leases,
            self.replica,
            self.limits,
            clock=clock,
            chain=chain,
            names=self.names,
        )
        self.forgetting = Forgetting(store, self.replica, clock=clock)
        self.troubles = Journal()
        self._dirty: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store, load what it holds, and begin to follow it.

        Raises:
            ConfigError: no such store, or no right to use it.
            Unavailable: it can't be reached.
        """
        await self.store.open()
        try:
            with _collector_off():
                await self.replica.load()
            await self.jobs.open()
        except BaseException:
            await self.store.close()
            raise
        self.leases.begin(self.clock.now())
        self.search.start(self.clock.now)
        await self.search.warm()
        self.live.start(self.replica.position if self.store.shared else None)
        self.prices.start()
        self.limits.start()
        self.forgetting.start()
        self._tasks.append(asyncio.create_task(self._tick_forever(), name="market-tick"))
        if self.store.shared:
            self._tasks.append(asyncio.create_task(self.replica.follow(), name="market-replica"))
        self.loaded = True
        _log.info("market_loaded", nodes=self.table.live(), store=self.store.kind)

    async def close(self) -> None:
        """Write everything out."""
        self.closing = True
        await self.live.close()
        await self.prices.close()
        await self.limits.close()
        await self.forgetting.close()
        await self.statistics.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._write_behind()
        await self.search.close()
        await self.store.close()
        _log.info("market_closed")

    @property
    def refused_calls(self) -> int:
        """Calls under a session that were not taken, since the start."""
        return self.registry.refused

    @property
    def stale_seconds(self) -> float:
        """How old what is read here may be, where the database does not answer; else 0."""
        lag = self.replica.lag_seconds
        return lag if lag > STALE_SECONDS else 0.0

    # nodes

    async def register(self, enrolment: Enrolment, *, address: str = "") -> Registration:
        """List a node, or list it anew; see ``Registry.register``."""
        return await self.registry.register(enrolment, address=address)

    async def unregister(self, node_id: str, call: Call) -> None:
        """Take a node off the list; see ``Registry.unregister``."""
        await self.registry.unregister(node_id, call)

    async def revoke(self, node_id: str, signed: Signed) -> None:
        """Take a node off the list by its wallet's word; see ``Registry.revoke``."""
        await self.registry.revoke(node_id, signed)

    async def heartbeat(self, node_id: str, call: Call) -> bytes:
        """Renew a lease; returns the reply's JSON. Does not wait for anything while all is well.

        Raises:
            NodeNotFound, NodeRevoked, Unauthorized: see ``Registry.caller``.
            BadRequest: not a heartbeat.
            Unavailable: nothing is known of this session, and the database can't be asked.
        """
        now = self.clock.now()
        slot, counter = await self.registry.caller(node_id, call, now)
        status, queued, running = read_heartbeat(call.body)
        reply, lease = self.leases.pace.told(slot, counter)
        table = self.table
        was = table.hot.status[slot]
        if table.beat(
            slot,
            counter=counter,
            now=now,
            lease_until=now + lease,
            status=status,
            queued=queued,
            running=running,
        ):
            self.live.node_changed(slot, "online" if was == OFFLINE else "status")
        self.heartbeats += 1
        self._dirty.add(slot)
        return reply

    def node(self, node_id: str) -> ComputeNode:
        """One node.

        Raises:
            NodeNotFound: never registered, or gone.
        """
        self.look()
        return self.table.listed(self.registry.listed(node_id), self.clock.now())

    # search

    def cached_page(self, key: Hashable) -> Page | None:
        """A page made before under ``key``, if it still holds."""
        self.look()
        return self.search.cached(key, self.clock.now())

    async def page(self, key: Hashable, query: str, *, sort: str, cursor: str, limit: int) -> Page:
        """A page of nodes, kept under ``key``.

        Raises:
            InvalidQuery: see ``core.query``.
            BadRequest: a wrong cursor.
        """
        self.look()
        wanted, most = parse(query, sort=sort), max(1, min(limit, MAX_PAGE))
        now = self.clock.now()
        return await self.search.page(key, wanted, now=now, cursor=cursor, limit=most)

    async def facets(self, query: str) -> bytes:
        """How many nodes there are by what a search can ask for: JSON of ``core.pages.Facets``.

        Raises:
            InvalidQuery: see ``core.query``.
        """
        self.look()
        return await self.search.facets(parse(query), now=self.clock.now())

    # jobs

    async def submit(self, signed: Signed) -> tuple[MarketJob, bool]:
        """Keep a job's metadata; the flag says whether it is new.

        Raises:
            BadRequest, Unauthorized: not a submission, or not signed by its buyer.
            NodeNotFound: for a node that is not listed.
            Conflict: another job has the id.
            TooManyRequests: the buyer submits too often.
        """
        wallet = str(signed.document.get("buyer", ""))
        submission = signed.open(SUBMISSION_KIND, JobSubmission, wallet=wallet)
        self.limits.take(Kind.SUBMIT, wallet_key(submission.buyer), whose="wallet")
        if self.table.slot(submission.node_id) is None:
            await self.replica.ask(submission.node_id)
        seller = self.table.wallet(self.registry.listed(submission.node_id))
        return await self.jobs.submit(signed, submission, seller, int(self.clock.now()))

    async def update_job(self, job_id: str, call: Call) -> MarketJob:
        """What the job's seller says of it; raises as ``heartbeat`` and ``JobBook.update`` do."""
        job = await self.jobs.get(job_id)
        if job.node_id != call.node:
            raise Unauthorized("Only the seller of this job may say how it goes.")
        slot, counter = await self.registry.caller(call.node, call, self.clock.now())
        update = parse_json(JobUpdate, call.body)
        key = self.table.session_key(slot)
        job, good, bad = await self.jobs.update(
            job_id,
            update,
            node_id=call.node,
            session_key=key,
            counter=counter,
            now=int(self.clock.now()),
        )
        hot = self.table.hot
        if self.table.session_key(slot) == key:
            hot.counter[slot] = max(counter, hot.counter[slot])
        if not self.store.shared and (good or bad):  # else the log brings the sums
            self.table.set_counts(slot, hot.succeeded[slot] + good, hot.failed[slot] + bad)
            self.live.node_changed(slot, "counts")
        return job

    async def stats(self) -> MarketStats:
        """Statistics over nodes and jobs, at most a second old."""
        self.look()
        await self.jobs.refresh()
        return await self.statistics.get()

    # x402

    async def manifest(self) -> bytes:
        """``/x402.json``, see ``market.manifest``; of a large market two seconds old at most."""
        self.look()
        return await self.shelf.manifest()

    async def resources(self, wanted: Wanted, *, limit: int, offset: int) -> bytes:
        """``/discovery/resources``, see ``market.manifest``."""
        self.look()
        return await self.shelf.resources(wanted, limit=limit, offset=offset)

    # inside

    def look(self) -> None:
        """Take those offline whose lease is over, at most once a second."""
        now = self.clock.now()
        if self.leases.due(now):
            gone = self.leases.look(now, blind=self.replica.blind)
            if len(gone):
                self.live.nodes_changed(gone)

    def _write_behind(self) -> None:
        if self._dirty:
            slots, self._dirty = self._dirty, set()
            self.store.touch(self.table.lease_rows(np.fromiter(slots, np.int64, len(slots))))

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._write_behind()
                self.look()
                self.troubles.note(market_health(self), self.clock.now())
            except Exception as error:  # leases have to go on whatever became of this one
                _log.error("market_tick", exc=error)


@contextmanager
def _collector_off() -> Iterator[None]:
    """A million new objects that all stay are no place to look for garbage again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def open_market(
    where: Path | str,
    *,
    clock: Clock | None = None,
    chain: ChainInfo = BASE_SEPOLIA,
    names: Iterable[str] = (),
    limits: Mapping[Kind, Limit] = DEFAULTS,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> Market:
    """A market on a SQLite file, made if missing, or on PostgreSQL (``postgresql://…``).

    Nothing is touched before ``start``.

    Raises:
        ConfigError: no such kind of database.
    """
    return Market(
        open_store(where),
        clock=clock or SystemClock(),
        chain=chain,
        names=names,
        limits=limits,
        heartbeat_seconds=heartbeat_seconds,
    )
