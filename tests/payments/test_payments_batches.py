"""Payments that wait for each other go in one transaction, and each still stands for itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from payments_engines import module_devnet  # noqa: F401 - a fixture
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.multicall import MULTICALL3
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PaymentPending, PaymentRequired, Unavailable
from computeswarm.core.x402 import Reason
from computeswarm.payments import fate
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.facilitators import own
from computeswarm.payments.policy import GasPolicy, SettlementPolicy
from computeswarm.payments.present import Presented

Opener = Callable[..., Awaitable[Shop]]


async def buyers(devnet: Devnet, count: int, atoms: int = PRICE) -> list[PrivateKey]:
    keys = [PrivateKey.generate() for _ in range(count)]
    for key in keys:
        await devnet.fund(key.address, usdc_atoms=atoms)
    return keys


async def settle_all(shop: Shop, payments: list[Presented]) -> list[Any]:
    """All at once, each for a job of its own."""
    return await asyncio.gather(
        *(shop.settle(payment, subject=f"job-{n}") for n, payment in enumerate(payments)),
        return_exceptions=True,
    )


def together(claims: list[Any]) -> list[Claim]:
    """Those that share a transaction."""
    hashes = [claim.transaction for claim in claims if isinstance(claim, Claim)]
    return [claim for claim in claims if hashes.count(claim.transaction) > 1]


async def test_payments_at_once_share_a_transaction_and_save_gas(
    devnet: Devnet, rpc: RpcClient, shop: Shop, tmp_path: Any
) -> None:
    keys = await buyers(devnet, 12)
    payments = [pay(key, shop.terms.pay_to) for key in keys]
    before = await shop.usdc.balance_of(shop.terms.pay_to)
    claims = await settle_all(shop, payments)
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert await shop.usdc.balance_of(shop.terms.pay_to) == before + 12 * PRICE
    assert len({claim.subject for claim in shop.started}) == len(shop.started) == 12
    assert len(together(claims)) >= 8, "all but the first few waited"
    (shared, *_) = together(claims)
    size = sum(claim.transaction == shared.transaction for claim in claims)
    receipt = await rpc.receipt(shared.transaction)
    single = await shop.settle(pay(devnet.keys[0], shop.terms.pay_to), subject="job-single")
    alone = await rpc.receipt(single.transaction)
    assert receipt is not None
    assert alone is not None
    assert receipt.gas_used / size < 0.9 * alone.gas_used
    other = await Shop.open(devnet, rpc, tmp_path / "other.db")
    with pytest.raises(PaymentRequired):  # our own batch brought it, for the first shop
        await other.settle(payments[-1])
    await other.settlements.close()


async def test_one_that_fails_leaves_the_others_of_its_batch(devnet: Devnet, shop: Shop) -> None:
    keys = await buyers(devnet, 8)
    (twice,) = await buyers(devnet, 1)
    payments = [pay(key, shop.terms.pay_to) for key in [*keys, twice, twice]]
    ends = await settle_all(shop, payments)
    assert all(isinstance(end, Claim) for end in ends[:8])
    (failure,) = [end for end in ends if not isinstance(end, Claim)]
    assert isinstance(failure, PaymentRequired)
    assert failure.extra["reason"] == Reason.INSUFFICIENT_FUNDS
    assert len(shop.started) == 9


async def test_what_had_too_little_gas_in_a_batch_goes_alone(
    devnet: Devnet, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "_BATCH_GAS", 0)
    monkeypatch.setattr(own, "_BATCH_GAS_EACH", 45_000)
    keys = await buyers(devnet, 8)
    claims = await settle_all(shop, [pay(key, shop.terms.pay_to) for key in keys])
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert len(shop.started) == 8
    for key in keys:
        assert await shop.usdc.balance_of(key.address) == 0


async def test_a_wallet_with_code_is_in_no_batch(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    """Its key signs, so it looks plain; but its code would run among the others."""
    keys = await buyers(devnet, 6)
    delegated = keys[3].address
    agrees = "631626ba7e60e01b60005260206000f3"
    await rpc.call("anvil_setCode", [delegated, "0x" + agrees])
    claims = await settle_all(shop, [pay(key, shop.terms.pay_to) for key in keys])
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert claims[3] not in together(claims)
    assert len(together(claims)) >= 3


async def test_without_the_contract_all_go_alone(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    code = await rpc.call("eth_getCode", [MULTICALL3, "latest"])
    await rpc.call("anvil_setCode", [MULTICALL3, "0x"])
    keys = await buyers(devnet, 5)
    claims = await settle_all(shop, [pay(key, shop.terms.pay_to) for key in keys])
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert together(claims) == []
    await rpc.call("anvil_setCode", [MULTICALL3, code])


@pytest.mark.parametrize("stage", ["stored", "broadcast"])
async def test_a_crash_with_a_batch_on_its_way_loses_and_doubles_nothing(
    devnet: Devnet, open_shop: Opener, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Crash(BaseException):
        pass

    shop = await open_shop()
    keys = await buyers(devnet, 8)
    payments = [pay(key, shop.terms.pay_to) for key in keys]
    broadcast, sent = shop.sender.broadcast, []

    async def crash(signed: Any) -> None:
        sent.append(signed)
        if len(sent) < 2 or stage == "broadcast":
            await broadcast(signed)
        if len(sent) > 1:
            raise Crash

    monkeypatch.setattr(shop.sender, "broadcast", crash)
    await settle_all(shop, payments)
    await shop.settlements.close()
    assert len(sent) >= 2

    again = await open_shop()
    claims = await settle_all(again, payments)
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert len(shop.started) + len(again.started) == 8
    for key in keys:
        assert await again.usdc.balance_of(key.address) == 0
    await again.settlements.close()


async def test_a_hundred_at_once_all_land(devnet: Devnet, shop: Shop) -> None:
    payments = [pay(key, shop.terms.pay_to) for key in devnet.keys[2:] for _ in range(25)]
    before = await shop.usdc.balance_of(shop.terms.pay_to)
    claims = await settle_all(shop, payments)
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert await shop.usdc.balance_of(shop.terms.pay_to) == before + 100 * PRICE
    assert len({claim.transaction for claim in claims}) <= 100 / own.MAX_BATCH + 3


async def test_a_payer_whose_payments_fail_on_the_chain_is_sent_away(
    devnet: Devnet, rpc: RpcClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet whose code agrees in every simulation, and not when it is mined."""
    key = (await buyers(devnet, 1, 100 * PRICE))[0]
    agrees = "0x631626ba7e60e01b60005260206000f3"
    await rpc.call("anvil_setCode", [key.address, agrees])
    broadcast = shop.sender.broadcast

    async def changed_meanwhile(signed: Any) -> None:
        await rpc.call("anvil_setCode", [key.address, "0x60006000fd"])
        await broadcast(signed)
        await shop.sender.wait_receipt(signed.hash)
        await rpc.call("anvil_setCode", [key.address, agrees])

    monkeypatch.setattr(shop.sender, "broadcast", changed_meanwhile)
    spent = await rpc.nonce(shop.sender.address)
    payments = [pay(key, shop.terms.pay_to) for _ in range(2)]
    for payment in (*payments, *payments, *payments):  # the same ones count as well
        with pytest.raises(PaymentRequired) as caught:
            await shop.settle(payment)
    assert "failed on the chain" in caught.value.detail
    with pytest.raises(PaymentRequired):  # nor does a bad signature wipe them out
        await shop.settle(replace(payments[0], signature=bytes(64) + b"\x1b"))
    with pytest.raises(PaymentRequired, match="failed on the chain"):
        await shop.settle(pay(key, shop.terms.pay_to))
    assert await rpc.nonce(shop.sender.address) == spent + 3
    monkeypatch.setattr(shop.sender, "broadcast", broadcast)
    (other,) = await buyers(devnet, 1)
    assert (await shop.settle(pay(other, shop.terms.pay_to), subject="job-2")).state.paid


