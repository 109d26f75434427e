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
from computeswarm.core.errors import Conflict, NodeNotFound, NodeRevoked, Unauthorized
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission, JobUpdate, MarketJob
from computeswarm.core.logs import get_logger
from computeswarm.core.nodes import ComputeNode, Registration
from computeswarm.core.query import parse
from computeswarm.core.sessions import Enrolment, answer_session
from computeswarm.core.signing import Signed, parse_json
from computeswarm.core.stats import MarketStats
from computeswarm.market.facts import pack
from computeswarm.market.heartbeats import read_heartbeat
from computeswarm.market.identity import (
    Call,
    Enrolled,
    check_call,
    check_enrolment,
    check_revocable,
    check_revocation,
    check_successor,
)
from computeswarm.market.index import MAX_PAGE, Page, Search, matching
from computeswarm.market.jobs import JobBook
from computeswarm.market.leases import HEARTBEAT_SECONDS, OFFLINE, Leases
from computeswarm.market.limits import DEFAULTS, Kind, Limit, Limits, wallet_key
from computeswarm.market.live import LiveFeed, TableNodes
from computeswarm.market.manifest import Shelf, Wanted
from computeswarm.market.prices import Prices
from computeswarm.market.replica import Replica
from computeswarm.market.rows import Lease, NodeRow
from computeswarm.market.stats import Statistics
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store
from computeswarm.market.table import NodeTable

