"""Refunds: durable debts to buyers, sent as few transfers as can be, and none of them twice.

Debts to one buyer travel together in a batch. A batch's signed transfer is on disk before it is
broadcast, and after a crash the same bytes are sent again. A batch is only given up where its bytes
surely can't be mined any more; until then its debts stay with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import Usdc, transfer_calldata
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import to_checksum
from computeswarm.core.errors import ChainUnavailable, ComputeSwarmError
from computeswarm.payments.claims import ClaimStore
from computeswarm.payments.receipts import note_receipt

_log = logging.getLogger(__name__)

DUST_ATOMS = 1_000
"""A smaller debt ($0.001) costs more gas than it is worth; it waits for the buyer's next refund."""
_RECEIPT_SECONDS = 20.0
_IDLE_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 1.0
_SETTLED_DEPTH = 20  # blocks after which an account's nonce is not taken back


@dataclass(frozen=True, slots=True)
class RefundRow:
    """One debt, in atoms. ``transaction`` is empty until a receipt proved the transfer."""

    subject: str
    recipient: str
    amount: int
    state: Literal["owed", "sent", "done"]
    transaction: str


@dataclass(frozen=True, slots=True)
class _Batch:
    id: int
    recipient: str
    amount: int
    signed: SignedTx


@dataclass(frozen=True, slots=True)
class _Delay:
    """When a recipient who could not be paid is tried again (monotonic), after what pause."""

    until: float
    pause: float


