"""The engines to test on: both, where both are there."""

from __future__ import annotations

import pytest

from computeswarm.chain.devnet import find_anvil

ENGINES = [
    "py-evm",
    pytest.param(
        "anvil",
        marks=pytest.mark.skipif(
            find_anvil() is None, reason="anvil is not installed (npm ci in contracts/)"
        ),
    ),
]
