"""Everything here runs on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from chain_engines import ENGINES
from chain_fixtures import running_devnet

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA


@pytest.fixture(scope="module", params=ENGINES)
def module_chain(request: pytest.FixtureRequest) -> Iterator[Devnet]:
    with running_devnet(request.param) as devnet:
        yield devnet


@pytest_asyncio.fixture
async def chain(module_chain: Devnet) -> AsyncIterator[Devnet]:
    """The module's chain, on one engine after the other."""
    yield module_chain
    await module_chain.disconnect()


@pytest_asyncio.fixture
async def rpc(chain: Devnet) -> AsyncIterator[RpcClient]:
    async with RpcClient(chain.url) as client:
        yield client


@pytest.fixture
def usdc(rpc: RpcClient) -> Usdc:
    return Usdc(rpc, BASE_SEPOLIA)


@pytest.fixture
def sender(chain: Devnet, rpc: RpcClient) -> TxSender:
    return TxSender(rpc, chain.keys[0], chain.chain_id)