TICK_SECONDS = 0.5
STALE_SECONDS = 2.0
"""A replica is behind by a moment all the time; that is nothing to tell anybody of."""
_REFUSALS = (NodeNotFound, NodeRevoked, Unauthorized)
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
        self.refused_calls = 0
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
        await self.statistics.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._write_behind()
        await self.search.close()
        await self.store.close()

    @property
    def stale_seconds(self) -> float:
        """How old what is read here may be, where the database does not answer; else 0."""
        lag = self.replica.lag_seconds
        return lag if lag > STALE_SECONDS else 0.0

    # nodes

    async def register(self, enrolment: Enrolment) -> Registration:
        """List a node, or list it anew: a new session, the counter at 0.

        Raises:
            BadRequest, Unauthorized, Unprocessable, TooLarge: see ``identity.check_enrolment``.
            Conflict, NodeRevoked: see ``identity.check_successor``.
            TooManyRequests: the wallet registers too often.
            Unavailable, StorageFull: it was not kept, or nobody knows.
        """
        now = self.clock.now()
        enrolled = check_enrolment(enrolment, chain=self.chain, names=self.names, now=now)
        self.limits.take(Kind.REGISTER, wallet_key(enrolled.record.wallet), whose="wallet")
        slot = self._succeeds(enrolled)  # what memory knows is true, if not always all of it
        market_key, mac_key = answer_session(enrolled.session)
        try:
            row = await self.store.save_node(self._row(enrolled, mac_key, slot, now))
        except Conflict:
            await self.replica.ask(enrolled.record.node_id)
            self._succeeds(enrolled)  # says why, where the node was revoked elsewhere
            raise
        slot = self.replica.take(row)
        if self.table.session_key(slot) != mac_key or self.table.gone(slot):
            self._succeeds(enrolled)  # a later one overtook us, or the node is off again
        return Registration(
            node=self.table.listed(slot, now),
            market_key=market_key,
            heartbeat_seconds=self.leases.interval_seconds,
            lease_seconds=self.leases.lease_seconds,
        )

    async def heartbeat(self, node_id: str, call: Call) -> bytes:
        """Renew a lease; returns the reply's JSON. Does not wait for anything while all is well.

        Raises:
            NodeNotFound, NodeRevoked, Unauthorized: see ``_caller``.
            BadRequest: not a heartbeat.
            Unavailable: nothing is known of this session, and the database can't be asked.
        """
        now = self.clock.now()
        slot, counter = await self._caller(node_id, call, now)
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

    async def unregister(self, node_id: str, call: Call) -> None:
        """Take a node off the list; raises as ``heartbeat`` does."""
        slot, counter = await self._caller(node_id, call, self.clock.now())
        key = self.table.session_key(slot)
        if not await self.store.remove_node(node_id, session_key=key, counter=counter):
            self.refused_calls += 1
            raise Unauthorized("The session is over or the call was seen before; register again.")
        if self.table.session_key(slot) == key:
            self.replica.take_off(slot)

    async def revoke(self, node_id: str, signed: Signed) -> None:
        """Take a node off the list by its wallet's word, and end its session wherever it is known.

        Raises:
            BadRequest, Unauthorized, Unprocessable: see ``identity.check_revocation``.
            NodeNotFound: never registered.
            Conflict: the node has a newer record.
            TooManyRequests: the wallet registers and revokes too often.
        """
        revocation = check_revocation(signed, node_id, chain=self.chain, now=self.clock.now())
        self.limits.take(Kind.REGISTER, wallet_key(revocation.wallet), whose="wallet")
        if self.table.slot(node_id) is None:
            await self.replica.ask(node_id)
        slot = self.table.slot(node_id)
        if slot is None:
            raise NodeNotFound("The market knows no such node.")
        seq = self.table.hot.seq[slot]
        check_revocable(revocation, wallet=self.table.wallet(slot), seq=seq)
        if not await self.store.revoke_node(node_id, seq=revocation.seq):
            raise Conflict("The node has a newer record; revoke that.")
        self.replica.take_off(slot, revoked=revocation.seq)

    def node(self, node_id: str) -> ComputeNode:
        """One node.

        Raises:
            NodeNotFound: never registered, or gone.
        """
        self.look()
        return self.table.listed(self._listed(node_id), self.clock.now())

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
        seller = self.table.wallet(self._listed(submission.node_id))
        return await self.jobs.submit(signed, submission, seller, int(self.clock.now()))

    async def update_job(self, job_id: str, call: Call) -> MarketJob:
        """What the job's seller says of it; raises as ``heartbeat`` and ``JobBook.update`` do."""
        job = await self.jobs.get(job_id)
        if job.node_id != call.node:
            raise Unauthorized("Only the seller of this job may say how it goes.")
        slot, counter = await self._caller(call.node, call, self.clock.now())
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

    def _listed(self, node_id: str) -> int:
        slot = self.table.slot(node_id)
        if slot is None or self.table.gone(slot):
            raise NodeNotFound("The market lists no such node; it may have left.")
        return slot

    def _succeeds(self, enrolled: Enrolled) -> int | None:
        """The slot of the node that a registration replaces, if it may."""
        table = self.table
        slot = table.slot(enrolled.record.node_id)
        if slot is not None:
            revoked = not table.session_key(slot)
            seq = table.hot.seq[slot]
            check_successor(enrolled, wallet=table.wallet(slot), seq=seq, revoked=revoked)
        return slot

    def _row(self, enrolled: Enrolled, mac_key: bytes, slot: int | None, now: float) -> NodeRow:
        record, lease = enrolled.record, self.leases.lease_seconds
        facts, words = pack(record.node_id, record)
        alive = 0.0
        if slot is not None:
            hot = self.table.hot
            alive = hot.alive_seconds[slot] + max(0.0, min(now - hot.last_seen[slot], lease))
        return NodeRow(
            node_id=record.node_id,
            wallet=record.wallet,
            record=enrolled.record_json,
            facts=facts,
            words=words,
            seq=record.seq,
            session_key=mac_key,
            session_until=float(enrolled.session.expires_at),
            registered_at=now,
            lease=Lease(last_seen=now, lease_until=now + lease, alive_seconds=alive),
        )

    async def _caller(self, node_id: str, call: Call, now: float) -> tuple[int, int]:
        """The slot of the node that calls, and the call's counter.

        Before a session is refused a shared store is asked: another instance may know a newer one.

        Raises:
            NodeNotFound: never registered, or gone.
            NodeRevoked: its wallet took it off the market.
            Unauthorized: see ``identity.check_call``.
            Unavailable: the store does not answer, so nobody knows.
        """
        try:
            return self._check(node_id, call, now)
        except _REFUSALS as error:
            if error.extra.get("reason") != "counter":  # that one is right, and a repetition
                await self.replica.ask(node_id)
        try:
            return self._check(node_id, call, now)
        except _REFUSALS:
            self.refused_calls += 1
            raise

    def _check(self, node_id: str, call: Call, now: float) -> tuple[int, int]:
        table = self.table
        slot = table.slot(node_id)
        if slot is None:
            raise NodeNotFound("The market lists no such node; register it.")
        key, hot = table.session_key(slot), table.hot
        if key and table.gone(slot):
            raise NodeNotFound("The node has left the market; register it again.")
        counter = check_call(
            call,
            node_id=node_id,
            key=key,
            counter=hot.counter[slot],
            until=hot.session_until[slot],
            now=now,
        )
        return slot, counter

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
