"""Attacks on channels that were tried, each with the damage that it would do."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from channels_rig import (
    DEPOSIT,
    TICK,
    FaultyRpc,
    HandBuyer,
    Opener,
    Till,
    WalletBuyer,
    arrived,
    binding,
    funded,
    reason_of,
)
from payments_shop import until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, PaymentPending, Unavailable
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.withdraw import Withdrawals
from computeswarm.payments.policy import GasPolicy


async def test_a_stranger_can_not_replace_a_voucher_while_its_channel_is_closed(
    devnet: Devnet, faulty_node: FaultyRpc, open_till: Opener
) -> None:
    """A channel's members and sums are on the chain for all to see; its vouchers are the money."""
    till = await open_till(rpc=faulty_node, settle_seconds=0.3)
    try:
        buyer = await funded(devnet, till.seller.address)
        await till.pay(buyer.deposit())
        faulty_node.faults["eth_sendRawTransaction"] = "down"
        till.channels.finish("job-1", TICK)
        await until(lambda: till.rows("channels")[0]["refunding"] > 0)
        good = till.rows("channels")[0]["signature"]
        forged = buyer.refund(TICK)
        forged = replace(forged, signature=bytes(64) + b"\x1b")
        assert await reason_of(till.channels.refund(forged)) == ChannelReason.VOUCHER_SIGNATURE
        (row,) = till.rows("channels")
        assert row["signature"] == good
        assert not row["refund_asked"]
        # the buyer himself may ask meanwhile: it is on its way
        with pytest.raises(PaymentPending):
            await till.channels.refund(buyer.refund(TICK))
        faulty_node.faults.clear()
        await arrived(till, buyer.key.address, DEPOSIT - TICK)
    finally:
        await till.channels.close()


async def test_asking_for_crumbs_does_not_make_the_seller_pay_for_gas(
    till: Till, devnet: Devnet
) -> None:
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    till.channels.finish("job-1", TICK, refund=False)
    crumb = till.channels.refund(buyer.refund(TICK, amount=1))
    assert await reason_of(crumb) == ChannelReason.REFUND_AMOUNT
    half = await till.channels.refund(buyer.refund(TICK, amount=DEPOSIT // 2))
    assert half.amount == DEPOSIT // 2
    rest = await till.channels.refund(buyer.refund(TICK))
    assert rest.amount == DEPOSIT - DEPOSIT // 2 - TICK


@pytest.mark.parametrize("end", [2**63, 2**256 - 1])
async def test_no_window_is_too_long_to_be_written_down(
    till: Till, devnet: Devnet, end: int
) -> None:
    buyer = await funded(devnet, till.seller.address)
    charge = await till.pay(buyer.deposit(valid_before=end))
    assert charge.balance == DEPOSIT


async def test_a_tick_that_meets_the_end_of_its_job_costs_nothing(
    till: Till, devnet: Devnet
) -> None:
    """A channel that stays open after its job: the tick came when the job had been charged."""
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    ended: list[int] = []

    def end_meanwhile() -> None:
        # the job ends in the very turn of the loop between the check and the commit
        asyncio.get_running_loop().call_soon(
            lambda: ended.append(till.channels.finish("job-1", TICK, refund=False))
        )

    late = till.channels.pay(
        buyer.voucher(2 * TICK),
        till.terms(),
        binding=binding("job-1#1"),
        subject="job-1#1",
        before_broadcast=end_meanwhile,
    )
    with contextlib.suppress(ComputeSwarmError):
        await late
    assert ended == [0]
    account = till.channels.account("job-1")
    assert account is not None
    assert account.charged == TICK
    assert till.rows("channels")[0]["charged"] == TICK


async def test_deposits_that_fail_on_the_chain_are_not_paid_for_without_end(
    till: Till, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet that looks well in a simulation and reverts when it is mined burns our gas."""

    async def fooled(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(till.contract, "simulate", fooled)
    poor = HandBuyer.of(PrivateKey.generate(), till.seller.address)
    for _ in range(3):
        failed = till.pay(poor.deposit())
        assert await reason_of(failed) == ChannelReason.INSUFFICIENT_BALANCE
    sent = len([row for row in till.rows("deposits") if row["tx"]])
    assert await reason_of(till.pay(poor.deposit())) == ChannelReason.DEPOSIT_FAILED
    assert len([row for row in till.rows("deposits") if row["tx"]]) == sent == 3
    honest = await funded(devnet, till.seller.address)
    assert (await till.pay(honest.deposit())).balance == DEPOSIT


async def test_where_gas_costs_money_no_channel_costs_more_than_it_is_worth(
    open_till: Opener, devnet: Devnet
) -> None:
    till = await open_till(gas=GasPolicy(eth_price=10**15, max_share=0.5))
    try:
        buyer = await funded(devnet, till.seller.address)
        with pytest.raises(Unavailable):
            await till.pay(buyer.deposit())
        assert (await till.state(buyer)).balance == 0
        assert [row["state"] for row in till.rows("deposits")] == ["failed"]
    finally:
        await till.channels.close()


async def test_a_deposit_that_comes_again_pays_the_price_of_the_day(
    till: Till, devnet: Devnet
) -> None:
    """Presented while the wallet was empty and the price was low."""
    buyer = HandBuyer.of(PrivateKey.generate(), till.seller.address)
    deposit = buyer.deposit()
    assert await reason_of(till.pay(deposit)) == ChannelReason.INSUFFICIENT_BALANCE
    await devnet.fund(buyer.key.address, usdc_atoms=DEPOSIT)
    cheap = till.pay(deposit, price=5 * TICK)
    assert await reason_of(cheap) == ChannelReason.CUMULATIVE_MISMATCH


async def test_a_deposit_that_did_not_land_is_not_taken_for_one_that_came_back(
    till: Till, devnet: Devnet, rpc: RpcClient, tmp_path: Path
) -> None:
    """A seller who says that it is in, or shows an empty channel, and submits it afterwards, would
    have it locked where its owner no longer looks, and the caps free for the next one."""
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT)
    buyer = WalletBuyer.at(key, tmp_path / "payments.db", till)
    mine = Withdrawals(till.contract, None, buyer.payer.journal, SystemClock())
    opened = buyer.open()
    buyer.payer.settled(buyer.purpose(0), None)  # his word
    (shown,) = await mine.refresh()
    assert (shown.state, buyer.plain.spent_today()) == ("open", DEPOSIT)
    await buyer.present(opened, buyer.purpose(0), answered=False)
    (shown,) = await mine.refresh()
    assert (shown.state, shown.reclaimable) == ("open", DEPOSIT - TICK)
    till.channels.finish("job-1", 0)
    await until(lambda: bool(till.closed))
    (shown,) = await mine.refresh()
    assert (shown.state, buyer.plain.spent_today()) == ("closed", 0)
    buyer.close()
