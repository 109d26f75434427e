"""Paying jobs by a channel: one deposit before the start, then a voucher for every few seconds.

What is not used of the deposit comes back when the job ends. Where the seller is gone, the buyer
takes it back himself, by two transactions of his own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from computeswarm.buyer.cashier import PRESENT_SECONDS, Cashier, receipt_of
from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.journal import JobRecord
from computeswarm.buyer.offer import deposit_of
from computeswarm.buyer.purchase import access, slice_purpose
from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    BadRequest,
    Conflict,
    NotFound,
    PaymentRequired,
    SellerUnavailable,
    TooManyRequests,
    Unavailable,
)
from computeswarm.core.money import format_usdc
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import Reason, SettleResponse
from computeswarm.payments.challenge import Challenge, parse_402
from computeswarm.payments.channels.journal import BuyerChannel
from computeswarm.payments.channels.payer import ChannelPayer, SignedVoucher
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.withdraw import OpenChannel, Withdrawals
from computeswarm.payments.guard import Purpose
from computeswarm.payments.journal import SignedPayment
from computeswarm.payments.payer import Payer

_PAUSES = (0.1, 0.25, 0.5)
"""Between the tries of one tick; after them the job is looked at again."""
_NOT_NOW = (ChannelReason.CHANNEL_BUSY, Reason.SETTLEMENT_PENDING)


@dataclass(frozen=True, slots=True)
class MoneyBack:
    """A step on the way of a deposit home.

    ``announced``: a withdrawal that can be finished at ``ready_at`` (unix seconds). ``returned``:
    ``amount`` atoms are back.
    """

    kind: Literal["announced", "returned"]
    channel_id: str
    transaction: str
    amount: int
    ready_at: int | None = None


@dataclass(frozen=True, slots=True)
class _DepositSigner:
    """A cashier's signer whose first payment opens a channel."""

    payer: Payer
    channels: ChannelPayer
    deposit: int

    @property
    def address(self) -> str:
        return self.payer.address

    def authorize(self, purpose: Purpose, challenge: Challenge) -> SignedPayment:
        return self.channels.open(purpose, challenge, deposit=self.deposit)

    def standing(self, purpose: Purpose) -> SignedPayment | None:
        return self.payer.standing(purpose)

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None:
        self.channels.settled(purpose, response)

    def refused(self, purpose: Purpose, reason: str) -> None:
        self.channels.refused(purpose, reason)


