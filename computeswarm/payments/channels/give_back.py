"""Cooperative refunds: a buyer asks for what is left of his channel, and the seller gives it."""

from __future__ import annotations

import asyncio

from computeswarm.core.chains import ChainInfo
from computeswarm.core.errors import PaymentPending, PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.charges import ChannelRefund
from computeswarm.payments.channels.gate import VoucherGate
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.payouts import PayoutWorker
from computeswarm.payments.channels.present import PresentedChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import ALL_THAT_IS_LEFT, Channel
from computeswarm.payments.channels.states import ChannelState
from computeswarm.payments.channels.store import ChannelStore
from computeswarm.payments.present import refused

PARTS, SMALLEST_PART = 10, 1_000
"""A part of a channel's rest that is given back is a tenth of it at least, and so many atoms."""


class GiveBack:
    """Notes refunds that buyers ask for, and waits for the worker to prove them.

    Args:
        settle_seconds: how long ``refund`` waits before it answers "pending".
    """

    def __init__(
        self,
        chain: ChainInfo,
        store: ChannelStore,
        rows: PayoutStore,
        gate: VoucherGate,
        worker: PayoutWorker,
        *,
        settle_seconds: float,
    ) -> None:
        self._chain = chain
        self._store = store
        self._rows = rows
        self._gate = gate
        self._worker = worker
        self._settle_seconds = settle_seconds

    async def refund(self, payment: PresentedChannel) -> ChannelRefund:
        """See ``SellerChannels.refund``."""
        async with self._gate.lock(payment.channel_id, patient=False):
            channel = await self._gate.channel(payment)
            self._gate.check_refund(channel, payment)
            if not _on_its_way(channel):
                if not _left(channel):
                    return self._given(channel)
                _check_part(payment.refund_amount, _left(channel))
                channel = self._store.keep_voucher(payment)
                asked = payment.refund_amount or ALL_THAT_IS_LEFT
                self._store.ask_refund(channel.channel_id, asked)
            last = self._rows.last_refund(payment.channel_id)
        before = 0 if last is None else last.id
        self._worker.wake()
        try:
            async with asyncio.timeout(self._settle_seconds):
                return await self._proven(payment.channel_id, before)
        except TimeoutError:
            raise PaymentPending(
                "The refund is not confirmed yet; ask for it again.",
                reason=Reason.SETTLEMENT_PENDING,
            ) from None

    async def _proven(self, channel_id: str, before: int) -> ChannelRefund:
        while True:
            payout = self._rows.last_refund(channel_id)
            channel = self._store.get(channel_id)
            if payout is not None and payout.id > before:
                return self._given(channel)
            if not _on_its_way(channel):
                raise _nothing_left()
            await self._worker.moved()

    def _given(self, channel: Channel) -> ChannelRefund:
        """The last refund of a channel: the answer to one that is asked for again."""
        payout = self._rows.last_refund(channel.channel_id)
        if payout is None:
            raise _nothing_left()
        amount = sum(i.refunded for i in payout.items if i.channel_id == channel.channel_id)
        return ChannelRefund(self._chain, channel, amount, payout.transaction)


def _left(channel: Channel) -> int:
    return max(0, channel.balance - max(channel.charged, channel.total_claimed))


def _on_its_way(channel: Channel) -> bool:
    return bool(channel.refund_asked) or channel.state is ChannelState.CLOSING


def _check_part(amount: int | None, left: int) -> None:
    """Whoever asks for crumbs again and again would have us pay for a transaction each time."""
    if amount is not None and amount < left and amount < max(left // PARTS, SMALLEST_PART):
        raise refused(
            ChannelReason.REFUND_AMOUNT,
            f"Ask for all of the {left} atoms that are left, or for a tenth of them at least.",
        )


def _nothing_left() -> PaymentRequired:
    return refused(ChannelReason.REFUND_NO_BALANCE, "Nothing is left in the channel to give back.")
