"""The buyer's side: nothing beyond what was agreed is ever signed, and his money comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from channels_rig import DELAY, DEPOSIT, TICK, FaultyRpc, HandBuyer, Opener, Till, WalletBuyer
from payments_shop import until

from computeswarm.chain.batch_settlement import BatchSettlement, withdrawal_initiated
from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import voucher_digest
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    ComputeSwarmError,
    Conflict,
    PaymentPending,
    PaymentRequired,
    PolicyRefused,
)
from computeswarm.payments.channels.present import read_channel_payment
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.withdraw import Withdrawals
from computeswarm.payments.guard import SpendingPolicy


@pytest.fixture
def open_till(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> Opener:
    async def opened(**options: Any) -> Till:
        path = tmp_path / options.pop("name", "channels.db")
        return await Till.open(devnet, rpc, path, **options)

    return opened


@pytest_asyncio.fixture
async def till(open_till: Opener) -> AsyncIterator[Till]:
    till = await open_till()
    yield till
    await till.channels.close()


@pytest_asyncio.fixture
async def key(devnet: Devnet) -> PrivateKey:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT, wei=10**18)
    return key


@pytest.fixture
def buyer(key: PrivateKey, till: Till, tmp_path: Path) -> Iterator[WalletBuyer]:
    buyer = WalletBuyer.at(key, tmp_path / "payments.db", till)
    yield buyer
    buyer.close()


async def mismatch(till: Till, buyer: WalletBuyer, total: int, subject: str) -> PaymentRequired:
    """What the seller says to a voucher whose sum he doesn't expect."""
    channel = buyer.payer.journal.of_job("job-1")
    assert channel is not None
    hand = HandBuyer(buyer.key, channel.config)
    with pytest.raises(PaymentRequired) as caught:
        await till.pay(hand.voucher(total), subject=subject)
    assert caught.value.extra["reason"] == ChannelReason.CUMULATIVE_MISMATCH
    return caught.value


async def test_a_lost_reply_costs_nothing_and_a_deposit_frees_the_cap_when_it_comes_back(
    till: Till, buyer: WalletBuyer, rpc: RpcClient
) -> None:
    opened = buyer.open()
    assert buyer.open().headers() == opened.headers()
    assert buyer.plain.spent_today() == DEPOSIT
    await buyer.present(opened, buyer.purpose(0), answered=False)
    with pytest.raises(PaymentPending):
        buyer.payer.voucher(buyer.purpose(1))
    await buyer.present(opened, buyer.purpose(0))
    tick = buyer.purpose(1)
    signed = buyer.payer.voucher(tick)
    await buyer.present(signed, tick, answered=False)
    buyer.close()

    again = WalletBuyer.at(buyer.key, buyer.path, till)
    assert again.payer.voucher(tick).headers() == signed.headers()
    charge = await again.present(again.payer.voucher(tick), tick)
    assert charge.cumulative == 2 * TICK
    with pytest.raises(Conflict):
        again.payer.voucher(again.purpose(0))
    till.channels.finish("job-1", 1_500)
    await until(lambda: bool(till.closed))
    (shown,) = await withdrawals(again, rpc).refresh()
    assert (shown.state, shown.claimed, shown.returned) == ("closed", 1_500, DEPOSIT - 1_500)
    assert again.plain.spent_today() == 1_500
    steps = again.journal.database.execute("SELECT kind, amount, state FROM channel_steps")
    assert sorted(tuple(row) for row in steps) == [
        ("claim", 1_500, "done"),
        ("deposit", DEPOSIT, "done"),
        ("refund", DEPOSIT - 1_500, "done"),
    ]
    again.close()


def withdrawals(buyer: WalletBuyer, rpc: RpcClient) -> Withdrawals:
    sender = TxSender(rpc, buyer.key, BASE_SEPOLIA.chain_id)
    contract = BatchSettlement(rpc, BASE_SEPOLIA)
    return Withdrawals(contract, sender, buyer.payer.journal, SystemClock())


