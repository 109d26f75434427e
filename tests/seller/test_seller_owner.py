"""What the owner sees and does, over his own API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from seller_rig import PRICE, Rig, spec

from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    JobNotFound,
    SellerUnavailable,
)
from computeswarm.core.states import JobState
from computeswarm.seller.owner_client import OwnerClient

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


async def test_the_status_shows_what_goes_on(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        running = await r.buy(spec(ENDLESS, name="train\x1b[31m"))
        waiting = await r.buy(spec())
        await running.first_output()
        status = await owner.status()
        assert (status.running, status.queued, status.slots) == (1, 1, 1)
        assert status.accepting and status.market.connected
        assert status.price_per_hour == PRICE and status.isolation == "none"
        assert status.trusted == (r.buyer.address,)
        assert any("No GPU" in note for note in status.notes)
        first, second = status.jobs
        assert (first.job_id, first.buyer) == (running.job_id, r.buyer.address)
        assert first.state is JobState.RUNNING and "\x1b" not in first.name
        assert first.left_ms is not None and 0 < first.left_ms <= 10_000
        assert (second.job_id, second.queue_position) == (waiting.job_id, 1)
        assert int(status.gas_wei) > 0
        assert any("USDC for" in event.text for event in status.events)
        await running.call("POST", "/cancel")
        view = await r.refunded(running)
        await waiting.ended()
        await r.refunded(waiting)
        async with asyncio.timeout(30):
            while (status := await owner.status()).earnings.total.refunded == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        earned = status.earnings
        today = earned.days[-1]
        assert today.received == earned.total.received == 20_000
        assert 0 < today.kept == 20_000 - today.refunded - today.owed
        assert today.jobs == 2 and len(earned.days) == 30
        # this machine has no GPU whose current could be measured
        assert today.electricity is None and today.net is None
        assert {job.state for job in status.jobs} == {JobState.CANCELLED, JobState.SUCCEEDED}
        assert view.cost in {job.cost for job in status.jobs}


async def test_pause_price_and_evict(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        before = await r.balance()
        bought = await r.buy(spec(ENDLESS))
        await bought.first_output()
        await owner.pause()
        assert (await r.call("POST", "/quotes", json={"spec": spec()})).status == 503
        assert not (await owner.status()).accepting
        await owner.resume()
        await owner.set_price(7_200_000)
        assert (await r.quote(spec())).document["price_per_hour"] == 7_200_000
        node = f"{r.market_url}/api/v1/nodes/{r.agent.node_id}"

        async def listed_price() -> int:
            found = (await r.call("GET", node)).json["record"]["document"]["price_per_hour"]
            return int(found)

        async with asyncio.timeout(30):
            while await listed_price() != 7_200_000:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        with pytest.raises(ComputeSwarmError, match="above 0"):
            await owner.set_price(0)
        with pytest.raises(BadRequest):
            await owner.set_price(-1)
        await owner.evict(bought.job_id)
        view = await r.refunded(bought)
        assert view.state is JobState.SELLER_LOST and "seller" in view.reason
        assert await r.balance() == before
        with pytest.raises(Conflict):
            await owner.evict(bought.job_id)
        with pytest.raises(JobNotFound):
            await owner.evict("job-" + "0" * 20)


async def test_only_the_owner_gets_in(rig: OpenRig) -> None:
    async with rig() as r:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}):
            assert (await r.call("GET", "/owner/status", headers=headers)).status == 401
            assert (await r.call("POST", "/owner/stop", headers=headers)).status == 401
        found = (r.paths.seller / "owner.json").read_text()
        token = found.split('"token":"')[1].split('"')[0]
        proxied = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "1.2.3.4"}
        assert (await r.call("GET", "/owner/status", headers=proxied)).status == 403
        path = r.paths.seller
    with pytest.raises(SellerUnavailable, match="No seller runs"):
        OwnerClient.find(path)
    async with OwnerClient("http://127.0.0.1:9", "x") as gone:
        with pytest.raises(SellerUnavailable, match="does not answer"):
            await gone.status()
