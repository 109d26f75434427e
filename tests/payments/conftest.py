"""A shop on a real chain: the seller's settlement, and buyers who pay him."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from channels_rig import FaultyRpc, Opener, Till
from payments_shop import Shop

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.payments.channels import deposit_fate


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


@pytest_asyncio.fixture
async def faulty_node(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyRpc]:
    monkeypatch.setattr(deposit_fate, "_RECEIPT_SECONDS", 0.3)
    async with FaultyRpc(devnet.url) as client:
        yield client


@pytest.fixture
def open_till(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> Opener:
    async def opened(**options: Any) -> Till:
        path = tmp_path / options.pop("name", "channels.db")
        return await Till.open(devnet, options.pop("rpc", rpc), path, **options)

    return opened


@pytest_asyncio.fixture
async def till(open_till: Opener) -> AsyncIterator[Till]:
    till = await open_till()
    yield till
    await till.channels.close()
