"""What the buyer's commands share: opening the buyer, with the wallet unlocked where one pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.cli.context import Context
    from computeswarm.core.crypto import PrivateKey


def buyer_of(context: Context, key: PrivateKey | None = None) -> Buyer:
    """The buyer of this invocation's settings; an async context manager."""
    from computeswarm.buyer.client import Buyer

    context.warn_of_real_money()
    return Buyer(context.settings, context.paths, key)


def unlock(context: Context) -> PrivateKey:
    """The wallet's key, after its password.

    Raises:
        WalletError: there is no wallet (the sentence says how to make one), or no password.
        WrongPassword: it doesn't fit.
        RealMoneyRefused: the network's money is real, and that is not allowed.
    """
    from computeswarm.payments.wallet import open_wallet, resolve_password, wallet_address

    context.settings.spending_chain()  # nor where its key would not be used

    wallet_address(context.paths.wallet)  # nobody is asked for the password of no wallet
    ask = context.ask_password
    prompt = None if ask is None else lambda: ask("Wallet password: ")
    password = resolve_password(context.settings, prompt=prompt)
    return open_wallet(context.settings, context.paths.wallet, password)
