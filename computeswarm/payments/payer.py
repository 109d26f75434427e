"""Signing payments: guard, then signature, then journal, and only then out of our hands."""

from __future__ import annotations

import secrets
from typing import Any

from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import SettleResponse
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.guard import MAX_WINDOW_SECONDS, Guard, Purpose, SpendingPolicy
from computeswarm.payments.journal import (
    CLOCK_MARGIN_SECONDS,
    Fate,
    PaymentJournal,
    SignedPayment,
)

__all__ = ["Payer", "Purpose", "SignedPayment"]

_BACKDATE_SECONDS = 600  # as the published clients do: the chain's clock may be behind ours


class Payer:
    """One wallet's payments on one chain."""

    def __init__(
        self,
        key: PrivateKey,
        chain: ChainInfo,
        journal: PaymentJournal,
        policy: SpendingPolicy,
        clock: Clock,
    ) -> None:
        self._key = key
        self._chain = chain
        self._journal = journal
        self._guard = Guard(policy, journal, chain)
        self._clock = clock

    @property
    def address(self) -> str:
        """The paying wallet."""
        return self._key.address

    def authorize(self, purpose: Purpose, challenge: Challenge) -> SignedPayment:
        """The payment for a purpose, durably stored before it is returned.

        An open or settled payment of the same job and slice is returned again, unchanged: the
        first may have been taken although its reply was lost.

        Raises:
            PolicyRefused: a rule of the guard; nothing was signed.
            StorageFull: it can't be stored, so it is not handed out.
        """
        if (standing := self._journal.standing(purpose.job_id, purpose.slice)) is not None:
            return standing
        with self._journal.exclusive():
            standing = self._journal.standing(purpose.job_id, purpose.slice)
            if standing is not None:
                return standing
            now = self._clock.now()
            option = self._guard.check(purpose, challenge, now=now)
            payment = self._sign(purpose, challenge, option, now)
            self._journal.add(payment)
        return payment

    def standing(self, purpose: Purpose) -> SignedPayment | None:
        """The payment that was handed out for a purpose, if its fate is open or settled."""
        return self._journal.standing(purpose.job_id, purpose.slice)

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None:
        """The seller served what was paid for."""
        if (payment := self.standing(purpose)) is not None:
            tx = "" if response is None else clean_line(response.transaction, limit=66)
            self._journal.set_fate(payment.nonce, Fate.SETTLED, tx=tx)

    def refused(self, purpose: Purpose, reason: str) -> None:
        """The seller refused the payment: the next one is signed anew, within the caps."""
        payment = self.standing(purpose)
        if payment is not None and payment.state is Fate.OPEN:
            self._journal.set_fate(payment.nonce, Fate.REFUSED, reason=clean_line(reason))

    def pending(self) -> list[SignedPayment]:
        """Payments whose fate is not known, oldest first."""
        return self._journal.pending()

    def spent_today(self) -> int:
        """Atoms gone or still at risk in the last 24 hours."""
        return self._journal.spent_day(self._clock.now())

    def overdue(self) -> list[SignedPayment]:
        """Payments whose window has closed, and of which only the chain knows what became."""
        dead = self._clock.now() - CLOCK_MARGIN_SECONDS
        return [
            payment
            for payment in self._journal.undecided()
            if payment.chain_id == self._chain.chain_id and payment.valid_before <= dead
        ]

    async def reconcile(self, usdc: Usdc) -> list[SignedPayment]:
        """Decide by the chain what became of payments whose window has closed.

        Used or cancelled counts as settled: money that may be gone is never counted as saved.

        Returns:
            those that turned out to be spent.

        Raises:
            RpcUnavailable: the chain does not answer; the rest stays undecided.
        """
        spent = []
        for payment in self.overdue():
            if await usdc.authorization_state(payment.payer, payment.nonce):
                refused = payment.state is Fate.REFUSED
                self._journal.set_fate(payment.nonce, Fate.SPENT if refused else Fate.SETTLED)
                spent.append(payment)
            else:
                self._journal.set_fate(payment.nonce, Fate.EXPIRED)
        return spent

    def _sign(
        self, purpose: Purpose, challenge: Challenge, option: Option, now: float
    ) -> SignedPayment:
        window = min(option.max_timeout_seconds, MAX_WINDOW_SECONDS)
        nonce = "0x" + secrets.token_hex(32)
        valid_after, valid_before = int(now) - _BACKDATE_SECONDS, int(now) + window
        signature = self._key.sign_digest(
            transfer_authorization_digest(
                self._chain,
                from_=self._key.address,
                to=purpose.pay_to,
                value=option.amount,
                valid_after=valid_after,
                valid_before=valid_before,
                nonce=nonce,
            )
        )
        exact = {
            "signature": "0x" + signature.hex(),
            "authorization": {
                "from": self._key.address,
                "to": purpose.pay_to,
                "value": str(option.amount),
                "validAfter": str(valid_after),
                "validBefore": str(valid_before),
                "nonce": nonce,
            },
        }
        return SignedPayment(
            job_id=purpose.job_id,
            slice=purpose.slice,
            url=purpose.url,
            method=purpose.method,
            chain_id=self._chain.chain_id,
            payer=self._key.address,
            pay_to=purpose.pay_to,
            amount=option.amount,
            nonce=nonce,
            valid_before=valid_before,
            version=challenge.version,
            payload=_envelope(challenge, option, exact),
            state=Fate.OPEN,
            created_at=now,
        )


def _envelope(challenge: Challenge, option: Option, exact: dict[str, Any]) -> dict[str, Any]:
    if challenge.version == 1:
        return {
            "x402Version": 1,
            "scheme": option.scheme,
            "network": option.network,
            "payload": exact,
        }
    envelope = {"x402Version": 2, "payload": exact, "accepted": option.wire}
    if challenge.resource is not None:
        envelope["resource"] = challenge.resource
    return envelope
