"""Channels under failure and attack: unknown is never failed, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from channels_rig import (
    DELAY,
    DEPOSIT,
    TICK,
    FaultyRpc,
    HandBuyer,
    Opener,
    Till,
    over_the_wire,
)
from payments_shop import until

from computeswarm.chain.abi import address_word, selector
from computeswarm.chain.batch_settlement import BatchSettlement, deposit_calldata
from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.devnet.keys import faucet_key
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
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
from computeswarm.payments.channels import deposit_fate
from computeswarm.payments.channels.deposit_store import DepositStore
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.payouts import PayoutPolicy
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.store import ChannelStore

_BLACKLIST = selector("blacklist(address)")


class Killed(BaseException):
    """The process ends here."""


@pytest_asyncio.fixture
async def faulty(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyRpc]:
    monkeypatch.setattr(deposit_fate, "_RECEIPT_SECONDS", 0.3)
    async with FaultyRpc(devnet.url) as client:
        yield client


@pytest.fixture
def open_till(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> Opener:
    async def opened(**options: Any) -> Till:
        path = tmp_path / options.pop("name", "channels.db")
        return await Till.open(devnet, options.pop("rpc", rpc), path, **options)

    return opened


@pytest_asyncio.fixture
async def till(open_till: Opener) -> AsyncIterator[Till]:
    till = await open_till()
    yield till
    await till.channels.close()


async def funded(devnet: Devnet, seller: str, **changes: Any) -> HandBuyer:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT, wei=10**18)
    return HandBuyer.of(key, seller, **changes)


async def reason_of(paying: Awaitable[Any]) -> str:
    with pytest.raises(PaymentRequired) as caught:
        await paying
    return str(caught.value.extra["reason"])


def crashing(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: str, nth: int = 1
) -> None:
    """The process dies before or after the nth call of a method."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if calls != nth:
            return result
        if not asyncio.iscoroutine(result):
            raise Killed

        async def then_die() -> None:
            await result
            raise Killed

        return then_die()

    monkeypatch.setattr(owner, name, wrapped)


POINTS = [
    (DepositStore, "insert", "after", 1),
    (DepositStore, "broadcast", "before", 1),
    (DepositStore, "broadcast", "after", 1),
    (TxSender, "broadcast", "after", 1),
    (DepositStore, "settle", "before", 1),
    (DepositStore, "settle", "after", 1),
    (DepositStore, "consume", "before", 1),
    (ChannelStore, "charge", "before", 1),
    (ChannelStore, "charge", "after", 1),
    (ChannelStore, "charge", "after", 2),
    (ChannelStore, "finish", "before", 1),
    (ChannelStore, "finish", "after", 1),
    (PayoutStore, "plan", "after", 1),
    (PayoutStore, "broadcast", "before", 1),
    (PayoutStore, "broadcast", "after", 1),
    (TxSender, "broadcast", "after", 2),
    (PayoutStore, "mined", "before", 1),
    (PayoutStore, "mined", "after", 1),
    (ChannelStore, "tell", "before", 1),
]


@pytest.mark.parametrize(
    ("owner", "name", "when", "nth"),
    POINTS,
    ids=[f"{when}-{owner.__name__}.{name}-{nth}" for owner, name, when, nth in POINTS],
)
async def test_killed_anywhere_all_of_it_comes_out_the_same(
    open_till: Opener,
    devnet: Devnet,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    when: str,
    nth: int,
) -> None:
    till = await open_till()
    buyer = await funded(devnet, till.seller.address)
    before = await till.usdc.balance_of(till.seller.address)
    payments = [(buyer.deposit(), "job-1")]
    payments += [(buyer.voucher((n + 1) * TICK), f"job-1#{n}") for n in (1, 2)]
    served: set[str] = set()
    with monkeypatch.context() as patches:
        crashing(patches, owner, name, when, nth)
        try:
            for payment, subject in payments:
                await till.pay(payment, subject=subject)
                served.add(subject)
            till.channels.finish("job-1", 2_500)
            await until(lambda: bool(till.closed) or died(till))
            assert died(till)
        except Killed:
            pass
    told = list(till.closed)
    await till.channels.close(claim_seconds=0)

    again = await open_till()
    for payment, subject in payments:
        if subject not in served:
            charge = await again.pay(payment, subject=subject)
            assert charge.subject == subject
    again.channels.finish("job-1", 2_500)
    await until(lambda: bool(again.closed or told))
    account = again.channels.account("job-1")
    assert account is not None
    assert (account.ticks, account.charged, account.state) == (3, 2_500, "closed")
    assert (account.claimed, account.refunded) == (2_500, DEPOSIT - 2_500)
    assert await again.usdc.balance_of(till.seller.address) == before + 2_500
    assert await again.usdc.balance_of(buyer.key.address) == DEPOSIT - 2_500
    assert {charge.subject for charge in till.charged + again.charged} == {
        "job-1",
        "job-1#1",
        "job-1#2",
    }
    await again.channels.close()


