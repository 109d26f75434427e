"""Money is spent only where somebody says so, once, and by what the dialog shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.widgets import Button
from tui_drive import buyer_screen, example, make_app, settled, until
from tui_fake import NOW, FakeBuyer, FixedClock, job

from computeswarm.core.errors import NoNodeFits
from computeswarm.core.states import JobState
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.views import REFUSED
from computeswarm.tui.widgets.job_pane import state_of
from computeswarm.tui.widgets.log_view import LogView

SIZE = (120, 40)


async def test_the_first_example_is_bought_with_enter_and_p(tmp_path: Path) -> None:
    buyer = FakeBuyer(jobs=[])
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay", Button).disabled)
        assert app.focused is app.screen.query_one("#cancel")
        await pilot.press("p", "p")
        await until(pilot, lambda: buyer_screen(pilot).selected_job is not None)
        assert buyer.bought == ["offer-1"]
        await until(pilot, lambda: isinstance(app.focused, LogView))
        await until(pilot, lambda: app.focused.buffer.end == len(buyer.lines))  # type: ignore[union-attr]


async def test_enter_in_the_payment_dialog_cancels(tmp_path: Path) -> None:
    buyer = FakeBuyer()
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay", Button).disabled)
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, PaymentModal))
    assert buyer.bought == []


async def test_an_expired_quote_cannot_be_paid(tmp_path: Path) -> None:
    buyer, clock = FakeBuyer(), FixedClock()
    app = make_app(buyer, example=example(tmp_path), clock=clock)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay", Button).disabled)
        clock.time = NOW + 300
        await until(pilot, lambda: app.screen.query_one("#pay", Button).disabled)
        await pilot.press("p")
    assert buyer.bought == []


async def test_leaving_the_dialog_while_paying_still_starts_the_job(tmp_path: Path) -> None:
    buyer = FakeBuyer(jobs=[])
    buyer.slow_buy = asyncio.Event()
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(pilot, lambda: not app.screen.query_one("#pay", Button).disabled)
        await pilot.press("p")
        await until(pilot, lambda: buyer.bought)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, PaymentModal))
        buyer.slow_buy.set()
        await until(pilot, lambda: len(buyer_screen(pilot).jobs) == 1)


async def test_no_fitting_node_is_said_and_nothing_can_be_paid(tmp_path: Path) -> None:
    buyer = FakeBuyer()
    buyer.offer_fault = NoNodeFits("Ask for less.")
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "enter")
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))
        await until(
            pilot,
            lambda: "No node fits" in str(app.screen.query_one("#pay-text").visual),  # type: ignore[attr-defined]
        )
        assert not app.screen.query_one("#pay").display
        await pilot.press("p", "enter")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
    assert buyer.bought == []


@pytest.mark.parametrize(("step", "followed"), [("", True), (REFUSED, False)])
async def test_a_purchase_that_was_refused_is_not_carried_on_by_itself(
    step: str, followed: bool
) -> None:
    old = job(0, state=JobState.AWAITING_PAYMENT, created_at=NOW - 500, step=step)
    app = make_app(FakeBuyer(jobs=[old]))
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, BuyerScreen) and app.screen.jobs)
        screen = buyer_screen(pilot)
        await until(pilot, lambda: not followed or old.job_id in screen._followed)
        assert (old.job_id in screen._followed) is followed
        assert ("refused" in state_of(screen.jobs[0])[0]) is not followed
