"""Moving the channels' money: claims, settlements and refunds, many channels in one transaction.

A worker watches the channels that owe the seller something and acts where it is time: a job has
ended, a buyer asked for his money, a withdrawal is pending on chain, or too much stands unclaimed.
What is to be done is in the channels' rows, so a crash at any moment loses none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from computeswarm.chain.batch_settlement import (
    BatchSettlement,
    VoucherClaim,
    claim_calldata,
    claimed,
    multicall_calldata,
    refund_calldata,
    refund_proof,
    settle_calldata,
    settled_amount,
)
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.tx import SignedTx
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, ComputeSwarmError
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.records import Channel, Payout
from computeswarm.payments.channels.states import PayoutState
from computeswarm.payments.channels.store import ChannelStore

_log = logging.getLogger(__name__)

MAX_BATCH = 40
"""Channels in one transaction: some 4 million gas, a small part of a block."""
SETTLED_DEPTH = 20
"""Blocks after which neither an account's nonce nor a receipt is taken back."""
_RECEIPT_SECONDS = 20.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class PayoutPolicy:
    """When money is moved.

    Args:
        exposure: atoms that may stand unclaimed over all channels before they are claimed.
        dust: what a finished job must owe for a claim of its own, in atoms; less waits for more.
        watch_seconds: how often channels that owe something are looked up on chain. It has to be
            a small part of the withdraw delay: so long a withdrawal goes unnoticed.
    """

    exposure: int = 5_000_000
    dust: int = 1_000
    watch_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class _Delay:
    until: float
    pause: float


