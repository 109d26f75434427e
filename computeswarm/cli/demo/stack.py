"""Starting everything a demo consists of, in one event loop, and ending it in reverse."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.cli.demo.home import DemoHome, stale_homes
from computeswarm.core.chains import DEVNET
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.settings import Settings
from computeswarm.market import open_market
from computeswarm.payments.wallet import create_wallet, load_wallet
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.server.logs import setup_logging
from computeswarm.server.market_app import build_market_app
from computeswarm.server.seller_build import RunningSeller, open_seller
from computeswarm.server.serving import Server

_NODE_NAME = "demo"


@dataclass(frozen=True, slots=True)
class DemoStack:
    """What runs."""

    devnet: Devnet
    market_url: str
    seller: RunningSeller
    buyer: str
    seller_wallet: str


@asynccontextmanager
async def demo_stack(
    home: DemoHome, settings: Settings, *, engine: Literal["auto", "py-evm", "anvil"]
) -> AsyncIterator[DemoStack]:
    """Chain, market and seller, and a buyer's wallet with money; ready when entered."""
    await _clear_abandoned()
    seller_key = PrivateKey.generate()
    async with AsyncExitStack() as stack:
        log = stack.enter_context(home.log_file.open("a", encoding="utf-8"))
        setup_logging(settings.log_level, log, log_format=settings.log_format)
        # a wallet takes a second of key derivation, the chain less; neither needs the other
        buyer_key, devnet = await asyncio.gather(
            asyncio.to_thread(_buyer_wallet, home), start_devnet(engine=engine)
        )
        await stack.enter_async_context(devnet)
        for key in (buyer_key, seller_key):
            await devnet.fund(key.address, wei=10**18, usdc_atoms=10_000 * 10**6)
        market = Server(build_market_app(open_market(home.paths.market / "market.db")))
        await stack.enter_async_context(market)
        market_url = await market.start("127.0.0.1", 0)
        ours = replace(
            settings,
            market=market_url,
            rpc=devnet.url,
            network=DEVNET.name,
            host="127.0.0.1",
            port=0,
            node_name=_NODE_NAME,
            password_file=str(home.password_file),
        )
        _write_settings(home, ours)
        seller = await stack.enter_async_context(
            open_seller(ours, home.paths, seller_key, trusted=[buyer_key.address], default_port=0)
        )
        yield DemoStack(devnet, market_url, seller, buyer_key.address, seller_key.address)


def ready_line(stack: DemoStack, home: DemoHome) -> dict[str, Any]:
    """The one line that says where everything is."""
    return {
        "market": stack.market_url,
        "seller": stack.seller.url,
        "rpc": stack.devnet.url,
        **DEVNET.document(),
        "chain_id": stack.devnet.chain_id,
        "usdc": stack.devnet.usdc,
        "buyer": stack.buyer,
        "seller_wallet": stack.seller_wallet,
        "home": str(home.folder),
    }


def _buyer_wallet(home: DemoHome) -> PrivateKey:
    """A wallet whose password lies beside it: its money is worth nothing."""
    if home.paths.wallet.exists():
        return load_wallet(home.paths.wallet, home.password_file.read_text("utf-8"))
    password = secrets.token_urlsafe(24)
    home.password_file.write_text(password, "utf-8")
    home.password_file.chmod(0o600)
    return create_wallet(home.paths.wallet, password)


def _write_settings(home: DemoHome, settings: Settings) -> None:
    """So that each command with this home finds the demo's chain and market by itself."""
    names = ("market", "rpc", "network", "password_file")
    lines = [f"{name} = {json.dumps(getattr(settings, name))}" for name in names]
    home.paths.config_file.write_text("\n".join(lines) + "\n", "utf-8")


async def _clear_abandoned() -> None:
    """Remove what killed demos left: mounts and control groups of their jobs, then the folders."""
    for folder in stale_homes():
        seller = folder / "seller"
        if (seller / "bubblewrap").is_dir():
            await BubblewrapExecutor(seller).reap()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
