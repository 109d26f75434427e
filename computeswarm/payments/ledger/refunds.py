"""What sellers owe the buyer, and what came of it: kept here, so that it outlives the seller.

A refund is *owed* from the moment the seller's view of a job names it, *told* once he names its
transaction, and *done* when our own look at the chain has found the transfer in it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from computeswarm.chain.batch import BatchClient
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.transfers import transfers_in
from computeswarm.chain.usdc import Usdc
from computeswarm.payments.ledger.entries import is_hash
from computeswarm.payments.storage import connect, transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS refunds (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    peer TEXT NOT NULL,
    wallet TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    tx TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    block INTEGER,
    created_at REAL NOT NULL,
    done_at REAL
);
CREATE INDEX IF NOT EXISTS refunds_by_job ON refunds (job_id);
CREATE INDEX IF NOT EXISTS refunds_by_state ON refunds (state);
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a seller's view says of a job's refund: ``amount`` atoms in all, and the transaction of
    the first part, empty until he names it."""

    job_id: str
    peer: str
    wallet: str
    chain_id: int
    amount: int
    transaction: str


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    peer: str
    wallet: str
    amount: int
    tx: str


class RefundBook:
    """The refunds in the payments journal's file; several processes may share it.

    Raises:
        StorageFull: there is no room; whatever was to be written was not.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def told(self, promise: Promise, now: float) -> None:
        """Keep what a seller says; again changes nothing, and he can't take back what he owes.

        Where the sum has grown, the rest is a debt of its own: a slice that came too late goes
        back apart.
        """
        tx = promise.transaction.lower() if is_hash(promise.transaction) else ""
        if not self._is_news(promise, tx, self._of_job(promise.job_id)):
            return
        with transaction(self._db) as db:
            rows = self._of_job(promise.job_id)  # another process may have heard it meanwhile
            if not self._is_news(promise, tx, rows):
                return
            if rows and tx and not rows[0].tx:
                db.execute(
                    "UPDATE refunds SET tx = ?, state = 'told' WHERE id = ?", (tx, rows[0].id)
                )
            known = sum(row.amount for row in rows)
            if promise.amount > known:
                tx = "" if rows else tx
                db.execute(
                    "INSERT INTO refunds (job_id, peer, wallet, chain_id, amount, tx, state,"
                    " created_at) VALUES (?,?,?,?,?,?,?,?)",
                    (
                        *(promise.job_id, promise.peer, promise.wallet),
                        *(promise.chain_id, promise.amount - known, tx),
                        *("told" if tx else "owed", now),
                    ),
                )

    @staticmethod
    def _is_news(promise: Promise, tx: str, rows: Sequence[_Row]) -> bool:
        """Whether he owes more than is written down, or names the first transaction only now."""
        unnamed = not rows or not rows[0].tx
        return promise.amount > sum(row.amount for row in rows) or (unnamed and tx != "")

    def owed_jobs(self) -> list[str]:
        """The jobs with a debt of which no transaction is known, oldest first."""
        rows = self._db.execute(
            "SELECT job_id FROM refunds WHERE state = 'owed' GROUP BY job_id ORDER BY MIN(id)"
        )
        return [row[0] for row in rows]

    def unproven(self, chain_id: int) -> bool:
        """Whether a seller named a transaction that we have not looked at."""
        query = "SELECT 1 FROM refunds WHERE state = 'told' AND chain_id = ? LIMIT 1"
        return self._db.execute(query, (chain_id,)).fetchone() is not None

    async def prove(self, rpc: RpcClient, usdc: Usdc, now: float) -> int:
        """Look on the chain for the transactions that sellers named; how many were found.

        One transfer may pay several debts of a seller. What it brings beyond those that name it
        settles others of his, where they fit to the atom.

        Raises:
            RpcUnavailable: the chain doesn't say; what was told stays told.
        """
        told = self._rows("state = 'told' AND chain_id = ?", usdc.chain.chain_id)
        receipts = await BatchClient(rpc).receipts(row.tx for row in told)
        groups: dict[tuple[str, str, str], list[_Row]] = defaultdict(list)
        for row in told:
            groups[row.tx, row.peer, row.wallet].append(row)
        found = 0
        for (tx, peer, wallet), rows in groups.items():
            receipt = receipts[tx]
            if receipt is None:
                continue
            moved = [t.amount for t in transfers_in(receipt, usdc, peer, wallet)]
            before = self._rows("state = 'done' AND tx = ? AND wallet = ?", tx, wallet)
            paid = sum(row.amount for row in (*rows, *before) if row.peer == peer)
            rest = sum(moved) - paid
            if rest < 0:
                continue
            if rest:
                rows = [*rows, *self._fitting(peer, wallet, rest)]
            self.arrived([row.id for row in rows], tx, receipt.block_number, now)
            found += len(rows)
        return found

    def arrived(self, ids: Sequence[int], tx: str, block: int, now: float) -> None:
        """The chain shows that this transaction paid these debts."""
        with transaction(self._db) as db:
            db.executemany(
                "UPDATE refunds SET state = 'done', tx = ?, block = ?, done_at = ?"
                " WHERE id = ? AND state != 'done'",
                [(tx, block, now, row_id) for row_id in ids],
            )

    def _fitting(self, peer: str, wallet: str, rest: int) -> list[_Row]:
        """Debts without a transaction that make up exactly ``rest`` atoms, the oldest first."""
        taken = []
        owed = "state = 'owed' AND peer = ? AND wallet = ? ORDER BY id"
        for row in self._rows(owed, peer, wallet):
            if row.amount <= rest:
                taken.append(row)
                rest -= row.amount
        return [] if rest else taken

    def _of_job(self, job_id: str) -> list[_Row]:
        return self._rows("job_id = ? ORDER BY id", job_id)

    def _rows(self, where: str, *values: object) -> list[_Row]:
        query = f"SELECT id, peer, wallet, amount, tx FROM refunds WHERE {where}"  # noqa: S608
        rows: list[sqlite3.Row] = self._db.execute(query, values).fetchall()
        return [_Row(*row) for row in rows]
