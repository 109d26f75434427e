"""``kill -9`` at every step of a channel, from its deposit to its last refund, under a running job.

A real seller dies in his process while our own buyer ticks, and comes back on the same folder: the
deposit ends as what the job cost and what went back, to the atom, and the contract holds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import pytest
from buyer_fakes import make_buyer
from crash_child import Point, dying_seller
from faulty_line import FaultyLine
from seller_rig import settings_for
from threat_rig import FUNDS, GAS_WEI, new_wallet, open_attack

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.spec import plan_job
from computeswarm.chain.devnet import Devnet
from computeswarm.core.channels import BATCH_SETTLEMENT, SCHEME
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.signing import Signed

BUDGET = 20_000
CODE = "import time\nprint('up', flush=True)\ntime.sleep(1.4)"
_CHANNELS = "computeswarm.payments.channels"
DEPOSITS = f"{_CHANNELS}.deposit_store:DepositStore"
STORE = f"{_CHANNELS}.store:ChannelStore"
PAYOUTS = f"{_CHANNELS}.payout_store:PayoutStore"
SENDER = "computeswarm.chain.sender:TxSender"
JOBS = "computeswarm.seller.store:JobStore"
STEPS: list[tuple[str, str, int, str]] = [
    ("deposit claimed", f"{DEPOSITS}.insert", 1, ""),
    ("deposit kept", f"{DEPOSITS}.broadcast", 1, ""),
    ("deposit sent", f"{SENDER}.broadcast", 1, ""),
    ("deposit settled", f"{DEPOSITS}.settle", 1, ""),
    ("deposit consumed", f"{DEPOSITS}.consume", 1, ""),
    ("running", f"{JOBS}.advance", 1, "RUNNING"),
    ("first tick", f"{_CHANNELS}.commits:TickCommits.charge", 1, ""),
    ("end", f"{JOBS}.advance", 1, "SUCCEEDED"),
    ("finish", f"{STORE}.finish", 1, ""),
    ("payout kept", f"{PAYOUTS}.broadcast", 1, ""),
    ("payout sent", f"{SENDER}.broadcast", 2, ""),
    ("payout mined", f"{PAYOUTS}.mined", 1, ""),
    ("told", f"{STORE}.tell", 1, ""),
]
CASES = [
    pytest.param(Point(target, when, nth, given), id=f"{when} {name}")
    for name, target, nth, given in STEPS
    for when in ("before", "after")
]


async def node_at(url: str) -> ComputeNode:
    """The seller's node, as a market would list it."""
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        told = await reply.json()
    now = int(time.time())
    return ComputeNode(
        node_id=told["node_id"],
        status=NodeStatus.IDLE,
        record=Signed.model_validate(told["record"]),
        registered_at=now,
        last_seen=now,
    )


async def work(buyer: Buyer, node: ComputeNode, folder: Path) -> None:
    """Buy by a channel and tick to the end, or for as long as there is a seller."""
    script = folder / "job.py"
    script.write_text(CODE)
    with contextlib.suppress(ComputeSwarmError):
        offer = await buyer.quote(node, plan_job(script, max_seconds=15), scheme=SCHEME)
        record = await buyer.start(offer, budget=BUDGET)
        async for _ in buyer.follow(record.job_id):
            pass


async def go_on(buyer: Buyer) -> None:
    """What ``computeswarm logs -f`` does after all that."""
    with contextlib.suppress(ComputeSwarmError):
        for record in await buyer.resume():
            async for _ in buyer.follow(record.job_id):
                pass


@pytest.mark.parametrize("point", CASES)
async def test_a_channel_survives_a_kill(devnet: Devnet, tmp_path: Path, point: Point) -> None:
    key = await new_wallet(devnet, atoms=FUNDS, wei=GAS_WEI)
    seller = await new_wallet(devnet, wei=GAS_WEI)
    limits = {"lost_seconds": 1, "present_seconds": 1}
    async with FaultyLine() as line:
        settings = settings_for(
            devnet, "http://127.0.0.1:9", endpoint=line.url, tick_seconds=1, rpc=devnet.url
        )
        home = tmp_path / "seller-home"
        start = dying_seller(settings, home, seller.secret.hex(), [key.address], point)
        async with (
            start as child,
            make_buyer(tmp_path / "buyer", key, rpc=devnet.url, **limits) as buyer,
        ):
            line.target = child.url
            working = asyncio.create_task(work(buyer, await node_at(line.url), tmp_path))
            assert await child.died(), "the point was never reached"
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        again = open_attack(
            devnet, tmp_path, buyer=key, seller=seller, endpoint=line.url, tick_seconds=1
        )
        async with (
            again as attack,
            make_buyer(tmp_path / "buyer", key, rpc=devnet.url, **limits) as buyer,
        ):
            line.target = attack.rig.url
            await go_on(buyer)
            (view,) = await attack.settled_books()
            assert view.scheme == SCHEME
            assert await attack.usdc.balance_of(BATCH_SETTLEMENT) == 0
            assert len(await attack.moved(key.address, BATCH_SETTLEMENT)) <= 1
