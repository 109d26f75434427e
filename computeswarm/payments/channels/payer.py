"""The buyer's side of a channel: one deposit, then a voucher a tick, each through the guard.

A voucher is for all that was ever to be paid, never more; it is stored before it leaves, and after
a lost reply the same one goes out again. What a seller says of the channel's sums is believed only
as far as our own signature on it goes.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import (
    SCHEME,
    ChannelConfig,
    channel_id,
    deposit_digest,
    deposit_nonce,
    voucher_digest,
)
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey, recover_address, same_address
from computeswarm.core.errors import Conflict, NotFound, PaymentPending, PolicyRefused
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import HEADER_PAYMENT_V2, SettleResponse, encode_header
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.channels.journal import BuyerChannel, BuyerChannelState, ChannelJournal
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.terms import CORRECTIVE
from computeswarm.payments.channels.wire import ChannelSnapshot, VoucherSnapshot
from computeswarm.payments.guard import MAX_WINDOW_SECONDS, Purpose
from computeswarm.payments.journal import (
    CLOCK_JUMP_SECONDS,
    Fate,
    PaymentJournal,
    SignedPayment,
)
from computeswarm.payments.payer import Payer

_SALT = b"computeswarm payment channel\n"


@dataclass(frozen=True, slots=True)
class SignedVoucher:
    """A stored voucher and how it travels: ``amount`` atoms for this slice, ``cumulative`` in all.

    ``answered`` tells whether the seller has served what it is for.
    """

    job_id: str
    slice: int
    channel_id: str
    amount: int
    cumulative: int
    answered: bool
    payload: dict[str, Any]

    def headers(self) -> dict[str, str]:
        """The header that presents it."""
        return {HEADER_PAYMENT_V2: encode_header(self.payload)}


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
        self._key = key
        self._chain = chain
        self._clock = clock
        self.journal = ChannelJournal(journal)

    @property
    def address(self) -> str:
        """The paying wallet."""
        return self._key.address

    def open(self, purpose: Purpose, challenge: Challenge, *, deposit: int) -> SignedPayment:
        """The payment that opens the channel of a job: ``deposit`` atoms put in, and the voucher
        for the first slice. Durably stored before it is returned; what stands is returned again.

        The channel's salt follows from key and job, so that the key alone finds it again.

        Raises: as ``Payer.commit``.
        """
        config = self._config(purpose, challenge)
        channel = channel_id(config, self._chain)

        def make(option: Option, now: float) -> SignedPayment:
            payload, nonce, valid_before = self._deposit_payload(config, option, deposit, now)
            resource = challenge.resource
            signature = bytes.fromhex(payload["voucher"]["signature"][2:])
            self.journal.write_opened(
                self._new(purpose, config, option, resource, deposit, signature, now)
            )
            return SignedPayment(
                job_id=purpose.job_id,
                slice=purpose.slice,
                url=purpose.url,
                method=purpose.method,
                chain_id=self._chain.chain_id,
                payer=self.address,
                pay_to=purpose.pay_to,
                amount=deposit,
                nonce=nonce,
                valid_before=valid_before,
                version=2,
                payload=_envelope(option.wire, resource, payload),
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
        with self.journal.payments.exclusive():
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
        digest = voucher_digest(channel.channel_id, after, self._chain)
        self.journal.write_voucher(
            channel,
            slice_=purpose.slice,
            amount=purpose.expected_amount,
            voucher=after,
            signature=self._key.sign_digest(digest),
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
        return self._as_signed(channel)

    def _as_signed(self, channel: BuyerChannel) -> SignedVoucher:
        payload = {"type": "voucher", **_voucher_part(channel, channel.voucher, channel.signature)}
        return SignedVoucher(
            job_id=channel.job_id,
            slice=channel.slice,
            channel_id=channel.channel_id,
            amount=channel.amount,
            cumulative=channel.voucher,
            answered=channel.answered,
            payload=_envelope(
                {**channel.accepted, "amount": str(channel.amount)}, channel.resource, payload
            ),
        )

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None:
        """The seller served what was paid for, and says in ``response`` what he charged.

        His sums are only followed where they fit ours; otherwise ours stand, and he has to show our
        own voucher (``correct``) to have them changed.
        """
        channel = self.journal.of_job(purpose.job_id)
        if channel is not None and channel.slice == purpose.slice and not channel.answered:
            self.journal.answered(channel, _next_charged(channel, response))
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
        with self.journal.payments.exclusive():
            channel = self._open_channel(purpose.job_id)
            if channel.slice != purpose.slice or channel.answered:
                raise Conflict("Only the newest voucher of a channel can be corrected.")
            base = self._proven_base(channel, challenge, state)
            self._sign_voucher(purpose, channel, base=base, agreed=channel.agreed)
        signed = self._standing_voucher(purpose)
        assert signed is not None
        return signed

    def _proven_base(self, channel: BuyerChannel, challenge: Challenge, state: OnChain) -> int:
        """The sum that the next voucher continues: what he can prove, by our signature or by the
        chain."""
        snapshot, proof = _correction(challenge)
        if snapshot is None or snapshot.channel_id.lower() != channel.channel_id:
            raise _distrusted("the seller does not say how the channel stands")
        if proof is None:  # he lost his record: what he claimed on chain is all there is
            return min(state.total_claimed, channel.vouched)
        charged = int(snapshot.charged_cumulative_amount or 0)
        signed = int(proof.signed_max_claimable)
        if not state.total_claimed <= charged <= signed <= max(channel.vouched, 0):
            raise _distrusted("the seller counts what was never signed for")
        digest = voucher_digest(channel.channel_id, signed, self._chain)
        found = recover_address(digest, bytes.fromhex(proof.signature[2:]))
        if found is None or not same_address(found, self.address):
            raise _distrusted("the voucher that the seller shows is not ours")
        return charged

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
        config = self._config(purpose, challenge)
        channel = channel_id(config, self._chain)
        if state.available <= 0:
            raise NotFound("Nothing of yours is in that job's channel.")
        now = self._clock.now()
        with self.journal.payments.exclusive():
            option = self._payer.guard.check_deposit(
                purpose, challenge, config, state.balance, now=now
            )
            found = self._new(purpose, config, option, challenge.resource, state.balance, b"", now)
            charged, vouched = self._proven_loss(channel, challenge, state)
            self.journal.write_opened(
                _recovered(found, purpose, charged=charged, vouched=vouched, state=state)
            )
            self.journal.payments.add(self._found_deposit(purpose, channel, state.balance, now))
        recovered = self.journal.of_job(purpose.job_id)
        assert recovered is not None
        return recovered

    def recoverable_id(self, purpose: Purpose, challenge: Challenge) -> str:
        """The id of the channel that this job's payments would use."""
        return channel_id(self._config(purpose, challenge), self._chain)

    def _proven_loss(self, channel: str, challenge: Challenge, state: OnChain) -> tuple[int, int]:
        """(charged, vouched) of a channel whose record we lost."""
        snapshot, proof = _correction(challenge)
        if snapshot is None or proof is None:
            return state.total_claimed, state.total_claimed
        charged = int(snapshot.charged_cumulative_amount or 0)
        signed = int(proof.signed_max_claimable)
        digest = voucher_digest(channel, min(signed, 2**128 - 1), self._chain)
        found = recover_address(digest, bytes.fromhex(proof.signature[2:]))
        ours = found is not None and same_address(found, self.address)
        if not ours or not state.total_claimed <= charged <= signed <= state.balance:
            raise _distrusted("the voucher that the seller shows is not ours")
        return charged, signed

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
        found = self.journal.find(channel)
        if found is None:
            raise NotFound("There is no such channel; `computeswarm channels` lists yours.")
        option = _option(challenge, self._chain)
        if not same_address(option.pay_to, found.config.receiver):
            raise _distrusted("the server asked is not the one that the channel pays")
        digest = voucher_digest(found.channel_id, found.charged, self._chain)
        payload = {
            "type": "refund",
            **_voucher_part(found, found.charged, self._key.sign_digest(digest)),
        }
        if amount is not None:
            payload["amount"] = str(amount)
        envelope = _envelope(option.wire, challenge.resource, payload)
        return {HEADER_PAYMENT_V2: encode_header(envelope)}

    def _open_channel(self, job_id: str) -> BuyerChannel:
        channel = self.journal.of_job(job_id)
        if channel is None or channel.state is not BuyerChannelState.OPEN:
            raise NotFound("This job has no open payment channel.")
        return channel

    def _config(self, purpose: Purpose, challenge: Challenge) -> ChannelConfig:
        option = _option(challenge, self._chain)
        salt = hmac.digest(self._key.secret, _SALT + purpose.job_id.encode(), "sha256")
        wire = {
            "payer": self.address,
            "payerAuthorizer": self.address,
            "receiver": purpose.pay_to,
            "receiverAuthorizer": option.extra.get("receiverAuthorizer"),
            "token": self._chain.usdc.address,
            "withdrawDelay": option.extra.get("withdrawDelay"),
            "salt": "0x" + salt.hex(),
        }
        try:
            return ChannelConfig.parse(wire)
        except ValueError as error:
            raise _distrusted(f"the seller's channel makes no sense ({error})") from None

    def _new(
        self,
        purpose: Purpose,
        config: ChannelConfig,
        option: Option,
        resource: dict[str, Any] | None,
        deposit: int,
        signature: bytes,
        now: float,
    ) -> BuyerChannel:
        return BuyerChannel(
            channel_id=channel_id(config, self._chain),
            chain_id=self._chain.chain_id,
            job_id=purpose.job_id,
            url=purpose.url,
            config=config,
            accepted=_uncorrected(option.wire),
            resource=resource,
            deposited=deposit,
            charged=0,
            agreed=option.amount,
            vouched=option.amount,
            slice=purpose.slice,
            amount=option.amount,
            voucher=option.amount,
            signature=signature,
            answered=False,
            state=BuyerChannelState.OPEN,
            claimed=0,
            balance=0,
            withdraw_at=0,
            created_at=now,
        )

    def _deposit_payload(
        self, config: ChannelConfig, option: Option, deposit: int, now: float
    ) -> tuple[dict[str, Any], str, int]:
        channel, salt = channel_id(config, self._chain), secrets.randbits(256)
        after = int(now) - CLOCK_JUMP_SECONDS
        before = int(now) + min(option.max_timeout_seconds, MAX_WINDOW_SECONDS)
        signed = self._key.sign_digest(
            deposit_digest(
                config,
                self._chain,
                amount=deposit,
                valid_after=after,
                valid_before=before,
                salt=salt,
            )
        )
        voucher = self._key.sign_digest(voucher_digest(channel, option.amount, self._chain))
        authorization = {
            "validAfter": str(after),
            "validBefore": str(before),
            "salt": f"0x{salt:064x}",
            "signature": "0x" + signed.hex(),
        }
        payload = {
            "type": "deposit",
            "channelConfig": config.wire(),
            "voucher": _voucher(channel, option.amount, voucher),
            "deposit": {
                "amount": str(deposit),
                "authorization": {"erc3009Authorization": authorization},
            },
        }
        return payload, deposit_nonce(channel, salt), before

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


