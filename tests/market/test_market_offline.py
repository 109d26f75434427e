"""Who goes offline, when, and at which instances."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from market_cluster import Relay, until
from market_fixtures import FakeClock, Seller, serving

from computeswarm.market import Market, open_market, replica
from computeswarm.market.leases import BRAKE_SECONDS, OFFLINE


def status(market: Market, seller: Seller) -> int:
    """As the table has it, without a read that would make the market look."""
    slot = market.table.slot(seller.node_id)
    return 255 if slot is None else market.table.hot.status[slot]


async def test_silence_is_noticed_within_a_tenth_of_the_lease(tmp_path: Path) -> None:
    market = open_market(tmp_path / "market.db", heartbeat_seconds=2)
    async with serving(market) as client:
        seller = Seller(client, issued_at=int(time.time()))
        began = time.monotonic()
        assert (await seller.register()).json["lease_seconds"] == 6

        async def offline() -> bool:
            return status(market, seller) == OFFLINE

        await until(offline)
        assert 6 <= time.monotonic() - began < 1.1 * 6 + 1.0, "a second for a busy machine"


async def test_a_market_that_hears_nobody_delists_nobody_and_says_so(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(open_market(tmp_path / "market.db", clock=clock)) as client:
        sellers = [Seller(client, name=f"rig-{n}") for n in range(25)]
        for seller in sellers:
            assert (await seller.register()).status == 201
        assert "ComputeSwarm-Held" not in (await client.get("/api/v1/nodes")).headers
        clock.time += 91
        reply = await client.get("/api/v1/nodes")
        assert reply.json["total"] == 25
        assert reply.headers["ComputeSwarm-Held"] == "25"
        stats = (await client.get("/api/v1/stats")).json
        assert (stats["brake"], stats["nodes_online"]) == (True, 25)
        assert (await client.get("/health/ready")).status == 200
        for seller in sellers[:23]:
            assert (await seller.beat()).status == 200
        clock.time += 1
        reply = await client.get("/api/v1/nodes")
        assert reply.json["total"] == 23
        assert "ComputeSwarm-Held" not in reply.headers
        assert (await client.get("/api/v1/stats")).json["brake"] is False
        clock.time += 91
        assert (await client.get("/api/v1/nodes")).json["total"] == 23
        clock.time += BRAKE_SECONDS
        assert (await client.get("/api/v1/nodes")).json["total"] == 0
    told = [record.message for record in caplog.records if "brake" in record.message]
    assert told == ["mass_expiry_brake_on", "mass_expiry_brake_off"] * 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blind well within the short leases of these tests."""
    monkeypatch.setattr(replica, "BLIND_SECONDS", 0.8)


@pytest.mark.usefixtures("quick")
async def test_a_heartbeat_at_one_keeps_the_node_alive_at_all(postgres_url: str) -> None:
    one, other = (open_market(postgres_url, heartbeat_seconds=2) for _ in range(2))
    async with serving(one) as client, serving(other):
        seller = Seller(client, issued_at=int(time.time()))
        assert (await seller.register()).status == 201
        until_then = time.monotonic() + 10
        while time.monotonic() < until_then:
            assert (await seller.beat()).status == 200
            await asyncio.sleep(0.5)
            assert (status(one, seller), status(other, seller)) in ((0, 0), (0, 255))
        assert status(other, seller) == 0

        async def offline_at_both() -> bool:
            return (status(one, seller), status(other, seller)) == (OFFLINE, OFFLINE)

        assert await until(offline_at_both) > 3


@pytest.mark.usefixtures("quick")
async def test_an_instance_that_is_cut_off_takes_nobody_for_offline(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    assert parts.hostname is not None and parts.port is not None
    async with Relay((parts.hostname, parts.port)) as line:
        cut = parts._replace(netloc=parts.netloc.replace(str(parts.port), str(line.port)))
        one = open_market(postgres_url, heartbeat_seconds=2)
        other = open_market(cut.geturl(), heartbeat_seconds=2)
        async with serving(one) as client, serving(other):
            seller = Seller(client, issued_at=int(time.time()))
            assert (await seller.register()).status == 201

            async def known() -> bool:
                return status(other, seller) == 0

            await until(known)
            line.stall()
            away_until = time.monotonic() + 9
            while time.monotonic() < away_until:
                assert (await seller.beat("busy")).status == 200
                await asyncio.sleep(0.5)
                assert status(other, seller) == 0, "nine seconds are more than the lease of six"
            assert other.leases.braked
            line.heal()

            async def heard() -> bool:
                assert (await seller.beat("busy")).status == 200
                return status(other, seller) == 1 and not other.leases.braked

            await until(heard)
