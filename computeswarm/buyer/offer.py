"""A seller's signed quote, held against everything that the buyer already knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from computeswarm.buyer.spec import JobPlan
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import SCHEME
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import BadRequest, PolicyRefused, QuoteExpired
from computeswarm.core.ids import JobId, new_job_id
from computeswarm.core.jobs import JobSpec
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.quotes import QUOTE_KIND, QUOTE_SECONDS, Quote, Scheme
from computeswarm.core.signing import Signed

CLOCK_SKEW_SECONDS = 120


def deposit_of(quote: Quote, budget: int) -> int:
    """Atoms put into a job's channel before its start: as many whole slices as the budget pays for,
    and no more than the time limit can cost."""
    each = quote.slice_amount(0)
    if quote.total_amount <= budget or not each:
        return quote.total_amount
    return budget // each * each


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job would cost at one node. Its job id makes buying it twice one purchase."""

    node: ComputeNode
    spec: JobSpec
    sources: Mapping[str, Path]
    quote: Quote
    signed: Signed
    job_id: JobId = field(default_factory=new_job_id)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def first_amount(self) -> int:
        """Atoms of the first slice, paid before the start."""
        return self.quote.slice_amount(0)

    @property
    def by_channel(self) -> bool:
        """Whether it is paid by vouchers on a deposit, not by a transfer for each slice."""
        return self.quote.scheme == SCHEME

    def most(self, budget: int) -> int:
        """Atoms paid at most: to the time limit, or as far as the budget goes in whole slices. On a
        channel they are its deposit."""
        return deposit_of(self.quote, budget)

    def paid_now(self, budget: int) -> int:
        """Atoms that leave the wallet before the start."""
        return self.most(budget) if self.by_channel else self.first_amount

    def at_risk(self, budget: int) -> int:
        """Atoms that a seller who vanishes takes along: the slice paid last, and what is left of
        the one before it when the next is paid. The rest of a deposit is not his to take.
        """
        if self.quote.slice_count == 1:
            return self.first_amount
        lead = cost_atoms(self.quote.price_per_hour, self.quote.lead_seconds)
        return min(self.most(budget), self.first_amount + lead)


def check_quote(
    signed: Signed,
    node: ComputeNode,
    plan: JobPlan,
    *,
    chain: ChainInfo,
    now: float,
    scheme: Scheme = "exact",
    offer_per_hour: int | None = None,
) -> Offer:
    """The offer in a seller's answer.

    Raises:
        Unauthorized: not signed by the wallet of the node's record.
        BadRequest: it is for another job, node, chain or token, or paid in another way.
        PolicyRefused: dearer than the signed record says and was offered, or paid to somebody else.
        QuoteExpired: its time is up, or its clock is far from ours.
    """
    record = node.info
    quote = signed.open(QUOTE_KIND, Quote, wallet=record.wallet)
    if quote.node_id != node.node_id or not same_address(quote.seller, record.wallet):
        raise BadRequest("The seller's quote is for another node; choose another seller.")
    if quote.spec_hash != plan.spec.digest():
        raise BadRequest("The seller's quote is for another job; choose another seller.")
    if quote.chain_id != chain.chain_id or signed.chain_id != chain.chain_id:
        raise BadRequest(f"The seller's quote is not for {chain.title}; choose another seller.")
    if not same_address(quote.asset, chain.usdc.address):
        raise BadRequest("The seller's quote asks for another token than USDC; choose another.")
    if not same_address(quote.pay_to, record.wallet):
        raise PolicyRefused("The quote pays somebody else than the node's owner.", rule="payee")
    if quote.scheme != scheme:
        raise BadRequest("The seller's quote is to be paid in another way than was asked for.")
    most = max(record.price_per_hour, offer_per_hour or 0)
    if quote.price_per_hour > most * max(1, plan.spec.gpu_count):
        raise PolicyRefused("The quote is dearer than the node's signed price.", rule="price")
    if quote.max_seconds != plan.spec.max_seconds:
        raise BadRequest("The seller's quote has another time limit than the job.")
    if quote.slice_seconds > record.slice_seconds:
        raise PolicyRefused(
            "The quote's slice is longer than the node's record says.", rule="slice"
        )
    if quote.expires_at <= now or quote.expires_at > now + QUOTE_SECONDS + CLOCK_SKEW_SECONDS:
        raise QuoteExpired("The seller's quote is not valid now; check both clocks, or ask again.")
    return Offer(node, plan.spec, plan.sources, quote, signed, secrets=plan.secrets)
