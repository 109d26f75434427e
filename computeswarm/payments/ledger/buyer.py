"""The buyer's books: what he signed, and what came back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, is_hash

_PAYMENTS = """
SELECT CAST(created_at AS REAL) AS at, 'payments' AS source, id, job_id, slice, pay_to AS peer,
    payer AS wallet, chain_id, CAST(amount AS INTEGER) AS amount, tx, nonce, channel, state,
    NULL AS block, CASE WHEN reason = '' THEN url ELSE reason END AS note
FROM payments
"""
_REFUNDS = """
SELECT CAST(COALESCE(done_at, created_at) AS REAL), 'refunds', id, job_id, NULL, peer, wallet,
    chain_id, CAST(amount AS INTEGER), tx, '', '', state, block, ''
FROM refunds
"""
_OF_REFUND = {"done": Standing.DONE, "told": Standing.TOLD, "owed": Standing.OWED}
_OF_PAYMENT = {
    "open": Standing.OPEN,
    "settled": Standing.DONE,
    "refused": Standing.REFUSED,
    "expired": Standing.EXPIRED,
    "spent": Standing.SPENT,
    "written_off": Standing.WRITTEN_OFF,
}


def buyer_entries(
    db: sqlite3.Connection, *, since: float = 0, until: float = 9e9
) -> Iterator[Entry]:
    """The entries from ``since`` to before ``until`` (unix seconds), oldest first, one by one.

    What was signed counts from its signature on, what came back from when it was seen.
    """
    kept = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'refunds'"
    both = f"{_PAYMENTS} UNION ALL {_REFUNDS}" if db.execute(kept).fetchone() else _PAYMENTS
    rows = db.execute(
        f"SELECT * FROM ({both}) WHERE at >= ? AND at < ? ORDER BY at, source, id",  # noqa: S608
        (since, until),
    )
    for row in rows:
        yield _payment(row) if row["source"] == "payments" else _refund(row)


def _payment(row: sqlite3.Row) -> Entry:
    state = _OF_PAYMENT[row["state"]]
    return Entry(
        at=row["at"],
        role=Role.BUYER,
        kind=Kind.DEPOSIT if row["channel"] else Kind.PAYMENT,
        job_id=row["job_id"],
        slice=row["slice"],
        peer=row["peer"],
        wallet=row["wallet"],
        chain_id=row["chain_id"],
        amount=row["amount"],
        direction="" if state is Standing.EXPIRED else "out",
        # the seller named it, in words of his own
        transaction=row["tx"].lower() if is_hash(row["tx"]) else "",
        state=state,
        row=f"payments {row['id']}",
        nonce=row["nonce"],
        channel=row["channel"],
        note=row["note"],
    )


def _refund(row: sqlite3.Row) -> Entry:
    state = _OF_REFUND[row["state"]]
    kind = Kind.OWED if state is Standing.OWED else Kind.REFUND
    return Entry(
        at=row["at"],
        role=Role.BUYER,
        kind=kind,
        job_id=row["job_id"],
        slice=None,
        peer=row["peer"],
        wallet=row["wallet"],
        chain_id=row["chain_id"],
        amount=row["amount"],
        direction="" if kind is Kind.OWED else "in",
        transaction=row["tx"],
        state=state,
        row=f"refunds {row['id']}",
        block=row["block"],
    )
