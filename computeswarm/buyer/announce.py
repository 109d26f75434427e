"""What is done beside the first payment, and may not hold it up."""

from __future__ import annotations

import asyncio

from computeswarm.buyer.funds import Funds
from computeswarm.buyer.http.market import MarketClient
from computeswarm.buyer.offer import Offer
from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, InsufficientFunds
from computeswarm.core.jobs import SUBMISSION_KIND, JobSubmission
from computeswarm.core.signing import Signed


async def announce(
    offer: Offer,
    key: PrivateKey,
    chain: ChainInfo,
    market: MarketClient,
    funds: Funds,
    paid_now: int,
) -> None:
    """Tell the market of a job, and look whether the money is there: ``paid_now`` atoms.

    Raises:
        InsufficientFunds: it isn't. Whatever else goes wrong is no reason not to buy.
    """
    results = await asyncio.gather(
        market.submit(_submission(offer, key, chain)),
        funds.check(key.address, paid_now),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, InsufficientFunds):
            raise result
        if isinstance(result, BaseException) and not isinstance(result, ComputeSwarmError):
            raise result


def _submission(offer: Offer, key: PrivateKey, chain: ChainInfo) -> Signed:
    submission = JobSubmission(
        job_id=offer.job_id,
        node_id=offer.node.node_id,
        buyer=key.address,
        spec_hash=offer.quote.spec_hash,
        price_per_hour=offer.quote.price_per_hour,
        max_seconds=offer.quote.max_seconds,
        gpu_count=offer.spec.gpu_count,
        issued_at=offer.quote.issued_at,
    )
    return Signed.make(key, SUBMISSION_KIND, chain.chain_id, submission)
