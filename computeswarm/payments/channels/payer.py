"""The buyer's side of a channel: one deposit, then a voucher a tick, each through the guard.

A voucher is for all that was ever to be paid, never more; it is stored before it leaves, and after
a lost reply the same one goes out again. What a seller says of the channel's sums is believed only
as far as our own signature on it goes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import ChannelConfig, channel_id
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey, same_address
from computeswarm.core.errors import Conflict, NotFound, PaymentPending, PolicyRefused
from computeswarm.core.x402 import HEADER_PAYMENT_V2, SettleResponse, encode_header
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.channels.correction import (
    distrusted,
    next_charged,
    proven_base,
    proven_loss,
    uncorrected,
)
from computeswarm.payments.channels.journal import BuyerChannel, BuyerChannelState, ChannelJournal
from computeswarm.payments.channels.signing import (
    ChannelSigner,
    SignedVoucher,
    as_signed,
    channel_option,
    envelope,
    voucher_payload,
)
from computeswarm.payments.guard import Purpose
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.payer import Payer

__all__ = ["ChannelPayer", "SignedVoucher"]


class ChannelPayer:
    """One wallet's channels on one chain; ``payer`` is the same wallet's payer."""

    def __init__(
        self,
        payer: Payer,
        key: PrivateKey,
        chain: ChainInfo,
        journal: PaymentJournal,
        clock: Clock,
    ) -> None:
        self._payer = payer
        self._signer = ChannelSigner(key, chain)
        self._chain = chain
        self._clock = clock
        self.journal = ChannelJournal(journal)

    @property
    def address(self) -> str:
        """The paying wallet."""
        return self._signer.address

    def open(self, purpose: Purpose, challenge: Challenge, *, deposit: int) -> SignedPayment:
        """The payment that opens the channel of a job: ``deposit`` atoms put in, and the voucher
        for the first slice. Durably stored before it is returned; what stands is returned again.

        Raises: as ``Payer.commit``.
        """
        config = self._signer.config(purpose, challenge)
        channel = channel_id(config, self._chain)

        def make(option: Option, now: float) -> SignedPayment:
            signed = self._signer.deposit(config, option, deposit, now)
            fresh = self._new(purpose, config, option, challenge.resource, deposit, now)
            self.journal.write_opened(replace(fresh, signature=signed.voucher_signature))
            return SignedPayment(
                job_id=purpose.job_id,
                slice=purpose.slice,
                url=purpose.url,
                method=purpose.method,
                chain_id=self._chain.chain_id,
                payer=self.address,
                pay_to=purpose.pay_to,
                amount=deposit,
                nonce=signed.nonce,
                valid_before=signed.valid_before,
                version=2,
                payload=envelope(option.wire, challenge.resource, signed.payload),
                state=Fate.OPEN,
                created_at=now,
                channel=channel,
            )

        return self._payer.commit(
            purpose,
            lambda now: self._payer.guard.check_deposit(
                purpose, challenge, config, deposit, now=now
            ),
            make,
        )

    def voucher(self, purpose: Purpose) -> SignedVoucher:
        """The voucher for a further slice, durably stored before it is returned. No 402 is needed:
        what the seller takes is known from the first. The same slice gets the same one again.

        Raises:
            PolicyRefused: a rule of the guard; nothing was signed.
            PaymentPending: the slice before has no answer yet; only its own voucher may go.
            Conflict: an earlier slice than the newest.
            NotFound: the job has no open channel.
            StorageFull: it can't be stored, so it is not handed out.
        """
        if (standing := self._standing_voucher(purpose)) is not None:
            return standing
        with self.journal.tick():
            if (standing := self._standing_voucher(purpose)) is not None:
                return standing
            channel = self._open_channel(purpose.job_id)
            if purpose.slice < channel.slice:
                raise Conflict(f"Slice {purpose.slice} of this job is paid already.")
            if not channel.answered:
                raise PaymentPending(
                    f"Slice {channel.slice} of this job is not confirmed yet; present the same "
                    "voucher again.",
                    job_id=purpose.job_id,
                )
            agreed = channel.agreed + purpose.expected_amount
            self._sign_voucher(purpose, channel, base=channel.charged, agreed=agreed)
        signed = self._standing_voucher(purpose)
        assert signed is not None
        return signed

    def _sign_voucher(
        self, purpose: Purpose, channel: BuyerChannel, *, base: int, agreed: int
    ) -> None:
        after = base + purpose.expected_amount
        self._payer.guard.check_voucher(
            purpose, before=base, after=after, deposited=channel.deposited
        )
        if after > agreed:
            raise PolicyRefused(
                "Nothing was signed: the seller counts more than what was agreed for this job so "
                "far; choose another seller.",
                rule="voucher",
            )
        if not same_address(channel.config.receiver, purpose.pay_to):
            raise PolicyRefused(
                "Nothing was signed: the job's channel pays another wallet than the seller's; "
                "choose another seller.",
                rule="payee",
            )
        self.journal.write_voucher(
            channel,
            slice_=purpose.slice,
            amount=purpose.expected_amount,
            voucher=after,
            signature=self._signer.voucher(channel.channel_id, after),
            agreed=agreed,
            charged=base,
        )

    def standing(self, purpose: Purpose) -> SignedPayment | SignedVoucher | None:
        """The payment that was handed out for a purpose and may be, or was, taken."""
        return self._payer.standing(purpose) or self._standing_voucher(purpose)

    def _standing_voucher(self, purpose: Purpose) -> SignedVoucher | None:
        channel = self.journal.of_job(purpose.job_id)
        if channel is None or channel.slice != purpose.slice or not channel.signature:
            return None
        return as_signed(channel)

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None:
        """The seller served what was paid for, and says in ``response`` what he charged.

        His sums are only followed where they fit ours; otherwise ours stand, and he has to show our
        own voucher (``correct``) to have them changed.
        """
        channel = self.journal.of_job(purpose.job_id)
        if channel is not None and channel.slice == purpose.slice and not channel.answered:
            self.journal.answered(channel, next_charged(channel, response))
        if self._payer.standing(purpose) is not None:
            self._payer.settled(purpose, response)

    def refused(self, purpose: Purpose, reason: str) -> None:
        """The seller says that he did not take it. A deposit or voucher stands nevertheless."""
        if self._payer.standing(purpose) is not None:
            self._payer.refused(purpose, reason)

    def correct(self, purpose: Purpose, challenge: Challenge, state: OnChain) -> SignedVoucher:
        """Another voucher for a slice, after a 402 that says that our sums are not the seller's.

        Args:
            state: the channel as our own node has it.

        Raises:
            PolicyRefused: he shows no voucher of ours for what he counts, or wants more than was
                agreed; nothing was signed.
            NotFound: the job has no open channel.
        """
        with self.journal.tick():
            channel = self._open_channel(purpose.job_id)
            if channel.slice != purpose.slice or channel.answered:
                raise Conflict("Only the newest voucher of a channel can be corrected.")
            base = proven_base(channel, challenge, state, self._chain)
            self._sign_voucher(purpose, channel, base=base, agreed=channel.agreed)
        signed = self._standing_voucher(purpose)
        assert signed is not None
        return signed

    def adopt(self, channel: str, challenge: Challenge, state: OnChain) -> None:
        """Take over a seller's sum of what he charged, as far as he proves it; nothing is signed.

        Args:
            challenge: his corrective 402.
            state: the channel as our own node has it.

        Raises:
            PolicyRefused: he shows no voucher of ours for it.
            NotFound: not a channel of ours.
        """
        found = self._mine(channel)
        self.journal.adopt(found, proven_base(found, challenge, state, self._chain))

    def recover(self, purpose: Purpose, challenge: Challenge, state: OnChain) -> BuyerChannel:
        """Take up a job's channel again after this side lost its record.

        The channel is found by the salt that follows from key and job. What the seller charged is
        believed where he shows our own voucher for it, else what the chain says was claimed.

        Args:
            challenge: the seller's 402, corrective or not.
            state: the channel ``recoverable_id`` as our own node has it.

        Raises:
            NotFound: there is nothing of ours in such a channel.
            PolicyRefused: a rule of the guard, or sums without our signature.
        """
        known = self.journal.of_job(purpose.job_id)
        if known is not None:
            return known
        config = self._signer.config(purpose, challenge)
        channel = channel_id(config, self._chain)
        if state.available <= 0:
            raise NotFound("Nothing of yours is in that job's channel.")
        now = self._clock.now()
        with self.journal.payments.exclusive():
            option = self._payer.guard.check_deposit(
                purpose, challenge, config, state.balance, now=now
            )
            found = self._new(purpose, config, option, challenge.resource, state.balance, now)
            charged, vouched = proven_loss(channel, self.address, challenge, state, self._chain)
            self.journal.write_opened(
                _recovered(found, purpose, charged=charged, vouched=vouched, state=state)
            )
            self.journal.payments.add(self._found_deposit(purpose, channel, state.balance, now))
        recovered = self.journal.of_job(purpose.job_id)
        assert recovered is not None
        return recovered

    def recoverable_id(self, purpose: Purpose, challenge: Challenge) -> str:
        """The id of the channel that this job's payments would use."""
        return channel_id(self._signer.config(purpose, challenge), self._chain)

    def channels(self) -> list[BuyerChannel]:
        """Every channel of this journal, newest first."""
        return self.journal.all()

    def refund_headers(
        self, channel: str, challenge: Challenge, *, amount: int | None = None
    ) -> dict[str, str]:
        """The payment header that asks a seller for ``amount`` atoms back (None: all that is left).

        Its voucher is for what was charged already, so it costs nothing.

        Raises:
            NotFound: not a channel of ours.
            PolicyRefused: the server is not the one that the channel pays.
        """
        found = self._mine(channel)
        option = channel_option(challenge, self._chain)
        if not same_address(option.pay_to, found.config.receiver):
            raise distrusted("the server asked is not the one that the channel pays")
        signature = self._signer.voucher(found.channel_id, found.charged)
        payload = voucher_payload(found, "refund", found.charged, signature)
        if amount is not None:
            payload["amount"] = str(amount)
        return {
            HEADER_PAYMENT_V2: encode_header(envelope(option.wire, challenge.resource, payload))
        }

    def _mine(self, channel: str) -> BuyerChannel:
        found = self.journal.find(channel)
        if found is None:
            raise NotFound("There is no such channel; `computeswarm channels` lists yours.")
        return found

    def _open_channel(self, job_id: str) -> BuyerChannel:
        channel = self.journal.of_job(job_id)
        if channel is None or channel.state is not BuyerChannelState.OPEN:
            raise NotFound("This job has no open payment channel.")
        return channel

    def _new(
        self,
        purpose: Purpose,
        config: ChannelConfig,
        option: Option,
        resource: dict[str, Any] | None,
        deposit: int,
        now: float,
    ) -> BuyerChannel:
        return BuyerChannel(
            channel_id=channel_id(config, self._chain),
            chain_id=self._chain.chain_id,
            job_id=purpose.job_id,
            url=purpose.url,
            config=config,
            accepted=uncorrected(option.wire),
            resource=resource,
            deposited=deposit,
            charged=0,
            agreed=option.amount,
            vouched=option.amount,
            slice=purpose.slice,
            amount=option.amount,
            voucher=option.amount,
            signature=b"",
            answered=False,
            state=BuyerChannelState.OPEN,
            claimed=0,
            balance=0,
            withdraw_at=0,
            created_at=now,
        )

    def _found_deposit(
        self, purpose: Purpose, channel: str, amount: int, now: float
    ) -> SignedPayment:
        """A deposit whose record was lost, so that it counts against the caps again."""
        return SignedPayment(
            job_id=purpose.job_id,
            slice=0,
            url=purpose.url,
            method=purpose.method,
            chain_id=self._chain.chain_id,
            payer=self.address,
            pay_to=purpose.pay_to,
            amount=amount,
            nonce=channel,
            valid_before=int(now),
            version=2,
            payload={},
            state=Fate.SETTLED,
            created_at=now,
            channel=channel,
        )


def _recovered(
    channel: BuyerChannel, purpose: Purpose, *, charged: int, vouched: int, state: OnChain
) -> BuyerChannel:
    return replace(
        channel,
        charged=charged,
        agreed=vouched,
        vouched=vouched,
        slice=purpose.slice - 1,
        amount=0,
        voucher=charged,
        answered=True,
        claimed=state.total_claimed,
        balance=state.balance,
    )
