"""A killed seller who comes back to no buyer, dies again while he recovers, or is paid a slice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from crash_child import Point
from crash_rig import CLAIMS, SENDER, STEPS, Victim
from threat_rig import FUNDS, SLICE, Signed, open_attack, purchase

from computeswarm.chain.devnet import Devnet
from computeswarm.core.states import JobState

ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
_NAMES = [name for name, *_ in STEPS]
_POINTS = {
    (when, name): Point(target, when, nth, given)  # type: ignore[arg-type]
    for name, target, nth, given, *_ in STEPS
    for when in ("before", "after")
}
_ALONE = [
    ("after", "claim"),
    ("before", "transaction kept"),
    ("after", "transaction kept"),
    ("after", "broadcast"),
    ("before", "settled"),
    ("after", "settled"),
    ("before", "queued"),
    ("after", "queued"),
    ("before", "end"),
    ("after", "end"),
    ("before", "refund filed"),
    ("after", "refund kept"),
    ("before", "refund proven"),
]


@pytest.mark.parametrize(("when", "name"), _ALONE)
async def test_the_seller_ends_alone_what_he_began(
    devnet: Devnet, tmp_path: Path, when: str, name: str
) -> None:
    """The buyer never comes back. What was on its way to the chain is done or goes back; what was
    not takes nothing."""
    victim = await Victim.make(devnet, tmp_path)
    await victim.buy_and_die(_POINTS[when, name])
    begun = _NAMES.index(name) * 2 + (when == "after")
    sent = begun >= _NAMES.index("transaction kept") * 2 + 1
    async with open_attack(devnet, tmp_path, buyer=victim.buyer, seller=victim.seller) as attack:
        if sent:
            async with asyncio.timeout(30):
                while not attack.jobs() or not await attack.uses(victim.buyer.address):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        views = await attack.settled_books()
        assert [view.paid for view in views] == ([SLICE] if sent else [])
        assert await attack.uses(victim.buyer.address) == len(views)


_TWICE = [
    (("after", "transaction kept"), Point(f"{CLAIMS}.settle", "before")),
    (("after", "broadcast"), Point(f"{CLAIMS}.settle", "after")),
    (("before", "settled"), Point("computeswarm.seller.store:JobStore.pay", "after")),
    (("before", "queued"), Point(f"{CLAIMS}.consume", "before")),
    (("after", "running"), Point("computeswarm.payments.refunds:RefundQueue.add", "after")),
    (("before", "end"), Point(f"{SENDER}.broadcast", "after")),
    (("after", "refund kept"), Point("computeswarm.payments.refunds:RefundQueue._done", "before")),
    (("before", "refund sent"), Point("computeswarm.chain.rpc:RpcClient.send_raw", "after")),
]


@pytest.mark.parametrize(("first", "second"), _TWICE)
async def test_a_second_kill_while_recovering_changes_nothing(
    devnet: Devnet, tmp_path: Path, first: tuple[str, str], second: Point
) -> None:
    victim = await Victim.make(devnet, tmp_path)
    await victim.buy_and_die(_POINTS[first])
    async with victim.running(second) as child:
        if child.url:  # else he died before he served anybody
            await victim.post(child.url)
        assert await child.died(), "the second point was never reached"
    async with open_attack(devnet, tmp_path, buyer=victim.buyer, seller=victim.seller) as attack:
        attack.bought(await attack.presented(victim.body, victim.payment))
        (view,) = await attack.settled_books()
        assert view.paid == SLICE
        assert await attack.uses(victim.buyer.address) == 1
        assert len(await attack.moved(victim.seller.address, victim.buyer.address)) == 1


async def _runs(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> None:
    """Wait until the job runs: one that is only starting at a crash starts anew instead."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(url, headers=headers) as reply:
                if (await reply.json())["state"] == JobState.RUNNING:
                    return
            await asyncio.sleep(0.02)


_SLICE_POINTS = [
    Point(f"{CLAIMS}.insert", "after", 2),
    Point(f"{CLAIMS}.broadcast_all", "before", 2),
    Point(f"{CLAIMS}.broadcast_all", "after", 2),
    Point(f"{SENDER}.broadcast", "after", 2),
    Point(f"{CLAIMS}.settle", "before", 2),
    Point(f"{CLAIMS}.settle", "after", 2),
    Point("computeswarm.seller.store:JobStore.pay", "after", 2),
    Point(f"{CLAIMS}.consume", "after", 2),
]


@pytest.mark.parametrize("point", _SLICE_POINTS, ids=lambda p: f"{p.when} {p.target[-14:]}")
async def test_a_further_slice_survives_a_kill(
    devnet: Devnet, tmp_path: Path, point: Point
) -> None:
    """The job runs when the seller dies over its second slice: both slices go back whole, and the
    slice's payment, presented again, takes nothing more."""
    victim = await Victim.make(devnet, tmp_path, purchase(ENDLESS))
    asked = json.loads(victim.body)
    path = f"/jobs/{asked['job_id']}/payments"
    slice_payment = Signed.make(victim.buyer, victim.seller.address)
    headers = slice_payment.headers | {"Authorization": f"Bearer {asked['access_key']}"}
    async with victim.running(point) as child:
        assert await victim.post(child.url) is not None
        async with aiohttp.ClientSession() as session:
            await _runs(session, f"{child.url}/jobs/{asked['job_id']}", headers)
            try:
                url = child.url + path
                async with session.post(url, json={"slice": 1}, headers=headers) as reply:
                    assert reply.status == 200, await reply.read()
            except aiohttp.ClientError:
                pass
        assert await child.died(), "the point was never reached"
    async with open_attack(devnet, tmp_path, buyer=victim.buyer, seller=victim.seller) as attack:
        attack.bought(await attack.presented(victim.body, victim.payment))
        again = await attack.rig.call("POST", path, json={"slice": 1}, headers=headers)
        assert again.status in (200, 409), again.body
        (view,) = await attack.settled_books()
        assert (view.state, view.cost) == (JobState.SELLER_LOST, 0)
        assert await attack.balances() == (FUNDS, 0)
        assert await attack.uses(victim.buyer.address) <= 2
