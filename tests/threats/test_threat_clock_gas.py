"""Clocks that are wrong by ten minutes, wallets without gas, and broadcasts that are refused.

Mitigations: the chain's time decides what can still be mined, not ours; a seller who can't settle
takes nothing, and one who can't refund owes visibly; a refused broadcast gives its nonce back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import faulty_rpc as faults
import pytest
from faulty_rpc import Call, FaultyRpc
from threat_rig import FUNDS, GAS_WEI, SLICE, Attack, mine, new_wallet, open_attack

from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.core.clock import SystemClock
from computeswarm.core.x402 import decode_header
from computeswarm.payments import refunds

Opener = Callable[..., AbstractAsyncContextManager[Attack]]
SEND = "eth_sendRawTransaction"
TEN_MINUTES = 600


def wrong_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """This process's wall clock from now on."""
    monkeypatch.setattr(SystemClock, "now", lambda _: time.time() + seconds)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(TEN_MINUTES, "valid_before"), (-TEN_MINUTES, "valid_after")],
    ids=["fast", "slow"],
)
async def test_a_seller_whose_clock_is_wrong_refuses_and_takes_nothing(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, reason: str
) -> None:
    async with open_attack(devnet, tmp_path) as attack:
        body, payment = attack.body(), attack.sign()
        wrong_clock(monkeypatch, seconds)
        reply = await attack.post(body, payment)
        assert reply.status == 402
        assert reason in decode_header(reply.headers["PAYMENT-RESPONSE"])["errorReason"]
        assert attack.jobs() == [] and await attack.balances() == (FUNDS, 0)
        monkeypatch.undo()
        attack.bought(await attack.presented(body, payment))
        await attack.settled_books()


@pytest.mark.parametrize("seconds", [TEN_MINUTES, -TEN_MINUTES], ids=["fast", "slow"])
async def test_a_clock_that_jumps_while_a_payment_is_on_its_way_loses_nothing(
    attacked: Opener, proxy: FaultyRpc, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """By the wrong clock its window is over (or not open yet), but it is mined all the same."""
    async with attacked() as attack:

        async def jump(call: Call) -> Any:
            wrong_clock(monkeypatch, seconds)
            return await faults.drop_after(call)

        body, payment = attack.body(), attack.sign()
        proxy.set(SEND, to=jump, times=1)
        attack.bought(await attack.presented(body, payment))
        (view,) = await attack.settled_books()
        assert view.paid == SLICE
        assert await attack.uses(attack.buyer.address) == 1


@pytest.mark.parametrize("fault", [faults.instead("0x" + "11" * 32), faults.drop_before])
async def test_a_window_that_closes_on_the_chain_takes_nothing_and_starts_nothing(
    tmp_path: Path, impatient: None, fault: faults.Fault
) -> None:
    """The broadcast is swallowed, or finds nobody, until the chain's clock is past the window: then
    it surely failed, although no node ever said so."""
    chain = await start_devnet(engine="py-evm")
    async with (
        chain,
        FaultyRpc(chain.url) as proxy,
        open_attack(chain, tmp_path, rpc=proxy.url) as attack,
    ):
        body, payment = attack.body(), attack.sign()
        proxy.set(SEND, to=fault)
        posting = asyncio.ensure_future(attack.post(body, payment))
        await proxy.asked(SEND)
        await chain.advance_time(TEN_MINUTES)
        reply = await posting
        assert reply.status == 402, reply.body
        assert attack.jobs() == []
        # the bytes that are lost are sent when the line is back: they can't pay any more
        proxy.heal()
        await attack.rpc.send_raw(bytes.fromhex(proxy.sent()[0][2:]))
        assert await attack.balances() == (FUNDS, 0)
        # the next buyer is served by the same wallet, without a gap in its nonces
        good = attack.sign(now=time.time() + TEN_MINUTES)
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, TEN_MINUTES)
            attack.bought(await attack.presented(attack.body(), good))
            await attack.settled_books()


async def set_gas(attack: Attack, wei: int) -> None:
    """What the seller's wallet holds for fees."""
    await attack.rpc.call("anvil_setBalance", [attack.seller, hex(wei)])


