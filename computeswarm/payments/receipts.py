"""Which mined transactions moved our money, and in which blocks: what a reorganisation may undo."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from computeswarm.chain.tx import SignedTx
from computeswarm.chain.wire import Receipt

_NOT_FINAL = """
SELECT r.tx, r.block, r.block_hash, COALESCE(s.raw, b.raw) AS raw,
    COALESCE(s.tx_nonce, b.tx_nonce) AS tx_nonce,
    (b.state IS 'done' OR EXISTS (SELECT 1 FROM claims c WHERE c.tx = r.tx
        AND c.state IN ('settled', 'consumed', 'refunded'))) AS wanted
FROM receipts r LEFT JOIN sent s ON s.tx = r.tx LEFT JOIN batches b ON b.tx = r.tx
WHERE r.final = 0 AND (r.block > ? OR r.block <= ?) ORDER BY r.block, r.tx
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A transaction and the block in which it was seen. ``signed`` where we sent it; ``wanted`` if
    what it brought still counts, so that it has to be brought again."""

    tx: str
    block: int
    block_hash: str
    signed: SignedTx | None
    wanted: bool


def note_receipt(db: sqlite3.Connection, receipt: Receipt | None) -> None:
    """Write down where a transaction was mined and what it cost, within a write."""
    if receipt is None:
        return
    db.execute(
        "INSERT INTO receipts (tx, block, block_hash, gas_used, gas_price, own)"
        " VALUES (?1,?2,?3,?4,?5, EXISTS (SELECT 1 FROM sent WHERE tx = ?1)"
        "                         OR EXISTS (SELECT 1 FROM batches WHERE tx = ?1))"
        " ON CONFLICT (tx) DO UPDATE SET block = ?2, block_hash = ?3, gas_used = ?4,"
        " gas_price = ?5, final = final AND block_hash = ?3",
        (
            *(receipt.tx_hash, receipt.block_number, receipt.block_hash),
            *(receipt.gas_used, receipt.gas_price),
        ),
    )


def newest(db: sqlite3.Connection) -> tuple[int, str] | None:
    """Number and hash of the last block whose payments a reorganisation may still undo."""
    row = db.execute(
        "SELECT block, block_hash FROM receipts WHERE final = 0 ORDER BY block DESC LIMIT 1"
    ).fetchone()
    return None if row is None else (row["block"], row["block_hash"])


def not_final(db: sqlite3.Connection, *, above: int, upto: int) -> list[Placed]:
    """What a reorganisation may still undo, oldest first, in the blocks above one number and up to
    another."""
    return [_placed(row) for row in db.execute(_NOT_FINAL, (above, upto))]


def finalize(db: sqlite3.Connection, block: int) -> None:
    """Nothing up to that block is undone any more: the signed bytes have done their work."""
    db.execute(
        "UPDATE sent SET raw = NULL WHERE raw IS NOT NULL AND tx IN"
        " (SELECT tx FROM receipts WHERE final = 0 AND block <= ?)",
        (block,),
    )
    db.execute(
        "UPDATE claims SET request = NULL WHERE request IS NOT NULL AND tx IN"
        " (SELECT tx FROM receipts WHERE final = 0 AND block <= ?)",
        (block,),
    )
    db.execute("UPDATE receipts SET final = 1 WHERE final = 0 AND block <= ?", (block,))


def take_back(db: sqlite3.Connection, txs: Iterable[str], now: float) -> None:
    """Their block is no longer the chain's: what they proved is open again.

    Payments stay what they are, marked with the time; refunds are on their way again.
    """
    for tx in txs:
        db.execute("DELETE FROM receipts WHERE tx = ?", (tx,))
        db.execute(
            "UPDATE claims SET reorged_at = ?, reorgs = reorgs + 1 WHERE tx = ?"
            " AND reorged_at IS NULL AND state IN ('settled', 'consumed', 'refunded')",
            (now, tx),
        )
        db.execute(
            "UPDATE batches SET state = 'sent', done_at = NULL WHERE tx = ? AND state = 'done'",
            (tx,),
        )


def _placed(row: sqlite3.Row) -> Placed:
    signed = None
    if row["raw"] is not None:
        signed = SignedTx(row["raw"], row["tx"], row["tx_nonce"])
    return Placed(row["tx"], row["block"], row["block_hash"], signed, bool(row["wanted"]))
