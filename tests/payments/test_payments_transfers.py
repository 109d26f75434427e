"""Payment by a transfer that the buyer sent himself: the plainest only, once, and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from payments_shop import BINDING, PRICE, Shop, pay, until

from computeswarm.chain.abi import address_word, selector, uint_word
from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.multicall import MULTICALL3, Call, aggregate3_calldata
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata, transfer_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    AuthorizationReused,
    PaymentPending,
    PaymentRequired,
    Unavailable,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments import transfer_payment
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.confirmation import ConfirmationPolicy
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.transfer_proof import TransferProof

Opener = Callable[..., Awaitable[Shop]]


async def sent(devnet: Devnet, rpc: RpcClient, key: PrivateKey, to: str, data: bytes) -> str:
    """A mined transaction of a buyer's own, successful or not."""
    sender = TxSender(rpc, key, devnet.chain_id)
    signed = await sender.prepare(to, data, gas=200_000)
    await sender.broadcast(signed)
    await sender.wait_receipt(signed.hash)
    return signed.hash


def proof(key: PrivateKey, tx: str, *, issued: int = -30, expires: int = 300) -> TransferProof:
    """As it comes out of its checks; times from now."""
    now = int(time.time())
    return TransferProof(
        payer=key.address,
        transaction_hash=tx,
        challenge_id="chg_x",
        amount=PRICE,
        issued_at=now + issued,
        expires_at=now + expires,
        timestamp="2026-11-25T12:00:00Z",
        signature=bytes(65),
    )


async def take(
    shop: Shop,
    given: TransferProof,
    *,
    subject: str = "job-1",
    binding: str = BINDING,
    before: Callable[[], None] | None = None,
) -> Claim:
    return await shop.settlements.settle_transfer(
        given,
        shop.terms,
        binding=binding,
        subject=subject,
        before_broadcast=before or (lambda: shop.asked.append(subject)),
    )


async def buyers_key(devnet: Devnet, atoms: int = PRICE) -> PrivateKey:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=atoms, wei=10**18)
    return key


async def test_a_transfer_counts_once_whoever_asks_how_often(
    devnet: Devnet, rpc: RpcClient, open_shop: Opener
) -> None:
    shop = await open_shop()
    key = await buyers_key(devnet)
    tx = await sent(devnet, rpc, key, devnet.usdc, transfer_calldata(shop.terms.pay_to, PRICE))
    given = proof(key, tx)
    claims = await asyncio.gather(*(take(shop, given, subject=f"job-{n}") for n in range(30)))
    assert len(set(claims)) == len(shop.started) == len(shop.asked) == 1
    assert (claims[0].state, claims[0].by_transfer) == (ClaimState.CONSUMED, True)
    assert (claims[0].payer, claims[0].transaction) == (key.address, tx)
    await shop.settlements.close()
    again = await open_shop()
    assert await take(again, given) == claims[0]
    with pytest.raises(AuthorizationReused):
        await take(again, given, binding="another request")
    assert again.started == []
    await again.settlements.close()


