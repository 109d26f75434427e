"""Those who want the seller's service, or his gas, for nothing; and money that comes late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain import nonce_use
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PaymentPending, PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.policy import SettlementPolicy

Opener = Callable[..., Awaitable[Shop]]


async def buyers_key(devnet: Devnet, atoms: int = PRICE) -> PrivateKey:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=atoms)
    return key


def sent_count(shop: Shop) -> int:
    """How many payments we ever sent a transaction for."""
    row = shop.settlements._store.db.execute("SELECT COUNT(DISTINCT claim) FROM sent_for")
    return int(row.fetchone()[0])


async def test_one_balance_behind_many_payments_costs_the_gas_of_few(
    devnet: Devnet, shop: Shop
) -> None:
    """Each of them would go through, but not after another has."""
    key = await buyers_key(devnet)
    ends = await asyncio.gather(
        *(
            shop.settle(pay(key, shop.terms.pay_to), subject=f"job-{n}", binding=f"{n}")
            for n in range(40)
        ),
        return_exceptions=True,
    )
    assert [end.state for end in ends if isinstance(end, Claim)] == [ClaimState.CONSUMED]
    reasons = {end.extra["reason"] for end in ends if isinstance(end, PaymentRequired)}
    assert reasons == {Reason.INSUFFICIENT_FUNDS}
    assert len(shop.started) == 1
    assert sent_count(shop) <= 3


async def test_whoever_can_pay_them_all_may_pay_many_at_once(devnet: Devnet, shop: Shop) -> None:
    key = await buyers_key(devnet, 20 * PRICE)
    claims = await asyncio.gather(
        *(shop.settle(pay(key, shop.terms.pay_to), subject=f"job-{n}") for n in range(20))
    )
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert len(shop.started) == 20


async def test_a_window_without_an_end_is_refused(devnet: Devnet, shop: Shop) -> None:
    """It could be used, and would have to be watched, for ever."""
    now = int(time.time())
    for end in (now + 7_300, 2**200):
        with pytest.raises(PaymentRequired) as caught:
            await shop.settle(pay(devnet.keys[0], shop.terms.pay_to, valid_before=end))
        assert caught.value.extra["reason"] == Reason.VALID_BEFORE
    claim = await shop.settle(pay(devnet.keys[0], shop.terms.pay_to, valid_before=now + 3_600))
    assert claim.state is ClaimState.CONSUMED


async def test_what_a_facilitator_settled_long_ago_is_found(
    devnet: Devnet, rpc: RpcClient, open_shop: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seller who was away for many blocks still sells for what he was paid meanwhile."""
    monkeypatch.setattr(nonce_use, "SEARCH_BLOCKS", 5)

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/supported":
            kind = {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}
            return web.json_response({"kinds": [kind]})
        if request.path == "/verify":
            return web.json_response({"isValid": True})
        return web.Response(status=503)

    app = web.Application()
    app.router.add_route("*", "/{path}", handle)
    async with TestServer(app) as server:
        policy = SettlementPolicy(facilitator=str(server.make_url("")))
        shop = await open_shop(policy=policy, settle_seconds=0.5)
        payment = pay(devnet.keys[0], shop.terms.pay_to)
        with pytest.raises(PaymentPending):
            await shop.settle(payment)
        await shop.settlements.close()
        tx = await submit(devnet, rpc, payment)
        for _ in range(23):
            await rpc.call("evm_mine")
        again = await open_shop(policy=policy)
        await until(lambda: bool(again.started))
        claim = await again.settle(payment)
        assert (claim.transaction, claim.state) == (tx, ClaimState.CONSUMED)
        await again.settlements.close()


async def submit(devnet: Devnet, rpc: RpcClient, payment: Any) -> str:
    """A stranger brings a payment to the chain."""
    sender = TxSender(rpc, devnet.keys[5], devnet.chain_id)
    data = authorization_calldata(payment.authorization, payment.signature)
    signed = await sender.prepare(devnet.usdc, data, gas=200_000)
    await sender.broadcast(signed)
    assert (await sender.wait_receipt(signed.hash)).succeeded
    return signed.hash
