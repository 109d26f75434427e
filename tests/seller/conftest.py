"""One seller on a real chain and a real market, and a buyer who knows the wire only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from seller_rig import Rig, open_rig

from computeswarm.chain.devnet import Devnet


@pytest.fixture
def rig(devnet: Devnet, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Rig]]:
    """Opens a rig with other settings; the same folder again is a restart."""

    @asynccontextmanager
    async def opened(**changes: object) -> AsyncIterator[Rig]:
        async with open_rig(devnet, tmp_path, **changes) as made:
            yield made

    return opened
