"""How jobs and their further slices are bought: price first, then money, then the job.

Everything that can be refused is refused before a payment is asked for, and again before one is
broadcast. A payment that was presented before is answered as it was then, whatever has changed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from computeswarm.core.channels import SCHEME
from computeswarm.core.errors import (
    Conflict,
    Forbidden,
    PaymentRequired,
)
from computeswarm.core.ids import new_job_id
from computeswarm.core.jobs import ExecuteReply, ExecuteRequest, Phases
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.payments.channels.present import PresentedChannel
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.present import Presented, named_authorization, read_payment
from computeswarm.payments.settlement import Settlements, request_binding
from computeswarm.payments.terms import Terms, payment_required
from computeswarm.seller.config import SellerConfig
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.intake_channels import BeforeCharge, ChannelTill
from computeswarm.seller.offers import Offers
from computeswarm.seller.store import Job, key_digest

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import Charge

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Intake:
    """Sells slices.

    Args:
        gate: raises the reason for which no new job is taken now.
    """

    config: SellerConfig
    offers: Offers
    desk: JobDesk
    inputs: InputStore
    settlements: Settlements
    gate: Callable[[], None]
    secret: bytes
    owner_only: bool
    till: ChannelTill
    _settling: dict[tuple[str, int], str] = field(default_factory=dict)

    async def execute(
        self, headers: Mapping[str, str], body: bytes, request: ExecuteRequest
    ) -> Answer:
        """``POST /execute``: 402 with the price, or 202 with the job.

        Raises:
            Unprocessable, QuoteExpired, Unavailable, Conflict: it can't be had; nothing was taken.
            Forbidden: the payer is not one of the owner's wallets.
            AuthorizationReused, PaymentPending: see ``Settlements.settle``.
        """
        named = self._named(headers)
        known = self.desk.store.bought_by(named) if named else None
        if known is None:
            quote = self._quote(request)
            if request.quote is None:
                quote = self.till.as_paid(headers, quote)
            job_id = request.job_id or new_job_id()
            self._check_new(request.job_id)
        else:
            quote, job_id = known.quote, known.job_id
        terms = self._terms(quote, 0, "/execute", request.job_id)
        binding = request_binding("POST", terms.resource_url, body)

        def before_broadcast(payer: str, authorization: str, _: str) -> None:
            if known is None:
                self.gate()
            key = self._access_key(request, binding, authorization)
            self._add(job_id, authorization, payer, request, quote, key)
            # last: whoever does not own this job must not change what is kept free for it
            self.inputs.promise(job_id, request.spec)

        try:
            result = await self._settle(
                headers, terms, binding, job_id, before_broadcast, quote, bare=request.quote is None
            )
        finally:
            self._clear_failed(job_id)
        if isinstance(result, Answer):
            return result
        if result.reply is None:
            job = self.desk.store.get(result.subject)
            key = self._access_key(request, binding, job.authorization)
            reply = ExecuteReply(job=self.desk.view(job), access_key=key)
            result = self._keep_reply(result, reply.model_dump_json().encode())
        return Answer(202, result.receipt_headers(), result.reply or b"")

    async def pay_slice(
        self, headers: Mapping[str, str], body: bytes, job: Job, index: int
    ) -> Answer:
        """``POST /jobs/{id}/payments``: 402 with the price, or 200 with the job.

        Raises:
            Conflict: this slice is not the next, or the job has ended.
            Forbidden: another wallet than the job's.
        """
        if not 1 <= index < job.quote.slice_count:
            last = job.quote.slice_count - 1
            raise Conflict(f"The job has no slice {index} to pay; its last is {last}.")
        if job.channel:
            return await self._pay_tick(headers, body, job, index)
        named = self._named(headers)
        claim = self.settlements.claim(f"{job.job_id}#{index}")
        if named is None or claim is None or _name_of(claim) != named:
            self._check_slice(job.job_id, index, named)
        terms = self._terms(job.quote, index, f"/jobs/{job.job_id}/payments", job.job_id)
        binding = request_binding("POST", terms.resource_url, body)

        def before_broadcast(payer: str, authorization: str, _: str) -> None:
            self._check_buyer(job, payer)
            self._check_slice(job.job_id, index, authorization)
            self._settling[job.job_id, index] = authorization

        subject = f"{job.job_id}#{index}"
        try:
            result = await self._settle(
                headers, terms, binding, subject, before_broadcast, job.quote
            )
        finally:
            self._clear_settling(job.job_id, index)
        return result if isinstance(result, Answer) else self._paid(job.job_id, result)

    async def _pay_tick(
        self, headers: Mapping[str, str], body: bytes, job: Job, index: int
    ) -> Answer:
        """A slice of a job with a channel: a voucher, and no transaction."""
        terms = self._terms(job.quote, index, f"/jobs/{job.job_id}/payments", job.job_id)
        binding = request_binding("POST", terms.resource_url, body)

        def before_charge(payer: str, _: str, channel: str) -> None:
            self._check_buyer(job, payer)
            now = self.desk.store.get(job.job_id)
            self._check_next(now, index)
            if channel != now.channel:
                raise Conflict("The job is paid by another channel; sign for that one.")

        result = await self._settle(
            headers, terms, binding, f"{job.job_id}#{index}", before_charge, job.quote
        )
        return result if isinstance(result, Answer) else self._paid(job.job_id, result)

    def _paid(self, job_id: str, result: Claim | Charge) -> Answer:
        view = self.desk.view(self.desk.store.get(job_id))
        return Answer(200, result.receipt_headers(), view.model_dump_json().encode())

    def sweep(self) -> None:
        """Forget jobs whose payments failed while nobody waited for them."""
        for job in self.desk.store.live():
            if job.state is JobState.AWAITING_PAYMENT:
                self._clear_failed(job.job_id)
        for job_id, index in list(self._settling):
            self._clear_settling(job_id, index)

    def _quote(self, request: ExecuteRequest) -> Quote:
        self.gate()
        if request.quote is None:
            return self.offers.quote(request.spec)
        quote = self.offers.open(request.quote, request.spec)
        self.offers.check_fresh(quote)
        self.offers.check(request.spec)
        return quote

    def _check_new(self, job_id: str | None) -> None:
        known = self.desk.store.find(job_id) if job_id else None
        if known is not None and known.state is not JobState.AWAITING_PAYMENT:
            raise Conflict("There is a job with this id already; make a new id.")

    def _terms(self, quote: Quote, index: int, path: str, job_id: str | None) -> Terms:
        seconds = quote.slice_length(index)
        return Terms(
            chain=self.config.chain,
            pay_to=quote.pay_to,
            amount=quote.slice_amount(index),
            resource_url=self.offers.endpoint.rstrip("/") + path,
            description=f"{seconds} s of compute on {self.config.name}, slice {index + 1}",
            max_timeout_seconds=_TIMEOUT_SECONDS,
            challenge_job_id=job_id,
            expires_at=quote.expires_at,
        )

    async def _settle(
        self,
        headers: Mapping[str, str],
        terms: Terms,
        binding: str,
        subject: str,
        before_broadcast: BeforeCharge,
        quote: Quote,
        *,
        bare: bool = False,
    ) -> Claim | Charge | Answer:
        """The settled payment, or the 402.

        Args:
            quote: says how it is to be paid.
            bare: there was no quote to say so, and either way is fine.
        """
        presented: Presented | PresentedChannel | None = None
        by_channel = quote.scheme == SCHEME
        try:
            if by_channel:
                presented = self.till.read(headers, terms)
                if presented is not None and presented.kind == "refund":
                    return await self._give_back(presented, subject)
            else:
                presented = read_payment(headers, terms)
            if presented is None:
                text = "Pay for the first seconds; the rest follows slice by slice."
                return self._asking(terms, text, by_channel=by_channel, bare=bare)
            self._check_payer(presented.payer)
            if isinstance(presented, PresentedChannel):
                return await self.till.charge(
                    presented,
                    terms,
                    binding=binding,
                    subject=subject,
                    before_charge=before_broadcast,
                )
            payer = presented.payer
            name = f"{payer}:{presented.authorization.nonce}"
            return await self.settlements.settle(
                presented,
                terms,
                binding=binding,
                subject=subject,
                before_broadcast=lambda: before_broadcast(payer, name, ""),
            )
        except PaymentRequired as error:
            named = presented.payer if presented else None
            return self._asking(terms, error.detail, error, named, by_channel=by_channel, bare=bare)

    def _asking(
        self,
        terms: Terms,
        text: str,
        failure: PaymentRequired | None = None,
        payer: str | None = None,
        *,
        by_channel: bool,
        bare: bool,
    ) -> Answer:
        if by_channel or (bare and self.offers.channels):
            headers, document = self.till.ask(
                terms, exact=bare, error=text, failure=failure, payer=payer
            )
        else:
            reason = None if failure is None else str(failure.extra.get("reason") or "") or None
            headers, document = payment_required(terms, error=text, reason=reason, payer=payer)
        return Answer(402, headers, json.dumps(document, separators=(",", ":")).encode())

    async def _give_back(self, presented: PresentedChannel, subject: str) -> Answer:
        """The rest of a channel's deposit, for its buyer asks for it."""
        job = self.desk.store.find(subject.partition("#")[0])
        if job is not None and job.state.live:
            raise Conflict("The job still runs on that deposit; cancel it, then the rest is free.")
        refund = await self.till.give_back(presented)
        body = json.dumps({"refunded": refund.amount, "transaction": refund.transaction})
        return Answer(200, refund.receipt_headers(), body.encode())

    def _keep_reply(self, result: Claim | Charge, reply: bytes) -> Claim | Charge:
        if isinstance(result, Claim):
            return self.settlements.set_reply(result, reply)
        return self.till.keep_reply(result, reply)

    def _named(self, headers: Mapping[str, str]) -> str | None:
        return _named(headers) or self.till.named(headers)

    def _check_buyer(self, job: Job, payer: str) -> None:
        if payer != job.buyer:
            raise Forbidden(f"The job is paid by {job.buyer}; pay its slices from there.")

    def _check_payer(self, payer: str) -> None:
        if self.owner_only and payer.lower() not in self.config.trusted:
            raise Forbidden(
                "This node runs jobs without a sandbox, so only its owner's wallets are served; "
                "choose a node with isolation.",
                payer=payer,
            )

    def _access_key(self, request: ExecuteRequest, binding: str, authorization: str) -> str:
        """The buyer's own, or for a bare client one that a repetition gets again."""
        if "access_key" in request.model_fields_set:
            return request.access_key
        return hmac.digest(self.secret, f"{binding}|{authorization}".encode(), "sha256").hex()

    def _add(
        self,
        job_id: str,
        authorization: str,
        payer: str,
        request: ExecuteRequest,
        quote: Quote,
        key: str,
    ) -> None:
        self.desk.store.add(
            Job(
                job_id=job_id,
                authorization=authorization,
                state=JobState.AWAITING_PAYMENT,
                spec=request.spec,
                quote=quote,
                buyer=payer,
                key_hash=key_digest(key),
                bare=request.quote is None,
                phases=Phases(created=self.desk.now_ms()),
            )
        )

    def _check_slice(self, job_id: str, index: int, authorization: str | None) -> None:
        self._check_next(self.desk.store.get(job_id), index)
        if self._under_way(job_id, index) - {(authorization or "").lower()}:
            raise Conflict("A payment for this slice is on its way already.")

    def _check_next(self, job: Job, index: int) -> None:
        if not job.state.live:
            raise Conflict(f"The job is {job.state}; no more time can be paid.")
        if index != job.slices_paid:
            raise Conflict(f"The next slice to pay is {job.slices_paid}, not {index}.")

    def _under_way(self, job_id: str, index: int) -> set[str]:
        """Payments for a slice that may yet settle, also those from before a restart."""
        names = {
            _name_of(claim).lower()
            for claim in self.settlements.claims(job_id)
            if claim.subject == f"{job_id}#{index}" and claim.state is ClaimState.BROADCAST
        }
        if (settling := self._settling.get((job_id, index))) is not None:
            names.add(settling.lower())
        return names

    def _clear_settling(self, job_id: str, index: int) -> None:
        authorization = self._settling.get((job_id, index))
        if authorization is None:
            return
        states = self._states(job_id, f"{job_id}#{index}", authorization)
        if states <= {ClaimState.FAILED, *_PAID}:
            del self._settling[job_id, index]

    def _clear_failed(self, job_id: str) -> None:
        job = self.desk.store.find(job_id)
        if job is None or job.state is not JobState.AWAITING_PAYMENT:
            return
        if job.quote.scheme == SCHEME:
            dead = not self.till.under_way(job_id, job.authorization)
        else:
            dead = self._states(job_id, job_id, job.authorization) <= {ClaimState.FAILED}
        if dead:
            self.desk.drop_unpaid(job_id)

    def _states(self, job_id: str, subject: str, authorization: str) -> set[ClaimState]:
        """How one payment stands. Ids of jobs are no secret, so others may have paid for this one
        too, and failed."""
        return {
            claim.state
            for claim in self.settlements.claims(job_id)
            if claim.subject == subject and _name_of(claim).lower() == authorization.lower()
        }


_PAID = (ClaimState.SETTLED, ClaimState.CONSUMED, ClaimState.REFUNDED)


def _named(headers: Mapping[str, str]) -> str | None:
    named = named_authorization(headers)
    return f"{named[0]}:{named[1]}" if named else None


def _name_of(claim: Claim) -> str:
    return f"{claim.payer}:{claim.authorization.nonce}"
