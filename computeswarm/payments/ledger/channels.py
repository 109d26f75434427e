"""The steps of payment channels on chain, out of the view that both sides keep of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from computeswarm.payments.ledger.entries import Direction, Entry, Kind, Role, Standing

_STATES = {"sent": Standing.OPEN, "done": Standing.DONE, "failed": Standing.REVERTED}
_KINDS = {
    "deposit": Kind.DEPOSIT,
    "claim": Kind.CLAIM,
    "settle": Kind.SETTLE,
    "refund": Kind.CHANNEL_REFUND,
    "withdrawal": Kind.WITHDRAWAL,
}
_MOVES: dict[tuple[Role, Kind], Direction] = {
    (Role.SELLER, Kind.SETTLE): "in",
    (Role.BUYER, Kind.DEPOSIT): "out",
    (Role.BUYER, Kind.CHANNEL_REFUND): "in",
    (Role.BUYER, Kind.WITHDRAWAL): "in",
}
"""Which steps change the balance of whose wallet; the rest moves in the contract, or elsewhere."""


def channel_entries(
    db: sqlite3.Connection, role: Role, *, since: float = 0, until: float = 9e9
) -> Iterator[Entry]:
    """The steps from ``since`` to before ``until`` (unix seconds), oldest first."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'channel_steps'").fetchone():
        return
    gas = _gas(db)
    rows = db.execute(
        "SELECT at, kind, channel_id, job_id, peer, wallet, chain_id, amount, tx, state"
        " FROM channel_steps WHERE at >= ? AND at < ? ORDER BY at, tx, kind",
        (since, until),
    )
    for number, row in enumerate(rows):
        kind, state = _KINDS[row["kind"]], _STATES[row["state"]]
        paid = gas.pop(row["tx"], None)  # once, on the first of a transaction's entries
        if (role, kind) == (Role.BUYER, Kind.DEPOSIT):
            continue  # it stands in his payments already
        yield Entry(
            at=row["at"],
            role=role,
            kind=kind,
            job_id=row["job_id"],
            slice=None,
            peer=row["peer"],
            wallet=row["wallet"],
            chain_id=row["chain_id"],
            amount=row["amount"],
            direction="" if state is Standing.REVERTED else _MOVES.get((role, kind), ""),
            transaction=row["tx"],
            state=state,
            row=f"channel_steps {number}",
            channel=row["channel_id"],
            gas_wei=paid,
        )


def _gas(db: sqlite3.Connection) -> dict[str, int]:
    """What our own transactions cost, in wei; buyers keep no such table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'gas'").fetchone():
        return {}
    return {row[0]: row[1] for row in db.execute("SELECT tx, wei FROM gas")}
