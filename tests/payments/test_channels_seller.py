"""A channel's whole life on a real chain, from the seller's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chain_fixtures import running_devnet
from channels_rig import DEPOSIT, TICK, HandBuyer, Opener, Till
from payments_shop import until

from computeswarm.chain.devnet import Devnet, find_anvil
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.x402 import HEADER_RESPONSE_V2, decode_header


@pytest.fixture(scope="module", params=["py-evm", "anvil"])
def module_devnet(request: pytest.FixtureRequest) -> Iterator[Devnet]:
    """Both engines, for the main path."""
    if request.param == "anvil" and find_anvil() is None:
        pytest.skip("anvil is not installed (npm ci in contracts/)")
    with running_devnet(request.param) as devnet:
        yield devnet


@pytest.fixture
def open_till(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> Opener:
    async def opened(**options: Any) -> Till:
        return await Till.open(devnet, rpc, tmp_path / "channels.db", **options)

    return opened


@pytest_asyncio.fixture
async def till(open_till: Opener) -> AsyncIterator[Till]:
    till = await open_till()
    yield till
    await till.channels.close()


@pytest_asyncio.fixture
async def buyer(devnet: Devnet, till: Till) -> HandBuyer:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT, wei=10**18)
    return HandBuyer.of(key, till.seller.address)


async def test_a_job_is_paid_by_ticks_and_the_rest_comes_back_in_one_transaction(
    till: Till, buyer: HandBuyer
) -> None:
    assert till.channels.available
    before = await till.usdc.balance_of(till.seller.address)

    opened = await till.pay(buyer.deposit())
    assert (opened.amount, opened.cumulative, opened.deposit) == (TICK, TICK, DEPOSIT)
    assert (await till.state(buyer)).balance == DEPOSIT
    for n in range(1, 6):
        charge = await till.pay(buyer.voucher(TICK * (n + 1)), subject=f"job-1#{n}")
        assert (charge.subject, charge.cumulative) == (f"job-1#{n}", TICK * (n + 1))
    receipt = decode_header(charge.receipt_headers()[HEADER_RESPONSE_V2])
    assert receipt["transaction"] == receipt["amount"] == ""
    assert receipt["extra"]["chargedAmount"] == str(TICK)
    assert receipt["extra"]["channelState"]["chargedCumulativeAmount"] == str(6 * TICK)
    assert len(till.rows("channel_jobs")) == 1

    assert till.channels.finish("job-1", 5_400) == 0
    await until(lambda: bool(till.closed))
    account = till.channels.account("job-1")
    assert account is not None
    assert account == till.closed[0]
    assert (account.state, account.charged, account.claimed) == ("closed", 5_400, 5_400)
    assert (account.refunded, account.ticks) == (DEPOSIT - 5_400, 6)
    assert account.claim_transaction == account.refund_transaction
    assert await till.usdc.balance_of(till.seller.address) == before + 5_400
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT - 5_400
    kinds = [(m.kind, m.amount) for m in till.channels.movements()]
    moved = [
        ("claim", 5_400),
        ("deposit", DEPOSIT),
        ("refund", DEPOSIT - 5_400),
        ("settle", 5_400),
    ]
    assert sorted(kinds) == moved
    steps = till.rows("channel_steps")
    assert sorted((row["kind"], row["amount"]) for row in steps) == moved
    assert {row["state"] for row in steps} == {"done"}
    assert {row["wallet"] for row in steps} == {till.seller.address}


async def test_a_hundred_posts_of_one_voucher_charge_once(till: Till, buyer: HandBuyer) -> None:
    deposit = buyer.deposit()
    first = await asyncio.gather(*(till.pay(deposit) for _ in range(20)))
    assert {charge.transaction for charge in first} == {first[0].transaction}
    tick = buyer.voucher(2 * TICK)
    charges = await asyncio.gather(*(till.pay(tick, subject="job-1#1") for _ in range(100)))
    assert {charge.cumulative for charge in charges} == {2 * TICK}
    assert till.asked == ["job-1", "job-1#1"]
    account = till.channels.account("job-1")
    assert account is not None
    assert (account.ticks, account.charged) == (2, 2 * TICK)
