"""The seller's books, out of the claims, refunds and batches that the settlement keeps.

Only reads, and only by these few queries: the tables are the settlement's own.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, split_subject

# cast, so that no line hides or stops a listing, whatever stands there instead of a number
_PAID = "state IN ('settled', 'consumed', 'refunded')"
_CLAIMS = f"""
SELECT CAST(COALESCE(c.settled_at, c.created_at) AS REAL) AS at, 'claims' AS source, c.id AS id,
    c.subject AS subject, json_extract(c.authorization, '$.from_') AS peer, c.pay_to AS wallet,
    c.chain_id AS chain_id, CAST(c.amount AS INTEGER) AS amount, c.tx AS tx, c.state AS state,
    c.reason AS reason,
    CASE WHEN c.payer = 'tx' THEN '' ELSE c.nonce END AS nonce,
    c.reorged_at IS NOT NULL AS reorged
FROM claims c
WHERE {_PAID} OR c.state IN ('broadcast', 'reverted') OR (c.state = 'failed' AND c.tx != '')
"""  # noqa: S608
_REFUNDS = """
SELECT CAST(COALESCE(b.done_at, r.created_at) AS REAL), 'refunds', r.id, r.subject, r.recipient,
    COALESCE((SELECT pay_to FROM claims WHERE subject = r.subject LIMIT 1), ''),
    COALESCE((SELECT chain_id FROM claims WHERE subject = r.subject LIMIT 1), 0),
    CAST(r.amount AS INTEGER), COALESCE(b.tx, ''), COALESCE(b.state, 'owed'), '', '', 0
FROM refunds r LEFT JOIN batches b ON b.id = r.batch
"""
_OF_CLAIM = {
    "broadcast": Standing.OPEN,
    "reverted": Standing.REVERTED,
}
_OF_REFUND = {"done": Standing.DONE, "sent": Standing.OPEN}


@dataclass(frozen=True, slots=True)
class Earnings:
    """``received`` and ``refunded`` within the period; ``owed`` is what is still to go back."""

    received: int
    refunded: int
    owed: int

    @property
    def net(self) -> int:
        """What stays once everything owed is paid back."""
        return self.received - self.refunded - self.owed


@dataclass(frozen=True, slots=True)
class Day:
    """Sums of one day; ``jobs`` counts the first payments."""

    received: int
    refunded: int
    jobs: int


def seller_entries(
    db: sqlite3.Connection, *, since: float = 0, until: float = 9e9, chain_id: int = 0
) -> Iterator[Entry]:
    """The entries from ``since`` to before ``until`` (unix seconds), oldest first, one by one.

    ``chain_id`` is for refunds of which the books no longer say which chain they are on.
    """
    shared = _Shared(db)
    rows = db.execute(
        "SELECT e.*, r.block AS block, r.gas_used * r.gas_price AS gas, r.own AS own"  # noqa: S608
        f" FROM ({_CLAIMS} UNION ALL {_REFUNDS}) e LEFT JOIN receipts r ON r.tx = e.tx"
        " WHERE at >= ? AND at < ? ORDER BY at, source, id",
        (since, until),
    )
    for row in rows:
        yield _entry(row, shared, chain_id)


def ledger(db: sqlite3.Connection, since: float, limit: int, *, chain_id: int = 0) -> list[Entry]:
    """The newest entries since a moment, newest first."""
    newest = deque(seller_entries(db, since=since, chain_id=chain_id), maxlen=limit)
    return list(reversed(newest))


def earned(db: sqlite3.Connection, since: float) -> Earnings:
    """Sums since a moment; what is owed counts whatever its age."""
    received = _sum(db, f"SELECT SUM(amount) FROM claims WHERE {_PAID} AND settled_at >= ?", since)  # noqa: S608
    refunded = _sum(
        db, "SELECT SUM(amount) FROM batches WHERE state = 'done' AND done_at >= ?", since
    )
    owed = _sum(
        db,
        "SELECT SUM(r.amount) FROM refunds r LEFT JOIN batches b ON b.id = r.batch"
        " WHERE b.state IS NULL OR b.state != 'done'",
    )
    return Earnings(received, refunded, owed)


def by_day(db: sqlite3.Connection, first: float, days: int) -> list[Day]:
    """The sums of so many days (of 86,400 s) from ``first`` on."""
    received = _daily(
        db,
        "SELECT CAST((settled_at - :first) / 86400 AS INTEGER), SUM(amount),"  # noqa: S608
        " SUM(instr(subject, '#') = 0)"
        f" FROM claims WHERE {_PAID} AND settled_at >= :first GROUP BY 1",
        first,
    )
    refunded = _daily(
        db,
        "SELECT CAST((done_at - :first) / 86400 AS INTEGER), SUM(amount), 0"
        " FROM batches WHERE state = 'done' AND done_at >= :first GROUP BY 1",
        first,
    )
    nothing = (0, 0)
    return [
        Day(
            received.get(day, nothing)[0],
            refunded.get(day, nothing)[0],
            received.get(day, nothing)[1],
        )
        for day in range(days)
    ]


def _daily(db: sqlite3.Connection, query: str, first: float) -> dict[int, tuple[int, int]]:
    return {row[0]: (row[1], row[2]) for row in db.execute(query, {"first": first})}


class _Shared:
    """Transactions that carry several entries: their gas was paid once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        rows = db.execute(
            "SELECT tx FROM claims WHERE tx != '' GROUP BY tx HAVING COUNT(*) > 1"
            " UNION SELECT b.tx FROM refunds r JOIN batches b ON b.id = r.batch"
            " GROUP BY r.batch HAVING COUNT(*) > 1"
        )
        self._seen = {row[0]: False for row in rows}

    def first(self, tx: str) -> bool:
        """Whether this is the first entry of its transaction."""
        if tx not in self._seen:
            return True
        first, self._seen[tx] = not self._seen[tx], True
        return first


def _entry(row: sqlite3.Row, shared: _Shared, chain_id: int) -> Entry:
    job_id, index = split_subject(row["subject"])
    paid = row["source"] == "claims"
    kind, state = _claim(row) if paid else _refund(row)
    nothing = state in (Standing.REVERTED, Standing.OWED)
    return Entry(
        at=row["at"],
        role=Role.SELLER,
        kind=kind,
        job_id=job_id,
        slice=(index or 0) if paid else index,
        peer=row["peer"],
        wallet=row["wallet"],
        chain_id=row["chain_id"] or chain_id,
        amount=row["amount"],
        direction="" if nothing else "in" if paid else "out",
        transaction=row["tx"],
        state=state,
        row=f"{row['source']} {row['id']}",
        nonce=row["nonce"],
        block=row["block"],
        gas_wei=row["gas"] if row["own"] and shared.first(row["tx"]) else None,
        note=row["reason"],
    )


def _claim(row: sqlite3.Row) -> tuple[Kind, Standing]:
    if row["state"] == "failed":
        return Kind.REVERTED, Standing.REVERTED
    state = Standing.REORGED if row["reorged"] else _OF_CLAIM.get(row["state"], Standing.DONE)
    return Kind.PAYMENT if row["nonce"] else Kind.TRANSFER, state


def _refund(row: sqlite3.Row) -> tuple[Kind, Standing]:
    state = _OF_REFUND.get(row["state"], Standing.OWED)
    return Kind.OWED if state is Standing.OWED else Kind.REFUND, state


def _sum(db: sqlite3.Connection, query: str, *values: float) -> int:
    return int(db.execute(query, values).fetchone()[0] or 0)
