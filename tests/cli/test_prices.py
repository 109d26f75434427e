"""``prices`` against a market that has kept a history."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from buying_world import World, world

from computeswarm.buyer.http.market import MarketClient
from computeswarm.cli.commands.prices import _line
from computeswarm.core.prices import PricePoint, PriceSeries


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, wallet=False) as made:
        yield made


async def test_what_sellers_ask_is_shown(there: World) -> None:
    shown = await there.cli("prices")
    assert shown.code == 0
    head, row = shown.out.decode().splitlines()
    assert head.split() == [
        "GPU", "NODES", "SELLERS", "P25", "USDC/h", "P75", "OVER", "TIME", "LOWEST", "HIGHEST",
    ]  # fmt: skip
    model = row.split("  ")[0]
    document = json.loads((await there.cli("prices", model, "--json")).out)
    (series,) = document["series"]
    assert series["model"] == model and len(series["points"]) == 1
    nothing = await there.cli("prices", "GTX 970")
    assert nothing.code == 0 and b"Nobody has offered such a GPU" in nothing.out
    assert (await there.cli("prices", "--days", "91")).code == 125


async def test_a_buyers_charts_read_them(there: World) -> None:
    client = MarketClient(there.market, chain_id=84532)
    try:
        history = await client.prices(since=int(time.time()) - 3_600, step=300)
    finally:
        await client.close()
    assert history.step == 300 and len(history.series) == 1


def test_a_line_shows_ups_downs_and_gaps() -> None:
    def point(at: int, price: int) -> PricePoint:
        figures = dict.fromkeys(("p10", "p25", "p50", "p75", "p90"), price)
        return PricePoint(at=at, sellers=1, **figures)

    series = PriceSeries(model="x", points=(point(0, 10), point(16, 30), point(31, 20)))
    line = _line(series, 0, 32)
    assert (line[0], line[16], line[31]) == ("▁", "█", "▅") and line[1] == " " and len(line) == 32
    flat = PriceSeries(model="x", points=(point(0, 10), point(31, 10)))
    assert set(_line(flat, 0, 32)) == {"▄", " "}
