"""Refused is not returned: a seller who says no, and what he can still do with the payment."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from buyer_fakes import CHAIN, FakeSeller, serving

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import Stage
from computeswarm.buyer.spec import JobPlan
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc, authorization_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import InsufficientFunds, PaymentPending, PaymentRequired
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.journal import Fate
from computeswarm.payments.present import Presented, read_payment
from computeswarm.payments.terms import Terms, payment_required

BUDGET = 500_000
PRICE = 60_000


class HostileSeller(FakeSeller):
    """Speaks one version of x402, refuses with or without a receipt, and keeps what he is given."""

    def __init__(self, version: int, *, receipt: bool) -> None:
        super().__init__()
        self.version, self.receipt = version, receipt
        self.hand: list[Presented] = []
        self.honest = False

    def _settle(self, request: web.Request, index: int, amount: int) -> web.Response | str:
        terms = Terms(CHAIN, self.key.address, amount, self.url + request.path)
        presented = read_payment(request.headers, terms)
        if presented is not None:
            assert presented.version == self.version
            self.hand.append(presented)
        if self.honest and presented is not None:
            return super()._settle(request, index, amount)
        failed = presented is not None and self.receipt
        headers, body = payment_required(
            terms, error="No.", **({"reason": "insufficient_funds"} if failed else {})
        )
        if self.version == 1:
            headers.pop("PAYMENT-REQUIRED", None)
        return web.json_response(body, status=402, headers=headers)

    @property
    def nonces(self) -> set[str]:
        return {presented.authorization.nonce for presented in self.hand}


class ShiftedClock:
    """The machine's clock, set wrong by so many seconds."""

    shift = 0.0

    def now(self) -> float:
        return time.time() + self.shift

    def monotonic(self) -> float:
        return time.monotonic()


@asynccontextmanager
async def buying(
    home: Path, key: PrivateKey, clock: ShiftedClock, rpc: str
) -> AsyncIterator[Buyer]:
    paths = Paths(config=home, state=home, cache=home / "cache")
    settings = Settings(market="http://127.0.0.1:9", rpc=rpc)
    async with Buyer(settings, paths, key, clock=clock, present_seconds=0.1) as buyer:
        yield buyer


async def submit(devnet: Devnet, presented: Presented) -> None:
    """Do on chain what was said to be refused."""
    async with RpcClient(devnet.url) as rpc:
        sender = TxSender(rpc, devnet.keys[3], devnet.chain_id)
        data = authorization_calldata(presented.authorization, presented.signature)
        tx = await sender.prepare(CHAIN.usdc.address, data, gas=200_000)
        await sender.broadcast(tx)
        receipt = await sender.wait_receipt(tx.hash)
        assert Usdc(rpc, CHAIN).payment_proof(receipt, presented.authorization)


@pytest.mark.parametrize("receipt", [True, False], ids=["failed", "no-receipt"])
@pytest.mark.parametrize("version", [1, 2])
async def test_he_refuses_takes_the_money_and_gets_no_second_signature(
    devnet: Devnet, tmp_path: Path, plan: JobPlan, version: int, receipt: bool
) -> None:
    key, clock = PrivateKey.generate(), ShiftedClock()
    await devnet.fund(key.address, usdc_atoms=1_000_000)
    async with (
        serving(HostileSeller(version, receipt=receipt)) as seller,
        buying(tmp_path, key, clock, devnet.url) as buyer,
    ):
        offer = await buyer.quote(seller.node, plan)
        for _ in range(2):  # again and again, it is the same one
            with pytest.raises(InsufficientFunds if receipt else PaymentPending):
                await buyer.start(offer, budget=BUDGET)
            assert buyer.job(offer.job_id).stage is Stage.PAYING
        await submit(devnet, seller.hand[0])

        clock.shift = 1_000
        with pytest.raises(PaymentRequired if receipt else PaymentPending) as told:
            await buyer.start(offer, budget=BUDGET)
        assert len(seller.nonces) == 1
        assert buyer.spent_today() == PRICE
        fates = [p.state for p in buyer._payments.of_job(offer.job_id)]
        assert fates == [Fate.SPENT if receipt else Fate.SETTLED]
        if receipt:
            assert "used the payment of 0.06 USDC on chain" in told.value.detail
            assert buyer.job(offer.job_id).stage is Stage.ABANDONED


@pytest.mark.parametrize("version", [1, 2])
async def test_a_seller_who_comes_round_gets_the_same_payment(
    devnet: Devnet, tmp_path: Path, plan: JobPlan, version: int
) -> None:
    key = PrivateKey.generate()
    async with (
        serving(HostileSeller(version, receipt=True)) as seller,
        buying(tmp_path, key, ShiftedClock(), devnet.url) as buyer,
    ):
        await devnet.fund(key.address, usdc_atoms=PRICE)
        offer = await buyer.quote(seller.node, plan)
        with pytest.raises(InsufficientFunds):
            await buyer.start(offer, budget=BUDGET)
        seller.honest = True
        (record,) = await buyer.resume(offer.job_id)
        assert record.stage is Stage.PAID
        assert len(seller.nonces) == len(seller.paid) == 1


async def test_only_what_the_chain_shows_unused_is_signed_anew(
    devnet: Devnet, tmp_path: Path, plan: JobPlan
) -> None:
    key, clock = PrivateKey.generate(), ShiftedClock()
    await devnet.fund(key.address, usdc_atoms=1_000_000)
    async with serving(HostileSeller(2, receipt=True)) as seller:
        async with buying(tmp_path, key, clock, devnet.url) as buyer:
            offer = await buyer.quote(seller.node, plan)
            clock.shift = -250  # so that by the chain's clock the payment's time is up at once
            with pytest.raises(InsufficientFunds):
                await buyer.start(offer, budget=BUDGET)
        clock.shift = 0
        async with buying(tmp_path, key, clock, "http://127.0.0.1:9") as buyer:
            assert buyer.spent_today() == PRICE
            with pytest.raises(PaymentPending, match="Only the chain can tell"):
                await buyer.start(offer, budget=BUDGET)
        assert len(seller.nonces) == 1
        seller.honest = True
        async with buying(tmp_path, key, clock, devnet.url) as buyer:
            assert buyer.spent_today() == 0
            record: Any = await buyer.start(offer, budget=BUDGET)
            assert record.stage is Stage.PAID
            assert buyer.spent_today() == PRICE
        assert len(seller.nonces) == 2
