"""Buying one slice: the 402, the guard, the signature, and presenting it until its fate is known.

Nothing is signed that the guard refuses, and what was signed is never signed a second time: after
a lost reply or a crash the same payment goes out again, with the same body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from pydantic import ValidationError

from computeswarm.buyer.http.base import Answer
from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    InsufficientFunds,
    PaymentPending,
    PaymentRequired,
    TooManyRequests,
    Unavailable,
)
from computeswarm.core.money import format_usdc
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import (
    HEADER_RESPONSE_V1,
    HEADER_RESPONSE_V2,
    Reason,
    SettleResponse,
    decode_header,
)
from computeswarm.payments.challenge import Challenge, parse_402
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.guard import Purpose
from computeswarm.payments.journal import Fate, SignedPayment

PRESENT_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0

Ask = Callable[[Mapping[str, str] | None], Awaitable[Answer]]
"""Posts one request, with payment headers or without; always the same body."""


class Signer(Protocol):
    """Signs payments, and keeps each on disk before it hands it out."""

    @property
    def address(self) -> str: ...

    def authorize(self, purpose: Purpose, challenge: Challenge) -> SignedPayment: ...

    def standing(self, purpose: Purpose) -> SignedPayment | None: ...

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None: ...

    def refused(self, purpose: Purpose, reason: str) -> None: ...


class Cashier:
    """Pays with one wallet.

    Args:
        payer: signs the transfers, or the deposit of a channel.
        present_seconds: how long an unanswered payment is presented again before giving up.
        reconcile: asks the chain what became of payments whose window has closed.
    """

    def __init__(
        self,
        payer: Signer,
        clock: Clock,
        *,
        present_seconds: float = PRESENT_SECONDS,
        reconcile: Callable[[], Awaitable[None]],
    ) -> None:
        self._payer = payer
        self._clock = clock
        self._present_seconds = present_seconds
        self._reconcile = reconcile

    @property
    def address(self) -> str:
        """The paying wallet."""
        return self._payer.address

    def signed(self, purpose: Purpose) -> bool:
        """Whether a payment for this was ever handed out and may be taken, refused or not."""
        return self._payer.standing(purpose) is not None

    def refused(self, purpose: Purpose) -> SignedPayment | None:
        """The payment for this that the seller refused last, if it may, or did, go all the same."""
        payment = self._payer.standing(purpose)
        return payment if payment and payment.state in (Fate.REFUSED, Fate.SPENT) else None

    async def pay(
        self, purpose: Purpose, ask: Ask, *, before_signing: Callable[[], None]
    ) -> Answer:
        """The answer to a paid request.

        ``before_signing`` is called when a price was named and nothing is signed yet.

        Raises:
            PolicyRefused: the challenge breaks a rule; nothing was signed.
            Unavailable: no answer, and nothing was signed.
            PaymentPending: signed and presented, fate unknown; the next call presents it again.
            InsufficientFunds, PaymentRequired: the seller refused it. It may still be taken, so
                the next call presents the same one, until the chain has shown it to be dead.
        """
        await self._reconcile()
        payment = self._payer.standing(purpose)
        if payment is None:
            answer = await ask(None)
            if answer.status != 402:
                return answer
            challenge = parse_402(answer.headers, answer.body)
            before_signing()
            payment = self._payer.authorize(purpose, challenge)
        return await self._present(purpose, payment, ask)

    async def _present(self, purpose: Purpose, payment: SignedPayment, ask: Ask) -> Answer:
        give_up = self._clock.monotonic() + self._present_seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                answer = await ask(payment.headers())
            except (Unavailable, TooManyRequests) as error:
                # unknown is not failed: he may have the money, so only the same payment goes again
                if self._clock.monotonic() + pause > give_up:
                    raise _pending(purpose, error.detail) from None
            except ComputeSwarmError as error:
                # no word of his takes back what he holds: only a failed settlement is a refusal
                raise _pending(purpose, error.detail) from None
            else:
                if answer.status != 402:
                    self._payer.settled(purpose, receipt_of(answer))
                    return answer
                refusal = refusal_of(answer)
                if refusal.extra["reason"] != Reason.SETTLEMENT_PENDING:
                    receipt = receipt_of(answer)
                    if receipt is None or receipt.success:
                        raise _pending(purpose, refusal.detail)
                    self._payer.refused(purpose, refusal.extra["reason"])
                    raise self._still_live(purpose, payment, refusal)
                if self._clock.monotonic() + pause > give_up:
                    raise _pending(purpose, "The chain has not confirmed it.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _still_live(
        self, purpose: Purpose, payment: SignedPayment, refusal: ComputeSwarmError
    ) -> ComputeSwarmError:
        """His refusal, and what it leaves in his hand: the payment, until its time is up."""
        if payment.state is Fate.SPENT:
            return PaymentRequired(
                f"The seller used the payment of {format_usdc(payment.amount)} USDC on chain and "
                "refuses what it was for; choose another seller.",
                **refusal.extra,
            )
        if payment.valid_before <= self._clock.now():
            return _pending(
                purpose, f"{refusal.detail} Only the chain can tell whether it was used before."
            )
        until = time.strftime("%H:%M:%S", time.localtime(payment.valid_before))
        detail = (
            f"{refusal.detail} Until {until} he could still take it; "
            f"`computeswarm logs {purpose.job_id} -f` presents the same one again."
        )
        return type(refusal)(detail, **refusal.extra, live_until=payment.valid_before)


def _pending(purpose: Purpose, why: str) -> PaymentPending:
    return PaymentPending(
        f"The payment is signed but not confirmed: {why} It is kept, and the same one is presented "
        f"again by `computeswarm logs {purpose.job_id} -f`.",
        job_id=purpose.job_id,
    )


def receipt_of(answer: Answer) -> SettleResponse | None:
    """The receipt header of an answer, of either version; None where none can be read."""
    for name in (HEADER_RESPONSE_V2, HEADER_RESPONSE_V1):
        if header := answer.headers.get(name.lower()):
            try:
                return SettleResponse.model_validate(decode_header(header))
            except (BadRequest, ValidationError):
                return None
    return None


def refusal_of(answer: Answer) -> ComputeSwarmError:
    """Why a presented payment was not taken."""
    receipt = receipt_of(answer)
    reason, words = (
        (receipt.error_reason or "", receipt.error_message or "") if receipt else ("", "")
    )
    if not reason:
        try:
            reason = parse_402(answer.headers, answer.body).error
        except BadRequest:
            reason = "refused"
    reason = clean_line(reason, limit=120)
    if reason in (Reason.INSUFFICIENT_FUNDS, ChannelReason.INSUFFICIENT_BALANCE):
        return InsufficientFunds(
            "The wallet has too little USDC for this payment; fund it (`computeswarm wallet show` "
            "prints its address) and try again.",
            reason=reason,
        )
    said = clean_line(words).removesuffix(".") or reason
    return PaymentRequired(
        f"The seller did not take the payment ({said}); try another node.",
        reason=reason,
    )
