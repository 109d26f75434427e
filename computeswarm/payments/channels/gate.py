"""Judging vouchers by our own record, and keeping that record true to the chain.

A voucher is verified without the chain while our mirror of the channel is fresh. That is sound for
long: what a channel holds only falls by a refund of our own, or by a withdrawal that takes its
delay. So the mirror is renewed in the background, and a tick waits for the chain only where the
mirror is older than half of that delay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn
from weakref import WeakValueDictionary

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.errors import RpcError
from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, PaymentRequired
from computeswarm.payments.channels.charges import correction
from computeswarm.payments.channels.present import PresentedChannel, signed_voucher
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import Channel
from computeswarm.payments.channels.states import ChannelState
from computeswarm.payments.channels.store import ChannelStore
from computeswarm.payments.present import refused

_log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
"""How long a payment waits for another of its channel (a deposit may be on its way)."""


class VoucherGate:
    """Checks payments against one store and one chain.

    Args:
        fresh_seconds: how old the mirror may be before it is renewed in the background.
    """

    def __init__(
        self,
        store: ChannelStore,
        contract: BatchSettlement,
        chain: ChainInfo,
        clock: Clock,
        *,
        fresh_seconds: float,
    ) -> None:
        self._store = store
        self._contract = contract
        self._chain = chain
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._renewals: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Stop renewing."""
        tasks = list(self._renewals.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def lock(self, channel_id: str, *, patient: bool = True) -> AsyncIterator[None]:
        """One payment at a time for each channel.

        Raises:
            PaymentRequired: another one took too long (only where ``patient`` is False).
        """
        lock = self._locks.setdefault(channel_id, asyncio.Lock())
        try:
            async with asyncio.timeout(None if patient else LOCK_SECONDS):
                await lock.acquire()
        except TimeoutError:
            raise refused(
                ChannelReason.CHANNEL_BUSY, "Another payment of this channel is on its way."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def known_balance(self, channel_id: str) -> int:
        """What our mirror says the channel holds."""
        channel = self._store.find(channel_id)
        return 0 if channel is None else channel.balance

    async def channel(self, payment: PresentedChannel) -> Channel:
        """The channel of a voucher or a refund, fresh enough to judge by.

        Raises:
            PaymentRequired: there is none.
            ChainUnavailable: our record is too old, and the chain doesn't answer.
        """
        channel = self._store.find(payment.channel_id)
        if channel is None:
            self._check_signature(payment)
            state = await self._contract.state(payment.channel_id)
            if state.balance == 0:
                raise refused(
                    ChannelReason.CHANNEL_NOT_FOUND, "There is no money in this channel; deposit."
                )
            return self._store.adopt(payment, state, self._clock.now())
        age = self._clock.now() - channel.synced_at
        if age > channel.config.withdraw_delay / 2:
            return await self.renew(payment.channel_id)
        if age > self._fresh_seconds:
            self.renew_later(payment.channel_id)
        return channel

    def check_voucher(self, channel: Channel, payment: PresentedChannel, price: int) -> None:
        """Make sure that a voucher pays for a request of ``price`` atoms (0: a refund's).

        Raises:
            PaymentRequired: it doesn't; ``extra['corrective']`` has the channel's true sums where
                those are what is wrong.
        """
        self._check_signature(payment)
        self.check_sums(channel, payment, price)

    def check_refund(self, channel: Channel, payment: PresentedChannel) -> None:
        """Make sure that the channel's own key asks for its rest. One that is on its way may be
        joined, whatever the sums are by now.

        Raises: as ``check_voucher``.
        """
        self._check_signature(payment)
        if not channel.refunding:
            self.check_sums(channel, payment, 0)

    def check_sums(self, channel: Channel, payment: PresentedChannel, price: int) -> None:
        """``check_voucher`` of one whose signature is known to be good.

        Raises: as ``check_voucher``.
        """
        self._check_sum(channel, payment, price)
        if channel.state is ChannelState.CLOSING:
            raise refused(ChannelReason.CHANNEL_BUSY, "The channel is being closed.")
        if payment.max_claimable > channel.available:
            raise refused(
                ChannelReason.CUMULATIVE_EXCEEDS_BALANCE,
                f"The channel holds {channel.available} atoms; deposit more.",
            )

    async def check_deposit(self, payment: PresentedChannel, price: int, amount: int) -> None:
        """Make sure that the voucher of a deposit of ``amount`` atoms pays for its request.

        Raises: as ``check_voucher``; ChainUnavailable.
        """
        self._check_signature(payment)
        channel = self._store.find(payment.channel_id)
        if channel is None:
            state = await self._contract.state(payment.channel_id)
            if state.total_claimed + price != payment.max_claimable:
                self._mismatch_unknown(payment, state.total_claimed, state.balance)
            held = state.balance - state.withdraw_amount
        else:
            if channel.state is ChannelState.CLOSING:
                raise refused(ChannelReason.CHANNEL_BUSY, "The channel is being closed.")
            self._check_sum(channel, payment, price)
            held = channel.available
        if payment.max_claimable > held + amount:
            raise refused(
                ChannelReason.CUMULATIVE_EXCEEDS_BALANCE,
                "The voucher is for more than it then holds.",
            )

    def _check_signature(self, payment: PresentedChannel) -> None:
        if not signed_voucher(
            payment.config,
            payment.channel_id,
            payment.max_claimable,
            payment.signature,
            self._chain,
        ):
            raise refused(
                ChannelReason.VOUCHER_SIGNATURE, "The voucher is not signed by the channel's key."
            )

    def _check_sum(self, channel: Channel, payment: PresentedChannel, price: int) -> None:
        if payment.max_claimable != channel.charged + price:
            raise mismatch(channel)

    def _mismatch_unknown(
        self, payment: PresentedChannel, total_claimed: int, balance: int
    ) -> NoReturn:
        state = {
            "channelId": payment.channel_id,
            "balance": str(balance),
            "totalClaimed": str(total_claimed),
            "withdrawRequestedAt": 0,
            "refundNonce": "0",
            "chargedCumulativeAmount": str(total_claimed),
        }
        raise PaymentRequired(
            _MISMATCH,
            reason=ChannelReason.CUMULATIVE_MISMATCH,
            corrective={"channelState": state},
        )

    async def renew(self, channel_id: str) -> Channel:
        """Mirror the chain now.

        Raises:
            ChainUnavailable: it doesn't answer.
        """
        state = await self._contract.state(channel_id)
        return self._store.sync(channel_id, state, self._clock.now())

    def renew_later(self, channel_id: str) -> None:
        """Mirror the chain in the background, once at a time for each channel."""
        if channel_id in self._renewals:
            return

        async def renew() -> None:
            try:
                await self.renew(channel_id)
            except (ChainUnavailable, RpcError) as error:
                _log.warning("a channel's state can't be read now: %s", error.detail)

        task = asyncio.create_task(renew())
        self._renewals[channel_id] = task
        task.add_done_callback(lambda _: self._renewals.pop(channel_id, None))


_MISMATCH = "The voucher doesn't continue the channel; go on from the sums in this answer."


def mismatch(channel: Channel) -> PaymentRequired:
    """The corrective 402 for a channel we know."""
    return PaymentRequired(
        _MISMATCH, reason=ChannelReason.CUMULATIVE_MISMATCH, corrective=correction(channel)
    )
