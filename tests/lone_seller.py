"""A seller in a process of its own, so that a test can end it without a word."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from seller_rig import Bought, Rig, settings_for

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.settings import Paths

NO_MARKET = "http://127.0.0.1:9"
SCRIPT = Path(__file__).parent / "seller" / "seller_process.py"


@asynccontextmanager
async def seller_process(
    devnet: Devnet, folder: Path, **changes: Any
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Rig]]:
    """A seller in its own process, without a market."""
    home = folder / "seller-home"
    given = {
        "settings": asdict(settings_for(devnet, NO_MARKET, **changes)),
        "home": str(home),
        "key": devnet.keys[1].secret.hex(),
        "trusted": [devnet.keys[0].address],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), json.dumps(given), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        said = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        running = SimpleNamespace(url=said["url"], agent=SimpleNamespace(wallet=said["wallet"]))
        async with aiohttp.ClientSession() as session, RpcClient(devnet.url) as rpc:
            paths = Paths.find({"COMPUTESWARM_HOME": str(home)})
            usdc = Usdc(rpc, BASE_SEPOLIA)
            seller: Any = running
            yield process, Rig(seller, session, usdc, devnet.keys[0], NO_MARKET, paths)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def moved(bought: Bought, rig: Rig) -> Bought:
    """The same job at the seller's new address."""
    return Bought(rig, bought.job_id, bought.key, bought.quote)
