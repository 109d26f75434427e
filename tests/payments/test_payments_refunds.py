"""Refunds reach the buyer once, together where they can, and survive a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError
from computeswarm.chain.usdc import transfer_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.payments import refunds
from computeswarm.payments.claims import ClaimState

Opener = Callable[..., Awaitable[Shop]]


def done(shop: Shop, subject: str) -> bool:
    return shop.settlements.refunds(subject)[0].state == "done"


async def test_a_refund_is_sent_once_and_dust_waits_for_more(devnet: Devnet, shop: Shop) -> None:
    buyer = PrivateKey.generate().address
    first = await shop.settlements.refund("job-1", buyer, 999)
    assert (first.state, first.transaction) == ("owed", "")
    assert await shop.settlements.refund("job-1", buyer, 5_000) == first
    await shop.settlements.refund("job-2", buyer, 2)
    await until(lambda: done(shop, "job-1") and done(shop, "job-2"))
    rows = [shop.settlements.refunds(subject)[0] for subject in ("job-1", "job-2")]
    assert rows[0].transaction == rows[1].transaction != ""
    assert await shop.usdc.balance_of(buyer) == 1_001
    earnings = shop.settlements.earned(0)
    assert (earnings.refunded, earnings.owed) == (1_001, 0)


async def test_the_books_balance(devnet: Devnet, shop: Shop) -> None:
    buyer = devnet.keys[0]
    await shop.settle(pay(buyer, shop.terms.pay_to), subject="job-1")
    await shop.settle(pay(buyer, shop.terms.pay_to), subject="job-1#1", binding="slice 1")
    await shop.settle(pay(buyer, shop.terms.pay_to), subject="job-2", binding="other")
    await shop.settlements.refund("job-1", buyer.address, 2 * PRICE)
    await shop.settlements.refund("job-2", PrivateKey.generate().address, 10)
    await until(lambda: done(shop, "job-1"))
    earnings = shop.settlements.earned(0)
    assert (earnings.received, earnings.refunded, earnings.owed) == (3 * PRICE, 2 * PRICE, 10)
    assert earnings.net == PRICE - 10
    assert [claim.state for claim in shop.settlements.claims("job-1")] == [ClaimState.REFUNDED] * 2
    claim = shop.settlements.claim("job-2")
    assert claim is not None
    assert claim.state is ClaimState.CONSUMED
    kinds = sorted(row.kind for row in shop.settlements.ledger())
    assert kinds == ["owed", "payment", "payment", "payment", "refund"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_around_the_broadcast_sends_the_same_bytes_again(
    devnet: Devnet, open_shop: Opener, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    shop = await open_shop()
    buyer = PrivateKey.generate().address
    broadcast = shop.sender.broadcast
    hashes: list[str] = []

    async def crash(signed: Any) -> None:
        hashes.append(signed.hash)
        if when == "after":
            await broadcast(signed)
        await asyncio.Event().wait()  # the process gets no further

    monkeypatch.setattr(shop.sender, "broadcast", crash)
    await shop.settlements.refund("job-1", buyer, 5_000)
    await until(lambda: bool(hashes))
    assert shop.settlements.refunds("job-1")[0].state == "sent"
    await shop.settlements.close()

    again = await open_shop()
    await until(lambda: done(again, "job-1"))
    assert again.settlements.refunds("job-1")[0].transaction == hashes[0]
    assert await again.usdc.balance_of(buyer) == 5_000
    await again.settlements.close()


async def test_a_seller_without_money_owes_it_visibly(devnet: Devnet, open_shop: Opener) -> None:
    seller = PrivateKey.generate()
    await devnet.fund(seller.address, wei=10**18, usdc_atoms=1_500)
    shop = await open_shop(key=seller)
    buyer = PrivateKey.generate().address
    await shop.settlements.refund("job-1", buyer, 5_000)
    await shop.settlements.refund("job-2", devnet.keys[0].address, 1_500)
    await until(lambda: done(shop, "job-2"))
    assert shop.settlements.refunds("job-1")[0].state == "owed"
    assert shop.settlements.earned(0).owed == 5_000
    await devnet.fund(seller.address, usdc_atoms=5_000)
    await until(lambda: done(shop, "job-1"))
    assert await shop.usdc.balance_of(buyer) == 5_000
    await shop.settlements.close()


async def test_who_can_not_be_paid_keeps_nobody_waiting(
    devnet: Devnet, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    banned = PrivateKey.generate().address
    prepare, asked = shop.sender.prepare, list[str]()

    async def refuse_one(to: str, data: bytes = b"", **options: Any) -> Any:
        if data == transfer_calldata(banned, 5_000):
            asked.append(banned)
            raise RpcError("execution reverted: Blacklistable: account is blacklisted")
        return await prepare(to, data, **options)

    monkeypatch.setattr(shop.sender, "prepare", refuse_one)
    monkeypatch.setattr(refunds, "_FIRST_RETRY_SECONDS", 3600.0)
    monkeypatch.setattr(refunds, "_IDLE_SECONDS", 3600.0)
    await shop.settlements.refund("banned", banned, 5_000)
    await until(lambda: bool(asked))
    for number in range(3):
        subject, buyer = f"job-{number}", PrivateKey.generate().address
        await shop.settlements.refund(subject, buyer, 5_000)
        await until(partial(done, shop, subject))
    assert len(asked) == 1
    assert shop.settlements.refunds("banned")[0].state == "owed"
