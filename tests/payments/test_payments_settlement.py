"""Settlement on a real chain: paid once, started once, whatever is done to it."""

from __future__ import annotations

import asyncio

import pytest
from payments_shop import PRICE, Shop, pay

from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import AuthorizationReused
from computeswarm.payments.claims import ClaimState


async def test_a_hundred_posts_of_one_payment_settle_once(devnet: Devnet, shop: Shop) -> None:
    before = await shop.usdc.balance_of(shop.terms.pay_to)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    claims = await asyncio.gather(*(shop.settle(payment, subject=f"job-{i}") for i in range(100)))
    assert len(set(claims)) == 1
    assert claims[0].state is ClaimState.CONSUMED
    assert [claim.subject for claim in shop.started] == ["job-0"] == shop.asked
    assert await shop.usdc.balance_of(shop.terms.pay_to) == before + PRICE
    with pytest.raises(AuthorizationReused):
        await shop.settle(payment, binding="another request")
