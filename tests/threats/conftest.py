"""Chains for attacks: py-evm for all, both engines where the chain itself plays a part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partialmethod
from pathlib import Path

import pytest
import pytest_asyncio
from chain_fixtures import running_devnet
from faulty_rpc import FaultyRpc
from threat_rig import Attack, open_attack

from computeswarm.chain.devnet import Devnet, find_anvil
from computeswarm.chain.rpc import RpcClient
from computeswarm.payments import fate

RPC_SECONDS = 0.5


@pytest.fixture(scope="module", params=["py-evm", "anvil"])
def module_engine(request: pytest.FixtureRequest) -> Iterator[Devnet]:
    """The chain behind ``any_devnet``."""
    if request.param == "anvil" and find_anvil() is None:
        pytest.skip("anvil is not installed (npm ci in contracts/)")
    with running_devnet(request.param) as devnet:
        yield devnet


@pytest_asyncio.fixture
async def any_devnet(module_engine: Devnet) -> AsyncIterator[Devnet]:
    """A funded chain of each engine in turn."""
    yield module_engine
    await module_engine.disconnect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An RPC that stalls is given up soon."""
    quick = partialmethod(RpcClient.__init__, timeout=RPC_SECONDS)
    monkeypatch.setattr(RpcClient, "__init__", quick)
    monkeypatch.setattr(fate, "_RECEIPT_SECONDS", 0.4)


@pytest_asyncio.fixture
async def proxy(devnet: Devnet, impatient: None) -> AsyncIterator[FaultyRpc]:
    """A liar before the module's chain."""
    async with FaultyRpc(devnet.url) as made:
        yield made


Opener = Callable[..., AbstractAsyncContextManager[Attack]]


@pytest.fixture
def attacked(devnet: Devnet, proxy: FaultyRpc, tmp_path: Path) -> Opener:
    """Opens a seller who sees the chain through the liar."""

    @asynccontextmanager
    async def opened(**changes: object) -> AsyncIterator[Attack]:
        async with open_attack(devnet, tmp_path, rpc=proxy.url, **changes) as attack:
            yield attack

    return opened
