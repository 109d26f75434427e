"""``computeswarm devnet``: a local chain with test money until Ctrl+C."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings
from computeswarm.core.chains import DEVNET
from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.chain.devnet import Devnet

DEFAULT_PORT = 8545


def configure(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, "port")
    parser.add_argument(
        "--engine",
        choices=("auto", "py-evm", "anvil"),
        default="auto",
        help="auto takes anvil where it is found",
    )
    parser.add_argument(
        "--fund",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="give this account 10,000 USDC and 10,000 ETH too; may be repeated",
    )


async def run(context: Context) -> int:
    from computeswarm.server.serving import run_until_signal

    await run_until_signal(_devnet(context), ready=lambda devnet: _announce(context, devnet))
    return ExitCode.OK


@asynccontextmanager
async def _devnet(context: Context) -> AsyncIterator[Devnet]:
    from computeswarm.chain.devnet import start_devnet

    args = context.args
    port = context.settings.port or DEFAULT_PORT
    async with await start_devnet(engine=args.engine, port=port, accounts=args.fund) as devnet:
        yield devnet


def _announce(context: Context, devnet: Devnet) -> None:
    if context.json:
        context.document(
            {
                "rpc": devnet.url,
                "engine": devnet.engine,
                **DEVNET.document(),
                "chain_id": devnet.chain_id,
                "usdc": devnet.usdc,
                "accounts": [
                    {"address": key.address, "private_key": "0x" + key.secret.hex()}
                    for key in devnet.keys
                ],
            }
        )
    context.text(f"RPC       {devnet.url} ({devnet.engine})")
    context.text(f"Network   {DEVNET.label}, chain id {devnet.chain_id}")
    context.text(f"USDC      {devnet.usdc}")
    context.text("Accounts with 10,000 USDC and 10,000 ETH (everybody knows these keys):")
    for key in devnet.keys:
        context.text(f"  {key.address}  0x{key.secret.hex()}")
    context.note("Everything on this chain is forgotten when it ends. Ctrl+C ends it.")
