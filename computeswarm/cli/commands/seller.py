"""``computeswarm seller``: rent this machine out until Ctrl+C."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.cli.commands import seller_owner, seller_revoke
from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings
from computeswarm.core.errors import ComputeSwarmError, ExitCode

if TYPE_CHECKING:
    from computeswarm.core.crypto import PrivateKey
    from computeswarm.server.seller_build import RunningSeller
    from computeswarm.tui.backend import Backends

GRACE_SECONDS = 30.0
_SETTINGS = (
    *("price", "node_name", "host", "port", "endpoint", "region", "executor", "slots"),
    *(
        "slice_seconds",
        "tick_seconds",
        "max_job_seconds",
        "keep_outputs",
        "keep_inputs",
        "password_file",
    ),
    *("windows", "window_end", "pause_when_used", "pause_minutes", "power_limit_watts"),
    *("accept", "ask_seconds", "queue_limit", "minimum_charge", "allow_network"),
    *("facilitator", "rpc_confirm", "confirm_safe_above", "confirm_finalized_above"),
    *("max_gas_share", "eth_price", "electricity_price", "log_format"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--headless", action="store_true", help="no terminal app: serve until Ctrl+C"
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--trust",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="a wallet whose jobs may run without a sandbox (executor process); may be repeated",
    )
    add_settings(parser, *_SETTINGS)
    seller_owner.configure(parser)


def run(context: Context) -> int:
    if context.args.action == "revoke":
        return seller_revoke.act(context, lambda: _unlock(context))
    if context.args.action is not None:
        return seller_owner.act(context)
    return _headless(context) if context.args.headless else _with_app(context)


def _headless(context: Context) -> int:
    from computeswarm.cli.demo.child import ending_with
    from computeswarm.server.logs import setup_logging
    from computeswarm.server.seller_build import open_seller
    from computeswarm.server.serving import run, run_until_signal

    setup_logging(context.settings.log_level, log_format=context.settings.log_format)
    context.warn_of_real_money()
    key = _unlock(context)
    chain = context.settings.chain

    def announce(seller: RunningSeller) -> None:
        status = seller.status()
        if context.json:
            context.document(
                {
                    "seller": seller.url,
                    "node_id": status.node_id,
                    "wallet": status.wallet,
                    **chain.document(),
                }
            )
        for note in status.notes:
            context.note(note)
        poor = status.gas_wei == "0"
        does, until = ("will take", f" once {status.wallet} has ETH") if poor else ("takes", "")
        context.note(
            f"{status.node_id} ({status.name}) {does} jobs at {status.endpoint}{until}. "
            f"Ctrl+C lets them finish for {GRACE_SECONDS:.0f} s and hands the rest back with a "
            "refund; twice, at once."
        )

    async def reload(seller: RunningSeller) -> None:
        try:
            changes = await seller.agent.reload(context.read_settings_again())
        except ComputeSwarmError as error:
            context.note(f"The settings stay as they are: {error.detail}")
            return
        for change in changes or ["The settings are what they were."]:
            context.note(change)

    async def serve() -> None:
        trusted = [key.address, *context.args.trust]
        async with ending_with(context.args.parent):
            opening = open_seller(
                context.settings, context.paths, key, trusted=trusted, grace=GRACE_SECONDS
            )
            # the SIGHUP of a terminal that closes is no wish for new settings
            again = None if sys.stdin.isatty() else reload
            await run_until_signal(opening, ready=announce, reload=again)

    run(serve())
    return ExitCode.OK


def _password(context: Context) -> str:
    from computeswarm.payments.wallet import resolve_password, wallet_address

    context.settings.spending_chain()  # nothing is asked where nothing may be earned
    wallet_address(context.paths.wallet)  # no wallet: say so before asking for its password
    ask = context.ask_password
    prompt = (lambda: ask("Wallet password (not shown): ")) if ask else None
    return resolve_password(context.settings, prompt=prompt)


def _unlock(context: Context) -> PrivateKey:
    from computeswarm.payments.wallet import open_wallet

    return open_wallet(context.settings, context.paths.wallet, _password(context))


def _with_app(context: Context) -> int:
    """The app attaches to a seller that runs already, and starts one otherwise."""
    from computeswarm.cli.demo.child import HeadlessChild
    from computeswarm.payments.wallet import open_wallet
    from computeswarm.tui.run import run_tui

    child: AbstractContextManager[HeadlessChild | None] = nullcontext()
    if not _runs_already(context.paths.seller / "owner.json"):
        password = _password(context)
        open_wallet(
            context.settings, context.paths.wallet, password
        )  # a wrong one is said here, not in the app
        environ = {"COMPUTESWARM_PASSWORD": password}
        child = HeadlessChild("seller", *_flags(context), environ=environ)
    with child as started:

        async def connect() -> Backends:
            if started is not None:
                await started.ready()
            from computeswarm.tui.backends.connect import live_connect

            return await live_connect(context.settings, context.paths)()

        return run_tui(context.settings, context.paths, mode="seller", connect=connect)


def _runs_already(owner_file: Path) -> bool:
    """Whether the seller that wrote the file lives; one that was killed leaves it behind."""
    try:
        os.kill(int(json.loads(owner_file.read_bytes())["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _flags(context: Context) -> list[str]:
    args = vars(context.args)
    flags: list[str] = []
    for name in ("home", "market", "network", "rpc", "log_level", *_SETTINGS):
        if args.get(name) is not None:
            flags += ["--" + name.replace("_", "-"), args[name]]
    if args.get("allow_real_money"):
        flags.append("--real-money")
    for address in args["trust"]:
        flags += ["--trust", address]
    return flags