def _next_charged(channel: BuyerChannel, response: SettleResponse | None) -> int:
    """What the seller has charged in all, where his answer fits what we know."""
    extra = response.extra if response is not None and response.extra else {}
    told = extra.get("chargedAmount", "0")
    if not isinstance(told, str) or not (told.isascii() and told.isdigit()):
        return channel.charged
    charged = int(told) if len(told) < 40 else channel.amount + 1
    after = channel.charged + charged
    snapshot = extra.get("channelState")
    total = snapshot.get("chargedCumulativeAmount") if isinstance(snapshot, dict) else None
    fits = charged <= channel.amount and (total is None or total == str(after))
    return after if fits and after <= channel.voucher else channel.charged


def _correction(challenge: Challenge) -> tuple[ChannelSnapshot | None, VoucherSnapshot | None]:
    """``channelState`` and ``voucherState`` of a corrective 402, where they can be read."""
    if challenge.error != ChannelReason.CUMULATIVE_MISMATCH:
        return None, None
    for option in challenge.options:
        if option.scheme == SCHEME:
            try:
                snapshot = ChannelSnapshot.model_validate(option.extra.get("channelState"))
                proof = option.extra.get("voucherState")
                return snapshot, None if proof is None else VoucherSnapshot.model_validate(proof)
            except ValidationError:
                return None, None
    return None, None


