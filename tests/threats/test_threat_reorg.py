"""Blocks with payments in them are taken back: nothing is paid twice, and nothing is lost quietly.

Mitigations: signed bytes are kept until their block is final; a watch sends the same bytes again
when a settled receipt disappears; a payment that can't come back any more is said to be lost, and
its job stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partialmethod
from pathlib import Path

import pytest
from threat_rig import (
    FUNDS,
    GAS_WEI,
    SLICE,
    Attack,
    cancellation,
    mine,
    new_wallet,
    open_attack,
)

from computeswarm.chain.devnet import Devnet, find_anvil, start_devnet
from computeswarm.core.states import JobState
from computeswarm.payments import reorgs
from computeswarm.payments.settlement import Settlements

ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


@pytest.fixture(autouse=True)
def _watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks often, and no block is final yet: the devnet calls one final after two more,
    a real chain after a quarter of an hour."""
    often = partialmethod(Settlements.__init__, watch_seconds=0.05)
    monkeypatch.setattr(Settlements, "__init__", often)

    async def nothing_is_final(*_: object) -> int:
        return 0

    monkeypatch.setattr(reorgs, "block_of", nothing_is_final)


async def take_back(attack: Attack, snapshot: str) -> None:
    """A reorganisation: the chain goes on from ``snapshot`` with other blocks."""
    assert await attack.rpc.call("evm_revert", [snapshot])
    for _ in range(8):
        await attack.rpc.call("evm_mine")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll."""
    async with asyncio.timeout(40):
        while not await condition():  # noqa: ASYNC110 - the chain has no event to offer
            await asyncio.sleep(0.02)


async def test_a_payment_that_is_taken_back_is_sent_again_and_its_job_runs_on(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    async with open_attack(any_devnet, tmp_path) as attack:
        snapshot = await attack.rpc.call("evm_snapshot")
        body, payment = attack.body(ENDLESS), attack.sign()
        first = await attack.post(body, payment)
        bought = attack.bought(first)
        await bought.first_output()
        (paid,) = (await bought.view()).payments
        await take_back(attack, snapshot)

        async def back() -> bool:
            return await attack.uses(attack.buyer.address) == 1

        await until(back)
        assert await attack.rpc.receipt(paid.transaction) is not None  # the very same bytes
        assert (await bought.view()).state is JobState.RUNNING
        assert (await attack.post(body, payment)).body == first.body
        await bought.call("POST", "/cancel")
        (view,) = await attack.settled_books()
        assert view.paid == SLICE


async def test_payment_and_refund_that_are_taken_back_together_both_come_again(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    async with open_attack(any_devnet, tmp_path) as attack:
        snapshot = await attack.rpc.call("evm_snapshot")
        attack.bought(await attack.post(attack.body(), attack.sign()))
        await attack.settled_books()
        before = await attack.balances()
        await take_back(attack, snapshot)

        async def same() -> bool:
            return await attack.balances() == before

        await until(same)
        await attack.settled_books()
        assert len(await attack.moved(attack.seller, attack.buyer.address)) == 1
        assert await attack.rpc.nonce(attack.seller) == 2


async def test_what_is_taken_back_while_the_seller_is_away_is_sent_when_he_returns(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    buyer = await new_wallet(any_devnet, atoms=FUNDS, wei=GAS_WEI)
    seller = await new_wallet(any_devnet, wei=GAS_WEI)
    keys = {"buyer": buyer, "seller": seller}
    async with open_attack(any_devnet, tmp_path, **keys) as attack:
        snapshot = await attack.rpc.call("evm_snapshot")
        body, payment = attack.body(), attack.sign()
        first = await attack.post(body, payment)
        attack.bought(first)
        await attack.settled_books()
        before = await attack.balances()
    async with open_attack(any_devnet, tmp_path, **keys) as again:
        await take_back(again, snapshot)
    async with open_attack(any_devnet, tmp_path, **keys) as again:

        async def same() -> bool:
            return await again.balances() == before

        await until(same)
        assert (await again.post(body, payment)).body == first.body
        assert await again.uses(buyer.address) == 1


async def test_a_payment_that_is_taken_back_and_cancelled_is_said_to_be_lost(
    tmp_path: Path,
) -> None:
    """The buyer uses the reorganisation to take his money back: his job stops, nothing is paid
    out for it, and the next purchase of the same wallet goes its usual way."""
    chain = await start_devnet(engine="py-evm")
    async with chain, open_attack(chain, tmp_path) as attack:
        snapshot = await attack.rpc.call("evm_snapshot")
        payment = attack.sign()
        bought = attack.bought(await attack.post(attack.body(ENDLESS), payment))
        await bought.first_output()
        assert await attack.rpc.call("evm_revert", [snapshot])
        nonce = payment.authorization.nonce
        await mine(attack.rpc, attack.buyer, chain.usdc, cancellation(attack.buyer, nonce))
        for _ in range(8):
            await attack.rpc.call("evm_mine")
        await chain.advance_time(200)  # past the window: it can't come any more

        async def stopped() -> bool:
            return (await bought.view()).state.terminal

        await until(stopped)
        assert await attack.balances() == (FUNDS, 0)
        assert await attack.moved(attack.seller, attack.buyer.address) == []


@pytest.mark.parametrize("depth", [2, 5])
async def test_anvils_own_reorganisation_loses_nothing(tmp_path: Path, depth: int) -> None:
    """``anvil_reorg`` replaces the newest blocks by empty ones."""
    if find_anvil() is None:
        pytest.skip("anvil is not installed (npm ci in contracts/)")
    chain = await start_devnet(engine="anvil")
    async with chain, open_attack(chain, tmp_path) as attack:
        for _ in range(6):
            await attack.rpc.call("evm_mine")
        replies = [
            await attack.post(attack.body(), attack.sign()),
            await attack.post(attack.body(ENDLESS), attack.sign()),
        ]
        await attack.bought(replies[1]).first_output()
        await attack.rpc.call("anvil_reorg", [depth, []])
        for _ in range(depth + 3):
            await attack.rpc.call("evm_mine")

        async def back() -> bool:
            return await attack.uses(attack.buyer.address) == 2

        await until(back)
        await attack.bought(replies[1]).call("POST", "/cancel")
        views = await attack.settled_books()
        assert [view.paid for view in views] == [SLICE, SLICE]
