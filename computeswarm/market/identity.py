"""Who may say what of a node: pure checks of what sellers and wallets sent.

Nothing here reads a store or keeps anything. What only the store knows, the record and the wallet
that were there before, is compared by ``check_successor`` and ``check_revocable``, and once more by
the store's own conditional statements, so that two instances can't both say yes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import same_address
from computeswarm.core.durations import format_duration
from computeswarm.core.errors import (
    Conflict,
    NodeRevoked,
    TooLarge,
    Unauthorized,
    Unprocessable,
)
from computeswarm.core.market_auth import MAX_COUNTER, verify
from computeswarm.core.nodes import NodeRecord, open_record
from computeswarm.core.sessions import (
    PERMIT_KIND,
    REVOCATION_KIND,
    SESSION_KIND,
    Enrolment,
    NodeRevocation,
    NodeSession,
    WalletRead,
    read_permit,
)
from computeswarm.core.signing import Signed

MAX_RECORD_AGE = 86_400
MAX_CLOCK_SKEW = 600
"""Seconds that a seller's clock may be off, either way."""
MAX_RECORD_BYTES = 16 * 1024
"""A page holds up to 100 records, and one stranger's must not make it too large for buyers."""
MAX_RECORD_DEPTH = 16
"""Levels of lists and members. Readers of JSON have limits of their own, and a page adds some
levels: one stranger's record must not make the others' unreadable."""
_COMES_BACK = "Starting the seller anew lists it again."
_COUNTER_DIGITS = len(str(MAX_COUNTER))