class PayoutWorker:
    """Claims, settles and refunds from the seller's own key, which is the channels' authorizer.

    Args:
        on_round: called each time before the worker looks what is to do.
        on_moved: told when a receipt has changed channels.
        revisit: looks after other transactions whose block may be taken back.
    """

    def __init__(
        self,
        channels: ChannelStore,
        payouts: PayoutStore,
        rpc: RpcClient,
        contract: BatchSettlement,
        sender: TxSender,
        clock: Clock,
        policy: PayoutPolicy,
        *,
        on_round: Callable[[], Awaitable[None]],
        on_moved: Callable[[], Awaitable[None]],
        revisit: Callable[[int], Awaitable[None]],
    ) -> None:
        self._channels = channels
        self._payouts = payouts
        self._rpc = rpc
        self._contract = contract
        self._sender = sender
        self._clock = clock
        self._policy = policy
        self._on_round = on_round
        self._on_moved = on_moved
        self._revisit = revisit
        self._delays: dict[str, _Delay] = {}
        self._look_back_at = 0.0
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._rounds = asyncio.Lock()

    def start(self) -> None:
        """Drop what was planned and never signed, and begin."""
        for payout in self._payouts.in_state(PayoutState.PLANNED):
            self._payouts.lose(payout)
        self._worker = asyncio.create_task(self._work())

    async def close(self, *, claim_seconds: float) -> None:
        """Claim what stands open, for so many seconds at most, and stop."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        if claim_seconds <= 0:
            return
        try:
            async with asyncio.timeout(claim_seconds):
                await self._round(exposure=0)
        except (TimeoutError, ComputeSwarmError) as error:
            _log.warning("not all could be claimed now, so it will be later: %s", error)

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    async def moved(self) -> None:
        """Wait until a payout is proven."""
        self._moved.clear()
        await self._moved.wait()

    async def _work(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            try:
                await self._round(exposure=self._policy.exposure)
            except ComputeSwarmError as error:
                _log.warning("claims have to wait: %s", error.detail)
                wait, pause = pause, min(pause * 2, _LAST_RETRY_SECONDS)
            except Exception:
                _log.exception("claims have to wait")
                wait, pause = pause, min(pause * 2, _LAST_RETRY_SECONDS)
            else:
                pause = _FIRST_RETRY_SECONDS
                wait = min(self._policy.watch_seconds, self._next_retry())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _round(self, *, exposure: int) -> None:
        async with self._rounds:
            await self._on_round()
            for payout in self._payouts.in_state(PayoutState.BROADCAST):
                await self._finish(payout)
            await self._watch()
            due = [
                channel.channel_id
                for channel in self._payouts.due(exposure, self._policy.dust)
                if self._may_try(channel.channel_id)
            ]
            for start in range(0, len(due), MAX_BATCH):
                await self._pay([(name, True) for name in due[start : start + MAX_BATCH]])
            if time.monotonic() >= self._look_back_at:
                self._look_back_at = time.monotonic() + self._policy.watch_seconds
                await self._revisit(SETTLED_DEPTH)
                await self._look_back()

    async def _watch(self) -> None:
        """Mirror the channels that owe something and were not looked up for a while."""
        old = self._clock.now() - self._policy.watch_seconds
        names = [
            channel.channel_id for channel in self._channels.owing() if channel.synced_at <= old
        ]
        for start in range(0, len(names), MAX_BATCH):
            chunk = names[start : start + MAX_BATCH]
            states = await self._contract.states(chunk)
            for name, state in zip(chunk, states, strict=True):
                self._channels.sync(name, state, self._clock.now())

    async def _pay(self, wanted: Sequence[tuple[str, bool]]) -> None:
        """Send one transaction for these channels; those that spoil it are tried by themselves."""
        payout = self._payouts.plan(wanted, self._clock.now())
        if payout is None:
            await self._on_moved()
            self._moved.set()
            return
        try:
            signed = await self._sender.prepare(self._contract.address, self._calldata(payout))
        except RpcError as error:
            self._payouts.lose(payout)
            await self._spoilt(wanted, error)
            return
        except BaseException:
            self._payouts.lose(payout)
            raise
        try:
            payout = self._payouts.broadcast(payout, signed)
        except BaseException:
            self._payouts.lose(payout)
            await self._sender.release(signed)
            raise
        try:
            await self._sender.broadcast(signed)
        except RpcError as error:
            self._payouts.lose(payout)
            _log.warning("the chain refused a claim: %s", error.message)
            raise ChainUnavailable("The chain takes no claims now; they are tried again.") from None
        await self._finish(payout)

    async def _spoilt(self, wanted: Sequence[tuple[str, bool]], error: RpcError) -> None:
        """Somebody's part can't be done (a blocked payer, a stale mirror): split, then narrow."""
        if len(wanted) > 1:
            half = len(wanted) // 2
            await self._pay(wanted[:half])
            await self._pay(wanted[half:])
            return
        ((name, with_refund),) = wanted
        _log.warning("a channel can't be paid out (%s): %s", name, error.reason or error.message)
        await self._renew([name])
        before = self._delays.get(name)
        pause = min(before.pause * 2, _LAST_RETRY_SECONDS) if before else _FIRST_RETRY_SECONDS
        self._delays[name] = _Delay(time.monotonic() + pause, pause)
        if with_refund and self._channels.get(name).unclaimed:
            await self._pay([(name, False)])  # what is ours doesn't wait for him

    def _may_try(self, name: str) -> bool:
        delay = self._delays.get(name)
        return delay is None or time.monotonic() >= delay.until

    def _next_retry(self) -> float:
        ends = [delay.until - time.monotonic() for delay in self._delays.values()]
        return max(0.05, min(ends, default=self._policy.watch_seconds))

    def _calldata(self, payout: Payout) -> bytes:
        channels = {item.channel_id: self._channels.get(item.channel_id) for item in payout.items}
        claims = [
            _claim(channels[item.channel_id], item.claim_to)
            for item in payout.items
            if item.claim_to
        ]
        calls = [claim_calldata(claims)] if claims else []
        calls += [
            refund_calldata(channels[item.channel_id].config, item.refund)
            for item in payout.items
            if item.refund
        ]
        if claims:
            calls += [settle_calldata(*pair) for pair in sorted(_receivers(channels.values()))]
        return multicall_calldata(calls)

    async def _finish(self, payout: Payout) -> None:
        """See a broadcast payout through.

        Raises:
            ChainUnavailable: its fate is not known; the next round goes on with it.
        """
        signed = payout.signed_tx
        assert signed is not None
        receipt = await self._rpc.receipt(signed.hash)
        if receipt is None:
            try:
                await self._rpc.send_raw(signed.raw)
            except RpcError:
                if await self._lost(payout):
                    self._payouts.lose(payout)
                    return
                raise ChainUnavailable("A claim's fate is not known yet.") from None
            receipt = await self._receipt(signed)
        self._channels.note_gas(receipt)
        names = [item.channel_id for item in payout.items]
        if not receipt.succeeded:
            _log.warning("a payout reverted; its channels are looked up again")
            self._payouts.lose(payout)
            await self._renew(names)
            self._delay(names)
            return
        self._record(payout, receipt)
        for name in names:
            self._delays.pop(name, None)
        with contextlib.suppress(ChainUnavailable):  # the next look does it
            await self._renew(names)
        await self._on_moved()
        self._moved.set()

    async def _receipt(self, signed: SignedTx) -> Receipt:
        try:
            return await self._sender.wait_receipt(signed.hash, timeout=_RECEIPT_SECONDS)
        except ChainUnavailable:
            with contextlib.suppress(RpcError, ChainUnavailable):
                await self._sender.unblock(signed)  # it may wait behind a nonce never sent
            raise

    def _record(self, payout: Payout, receipt: Receipt) -> None:
        channels = [self._channels.get(item.channel_id) for item in payout.items]
        moved = {
            channel.channel_id: (
                claimed(receipt, channel.channel_id),
                refund_proof(receipt, channel.channel_id),
            )
            for channel in channels
        }
        settled = sum(settled_amount(receipt, *pair) for pair in _receivers(channels))
        self._payouts.mined(
            payout,
            moved,
            settled=settled,
            block=receipt.block_number,
            now=self._clock.now(),
        )

    def _delay(self, names: Sequence[str]) -> None:
        for name in names:
            self._delays[name] = _Delay(
                time.monotonic() + _FIRST_RETRY_SECONDS, _FIRST_RETRY_SECONDS
            )

    async def _renew(self, names: Sequence[str]) -> None:
        states = await self._contract.states(names)
        for name, state in zip(names, states, strict=True):
            self._channels.sync(name, state, self._clock.now())

    async def _lost(self, payout: Payout) -> bool:
        """Whether another transaction took the nonce so long ago that this one can't have it."""
        assert payout.signed_tx is not None
        head = await self._rpc.block_number()
        if head < SETTLED_DEPTH:
            return False
        settled = await self._rpc.nonce(self._sender.address, hex(head - SETTLED_DEPTH))
        missing = await self._rpc.receipt(payout.signed_tx.hash) is None
        return missing and settled > payout.signed_tx.nonce

    async def _look_back(self) -> None:
        """Whether a reorg took a payout's block; then the same bytes go out again."""
        mined = self._payouts.shallow()
        if not mined:
            return
        head = await self._rpc.block_number()
        for payout in mined:
            assert payout.signed_tx is not None
            receipt = await self._rpc.receipt(payout.transaction)
            if receipt is None:
                _log.warning("payout %s left the chain; it is sent again", payout.transaction)
                await self._finish(self._payouts.again(payout))
            elif head - receipt.block_number >= SETTLED_DEPTH:
                self._payouts.final(payout)


def _claim(channel: Channel, total: int) -> VoucherClaim:
    return VoucherClaim(channel.config, channel.signed_max, channel.signature, total)


def _receivers(channels: Iterable[Channel]) -> set[tuple[str, str]]:
    return {(channel.config.receiver, channel.config.token) for channel in channels}