async def test_no_cap_is_passed_by_a_deposit_or_a_tick(
    till: Till, key: PrivateKey, tmp_path: Path
) -> None:
    policy = SpendingPolicy(max_payment=TICK, max_job=DEPOSIT, max_day=DEPOSIT + TICK)
    buyer = WalletBuyer.at(key, tmp_path / "capped.db", till, policy)

    def refused(rule: str, act: Any) -> None:
        with pytest.raises(PolicyRefused) as caught:
            act()
        assert caught.value.extra["rule"] == rule
        assert buyer.plain.pending() == []

    refused("max_job", lambda: buyer.open(deposit=DEPOSIT + 1))
    small = replace(buyer.purpose(0), job_budget=TICK)
    refused("max_job", lambda: buyer.payer.open(small, buyer.challenge(), deposit=2 * TICK))
    dear = buyer.purpose(0, amount=2 * TICK)
    refused(
        "max_payment",
        lambda: buyer.payer.open(dear, buyer.challenge(price=2 * TICK), deposit=DEPOSIT),
    )
    refused(
        "amount",
        lambda: buyer.payer.open(
            buyer.purpose(0), buyer.challenge(price=TICK + 1), deposit=DEPOSIT
        ),
    )
    stranger = replace(buyer.purpose(0), pay_to=PrivateKey.generate().address)
    refused("payee", lambda: buyer.payer.open(stranger, buyer.challenge(), deposit=DEPOSIT))
    for name, value, rule in (
        ("withdrawDelay", 90_000, "withdraw_delay"),
        ("withdrawDelay", 60, "channel"),
        ("receiverAuthorizer", "0x" + 40 * "0", "channel"),
        ("receiverAuthorizer", None, "channel"),
        ("name", "USD Coin", "domain"),
        ("assetTransferMethod", "permit2", "transfer_method"),
    ):
        challenge = buyer.challenge()
        changed = tuple(
            replace(option, extra={**option.extra, name: value}) for option in challenge.options
        )
        bad = replace(challenge, options=changed)
        refused(rule, lambda bad=bad: buyer.payer.open(buyer.purpose(0), bad, deposit=DEPOSIT))

    await buyer.present(buyer.open(deposit=2 * TICK + 500), buyer.purpose(0))
    refused("max_payment", lambda: buyer.payer.voucher(buyer.purpose(1, amount=TICK + 1)))
    await buyer.present(buyer.payer.voucher(buyer.purpose(1)), buyer.purpose(1))
    refused("voucher", lambda: buyer.payer.voucher(buyer.purpose(2)))
    later = replace(buyer.purpose(0), job_id="job-2")
    refused("max_day", lambda: buyer.payer.open(later, buyer.challenge(), deposit=DEPOSIT))
    buyer.close()


async def test_a_corrective_402_is_believed_only_as_far_as_our_signature_goes(
    till: Till, buyer: WalletBuyer
) -> None:
    await buyer.run(3)
    tick = buyer.purpose(3)
    signed = buyer.payer.voucher(tick)
    state = await till.contract.state(signed.channel_id)
    error = await mismatch(till, buyer, 9 * TICK, "elsewhere")
    challenge = buyer.challenge(error)
    option = next(o for o in challenge.options if o.scheme == "batch-settlement")
    stranger = PrivateKey.generate()

    def lie(*, charged: int, signed_max: int, by: PrivateKey | None = buyer.key) -> Any:
        channel_state = {**option.extra["channelState"], "chargedCumulativeAmount": str(charged)}
        extra = {**option.extra, "channelState": channel_state}
        if by is not None:
            digest = voucher_digest(signed.channel_id, signed_max, BASE_SEPOLIA)
            extra["voucherState"] = {
                "signedMaxClaimable": str(signed_max),
                "signature": "0x" + by.sign_digest(digest).hex(),
            }
        return replace(challenge, options=(replace(option, extra=extra),))

    vouched = 4 * TICK
    for bad in (
        lie(charged=9 * TICK, signed_max=9 * TICK),  # more than was ever vouched
        lie(charged=3 * TICK, signed_max=3 * TICK, by=stranger),
        lie(charged=vouched + 1, signed_max=vouched),
        lie(charged=vouched, signed_max=vouched),  # paid, says he: not twice for one slice
        replace(challenge, options=()),
        replace(challenge, error="invalid_scheme"),
    ):
        with pytest.raises(PolicyRefused):
            buyer.payer.correct(tick, bad, state)
    assert buyer.payer.voucher(tick) == signed
    channel = buyer.payer.journal.of_job("job-1")
    assert channel is not None
    assert (channel.vouched, channel.agreed) == (vouched, vouched)

    # what he can show is ours, and less: he may charge less than a voucher allows
    lower = buyer.payer.correct(tick, lie(charged=2_500, signed_max=3 * TICK), state)
    assert lower.cumulative == 3_500
    # the truth: the same voucher as before
    assert buyer.payer.correct(tick, challenge, state).cumulative == vouched
    await buyer.present(buyer.payer.voucher(tick), tick)


