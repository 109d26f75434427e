"""A devnet for any suite: ``devnet`` is one py-evm chain for each test module, about 0.6 s.

It is shared by the tests of a module, so compare balances before and after, and start your own
(``start_devnet``) to move its clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from computeswarm.chain.devnet import Devnet


@contextmanager
def running_devnet(engine: Literal["py-evm", "anvil"]) -> Iterator[Devnet]:
    """A devnet that outlives single tests' event loops."""
    from computeswarm.chain.devnet import start_devnet

    with asyncio.Runner() as runner:
        devnet = runner.run(start_devnet(engine=engine))
        try:
            runner.run(devnet.disconnect())
            yield devnet
        finally:
            runner.run(devnet.close())


@pytest.fixture(scope="module")
def module_devnet() -> Iterator[Devnet]:
    """The chain behind ``devnet``."""
    with running_devnet("py-evm") as devnet:
        yield devnet


@pytest_asyncio.fixture
async def devnet(module_devnet: Devnet) -> AsyncIterator[Devnet]:
    """A running, funded chain."""
    yield module_devnet
    await module_devnet.disconnect()
