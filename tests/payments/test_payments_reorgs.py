"""What the chain takes back is made again, once, or said to be lost. On both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from payments_engines import ENGINES
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet, find_anvil, start_devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata, transfer_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PaymentRequired, Unavailable
from computeswarm.payments.claims import Claim, ClaimState


class CountingRpc(RpcClient):
    """Counts requests, and keeps what was broadcast."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.requests = 0
        self.sent: list[str] = []

    async def call(self, method: str, params: Any = ()) -> Any:
        self.requests += 1
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        return await super().call(method, params)

    async def ask(self, body: bytes, read: Callable[[bytes], Any]) -> Any:
        self.requests += 1
        return await super().ask(body, read)


@pytest_asyncio.fixture(params=ENGINES)
async def chain(request: pytest.FixtureRequest) -> AsyncIterator[Devnet]:
    """A chain of its own: its blocks are taken back, and its clock is moved."""
    engine: Literal["py-evm", "anvil"] = request.param
    devnet = await start_devnet(engine=engine)
    yield devnet
    await devnet.close()


@pytest_asyncio.fixture
async def node(chain: Devnet) -> AsyncIterator[CountingRpc]:
    async with CountingRpc(chain.url) as client:
        yield client


@pytest_asyncio.fixture
async def opened(
    chain: Devnet, node: CountingRpc, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Shop]]]:
    shops: list[Shop] = []

    async def open_shop(**options: Any) -> Shop:
        options = {"watch_seconds": 0.05, **options}
        shops.append(await Shop.open(chain, node, tmp_path / "claims.db", **options))
        return shops[-1]

    yield open_shop
    for shop in shops:
        await shop.settlements.close()


async def buyers_key(chain: Devnet, atoms: int = PRICE) -> PrivateKey:
    key = PrivateKey.generate()
    await chain.fund(key.address, usdc_atoms=atoms, wei=10**18)
    return key


async def take_back(node: RpcClient, snapshot: str, blocks: int = 3) -> None:
    """Another branch, longer than the one that it replaces."""
    assert await node.call("evm_revert", [snapshot])
    for _ in range(blocks):
        await node.call("evm_mine")


def claim_of(shop: Shop, subject: str = "job-1") -> Claim:
    claim = shop.settlements.claim(subject)
    assert claim is not None
    return claim


def reorgs_of(shop: Shop, claim: Claim) -> int:
    row = shop.settlements._store.db.execute("SELECT reorgs FROM claims WHERE id = ?", (claim.id,))
    return int(row.fetchone()[0])


async def transact(chain: Devnet, node: RpcClient, key: PrivateKey, to: str, data: bytes) -> str:
    sender = TxSender(node, key, chain.chain_id)
    signed = await sender.prepare(to, data, gas=200_000)
    await sender.broadcast(signed)
    assert (await sender.wait_receipt(signed.hash)).succeeded
    return signed.hash


