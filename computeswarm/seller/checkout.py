"""The seller's counter: what a 402 says, which payment a request carries, and having it settled.

What is sold, and whether it may be, is the intake's business; every way to pay ends here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from computeswarm.core.channels import SCHEME
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest, Conflict, PaymentRequired
from computeswarm.core.quotes import Quote
from computeswarm.core.x402 import HEADER_PAYMENT_V1, HEADER_PAYMENT_V2, PaymentProof
from computeswarm.payments.channels.present import PresentedChannel
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.extensions.bazaar import BAZAAR
from computeswarm.payments.extensions.offer_receipt import (
    signed_offers,
    signed_receipt,
    with_receipt,
)
from computeswarm.payments.extensions.payment_identifier import (
    PAYMENT_IDENTIFIER,
    Holder,
    Marks,
    declaration,
    read_mark,
)
from computeswarm.payments.present import named_authorization, read_payment
from computeswarm.payments.settlement import Settlements, request_binding
from computeswarm.payments.terms import OFFER_RECEIPT, Terms, payment_required
from computeswarm.payments.transfer_proof import Challenges, TransferProof, body_without_proof
from computeswarm.seller.intake_channels import BeforeCharge, ChannelTill

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import Charge

_PAYMENT_HEADERS = {HEADER_PAYMENT_V1.lower(), HEADER_PAYMENT_V2.lower()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Purchase:
    """A request that may carry a payment.

    ``described`` is what the 402's extension ``bazaar`` says of its address; ``marked`` whether a
    repetition has to bring what the first payment brought beside its signature.
    """

    headers: Mapping[str, str]
    body: bytes
    proof: PaymentProof | None = None
    described: Mapping[str, Any] | None = None
    marked: bool = False

    def __post_init__(self) -> None:
        if self.proof is not None and {name.lower() for name in self.headers} & _PAYMENT_HEADERS:
            raise BadRequest("The request carries two payments; present one of them.")

    def binding(self, terms: Terms) -> str:
        """What a payment in its headers is bound to."""
        return request_binding("POST", terms.resource_url, self.body)

    def proof_binding(self, terms: Terms) -> str:
        """What a challenge, and a transfer made for it, is bound to: not to our own address, which
        may be another after a restart, when the money is here already."""
        path = urlsplit(terms.resource_url).path
        return request_binding("POST", path, body_without_proof(self.body))


class Checkout:
    """Asks for payments and takes them.

    Args:
        key: the wallet that is paid; it signs offers and receipts.
        running: whether a job (by its id) still needs its deposit.
        check_payer: raises why this payer is not served.
    """

    def __init__(
        self,
        key: PrivateKey,
        settlements: Settlements,
        till: ChannelTill,
        challenges: Challenges,
        marks: Marks,
        clock: Clock,
        *,
        running: Callable[[str], bool],
        check_payer: Callable[[str], None],
    ) -> None:
        self._key = key
        self._settlements = settlements
        self._till = till
        self._challenges = challenges
        self._marks = marks
        self._clock = clock
        self._running = running
        self._check_payer = check_payer

    def close(self) -> None:
        """Close the files."""
        self._marks.close()

    def named(self, purchase: Purchase) -> str | None:
        """The name of the payment that a request carries; None where none can be read.

        Nothing of it is checked: only good for finding out whether it was presented before.
        """
        if purchase.proof is not None:
            return self._challenges.claimed_name(purchase.proof)
        named = named_authorization(purchase.headers)
        return f"{named[0]}:{named[1]}" if named else self._till.named(purchase.headers)

    async def take(
        self,
        purchase: Purchase,
        terms: Terms,
        subject: str,
        before_charge: BeforeCharge,
        quote: Quote,
        *,
        bare: bool = False,
        first: Callable[[], None] | None = None,
    ) -> Claim | Charge | Answer:
        """The settled payment, or the 402.

        Args:
            first: raises why no voucher is looked at at all.
            before_charge: raises why the payment may not be taken, once it is known to be good.
            quote: says how it is to be paid.
            bare: there was no quote to say so, and either way is fine.
        """
        by_channel = quote.scheme == SCHEME
        payer: str | None = None
        try:
            if by_channel:
                channel = self._till.read(purchase.headers, terms)
                if channel is not None:
                    payer = channel.payer
                    if channel.kind == "refund":
                        return await self._give_back(channel, subject)
                    if first is not None:
                        first()
                    return await self._charge(purchase, terms, subject, before_charge, channel)
            elif purchase.proof is not None:
                binding = purchase.proof_binding(terms)
                proof = self._challenges.read(purchase.proof, terms, binding)
                payer = proof.payer
                return await self._transfer(proof, terms, binding, subject, before_charge)
            elif (presented := read_payment(purchase.headers, terms)) is not None:
                payer, name = presented.payer, f"{presented.payer}:{presented.authorization.nonce}"
                before = self._marking(purchase, payer, name, "", subject, before_charge)
                return await self._settlements.settle(
                    presented,
                    terms,
                    binding=purchase.binding(terms),
                    subject=subject,
                    before_broadcast=before,
                )
            text = "Pay for the first seconds; the rest follows slice by slice."
            return self._ask(purchase, terms, text, by_channel=by_channel, bare=bare)
        except PaymentRequired as error:
            return self._ask(
                purchase, terms, error.detail, error, payer, by_channel=by_channel, bare=bare
            )

    def keep_reply(self, result: Claim | Charge, reply: bytes) -> Claim | Charge:
        """Keep the reply to the paid request; the first one stays."""
        if isinstance(result, Claim):
            return self._settlements.set_reply(result, reply)
        return self._till.keep_reply(result, reply)

    def receipt(self, result: Claim | Charge, terms: Terms, *, at: float) -> dict[str, str]:
        """The receipt headers; signed where money moved on the chain.

        Args:
            at: unix seconds of the settlement.
        """
        headers = result.receipt_headers()
        if not result.transaction:
            return headers  # a tick: its voucher is receipt enough, and there are many
        payer = result.payer if isinstance(result, Claim) else result.channel.config.payer
        signed = signed_receipt(
            self._key,
            network=terms.chain.caip2,
            resource_url=terms.resource_url,
            payer=payer,
            transaction=result.transaction,
            issued_at=int(at),
        )
        return with_receipt(headers, signed)

    async def _charge(
        self, purchase: Purchase, terms: Terms, subject: str, before_charge: BeforeCharge,
        channel: PresentedChannel,
    ) -> Charge:  # fmt: skip
        return await self._till.charge(
            channel,
            terms,
            binding=purchase.binding(terms),
            subject=subject,
            before_charge=self._marking(
                purchase, channel.payer, channel.name, channel.channel_id, subject, before_charge
            ),
        )

    async def _give_back(self, presented: PresentedChannel, subject: str) -> Answer:
        """The rest of a channel's deposit, for its buyer asks for it."""
        if self._running(subject.partition("#")[0]):
            raise Conflict("The job still runs on that deposit; cancel it, then the rest is free.")
        refund = await self._till.give_back(presented)
        body = json.dumps({"refunded": refund.amount, "transaction": refund.transaction})
        return Answer(200, refund.receipt_headers(), body.encode())

    async def _transfer(
        self, proof: TransferProof, terms: Terms, binding: str, subject: str,
        before_charge: BeforeCharge,
    ) -> Claim:  # fmt: skip
        def before() -> None:
            before_charge(proof.payer, proof.name, "")
            if proof.amount != terms.amount:
                raise Conflict("The price has changed since; the transfer goes back, ask again.")

        return await self._settlements.settle_transfer(
            proof,
            replace(terms, amount=proof.amount),
            binding=binding,
            subject=subject,
            before_broadcast=before,
        )

    def _marking(
        self, purchase: Purchase, payer: str, name: str, channel: str, subject: str,
        before_charge: BeforeCharge,
    ) -> Callable[[], None]:  # fmt: skip
        """Checks the payment's mark now, and gives what keeps it once the payment is good."""
        self._check_payer(payer)
        mark = read_mark(purchase.headers)
        self._marks.check(payer, name, mark, failed=self._failed)

        def before() -> None:
            if mark.id or (purchase.marked and mark.echo):
                self._marks.keep(
                    payer,
                    name,
                    mark,
                    subject,
                    now=self._clock.now(),
                    failed=self._failed,
                    synced=purchase.marked,
                )
            before_charge(payer, name, channel)

        return before

    def _failed(self, holder: Holder) -> bool:
        states = {
            claim.state
            for claim in self._settlements.claims_for(holder.subject)
            if name_of(claim).lower() == holder.payment.lower()
        }
        return states == {ClaimState.FAILED}

    def _ask(
        self,
        purchase: Purchase,
        terms: Terms,
        text: str,
        failure: PaymentRequired | None = None,
        payer: str | None = None,
        *,
        by_channel: bool,
        bare: bool,
    ) -> Answer:
        exact = bare or not by_channel
        channels = by_channel or (bare and self._till.open)
        ways = [terms.requirements_v2()] if exact else []
        if channels:
            ways.append(self._till.requirements(terms))
        extensions = {
            PAYMENT_IDENTIFIER: declaration(),
            OFFER_RECEIPT: signed_offers(
                self._key, terms.resource_url, ways, issued_at=int(self._clock.now())
            ),
        }
        if purchase.described is not None:
            extensions[BAZAAR] = dict(purchase.described)
        challenge = self._challenges.issue(terms, purchase.proof_binding(terms)) if exact else None
        said: dict[str, Any] = {"challenge": challenge, "extensions": extensions}
        if channels:
            headers, document = self._till.ask(
                terms, exact=exact, error=text, failure=failure, payer=payer, **said
            )
        else:
            reason = None if failure is None else str(failure.extra.get("reason") or "") or None
            headers, document = payment_required(
                terms, error=text, reason=reason, payer=payer, **said
            )
        return Answer(402, headers, json.dumps(document, separators=(",", ":")).encode())


def name_of(claim: Claim) -> str:
    """The name of the payment that a claim is for."""
    return f"{claim.payer}:{claim.authorization.nonce}"
