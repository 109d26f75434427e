"""Signing payments: guard, then signature, then journal, and only then out of our hands."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from computeswarm.chain.errors import RpcError
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import SettleResponse, encode_header
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.extensions.payment_identifier import identified
from computeswarm.payments.guard import MAX_WINDOW_SECONDS, Guard, Purpose, SpendingPolicy
from computeswarm.payments.journal import (
    CLOCK_JUMP_SECONDS,
    Fate,
    PaymentJournal,
    SignedPayment,
)
from computeswarm.payments.statements import Statements

__all__ = ["Payer", "Purpose", "SignedPayment"]

_BACKDATE_SECONDS = CLOCK_JUMP_SECONDS  # as the published clients do: the chain may be behind us
_LONGEST_HEADER = 8_000
"""Many servers read no header field of more than 8 KiB; what was offered goes back where it fits.
"""
DEAD_AFTER_SECONDS = 60
"""So long after its window an authorization is dead: no reorganisation brings it back."""


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
        self._statements = Statements(journal)
        self.guard = Guard(policy, journal, chain, key.address)
        self._clock = clock

    @property
    def address(self) -> str:
        """The paying wallet."""
        return self._key.address

    def authorize(self, purpose: Purpose, challenge: Challenge) -> SignedPayment:
        """The payment for a purpose, durably stored before it is returned.

        Raises: as ``commit``.
        """
        return self.commit(
            purpose,
            lambda now: self.guard.check(purpose, challenge, now=now),
            lambda option, now: self._sign(purpose, challenge, option, now),
            lambda payment, option: self._statements.offered(payment, challenge, option),
        )

    def commit(
        self,
        purpose: Purpose,
        check: Callable[[float], Option],
        make: Callable[[Option, float], SignedPayment],
        keep: Callable[[SignedPayment, Option], None] | None = None,
    ) -> SignedPayment:
        """The one way in which a signature gets out of here.

        What stands for the purpose is returned again, unchanged: a first one may have been taken
        although its reply was lost, or may still be taken although it was refused. Only where
        nothing stands is ``check`` (the guard) asked for a way to pay at this time, and ``make``
        for the signed payment. No other process signs meanwhile, so the sums that were checked
        hold.

        Raises:
            PolicyRefused: a rule of the guard; nothing was signed.
            StorageFull: it can't be stored, so it is not handed out.
        """
        if (standing := self.standing(purpose)) is not None:
            return standing
        with self._journal.exclusive():
            if (standing := self.standing(purpose)) is not None:
                return standing
            now = self._clock.now()
            option = check(now)
            payment = make(option, now)
            self._journal.add(payment)
            if keep is not None:
                keep(payment, option)
        return payment

    def standing(self, purpose: Purpose) -> SignedPayment | None:
        """The payment that was handed out for a purpose and may be, or was, taken."""
        return self._journal.standing(purpose.job_id, purpose.slice)

    def settled(self, purpose: Purpose, response: SettleResponse | None) -> None:
        """The seller served what was paid for."""
        if (payment := self.standing(purpose)) is not None:
            tx = "" if response is None else clean_line(response.transaction, limit=66)
            self._journal.set_fate(payment.nonce, Fate.SETTLED, tx=tx)
            if response is not None:
                self._statements.received(payment, self._chain, response)

    def refused(self, purpose: Purpose, reason: str) -> None:
        """The seller says that he did not take the payment. It stands nevertheless."""
        if (payment := self.standing(purpose)) is not None:
            self._journal.set_fate(payment.nonce, Fate.REFUSED, reason=clean_line(reason))

    def pending(self) -> list[SignedPayment]:
        """Payments whose fate is not known, oldest first."""
        return self._journal.pending()

    def spent_today(self) -> int:
        """Atoms gone, locked or still at risk in the last 24 hours."""
        return self._journal.spent_day(self._clock.now(), self._chain.chain_id)

    def overdue(self) -> list[SignedPayment]:
        """Payments whose window has closed by our clock, and whose fate the chain has not told."""
        dead = self._clock.now() - DEAD_AFTER_SECONDS
        return [
            payment
            for payment in self._journal.undecided()
            if payment.chain_id == self._chain.chain_id and payment.valid_before <= dead
        ]

    async def reconcile(self, usdc: Usdc | None) -> list[SignedPayment]:
        """Decide what became of payments whose window has closed.

        The chain decides, by its own time: unused in a block that came after the window is unused
        for ever, however wrong our clock is. Used or cancelled counts as gone. Without a chain,
        those that were refused are written off: they count as gone, and no longer stand.

        Returns:
            those that turned out to be gone.

        Raises:
            RpcUnavailable: the chain does not answer; the rest stays undecided.
        """
        overdue = self.overdue()
        if usdc is None:
            for payment in overdue:
                if payment.state is Fate.REFUSED:
                    self._journal.set_fate(payment.nonce, Fate.WRITTEN_OFF)
            return []
        gone = []
        head = await usdc.head() if overdue else None
        for payment in overdue:
            assert head is not None
            try:
                used = await usdc.authorization_state(
                    payment.payer, payment.nonce, block=hex(head.number)
                )
            except RpcError:  # a node that lags behind the one that was asked first
                continue
            if used:
                opened = payment.state is Fate.OPEN
                self._journal.set_fate(payment.nonce, Fate.SETTLED if opened else Fate.SPENT)
                gone.append(payment)
            elif head.timestamp - DEAD_AFTER_SECONDS >= payment.valid_before:
                self._journal.set_fate(payment.nonce, Fate.EXPIRED)
        return gone

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
    if challenge.extensions:
        name = "pay_" + exact["authorization"]["nonce"][2:34]
        echoed = identified(challenge.extensions, name)
        whole = envelope | {"extensions": echoed}
        if len(encode_header(whole)) <= _LONGEST_HEADER:
            return whole
    return envelope