def _option(challenge: Challenge, chain: ChainInfo) -> Option:
    for option in challenge.options:
        if option.scheme == SCHEME and option.network == chain.caip2:
            return option
    raise PolicyRefused(
        f"Nothing was signed: the server takes no payment channel on {chain.title}; pay by slices.",
        rule="scheme",
    )


def _uncorrected(accepted: dict[str, Any]) -> dict[str, Any]:
    extra = accepted.get("extra")
    if not isinstance(extra, dict):
        return accepted
    kept = {name: value for name, value in extra.items() if name not in CORRECTIVE}
    return {**accepted, "extra": kept}


def _distrusted(why: str) -> PolicyRefused:
    return PolicyRefused(
        f"Nothing was signed: {clean_line(why)}; choose another seller.", rule="channel"
    )


def _voucher(channel: str, total: int, signature: bytes) -> dict[str, str]:
    return {
        "channelId": channel,
        "maxClaimableAmount": str(total),
        "signature": "0x" + signature.hex(),
    }


def _voucher_part(channel: BuyerChannel, total: int, signature: bytes) -> dict[str, Any]:
    return {
        "channelConfig": channel.config.wire(),
        "voucher": _voucher(channel.channel_id, total, signature),
    }


def _envelope(
    accepted: dict[str, Any], resource: dict[str, Any] | None, payload: dict[str, Any]
) -> dict[str, Any]:
    envelope = {"x402Version": 2, "payload": payload, "accepted": accepted}
    if resource is not None:
        envelope["resource"] = resource
    return envelope
