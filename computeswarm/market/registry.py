"""Nodes that come, call and go: what they and their wallets say is checked, kept, and then shown.

Memory is asked first, since what it knows is true, and the store before a no, since another
instance may know more. The store has the last word: its statements are conditional.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextlib import suppress

from computeswarm.core.addresses import address_key
from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.errors import Conflict, NodeNotFound, NodeRevoked, Unauthorized, Unavailable
from computeswarm.core.nodes import Registration
from computeswarm.core.sessions import Enrolment, answer_session
from computeswarm.core.signing import Signed
from computeswarm.market.facts import pack
from computeswarm.market.identity import (
    Call,
    Enrolled,
    check_call,
    check_enrolment,
    check_revocable,
    check_revocation,
    check_successor,
)
from computeswarm.market.leases import Leases
from computeswarm.market.limits import Kind, Limits, wallet_key
from computeswarm.market.replica import Replica
from computeswarm.market.rows import Lease, NodeRow
from computeswarm.market.stores.protocol import Store
from computeswarm.market.table import NodeTable

_REFUSALS = (NodeNotFound, NodeRevoked, Unauthorized)


class Registry:
    """Who is registered, and who calls.

    Args:
        names: the market's addresses, see ``identity.check_enrolment``.
        limits: what a wallet may ask; charged where its signature was checked, so that nobody can
            use up another's.
    """

    def __init__(
        self,
        store: Store,
        table: NodeTable,
        leases: Leases,
        replica: Replica,
        limits: Limits,
        *,
        clock: Clock,
        chain: ChainInfo,
        names: AbstractSet[str],
    ) -> None:
        self.refused = 0
        """Calls under a session that were not taken."""
        self._store, self._table = store, table
        self._leases, self._replica, self._limits = leases, replica, limits
        self._clock, self._chain, self._names = clock, chain, names

    async def register(self, enrolment: Enrolment, *, address: str = "") -> Registration:
        """List a node, or list it anew: a new session, the counter at 0.

        Args:
            address: the client's, whose limit a node counts in that was not known before.

        Raises:
            BadRequest, Unauthorized, Unprocessable, TooLarge: see ``identity.check_enrolment``.
            Conflict, NodeRevoked: see ``identity.check_successor``.
            TooManyRequests: the wallet registers too often, or the address too many new nodes.
            Unavailable, StorageFull: it was not kept, or nobody knows.
        """
        now = self._clock.now()
        enrolled = check_enrolment(enrolment, chain=self._chain, names=self._names, now=now)
        self._limits.take(Kind.REGISTER, wallet_key(enrolled.record.wallet), whose="wallet")
        slot = self._succeeds(enrolled)  # what memory knows is true, if not always all of it
        if slot is None and address:
            self._limits.take(Kind.NEW, address_key(address))
        market_key, mac_key = answer_session(enrolled.session)
        try:
            row = await self._store.save_node(self._row(enrolled, mac_key, slot, now))
        except Conflict:
            with suppress(Unavailable):
                await self._replica.ask(enrolled.record.node_id)
            self._succeeds(enrolled)  # says why, where the node was revoked elsewhere
            raise
        slot = self._replica.take(row)
        if self._table.session_key(slot) != mac_key or self._table.gone(slot):
            self._succeeds(enrolled)  # a later one overtook us, or the node is off again
        return Registration(
            node=self._table.listed(slot, now),
            market_key=market_key,
            heartbeat_seconds=self._leases.interval_seconds,
            lease_seconds=self._leases.lease_seconds,
        )

    async def unregister(self, node_id: str, call: Call) -> None:
        """Take a node off the list; raises as ``caller`` does."""
        slot, counter = await self.caller(node_id, call, self._clock.now())
        key = self._table.session_key(slot)
        if not await self._store.remove_node(node_id, session_key=key, counter=counter):
            self.refused += 1
            raise Unauthorized("The session is over or the call was seen before; register again.")
        if self._table.session_key(slot) == key:
            self._replica.take_off(slot)

    async def revoke(self, node_id: str, signed: Signed) -> None:
        """Take a node off the list by its wallet's word, and end its session wherever it is known.

        Raises:
            BadRequest, Unauthorized, Unprocessable: see ``identity.check_revocation``.
            NodeNotFound: never registered.
            Conflict: the node has a newer record.
            TooManyRequests: the wallet registers and revokes too often.
        """
        revocation = check_revocation(signed, node_id, chain=self._chain, now=self._clock.now())
        self._limits.take(Kind.REGISTER, wallet_key(revocation.wallet), whose="wallet")
        if self._table.slot(node_id) is None:
            await self._replica.ask(node_id)
        slot = self._table.slot(node_id)
        if slot is None:
            raise NodeNotFound("The market knows no such node.")
        seq = self._table.hot.seq[slot]
        check_revocable(revocation, wallet=self._table.wallet(slot), seq=seq)
        if not await self._store.revoke_node(node_id, seq=revocation.seq):
            raise Conflict("The node has a newer record; revoke that.")
        self._replica.take_off(slot, revoked=revocation.seq)

    def listed(self, node_id: str) -> int:
        """The slot of a node that is on the list.

        Raises:
            NodeNotFound: never registered, or gone.
        """
        slot = self._table.slot(node_id)
        if slot is None or self._table.gone(slot):
            raise NodeNotFound("The market lists no such node; it may have left.")
        return slot

    async def caller(self, node_id: str, call: Call, now: float) -> tuple[int, int]:
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
                await self._replica.ask(node_id)
        try:
            return self._check(node_id, call, now)
        except _REFUSALS:
            self.refused += 1
            raise

    def _check(self, node_id: str, call: Call, now: float) -> tuple[int, int]:
        table = self._table
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

    def _succeeds(self, enrolled: Enrolled) -> int | None:
        """The slot of the node that a registration replaces, if it may."""
        table = self._table
        slot = table.slot(enrolled.record.node_id)
        if slot is not None:
            revoked = not table.session_key(slot)
            seq = table.hot.seq[slot]
            check_successor(enrolled, wallet=table.wallet(slot), seq=seq, revoked=revoked)
        return slot

    def _row(self, enrolled: Enrolled, mac_key: bytes, slot: int | None, now: float) -> NodeRow:
        record, lease = enrolled.record, self._leases.lease_seconds
        facts, words = pack(record.node_id, record)
        alive = 0.0
        if slot is not None:
            hot = self._table.hot
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
