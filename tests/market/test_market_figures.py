"""What a market shows of itself: figures that Prometheus can read, and how it is, in words."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from market_fixtures import FakeClock, MarketClient, Seller, submission
from metric_rules import MOST_SAMPLES, broken_rules, families, value

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.health import MarketHealth, Trouble
from computeswarm.core.prices import PriceHistory
from computeswarm.core.stats import MarketStats
from computeswarm.market import open_market
from computeswarm.market.health import Journal
from computeswarm.market.market import Market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server

PREFIX = "computeswarm_market_"


@asynccontextmanager
async def market_client(market: Market) -> AsyncIterator[MarketClient]:
    app = build_market_app(market)
    async with Server(app) as server, aiohttp.ClientSession() as session:
        yield MarketClient(session, await server.start("127.0.0.1", 0))


async def scrape(client: MarketClient) -> dict[str, Any]:
    reply = await client.get("/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert broken_rules(reply.body.decode()) == []
    return families(reply.body.decode(), PREFIX)


async def finish_jobs(seller: Seller) -> None:
    """Two jobs that were paid, one of them refunded in full, and one that goes on."""
    buyer = PrivateKey.generate()
    for refunded in (0, 50_000, None):
        signed = submission(seller.node_id, buyer)
        body = signed.model_dump_json()
        assert (await seller.client.call("POST", "/api/v1/jobs/submit", data=body)).status == 201
        job_id = str(signed.document["job_id"])
        assert (await seller.patch(job_id, "running", paid=50_000)).status == 200
        if refunded is not None:
            members = {"metered_ms": 9_000, "paid": 50_000, "refunded": refunded, "exit_code": 0}
            assert (await seller.patch(job_id, "succeeded", **members)).status == 200


async def test_every_figure_is_there(client: MarketClient, seller: Seller) -> None:
    await seller.beat()
    await finish_jobs(seller)
    assert (await seller.beat(counter=1)).status == 401
    found = await scrape(client)
    assert value(found, "nodes", status="idle") == 1
    assert value(found, "nodes_active", model="RTX 4090") == 1
    assert value(found, "jobs_submitted") == 3 and value(found, "jobs_completed") == 2
    assert value(found, "jobs", state="running") == 1
    assert value(found, "job_mean_duration_seconds") == 9
    assert value(found, "payment_success_ratio") == 0.5
    duration = {s.name.removeprefix(PREFIX): s.value for s in found["job_duration_seconds"].samples}
    assert duration == {"job_duration_seconds_sum": 18, "job_duration_seconds_count": 2}
    assert value(found, "rate_limited", limit="read per address") == 0
    assert value(found, "heartbeats") == 1 and value(found, "auth_failures") == 1
    beat = "/api/v1/nodes/{node_id}/heartbeat"
    assert value(found, "http_responses", route=beat, **{"class": "4xx"}) == 1
    assert value(found, "price_usdc", model="RTX 4090", percentile="p50") == 0.36
    assert value(found, "node_memory_bytes") > 500
    assert value(found, "database_up") == 1 and value(found, "lease_brake") == 0
    assert {"write_behind_flush_seconds", "search_scan_seconds", "stream_subscribers"} <= set(found)
    again = await scrape(client)
    counters = [name for name, family in found.items() if family.type == "counter"]
    assert counters and all(value(again, n) >= value(found, n) for n in counters)


async def test_strangers_models_fill_no_scrape(client: MarketClient) -> None:
    gpu = {"vendor": "nvidia", "memory_bytes": 2**34}
    evil = ['RTX"} 1\nx_metric 1 \\', *(f"Fake {n}" for n in range(70))]
    sellers = [Seller(client, name=f"rig-{n}") for n in range(len(evil))]
    for seller, model in zip(sellers, evil, strict=True):
        hardware = {
            "cpu_model": "x", "cpu_cores": 1, "memory_bytes": 2**33,
            "gpus": [{**gpu, "model": model}],
        }  # fmt: skip
        assert (await seller.register(hardware=hardware)).status == 201
    found = await scrape(client)
    models = [s.labels["model"] for s in found["nodes_active"].samples]
    assert len(models) == 51 and value(found, "nodes_active", model="others") == 21
    assert sum(len(family.samples) for family in found.values()) < MOST_SAMPLES


async def test_statistics_and_prices_are_documents(client: MarketClient, seller: Seller) -> None:
    reply = await client.get("/api/v1/stats")
    stats = MarketStats.model_validate_json(reply.body)
    assert stats.gpus[0].asked is not None and not stats.brake
    assert "max-age=1" in reply.headers["Cache-Control"]
    reply = await client.get("/api/v1/stats/prices", params={"gpu": "4090"})
    history = PriceHistory.model_validate_json(reply.body)
    assert [(s.model, len(s.points)) for s in history.series] == [("RTX 4090", 1)]
    assert "public" in reply.headers["Cache-Control"]
    for wrong in ({"since": "x"}, {"step": "0"}, {"since": "9", "until": "8"}, {"until": "9" * 20}):
        assert (await client.get("/api/v1/stats/prices", params=wrong)).status == 400, wrong


async def test_health_says_what_is_wrong(tmp_path: Path, clock: FakeClock) -> None:
    market = open_market(tmp_path / "market.db", clock=clock)

    async def health(path: str = "/health") -> tuple[int, MarketHealth]:
        reply = await client.get(path)
        return reply.status, MarketHealth.model_validate_json(reply.body)

    async with market_client(market) as client:
        status, found = await health()
        assert (status, found.status, found.troubles) == (200, "ok", ())
        assert found.loaded and found.database == "sqlite" and found.database_ok
        assert (await client.get("/health/live")).status == 200
        sellers = [Seller(client, name=f"rig-{n}") for n in range(20)]
        for seller in sellers:
            assert (await seller.register()).status == 201
        clock.time += 10_000  # all leases are over at once
        await client.get("/api/v1/nodes")
        status, found = await health("/health/ready")
        assert (status, found.status, found.brake, found.nodes_held) == (200, "degraded", True, 20)
        assert [trouble.code for trouble in found.troubles] == ["brake"]
        stats = MarketStats.model_validate_json((await client.get("/api/v1/stats")).body)
        assert stats.brake and stats.nodes_online == 20
        market.store.unavailable_since = clock.time - 90
        status, found = await health()
        assert (status, found.database_ok) == (200, False)  # reads go on
        assert "1m 30s" in found.troubles[0].detail and found.troubles[0].code == "database_away"
        assert value(await scrape(client), "database_up") == 0
        market.store.unavailable_since, market.store.clock_ahead = None, 300.0
        status, found = await health()
        assert [trouble.code for trouble in found.troubles] == ["clock_off", "brake"]
        assert "5m 00s ahead of the database's" in found.troubles[0].detail
        market.closing = True
        assert (await health())[0] == 503 and (await client.get("/health/live")).status == 200
        market.closing = False


def test_the_log_tells_of_a_trouble_once(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    away = Trouble(code="database_away", detail="The database has not answered for 1s.")
    well = MarketHealth(status="ok", version="1", loaded=True)
    ill = well.model_copy(update={"status": "degraded", "troubles": (away,)})
    with caplog.at_level("INFO", "computeswarm.market"):
        for now, health in enumerate((well, ill, ill, ill, well, well)):
            journal.note(health, float(now))
    told = [(record.getMessage(), record.fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        ("trouble_began", {"code": "database_away", "detail": away.detail}),
        ("trouble_over", {"code": "database_away", "seconds": 3.0}),
    ]


def test_every_event_is_explained() -> None:
    root = Path(__file__).parents[2]
    files = [
        *root.glob("computeswarm/market/**/*.py"),
        *root.glob("computeswarm/server/market*.py"),
    ]
    files += [root / "computeswarm/server/web.py", root / "computeswarm/server/requests.py"]
    emitted = re.compile(r'_log\.(?:info|warning|error)\(\s*"([a-z]+_[a-z_]+)"')
    names = {name for file in files for name in emitted.findall(file.read_text())}
    manual = (root / "docs" / "market.md").read_text()
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in manual} == set()