async def test_only_a_plain_transfer_of_his_own_pays(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    key = await buyers_key(devnet, 20 * PRICE)
    to, token = shop.terms.pay_to, devnet.usdc
    plain = transfer_calldata(to, PRICE)
    approve = selector("approve(address,uint256)") + address_word(key.address) + uint_word(PRICE)
    move = selector("transferFrom(address,address,uint256)")
    move += address_word(key.address) + address_word(to) + uint_word(PRICE)
    inner = aggregate3_calldata([Call(token, plain)])
    authorized = pay(key, to)
    await sent(devnet, rpc, key, token, approve)
    await sent(devnet, rpc, key, token, transfer_calldata(MULTICALL3, PRICE))
    wrong = {
        "too little": await sent(devnet, rpc, key, token, transfer_calldata(to, PRICE - 1)),
        "too much": await sent(devnet, rpc, key, token, transfer_calldata(to, PRICE + 1)),
        "to another": await sent(
            devnet, rpc, key, token, transfer_calldata(devnet.keys[4].address, PRICE)
        ),
        "more words": await sent(devnet, rpc, key, token, plain + bytes(32)),
        "another function": await sent(devnet, rpc, key, token, move),
        "inside another call": await sent(devnet, rpc, key, MULTICALL3, inner),
        "an authorization": await sent(
            devnet,
            rpc,
            key,
            token,
            authorization_calldata(authorized.authorization, authorized.signature),
        ),
        "another token": await sent(devnet, rpc, key, devnet.keys[5].address, plain),
        "failed": await sent(devnet, rpc, await buyers_key(devnet, 0), token, plain),
    }
    good = await sent(devnet, rpc, key, token, plain)
    presented = [proof(key, tx) for tx in wrong.values()]
    presented += [
        proof(devnet.keys[2], good),  # another's
        proof(key, good, issued=100),  # from before the challenge
        proof(key, good, issued=-600, expires=-300),  # from long after it
    ]
    for given in presented:
        with pytest.raises(PaymentRequired) as caught:
            await take(shop, given)
        assert caught.value.extra["reason"] == Reason.SETTLEMENT_FAILED
    assert (shop.asked, shop.started) == ([], [])
    assert (await take(shop, proof(key, good))).state is ClaimState.CONSUMED
    with pytest.raises(PaymentRequired, match="another wallet"):  # nor his reply to another
        await take(shop, proof(devnet.keys[2], good))


async def test_a_transfer_nobody_has_heard_of_is_pending(
    devnet: Devnet, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_payment, "_WAIT_SECONDS", 0.3)
    with pytest.raises(PaymentPending):
        await take(shop, proof(devnet.keys[0], "0x" + "cd" * 32))
    assert shop.settlements.claim("job-1") is None


async def test_what_can_not_be_sold_any_more_goes_back_whole(
    devnet: Devnet, rpc: RpcClient, shop: Shop
) -> None:
    key = await buyers_key(devnet)
    tx = await sent(devnet, rpc, key, devnet.usdc, transfer_calldata(shop.terms.pay_to, PRICE))

    def full() -> None:
        raise Unavailable("the queue is full")

    with pytest.raises(Unavailable, match="queue"):
        await take(shop, proof(key, tx), before=full)
    async with asyncio.timeout(30):
        while await shop.usdc.balance_of(key.address) < PRICE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    with pytest.raises(PaymentRequired, match="goes back"):
        await take(shop, proof(key, tx))
    assert shop.started == []


async def test_large_transfers_wait_for_their_block_too(
    devnet: Devnet, rpc: RpcClient, open_shop: Opener
) -> None:
    policy = SettlementPolicy(ConfirmationPolicy(0, PRICE))
    shop = await open_shop(policy=policy, settle_seconds=0.1)
    key = await buyers_key(devnet)
    tx = await sent(devnet, rpc, key, devnet.usdc, transfer_calldata(shop.terms.pay_to, PRICE))
    given = proof(key, tx)
    with pytest.raises(PaymentPending):
        await take(shop, given)
    await rpc.call("evm_mine")
    await rpc.call("evm_mine")
    await until(lambda: bool(shop.started))
    assert (await take(shop, given)).state is ClaimState.CONSUMED
    await shop.settlements.close()


async def test_a_transfer_that_the_chain_took_back_is_the_buyers_to_send(tmp_path: Path) -> None:
    """It counts again where it is mined again, and is lost where it is not."""
    lost: list[str] = []

    async def on_lost(claim: Claim) -> None:
        lost.append(claim.subject)

    async with await start_devnet(engine="py-evm") as chain, RpcClient(chain.url) as node:
        shop = await Shop.open(
            chain, node, tmp_path / "claims.db", on_lost=on_lost, watch_seconds=0.05
        )
        keys = [await buyers_key(chain) for _ in range(2)]
        snapshot = await node.call("evm_snapshot")
        data = transfer_calldata(shop.terms.pay_to, PRICE)
        raws: list[Any] = []
        for number, key in enumerate(keys):
            sender = TxSender(node, key, chain.chain_id)
            raws.append(await sender.prepare(chain.usdc, data, gas=200_000))
            await sender.broadcast(raws[-1])
            await sender.wait_receipt(raws[-1].hash)
            await take(shop, proof(key, raws[-1].hash), subject=f"job-{number}")
        await node.call("evm_revert", [snapshot])
        for _ in range(3):
            await node.call("evm_mine")

        def state(number: int) -> tuple[ClaimState, bool]:
            claim = shop.settlements.claim(f"job-{number}")
            assert claim is not None
            return claim.state, claim.reorged_at is not None

        await until(lambda: state(0) == state(1) == (ClaimState.CONSUMED, True))
        await node.send_raw(raws[0].raw)
        await until(lambda: state(0) == (ClaimState.CONSUMED, False))
        await chain.advance_time(600)
        await until(lambda: lost == ["job-1"])
        assert state(1) == (ClaimState.REVERTED, False)
        assert state(0)[0] is ClaimState.CONSUMED
        (late,) = shop.settlements.claims_for("job-1")
        await node.send_raw(raws[1].raw)  # no window ends a transfer: it can still be mined
        back = f"refused-{late.id}"
        await until(lambda: any(row.state == "done" for row in shop.settlements.refunds(back)))
        assert await shop.usdc.balance_of(keys[1].address) == PRICE
        assert lost == ["job-1"]
        await shop.settlements.close()
