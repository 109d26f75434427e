"""A demo (chain, market, seller) as one process, and a buyer on it: what benchmarks share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from computeswarm.buyer.client import Buyer
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.wallet import load_wallet, resolve_password

_START_SECONDS = 120


@dataclass(frozen=True)
class World:
    """``pid``: the process that chain, market and seller share."""

    buyer: Buyer
    pid: int


async def idle_node(buyer: Buyer) -> ComputeNode:
    """The demo's node, once it has told the market that its last job has ended."""
    async with asyncio.timeout(_START_SECONDS):
        while not (found := await buyer.candidates()):  # noqa: ASYNC110 - the market sets no event
            await asyncio.sleep(0.1)
    return found[0]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Everything fresh; nothing of it is left afterwards."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPUTESWARM_")}
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "computeswarm", "demo", "--headless"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environ,
    )
    try:
        assert demo.stdout is not None
        ready = json.loads(await asyncio.wait_for(demo.stdout.readline(), _START_SECONDS))
        home = {"COMPUTESWARM_HOME": str(Path(ready["home"]))}
        paths = Paths.find(home)
        settings = Settings.load(environ=home, paths=paths)
        password = resolve_password(settings, environ={})
        key = await asyncio.to_thread(load_wallet, paths.wallet, password)
        async with Buyer(settings, paths, key) as buyer:
            yield World(buyer, demo.pid)
    finally:
        demo.send_signal(signal.SIGTERM)
        await demo.wait()