async def test_a_seller_who_lost_his_record_goes_on_from_the_chain(
    open_till: Opener, till: Till, buyer: WalletBuyer
) -> None:
    await buyer.run(4)
    amnesiac = await open_till(name="new.db")
    buyer.till = amnesiac
    tick = buyer.purpose(4)
    with pytest.raises(PaymentRequired) as caught:
        await buyer.present(buyer.payer.voucher(tick), tick)
    corrective = caught.value.extra["corrective"]
    assert corrective["channelState"]["chargedCumulativeAmount"] == "0"
    assert "voucherState" not in corrective
    state = await till.contract.state(buyer.payer.voucher(tick).channel_id)
    again = buyer.payer.correct(tick, buyer.challenge(caught.value), state)
    assert again.cumulative == TICK
    charge = await buyer.present(again, tick)
    assert (charge.cumulative, charge.balance) == (TICK, DEPOSIT)
    await amnesiac.channels.close()


async def test_a_buyer_who_lost_his_record_finds_channel_sums_and_money_again(
    till: Till, buyer: WalletBuyer, tmp_path: Path, rpc: RpcClient
) -> None:
    charge = await buyer.run(5)
    buyer.close()
    lost = WalletBuyer.at(buyer.key, tmp_path / "fresh.db", till)
    tick = lost.purpose(5)
    channel_id = lost.payer.recoverable_id(tick, lost.challenge())
    assert channel_id == charge.channel_id
    state = await till.contract.state(channel_id)
    hand = HandBuyer(lost.key, charge.channel.config)
    with pytest.raises(PaymentRequired) as caught:
        await till.pay(hand.voucher(TICK), subject="job-1#5")
    found = lost.payer.recover(tick, lost.challenge(caught.value), state)
    assert (found.charged, found.vouched, found.deposited) == (5 * TICK, 5 * TICK, DEPOSIT)
    assert lost.plain.spent_today() == DEPOSIT
    assert (await lost.present(lost.payer.voucher(tick), tick)).cumulative == 6 * TICK
    lost.close()
    buyer.journal = WalletBuyer.at(buyer.key, buyer.path, till).journal


async def test_the_rest_is_given_back_when_the_buyer_asks(
    till: Till, buyer: WalletBuyer, rpc: RpcClient
) -> None:
    charge = await buyer.run(2)
    terms, offer = till.terms(), till.channels.offer

    async def ask(amount: int | None = None) -> Any:
        headers = buyer.payer.refund_headers(charge.channel_id, buyer.challenge(), amount=amount)
        payment = read_channel_payment(headers, terms, offer)
        assert payment is not None
        return await till.channels.refund(payment)

    lost = buyer.purpose(2)  # its reply is lost: the seller has charged more than we know
    await buyer.present(buyer.payer.voucher(lost), lost, answered=False)
    with pytest.raises(PaymentRequired) as caught:
        await ask()
    state = await till.contract.state(charge.channel_id)
    buyer.payer.adopt(charge.channel_id, buyer.challenge(caught.value), state)
    part = await ask(8_000)
    assert (part.amount, await till.usdc.balance_of(buyer.key.address)) == (8_000, 8_000)
    await buyer.present(buyer.payer.voucher(lost), lost)
    rest = await ask()
    assert rest.amount == DEPOSIT - 8_000 - 3 * TICK
    assert (await ask()).transaction == rest.transaction  # the reply was lost
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT - 3 * TICK
    till.channels.finish("job-1", 2_600)  # of the last tick, only a part was used
    await until(lambda: bool(till.closed))
    assert await till.usdc.balance_of(buyer.key.address) == DEPOSIT - 2_600
    await withdrawals(buyer, rpc).refresh()
    assert buyer.plain.spent_today() == 2_600
    late = buyer.purpose(3)
    with pytest.raises(ComputeSwarmError):
        await buyer.present(buyer.payer.voucher(late), late)


