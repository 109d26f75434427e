from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from market_fixtures import FakeClock, MarketClient, Seller, running_market


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def client(tmp_path: Path, clock: FakeClock) -> AsyncIterator[MarketClient]:
    async with running_market(tmp_path / "market.db", clock) as made:
        yield made


@pytest.fixture
async def seller(client: MarketClient) -> Seller:
    made = Seller(client)
    assert (await made.register()).status == 201
    return made
