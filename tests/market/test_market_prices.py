"""What sellers ask, where some of them only want to move the figure."""

from __future__ import annotations

import pytest
from market_fixtures import CHAIN_ID, START, MarketClient, Seller

from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.signing import Signed
from computeswarm.core.stats import MarketStats
from computeswarm.market.directory import Node
from computeswarm.market.stats import price_percentiles

CENT = 10_000


def node(seller: Seller, price: int, *, succeeded: int = 0, name: str = "") -> Node:
    record = seller.record(price_per_hour=price, name=name or seller.name)
    signed = Signed.make(seller.key, RECORD_KIND, CHAIN_ID, record)
    return Node(
        record.node_id, signed, record, "", record.seq, bytes(32), START + 60, 0, START, START,
        0.0, START + 60,
        succeeded=succeeded,
    )  # fmt: skip


def sellers(count: int, client: MarketClient) -> list[Seller]:
    return [Seller(client) for _ in range(count)]


@pytest.fixture
def nobody() -> MarketClient:
    return MarketClient(None, "")  # type: ignore[arg-type]


def test_percentiles_are_of_wallets(nobody: MarketClient) -> None:
    fair = [node(seller, (30 + n) * CENT) for n, seller in enumerate(sellers(21, nobody))]
    asked = price_percentiles(fair)
    assert (asked.sellers, asked.p25, asked.p50, asked.p75) == (21, 35 * CENT, 40 * CENT, 45 * CENT)
    assert asked.p10 <= asked.p25 and asked.p75 <= asked.p90
    # one wallet that lists a thousand nodes counts once
    flood = Seller(nobody)
    many = [node(flood, 10**15, name=f"n{n}") for n in range(1000)]
    assert abs(price_percentiles([*fair, *many]).p50 - 40 * CENT) <= CENT


def test_strangers_who_never_sold_move_nothing(nobody: MarketClient) -> None:
    proven = [node(seller, 40 * CENT, succeeded=1) for seller in sellers(3, nobody)]
    cheap = [node(seller, 1) for seller in sellers(50, nobody)]
    asked = price_percentiles([*proven, *cheap])
    assert (asked.sellers, asked.p10, asked.p50) == (3, 40 * CENT, 40 * CENT)
    # with too few that have sold there is nobody else to ask
    assert price_percentiles([*proven[:2], *cheap]).sellers == 52


async def test_the_route_tells_them(client: MarketClient) -> None:
    for n, seller in enumerate(sellers(4, client)):
        assert (await seller.register(price_per_hour=(30 + n) * CENT)).status == 201
        await seller.beat()
    stats = MarketStats.model_validate_json((await client.get("/api/v1/stats")).body)
    asked = stats.gpus[0].asked
    assert stats.gpus[0].model == "RTX 4090" and asked is not None
    assert (asked.sellers, asked.p50) == (4, 32 * CENT)
