"""Sending transactions from one account: one nonce counter, no gaps, and nothing sent twice."""

from __future__ import annotations

import asyncio
import time

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.tx import SignedTx, sign_transaction
from computeswarm.chain.wire import Receipt
from computeswarm.core.crypto import PrivateKey

_FEES_SECONDS = 5.0
_GAS_TRANSFER = 21_000
_GAS_MARGIN = 5  # an estimate is raised by a fifth: storage may have changed until it is mined
_FIRST_POLL = 0.001
_LAST_POLL = 0.5
_POLL_GROWTH = 1.5


class TxSender:
    """All transactions of one key on one chain. Only one may exist for a key.

    ``prepare`` reserves a nonce and signs; the caller stores the signed bytes, then broadcasts
    them. A nonce is given back only where the node surely refused its transaction; while the
    answer is unknown it stays taken, and the same bytes may be broadcast again.
    """

    def __init__(self, rpc: RpcClient, key: PrivateKey, chain_id: int) -> None:
        self._rpc = rpc
        self._key = key
        self._chain_id = chain_id
        self._lock = asyncio.Lock()
        self._next_nonce: int | None = None
        self._returned: set[int] = set()
        self._fees: tuple[int, int] = (0, 0)
        self._fees_until = 0.0

    @property
    def address(self) -> str:
        """The account."""
        return self._key.address

    async def prepare(
        self, to: str, data: bytes = b"", *, value: int = 0, gas: int | None = None
    ) -> SignedTx:
        """Reserve the next nonce and sign; nothing is sent yet.

        Without ``gas`` it is estimated first, so that a transaction that would revert is refused
        before it has a nonce.

        Raises:
            RpcError: it would revert, with the reason.
            RpcUnavailable: the chain doesn't answer; nothing was reserved.
        """
        if gas is None:
            estimate = await self._rpc.estimate_gas(to, data, sender=self.address, value=value)
            gas = estimate + estimate // _GAS_MARGIN
        await self._current_fees()
        async with self._lock:
            return await self._sign(await self._take_nonce(), to, data, value, gas)

    async def broadcast(self, signed: SignedTx) -> None:
        """Send signed bytes; again is fine.

        Raises:
            RpcError: refused. The nonce is free again, and these bytes must not be sent any more.
            RpcUnavailable: unknown. The nonce stays reserved: send the same bytes again, or find
                the receipt.
        """
        try:
            await self._rpc.send_raw(signed.raw)
        except RpcError:
            await self.release(signed)
            raise

    async def release(self, signed: SignedTx) -> None:
        """Give back the nonce of a transaction that was never sent, or surely refused.

        Where later ones are on their way, they would wait for it: an empty transaction to
        ourselves takes its place at once.
        """
        async with self._lock:
            self._returned.add(signed.nonce)
            if self._next_nonce is not None and signed.nonce + 1 < self._next_nonce:
                await self._fill_gap()

    async def unblock(self, signed: SignedTx) -> None:
        """Fill the gap that a transaction waits behind, if there is one: an earlier nonce of which
        no node knows, because its own transaction was never sent (a crash, or no gas to fill it).

        For a transaction whose receipt does not come in good time; one nonce at a call.

        Raises:
            RpcError, RpcUnavailable: not now; the next call may do better.
        """
        async with self._lock:
            missing = await self._rpc.nonce(self.address)
            if missing < signed.nonce:
                filler = await self._sign(missing, self.address, b"", 0, _GAS_TRANSFER)
                await self._rpc.send_raw(filler.raw)
                self._returned.discard(missing)

    async def wait_receipt(self, tx_hash: str, *, timeout: float = 60.0) -> Receipt:
        """Poll for the receipt, after 1 ms at first, later every 0.5 s.

        Raises:
            RpcUnavailable: none within ``timeout`` seconds, which means unknown and not failed.
        """
        deadline = time.monotonic() + timeout
        pause = _FIRST_POLL
        while True:
            try:
                if (found := await self._rpc.receipt(tx_hash)) is not None:
                    return found
            except RpcUnavailable:
                if time.monotonic() >= deadline:
                    raise
            if time.monotonic() >= deadline:
                raise RpcUnavailable(
                    f"Transaction {tx_hash} is not in a block after {timeout:g} s;"
                    " it may still come, look again later."
                )
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * _POLL_GROWTH, _LAST_POLL)

    async def gas_price(self) -> int:
        """What a unit of gas costs about now, in wei."""
        max_fee, priority = await self._current_fees()
        return (max_fee - priority) // 2 + priority

    async def _current_fees(self) -> tuple[int, int]:
        """The fees asked a moment ago still do: the max fee leaves room for many blocks."""
        now = time.monotonic()
        if now >= self._fees_until:
            self._fees = await self._rpc.fees()
            self._fees_until = now + _FEES_SECONDS
        return self._fees

    async def _sign(self, nonce: int, to: str, data: bytes, value: int, gas: int) -> SignedTx:
        max_fee, priority_fee = await self._current_fees()
        return sign_transaction(
            self._key,
            chain_id=self._chain_id,
            nonce=nonce,
            to=to,
            data=data,
            value=value,
            gas=gas,
            max_fee=max_fee,
            priority_fee=priority_fee,
        )

    async def _take_nonce(self) -> int:
        if self._returned and (reclaimed := await self._reclaim()) is not None:
            return reclaimed
        if self._next_nonce is None:
            self._next_nonce = await self._rpc.nonce(self.address)
        self._next_nonce += 1
        return self._next_nonce - 1

    async def _reclaim(self) -> int | None:
        """A returned nonce, unless the chain has used them all; the counter catches up with it."""
        mined = await self._rpc.nonce(self.address, "latest")
        self._next_nonce = max(self._next_nonce or 0, mined)
        self._returned = {nonce for nonce in self._returned if nonce >= mined}
        if not self._returned:
            return None
        nonce = min(self._returned)
        self._returned.remove(nonce)
        return nonce

    async def _fill_gap(self) -> None:
        nonce = None
        try:
            if (nonce := await self._reclaim()) is not None:
                filler = await self._sign(nonce, self.address, b"", 0, _GAS_TRANSFER)
                await self._rpc.send_raw(filler.raw)
        except (RpcError, RpcUnavailable):
            if nonce is not None:
                self._returned.add(nonce)  # the next transaction will take it
