"""A price is suggested with distrust, and only ever suggested."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from cli_program import run
from market_fixtures import MarketClient, Seller
from seller_rig import PRICE, Rig

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.stats import GPUStats, MarketStats, PricePercentiles
from computeswarm.seller.owner_client import OwnerClient
from computeswarm.seller.pricing import advise, fetch_stats
from computeswarm.server.serving import Server

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
MODEL = "RTX 4090"
CENT = 10_000
GZIP = b"\x1f\x8b"


def stats(
    *, model: str = MODEL, sellers: int = 9, prices: tuple[int, ...] = (30, 40, 50)
) -> MarketStats:
    low, middle, high = (price * CENT for price in prices)
    asked = PricePercentiles(sellers=sellers, p10=low, p25=low, p50=middle, p75=high, p90=high)
    row = GPUStats(
        model=model, nodes=sellers, idle=1, min_price=low, median_price=middle, asked=asked
    )
    counts = dict.fromkeys(("total", "online", "idle", "busy", "draining"), 0)
    return MarketStats(
        time=1, jobs_total=0, gpus=(row,), **{f"nodes_{name}": n for name, n in counts.items()}
    )


@pytest.mark.parametrize(
    ("sold", "break_even", "suggested"),
    [
        (None, 0, 40),  # nothing is known: the middle
        (0.5, 6 * CENT, 40),
        (0.9, 6 * CENT, 50),  # asked for all the time
        (0.05, 6 * CENT, 30),  # nobody comes
        (0.05, 45 * CENT, 45),  # but never below what the current costs
    ],
)
def test_the_suggestion_follows_the_market_and_the_current(
    sold: float | None, break_even: int, suggested: int
) -> None:
    advice = advise(stats(), MODEL, break_even=break_even, sold=sold)
    assert advice.suggested == suggested * CENT
    told = advice.sentence(41 * CENT)
    assert "9 sellers of RTX 4090 ask 0.30 to 0.50" in told and "you ask 0.41" in told
    assert f"Suggested: 0.{suggested}" in told


@pytest.mark.parametrize(
    "market",
    [
        None,
        stats(model="RTX 3090"),
        stats(sellers=2),
        stats(prices=(1, 40, 10**6)),  # a range that says nothing
        stats(prices=(50, 40, 30)),  # no percentiles at all
        stats(prices=(0, 0, 0)),
        stats(prices=(10**9, 10**9, 10**9)),
    ],
)
def test_what_can_not_be_true_suggests_nothing(market: MarketStats | None) -> None:
    advice = advise(market, MODEL, break_even=6 * CENT, sold=0.5)
    assert advice.suggested == 0 and advice.why
    assert "No price is suggested" in advice.sentence(40 * CENT)
    assert "costs 0.06" in advice.sentence(40 * CENT)


@asynccontextmanager
async def answering(body: bytes, status: int = 200) -> Any:
    async def handle(_: web.Request) -> web.Response:
        packed = {"Content-Encoding": "gzip"} if body[:2] == GZIP else {}
        return web.Response(body=body, status=status, headers=packed)

    app = web.Application()
    app.router.add_get("/api/v1/stats", handle)
    async with Server(app) as server:
        yield await server.start("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b"[" * 50_000_000), 200),
        (b"[" * 5_000_000, 200),
        (b"{}", 200),
        (b"\xff", 200),
        (b"{}", 503),
        (b'{"time":1e400}', 200),
    ],
    ids=["bomb", "nested", "empty", "not-text", "refused", "infinite"],
)
async def test_a_market_that_babbles_is_a_sentence(body: bytes, status: int) -> None:
    """A market's answer is read to a length, and never unpacked."""
    async with answering(body, status) as url:
        with pytest.raises(ComputeSwarmError):
            await fetch_stats(url)
    with pytest.raises(ComputeSwarmError):
        await fetch_stats("http://127.0.0.1:9")


async def test_the_owner_is_told_and_nothing_is_changed(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        client = MarketClient(r.session, r.market_url)
        for price in (2_000_000, 3_000_000, 4_000_000):
            hardware = r.agent.config.hardware
            other = Seller(client, changes={"hardware": hardware, "price_per_hour": price})
            other.issued_at = r.agent.offers.record().document["issued_at"]  # type: ignore[assignment]
            assert (await other.register()).status == 201
        advisor = r.agent.bookkeeper.advisor
        await advisor.close()  # the first look came before the three
        advisor.start()
        async with asyncio.timeout(30):
            while not (status := await owner.status()).advice.suggested:  # type: ignore[union-attr]  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert status.advice is not None and status.advice.sellers == 4
        assert status.advice.suggested in (3_000_000, 3_600_000)
        assert status.price_per_hour == PRICE
        told = [event.text for event in status.events if "of cpu" in event.text]
        assert told
        shown = await asyncio.to_thread(run, "earnings", home=r.paths.state)
        assert "Suggested: 3." in shown.out, shown.err
