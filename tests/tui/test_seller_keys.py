"""Seller mode's keys, and a seller that comes and goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input
from tui_drive import make_app, seller_screen, settled, until
from tui_fake import FakeBuyer
from tui_fake_seller import FakeSeller, seller_status

from computeswarm.core.errors import SellerUnavailable
from computeswarm.tui.backend import Backends
from computeswarm.tui.widgets.header import Header

SIZE = (120, 40)


async def test_seller_keys() -> None:
    seller = FakeSeller()
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("o")
        await until(pilot, lambda: seller.state.paused)
        await until(pilot, lambda: seller_screen(pilot).status.paused)  # type: ignore[union-attr]
        await pilot.press("o")
        await until(pilot, lambda: not seller.state.paused)
        await pilot.press("p")
        await until(pilot, lambda: app.screen.query("#price-note"))
        await pilot.press(*"0.55", "enter")
        await until(pilot, lambda: seller.state.price == 550_000)
        await pilot.press("x", "enter")
        assert seller.evicted == []
        await pilot.press("x", "right", "enter")
        await until(pilot, lambda: len(seller.evicted) == 1)


async def test_a_suggested_price_is_set_by_nobody_but_the_owner() -> None:
    seller = FakeSeller()
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("p")
        await until(pilot, lambda: app.screen.query("#price-advice"))
        assert "Suggested: 0.41" in str(app.screen.query_one("#price-advice").visual)  # type: ignore[attr-defined]
        await pilot.press("up")
        await until(pilot, lambda: app.screen.query_one(Input).value == "0.41")
        assert seller.state.price == 380_000
        await pilot.press("enter")
        await until(pilot, lambda: seller.state.price == 410_000)


async def test_drain_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seller = FakeSeller()
    app = make_app(FakeBuyer(), seller, mode="seller")
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("d")
        await until(pilot, lambda: seller_screen(pilot).status.mood == "draining")  # type: ignore[union-attr]
        await pilot.press("d")
        await until(pilot, lambda: seller_screen(pilot).status.mood == "taking")  # type: ignore[union-attr]
        await pilot.press("e")
        await until(pilot, lambda: app.screen.query("#save-path"))
        await pilot.press("enter")
        saved = tmp_path / "earnings-2025-11-25.csv"
        await until(pilot, saved.exists)
        assert saved.read_bytes() == b"by,key\r\nday,2025-11-25\r\n"


async def test_a_seller_that_dies_is_said_and_can_not_be_ordered_about() -> None:
    seller = FakeSeller(seller_status(real_money=True))
    seller.fault = SellerUnavailable("The seller does not answer.")
    app = make_app(FakeBuyer(real_money=True), seller, mode="seller")
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = seller_screen(pilot)
        assert screen.query_one(Header).alarm == "REAL MONEY"  # also before its first answer
        seller.fault = None
        await until(pilot, lambda: screen.query_one(Header).link.state == "live")
        seller.fault = SellerUnavailable("The seller does not answer.")
        await until(pilot, lambda: screen.query_one(Header).link.state == "offline")
        foot = str(screen.query_one("#event-pane").border_subtitle)
        assert "does not answer" in foot and "by itself" in foot
        await pilot.press("o")
        assert not seller.state.paused and "does not answer" in screen.refusal("price")
        seller.fault = None
        await until(pilot, lambda: screen.query_one(Header).link.state == "live")
        assert screen.refusal("price") == ""


async def test_a_seller_that_starts_later_shows_up() -> None:
    found: list[FakeSeller] = []
    backends = Backends(FakeBuyer(), attach=lambda: found[0] if found else None)

    async def connect() -> Backends:
        return backends

    app = make_app(connect=connect, mode="seller")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.screen.has_class("-no-seller"))
        found.append(FakeSeller())
        await until(pilot, lambda: seller_screen(pilot).status is not None)
        assert not app.screen.has_class("-no-seller")
