"""Buying from any x402 server, of version 1 or 2: a URL is asked for, paid once, and read.

The same rules hold as for jobs: the guard decides, the payment is on disk before it leaves, and
after a lost reply or a crash the same one is presented again. Whom the money goes to only the
server says; so a person, or an allow-list, has to agree before anything is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from computeswarm.buyer.cashier import receipt_of, refusal_of
from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.http.web import MAX_BODY, Web, WebAnswer, WebRequest
from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import (
    ComputeSwarmError,
    PaymentPending,
    PaymentRequired,
    PolicyRefused,
    TooLarge,
    Unavailable,
)
from computeswarm.core.ids import WEB_PURCHASE
from computeswarm.core.money import format_usdc
from computeswarm.core.text import clean_line
from computeswarm.core.x402 import Reason, SettleResponse
from computeswarm.payments.challenge import Challenge, Option, parse_402
from computeswarm.payments.extensions.offer_receipt import offer_of
from computeswarm.payments.guard import Purpose
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.payer import Payer
from computeswarm.payments.statements import Statements, offered_way

_MAX_402 = 256 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_UNSERVED = (Fate.OPEN, Fate.REFUSED, Fate.SPENT)
_AGAIN = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class PriceTag:
    """What a server asks for, as the one who pays has to agree to it. ``amount`` in atoms.

    ``description`` is the server's own, cleaned; ``signed`` whether the wallet to be paid has
    signed this very offer.
    """

    url: str
    amount: int
    pay_to: str
    version: int
    description: str
    signed: bool


@dataclass(frozen=True, slots=True)
class Bought:
    """An answer, and what was paid for it (None: nothing was asked).

    ``receipt`` is the server's word; ``signed_receipt`` is there where the wallet that was paid has
    signed it.
    """

    status: int
    headers: Any
    payment: SignedPayment | None
    receipt: SettleResponse | None
    signed_receipt: dict[str, Any] | None
    _answer: WebAnswer

    async def chunks(self, limit: int = MAX_BODY) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            TooLarge: it has more than ``limit`` bytes.
            Unavailable: it broke off.
        """
        total = 0
        async for chunk in self._answer.chunks:
            total += len(chunk)
            if total > limit:
                raise TooLarge(f"The answer has more than {limit} bytes; the rest was not read.")
            yield chunk

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The whole body; raises as ``chunks``."""
        return b"".join([chunk async for chunk in self.chunks(limit)])


Agree = Callable[[PriceTag], bool]


class Shop:
    """Pays any server with one wallet.

    Args:
        present_seconds: how long an unanswered payment is presented again before giving up.
        reconcile: asks the chain what became of payments whose window has closed.
    """

    def __init__(
        self,
        payer: Payer,
        journal: PaymentJournal,
        chain: ChainInfo,
        clock: Clock,
        *,
        present_seconds: float,
        reconcile: Callable[[], Awaitable[None]],
    ) -> None:
        self._payer = payer
        self._journal = journal
        self._statements = Statements(journal)
        self._chain = chain
        self._clock = clock
        self._present_seconds = present_seconds
        self._reconcile = reconcile

    @asynccontextmanager
    async def fetch(self, request: WebRequest, *, most: int, agree: Agree) -> AsyncIterator[Bought]:
        """Ask for something, pay what it costs, and give the answer.

        A payment for the same request whose fate is not known is presented again, nothing new is
        signed, and ``agree`` is not asked again.

        Args:
            most: atoms that it may cost.
            agree: whether to pay this; nothing is signed where it says no.

        Raises:
            PolicyRefused: a rule of the guard, ``most`` or ``agree``; nothing was signed.
            BadRequest: the 402 can't be read.
            Unavailable: no answer, and nothing was signed.
            PaymentPending: signed and presented, fate unknown; the same call presents it again.
            InsufficientFunds, PaymentRequired: the server refused it.
        """
        await self._reconcile()
        async with Web() as web, AsyncExitStack() as stack:
            payment = self._standing(request)
            if payment is None:
                answer = await stack.enter_async_context(web.open(request))
                if answer.status != 402:
                    yield Bought(answer.status, answer.headers, None, None, None, answer)
                    return
                challenge = parse_402(answer.headers, await answer.whole(_MAX_402))
                payment = self._sign(request, challenge, most, agree)
            answer, receipt = await self._present(request, payment, web, stack)
            signed = self._statements.of(payment.nonce)[1]
            yield Bought(answer.status, answer.headers, payment, receipt, signed, answer)

    def _sign(
        self, request: WebRequest, challenge: Challenge, most: int, agree: Agree
    ) -> SignedPayment:
        option = self._option(challenge, most)
        purpose = self._purpose(request, option, most, self._next_id(request))
        # before anyone is asked; what the guard lets pass need not be the first that was offered
        option = self._payer.guard.check(purpose, challenge, now=self._clock.now())
        purpose = replace(purpose, expected_amount=option.amount)  # no more than is agreed to
        resource = challenge.resource or {}
        about = resource.get("description") or option.wire.get("description") or ""
        way = offered_way(challenge, option)
        offer = offer_of(challenge.extensions, request.url, way, now=self._clock.now())
        tag = PriceTag(
            request.url,
            option.amount,
            option.pay_to,
            challenge.version,
            clean_line(str(about)),
            offer is not None,
        )
        if not agree(tag):
            raise PolicyRefused("Nothing was signed: nobody agreed to the price.", rule="confirm")
        return self._payer.authorize(purpose, challenge)

    def _option(self, challenge: Challenge, most: int) -> Option:
        network = self._chain.caip2 if challenge.version == 2 else self._chain.slug
        exact = [option for option in challenge.options if option.scheme == "exact"]
        if not exact:
            raise PolicyRefused(
                "Nothing was signed: the server takes no single payment ('exact').", rule="scheme"
            )
        ours = [
            option
            for option in exact
            if option.network == network and same_address(option.asset, self._chain.usdc.address)
        ]
        if not ours:
            return exact[0]  # the guard names the rule that it breaks
        cheap = [option for option in ours if option.amount <= most]
        if not cheap:
            raise PolicyRefused(
                f"Nothing was signed: it costs {format_usdc(ours[0].amount)} USDC, more than the "
                f"{format_usdc(most)} that it may cost; raise --max if you mean to spend it.",
                rule="max",
            )
        return cheap[0]

    async def _present(
        self, request: WebRequest, payment: SignedPayment, web: Web, stack: AsyncExitStack
    ) -> tuple[WebAnswer, SettleResponse | None]:
        purpose = self._as_signed(payment)
        give_up = self._clock.monotonic() + self._present_seconds
        pause = _FIRST_PAUSE
        while True:
            why = ""
            try:
                # closed at once where it is only to be tried again
                async with AsyncExitStack() as trial:
                    answer = await trial.enter_async_context(web.open(request, payment.headers()))
                    if answer.status == 402:
                        why = self._refusal(purpose, payment, await self._whole(answer))
                    elif answer.status >= 500 or answer.status in _AGAIN:
                        why = f"the server answers {answer.status}."
                    else:
                        stack.push_async_exit(trial.pop_all())
                        return answer, self._accept(purpose, answer)
            except (Unavailable, TooLarge) as error:
                why = error.detail
            if self._clock.monotonic() + pause > give_up:
                raise _pending(payment, why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _accept(self, purpose: Purpose, answer: WebAnswer) -> SettleResponse | None:
        """The receipt. What was served, or has a receipt, is settled; all else leaves it open."""
        receipt = receipt_of(Answer(answer.status, answer.headers, b""))
        if answer.status < 300 or (receipt is not None and receipt.success):
            self._payer.settled(purpose, receipt)
        return receipt

    async def _whole(self, answer: WebAnswer) -> Answer:
        return Answer(answer.status, answer.headers, await answer.whole(_MAX_402))

    def _refusal(self, purpose: Purpose, payment: SignedPayment, answer: Answer) -> str:
        """Why it is not confirmed yet.

        Raises:
            InsufficientFunds, PaymentRequired: it is refused.
        """
        refusal = refusal_of(answer)
        reason = str(refusal.extra["reason"])
        if reason == Reason.SETTLEMENT_PENDING:
            return "the chain has not confirmed it."
        if payment.state is Fate.SPENT:
            raise PaymentRequired(
                f"The server used the payment of {format_usdc(payment.amount)} USDC on chain and "
                "refuses what it was for; choose another server.",
                **refusal.extra,
            )
        self._payer.refused(purpose, reason)
        until = time.strftime("%H:%M:%S", time.localtime(payment.valid_before))
        detail = f"{refusal.detail.replace('; try another node', '')} "
        detail += (
            f"Until {until} the server could still take it; the same command presents it once more."
        )
        raise type(refusal)(detail, **refusal.extra, live_until=payment.valid_before)

    def _standing(self, request: WebRequest) -> SignedPayment | None:
        """The last payment for this very request, if nothing is known to have come of it."""
        found = self._journal.of_job(last) if (last := self._last_id(request)) else []
        standing = [p for p in found if p.state in _UNSERVED]
        return standing[-1] if standing else None

    def _last_id(self, request: WebRequest) -> str | None:
        row = self._journal.database.execute(
            "SELECT job_id FROM payments WHERE job_id GLOB ? ORDER BY id DESC LIMIT 1",
            (f"{self._name(request)}-*",),
        ).fetchone()
        return None if row is None else str(row["job_id"])

    def _next_id(self, request: WebRequest) -> str:
        last = self._last_id(request)
        number = int(last.rpartition("-")[2]) + 1 if last else 1
        return f"{self._name(request)}-{number}"

    def _name(self, request: WebRequest) -> str:
        about = f"{self._chain.chain_id}|{self._payer.address}|{request.method}|{request.url}|"
        return WEB_PURCHASE + hashlib.sha256(about.encode() + request.body).hexdigest()[:20]

    def _purpose(self, request: WebRequest, option: Option, most: int, job_id: str) -> Purpose:
        return Purpose(job_id, 0, request.url, request.method, most, option.pay_to, job_budget=most)

    def _as_signed(self, payment: SignedPayment) -> Purpose:
        return Purpose(
            payment.job_id, 0, payment.url, payment.method, payment.amount, payment.pay_to
        )


def _pending(payment: SignedPayment, why: str) -> ComputeSwarmError:
    return PaymentPending(
        f"The payment is signed but not confirmed: {why} It is kept, and the same command "
        "presents it again.",
        payment=payment.job_id,
    )
