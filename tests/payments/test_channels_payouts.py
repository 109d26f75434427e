"""Claims, refunds and withdrawals: in time, together, and each for itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from channels_rig import (
    DELAY,
    DEPOSIT,
    TICK,
    FaultyRpc,
    HandBuyer,
    Opener,
    Till,
    arrived,
    funded,
    mine,
    reason_of,
)
from payments_shop import until

from computeswarm.chain.abi import address_word, selector
from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.devnet.keys import faucet_key
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.errors import (
    PaymentPending,
    PaymentRequired,
)
from computeswarm.payments.channels import payouts
from computeswarm.payments.channels.payouts import PayoutPolicy
from computeswarm.payments.channels.reasons import ChannelReason

_BLACKLIST = selector("blacklist(address)")


async def test_claims_come_in_before_a_withdrawal_and_before_too_much_stands_open(
    tmp_path: Path,
) -> None:
    devnet = await start_devnet(engine="py-evm")
    try:
        async with RpcClient(devnet.url) as rpc:
            policy = PayoutPolicy(exposure=5 * TICK, dust=0, watch_seconds=0.1)
            till = await Till.open(devnet, rpc, tmp_path / "channels.db", policy=policy)
            buyer = await funded(devnet, till.seller.address)
            await till.pay(buyer.deposit())
            for n in range(1, 6):
                await till.pay(buyer.voucher((n + 1) * TICK), subject=f"job-1#{n}")
            till.channels._payouts.wake()
            await until(lambda: claimed_of(till) == 5 * TICK)  # not the tick that still runs

            await buyer.initiate(rpc, DEPOSIT - 5 * TICK)
            await until(lambda: claimed_of(till) == 6 * TICK)  # now all of it
            late = till.pay(buyer.voucher(7 * TICK), subject="job-1#6")
            assert await reason_of(late) == ChannelReason.CUMULATIVE_EXCEEDS_BALANCE
            await devnet.advance_time(DELAY + 1)
            assert (await buyer.finalize(rpc)).succeeded
            assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT - 6 * TICK
            assert till.channels.finish("job-1", 6 * TICK - 400) == 400  # claimed already: owed
            assert till.channels.finish("job-1", 0) == 400
            await until(lambda: bool(till.closed))
            assert till.closed[0].claimed == 6 * TICK
            await till.channels.close()
    finally:
        await devnet.close()


def claimed_of(till: Till) -> int:
    return sum(row["claimed"] for row in till.rows("payout_items"))


async def test_many_channels_share_a_transaction_and_a_blocked_payer_spoils_only_his_own(
    till: Till, devnet: Devnet
) -> None:
    buyers = [await funded(devnet, till.seller.address) for _ in range(5)]
    for number, buyer in enumerate(buyers):
        await till.pay(buyer.deposit(), subject=f"job-{number}")
    before = await till.usdc.balance_of(till.seller.address)
    for number in range(4):
        till.channels.finish(f"job-{number}", TICK)
    await until(lambda: len(till.closed) == 4)
    assert len(till.rows("payouts")) == 1

    blocked, free = buyers[4], await funded(devnet, till.seller.address)
    await till.pay(free.deposit(), subject="job-5")
    data = _BLACKLIST + address_word(blocked.key.address)
    await mine(devnet, faucet_key(), till.usdc.address, data)
    till.channels.finish("job-4", TICK)
    till.channels.finish("job-5", TICK)
    await arrived(till, free.key.address, DEPOSIT - TICK)
    await arrived(till, till.seller.address, before + 6 * TICK)
    account = till.channels.account("job-4")
    assert account is not None
    assert (account.state, account.refunded) == ("closing", 0)  # tried again later


async def test_one_channel_pays_several_jobs_and_each_is_charged_its_own(
    till: Till, devnet: Devnet
) -> None:
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit(), subject="a")
    await till.pay(buyer.voucher(2 * TICK), subject="b")
    till.channels.finish("a", 300, refund=False)
    # 700 were not used: the next voucher goes on from there
    with pytest.raises(PaymentRequired) as caught:
        await till.pay(buyer.voucher(3 * TICK), subject="b#1")
    assert caught.value.extra["corrective"]["channelState"]["chargedCumulativeAmount"] == "1300"
    await till.pay(buyer.voucher(1_300 + TICK), subject="b#1")
    till.channels.finish("b", 5 * TICK)
    till.channels.finish("b", 0)
    await until(lambda: len(till.closed) == 2)
    sums = {account.job_id: account.charged for account in till.closed}
    assert sums == {"a": 300, "b": 2 * TICK}
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT - 2_300


async def test_a_reorg_takes_nothing_away(till: Till, devnet: Devnet, rpc: RpcClient) -> None:
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    snapshot = await rpc.call("evm_snapshot")
    till.channels.finish("job-1", 600)
    await until(lambda: bool(till.closed))
    assert await rpc.call("evm_revert", [snapshot])
    assert (await till.state(buyer)).balance == DEPOSIT
    till.channels._payouts.wake()
    await arrived(till, buyer.key.address, DEPOSIT - 600)
    assert (await till.state(buyer)).total_claimed == 600
    # the chain has it a moment before the books do
    await until(lambda: _booked(till) == (600, DEPOSIT - 600))
    assert len(till.rows("payouts")) == 1


def _booked(till: Till) -> tuple[int, int]:
    account = till.channels.account("job-1")
    assert account is not None
    return account.claimed, account.refunded


async def test_a_seller_who_shuts_down_claims_first(
    open_till: Opener, devnet: Devnet, rpc: RpcClient
) -> None:
    till = await open_till(policy=PayoutPolicy(dust=10**6, watch_seconds=60))
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    await till.pay(buyer.voucher(2 * TICK), subject="job-1#1")
    await till.pay(buyer.voucher(3 * TICK), subject="job-1#2")
    await till.channels.close()
    assert (await till.contract.state(buyer.channel_id)).total_claimed == 2 * TICK
    again = await open_till()
    again.channels.finish("job-1", 2 * TICK + 10)
    await until(lambda: bool(again.closed))
    assert again.closed[0].claimed == 2 * TICK + 10
    await again.channels.close()


async def test_what_is_on_its_way_back_pays_no_tick(
    open_till: Opener, devnet: Devnet, faulty_node: FaultyRpc
) -> None:
    till = await open_till(rpc=faulty_node, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    faulty_node.faults["eth_sendRawTransaction"] = "down"
    with pytest.raises(PaymentPending):
        await till.channels.refund(buyer.refund(TICK))
    tick = buyer.voucher(2 * TICK)
    assert await reason_of(till.pay(tick)) == ChannelReason.CUMULATIVE_EXCEEDS_BALANCE
    faulty_node.faults.clear()
    till.channels._payouts.wake()
    await arrived(till, buyer.key.address, DEPOSIT - TICK)
    refund = await till.channels.refund(buyer.refund(TICK))
    assert refund.amount == DEPOSIT - TICK
    none = till.channels.refund(HandBuyer.of(buyer.key, till.seller.address).refund(0))
    assert await reason_of(none) == ChannelReason.CHANNEL_NOT_FOUND
    await till.channels.close()


async def test_a_deposit_that_a_reorg_took_is_sent_again(
    till: Till, devnet: Devnet, rpc: RpcClient
) -> None:
    buyer = await funded(devnet, till.seller.address)
    snapshot = await rpc.call("evm_snapshot")
    charge = await till.pay(buyer.deposit())
    assert await rpc.call("evm_revert", [snapshot])
    assert (await till.state(buyer)).balance == 0
    till.channels._payouts.wake()
    async with asyncio.timeout(30):
        while (await till.state(buyer)).balance == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await rpc.receipt(charge.transaction)) is not None
    await till.channels._gate.renew(buyer.channel_id)
    assert (await till.pay(buyer.voucher(2 * TICK), subject="job-1#1")).balance == DEPOSIT


async def test_a_payout_behind_a_nonce_that_was_never_sent_gets_through(
    till: Till, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payouts, "_RECEIPT_SECONDS", 0.3)
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    sender = till.channels._payouts._sender
    forgotten = await sender.prepare(till.usdc.address, gas=21_000)  # as by a crash
    till.channels.finish("job-1", TICK)
    await until(lambda: bool(till.closed))
    assert till.closed[0].claimed == TICK
    (row,) = till.rows("payouts")
    assert row["tx_nonce"] == forgotten.nonce + 1
