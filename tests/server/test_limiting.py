"""What an address may ask over HTTP, by those who look for a way round it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from market_fixtures import FakeClock, MarketClient, Seller, submission

from computeswarm.core.crypto import PrivateKey
from computeswarm.market import open_market
from computeswarm.market.limits import Kind, Limit
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

GUESS = "/api/v1/jobs/job-" + "0" * 20


async def test_guessing_jobs_ids_counts_as_failing_to_show_who_one_is(tmp_path: Path) -> None:
    """Each guess is a look into the database; and whose calls are good has no limit still."""
    market = open_market(
        tmp_path / "market.db", clock=FakeClock(), limits={Kind.AUTH: Limit(5, 60)}
    )
    async with Server(build_market_app(market)) as server, aiohttp.ClientSession() as session:
        client = MarketClient(session, await server.start("127.0.0.1", 0))
        seller = Seller(client)
        assert (await seller.register()).status == 201
        statuses = [(await client.call("PATCH", GUESS, data=b"{}")).status for _ in range(7)]
        assert statuses == [404] * 5 + [429] * 2
        job = submission(seller.node_id, PrivateKey.generate())
        body = job.model_dump_json()
        assert (await client.call("POST", "/api/v1/jobs/submit", data=body)).status == 201
        assert (await seller.patch(job.document["job_id"], "queued")).status == 200
        assert (await seller.beat()).status == 200
