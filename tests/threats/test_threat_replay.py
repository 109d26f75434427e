"""One payment, many grants? Replays, races, pre-emption and cancellation, on each engine.

Mitigations: a unique durable claim before anything is verified; a job only on a receipt with
AuthorizationUsed and Transfer of this payment; never ``authorizationState``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import faulty_rpc as faults
import pytest
from crash_child import Point
from crash_rig import CLAIMS, SENDER, Victim
from faulty_rpc import Call, Fault, FaultyRpc
from seller_rig import Reply
from threat_rig import (
    FUNDS,
    GAS_WEI,
    SLICE,
    Signed,
    cancellation,
    mine,
    new_wallet,
    open_attack,
)

from computeswarm.chain.devnet import Devnet, find_anvil, start_devnet
from computeswarm.chain.tx import sign_transaction
from computeswarm.chain.usdc import authorization_calldata, transfer_calldata
from computeswarm.core.x402 import decode_header

MANY = 100
SEND = "eth_sendRawTransaction"


async def post_many(url: str, victim: Victim) -> list[tuple[int, bytes] | None]:
    """The same payment a hundred times at once; None where the line broke."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MANY)) as session:

        async def one() -> tuple[int, bytes] | None:
            try:
                answer = session.post(
                    f"{url}/execute", data=victim.body, headers=victim.payment.headers
                )
                async with answer as reply:
                    return reply.status, await reply.read()
            except aiohttp.ClientError:
                return None

        return await asyncio.gather(*(one() for _ in range(MANY)))


@pytest.mark.parametrize(
    "point",
    [
        Point(f"{CLAIMS}.insert", "after"),
        Point(f"{SENDER}.broadcast", "after"),
        Point(f"{CLAIMS}.set_reply", "before", 3),
    ],
    ids=["claimed", "broadcast", "replying"],
)
async def test_a_hundred_posts_a_kill_and_a_hundred_more_run_one_job(
    any_devnet: Devnet, tmp_path: Path, point: Point
) -> None:
    victim = await Victim.make(any_devnet, tmp_path)
    async with victim.running(point) as child:
        replies = await post_many(child.url, victim)
        assert await child.died()
    async with open_attack(
        any_devnet, tmp_path, buyer=victim.buyer, seller=victim.seller
    ) as attack:
        replies += await post_many(attack.rig.url, victim)
        said = {reply for reply in replies if reply is not None}
        assert len(said) == 1 and said.pop()[0] == 202
        (view,) = await attack.settled_books()
        assert view.paid == SLICE
        assert await attack.uses(victim.buyer.address) == 1
        assert await attack.rpc.nonce(attack.seller) == 2  # the settlement and the refund


