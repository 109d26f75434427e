"""Pictures of Wallet mode and of a newcomer's dialogs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui_fake import FakeBuyer, FixedClock
from tui_fake_wallet import BOOKS, FakeWallet, entry
from tui_steps import until

from computeswarm.core.errors import ChainUnavailable
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.memory import Memory
from computeswarm.tui.screens.wallet import WalletScreen
from computeswarm.tui.views import FundsItem
from computeswarm.tui.widgets.ledger_pane import LedgerPane
from computeswarm.tui.widgets.wallet_pane import WalletPane

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
Then = Callable[[Pilot[None]], Awaitable[None]]


def _app(wallet: FakeWallet, *, welcomed: bool = True, **buyer: Any) -> ComputeSwarmApp:
    memory = Memory()
    memory.welcomed = welcomed
    owner = FakeBuyer(jobs=[], **buyer)
    if buyer.get("real_money"):
        owner.identity = replace(owner.identity, locked=True)
    wallet.buyer = owner
    return ComputeSwarmApp(
        owner, None, wallet=wallet, mode="wallet", memory=memory, clock=FixedClock()
    )


def _shot(snap: Any, app: ComputeSwarmApp, size: str, then: Then | None = None) -> bool:
    async def run_before(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen_stack[0], WalletScreen))
        screen = app.screen_stack[0]
        for pane in (screen.query_one(WalletPane), screen.query_one(LedgerPane)):
            notice = pane.query_one("Notice", Static)
            await until(
                pilot,
                lambda p=pane, n=notice: not p.has_class("-notice") or "◌" not in str(n.render()),
                "the first answers",
            )
        text = screen.query_one("#wallet-text", Static)
        await until(pilot, lambda: "◌" not in str(text.render()), "the balance")
        if then is not None:
            await then(pilot)
            await pilot.pause()

    return bool(snap(app, terminal_size=SIZES[size], run_before=run_before))


def _wallet(kind: str) -> ComputeSwarmApp:
    if kind == "none":
        return _app(FakeWallet((), address=""), address="")
    if kind == "hostile":
        evil = "[@click=app.exit]x[/] [/nope]"
        return _app(FakeWallet((entry(0, job_id=evil, peer=evil, kind=evil), *BOOKS[1:])))
    wallet = FakeWallet(real_money=kind == "real_money")
    if kind == "offline":
        wallet.funds_fault = ChainUnavailable("The chain doesn't answer.")
    return _app(wallet, real_money=kind == "real_money")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["loaded", "none", "offline", "real_money", "hostile"])
def test_wallet(snap_compare: Any, kind: str, size: str) -> None:
    assert _shot(snap_compare, _wallet(kind), size)


def test_wallet_without_colours(snap_compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert _shot(snap_compare, _wallet("loaded"), "120x40")


@pytest.mark.parametrize("key", ["Q", "enter"])
def test_wallet_dialog(snap_compare: Any, key: str) -> None:
    async def then(pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)

    assert _shot(snap_compare, _wallet("loaded"), "80x24", then)


def _newcomer() -> ComputeSwarmApp:
    wallet = FakeWallet((), address="")
    wallet.held = FundsItem(0, 0)
    return _app(wallet, welcomed=False, address="")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", ["welcome", "password", "key", "money", "sell"])
def test_newcomer(snap_compare: Any, step: str, size: str) -> None:
    async def then(pilot: Pilot[None]) -> None:
        async def shown(selector: str) -> None:
            await until(pilot, lambda: bool(pilot.app.screen.query(selector)), selector)

        await shown("#welcome-buy")
        if step == "sell":
            await pilot.press("s")
        if step in ("password", "key", "money"):
            await pilot.press("b")
            await shown("#new-password")
        if step == "key":
            await pilot.press("ctrl+t")
        if step in ("password", "money"):
            pilot.app.screen.query_one("#new-password", Input).value = "correct horse"
        if step == "money":
            pilot.app.screen.query_one("#new-again", Input).value = "correct horse"
            pilot.app.screen.query_one("#new-again").focus()
            await pilot.press("enter")
            await shown("#qr-address")
            header = pilot.app.screen_stack[0].query_one("#wallet-text", Static)
            await until(pilot, lambda: "0.00 USDC" in str(header.render()), "its balance")

    assert _shot(snap_compare, _newcomer(), size, then)