class RefundQueue:
    """The debts in the claims' database, and the worker that pays them."""

    def __init__(
        self,
        store: ClaimStore,
        rpc: RpcClient,
        usdc: Usdc,
        sender: TxSender,
        clock: Clock,
        on_refunded: Callable[[RefundRow], Awaitable[None]] | None,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._on_refunded = on_refunded
        self._delays: dict[str, _Delay] = {}
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to pay."""
        self._worker = asyncio.create_task(self._work())

    def wake(self) -> None:
        """Look at once: something may be due, or have to be sent again."""
        self._wake.set()

    async def close(self) -> None:
        """Stop; what is unpaid is paid after the next start."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def add(self, subject: str, to: str, amount: int) -> RefundRow:
        """Write the debt down, once per subject. A whole refund marks the job's claims refunded."""
        if amount <= 0:
            raise ValueError("a refund is more than nothing")
        paid = sum(claim.amount for claim in self._store.of_job(subject) if claim.state.paid)
        with self._store.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO refunds (subject, recipient, amount, created_at)"
                " VALUES (?,?,?,?)",
                (subject, to_checksum(to), amount, self._clock.now()),
            )
            if amount >= paid:
                self._store.refund_job(db, subject)
        self._wake.set()
        return self.of(subject)[0]

    def of(self, subject: str) -> list[RefundRow]:
        """The debts of a subject."""
        return self._rows("r.subject = ?", subject)

    async def _work(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            try:
                await self._round()
            except ComputeSwarmError as error:
                _log.warning("refunds have to wait: %s", error.detail)
            except Exception:
                _log.exception("refunds have to wait")
            else:
                pause = _FIRST_RETRY_SECONDS
                await self._wait(self._next_retry())
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _IDLE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        # not wait_for: before Python 3.12 it swallows a cancellation that meets the event
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _round(self) -> None:
        """Finish what was sent, then send what is due. Whoever can't be paid waits by himself."""
        for batch in self._sent():
            if self._may_try(batch.recipient):
                self._tried(batch.recipient, paid=await self._finish(batch))
        doubtful = {claim.payer for claim in self._store.reorged()}
        for recipient, amount in self._due():
            if recipient not in doubtful and self._may_try(recipient):
                self._tried(recipient, paid=await self._pay(recipient, amount))
        unpaid = {batch.recipient for batch in self._sent()} | {to for to, _ in self._due()}
        self._delays = {to: delay for to, delay in self._delays.items() if to in unpaid}

    def _may_try(self, recipient: str) -> bool:
        delay = self._delays.get(recipient)
        return delay is None or time.monotonic() >= delay.until

    def _tried(self, recipient: str, *, paid: bool) -> None:
        before = self._delays.pop(recipient, None)
        if not paid:
            pause = min(before.pause * 2, _IDLE_SECONDS) if before else _FIRST_RETRY_SECONDS
            self._delays[recipient] = _Delay(time.monotonic() + pause, pause)

    def _next_retry(self) -> float:
        """Seconds until somebody may be tried again."""
        ends = (delay.until - time.monotonic() for delay in self._delays.values())
        return max(0.0, min(ends, default=_IDLE_SECONDS))

    def _sent(self) -> list[_Batch]:
        rows = self._store.db.execute("SELECT * FROM batches WHERE state = 'sent' ORDER BY id")
        return [
            _Batch(
                row["id"],
                row["recipient"],
                row["amount"],
                SignedTx(row["raw"], row["tx"], row["tx_nonce"]),
            )
            for row in rows
        ]

    def _due(self) -> list[tuple[str, int]]:
        rows = self._store.db.execute(
            "SELECT recipient, SUM(amount) FROM refunds WHERE batch IS NULL"
            " GROUP BY recipient HAVING SUM(amount) >= ? ORDER BY MIN(id)",
            (DUST_ATOMS,),
        )
        return [(row[0], row[1]) for row in rows.fetchall()]

    async def _pay(self, recipient: str, amount: int) -> bool:
        try:
            signed = await self._sender.prepare(
                self._usdc.address, transfer_calldata(recipient, amount)
            )
        except RpcError as error:
            _log.warning("a refund to %s can't be sent: %s", recipient, error.reason)
            return False
        try:
            batch = self._assign(recipient, amount, signed)
        except BaseException:
            await self._sender.release(signed)
            raise
        if batch is None:  # another debt to him came in meanwhile: next round
            await self._sender.release(signed)
            return False
        try:
            await self._sender.broadcast(signed)
        except RpcError as error:
            _log.warning("the chain refused a refund: %s", error.message)
            self._give_up(batch)
            return False
        except ChainUnavailable:
            return False
        return await self._finish(batch)

    def _assign(self, recipient: str, amount: int, signed: SignedTx) -> _Batch | None:
        with self._store.write() as db:
            mine = "batch IS NULL AND recipient = ?"
            row = db.execute(f"SELECT SUM(amount) FROM refunds WHERE {mine}", (recipient,))  # noqa: S608
            if row.fetchone()[0] != amount:
                return None
            cursor = db.execute(
                "INSERT INTO batches (recipient, amount, raw, tx, tx_nonce, state)"
                " VALUES (?,?,?,?,?,'sent')",
                (recipient, amount, signed.raw, signed.hash, signed.nonce),
            )
            batch_id = int(cursor.lastrowid or 0)
            db.execute(f"UPDATE refunds SET batch = ? WHERE {mine}", (batch_id, recipient))  # noqa: S608
        return _Batch(batch_id, recipient, amount, signed)

    async def _finish(self, batch: _Batch) -> bool:
        receipt = await self._rpc.receipt(batch.signed.hash)
        if receipt is None:
            try:
                await self._rpc.send_raw(batch.signed.raw)
            except RpcError:
                if await self._lost(batch):
                    self._give_up(batch)
                return False
            receipt = await self._receipt(batch)
        sender = self._sender.address
        if self._usdc.transfer_proof(receipt, sender, batch.recipient, batch.amount):
            await self._done(batch, receipt)
            return True
        _log.warning("a refund to %s reverted", batch.recipient)
        self._give_up(batch, receipt)
        return False

    async def _receipt(self, batch: _Batch) -> Receipt:
        try:
            return await self._sender.wait_receipt(batch.signed.hash, timeout=_RECEIPT_SECONDS)
        except RpcUnavailable:
            with contextlib.suppress(RpcError):
                await self._sender.unblock(batch.signed)
            raise

    async def _lost(self, batch: _Batch) -> bool:
        """Whether another transaction took the nonce so long ago that this one can't have it."""
        head = await self._rpc.block_number()
        if head < _SETTLED_DEPTH:
            return False
        settled = await self._rpc.nonce(self._sender.address, hex(head - _SETTLED_DEPTH))
        missing = await self._rpc.receipt(batch.signed.hash) is None
        return missing and settled > batch.signed.nonce

    def _give_up(self, batch: _Batch, receipt: Receipt | None = None) -> None:
        with self._store.write() as db:
            note_receipt(db, receipt)
            db.execute("UPDATE batches SET state = 'lost' WHERE id = ?", (batch.id,))
            db.execute("UPDATE refunds SET batch = NULL WHERE batch = ?", (batch.id,))

    async def _done(self, batch: _Batch, receipt: Receipt) -> None:
        with self._store.write() as db:
            note_receipt(db, receipt)
            db.execute(
                "UPDATE batches SET state = 'done', done_at = ? WHERE id = ?",
                (self._clock.now(), batch.id),
            )
        if self._on_refunded is not None:
            for row in self._rows("r.batch = ?", batch.id):
                await self._on_refunded(row)

    def _rows(self, where: str, value: object) -> list[RefundRow]:
        rows = self._store.db.execute(
            "SELECT r.subject, r.recipient, r.amount, b.state, b.tx FROM refunds r"  # noqa: S608
            f" LEFT JOIN batches b ON b.id = r.batch WHERE {where} ORDER BY r.id",
            (value,),
        )
        return [_refund(row) for row in rows]


def _refund(row: sqlite3.Row) -> RefundRow:
    done = row["state"] == "done"
    state: Literal["owed", "sent", "done"] = "done" if done else "sent" if row["state"] else "owed"
    return RefundRow(
        row["subject"], row["recipient"], row["amount"], state, row["tx"] if done else ""
    )
