"""Everything here runs on both engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from chain_engines import ENGINES
from chain_fixtures import running_devnet
from chain_nodes import FakeNode, FakeNodes
from channel_rig import ChannelRig

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


@pytest_asyncio.fixture
async def fake_node() -> AsyncIterator[FakeNode]:
    """Starts an HTTP server that answers as the test says."""
    nodes = FakeNodes()
    yield nodes.start
    await nodes.close()


def _creation_code(contract: str) -> str:
    artifact = Path(__file__).parent / f"artifacts/{contract}.json"
    code: str = json.loads(artifact.read_text("utf-8"))["bytecode"]
    return code


@pytest.fixture(scope="session")
def wallet_code() -> str:
    """The creation code of a contract wallet; its owner's address is to follow as a word."""
    return _creation_code("TestWallet")


@pytest.fixture(scope="session")
def hostile_token_code() -> str:
    """The creation code of a token and collector that call whom they were told to."""
    return _creation_code("TestHostileToken")


@pytest_asyncio.fixture
async def rig(chain: Devnet, rpc: RpcClient) -> ChannelRig:
    """Payment channels on that chain."""
    rig = ChannelRig(chain, rpc)
    await rig.fund()
    return rig


@pytest.fixture
def usdc(rpc: RpcClient) -> Usdc:
    return Usdc(rpc, BASE_SEPOLIA)


@pytest.fixture
def sender(chain: Devnet, rpc: RpcClient) -> TxSender:
    return TxSender(rpc, chain.keys[0], chain.chain_id)
