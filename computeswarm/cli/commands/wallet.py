"""``computeswarm wallet new|import|show|balance|policy``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from computeswarm.cli.context import Context
from computeswarm.cli.options import add_settings
from computeswarm.core.errors import ExitCode, WalletError

if TYPE_CHECKING:
    from computeswarm.core.crypto import PrivateKey

_ACTIONS = """\
  new      make a key and keep it encrypted under a password
  import   the same with a key of yours: asked for hidden, or one line on standard input
  show     the wallet's address and file
  balance  what it holds on the chain
  policy   what it may spend, on whom, and how much of that is left today
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ACTIONS
    parser.add_argument("action", choices=("new", "import", "show", "balance", "policy"))
    add_settings(parser, "password_file")


async def run(context: Context) -> int:
    action = context.args.action
    context.warn_of_real_money()
    if action == "balance":
        return await _balance(context)
    if action == "policy":
        from computeswarm.cli.policy import show_policy

        return show_policy(context)
    if action == "new":
        _answer(context, _new(context).address)
    elif action == "import":
        _answer(context, _import(context).address)
    else:
        from computeswarm.payments.wallet import wallet_address

        _answer(context, wallet_address(context.paths.wallet))
    return ExitCode.OK


def _new(context: Context) -> PrivateKey:
    from computeswarm.payments.wallet import create_wallet

    _refuse_second(context)
    return create_wallet(context.paths.wallet, _new_password(context))


def _import(context: Context) -> PrivateKey:
    from computeswarm.payments.wallet import import_wallet, parse_key

    _refuse_second(context)
    if context.ask_password:
        key = context.ask_password("Private key (not shown): ")
    else:
        # never an argument: those are seen by every user of the machine
        key = sys.stdin.readline(200)
    parse_key(key)  # nobody thinks up a password for what is no key
    return import_wallet(context.paths.wallet, key, _new_password(context))


def _refuse_second(context: Context) -> None:
    """Before anything is typed; the keystore refuses it again when it writes."""
    path = context.paths.wallet
    if path.exists():
        raise WalletError(f"There is a wallet at {path} already; move it away first.")


def _new_password(context: Context) -> str:
    from computeswarm.payments.wallet import check_new_password, resolve_password

    ask, chain = context.ask_password, context.settings.chain

    def twice() -> str:
        if ask is None:
            return ""
        password = ask("New password (not shown): ")
        check_new_password(chain, password)
        if password and ask("The same once more: ") != password:
            raise WalletError("The two passwords differ; try again.")
        return password

    password = resolve_password(context.settings, prompt=twice)
    check_new_password(chain, password)
    return password


def _answer(context: Context, address: str) -> None:
    path = str(context.paths.wallet)
    if context.json:
        context.document({"address": address, "path": path, **context.settings.chain.document()})
    context.text(f"Address  {address}")
    context.text(f"File     {path}")


async def _balance(context: Context) -> int:
    from computeswarm.chain.rpc import RpcClient
    from computeswarm.chain.usdc import Usdc
    from computeswarm.core.money import format_usdc
    from computeswarm.payments.wallet import wallet_address

    address = wallet_address(context.paths.wallet)
    chain = context.settings.chain
    async with RpcClient(context.settings.rpc_urls) as rpc:
        await rpc.verify_chain(chain.chain_id)
        atoms = await Usdc(rpc, chain).balance_of(address)
        wei = await rpc.native_balance(address)
    if context.json:
        context.document(
            {
                "address": address,
                **chain.document(),
                "chain_id": chain.chain_id,
                "usdc_atoms": atoms,
                "usdc": format_usdc(atoms),
                "wei": str(wei),
            }
        )
    context.text(f"{format_usdc(atoms)} {chain.usdc.symbol} on {chain.label}")
    context.text(f"{wei / 10**18:.6f} ETH for fees; buying needs none")
    return ExitCode.OK