def died(till: Till) -> bool:
    worker = till.channels._payouts._worker
    return worker is not None and worker.done()


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("eth_sendRawTransaction", "accept, then time out"),
        ("eth_getTransactionReceipt", "down"),
        ("eth_getTransactionReceipt", "forget"),
    ],
)
async def test_a_deposit_of_unknown_fate_is_pending_until_it_is_proven(
    open_till: Opener, devnet: Devnet, faulty: FaultyRpc, method: str, fault: str
) -> None:
    till = await open_till(rpc=faulty, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    faulty.faults[method] = fault
    if method == "eth_sendRawTransaction":
        assert (await till.pay(deposit)).cumulative == TICK  # found by its receipt
    else:
        with pytest.raises(PaymentPending):
            await till.pay(deposit)
        assert till.channels.under_way("job-1", deposit.name)
        assert not till.channels.under_way("job-1", "somebody:else")
        assert not till.charged
        await till.channels.close(claim_seconds=0)
        faulty.faults.clear()
        till = await open_till(rpc=faulty)
        assert (await till.pay(deposit)).cumulative == TICK
    assert [charge.subject for charge in till.charged[:1]] == ["job-1"]
    faulty.faults.clear()
    await till.channels.close()


async def test_a_tick_needs_no_chain_and_a_stale_record_is_not_trusted(
    open_till: Opener, devnet: Devnet, faulty: FaultyRpc
) -> None:
    till = await open_till(rpc=faulty, fresh_seconds=0.0)
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    for method in ("eth_call", "eth_getTransactionReceipt", "eth_blockNumber"):
        faulty.faults[method] = "down"
    await till.pay(buyer.voucher(2 * TICK), subject="job-1#1")
    db = till.channels._store.db
    db.execute("UPDATE channels SET synced_at = synced_at - ?", (DELAY,))
    with pytest.raises(ChainUnavailable):
        await till.pay(buyer.voucher(3 * TICK), subject="job-1#2")
    faulty.faults.clear()
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


async def arrived(till: Till, address: str, atoms: int) -> None:
    async with asyncio.timeout(30):
        while await till.usdc.balance_of(address) != atoms:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def submit(buyer: HandBuyer, deposit: Any, devnet: Devnet) -> None:
    """A stranger brings a deposit that he has seen."""
    given = deposit.deposit
    data = deposit_calldata(
        buyer.config,
        given.amount,
        valid_after=given.valid_after,
        valid_before=given.valid_before,
        salt=given.salt,
        signature=given.signature,
    )
    await mine(devnet, devnet.keys[3], BatchSettlement.address, data)


async def mine(devnet: Devnet, key: PrivateKey, to: str, data: bytes) -> None:
    async with RpcClient(devnet.url) as rpc:
        sender = TxSender(rpc, key, devnet.chain_id)
        signed = await sender.prepare(to, data, gas=400_000)
        await sender.broadcast(signed)
        assert (await sender.wait_receipt(signed.hash)).succeeded


async def test_a_deposit_that_somebody_else_brought_pays_once(till: Till, devnet: Devnet) -> None:
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    await submit(buyer, deposit, devnet)
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
    account = till.channels.account("job-1")
    assert account is not None
    assert (account.claimed, account.refunded) == (600, DEPOSIT - 600)
    assert len(till.rows("payouts")) == 1


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


@pytest.mark.parametrize("method", ["eth_call", "eth_maxPriorityFeePerGas"])
async def test_a_deposit_that_the_node_broke_off_holds_no_place(
    open_till: Opener, devnet: Devnet, faulty: FaultyRpc, method: str
) -> None:
    till = await open_till(rpc=faulty)
    buyer = await funded(devnet, till.seller.address)
    deposit = buyer.deposit()
    faulty.faults[method] = "down"
    with pytest.raises(ChainUnavailable):
        await till.pay(deposit)
    assert not till.channels.under_way("job-1")
    faulty.faults.clear()
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


async def test_what_is_on_its_way_back_pays_no_tick(
    open_till: Opener, devnet: Devnet, faulty: FaultyRpc
) -> None:
    till = await open_till(rpc=faulty, settle_seconds=0.5)
    buyer = await funded(devnet, till.seller.address)
    await till.pay(buyer.deposit())
    faulty.faults["eth_sendRawTransaction"] = "down"
    with pytest.raises(PaymentPending):
        await till.channels.refund(buyer.refund(TICK))
    tick = buyer.voucher(2 * TICK)
    assert await reason_of(till.pay(tick)) == ChannelReason.CUMULATIVE_EXCEEDS_BALANCE
    faulty.faults.clear()
    till.channels._payouts.wake()
    await arrived(till, buyer.key.address, DEPOSIT - TICK)
    refund = await till.channels.refund(buyer.refund(TICK))
    assert refund.amount == DEPOSIT - TICK
    none = till.channels.refund(HandBuyer.of(buyer.key, till.seller.address).refund(0))
    assert await reason_of(none) == ChannelReason.CHANNEL_NOT_FOUND
    await till.channels.close()


async def test_ticks_of_many_channels_share_a_commit_and_each_is_judged_by_itself(
    till: Till, devnet: Devnet
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

    results = await asyncio.gather(*map(tick, range(6)), return_exceptions=True)
    db.set_trace_callback(None)
    assert [getattr(result, "cumulative", None) for result in results[:5]] == [2 * TICK] * 5
    assert isinstance(results[5], PaymentRequired)
    assert len(commits) < 6
    await arrived(till, buyers[5].key.address, DEPOSIT)