async def test_no_settlement_costs_more_gas_than_its_share(
    devnet: Devnet, rpc: RpcClient, open_shop: Opener
) -> None:
    dear = SettlementPolicy(gas=GasPolicy(eth_price=10**15, max_share=0.5))
    shop = await open_shop(policy=dear)
    spent = await rpc.nonce(shop.sender.address)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    with pytest.raises(Unavailable, match="network fees"):
        await shop.settle(payment)
    assert (shop.asked, await rpc.nonce(shop.sender.address)) == ([], spent)
    await shop.settlements.close()
    # a rollup's fee for its data counts as well
    some = SettlementPolicy(gas=GasPolicy(eth_price=10**6, max_share=0.5))
    await rpc.call("anvil_setCode", [own._FEE_ORACLE, "0x67016345785d8a000060005260206000f3"])
    shop = await open_shop(policy=some)
    with pytest.raises(Unavailable, match="network fees"):
        await shop.settle(payment)
    await shop.settlements.close()
    await rpc.call("anvil_setCode", [own._FEE_ORACLE, "0x"])
    shop = await open_shop(policy=some)
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED
    await shop.settlements.close()


def test_the_gas_policy_counts_in_wei_and_atoms() -> None:
    policy = GasPolicy(eth_price=4_000 * 10**6, max_share=0.5)
    # 90,000 gas at 0.01 gwei: 9e-7 ether, 0.0036 USDC
    assert policy.too_dear(90_000 * 10**7, 7_199)
    assert not policy.too_dear(90_000 * 10**7, 7_200)


