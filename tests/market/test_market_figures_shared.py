"""Figures, statistics and price history of two instances on one PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from market_fixtures import MarketClient, Seller
from metric_rules import broken_rules, families, value

from computeswarm.core.health import MarketHealth
from computeswarm.core.stats import MarketStats
from computeswarm.market import open_market
from computeswarm.market.market import Market
from computeswarm.market.metrics import PREFIX
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

Pair = tuple[tuple[Market, MarketClient], tuple[Market, MarketClient]]


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        made = []
        for _ in range(2):
            market = open_market(postgres_url)
            server = await stack.enter_async_context(Server(build_market_app(market)))
            made.append((market, MarketClient(session, await server.start("127.0.0.1", 0))))
        yield made[0], made[1]


async def stats_of(client: MarketClient) -> MarketStats:
    return MarketStats.model_validate_json((await client.get("/api/v1/stats")).body)


async def test_instances_show_the_same_market(pair: Pair) -> None:
    (one, first), (two, second) = pair
    seller = Seller(first, issued_at=int(time.time()))
    assert (await seller.register()).status == 201
    async with asyncio.timeout(20):
        while (await stats_of(second)).nodes_idle != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    text = (await second.get("/metrics")).body.decode()
    assert broken_rules(text) == []
    found = families(text, PREFIX)
    assert found["info"].samples[0].labels["database"] == "postgresql"
    assert value(found, "nodes_active", model="RTX 4090") == 1
    assert 0 <= value(found, "replication_lag_seconds") < 20
    assert value(found, "replication_position_age_seconds") >= 0
    assert value(found, "replication_reloads") == 0
    health = MarketHealth.model_validate_json((await second.get("/health")).body)
    assert health.status == "ok" and health.replication_lag_seconds is not None

    # both sample the same moment, and it is kept once
    await one.prices.sample()
    await two.prices.sample()
    kept = await two.store.samples("price/21600/RTX 4090", since=0, until=int(time.time()))
    assert len(kept) == 1 and kept[0][1]["p50"] == 360_000
    history = await two.prices.history("4090", step=300)
    assert [p.p50 for p in history.series[0].points] == [360_000] * len(history.series[0].points)
    assert history.series[0].points