async def test_a_deposit_whose_reply_was_lost_for_good_is_counted_until_it_comes_back(
    till: Till, buyer: WalletBuyer, rpc: RpcClient
) -> None:
    opened = buyer.open()
    mine = withdrawals(buyer, rpc)
    (shown,) = await mine.refresh()
    assert (shown.state, buyer.plain.spent_today()) == ("open", DEPOSIT)
    charge = await buyer.present(opened, buyer.purpose(0), answered=False)
    (shown,) = await mine.refresh()
    assert (shown.state, shown.reclaimable) == ("open", DEPOSIT - TICK)
    assert buyer.plain.pending() == []  # the chain has shown what became of it
    till.channels.finish("job-1", 0)
    await until(lambda: bool(till.closed))
    (shown,) = await mine.refresh()
    assert (shown.state, buyer.plain.spent_today()) == ("closed", 0)
    assert charge.channel_id == shown.channel_id


async def test_a_vanished_seller_cannot_keep_the_deposit(tmp_path: Path) -> None:
    devnet = await start_devnet(engine="py-evm")
    try:
        async with RpcClient(devnet.url) as rpc:
            till = await Till.open(devnet, rpc, tmp_path / "channels.db")
            key = PrivateKey.generate()
            await devnet.fund(key.address, usdc_atoms=DEPOSIT, wei=10**18)
            buyer = WalletBuyer.at(key, tmp_path / "payments.db", till)
            charge = await buyer.run(3)
            await till.channels.close(claim_seconds=0)  # he is gone
            mine = withdrawals(buyer, rpc)
            with pytest.raises(Conflict):
                await mine.finalize(charge.channel_id)
            async with FaultyRpc(devnet.url) as faulty:
                faulty.faults["eth_sendRawTransaction"] = "accept, then time out"
                with pytest.raises(RpcUnavailable):  # unknown is not failed
                    await withdrawals(buyer, faulty).initiate(charge.channel_id)
            announced = await mine.initiate(charge.channel_id)  # sees the same one through
            receipt = await rpc.receipt(announced)
            assert receipt is not None
            assert withdrawal_initiated(receipt, charge.channel_id)
            assert await rpc.nonce(key.address) == 1
            with pytest.raises(Conflict):
                await mine.initiate(charge.channel_id)
            with pytest.raises(Conflict) as early:
                await mine.finalize(charge.channel_id)
            (shown,) = mine.known()
            assert shown.withdraw_at == early.value.extra["withdraw_at"]
            assert shown.reclaimable == DEPOSIT - 3 * TICK
            assert buyer.plain.spent_today() == DEPOSIT
            await rpc.call("evm_increaseTime", [DELAY + 1])
            await rpc.call("evm_mine", [])
            mine._clock = Later()
            await mine.finalize(charge.channel_id)
            assert await till.usdc.balance_of(key.address) == DEPOSIT
            assert [c.state for c in await mine.refresh()] == ["closed"]
            assert buyer.plain.spent_today() == 0
            steps = buyer.journal.database.execute(
                "SELECT amount FROM channel_steps WHERE kind = 'withdrawal'"
            )
            assert [row[0] for row in steps] == [DEPOSIT]
            buyer.close()
    finally:
        await devnet.close()


class Later(SystemClock):
    """After the withdrawal's delay."""

    def now(self) -> float:
        return super().now() + DELAY + 60
