"""The market: registration, heartbeats, search, jobs and statistics over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Set
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from computeswarm.core.chains import BASE_SEPOLIA, ChainInfo
from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.errors import NodeNotFound, NodeRevoked, Unauthorized
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission, JobUpdate, MarketJob
from computeswarm.core.nodes import (
    ComputeNode,
    Heartbeat,
    HeartbeatReply,
    NodeStatus,
    Registration,
)
from computeswarm.core.query import parse
from computeswarm.core.sessions import Enrolment, answer_session
from computeswarm.core.signing import Signed, parse_json
from computeswarm.core.stats import MarketStats
from computeswarm.market.directory import Node
from computeswarm.market.identity import (
    Call,
    check_call,
    check_enrolment,
    check_revocable,
    check_revocation,
    check_successor,
)
from computeswarm.market.jobs import Jobs
from computeswarm.market.search import MAX_PAGE, Page, Search
from computeswarm.market.sqlite import SqliteStore
from computeswarm.market.stats import market_stats
from computeswarm.market.store import Store

HEARTBEAT_SECONDS = 30
LEASE_BEATS = 3
FLUSH_SECONDS = 0.5


class Market:
    """One market on one chain. Everything but a lease is durable before it is answered.

    Args:
        names: its public addresses, see ``check_enrolment``.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        chain: ChainInfo = BASE_SEPOLIA,
        names: Set[str] = frozenset(),
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
    ) -> None:
        self.chain = chain
        self.names = names
        self.clock = clock
        self.jobs = Jobs(store)
        self.heartbeats = 0
        self.refused_calls = 0
        self._store = store
        self._heartbeat_seconds = heartbeat_seconds
        self._lease = heartbeat_seconds * LEASE_BEATS
        loaded = (Node.from_row(row, self._lease) for row in store.load_nodes())
        self._nodes: dict[str, Node] = {node.node_id: node for node in loaded}
        self._search = Search()
        self._version = 0
        self._dirty: set[Node] = set()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._flusher: asyncio.Task[None] | None = None
        reply = HeartbeatReply(heartbeat_seconds=heartbeat_seconds, lease_seconds=self._lease)
        self._reply = reply.model_dump_json().encode()

    def start(self) -> None:
        """Begin to write leases behind, twice a second."""
        self._flusher = asyncio.create_task(self._flush_forever())

    async def close(self) -> None:
        """Write everything out."""
        if self._flusher is not None:
            self._flusher.cancel()
            with suppress(asyncio.CancelledError):
                await self._flusher
        self._flush()
        await self._store.close()

    # nodes

    async def register(self, enrolment: Enrolment) -> Registration:
        """List a node, or list it anew: a new session, the counter at 0.

        Raises:
            BadRequest, Unauthorized, Unprocessable, TooLarge: see ``check_enrolment``.
            Conflict: see ``check_successor``.
        """
        now = self.clock.now()
        enrolled = check_enrolment(enrolment, chain=self.chain, names=self.names, now=now)
        record, session = enrolled.record, enrolled.session
        async with self._lock(record.node_id):
            old = self._nodes.get(record.node_id)
            if old is not None:
                revoked = not old.session_key
                check_successor(enrolled, wallet=old.record.wallet, seq=old.seq, revoked=revoked)
            market_key, session_key = answer_session(session)
            node = Node(
                node_id=record.node_id,
                signed=enrolment.record,
                record=record,
                record_json=enrolled.record_json.decode(),
                seq=record.seq,
                session_key=session_key,
                session_until=session.expires_at,
                counter=0,
                registered_at=old.registered_at if old else now,
                last_seen=now,
                alive_seconds=old.alive_seconds + self._covered(old, now) if old else 0.0,
                lease_until=now + self._lease,
                succeeded=old.succeeded if old else 0,
                failed=old.failed if old else 0,
            )
            await self._store.save_node(node.to_row())
            self._nodes[node.node_id] = node
            if old is not None:
                self._dirty.discard(old)
            self._version += 1
        return Registration(
            node=node.listed_at(now),
            market_key=market_key,
            heartbeat_seconds=self._heartbeat_seconds,
            lease_seconds=self._lease,
        )

    async def revoke(self, node_id: str, signed: Signed) -> None:
        """Take a node off the list by its wallet's word; a second time does nothing.

        Raises:
            NodeNotFound: never registered.
            BadRequest, Unauthorized, Unprocessable: see ``check_revocation``.
            Conflict: see ``check_revocable``.
        """
        revocation = check_revocation(signed, node_id, chain=self.chain, now=self.clock.now())
        async with self._lock(node_id):
            node = self._nodes.get(node_id)
            if node is None:
                raise NodeNotFound("The market knows no such node; there is nothing to revoke.")
            check_revocable(revocation, wallet=node.record.wallet, seq=node.seq)
            node.seq, node.session_key, node.gone = revocation.seq, b"", True
            await self._store.save_node(node.to_row())
            self._dirty.discard(node)
            self._version += 1

    def heartbeat(self, node_id: str, call: Call) -> bytes:
        """Renew a lease; returns the reply's JSON. The hot path: no store, no new objects kept.

        Raises:
            NodeNotFound: never registered, or gone.
            Unauthorized: a wrong MAC, or a counter that was used.
            BadRequest: not a heartbeat.
        """
        node = self._authenticate(node_id, call)
        beat = parse_json(Heartbeat, call.body)
        now = self.clock.now()
        if (
            beat.status is not node.status
            or beat.queued != node.queued
            or beat.running != node.running
            or now >= node.lease_until
        ):
            self._version += 1
            node.status = NodeStatus(beat.status)
            node.queued = beat.queued
            node.running = beat.running
        node.alive_seconds += self._covered(node, now)
        node.last_seen = now
        node.lease_until = now + self._lease
        self.heartbeats += 1
        self._dirty.add(node)
        return self._reply

    async def unregister(self, node_id: str, call: Call) -> None:
        """Take a node off the list; raises as ``heartbeat`` does."""
        async with self._lock(node_id):
            node = self._authenticate(node_id, call)
            await self._store.save_node(node.to_row(gone=True))
            node.gone = True
            self._dirty.discard(node)
            self._version += 1

    def node(self, node_id: str) -> ComputeNode:
        """One node.

        Raises:
            NodeNotFound: never registered, or gone.
        """
        return self._find(node_id).listed_at(self.clock.now())

    def live_nodes(self) -> list[Node]:
        """Every node that did not leave, offline ones too."""
        return [node for node in self._nodes.values() if not node.gone]

    # search

    def cached_page(self, key: Hashable) -> Page | None:
        """A page made before under ``key``, if nothing changed since."""
        return self._search.cached(key, self._version, self.clock.now())

    def page(self, key: Hashable, query: str, *, sort: str, cursor: str, limit: int) -> Page:
        """A page of nodes, kept under ``key``.

        Raises:
            InvalidQuery: see ``core.query``.
            BadRequest: a wrong cursor.
        """
        return self._search.page(
            key,
            parse(query, sort=sort),
            nodes=self.live_nodes(),
            version=self._version,
            now=self.clock.now(),
            cursor=cursor,
            limit=max(1, min(limit, MAX_PAGE)),
        )

    # jobs

    async def submit(self, signed: Signed) -> tuple[MarketJob, bool]:
        """Keep a job's metadata; the flag says whether it is new.

        Raises:
            BadRequest, Unauthorized: not a submission, or not signed by its buyer.
            NodeNotFound: for a node that is not listed.
            Conflict: another job has the id.
        """
        wallet = str(signed.document.get("buyer", ""))
        submission = signed.open(SUBMISSION_KIND, JobSubmission, wallet=wallet)
        async with self._lock(submission.job_id):
            seller = self._find(submission.node_id).record.wallet
            return await self.jobs.submit(signed, submission, seller, int(self.clock.now()))

    async def update_job(self, job_id: str, call: Call) -> MarketJob:
        """What the job's seller says of it; raises as ``heartbeat`` and ``Jobs.update`` do."""
        async with self._lock(job_id):
            if self.jobs.get(job_id).node_id != call.node:
                raise Unauthorized("Only the seller of this job may say how it goes.")
            async with self._lock(call.node):
                node = self._authenticate(call.node, call)
                self._dirty.add(node)  # the counter, where nothing else is stored
                update = parse_json(JobUpdate, call.body)
                job = await self.jobs.update(job_id, update, node, int(self.clock.now()))
        self._version += job.state.terminal
        return job

    def stats(self) -> MarketStats:
        """Statistics over nodes and jobs, now."""
        return market_stats(self.live_nodes(), self.jobs, self.clock.now())

    # inside

    def _find(self, node_id: str) -> Node:
        node = self._nodes.get(node_id)
        if node is None or node.gone:
            raise _not_listed()
        return node

    def _authenticate(self, node_id: str, call: Call) -> Node:
        node = self._nodes.get(node_id)
        if node is None or (node.gone and node.session_key):
            raise _not_listed()
        try:
            node.counter = check_call(
                call,
                node_id=node_id,
                key=node.session_key,
                counter=node.counter,
                until=node.session_until,
                now=self.clock.now(),
            )
        except (Unauthorized, NodeRevoked):
            self.refused_calls += 1
            raise
        return node

    def _covered(self, node: Node, now: float) -> float:
        return max(0.0, min(now - node.last_seen, self._lease))

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)

    def _flush(self) -> None:
        if self._dirty:
            self._store.touch([node.to_row() for node in self._dirty])
            self._dirty.clear()

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._flush()


def _not_listed() -> NodeNotFound:
    return NodeNotFound("The market lists no such node; it may have left.")


def open_market(
    path: Path,
    *,
    clock: Clock | None = None,
    chain: ChainInfo = BASE_SEPOLIA,
    names: Set[str] = frozenset(),
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> Market:
    """A market on a SQLite file, made if missing. ``start`` and ``close`` frame its use.

    Raises:
        ConfigError: the file can't be used.
    """
    return Market(
        SqliteStore(path),
        clock=clock or SystemClock(),
        chain=chain,
        names=names,
        heartbeat_seconds=heartbeat_seconds,
    )
