"""How jobs and their further slices are bought: price first, then money, then the job.

Everything that can be refused is refused before a payment is asked for, and again before one is
broadcast. A payment that was presented before is answered as it was then, whatever has changed.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from computeswarm.core.channels import SCHEME
from computeswarm.core.errors import Conflict, Forbidden
from computeswarm.core.ids import new_job_id
from computeswarm.core.jobs import ExecuteReply, ExecuteRequest, JobSpec, Phases
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.core.x402 import PaymentProof
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.extensions.bazaar import described
from computeswarm.payments.settlement import Settlements
from computeswarm.payments.terms import Terms
from computeswarm.seller.checkout import Answer, Checkout, Purchase, name_of
from computeswarm.seller.config import SellerConfig
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.intake_channels import ChannelTill
from computeswarm.seller.job import Job, key_digest
from computeswarm.seller.offers import Offers
from computeswarm.seller.vault import Vault

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import Charge

TIMEOUT_SECONDS = 60


EXECUTE_EXAMPLE = {"spec": {"command": ["python", "-c", "print('hello')"], "max_seconds": 60}}
"""A whole request: what it leaves out has defaults."""
REPLY_EXAMPLE = {"job": {"job_id": "...", "state": "queued"}, "access_key": "..."}
_DESCRIBED = described(EXECUTE_EXAMPLE, REPLY_EXAMPLE)


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
    gate: Callable[[JobSpec], None]
    secret: bytes
    owner_only: bool
    till: ChannelTill
    checkout: Checkout
    vault: Vault
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
        purchase = Purchase(
            headers,
            body,
            request.payment_proof,
            described=_DESCRIBED,
            marked="access_key" not in request.model_fields_set,
        )
        named = self.checkout.named(purchase)
        known = self.desk.store.bought_by(named) if named else None
        if known is None:
            quote = self._quote(request)
            if request.quote is None:
                quote = self.till.as_paid(headers, quote)
            job_id = request.job_id or new_job_id()
            # else money may be here already, which goes back where this refuses
            if not (request.payment_proof or self.settlements.was_presented(named)):
                self._check_open(request)
        else:
            quote, job_id = known.quote, known.job_id
        terms = self._terms(quote, 0, "/execute", request.job_id)

        def before_charge(payer: str, name: str, _: str) -> None:
            self.check_payer(payer)
            if known is None:
                self._check_open(request)
                self.vault.check(request, payer)
            key = self._access_key(request, purchase, terms, name)
            self._add(job_id, name, payer, request, quote, key)
            # last: whoever does not own this job must not change what is kept free for it
            self.inputs.promise(job_id, request.spec)

        try:
            result = await self.checkout.take(
                purchase, terms, job_id, before_charge, quote, bare=request.quote is None
            )
        finally:
            self._clear_failed(job_id)
        if isinstance(result, Answer):
            return result
        job = self.desk.store.find(result.subject)
        if result.reply is None:
            if job is None:  # a crash, or a failure of ours, came between the two records
                raise Conflict("The job was lost, so its payment goes back; buy it anew.")
            key = self._access_key(request, purchase, terms, job.authorization)
            reply = ExecuteReply(job=self.desk.view(job), access_key=key)
            result = self.checkout.keep_reply(result, reply.model_dump_json().encode())
        return Answer(202, self._receipt(result, terms, job), result.reply or b"")

    async def pay_slice(
        self,
        headers: Mapping[str, str],
        body: bytes,
        job: Job,
        index: int,
        proof: PaymentProof | None = None,
    ) -> Answer:
        """``POST /jobs/{id}/payments``: 402 with the price, or 200 with the job.

        Raises:
            Conflict: this slice is not the next, or the job has ended.
            Forbidden: another wallet than the job's.
        """
        if not 1 <= index < job.quote.slice_count:
            last = job.quote.slice_count - 1
            raise Conflict(f"The job has no slice {index} to pay; its last is {last}.")
        purchase = Purchase(headers, body, proof)
        if job.channel:
            return await self._pay_tick(purchase, job, index)
        named, subject = self.checkout.named(purchase), f"{job.job_id}#{index}"
        claim = self.settlements.claim(subject)
        repeated = named is not None and claim is not None and name_of(claim) == named
        if not repeated and proof is None:
            self._check_slice(job.job_id, index, named)

        def before_charge(payer: str, name: str, _: str) -> None:
            self._check_buyer(job, payer)
            self._check_slice(job.job_id, index, name)
            self._settling[job.job_id, index] = name

        try:
            terms = self._terms(job.quote, index, f"/jobs/{job.job_id}/payments", job.job_id)
            result = await self.checkout.take(purchase, terms, subject, before_charge, job.quote)
        finally:
            self._clear_settling(job.job_id, index)
        return result if isinstance(result, Answer) else self._paid(job, result, terms)

    async def _pay_tick(self, purchase: Purchase, job: Job, index: int) -> Answer:
        """A slice of a job with a channel: a voucher, and no transaction."""

        def first() -> None:
            now = self.desk.store.get(job.job_id)
            if not (now.state.live and index == now.slices_paid - 1):  # the last one, once more
                self._check_next(now, index)

        def before_charge(payer: str, _: str, channel: str) -> None:
            self._check_buyer(job, payer)
            now = self.desk.store.get(job.job_id)
            self._check_next(now, index)
            if channel != now.channel:
                raise Conflict("The job is paid by another channel; sign for that one.")

        terms = self._terms(job.quote, index, f"/jobs/{job.job_id}/payments", job.job_id)
        subject = f"{job.job_id}#{index}"
        result = await self.checkout.take(
            purchase, terms, subject, before_charge, job.quote, first=first
        )
        return result if isinstance(result, Answer) else self._paid(job, result, terms)

    def _paid(self, job: Job, result: Claim | Charge, terms: Terms) -> Answer:
        view = self.desk.view(self.desk.store.get(job.job_id))
        return Answer(200, self._receipt(result, terms, job), view.model_dump_json().encode())

    def _receipt(self, result: Claim | Charge, terms: Terms, job: Job | None) -> dict[str, str]:
        at = result.settled_at if isinstance(result, Claim) else None
        if at is None:
            at = ((job and job.phases.created) or self.desk.now_ms()) / 1000
        return self.checkout.receipt(result, terms, at=at)

    def close(self) -> None:
        """Close the files."""
        self.checkout.close()

    def sweep(self) -> None:
        """Forget jobs whose payments failed while nobody waited for them."""
        for job in self.desk.store.live():
            if job.state is JobState.AWAITING_PAYMENT:
                self._clear_failed(job.job_id)
        for job_id, index in list(self._settling):
            self._clear_settling(job_id, index)

    def _quote(self, request: ExecuteRequest) -> Quote:
        """What the job costs; whether it may be had now ``_check_open`` says."""
        if request.quote is None:
            return self.offers.priced(request.spec)
        return self.offers.open(request.quote, request.spec)

    def _check_open(self, request: ExecuteRequest) -> None:
        self.gate(request.spec)
        if request.quote is not None:
            self.offers.check_fresh(self.offers.open(request.quote, request.spec))
        self.offers.check(request.spec)
        self.vault.check_shape(request)
        known = self.desk.store.find(request.job_id) if request.job_id else None
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
            max_timeout_seconds=TIMEOUT_SECONDS,
            challenge_job_id=job_id,
            expires_at=quote.expires_at,
        )

    def _check_buyer(self, job: Job, payer: str) -> None:
        if payer != job.buyer:
            raise Forbidden(f"The job is paid by {job.buyer}; pay its slices from there.")

    def check_payer(self, payer: str) -> None:
        """Raises Forbidden: this node serves its owner's wallets only."""
        if self.owner_only and payer.lower() not in self.config.trusted:
            raise Forbidden(
                "This node runs jobs without a sandbox, so only its owner's wallets are served; "
                "choose a node with isolation.",
                payer=payer,
            )

    def _access_key(
        self, request: ExecuteRequest, purchase: Purchase, terms: Terms, authorization: str
    ) -> str:
        """The buyer's own, or for a bare client one that a repetition gets again."""
        if "access_key" in request.model_fields_set:
            return request.access_key
        proven = request.payment_proof is not None
        binding = purchase.proof_binding(terms) if proven else purchase.binding(terms)
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
            ),
            request.sealed_secrets,
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
            name_of(claim).lower()
            for claim in self.settlements.claims_for(f"{job_id}#{index}")
            if claim.state is ClaimState.BROADCAST
        }
        if (settling := self._settling.get((job_id, index))) is not None:
            names.add(settling.lower())
        return names

    def _clear_settling(self, job_id: str, index: int) -> None:
        authorization = self._settling.get((job_id, index))
        if authorization is None:
            return
        states = self._states(f"{job_id}#{index}", authorization)
        if states <= _ENDED:
            del self._settling[job_id, index]

    def _clear_failed(self, job_id: str) -> None:
        job = self.desk.store.find(job_id)
        if job is None or job.state is not JobState.AWAITING_PAYMENT:
            return
        if job.quote.scheme == SCHEME:
            dead = not self.till.under_way(job_id, job.authorization)
        else:
            dead = self._states(job_id, job.authorization) <= {ClaimState.FAILED}
        if dead:
            self.desk.drop_unpaid(job_id)

    def _states(self, subject: str, authorization: str) -> set[ClaimState]:
        """How one payment stands. Ids of jobs are no secret, so others may have paid for this one
        too, and failed."""
        return {
            claim.state
            for claim in self.settlements.claims_for(subject)
            if name_of(claim).lower() == authorization.lower()
        }


_ENDED = frozenset(ClaimState) - {ClaimState.RESERVED, ClaimState.BROADCAST}
