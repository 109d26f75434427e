"""A newcomer's way, from what this is to the first job or the first sale.

Each step is a dialog that escape leaves; what was done by then stays done.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from computeswarm.core.errors import ComputeSwarmError

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp
    from computeswarm.tui.views import WalletItem

MODES = ("buyer", "wallet")
"""Where one may be a newcomer: whoever sells already is none."""


def greet(app: ComputeSwarmApp) -> None:
    """Show the welcome to whoever has neither seen it nor bought anything."""
    app.run_worker(_greet(app), group="welcome", exit_on_error=False)


def welcome(app: ComputeSwarmApp) -> None:
    """Show it, whoever it is."""
    app.run_worker(_welcome(app), group="welcome", exit_on_error=False)


async def _greet(app: ComputeSwarmApp) -> None:
    backends = app.backends
    if backends is None or backends.wallet is None or app.memory.welcomed:
        return
    if app.current_mode not in MODES or await backends.buyer.jobs():
        return
    wallet = await _wallet(app)
    if wallet is None or wallet.trouble:
        return
    if not wallet.address or app.example is not None:
        await _welcome(app)


async def _welcome(app: ComputeSwarmApp) -> None:
    """The welcome, and what was chosen there."""
    from computeswarm.tui.modals.welcome import WelcomeModal

    backends = app.backends
    if len(app.screen_stack) > 1 or backends is None:
        if backends is None:
            app.say("Not connected yet; this takes a moment.", severity="warning")
        return
    wallet = await _wallet(app)
    selling = (backends.seller or backends.attach()) is not None
    has_wallet = wallet is None or bool(wallet.address)
    example = app.example.script.name if app.example is not None else ""
    modal = WelcomeModal(has_wallet=has_wallet, selling=selling, example=example)
    choice = await app.push_screen_wait(modal)
    app.memory.welcomed = True
    if choice == "sell":
        await _sell(app, selling=selling)
    elif choice == "buy" and (has_wallet or await make_wallet(app)):
        await _first_job(app)


async def make_wallet(app: ComputeSwarmApp) -> bool:
    """Make a wallet, open it for paying, and wait for money; True when one may go on buying."""
    from computeswarm.tui.messages import WalletOpened
    from computeswarm.tui.modals.new_wallet import NewWalletModal
    from computeswarm.tui.modals.qr import FundModal

    wallet, backends = await _wallet(app), app.backends
    if wallet is None or backends is None or backends.wallet is None:
        return False
    if not await app.push_screen_wait(NewWalletModal(wallet, backends.wallet, backends.buyer)):
        return False
    for screen in app.mode_screens():
        screen.post_message(WalletOpened())
    fresh = await _wallet(app)
    if fresh is None:
        return False
    funded: bool | None = await app.push_screen_wait(FundModal(fresh, backends.wallet))
    return bool(funded)


async def _first_job(app: ComputeSwarmApp) -> None:
    from computeswarm.tui.messages import BalanceLoaded
    from computeswarm.tui.screens.buyer import BuyerScreen

    await app.switch_mode("buyer")
    if not isinstance(app.screen, BuyerScreen) or app.backends is None:
        return
    with suppress(ComputeSwarmError):  # what came just now is not seen by the next look yet
        app.screen.post_message(BalanceLoaded(await app.backends.buyer.balance()))
    if isinstance(app.screen, BuyerScreen):
        app.screen.action_new_job()


async def _sell(app: ComputeSwarmApp, *, selling: bool) -> None:
    from computeswarm.tui.modals.sell import SellModal

    if not selling and app.backends is not None:
        started: bool | None = await app.push_screen_wait(SellModal(app.backends.attach))
        selling = bool(started)
    if selling:
        await app.switch_mode("seller")


async def _wallet(app: ComputeSwarmApp) -> WalletItem | None:
    """As it stands; None where nothing can be said of it."""
    if app.backends is None or app.backends.wallet is None:
        return None
    try:
        return await app.backends.wallet.status()
    except ComputeSwarmError as error:
        app.say(error.detail, title=error.title, severity="error")
        return None
