"""What sellers ask, as the market tells it."""

from __future__ import annotations

from market_fixtures import MarketClient, Seller

from computeswarm.core.stats import MarketStats

CENT = 10_000


async def test_the_route_tells_them(client: MarketClient) -> None:
    for n, seller in enumerate([Seller(client) for _ in range(4)]):
        assert (await seller.register(price_per_hour=(30 + n) * CENT)).status == 201
        await seller.beat()
    stats = MarketStats.model_validate_json((await client.get("/api/v1/stats")).body)
    asked = stats.gpus[0].asked
    assert stats.gpus[0].model == "RTX 4090" and asked is not None
    assert (asked.sellers, asked.p50) == (4, 32 * CENT)
