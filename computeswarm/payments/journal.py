"""The buyer's journal: every authorization that was ever signed, on disk before it leaves.

A signed authorization is money in a stranger's hand until its window closes, whatever he says of
it. So an open or settled one is presented again rather than signed anew, and one that was refused
still counts against the caps until the chain shows that it expired unused.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from computeswarm.core.x402 import HEADER_PAYMENT_V1, HEADER_PAYMENT_V2, encode_header
from computeswarm.payments.storage import connect, transaction

DAY_SECONDS = 86_400
CLOCK_MARGIN_SECONDS = 60
"""A chain's clock may be behind ours: only so long after its window is an authorization dead."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    slice INTEGER NOT NULL,
    url TEXT NOT NULL,
    method TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    payer TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    amount INTEGER NOT NULL,
    nonce TEXT NOT NULL UNIQUE,
    valid_before INTEGER NOT NULL,
    version INTEGER NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    tx TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS one_standing ON payments (job_id, slice)
    WHERE state IN ('open', 'settled');
CREATE INDEX IF NOT EXISTS by_time ON payments (created_at);
"""
# Money that is gone or may still go: all but what the chain has proved to have expired unused.
_COUNTS = "state != 'expired'"


class Fate(StrEnum):
    """What became of an authorization, as far as we know."""

    OPEN = "open"
    SETTLED = "settled"
    REFUSED = "refused"
    EXPIRED = "expired"
    SPENT = "spent"
    """The seller refused it, and yet it was used on chain: gone, and it bought nothing."""


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A stored authorization and how it travels. ``amount`` in atoms, times in unix seconds."""

    job_id: str
    slice: int
    url: str
    method: str
    chain_id: int
    payer: str
    pay_to: str
    amount: int
    nonce: str
    valid_before: int
    version: int
    payload: dict[str, Any]
    state: Fate
    created_at: float
    transaction: str = ""
    reason: str = ""

    def headers(self) -> dict[str, str]:
        """The header that presents it."""
        name = HEADER_PAYMENT_V2 if self.version == 2 else HEADER_PAYMENT_V1
        return {name: encode_header(self.payload)}


class PaymentJournal:
    """The journal in one SQLite file; several processes may share it.

    Raises:
        StorageFull: the disk is full; whatever was to be written was not.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def exclusive(self) -> AbstractContextManager[sqlite3.Connection]:
        """A context in which no other process can sign: sums hold until the payment is added."""
        return transaction(self._db)

    def add(self, payment: SignedPayment) -> None:
        """Store a fresh one; only within ``exclusive``."""
        self._db.execute(
            "INSERT INTO payments (job_id, slice, url, method, chain_id, payer, pay_to, amount,"
            " nonce, valid_before, version, payload, state, created_at)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(payment.job_id, payment.slice, payment.url, payment.method, payment.chain_id),
                *(payment.payer, payment.pay_to, payment.amount, payment.nonce),
                *(payment.valid_before, payment.version, json.dumps(payment.payload)),
                *(str(payment.state), payment.created_at),
            ),
        )

    def standing(self, job_id: str, slice_: int) -> SignedPayment | None:
        """The open or settled payment of one slice."""
        row = self._db.execute(
            "SELECT * FROM payments WHERE job_id = ? AND slice = ?"
            " AND state IN ('open', 'settled')",
            (job_id, slice_),
        ).fetchone()
        return None if row is None else _payment(row)

    def set_fate(self, nonce: str, fate: Fate, *, tx: str = "", reason: str = "") -> None:
        """Record what became of a payment; a settled one stays settled."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE payments SET state = ?, tx = ?, reason = ?"
                " WHERE nonce = ? AND state != 'settled'",
                (str(fate), tx, reason[:500], nonce),
            )

    def undecided(self) -> list[SignedPayment]:
        """Those whose fate only the chain can tell: open, or refused by word alone."""
        return self._select("state IN ('open', 'refused') ORDER BY id")

    def pending(self) -> list[SignedPayment]:
        """The open ones, oldest first."""
        return self._select("state = 'open' ORDER BY id")

    def of_job(self, job_id: str) -> list[SignedPayment]:
        """All of one job, oldest first."""
        return self._select("job_id = ? ORDER BY id", job_id)

    def spent_job(self, job_id: str) -> int:
        """Atoms gone or still at risk for one job."""
        return self._sum("job_id = ?", job_id)

    def spent_day(self, now: float) -> int:
        """Atoms gone or still at risk in the last 24 hours."""
        return self._sum("created_at > ?", now - DAY_SECONDS)

    def _select(self, where: str, *values: object) -> list[SignedPayment]:
        rows = self._db.execute(f"SELECT * FROM payments WHERE {where}", values)  # noqa: S608
        return [_payment(row) for row in rows]

    def _sum(self, where: str, value: object) -> int:
        query = f"SELECT COALESCE(SUM(amount), 0) FROM payments WHERE {where} AND {_COUNTS}"  # noqa: S608
        row = self._db.execute(query, (value,)).fetchone()
        return int(row[0])


def _payment(row: sqlite3.Row) -> SignedPayment:
    return SignedPayment(
        job_id=row["job_id"],
        slice=row["slice"],
        url=row["url"],
        method=row["method"],
        chain_id=row["chain_id"],
        payer=row["payer"],
        pay_to=row["pay_to"],
        amount=row["amount"],
        nonce=row["nonce"],
        valid_before=row["valid_before"],
        version=row["version"],
        payload=json.loads(row["payload"]),
        state=Fate(row["state"]),
        created_at=row["created_at"],
        transaction=row["tx"],
        reason=row["reason"],
    )
