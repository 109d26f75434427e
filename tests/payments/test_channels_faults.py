"""Deposits and vouchers under failure and attack: nothing unproven counts, nothing counts twice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

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
    over_the_wire,
    reason_of,
    submit,
)
from payments_shop import until

from computeswarm.chain import nonce_use
from computeswarm.chain.abi import selector
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.channels import ZERO_ADDRESS
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    AuthorizationReused,
    ChainUnavailable,
    ComputeSwarmError,
    Conflict,
    PaymentPending,
    PaymentRequired,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels import commits as commits_room
from computeswarm.payments.channels.reasons import ChannelReason

_BLACKLIST = selector("blacklist(address)")


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("eth_sendRawTransaction", "accept, then time out"),
        ("eth_getTransactionReceipt", "down"),
        ("eth_getTransactionReceipt", "forget"),
    ],
)
async def test_a_deposit_of_unknown_fate_is_pending_until_it_is_proven(
    open_till: Opener, devnet: Devnet, faulty_node: FaultyRpc, method: str, fault: str
) -> None:
    till = await open_till(rpc=faulty_node, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    faulty_node.faults[method] = fault
    if method == "eth_sendRawTransaction":
        assert (await till.pay(deposit)).cumulative == TICK  # found by its receipt
    else:
        with pytest.raises(PaymentPending):
            await till.pay(deposit)
        assert till.channels.under_way("job-1", deposit.name)
        assert not till.channels.under_way("job-1", "somebody:else")
        assert not till.charged
        await till.channels.close(claim_seconds=0)
        faulty_node.faults.clear()
        till = await open_till(rpc=faulty_node)
        assert (await till.pay(deposit)).cumulative == TICK
    assert [charge.subject for charge in till.charged[:1]] == ["job-1"]
    faulty_node.faults.clear()
    await till.channels.close()


async def test_a_tick_needs_no_chain_and_a_stale_record_is_not_trusted(
    open_till: Opener, devnet: Devnet, faulty_node: FaultyRpc
) -> None:
    till = await open_till(rpc=faulty_node, fresh_seconds=0.0)
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    for method in ("eth_call", "eth_getTransactionReceipt", "eth_blockNumber"):
        faulty_node.faults[method] = "down"
    await till.pay(buyer.voucher(2 * TICK), subject="job-1#1")
    db = till.channels._store.db
    db.execute("UPDATE channels SET synced_at = synced_at - ?", (DELAY,))
    with pytest.raises(ChainUnavailable):
        await till.pay(buyer.voucher(3 * TICK), subject="job-1#2")
    faulty_node.faults.clear()
    await till.pay(buyer.voucher(3 * TICK), subject="job-1#2")
    await till.channels.close()


async def test_whatever_is_wrong_has_the_standards_name(till: Till, devnet: Devnet) -> None:
    buyer = await funded(devnet, till.seller.address)
    stranger = HandBuyer(PrivateKey.generate(), buyer.config)
    good, now = buyer.deposit(), int(time.time())
    assert good.deposit is not None
    other = stranger.deposit()
    wrong = [
        (ChannelReason.CHANNEL_NOT_FOUND, buyer.voucher(TICK)),
        (ChannelReason.VOUCHER_SIGNATURE, stranger.voucher(TICK)),
        (ChannelReason.VOUCHER_SIGNATURE, stranger.deposit()),
        (ChannelReason.VOUCHER_SIGNATURE, replace(good, max_claimable=2 * TICK)),
        (ChannelReason.RECEIVE_SIGNATURE, replace(good, deposit=other.deposit)),
        (
            ChannelReason.RECEIVE_SIGNATURE,
            replace(good, deposit=replace(good.deposit, amount=DEPOSIT - 1)),
        ),
        (ChannelReason.CUMULATIVE_MISMATCH, buyer.deposit(2 * TICK)),
        (ChannelReason.CUMULATIVE_EXCEEDS_BALANCE, buyer.deposit(amount=TICK - 1)),
        (ChannelReason.INSUFFICIENT_BALANCE, buyer.deposit(amount=DEPOSIT + 1)),
        (ChannelReason.VALID_BEFORE, buyer.deposit(valid_before=now)),
        (ChannelReason.VALID_AFTER, buyer.deposit(valid_after=now + 50)),
        (ChannelReason.PAYLOAD_TYPE, buyer.refund(TICK)),
    ]
    for expected, payment in wrong:
        assert await reason_of(till.pay(payment)) == expected
    assert till.asked == till.charged == []
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT

    await till.pay(good)
    with pytest.raises(AuthorizationReused):
        await till.pay(good, subject="job-2")
    again = buyer.voucher(TICK)
    for expected, payment in [
        (ChannelReason.CUMULATIVE_MISMATCH, again),
        (ChannelReason.CUMULATIVE_MISMATCH, buyer.voucher(3 * TICK)),
        (ChannelReason.CUMULATIVE_MISMATCH, buyer.voucher(0)),
        (ChannelReason.VOUCHER_SIGNATURE, stranger.voucher(2 * TICK)),
    ]:
        assert await reason_of(till.pay(payment, subject="job-1#1")) == expected
    with pytest.raises(PaymentRequired) as caught:
        await till.pay(again, subject="job-1#1")
    shown = caught.value.extra["corrective"]
    assert shown["channelState"]["chargedCumulativeAmount"] == str(TICK)
    assert shown["voucherState"] == {
        "signedMaxClaimable": str(TICK),
        "signature": "0x" + good.signature.hex(),
    }
    big = buyer.voucher(DEPOSIT + TICK)
    assert await reason_of(till.pay(big, price=DEPOSIT)) == ChannelReason.CUMULATIVE_EXCEEDS_BALANCE
    refund = till.channels.refund(buyer.refund(2 * TICK))
    assert await reason_of(refund) == ChannelReason.CUMULATIVE_MISMATCH
    account = till.channels.account("job-1")
    assert account is not None
    assert account.charged == TICK


async def test_a_refusal_of_what_it_is_for_takes_nothing(till: Till, devnet: Devnet) -> None:
    buyer = await funded(devnet, till.seller.address)

    def refuse() -> None:
        raise Conflict("no room")

    async def refused(payment: Any) -> None:
        with pytest.raises(Conflict):
            await till.channels.pay(
                payment, till.terms(), binding="b", subject="job-1", before_broadcast=refuse
            )

    await refused(buyer.deposit())
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT
    deposit = buyer.deposit()
    await submit(buyer, deposit, devnet)  # somebody brings it all the same: it goes back whole
    await refused(deposit)
    await until(lambda: bool(till.rows("payouts")))
    await arrived(till, buyer.key.address, DEPOSIT)
    assert (
        await reason_of(
            till.channels.pay(
                deposit, till.terms(), binding="b", subject="job-1", before_broadcast=refuse
            )
        )
        == Reason.NONCE_USED
    )


async def test_a_deposit_that_somebody_else_brought_pays_once(
    till: Till, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    await submit(buyer, deposit, devnet)
    monkeypatch.setattr(nonce_use, "SEARCH_BLOCKS", 3)  # it is found further back than one look
    async with RpcClient(devnet.url) as rpc:
        for _ in range(8):
            await rpc.call("evm_mine")
    charge = await till.pay(deposit)
    assert charge.cumulative == TICK
    assert (await till.pay(deposit)).transaction == charge.transaction
    assert len(till.rows("channel_jobs")) == 1
    assert await till.usdc.balance_of(buyer.key.address) == 0


async def test_vouchers_of_a_payer_without_a_key_are_not_taken(till: Till, devnet: Devnet) -> None:
    buyer = await funded(devnet, till.seller.address, payer_authorizer=ZERO_ADDRESS)
    with pytest.raises(PaymentRequired) as caught:
        over_the_wire(buyer.voucher(TICK), till)
    assert caught.value.extra["reason"] == ChannelReason.VOUCHER_SIGNATURE


async def test_a_handler_that_fails_gets_the_same_charge_again(
    open_till: Opener, devnet: Devnet
) -> None:
    failing = True

    async def flaky(_: Any) -> None:
        if failing:
            raise ComputeSwarmError("disk full")

    till = await open_till(on_charged=flaky, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    with pytest.raises(PaymentPending):
        await till.pay(buyer.deposit())
    failing = False
    await until(lambda: bool(till.charged))
    failing = True
    tick = buyer.voucher(2 * TICK)
    with pytest.raises(ComputeSwarmError):
        await till.pay(tick, subject="job-1#1")
    failing = False
    assert (await till.pay(tick, subject="job-1#1")).cumulative == 2 * TICK
    assert till.asked == ["job-1", "job-1#1"]
    await till.channels.close()


@pytest.mark.parametrize("method", ["eth_call", "eth_maxPriorityFeePerGas"])
async def test_a_deposit_that_the_node_broke_off_holds_no_place(
    open_till: Opener, devnet: Devnet, faulty_node: FaultyRpc, method: str
) -> None:
    till = await open_till(rpc=faulty_node)
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    faulty_node.faults[method] = "down"
    with pytest.raises(ChainUnavailable):
        await till.pay(deposit)
    assert not till.channels.under_way("job-1")
    faulty_node.faults.clear()
    assert (await till.pay(deposit)).cumulative == TICK
    await till.channels.close()


async def test_a_deposit_counts_once_it_is_as_sure_as_it_has_to_be(
    open_till: Opener, devnet: Devnet
) -> None:
    asked: list[int] = []
    sure = asyncio.Event()

    async def confirm(receipt: Any, amount: int) -> Any:
        asked.append(amount)
        await sure.wait()
        return receipt

    till = await open_till(confirm=confirm, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    with pytest.raises(PaymentPending):
        await till.pay(deposit)
    assert (asked, till.charged) == ([TICK], [])
    sure.set()
    await until(lambda: bool(till.charged))
    assert (await till.pay(deposit)).transaction
    await till.channels.close()


async def test_ticks_of_many_channels_share_a_commit_and_each_is_judged_by_itself(
    till: Till, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyers = [await funded(devnet, till.seller.address) for _ in range(6)]
    for number, buyer in enumerate(buyers):
        await till.pay(buyer.deposit(), subject=f"job-{number}")
    commits: list[str] = []
    db = till.channels._store.db
    db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)

    async def tick(number: int) -> Any:
        def before() -> None:
            if number == 5:  # the job ends at the very moment
                till.channels.finish("job-5", 0)

        return await till.channels.pay(
            buyers[number].voucher(2 * TICK),
            till.terms(),
            binding=f"{number}",
            subject=f"job-{number}#1",
            before_broadcast=before,
        )

    synced: list[int] = []
    monkeypatch.setattr(commits_room.os, "fsync", synced.append)
    monkeypatch.setattr(commits_room, "SYNC_SECONDS", 0.05)
    results = await asyncio.gather(*map(tick, range(6)), return_exceptions=True)
    db.set_trace_callback(None)
    assert [getattr(result, "cumulative", None) for result in results[:5]] == [2 * TICK] * 5
    assert isinstance(results[5], PaymentRequired)
    assert len(commits) < 6
    await until(lambda: bool(synced))  # within SYNC_SECONDS the disk has it
    assert len(synced) == 1
    await arrived(till, buyers[5].key.address, DEPOSIT)


async def test_who_goes_away_in_the_middle_and_comes_back_is_answered_the_same(
    till: Till, devnet: Devnet
) -> None:
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    tick = buyer.voucher(2 * TICK)
    gone = asyncio.ensure_future(till.pay(tick, subject="job-1#1"))
    await asyncio.sleep(0)  # his voucher waits for the next commit
    gone.cancel()
    charge = await till.pay(tick, subject="job-1#1")
    assert charge.cumulative == 2 * TICK
    account = till.channels.account("job-1")
    assert account is not None
    assert (account.ticks, account.charged) == (2, 2 * TICK)
