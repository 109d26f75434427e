"""Every key does what the keymap says; its dialogs and the seller's have files of their own."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tui_drive import buyer_screen, example, make_app, settled, until
from tui_fake import FLEET, JOBS, FakeBuyer
from tui_fake_seller import FakeSeller

from computeswarm.core.errors import MarketUnavailable
from computeswarm.core.states import JobState
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backend import Backends
from computeswarm.tui.keymap import KEYS, Key
from computeswarm.tui.modals.files import FilesModal
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.receipt import ReceiptModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.screens.wallet import WalletScreen
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.header import Header
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.table import Table

SIZE = (120, 40)
OWNERS = {
    "app": (BuyerScreen, SellerScreen, WalletScreen),
    "buyer": (BuyerScreen,),
    "seller": (SellerScreen,),
    "wallet": (WalletScreen,),
    "table": (Table,),
    "log": (LogView,),
    "wizard": (WizardModal,),
    "files": (FilesModal,),
    "pay": (PaymentModal,),
}
"""By place: the screens and widgets that bind its keys."""


def test_every_key_has_its_own_id() -> None:
    ids = [(key.where, key.id) for key in KEYS]
    assert len(set(ids)) == len(ids)
    for where in ("app", "buyer", "seller", "log"):
        keys = [k for key in KEYS if key.where in (where, "app") for k in key.keys.split(",")]
        assert len(set(keys)) == len(keys), where


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.where}.{key.id}")
def test_every_key_does_something(key: Key) -> None:
    action = re.sub(r"^app\.|\(.*", "", key.action)
    owners = (ComputeSwarmApp,) if key.action.startswith("app.") else OWNERS[key.where]
    for owner in owners:
        assert callable(getattr(owner, f"action_{action}", None)), (owner, action)


async def test_sort_filter_and_the_cursor_stay_on_their_node() -> None:
    buyer = FakeBuyer()
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        await pilot.press("j", "j", "j")
        held = screen.selected_node
        await pilot.press("S")
        await until(pilot, lambda: buyer.asked[-1] == ("", "-price"))
        table = screen.query_one("#nodes")
        await until(pilot, lambda: table.rows[0].price == max(n.price for n in FLEET))  # type: ignore[attr-defined]
        assert screen.selected_node == held
        await pilot.press("s")
        await until(pilot, lambda: buyer.asked[-1][1] != "-price")
        await pilot.press("slash", *"gpu:a100")
        await until(pilot, lambda: buyer.asked[-1][0] == "gpu:a100")
        await until(pilot, lambda: all("A100" in n.title for n in table.rows))  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: buyer.asked[-1][0] == "")
        assert table.has_focus


async def test_a_wrong_query_is_explained_and_not_sent() -> None:
    buyer = FakeBuyer()
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("slash")
        # in one go: a slow machine would ask for its beginning, which is no wrong query
        app.screen.query_one(FilterBar).fill("vrom>=24")
        await until(pilot, lambda: app.screen.query("FilterBar.-wrong"))
        assert "vrom" in str(app.screen.query_one("#filter-error").visual)  # type: ignore[attr-defined]
        assert all(query == "" for query, _ in buyer.asked)


async def test_cancel_asks_first_and_a_dead_key_says_why() -> None:
    buyer = FakeBuyer()
    app = make_app(buyer)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await settled(pilot)
        await pilot.press("x", "enter")
        assert buyer.cancelled == []
        await pilot.press("x", "right", "enter")
        await until(pilot, lambda: buyer.cancelled == [JOBS[0].job_id])
        buyer_screen(pilot).query_one("#jobs").select(JOBS[2].job_id)  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("x")
        await until(pilot, lambda: any("has ended" in n.message for n in app._notifications))


async def test_the_end_of_a_job_is_told_with_its_receipt() -> None:
    buyer = FakeBuyer()
    app = make_app(buyer)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await settled(pilot)
        buyer.hold.set()
        await until(pilot, lambda: any("is done" in n.title for n in app._notifications))
        assert buyer_screen(pilot).jobs[0].state is JobState.SUCCEEDED
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ReceiptModal))


async def test_a_receipt_waits_for_the_refunds_transaction() -> None:
    buyer = FakeBuyer(jobs=[JOBS[3]])
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ReceiptModal))
        text: Any = app.screen.query_one("#receipt-text")
        assert "owed" in str(text.visual)
        buyer.refund_sent = True
        await until(pilot, lambda: "refund" in str(text.visual) and "owed" not in str(text.visual))


async def test_log_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(FakeBuyer())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("l")
        log = app.screen.query_one("#log", LogView)
        assert log.follow and log.has_focus
        await pilot.press("k")
        await until(pilot, lambda: not log.follow)
        await pilot.press("f", "w")
        assert log.follow and log.wrap
        await pilot.press("slash", *"EPOCH 12", "enter")
        await until(pilot, lambda: log.match is not None)
        assert "epoch 12/40" in log.buffer[log.match].text  # type: ignore[index]
        await pilot.press("escape")
        assert log.needle == ""
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen.query("#save-path"))
        await pilot.press("enter")
        await until(pilot, lambda: list(tmp_path.glob("*.log")))
        assert "epoch 37/40" in next(tmp_path.glob("*.log")).read_text()


async def test_zoom_and_back() -> None:
    app = make_app(FakeBuyer())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("l", "z")
        await pilot.pause()
        assert app.screen.query_one("#log-pane").size.height > 18
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.query_one("#node-pane").size.height > 0


async def test_modes_switch_and_keep_the_cursor() -> None:
    app = make_app(FakeBuyer(), FakeSeller())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("j", "j")
        held = buyer_screen(pilot).selected_node
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, SellerScreen) and app.screen.status)
        await pilot.press("1")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
        assert buyer_screen(pilot).selected_node == held


async def test_quit_asks_while_a_job_runs() -> None:
    app = make_app(FakeBuyer())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("q")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("escape")
        await pilot.pause()
        assert app.is_running and len(app.screen_stack) == 1
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("right", "enter")
        await until(pilot, lambda: app._exit)


async def test_it_reconnects_by_itself_and_says_so() -> None:
    buyer = FakeBuyer(jobs=[])
    tries: list[int] = []

    async def connect() -> Backends:
        tries.append(1)
        if len(tries) == 1:
            raise MarketUnavailable("The market does not answer.")
        return Backends(buyer)

    app = make_app(connect=connect)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: tries)
        await settled(pilot)
        await until(pilot, lambda: app.screen.query_one(Header).link.state == "live")
        buyer.fault = MarketUnavailable("The market does not answer.")
        await until(pilot, lambda: app.screen.query_one(Header).link.state == "offline")
        assert len(buyer_screen(pilot).query_one("#nodes").rows) == len(FLEET)  # type: ignore[attr-defined]
        buyer.fault = None
        await until(pilot, lambda: any("again" in n.message for n in app._notifications))
        await until(pilot, lambda: app.screen.query_one(Header).link.state == "live")
    assert buyer.closed


async def test_no_wallet_can_look_but_not_buy() -> None:
    app = make_app(FakeBuyer(address="", jobs=[]))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await settled(pilot)
        await pilot.press("n")
        await until(pilot, lambda: any("wallet new" in n.message for n in app._notifications))
        assert len(app.screen_stack) == 1


async def test_help_is_searchable() -> None:
    app = make_app(FakeBuyer())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("question_mark", *"receipt")
        await pilot.pause()
        text = str(app.screen.query_one("#help-text").visual)  # type: ignore[attr-defined]
        assert "receipt" in text and "Zoom" not in text


async def test_a_locked_wallet_is_opened_when_it_is_needed(tmp_path: Path) -> None:
    buyer = FakeBuyer(jobs=[])
    buyer.identity = replace(buyer.identity, locked=True)
    buyer.password = "right"
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n")
        await until(pilot, lambda: app.screen.query("#unlock-password"))
        await pilot.press(*"wrong", "enter")
        await until(
            pilot, lambda: "does not open" in str(app.screen.query_one("#unlock-note").visual)
        )  # type: ignore[attr-defined]
        await pilot.press(*"right", "enter")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))


def test_a_bare_terminal_gets_the_text_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from computeswarm.tui.modals.copy import takes_osc52

    monkeypatch.setenv("TERM", "linux")
    assert not takes_osc52(object())
    monkeypatch.setitem(os.environ, "TERM", "xterm-256color")
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    driver: Any = object()
    assert takes_osc52(driver)