class ChannelPurse:
    """One wallet's channels.

    Args:
        contract: the channels on chain; None where no RPC address is set.
        present_seconds, reconcile: as the cashier's.
    """

    def __init__(
        self,
        payer: Payer,
        channels: ChannelPayer,
        contract: BatchSettlement | None,
        clock: Clock,
        *,
        present_seconds: float = PRESENT_SECONDS,
        reconcile: Callable[[], Awaitable[None]],
    ) -> None:
        self._payer = payer
        self._channels = channels
        self._contract = contract
        self._clock = clock
        self._present_seconds = present_seconds
        self._reconcile = reconcile

    def cashier(self, record: JobRecord) -> Cashier:
        """Pays the deposit of a job's channel, with its first slice."""
        deposit = deposit_of(record.quote, record.budget)
        return Cashier(
            _DepositSigner(self._payer, self._channels, deposit),
            self._clock,
            present_seconds=self._present_seconds,
            reconcile=self._reconcile,
        )

    def of_job(self, job_id: str) -> BuyerChannel | None:
        """The channel that pays a job, as it was known last."""
        return self._channels.journal.of_job(job_id)

    async def tick(self, record: JobRecord, seller: SellerClient, index: int) -> Answer:
        """Pay slice ``index`` by a voucher. One that got no answer before goes out again first: it
        may have been taken.

        Raises:
            PolicyRefused: nothing was signed.
            Unavailable, Conflict: no answer, or the seller is elsewhere; look at the job again.
            PaymentRequired: the seller refuses it.
        """
        channel = self.of_job(record.job_id)
        if channel is not None and not channel.answered and channel.slice < index:
            await self._present(record, seller, channel.slice)
        return await self._present(record, seller, index)

    async def _present(self, record: JobRecord, seller: SellerClient, index: int) -> Answer:
        purpose = slice_purpose(record, index)
        voucher, corrected = self._channels.voucher(purpose), False
        pauses = iter(_PAUSES)
        while True:
            try:
                answer = await seller.pay_slice(access(record), index, voucher.headers())
                if answer.status == 200:
                    self._channels.settled(purpose, receipt_of(answer))
                    return answer
                challenge = parse_402(answer.headers, answer.body)
                if challenge.error in _NOT_NOW:
                    raise SellerUnavailable("The seller takes no voucher just now.")
            except (Unavailable, TooManyRequests):
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)
                continue
            if corrected or not _corrective(challenge):
                why = clean_line(challenge.error, limit=120)
                raise PaymentRequired(f"The seller did not take the voucher ({why}).", reason=why)
            voucher, corrected = await self._correct(purpose, challenge), True

    async def _correct(self, purpose: Purpose, challenge: Challenge) -> SignedVoucher:
        channel = self.of_job(purpose.job_id)
        if channel is None or self._contract is None:
            raise PaymentRequired("The seller counts the channel otherwise than we do.")
        state = await self._contract.state(channel.channel_id)
        return self._channels.correct(purpose, challenge, state)

    async def refund(
        self, channel: OpenChannel, record: JobRecord, seller: SellerClient
    ) -> MoneyBack:
        """Have the seller give back what is left of a deposit.

        Raises:
            Conflict: the job still runs on it.
            PaymentRequired: he refuses.
            SellerUnavailable: he doesn't answer; ``withdraw`` needs nobody.
        """
        asked = await seller.pay_slice(access(record), 1)
        if asked.status != 402:
            raise BadRequest("The seller's answer names no price; try to withdraw instead.")
        challenge = parse_402(asked.headers, asked.body)
        headers = self._channels.refund_headers(channel.channel_id, challenge)
        answer = await seller.pay_slice(access(record), 1, headers)
        if answer.status == 402 and self._contract is not None:
            refusal = parse_402(answer.headers, answer.body)
            if _corrective(refusal):  # he charged otherwise than we know, and has to prove it
                state = await self._contract.state(channel.channel_id)
                self._channels.adopt(channel.channel_id, refusal, state)
                headers = self._channels.refund_headers(channel.channel_id, challenge)
                answer = await seller.pay_slice(access(record), 1, headers)
        receipt = receipt_of(answer)
        if answer.status != 200 or receipt is None or not receipt.success:
            why = clean_line(parse_402(answer.headers, answer.body).error, limit=120)
            raise PaymentRequired(f"The seller gives nothing back ({why}).", reason=why)
        amount = receipt.amount or ""
        return MoneyBack(
            "returned",
            channel.channel_id,
            clean_line(receipt.transaction, limit=66),
            int(amount) if amount.isascii() and amount.isdigit() else 0,
        )


async def withdraw(withdrawals: Withdrawals, channel: OpenChannel) -> MoneyBack:
    """Announce the withdrawal of what is left in a channel, or finish the one that was announced.

    Raises:
        Conflict: it is too early to finish it; the sentence says when.
        NotFound: nothing is left in it.
        InsufficientFunds: no ETH for the gas.
        Unavailable: the chain doesn't answer, or refused.
    """
    if channel.withdraw_at is None:
        sent = await withdrawals.initiate(channel.channel_id)
        after = find_channel(withdrawals.known(), channel.channel_id)
        return MoneyBack(
            "announced", channel.channel_id, sent, after.reclaimable, after.withdraw_at
        )
    sent = await withdrawals.finalize(channel.channel_id)
    after = find_channel(withdrawals.known(), channel.channel_id)
    return MoneyBack("returned", channel.channel_id, sent, after.returned - channel.returned)


def find_channel(channels: list[OpenChannel], prefix: str) -> OpenChannel:
    """The one channel whose id, or whose job's, starts so.

    Raises:
        NotFound: none, or several.
    """
    wanted = prefix.strip().lower()
    names = (wanted, "0x" + wanted, "job-" + wanted)
    found = [
        channel
        for channel in channels
        if wanted and (channel.channel_id.startswith(names[:2]) or channel.job_id.startswith(names))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(f"Several channels start with {wanted[:60]}; type more of the id.")
    raise NotFound(f"There is no channel {wanted[:60]!r}; `computeswarm channels` lists yours.")


def check_refundable(channel: OpenChannel) -> None:
    """Raises Conflict: nothing of ours is in the channel any more."""
    if channel.state == "closed":
        raise Conflict(
            f"The channel is closed: {format_usdc(channel.returned)} USDC came back from it."
        )


def _corrective(challenge: Challenge) -> bool:
    return any("channelState" in option.extra for option in challenge.options)
