"""A buyer with a wallet of his own, for tests that hold his books against the chain."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from seller_rig import Rig

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.signing import Signed


async def funded(devnet: Devnet) -> PrivateKey:
    """A wallet that no other test moves money of: 1 USDC, and gas."""
    key = PrivateKey.generate()
    await devnet.fund(key.address, wei=10**18, usdc_atoms=1_000_000)
    return key


@asynccontextmanager
async def buying(
    devnet: Devnet, home: Path, market: str, key: PrivateKey, **options: Any
) -> AsyncIterator[Buyer]:
    """A buyer with his state below ``home``."""
    settings = Settings(market=market, rpc=devnet.url)
    paths = Paths.find({"COMPUTESWARM_HOME": str(home)})
    async with Buyer(settings, paths, key, **options) as buyer:
        yield buyer


async def node_of(rig: Rig) -> ComputeNode:
    """The seller's node, as a market would list it."""
    found = (await rig.call("GET", "/")).json
    now = int(time.time())
    return ComputeNode(
        node_id=found["node_id"],
        status=NodeStatus.IDLE,
        record=Signed.model_validate(found["record"]),
        registered_at=now,
        last_seen=now,
    )


def planned(folder: Path, code: str, **limits: Any) -> JobPlan:
    """A job that runs this Python."""
    script = folder / f"{secrets.token_hex(4)}.py"
    script.write_text(code)
    return plan_job(script, **limits)
