"""A shop on a real chain: the seller's settlement, and buyers who pay him."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from payments_shop import Shop

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient


@pytest_asyncio.fixture
async def rpc(devnet: Devnet) -> AsyncIterator[RpcClient]:
    async with RpcClient(devnet.url) as client:
        yield client


@pytest.fixture
def open_shop(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> Callable[..., Awaitable[Shop]]:
    """Opens a shop, or opens it again after a crash; the caller closes it."""

    async def opened(**options: object) -> Shop:
        return await Shop.open(devnet, options.pop("rpc", rpc), tmp_path / "claims.db", **options)

    return opened


@pytest_asyncio.fixture
async def shop(open_shop: Callable[..., Awaitable[Shop]]) -> AsyncIterator[Shop]:
    shop = await open_shop()
    yield shop
    await shop.settlements.close()