async def test_one_payment_for_many_requests_at_once_buys_one_of_them(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    """Other bodies, and another path: whoever comes first has it, the others are refused."""
    async with open_attack(any_devnet, tmp_path) as attack:
        payment = attack.sign()
        bodies = [attack.body(f"print({number})") for number in range(10)]
        replies = await asyncio.gather(*(attack.post(body, payment) for body in bodies * 3))
        won = {reply.body for reply in replies if reply.status == 202}
        assert len(won) == 1
        assert {reply.status for reply in replies} == {202, 409}
        bought = attack.bought(next(reply for reply in replies if reply.status == 202))
        elsewhere = await bought.call(
            "POST", "/payments", json={"slice": 1}, headers=payment.headers
        )
        assert elsewhere.status in (402, 409)
        (view,) = await attack.settled_books()
        assert view.paid == SLICE


def before_it(act: Callable[[], Awaitable[None]]) -> Fault:
    """Something else is mined right before the seller's transaction: it has won the race."""

    async def fault(call: Call) -> Any:
        await act()
        return await faults.honest(call)

    return fault


def after_the_simulation(act: Callable[[], Awaitable[None]]) -> Fault:
    """It is mined when the seller has simulated and before he signs."""

    async def fault(call: Call) -> Any:
        reply = await faults.honest(call)
        await act()
        return reply

    return fault


@pytest.mark.parametrize("late", [False, True], ids=["after verify", "before mining"])
@pytest.mark.parametrize("trick", ["drain", "cancel"])
async def test_a_buyer_who_takes_the_money_back_in_time_gets_nothing(
    any_devnet: Devnet, tmp_path: Path, trick: str, late: bool
) -> None:
    """Start only on a receipt: with a start on verification, either trick runs for nothing."""
    async with (
        FaultyRpc(any_devnet.url) as proxy,
        open_attack(any_devnet, tmp_path, rpc=proxy.url) as attack,
    ):
        body, payment = attack.body(), attack.sign()
        data = {
            "drain": transfer_calldata(any_devnet.keys[5].address, FUNDS - SLICE + 1),
            "cancel": cancellation(attack.buyer, payment.authorization.nonce),
        }[trick]

        async def act() -> None:
            await mine(attack.rpc, attack.buyer, any_devnet.usdc, data)

        if late:
            proxy.set(SEND, to=before_it(act), times=1)
        else:
            proxy.set("eth_call", to=after_the_simulation(act), times=1)
        reply = await attack.post(body, payment)
        assert reply.status == 402, reply.body
        refusal = decode_header(reply.headers["PAYMENT-RESPONSE"])
        assert (
            refusal["errorReason"]
            == {
                "drain": "insufficient_funds",
                "cancel": "invalid_exact_evm_nonce_already_used",
            }[trick]
        )
        assert attack.jobs() == []
        assert (await attack.balances())[1] == 0
        again = await attack.post(body, payment)
        assert again.status == 402 and attack.jobs() == []
        # the seller is not stuck, and a good payment buys as ever
        if trick == "drain":
            await any_devnet.fund(attack.buyer.address, usdc_atoms=SLICE)
            attack.funds = 2 * SLICE - 1
        attack.bought(await attack.presented(attack.body(), attack.sign()))
        await attack.settled_books()


@pytest.mark.parametrize("late", [False, True], ids=["first", "in the race"])
async def test_a_payment_that_a_third_party_submits_runs_one_job(
    any_devnet: Devnet, tmp_path: Path, late: bool
) -> None:
    """What counts is that it was paid, and not whose transaction brought it."""
    third = await new_wallet(any_devnet, wei=GAS_WEI)
    async with (
        FaultyRpc(any_devnet.url) as proxy,
        open_attack(any_devnet, tmp_path, rpc=proxy.url) as attack,
    ):
        body, payment = attack.body(), attack.sign()
        data = authorization_calldata(payment.authorization, payment.signature)

        async def act() -> None:
            await mine(attack.rpc, third, any_devnet.usdc, data)

        if late:
            proxy.set(SEND, to=before_it(act), times=1)
        else:
            await act()
        replies = await asyncio.gather(*(attack.post(body, payment) for _ in range(5)))
        assert len({(reply.status, reply.body) for reply in replies}) == 1
        attack.bought(replies[0])
        (view,) = await attack.settled_books()
        assert view.paid == SLICE
        assert await attack.uses(attack.buyer.address) == 1
        assert len(set(proxy.sent())) == (2 if late else 1)


async def test_a_race_in_the_mempool_is_decided_by_the_block(tmp_path: Path) -> None:
    """On anvil both transactions wait for one block, and the buyer's cancellation pays more."""
    if find_anvil() is None:
        pytest.skip("anvil is not installed (npm ci in contracts/)")
    chain = await start_devnet(engine="anvil")
    async with chain, open_attack(chain, tmp_path) as attack:
        body, payment = attack.body(), attack.sign()
        await attack.rpc.call("evm_setAutomine", [False])
        await attack.rpc.call("evm_setIntervalMining", [0])
        posting = asyncio.ensure_future(attack.post(body, payment))
        async with asyncio.timeout(30):
            while await attack.rpc.nonce(attack.seller) == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        tip = 50 * 10**9
        bid = sign_transaction(
            attack.buyer,
            chain_id=chain.chain_id,
            nonce=0,
            to=chain.usdc,
            data=cancellation(attack.buyer, payment.authorization.nonce),
            value=0,
            gas=200_000,
            max_fee=2 * tip,
            priority_fee=tip,
        )
        await attack.rpc.send_raw(bid.raw)
        assert [job.state for job in attack.jobs()] == ["awaiting_payment"]
        await attack.rpc.call("evm_mine")
        reply: Reply = await posting
        assert reply.status == 402, reply.body
        assert attack.jobs() == [] and await attack.balances() == (FUNDS, 0)


async def test_two_payments_in_one_request_are_not_both_taken(
    any_devnet: Devnet, tmp_path: Path
) -> None:
    """Both versions' headers at once: one is settled, and the same one each time."""
    async with open_attack(any_devnet, tmp_path) as attack:
        one, two = attack.sign(), attack.sign()
        asked = await attack.post(attack.body(), {})
        assert asked.status == 402
        accepted = decode_header(asked.headers["PAYMENT-REQUIRED"])["accepts"][0]
        second = Signed(two.authorization, two.signature, 2, accepted)
        body = attack.body()
        both = one.headers | second.headers
        replies = await asyncio.gather(*(attack.post(body, both) for _ in range(3)))
        assert {reply.status for reply in replies} == {202}
        await attack.settled_books()
        assert await attack.uses(attack.buyer.address) == 1
