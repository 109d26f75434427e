"""What came in and what went back, for the owner's eyes. All sums in atoms, times unix seconds."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

_PAID = "state IN ('settled', 'consumed', 'refunded')"


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
class LedgerRow:
    """One movement, proven by its transaction (empty while a refund is owed)."""

    at: float
    kind: Literal["payment", "refund", "owed"]
    subject: str
    peer: str
    amount: int
    transaction: str


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


def ledger(db: sqlite3.Connection, since: float, limit: int) -> list[LedgerRow]:
    """The newest movements since a moment, newest first."""
    rows = db.execute(
        "SELECT * FROM ("  # noqa: S608
        " SELECT settled_at AS at, 'payment' AS kind, subject, payer AS peer, amount, tx"
        f" FROM claims WHERE {_PAID}"
        " UNION ALL"
        " SELECT COALESCE(b.done_at, r.created_at),"
        " CASE WHEN b.state = 'done' THEN 'refund' ELSE 'owed' END,"
        " r.subject, r.recipient, r.amount, CASE WHEN b.state = 'done' THEN b.tx ELSE '' END"
        " FROM refunds r LEFT JOIN batches b ON b.id = r.batch"
        ") WHERE at >= ? ORDER BY at DESC LIMIT ?",
        (since, limit),
    )
    return [LedgerRow(*row) for row in rows]


def _sum(db: sqlite3.Connection, query: str, *values: float) -> int:
    return int(db.execute(query, values).fetchone()[0] or 0)
