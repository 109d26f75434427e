"""Settlement under attack and under failure: unknown is never failed, and nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from payments_shop import BINDING, PRICE, Shop, pay, sign, until

from computeswarm.chain.abi import address_word, bytes32_word, selector, uint_word
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata, transfer_calldata
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import SECP256K1_N, PrivateKey, keccak256
from computeswarm.core.eip712 import digest, token_domain
from computeswarm.core.errors import (
    ChainUnavailable,
    PaymentPending,
    PaymentRequired,
    StorageFull,
    Unavailable,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments import claims, settlement
from computeswarm.payments.claims import ClaimState, ClaimStore
from computeswarm.payments.present import Presented

Opener = Callable[..., Awaitable[Shop]]
_CANCEL = selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")
_CANCEL_TYPE = keccak256(b"CancelAuthorization(address authorizer,bytes32 nonce)")


_WALLET = json.loads(
    (Path(__file__).parents[1] / "chain/artifacts/TestWallet.json").read_text("utf-8")
)["bytecode"]


class FaultyRpc(RpcClient):
    """A node that misbehaves on chosen methods: ``faults`` maps a method to what it does."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.faults: dict[str, str] = {}
        self.sent: list[str] = []

    async def call(self, method: str, params: Any = ()) -> Any:
        fault = self.faults.get(method)
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        if fault == "down":
            raise RpcUnavailable("down")
        if fault == "refuse":
            raise RpcError("insufficient funds for gas * price + value")
        result = await super().call(method, params)
        if fault == "accept, then time out":
            raise RpcUnavailable("timed out")
        if fault == "forget":
            return None
        if fault == "forge" and result is not None:
            return {**result, "logs": [], "status": "0x1"}
        return result


@pytest.fixture
async def faulty(devnet: Devnet) -> Any:
    async with FaultyRpc(devnet.url) as client:
        yield client


async def mine(devnet: Devnet, rpc: RpcClient, key: PrivateKey, to: str, data: bytes) -> None:
    sender = TxSender(rpc, key, devnet.chain_id)
    signed = await sender.prepare(to, data, gas=200_000)
    await sender.broadcast(signed)
    assert (await sender.wait_receipt(signed.hash)).succeeded


async def new_buyer(devnet: Devnet, atoms: int = PRICE) -> PrivateKey:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=atoms, wei=10**18)
    return key


async def reason_of(shop: Shop, payment: Presented) -> str:
    with pytest.raises(PaymentRequired) as caught:
        await shop.settle(payment)
    return str(caught.value.extra["reason"])


def high_s(signature: bytes) -> bytes:
    """The other signature of the same message, which USDC refuses."""
    s = SECP256K1_N - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([55 - signature[64]])


async def test_no_member_of_a_payment_can_be_changed(devnet: Devnet, shop: Shop) -> None:
    key, to = devnet.keys[0], shop.terms.pay_to
    good = pay(key, to)
    now = int(time.time())

    def forged(**changes: Any) -> Presented:
        return replace(good, authorization=replace(good.authorization, **changes))

    expected = {
        Reason.BAD_SIGNATURE: [
            replace(good, signature=high_s(good.signature)),
            replace(good, signature=good.signature[:64]),
            replace(good, signature=good.signature[:64] + bytes([good.signature[64] - 27])),
            replace(good, signature=good.signature + b"\0"),
            replace(good, signature=bytes(65)),
            replace(good, signature=sign(devnet.keys[2], good.authorization)),
            forged(from_=devnet.keys[2].address),
            forged(valid_after=good.authorization.valid_after - 1),
            forged(valid_before=good.authorization.valid_before + 1),
            forged(nonce="0x" + "11" * 32),
        ],
        Reason.RECIPIENT_MISMATCH: [pay(key, devnet.keys[3].address)],
        Reason.VALUE_MISMATCH: [pay(key, to, PRICE - 1), pay(key, to, PRICE + 1), pay(key, to, 0)],
        Reason.VALID_AFTER: [pay(key, to, valid_after=now + 60)],
        Reason.VALID_BEFORE: [pay(key, to, valid_before=now + 3), pay(key, to, valid_before=0)],
    }
    before = await shop.usdc.balance_of(key.address)
    for reason, payments in expected.items():
        for payment in payments:
            assert await reason_of(shop, payment) == reason
    assert shop.asked == shop.started == []
    assert await shop.usdc.balance_of(key.address) == before
    # what others forged doesn't stand in the way of the real one
    assert (await shop.settle(good)).state is ClaimState.CONSUMED


