from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return tmp_path / "market.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(where: Path | str) -> AsyncIterator[Store]:
    made = open_store(where)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two instances on one PostgreSQL."""
    first, second = open_store(postgres_url), open_store(postgres_url)
    await first.open()
    await second.open()
    yield first, second
    await first.close()
    await second.close()