class Call(NamedTuple):
    """An authenticated call as it came: see ``core.market_auth``."""

    node: str
    counter: str
    mac: str
    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A registration whose signatures, dates and market are right."""

    record: NodeRecord
    record_json: bytes
    """The signed record."""
    session: NodeSession


def check_enrolment(
    enrolment: Enrolment, *, chain: ChainInfo, names: AbstractSet[str], now: float
) -> Enrolled:
    """Check everything of a registration but what was registered before.

    Args:
        names: this market's addresses, each as ``core.urls.server_name`` spells it; where there are
            none, a session for any address is taken.
        now: unix seconds.

    Raises:
        TooLarge: the record has more than ``MAX_RECORD_BYTES``.
        BadRequest: a record or a session that is none.
        Unauthorized: not both signed by the wallet that the record names, or not for each other.
        Unprocessable: for another chain or market, nested too deep, or the dates can't be right.
    """
    signed = enrolment.record
    record_json = signed.model_dump_json().encode()
    if len(record_json) > MAX_RECORD_BYTES:
        raise TooLarge(f"A node's record has at most {MAX_RECORD_BYTES // 1024} KiB; shorten it.")
    _check_depth(signed)
    _check_chain(signed, chain)
    _check_chain(enrolment.session, chain)
    record = open_record(signed)
    if not now - MAX_RECORD_AGE <= record.issued_at <= now + MAX_CLOCK_SKEW:
        raise Unprocessable("The record is too old or from the future; check the clock.")
    session = enrolment.session.open(SESSION_KIND, NodeSession, wallet=record.wallet)
    fits = (
        session.node_id == record.node_id
        and session.seq == record.seq
        and session.record_hash == "0x" + signed.digest().hex()
    )
    if not fits:
        raise Unauthorized("The session was signed for another record; sign both anew.")
    _check_market(session.market, names)
    _check_skew(session.issued_at, now)
    if session.expires_at <= now:
        raise Unprocessable("The session is over already; sign a new one.")
    return Enrolled(record, record_json, session)


def check_successor(enrolled: Enrolled, *, wallet: str, seq: int, revoked: bool) -> None:
    """Compare a registration with the node that has its id.

    Raises:
        Conflict: that node is another wallet's, or its record has this ``seq`` or a higher one (in
            ``extra``).
        NodeRevoked: that node was revoked up to this ``seq`` or a higher one.
    """
    if not same_address(wallet, enrolled.record.wallet):
        # ids are short enough to be looked for: whoever has one keeps it
        raise Conflict("Another wallet has a node of this id; choose another name.")
    if enrolled.record.seq <= seq and revoked:
        raise NodeRevoked(f"The node was revoked by its owner. {_COMES_BACK}", seq=seq)
    if enrolled.record.seq <= seq:
        raise Conflict(f"A record with seq {seq} is known; sign a higher one.", seq=seq)


def check_revocation(
    signed: Signed, node_id: str, *, chain: ChainInfo, now: float
) -> NodeRevocation:
    """Check everything of a revocation but the node that it revokes. It does not age.

    Raises:
        BadRequest: it is none.
        Unauthorized: of another node, or not signed by the wallet it names.
        Unprocessable: for another chain, or from the future.
    """
    _check_chain(signed, chain)
    wallet = str(signed.document.get("wallet", ""))
    revocation = signed.open(REVOCATION_KIND, NodeRevocation, wallet=wallet)
    if revocation.node_id != node_id:
        raise Unauthorized(f"The revocation is of {revocation.node_id}; send it there.")
    if revocation.issued_at > now + MAX_CLOCK_SKEW:
        raise Unprocessable("The revocation is from the future; check the clock.")
    return revocation


def check_revocable(revocation: NodeRevocation, *, wallet: str, seq: int) -> None:
    """Compare a revocation with the node.

    Raises:
        Unauthorized: the node is another wallet's.
        Conflict: the node has a newer record than the revocation speaks of; ``extra`` has its
            ``seq``.
    """
    if not same_address(revocation.wallet, wallet):
        raise Unauthorized("The node is another wallet's; only its own can revoke it.")
    if revocation.seq < seq:
        raise Conflict(f"The node has a record with seq {seq}; revoke that.", seq=seq)


def check_call(
    call: Call, *, node_id: str, key: bytes, counter: int, until: float, now: float
) -> int:
    """Check an authenticated call, and give the counter to remember. The hot path.

    The MAC comes first, so that a call is only named a repetition where it is one: another instance
    may know a session that is not known here yet, and that one's counter begins anew.

    Args:
        key: the session's 32 bytes; empty after a revocation.
        counter: the highest one used.
        until: unix seconds at which the session ends.

    Raises:
        NodeRevoked: the node's wallet took it off the market.
        Unauthorized: ``extra["reason"]`` is ``mac`` (not made with this session's key), ``over``
            (its time has passed) or ``counter`` (it was used before).
    """
    if not key:
        raise NodeRevoked(f"The node was revoked by its owner. {_COMES_BACK}")
    text = call.counter
    used = int(text) if len(text) <= _COUNTER_DIGITS and text.isascii() and text.isdigit() else 0
    if (
        call.node != node_id
        or not 0 < used < MAX_COUNTER
        or not verify(
            key, call.mac, method=call.method, path=call.path, counter=used, body=call.body
        )
    ):
        raise Unauthorized(
            "The call was not made with this session's key; register again.", reason="mac"
        )
    if now >= until:
        raise Unauthorized("The session is over; register again.", reason="over")
    if used <= counter:
        raise Unauthorized(
            f"Counter {used} was used before; go on above {counter}, or register again.",
            reason="counter",
        )
    return used


def check_permit(
    text: str, wallet: str, *, chain: ChainInfo, names: AbstractSet[str], now: float
) -> WalletRead:
    """Check the permit (a header's value) of somebody who wants to read what concerns ``wallet``.

    Raises:
        BadRequest: it is none.
        Unauthorized: there is none, it is another wallet's, or it has run out.
        Unprocessable: for another chain or market, or from the future.
    """
    if not text:
        raise Unauthorized(f"That needs a {PERMIT_KIND} signed by {wallet}.")
    signed = read_permit(text)
    _check_chain(signed, chain)
    permit = signed.open(PERMIT_KIND, WalletRead, wallet=wallet)
    if not same_address(permit.wallet, wallet):
        raise Unauthorized(f"The permit is for {permit.wallet}; sign one for {wallet}.")
    _check_market(permit.market, names)
    if permit.issued_at > now + MAX_CLOCK_SKEW:
        raise Unprocessable("The permit is from the future; check the clock.")
    if permit.expires_at <= now:
        raise Unauthorized("The permit has run out; sign a new one.")
    return permit


def _check_depth(signed: Signed) -> None:
    level: list[Any] = [signed.document]
    for _ in range(MAX_RECORD_DEPTH):
        inside = (item.values() if isinstance(item, dict) else item for item in level)
        level = [value for values in inside for value in values if isinstance(value, (dict, list))]
        if not level:
            return
    raise Unprocessable(f"A node's record has at most {MAX_RECORD_DEPTH} levels; make it flatter.")


def _check_chain(signed: Signed, chain: ChainInfo) -> None:
    if signed.chain_id != chain.chain_id:
        raise Unprocessable(f"This market is on {chain.title}; sign for that chain.")


def _check_market(named: str, names: AbstractSet[str]) -> None:
    if names and named not in names:
        raise Unprocessable(
            f"That was signed for the market {named}; this one is {sorted(names)[0]}: set your"
            " market to that and try again."
        )


def _check_skew(issued_at: int, now: float) -> None:
    off = int(issued_at - now)
    if abs(off) > MAX_CLOCK_SKEW:
        way = "ahead of" if off > 0 else "behind"
        raise Unprocessable(
            f"Your clock is {format_duration(abs(off))} {way} the market's; set it and register"
            " again."
        )
