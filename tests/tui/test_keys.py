"""Every key does what the keymap says, and money is spent only where it should be."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.widgets import Button, Input
from tui_drive import buyer_screen, example, make_app, seller_screen, settled, until
from tui_fake import FLEET, JOBS, NOW, FakeBuyer, FixedClock, job
from tui_fake_seller import FakeSeller, seller_status

from computeswarm.core.errors import MarketUnavailable, NoNodeFits, SellerUnavailable
from computeswarm.core.states import JobState
from computeswarm.tui.backend import Backends
from computeswarm.tui.draft import ExampleJob, JobDraft
from computeswarm.tui.keymap import KEYS
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.receipt import ReceiptModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.views import REFUSED
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.header import Header
from computeswarm.tui.widgets.job_pane import state_of
from computeswarm.tui.widgets.log_view import LogView

SIZE = (120, 40)


def test_every_key_has_its_own_id() -> None:
    ids = [(key.where, key.id) for key in KEYS]
    assert len(set(ids)) == len(ids)
    for where in ("app", "buyer", "seller", "log"):
        keys = [k for key in KEYS if key.where in (where, "app") for k in key.keys.split(",")]
        assert len(set(keys)) == len(keys), where


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


async def test_wizard_stops_at_what_is_wrong_and_keeps_the_draft() -> None:
    app = make_app(FakeBuyer())
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        await pilot.press(*"nosuch.py", "enter", "enter")
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        assert wizard.step == 0
        assert "no such file" in str(wizard.query_one("#problem-script").visual)  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, WizardModal))
        assert app.screen.query_one("#field-script", Input).value == "nosuch.py"


async def test_keys_that_come_in_a_burst_count_in_their_order(tmp_path: Path) -> None:
    app = make_app(FakeBuyer(), example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", *["escape"] * 3)
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        assert wizard.step == 1
        await pilot.press(*"gpu:p2")
        burst = ["backspace", "backspace", "4", "0", "backspace", "enter", "x", "enter", "enter"]
        for key in burst:  # all at once, as a terminal sends what was typed fast
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await until(pilot, lambda: wizard.draft.inputs == "x")
        assert wizard.draft.query == "gpu:4"
        await until(pilot, lambda: app.focused is wizard.query_one("#field-inputs"))
        assert wizard.step == 2
        assert "x does not exist" in str(wizard.query_one("#problem-inputs").visual)  # type: ignore[attr-defined]
        app.post_message(events.Key("backspace", None))
        app.post_message(events.Key("enter", "\r"))
        app.post_message(events.Key("enter", "\r"))
        app.post_message(events.Key("enter", "\r"))
        await until(pilot, lambda: isinstance(app.screen, PaymentModal))


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


def test_an_example_is_named_from_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside, outside = ExampleJob(tmp_path / "a" / "b.py"), ExampleJob(Path("/elsewhere/b.py"))
    assert JobDraft.from_example(inside).script == "a/b.py"
    assert JobDraft.from_example(outside).script == "/elsewhere/b.py"


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


def test_the_command_line_of_a_draft_is_quoted() -> None:
    draft = JobDraft(script="my job.py", inputs="'a b.csv' c.csv", args="--n 3", node_id="nd-1")
    assert draft.command_line() == (
        "computeswarm run 'my job.py' --node nd-1 --gpus 0 --budget 0.50 --max-time 10m"
        " --input 'a b.csv' --input c.csv -- --n 3"
    )


async def test_the_wizard_goes_through_the_ways_to_pay(tmp_path: Path) -> None:
    buyer = FakeBuyer()
    app = make_app(buyer, example=example(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("n", "escape", "tab")
        wizard = app.screen
        assert isinstance(wizard, WizardModal)
        field = wizard.query_one("#field-pay", Input)
        await until(pilot, lambda: app.focused is field)
        await pilot.press("down")
        assert field.value == "channel"
        await pilot.press("down", "up", "s", "enter")
        assert "slices or channel" in str(wizard.query_one("#problem-pay").visual)  # type: ignore[attr-defined]
        await pilot.press("down", "up", "enter")
        await until(pilot, lambda: wizard.step == 4)
        assert "--pay channel" in wizard.draft.command_line()
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is not wizard and app.screen.query("#pay-text"))
        await until(
            pilot,
            lambda: "every 2 s by voucher" in str(app.screen.query_one("#pay-text").visual),  # type: ignore[attr-defined]
        )


def test_a_bare_terminal_gets_the_text_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from computeswarm.tui.modals.copy import takes_osc52

    monkeypatch.setenv("TERM", "linux")
    assert not takes_osc52(object())
    monkeypatch.setitem(os.environ, "TERM", "xterm-256color")
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    driver: Any = object()
    assert takes_osc52(driver)


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