async def test_a_drained_wallet_starts_nothing_and_may_be_topped_up(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    buyer = await new_buyer(devnet, PRICE - 1)
    payment = pay(buyer, shop.terms.pay_to)
    assert await reason_of(shop, payment) == Reason.INSUFFICIENT_FUNDS
    assert shop.asked == []
    await devnet.fund(buyer.address, usdc_atoms=1)
    assert (await shop.settle(payment, subject="job-2")).subject == "job-2"


async def test_draining_between_verification_and_settlement_starts_nothing(
    devnet: Devnet, rpc: RpcClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = await new_buyer(devnet)
    payment = pay(buyer, shop.terms.pay_to)
    prepare = shop.sender.prepare

    async def drained_first(*args: Any, **options: Any) -> Any:
        data = transfer_calldata(devnet.keys[5].address, 1)
        await mine(devnet, rpc, buyer, devnet.usdc, data)
        return await prepare(*args, **options)

    monkeypatch.setattr(shop.sender, "prepare", drained_first)
    assert await reason_of(shop, payment) == Reason.INSUFFICIENT_FUNDS
    assert shop.asked == ["job-1"]
    assert shop.started == []


async def test_a_payment_submitted_by_a_third_party_counts_once(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    data = authorization_calldata(payment.authorization, payment.signature)
    await mine(devnet, rpc, devnet.keys[4], devnet.usdc, data)
    before = await rpc.nonce(shop.sender.address)
    first = await shop.settle(payment)
    assert await shop.settle(payment) == first
    assert first.state is ClaimState.CONSUMED
    assert await rpc.nonce(shop.sender.address) == before
    assert len(shop.started) == 1


async def test_whoever_has_code_is_asked_himself(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    """A contract wallet (ERC-1271) pays by its holder's signature; so does a delegated account
    (EIP-7702), whose own key no longer counts."""
    holder, delegated = devnet.keys[2], await new_buyer(devnet)
    wallet = PrivateKey.generate().address
    await devnet.place(wallet, _WALLET + address_word(holder.address).hex())
    await devnet.fund(wallet, usdc_atoms=PRICE)
    await rpc.call("anvil_setCode", [delegated.address, "0xef0100" + wallet[2:]])
    for payer in (wallet, delegated.address):
        payment = pay(holder, shop.terms.pay_to, from_=payer)
        stranger = replace(payment, signature=sign(devnet.keys[3], payment.authorization))
        assert await reason_of(shop, stranger) == Reason.BAD_SIGNATURE
        if payer == delegated.address:
            own = replace(payment, signature=sign(delegated, payment.authorization))
            assert await reason_of(shop, own) == Reason.BAD_SIGNATURE
        # a forged signature binds nobody: the real one may come with another request
        claim = await shop.settle(payment, binding=f"request of {payer}")
        assert claim.state is ClaimState.CONSUMED
        assert await shop.usdc.balance_of(payer) == 0


async def test_a_third_party_that_wins_the_race_pays_all_the_same(
    devnet: Devnet, rpc: RpcClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    broadcast = shop.sender.broadcast
    data = authorization_calldata(payment.authorization, payment.signature)

    ours = []

    async def late(signed: Any) -> None:
        ours.append(signed.hash)
        await mine(devnet, rpc, devnet.keys[4], devnet.usdc, data)
        await broadcast(signed)

    monkeypatch.setattr(shop.sender, "broadcast", late)
    claim = await shop.settle(payment)
    assert claim.state is ClaimState.CONSUMED
    assert [claim.transaction] != ours
    assert len(shop.started) == 1


async def test_a_cancelled_payment_is_unpaid(devnet: Devnet, rpc: RpcClient, shop: Shop) -> None:
    buyer = await new_buyer(devnet)
    payment = pay(buyer, shop.terms.pay_to)
    struct = keccak256(
        _CANCEL_TYPE + address_word(buyer.address) + bytes32_word(payment.authorization.nonce)
    )
    signature = buyer.sign_digest(
        digest(token_domain(BASE_SEPOLIA.chain_id, BASE_SEPOLIA.usdc), struct)
    )
    data = _CANCEL + address_word(buyer.address) + bytes32_word(payment.authorization.nonce)
    data += uint_word(signature[64]) + signature[:64]
    await mine(devnet, rpc, buyer, devnet.usdc, data)
    assert await reason_of(shop, payment) == Reason.NONCE_USED
    assert shop.asked == []


async def test_what_another_shop_of_the_same_wallet_sold_is_not_sold_again(
    devnet: Devnet, rpc: RpcClient, shop: Shop, tmp_path: Any
) -> None:
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    await shop.settle(payment)
    other = await Shop.open(devnet, rpc, tmp_path / "other.db")
    assert await reason_of(other, payment) == Reason.NONCE_USED
    await other.settlements.close()


async def test_a_timeout_after_acceptance_is_unknown_and_ends_as_paid(
    devnet: Devnet, faulty: FaultyRpc, open_shop: Opener
) -> None:
    shop = await open_shop(rpc=faulty)
    buyer = await new_buyer(devnet, 3 * PRICE)
    faulty.faults["eth_sendRawTransaction"] = "accept, then time out"
    claim = await shop.settle(pay(buyer, shop.terms.pay_to))
    assert claim.state is ClaimState.CONSUMED
    assert len(set(faulty.sent)) == 1
    await shop.settlements.close()
    faulty.faults.clear()
    assert await shop.usdc.balance_of(buyer.address) == 2 * PRICE


async def test_a_node_that_is_down_takes_nothing_and_loses_nothing(
    devnet: Devnet, faulty: FaultyRpc, open_shop: Opener
) -> None:
    shop = await open_shop(rpc=faulty)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    faulty.faults["eth_call"] = "down"
    with pytest.raises(ChainUnavailable):
        await shop.settle(payment)
    assert shop.asked == []
    faulty.faults.clear()
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED
    await shop.settlements.close()


async def test_a_node_without_receipts_leaves_the_payment_pending_until_it_has_them(
    devnet: Devnet, faulty: FaultyRpc, open_shop: Opener
) -> None:
    shop = await open_shop(rpc=faulty, settle_seconds=0.5)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    faulty.faults["eth_getTransactionReceipt"] = "forget"
    for _ in range(2):
        with pytest.raises(PaymentPending):
            await shop.settle(payment)
    assert shop.started == []
    faulty.faults.clear()
    await until(lambda: bool(shop.started))
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED
    assert len(set(faulty.sent)) == 1
    await shop.settlements.close()


async def test_a_forged_receipt_starts_nothing(
    devnet: Devnet, faulty: FaultyRpc, open_shop: Opener
) -> None:
    shop = await open_shop(rpc=faulty)
    faulty.faults["eth_getTransactionReceipt"] = "forge"
    with pytest.raises(PaymentRequired):
        await shop.settle(pay(devnet.keys[0], shop.terms.pay_to))
    assert shop.started == []
    await shop.settlements.close()


async def test_a_refused_broadcast_leaves_no_nonce_gap(
    devnet: Devnet, faulty: FaultyRpc, open_shop: Opener
) -> None:
    shop = await open_shop(rpc=faulty)
    first, second = (pay(devnet.keys[0], shop.terms.pay_to) for _ in range(2))
    faulty.faults["eth_sendRawTransaction"] = "refuse"
    with pytest.raises(Unavailable, match="can't settle"):
        await shop.settle(first)
    faulty.faults.clear()
    assert (await shop.settle(second, subject="job-2")).state is ClaimState.CONSUMED
    assert (await shop.settle(first)).state is ClaimState.CONSUMED
    assert len(shop.started) == 2
    await shop.settlements.close()


@pytest.mark.parametrize("stage", ["verified", "stored", "broadcast", "settled", "consumed"])
async def test_a_crash_at_each_stage_ends_in_one_start(
    devnet: Devnet,
    rpc: RpcClient,
    open_shop: Opener,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """The crash is an error that leaves the machine; the process's memory is then thrown away."""

    class Crash(BaseException):
        pass

    async def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    shop = await open_shop(on_settled=crash if stage == "settled" else None)
    buyer = await new_buyer(devnet)
    payment = pay(buyer, shop.terms.pay_to)
    broadcast = shop.sender.broadcast

    async def sent_then_crash(signed: Any) -> None:
        await broadcast(signed)
        raise Crash

    if stage == "verified":
        monkeypatch.setattr(shop.sender, "prepare", crash)
    elif stage == "stored":
        monkeypatch.setattr(shop.sender, "broadcast", crash)
    elif stage == "broadcast":
        monkeypatch.setattr(shop.sender, "broadcast", sent_then_crash)
    if stage == "consumed":
        await shop.settle(payment)
    else:
        with pytest.raises((Crash, asyncio.CancelledError)):
            await shop.settle(payment)
    await shop.settlements.close()

    again = await open_shop()
    claim = await again.settle(payment, subject="job-of-the-retry")
    assert claim.state is ClaimState.CONSUMED
    assert claim.binding == BINDING
    assert len(shop.started) + len(again.started) == 1
    assert await again.usdc.balance_of(buyer.address) == 0
    await again.settlements.close()


async def test_a_shop_that_can_not_take_over_is_asked_again(
    devnet: Devnet, open_shop: Opener
) -> None:
    failing = True

    async def take_over(_: Any) -> None:
        if failing:
            raise Unavailable("the disk is full")

    shop = await open_shop(on_settled=take_over, settle_seconds=1.0)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    with pytest.raises(Unavailable):
        await shop.settle(payment)
    failing = False
    await until(lambda: bool(shop.started))  # without being presented again
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED
    assert len(shop.started) == 1
    await shop.settlements.close()


@pytest.mark.parametrize("error", [StorageFull("the disk is full"), KeyError("unexpected")])
async def test_money_that_came_is_written_down_as_soon_as_the_disk_allows(
    devnet: Devnet, open_shop: Opener, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    shop = await open_shop()
    settle = ClaimStore.settle
    failures = [error, error]

    def full_at_first(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return settle(*args)

    monkeypatch.setattr(ClaimStore, "settle", full_at_first)
    claim = await shop.settle(pay(devnet.keys[0], shop.terms.pay_to))
    assert claim.state is ClaimState.CONSUMED
    assert (failures, len(shop.started)) == ([], 1)
    await shop.settlements.close()


async def test_a_third_partys_payment_for_what_is_refused_goes_back_whole(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    buyer = await new_buyer(devnet, 2 * PRICE)
    await shop.settle(pay(buyer, shop.terms.pay_to), binding="the job's own payment")
    payment = pay(buyer, shop.terms.pay_to)
    data = authorization_calldata(payment.authorization, payment.signature)
    await mine(devnet, rpc, devnet.keys[4], devnet.usdc, data)

    def full() -> None:
        raise Unavailable("the queue is full")

    settle = partial(shop.settlements.settle, payment, shop.terms, binding=BINDING, subject="job-1")
    with pytest.raises(Unavailable, match="queue"):
        await settle(before_broadcast=full)
    assert shop.settlements.earned(0).refunded + shop.settlements.earned(0).owed == PRICE
    (row,) = [row for row in shop.settlements.ledger() if row.kind != "payment"]
    (debt,) = shop.settlements.refunds(row.subject)
    assert (debt.recipient, debt.amount) == (buyer.address, PRICE)
    # it is sold to nobody any more, and the job of that name keeps its payment and its refund
    with pytest.raises(PaymentRequired, match="goes back"):
        await settle(before_broadcast=lambda: None)
    assert len(shop.started) == 1
    assert [claim.state for claim in shop.settlements.claims("job-1")] == [ClaimState.CONSUMED]
    assert shop.settlements.refunds("job-1") == []
    await until(lambda: shop.settlements.refunds(row.subject)[0].state == "done")
    assert await shop.usdc.balance_of(buyer.address) == PRICE


async def test_a_known_payment_that_is_on_chain_counts_after_its_window_too(
    devnet: Devnet, rpc: RpcClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = await new_buyer(devnet, PRICE - 1)
    lost, paid = pay(buyer, shop.terms.pay_to), pay(buyer, shop.terms.pay_to)
    for payment in (lost, paid):
        assert await reason_of(shop, payment) == Reason.INSUFFICIENT_FUNDS
    await devnet.fund(buyer.address, usdc_atoms=1)
    data = authorization_calldata(paid.authorization, paid.signature)
    await mine(devnet, rpc, devnet.keys[4], devnet.usdc, data)
    monkeypatch.setattr(SystemClock, "now", lambda _: float(paid.authorization.valid_before))
    assert await reason_of(shop, lost) == Reason.VALID_BEFORE
    assert (await shop.settle(paid)).state is ClaimState.CONSUMED
    assert len(shop.started) == 1


async def test_no_wallets_code_spends_the_sellers_gas(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    """A wallet that accepts any signature after so many rounds of a loop, of 26 gas each."""
    wallet = PrivateKey.generate().address
    await devnet.fund(wallet, usdc_atoms=PRICE)
    loop_and_agree = "62{:06x}5b6001900380600457631626ba7e60e01b60005260206000f3"
    payment = pay(devnet.keys[2], shop.terms.pay_to, from_=wallet)
    await rpc.call("anvil_setCode", [wallet, "0x" + loop_and_agree.format(12_000)])
    before = await rpc.nonce(shop.sender.address)
    with pytest.raises(PaymentRequired, match="200,000 gas") as caught:
        await shop.settle(payment)
    assert caught.value.extra["reason"] == Reason.SIMULATION_FAILED
    assert (shop.asked, await rpc.nonce(shop.sender.address)) == ([], before)
    await rpc.call("anvil_setCode", [wallet, "0x" + loop_and_agree.format(100)])
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED


async def test_claims_of_empty_wallets_are_pruned_as_they_come_in(
    devnet: Devnet, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_UNSENT", 2)
    monkeypatch.setattr(settlement, "_PRUNE_EVERY", 2)
    key = PrivateKey.generate()
    for number in range(9):
        with pytest.raises(PaymentRequired):
            await shop.settle(pay(key, shop.terms.pay_to), subject=f"job-{number}")
    left = [n for n in range(9) if shop.settlements.claim(f"job-{n}")]
    assert left == [5, 6, 7, 8]