async def test_gas_that_runs_out_before_a_settlement_takes_nothing(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    async with open_attack(any_devnet, tmp_path) as attack:
        body, payment = attack.body(), attack.sign()
        await set_gas(attack, 1_000)
        replies = await asyncio.gather(*(attack.post(body, payment) for _ in range(3)))
        assert {reply.status for reply in replies} <= {402, 503}
        assert not any(job.paid for job in attack.jobs())
        assert await attack.balances() == (FUNDS, 0)
        await set_gas(attack, GAS_WEI)
        attack.bought(await attack.presented(body, payment))
        (view,) = await attack.settled_books()
        assert view.paid == SLICE


async def test_gas_that_runs_out_before_a_refund_leaves_a_debt_that_is_seen_and_paid_later(
    any_devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refunds, "_FIRST_RETRY_SECONDS", 0.05)
    async with open_attack(any_devnet, tmp_path) as attack:
        bought = attack.bought(await attack.post(attack.body(), attack.sign()))
        await set_gas(attack, 0)
        view = await bought.ended()
        assert view.refund is not None
        if not view.refund.transaction:
            assert view.paid == view.cost + view.refund.amount  # owed, and said so
            assert attack.rig.agent.settlements.earned(0).owed == view.refund.amount
        await set_gas(attack, GAS_WEI)
        (view,) = await attack.settled_books()
        assert view.refund is not None and view.refund.transaction


@pytest.mark.parametrize("fault", ["refused", "lost", "taken and lost"])
async def test_one_broadcast_that_fails_stops_none_of_the_others(
    any_devnet: Devnet, tmp_path: Path, impatient: None, fault: str
) -> None:
    """Twelve settlements at once, and the fifth doesn't get through: no gap, none stuck."""
    kinds = {
        "refused": faults.error("transaction underpriced"),
        "lost": faults.drop_before,
        "taken and lost": faults.drop_after,
    }
    seen = 0

    async def fifth(call: Call) -> Any:
        nonlocal seen
        seen += 1
        return await (kinds[fault] if seen == 5 else faults.honest)(call)

    async with (
        FaultyRpc(any_devnet.url) as proxy,
        open_attack(
            any_devnet, tmp_path, rpc=proxy.url, config={"slots": 1, "queue_limit": 100}
        ) as attack,
    ):
        proxy.set(SEND, to=fifth)
        orders = [(attack.body(), attack.sign()) for _ in range(12)]
        replies = await asyncio.gather(*(attack.presented(*order) for order in orders))
        assert {reply.status for reply in replies} == {202}
        for reply in replies:
            await attack.bought(reply).call("POST", "/cancel")
        views = await attack.settled_books()
        assert len(views) == 12 == await attack.uses(attack.buyer.address)
        pending = await attack.rpc.nonce(attack.seller)
        assert pending == await attack.rpc.nonce(attack.seller, "latest")


async def test_a_nonce_that_was_never_sent_holds_up_no_payment_and_no_refund(
    devnet: Devnet, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash leaves it, or gas that ran out: later transactions wait behind it."""
    monkeypatch.setattr(refunds, "_RECEIPT_SECONDS", 0.4)
    monkeypatch.setattr(refunds, "_FIRST_RETRY_SECONDS", 0.05)
    async with open_attack(devnet, tmp_path) as attack:
        sender = attack.rig.agent.settlements._sender
        await sender.prepare(attack.seller)
        attack.bought(await attack.presented(attack.body(), attack.sign()))
        await sender.prepare(attack.seller)
        (view,) = await attack.settled_books()
        assert view.refund is not None and view.refund.transaction


async def test_a_stranger_who_uses_the_sellers_nonce_elsewhere_stops_nothing(
    devnet: Devnet, tmp_path: Path
) -> None:
    """The owner moves coins with the same wallet while the seller runs: the counter catches up."""
    seller = await new_wallet(devnet, wei=GAS_WEI)
    async with open_attack(devnet, tmp_path, seller=seller) as attack:
        attack.bought(await attack.post(attack.body(), attack.sign()))
        await attack.settled_books()
        for _ in range(3):
            await mine(attack.rpc, seller, devnet.keys[3].address, b"")
        attack.bought(await attack.presented(attack.body(), attack.sign()))
        await attack.settled_books()
        assert await attack.uses(attack.buyer.address) == 2
