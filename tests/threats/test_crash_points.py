"""``kill -9`` before and after every step that a payment takes: nothing is lost or done twice.

Each case kills a real seller at one point, starts him again on the same folder, and asks three
things: the same payment gets its job (or its job's money is back), the books add up to the atom,
and nobody was charged twice.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crash_child import Point
from crash_rig import CASES, Victim
from threat_rig import SLICE, open_attack

from computeswarm.chain.devnet import Devnet
from computeswarm.core.states import JobState


@pytest.mark.parametrize(("point", "ends"), CASES)
async def test_a_payment_survives_a_kill(
    devnet: Devnet, tmp_path: Path, point: Point, ends: set[JobState]
) -> None:
    victim = await Victim.make(devnet, tmp_path)
    first = await victim.buy_and_die(point)
    buyer, seller = victim.buyer, victim.seller
    async with open_attack(devnet, tmp_path, buyer=buyer, seller=seller) as attack:
        replies = [await attack.presented(victim.body, victim.payment) for _ in range(2)]
        bodies = {reply.body for reply in replies} | ({first} if first else set())
        assert len(bodies) == 1, bodies
        bought = attack.bought(replies[0])
        (view,) = await attack.settled_books()
        assert view.job_id == bought.job_id == json.loads(victim.body)["job_id"]
        assert view.state in ends and view.paid == SLICE
        assert await attack.uses(buyer.address) == 1
        assert len(await attack.moved(seller.address, buyer.address)) == 1
        assert (await attack.post(victim.body, victim.payment)).body in bodies