async def test_a_payment_that_was_taken_back_is_sent_again_as_the_same_bytes(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    shop = await opened()
    buyer = await buyers_key(chain, 2 * PRICE)
    snapshot = await node.call("evm_snapshot")
    payment = pay(buyer, shop.terms.pay_to)
    first = await shop.settle(payment)
    assert await shop.usdc.balance_of(buyer.address) == PRICE
    await take_back(node, snapshot)
    await until(lambda: reorgs_of(shop, first) == 1)
    await until(lambda: claim_of(shop).reorged_at is None)
    again = claim_of(shop)
    assert (again.transaction, again.state) == (first.transaction, ClaimState.CONSUMED)
    assert await shop.usdc.balance_of(buyer.address) == PRICE, "paid, and once"
    assert len(set(node.sent)) == 1
    assert len(shop.started) == 1
    assert (await shop.settle(payment)).transaction == first.transaction
    # the next payment has a nonce that fits
    await shop.settle(pay(buyer, shop.terms.pay_to), subject="job-2")
    assert await shop.usdc.balance_of(buyer.address) == 0


async def test_a_transaction_is_not_outrun_by_itself(
    chain: Devnet, opened: Callable[..., Awaitable[Shop]]
) -> None:
    """It may be mined between two questions to the node, and a second one would cost gas."""
    shop = await opened()
    buyer = await buyers_key(chain)
    claim = await shop.settle(pay(buyer, shop.terms.pay_to))
    assert not await shop.settlements._fates.outrun(claim)


async def test_blocks_that_anvil_replaces(tmp_path: Path) -> None:
    if find_anvil() is None:
        pytest.skip("anvil is not installed")
    async with await start_devnet(engine="anvil") as chain, CountingRpc(chain.url) as node:
        shop = await Shop.open(chain, node, tmp_path / "claims.db", watch_seconds=0.05)
        buyer = await buyers_key(chain)
        claim = await shop.settle(pay(buyer, shop.terms.pay_to))
        receipt = await node.receipt(claim.transaction)
        assert receipt is not None
        depth = await node.block_number() - receipt.block_number + 1
        await node.call("anvil_reorg", [depth, []])
        await until(lambda: reorgs_of(shop, claim) == 1)
        await until(lambda: claim_of(shop).reorged_at is None)
        assert await shop.usdc.balance_of(buyer.address) == 0
        assert len(shop.started) == len(set(node.sent)) == 1
        await shop.settlements.close()


async def test_what_a_third_party_had_submitted_is_submitted_by_us(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    shop = await opened()
    buyer = await buyers_key(chain)
    payment = pay(buyer, shop.terms.pay_to)
    snapshot = await node.call("evm_snapshot")
    data = authorization_calldata(payment.authorization, payment.signature)
    theirs = await transact(chain, node, chain.keys[4], chain.usdc, data)
    claim = await shop.settle(payment)
    assert claim.transaction == theirs
    await take_back(node, snapshot)
    await until(lambda: reorgs_of(shop, claim) == 1)
    await until(lambda: claim_of(shop).reorged_at is None)
    assert claim_of(shop).transaction != theirs
    assert await shop.usdc.balance_of(buyer.address) == 0
    assert len(shop.started) == 1


async def test_where_another_transaction_has_the_nonce_the_payment_gets_a_new_one(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    shop = await opened(watch_seconds=3600)
    buyer = await buyers_key(chain)
    snapshot = await node.call("evm_snapshot")
    claim = await shop.settle(pay(buyer, shop.terms.pay_to))
    await node.call("evm_revert", [snapshot])
    await transact(chain, node, chain.keys[1], chain.keys[1].address, b"")
    await node.call("evm_mine")
    for _ in range(3):
        await shop.settlements._reorgs.look()
    again = claim_of(shop)
    assert (again.reorged_at, again.state) == (None, ClaimState.CONSUMED)
    assert again.transaction != claim.transaction
    assert await shop.usdc.balance_of(buyer.address) == 0


async def test_a_payment_that_can_not_be_made_any_more_is_lost_and_said_to_be(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    lost: list[str] = []
    failures = [Unavailable("the disk is full")]

    async def on_lost(claim: Claim) -> None:
        if failures:
            raise failures.pop()
        lost.append(claim.subject)

    shop = await opened(on_lost=on_lost, watch_seconds=0.05)
    buyer = await buyers_key(chain)
    snapshot = await node.call("evm_snapshot")
    payment = pay(buyer, shop.terms.pay_to)
    await shop.settle(payment)
    await node.call("evm_revert", [snapshot])
    await transact(chain, node, buyer, chain.usdc, transfer_calldata(chain.keys[5].address, PRICE))
    await node.call("evm_mine")
    await until(lambda: claim_of(shop).reorged_at is not None)
    debt = await shop.settlements.refund("job-1", buyer.address, PRICE - 1_200)
    assert debt.state == "owed"
    assert lost == []
    await chain.advance_time(120)
    await until(lambda: lost == ["job-1"])
    assert claim_of(shop).state is ClaimState.REVERTED
    assert shop.settlements.refunds("job-1") == [], "nothing came, so nothing goes back"
    assert shop.settlements.earned(0).received == 0
    with pytest.raises(PaymentRequired, match="took this payment back"):
        await shop.settle(payment)
    await asyncio.sleep(0.2)
    assert lost == ["job-1"]


async def test_a_refund_that_was_taken_back_is_sent_again(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    shop = await opened()
    buyer = PrivateKey.generate().address
    snapshot = await node.call("evm_snapshot")
    await shop.settlements.refund("job-1", buyer, 5_000)
    await until(lambda: shop.settlements.refunds("job-1")[0].state == "done")
    (first,) = shop.settlements.refunds("job-1")
    await take_back(node, snapshot)
    await until(lambda: len(node.sent) > 1)
    assert (await shop.sender.wait_receipt(first.transaction)).succeeded
    await until(lambda: shop.settlements.refunds("job-1") == [first])
    assert await shop.usdc.balance_of(buyer) == 5_000
    assert len(set(node.sent)) == 1


async def test_a_look_is_cheap_and_what_is_final_is_left_alone(
    chain: Devnet, node: CountingRpc, opened: Callable[..., Awaitable[Shop]]
) -> None:
    shop = await opened(watch_seconds=3600)
    db = shop.settlements._store.db

    def one(query: str) -> Any:
        return db.execute(query).fetchone()[0]

    async def cost_of_a_look() -> int:
        before = node.requests
        await shop.settlements._reorgs.look()
        return node.requests - before

    await shop.settlements._reorgs.look()
    assert await cost_of_a_look() == 0
    payers = chain.keys[2:]
    payments = [pay(key, shop.terms.pay_to) for key in payers for _ in range(5)]
    await asyncio.gather(
        *(shop.settle(payment, subject=f"job-{n}") for n, payment in enumerate(payments))
    )
    assert one("SELECT COUNT(*) FROM sent WHERE raw IS NOT NULL") > 0
    assert await cost_of_a_look() <= 3
    for _ in range(4):
        await node.call("evm_mine")
    await shop.settlements._reorgs.look()
    assert one("SELECT COUNT(*) FROM receipts WHERE NOT final") == 0
    assert one("SELECT COUNT(*) FROM sent WHERE raw IS NOT NULL") == 0
    assert await cost_of_a_look() == 0
