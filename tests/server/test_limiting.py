"""What an address may ask over HTTP, by those who look for a way round it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from market_fixtures import FakeClock, MarketClient, Seller, submission

from computeswarm.core.crypto import PrivateKey
from computeswarm.market import open_market
from computeswarm.market.limits import Kind, Limit
from computeswarm.server.limiting import READS_AT_ONCE
from computeswarm.server.market_app import build_market_app
from computeswarm.server.proxies import Clients, read_networks
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


async def test_one_address_brings_only_so_many_new_nodes(tmp_path: Path) -> None:
    """They are kept for good, and wallets are free; those that are known come back at will."""
    market = open_market(
        tmp_path / "market.db", clock=FakeClock(), limits={Kind.NEW: Limit(3, 86_400)}
    )
    async with Server(build_market_app(market)) as server, aiohttp.ClientSession() as session:
        client = MarketClient(session, await server.start("127.0.0.1", 0))
        sellers = [Seller(client) for _ in range(5)]
        assert [(await one.register()).status for one in sellers] == [201] * 3 + [429] * 2
        assert [(await one.register()).status for one in sellers[:3]] == [201] * 3
        refused = await sellers[4].register()
        assert refused.headers["Retry-After"].isdigit()
        assert refused.json["limit"] == "new per address"


async def test_one_address_does_not_take_all_places_of_long_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market, end = open_market(tmp_path / "market.db", clock=FakeClock()), asyncio.Event()

    async def slowly(_: str) -> bytes:
        await end.wait()
        return b"{}"

    monkeypatch.setattr(market, "facets", slowly)
    app = build_market_app(market, clients=Clients(read_networks("127.0.0.1")))
    async with Server(app) as server, aiohttp.ClientSession() as session:
        client = MarketClient(session, await server.start("127.0.0.1", 0))

        async def search(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            status: int = (await client.get("/api/v1/nodes/facets", headers=headers)).status
            return status

        first = [asyncio.create_task(search("192.0.2.1")) for _ in range(READS_AT_ONCE + 3)]
        ended = asyncio.as_completed(first, timeout=30)
        assert [await next(ended) for _ in range(3)] == [429] * 3
        other = asyncio.create_task(search("192.0.2.2"))
        end.set()
        assert await other == 200
        statuses = sorted([await task for task in first])
        assert statuses == [200] * READS_AT_ONCE + [429] * 3
        assert await search("192.0.2.1") == 200
