"""A chain's node that stalls, breaks, lies or is late: no start, no second charge, nothing lost.

Mitigations: unknown is never failed (the same bytes go out again until a receipt or the chain's
clock decides), and a job starts only on a receipt that shows this very payment.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import faulty_rpc as faults
import pytest
from faulty_rpc import Call, Fault, FaultyRpc
from threat_rig import FUNDS, SLICE, Attack, Signed, new_wallet

from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import ConfigError
from computeswarm.core.x402 import decode_header
from computeswarm.payments import refunds

Opener = Callable[..., AbstractAsyncContextManager[Attack]]
RECEIPT = "eth_getTransactionReceipt"
SEND = "eth_sendRawTransaction"

BREAKS: dict[str, Fault] = {
    "stall": faults.stall,
    "drop": faults.drop_before,
    "503": faults.http(503),
    "429": faults.http(429),
    "malformed": faults.malformed,
    "foreign id": faults.foreign_id,
    "huge": faults.huge,
    "trickle": faults.trickle,
    "trouble": faults.error("internal error", -32603),
}


async def runs_once(attack: Attack, body: str, payment: Signed) -> None:
    """Presented again, the payment gets its job; it is charged once, and all of it is accounted."""
    attack.bought(await attack.presented(body, payment))
    (view,) = await attack.settled_books()
    assert view.paid == SLICE
    assert await attack.uses(attack.buyer.address) == 1
    assert len(await attack.moved(attack.buyer.address, attack.seller)) == 1


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("method", ["eth_call", "eth_getTransactionCount"])
async def test_a_node_that_breaks_before_the_broadcast_takes_nothing(
    attacked: Opener, proxy: FaultyRpc, fault: Fault, method: str
) -> None:
    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        proxy.set(method, to=fault)
        reply = await attack.post(body, payment)
        assert reply.status == 503, reply.body
        assert proxy.sent() == [] and await attack.balances() == (FUNDS, 0)
        proxy.heal()
        await runs_once(attack, body, payment)


async def test_a_purchase_that_the_node_broke_off_holds_no_place(
    attacked: Opener, proxy: FaultyRpc
) -> None:
    """Its buyer went away. It waits for no payment, or a few of them would shut the shop."""
    async with attacked(config={"queue_limit": 1}) as attack:
        proxy.set("eth_getTransactionCount", to=faults.drop_before)
        assert (await attack.post(attack.body(), attack.sign())).status == 503
        proxy.heal()
        body, payment = attack.body(), attack.sign()
        await runs_once(attack, body, payment)


@pytest.mark.parametrize(
    "fault",
    [
        faults.drop_before,
        faults.drop_after,
        faults.accept_then_stall,
        faults.stall,
        faults.twice,
        faults.http(502),
        faults.malformed,
        faults.foreign_id,
        faults.error("internal error", -32603),
    ],
    ids=lambda fault: fault.__name__,
)
async def test_a_broadcast_without_an_answer_is_sent_again_as_the_same_bytes(
    attacked: Opener, proxy: FaultyRpc, fault: Fault
) -> None:
    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        proxy.set(SEND, to=fault, times=2)
        await runs_once(attack, body, payment)
        settlement, *refund = dict.fromkeys(proxy.sent())
        assert len(refund) == 1 and settlement != refund[0]


async def test_a_node_that_refuses_what_it_took_costs_nobody_anything(
    attacked: Opener, proxy: FaultyRpc
) -> None:
    """The payment is mined, but the node says that it was refused."""

    async def take_and_refuse(call: Call) -> Any:
        await call.forward()
        return await faults.error("transaction underpriced")(call)

    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        proxy.set(SEND, to=take_and_refuse, times=1)
        await attack.post(body, payment)
        await runs_once(attack, body, payment)


def _log(change: Callable[[list[dict[str, Any]]], Any]) -> Fault:
    def forge(receipt: dict[str, Any] | None) -> Any:
        if receipt is not None:
            change(receipt["logs"])
        return receipt

    return faults.forged(forge)


def _set(index: int, member: str, value: Any) -> Fault:
    def change(logs: list[dict[str, Any]]) -> None:
        if len(logs) > index:
            logs[index][member] = value

    return _log(change)


def _topic(index: int, topic: int, value: str) -> Fault:
    def change(logs: list[dict[str, Any]]) -> None:
        if len(logs) > index:
            logs[index]["topics"][topic] = value

    return _log(change)


_WORD = "0x" + "11" * 32
LIES: dict[str, Fault] = {
    "not mined": faults.nothing_yet,
    "no events": _log(list.clear),
    "events swapped": _log(list.reverse),
    "another token": _set(0, "address", "0x" + "22" * 20),
    "another token moved": _set(1, "address", "0x" + "22" * 20),
    "another nonce": _topic(0, 2, _WORD),
    "another payer": _topic(0, 1, "0x" + "00" * 12 + "33" * 20),
    "another payee": _topic(1, 2, "0x" + "00" * 12 + "33" * 20),
    "less": _set(1, "data", "0x" + f"{SLICE - 1:064x}"),
    "reverted": faults.forged(lambda receipt: receipt and receipt | {"status": "0x0"}),
    "another's": faults.forged(lambda receipt: receipt and receipt | {"transactionHash": _WORD}),
    "nonsense": faults.instead({"status": "0x1", "logs": 7}),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_receipt_that_does_not_show_this_payment_starts_nothing(
    attacked: Opener, proxy: FaultyRpc, lie: Fault
) -> None:
    """Without the check of both events, any of these starts a job that nobody is known to have
    paid; without "unknown is not failed" the truth that follows comes too late."""
    async with attacked() as attack:
        attack.rig.agent.settlements._joins.seconds = 0.5
        body, payment = attack.body(), attack.sign()
        proxy.set(RECEIPT, to=lie)
        reply = await attack.post(body, payment)
        assert reply.status in (402, 503), reply.body
        assert not any(job.state.live or job.state.terminal for job in attack.jobs())
        proxy.heal()
        await runs_once(attack, body, payment)


async def test_a_stale_node_starts_nothing_and_charges_once(
    attacked: Opener, proxy: FaultyRpc
) -> None:
    """Everything it says is as of an old block: it takes transactions and never sees them mined."""
    async with attacked() as attack:
        attack.rig.agent.settlements._joins.seconds = 0.5
        body, payment = attack.body(), attack.sign()
        block = await attack.rpc.block_number()
        stale = faults.stale(block)
        proxy.set(
            *("eth_blockNumber", "eth_getBlockByNumber", "eth_call", "eth_getLogs", RECEIPT),
            *("eth_getTransactionByHash", "eth_getTransactionCount", "eth_getBalance"),
            to=stale,
        )
        reply = await attack.post(body, payment)
        assert reply.status in (402, 503)
        proxy.heal()
        await runs_once(attack, body, payment)


async def test_a_node_that_vouches_for_an_empty_wallet_starts_nothing(
    devnet: Devnet, attacked: Opener, proxy: FaultyRpc
) -> None:
    """Balance, simulation and nonce are forged: the transaction itself fails, and that decides."""
    poor = await new_wallet(devnet)
    async with attacked(buyer=poor) as attack:
        body, payment = attack.body(), attack.sign()
        proxy.set("eth_call", to=faults.instead("0x" + f"{10**12:064x}"))
        reply = await attack.post(body, payment)
        assert reply.status == 402, reply.body
        assert not decode_header(reply.headers["PAYMENT-RESPONSE"])["success"]
        assert len(set(proxy.sent())) == 1
        assert attack.jobs() == []
        proxy.heal()
        await devnet.fund(poor.address, usdc_atoms=SLICE)
        attack.funds = SLICE
        await runs_once(attack, body, payment)


async def test_a_node_of_another_chain_is_refused_at_the_start(
    attacked: Opener, proxy: FaultyRpc
) -> None:
    proxy.set("eth_chainId", to=faults.instead("0x1"))
    with pytest.raises(ConfigError, match="chain 1"):
        async with attacked():
            pass


async def test_a_seller_who_starts_without_a_chain_asks_for_nothing_he_can_not_settle(
    attacked: Opener, proxy: FaultyRpc
) -> None:
    proxy.set("*", to=faults.drop_before)
    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        assert (await attack.post(body, payment)).status == 503
        assert attack.jobs() == []
        proxy.heal()
        await runs_once(attack, body, payment)


def _on_refund(proxy: FaultyRpc, method: str, fault: Fault, times: int | None) -> None:
    """The fault begins with the refund, which alone has its gas estimated."""

    async def begin(call: Call) -> Any:
        proxy.set("eth_estimateGas", to=faults.honest)
        proxy.set(method, to=fault, times=times)
        return await (fault if method == "eth_estimateGas" else faults.honest)(call)

    proxy.set("eth_estimateGas", to=begin)


@pytest.mark.parametrize(
    ("method", "fault", "times"),
    [
        ("eth_estimateGas", faults.stall, 1),
        ("eth_estimateGas", faults.error("execution reverted", 3), 2),
        (SEND, faults.drop_before, 1),
        (SEND, faults.drop_after, 1),
        (SEND, faults.accept_then_stall, 1),
        (SEND, faults.twice, 1),
        (SEND, faults.error("nonce too high"), 1),
        (RECEIPT, faults.nothing_yet, 8),
        (RECEIPT, faults.stall, 1),
        (RECEIPT, faults.malformed, 3),
    ],
)
async def test_a_refund_through_a_broken_node_is_sent_once(
    attacked: Opener,
    proxy: FaultyRpc,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    fault: Fault,
    times: int,
) -> None:
    monkeypatch.setattr(refunds, "_FIRST_RETRY_SECONDS", 0.05)
    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        _on_refund(proxy, method, fault, times)
        attack.bought(await attack.presented(body, payment))
        (view,) = await attack.settled_books()
        assert view.refund is not None
        assert await attack.moved(attack.seller, attack.buyer.address) == [view.refund.amount]


async def test_a_forged_receipt_of_a_refund_is_not_believed(
    attacked: Opener, proxy: FaultyRpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success without the transfer proves nothing: the debt stays until the transfer is seen.

    A liar may make the seller pay a refund again, never leave it unpaid; that is why its bytes
    are not given up while they can still be mined.
    """
    monkeypatch.setattr(refunds, "_FIRST_RETRY_SECONDS", 0.05)
    async with attacked() as attack:
        body, payment = attack.body(), attack.sign()
        _on_refund(proxy, SEND, faults.instead(_WORD), 1)  # swallowed, with a hash as if taken
        attack.bought(await attack.presented(body, payment))
        (view,) = await attack.settled_books()
        assert view.refund is not None
        assert await attack.moved(attack.seller, attack.buyer.address) == [view.refund.amount]
