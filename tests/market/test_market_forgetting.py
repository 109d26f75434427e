"""Nodes that went long ago: who is forgotten, where, and what it takes to come back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from market_cluster import until
from market_fixtures import FakeClock, MarketClient, Seller, serving, submission

from computeswarm.core.crypto import PrivateKey
from computeswarm.market import Market, open_market
from computeswarm.market.forgetting import KEEP_PROVEN_SECONDS, KEEP_SECONDS

WEEK, HALF_YEAR = KEEP_SECONDS, KEEP_PROVEN_SECONDS


async def finished(client: MarketClient, seller: Seller) -> str:
    """A job that went well there; its id."""
    signed = submission(seller.node_id, PrivateKey.generate())
    await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())
    job_id = str(signed.document["job_id"])
    assert (await seller.patch(job_id, "succeeded", metered_ms=500)).status == 200
    return job_id


async def test_who_brought_nothing_goes_after_a_week_and_others_stay(
    tmp_path: Path, clock: FakeClock
) -> None:
    market = open_market(tmp_path / "market.db", clock=clock)
    async with serving(market) as client:
        idle, left, proven, lives, last = (
            Seller(client, name=name) for name in ("idle", "left", "proven", "lives", "last")
        )
        for seller in (idle, left, proven, lives, last):
            assert (await seller.register()).status == 201
        job_id = await finished(client, proven)
        assert (await left.leave()).status == 204
        clock.time += WEEK - 3_600
        assert await market.forgetting.look() == 0
        for seller in (lives, last):
            seller.issued_at = int(clock.time)
            assert (await seller.register()).status == 201
        await market.store.flush()
        clock.time += 7_200
        assert await market.forgetting.look() == 2
        assert await market.forgetting.look() == 0
        paths = [f"/api/v1/nodes/{seller.node_id}" for seller in (idle, left, proven, lives)]
        assert [(await client.get(path)).status for path in paths] == [404, 404, 200, 200]
        assert (await client.get("/api/v1/stats")).json["nodes_total"] == 3
        assert (await client.get(f"/api/v1/jobs/{job_id}")).status == 200

        # its old registration is too old to be repeated; a new one makes a new node
        assert (await idle.beat()).status == 404
        idle.issued_at = int(clock.time)
        assert (await idle.register()).status == 201
        again = (await client.get(f"/api/v1/nodes/{idle.node_id}")).json
        assert again["registered_at"] == int(clock.time)
        assert (await idle.beat()).status == 200

        await market.store.flush()
        clock.time += HALF_YEAR
        assert await market.forgetting.look() == 3  # the newest stays: its number must not return
    market = open_market(tmp_path / "market.db", clock=clock)
    async with serving(market) as client:
        assert market.table.live() == 1


async def _lists(market: Market, nodes: int) -> bool:
    return market.table.live() == nodes


async def test_all_instances_forget_together(postgres_url: str, clock: FakeClock) -> None:
    first, second = (open_market(postgres_url, clock=clock) for _ in range(2))
    async with serving(first) as here, serving(second) as there:
        old, young = Seller(here, name="old"), Seller(here, name="young")
        assert (await old.register()).status == 201
        clock.time += WEEK + 60
        young.issued_at = int(clock.time)
        assert (await young.register()).status == 201
        await until(partial(_lists, second, 2))
        assert await first.forgetting.look() == 1
        await until(partial(_lists, second, 1))
        assert await second.forgetting.look() == 0
        assert (await there.get(f"/api/v1/nodes/{old.node_id}")).status == 404
        assert (await there.get(f"/api/v1/nodes/{young.node_id}")).status == 200
        old.client, old.issued_at = there, int(clock.time)
        assert (await old.register()).status == 201
        await until(partial(_lists, first, 2))
