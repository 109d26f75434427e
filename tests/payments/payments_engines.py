"""Both engines of the local chain, where both are there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chain_fixtures import running_devnet

from computeswarm.chain.devnet import Devnet, find_anvil

ENGINES = [
    "py-evm",
    pytest.param(
        "anvil", marks=pytest.mark.skipif(find_anvil() is None, reason="anvil is not installed")
    ),
]


@pytest.fixture(scope="module", params=ENGINES)
def module_devnet(request: pytest.FixtureRequest) -> Iterator[Devnet]:
    """The chain behind ``devnet``, once on each engine, for modules that import this."""
    with running_devnet(request.param) as devnet:
        yield devnet
