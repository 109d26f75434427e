"""A payment's way from presented to handed over, one step after another, each on disk first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError, PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.cover import Cover
from computeswarm.payments.facilitators.base import Facilitator
from computeswarm.payments.fate import RETRY_SECONDS, Fates
from computeswarm.payments.present import Presented
from computeswarm.payments.refunds import RefundQueue
from computeswarm.payments.terms import Terms

_log = logging.getLogger(__name__)

BeforeBroadcast = Callable[[], None]
OnSettled = Callable[[Claim], Awaitable[None]]
_UNDER_WAY = (ClaimState.RESERVED, ClaimState.BROADCAST, ClaimState.SETTLED)


@dataclass(frozen=True, slots=True)
class Way:
    """Takes one claim after another through its states; holds none of them itself."""

    store: ClaimStore
    facilitator: Facilitator
    fates: Fates
    refunds: RefundQueue
    clock: Clock
    on_settled: OnSettled
    cover: Cover

    async def run(
        self,
        claim: Claim,
        payment: Presented,
        terms: Terms,
        before_broadcast: BeforeBroadcast,
        late: PaymentRequired | None,
    ) -> Claim:
        """From a reserved claim to the end.

        Args:
            late: the refusal of a payment whose window has closed, unless the chain has it.

        Raises:
            PaymentRequired, Unavailable: as ``Settlements.settle``.
        """
        with self.none_left_reserved(claim):
            earlier = await self._verify(claim, payment, terms, late)
            if earlier is not None:
                return await self.accept(claim, earlier, before_broadcast)
            with self.cover.holding(claim):
                await self.cover.check(claim)
                before_broadcast()
                return await self._submit(claim, payment, terms)

    @contextlib.contextmanager
    def none_left_reserved(self, claim: Claim) -> Iterator[None]:
        """An error before anything was sent leaves nothing that waits for an end."""
        try:
            yield
        except Exception:
            with contextlib.suppress(ComputeSwarmError):  # a full disk: the next start does it
                self.store.release(claim)
            raise

    async def accept(
        self, claim: Claim, receipt: Receipt, before_broadcast: BeforeBroadcast
    ) -> Claim:
        """The money came without our doing: sell for it, or give it back whole."""
        try:
            before_broadcast()
        except Exception:
            await self.resume(claim, earlier=receipt, turn_away=True)
            raise
        return await self.resume(claim, earlier=receipt)

    async def resume(
        self,
        claim: Claim,
        *,
        earlier: Receipt | None = None,
        turn_away: bool = False,
        hint: str = "",
        lost_sight: bool = False,
    ) -> Claim:
        """From what may have paid to the end, however long the chain, the disk or the one who
        takes over need. Only an outcome that is on disk ends it.

        Args:
            earlier: the receipt of a transaction that somebody else sent.
            turn_away: what it was for was refused: give the money back.
            hint: a transaction that is said to bring it.
            lost_sight: after a crash it may never have been sent.
        """
        pauses = iter(RETRY_SECONDS)
        while True:
            try:
                if earlier is not None and not claim.state.paid:
                    sure = await self.fates.confirm(claim, earlier)
                    settle = self.store.turn_away if turn_away else self.store.settle
                    claim = settle(claim, sure.tx_hash, self.clock.now(), sure)
                if claim.state is ClaimState.BROADCAST:
                    claim = await self.fates.follow(claim, hint=hint, look_first=lost_sight)
                return await self._hand_over(claim)
            except Exception as error:
                claim = self._as_stored(claim)
                if claim.state not in _UNDER_WAY:
                    raise
                told = error.detail if isinstance(error, ComputeSwarmError) else repr(error)
                unexpected = None if isinstance(error, ComputeSwarmError) else error
                _log.error("a payment has to wait: %s", told, exc_info=unexpected)
            lost_sight = True
            await asyncio.sleep(next(pauses, RETRY_SECONDS[-1]))

    async def _verify(
        self, claim: Claim, payment: Presented, terms: Terms, late: PaymentRequired | None
    ) -> Receipt | None:
        """The receipt of a third party's submission; None where it is to be sent.

        Raises:
            PaymentRequired: it doesn't pay; ``late`` where it is not on the chain.
        """
        refusal = late
        try:
            await self.facilitator.verify(claim, payment, terms)
        except PaymentRequired as error:
            reason = str(error.extra["reason"])
            if reason == Reason.BAD_SIGNATURE and not claim.transaction:
                self.store.forget(claim)  # it binds nobody; what was sent for it is remembered
                raise
            if reason == Reason.NONCE_USED:
                earlier = await self.fates.find_payment(claim)
                if earlier is not None:
                    return earlier
            refusal = late or error
        if refusal is not None:
            self.store.fail(claim, str(refusal.extra["reason"]))
            raise refusal
        return None

    async def _submit(self, claim: Claim, payment: Presented, terms: Terms) -> Claim:
        hint, lost_sight = "", False
        try:
            hint = await self.facilitator.settle(claim, payment, terms)
        except Exception:
            if self._as_stored(claim).state is not ClaimState.BROADCAST:
                raise
            _log.exception("a payment was handed over, and then")
            lost_sight = True
        return await self.resume(self.store.get(claim.id), hint=hint, lost_sight=lost_sight)

    def _as_stored(self, claim: Claim) -> Claim:
        try:
            return self.store.get(claim.id)
        except sqlite3.Error:  # a disk that can't be read now: go by what we knew
            return claim

    async def _hand_over(self, claim: Claim) -> Claim:
        if claim.turned_away:
            self.refunds.add(claim.subject, claim.payer, claim.amount)
        else:
            await self.on_settled(claim)
        claim = self.store.get(claim.id)
        # the one who took over may have refunded it already
        return self.store.consume(claim) if claim.state is ClaimState.SETTLED else claim