@pytest.mark.parametrize("stage", ["stored", "sent"])
async def test_kill_nine_with_a_batch_on_its_way(
    devnet: Devnet, open_shop: Opener, tmp_path: Path, stage: str
) -> None:
    """Nobody presents anything again: the next start ends alone what was written down."""
    keys = await buyers(devnet, 8)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("batch_child.py"))),
        *(devnet.url, str(tmp_path / "claims.db"), stage),
        *(key.secret.hex() for key in keys),
    )
    assert await asyncio.wait_for(child.wait(), 60) == -signal.SIGKILL
    shop = await open_shop()
    await until(lambda: len(shop.settlements._store.in_state(ClaimState.CONSUMED)) == 8)
    for key in keys:
        assert await shop.usdc.balance_of(key.address) == 0
    assert len({claim.transaction for claim in shop.started}) == 1
    assert sorted(claim.subject for claim in shop.started) == [f"job-{n}" for n in range(8)]
    await shop.settlements.close()


async def test_a_batch_without_a_receipt_is_sent_again_once_for_all(
    devnet: Devnet, open_shop: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(RpcClient):
        hidden = True
        sent = 0

        async def call(self, method: str, params: Any = ()) -> Any:
            if method == "eth_getTransactionReceipt" and self.hidden:
                return None
            if method == "eth_sendRawTransaction":
                self.sent += 1
            return await super().call(method, params)

    monkeypatch.setattr(fate, "_RECEIPT_SECONDS", 0.3)
    keys = await buyers(devnet, 10)
    async with Forgetful(devnet.url) as rpc:
        shop = await open_shop(rpc=rpc, settle_seconds=0.8)
        ends = await settle_all(shop, [pay(key, shop.terms.pay_to) for key in keys])
        assert all(isinstance(end, PaymentPending) for end in ends)
        transactions = {
            claim.transaction for claim in shop.settlements._store.in_state(ClaimState.BROADCAST)
        }
        assert len(transactions) < rpc.sent < 10
        rpc.hidden = False
        await until(lambda: len(shop.settlements._store.in_state(ClaimState.CONSUMED)) == 10)
        assert len(shop.started) == 10
        await shop.settlements.close()
