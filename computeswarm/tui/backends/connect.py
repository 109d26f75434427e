"""Bringing the live backends. Everything heavy is imported here, after the first frame."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from computeswarm.tui.backend import Backends, Connect

if TYPE_CHECKING:
    from computeswarm.core.crypto import PrivateKey
    from computeswarm.core.settings import Paths, Settings
    from computeswarm.tui.backends.live_seller import LiveSeller


def live_connect(settings: Settings, paths: Paths) -> Connect:
    """A factory for the backends of these settings.

    The wallet is unlocked where ``password_file`` or ``COMPUTESWARM_PASSWORD`` says how; otherwise
    the app asks when the key is first needed.
    """

    async def connect() -> Backends:
        key = await asyncio.to_thread(_key, settings, paths)
        return await live_backends(settings, paths, key)

    return connect


async def live_backends(
    settings: Settings, paths: Paths, key: PrivateKey | None = None
) -> Backends:
    """The buyer with that key, the wallet, and the seller whose state lies in ``paths.seller``.

    Raises:
        ConfigError, StorageFull: a setting is wrong, or the journals can't be opened.
    """
    from computeswarm.tui.backends.live_buyer import LiveBuyer
    from computeswarm.tui.backends.live_wallet import LiveWallet

    buyer = LiveBuyer(settings, paths, key)
    await buyer.open()

    def attach() -> LiveSeller | None:
        from computeswarm.core.errors import SellerUnavailable
        from computeswarm.tui.backends.live_seller import LiveSeller

        try:
            return LiveSeller(paths.seller)
        except SellerUnavailable:
            return None

    return Backends(buyer, attach(), LiveWallet(settings, paths), attach=attach)


def _key(settings: Settings, paths: Paths) -> PrivateKey | None:
    from computeswarm.core.errors import RealMoneyRefused, WalletError
    from computeswarm.payments.wallet import open_wallet, resolve_password

    if not paths.wallet.exists():
        return None
    try:
        settings.spending_chain()
        password = resolve_password(settings)
    except (WalletError, RealMoneyRefused):  # then one may look around, and is told why when paying
        return None
    return open_wallet(settings, paths.wallet, password)
