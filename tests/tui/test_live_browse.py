"""The screens' own backend at a real market: pages, counts, and words of the language."""

from __future__ import annotations

from pathlib import Path

import pytest
from market_fixtures import FakeClock, MarketClient, Seller, running_market

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import InvalidQuery
from computeswarm.core.nodes import GPUInfo, Hardware
from computeswarm.core.settings import Paths, Settings
from computeswarm.tui.backends.live_buyer import LiveBuyer

COUNT = 130


async def fill(client: MarketClient) -> None:
    """Nodes of one wallet: every third with a card, each dearer than the one before."""
    key = PrivateKey.generate()
    card = GPUInfo(
        vendor="nvidia",
        model="NVIDIA GeForce RTX 4090",
        memory_bytes=24 * 2**30,
        driver="550.144",
        runtime="CUDA 12.4",
        capability="8.9",
    )
    for number in range(COUNT):
        hardware = Hardware(
            cpu_model="x",
            cpu_cores=2 + number % 2,
            memory_bytes=2**33,
            gpus=() if number % 3 else (card,),
        )
        seller = Seller(client, name=f"rig-{number:03}", key=key)
        reply = await seller.register(
            hardware=hardware, price_per_hour=1_000 + number, region="eu-fra"
        )
        assert reply.status == 201, reply.body


async def test_a_market_is_browsed_to_its_end_and_narrowed(tmp_path: Path) -> None:
    async with running_market(tmp_path / "market.db", FakeClock()) as client:
        await fill(client)
        buyer = LiveBuyer(Settings(market=client.url), Paths(tmp_path, tmp_path, tmp_path))
        await buyer.open()
        try:
            first = await buyer.nodes("", sort="price", limit=100)
            assert (len(first.nodes), first.total, first.more) == (100, COUNT, True)
            rest = await buyer.nodes("", sort="price", limit=200, cursor=first.next)
            prices = [node.price for node in (*first.nodes, *rest.nodes)]
            assert prices == list(range(1_000, 1_000 + COUNT))
            trend = await buyer.prices("NVIDIA GeForce RTX 4090")
            assert [point.p50 for point in trend.points] == [1_000]  # of now; none is older
            assert (rest.more, rest.rejected) == (False, 0)

            for item in await buyer.facets("cores>2"):
                found = await buyer.nodes(f"cores>2 {item.word}", sort="-name", limit=200)
                assert found.total == item.nodes, item
                assert len(found.nodes) == min(item.nodes, 100)
            models = {
                item.label: item.nodes for item in await buyer.facets("") if item.field == "gpu"
            }
            assert models == {"RTX 4090": 44, "cpu": 86}

            known = "driver>=550.54 cuda:12 capability>=8 value<0.0001 tflops:165 -cpu"
            assert (await buyer.nodes(known, sort="value", limit=10)).total == 44
            with pytest.raises(InvalidQuery):
                await buyer.nodes("vrma>=24", sort="price", limit=10)
        finally:
            await buyer.close()
