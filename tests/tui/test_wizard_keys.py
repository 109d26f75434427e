"""The wizard by its keys: what stops it, keys in a burst, the ways to pay."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input
from tui_drive import buyer_screen, example, make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.tui.draft import ExampleJob, JobDraft
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.wizard import WizardModal

SIZE = (120, 40)


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


def test_an_example_is_named_from_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside, outside = ExampleJob(tmp_path / "a" / "b.py"), ExampleJob(Path("/elsewhere/b.py"))
    assert JobDraft.from_example(inside).script == "a/b.py"
    assert JobDraft.from_example(outside).script == "/elsewhere/b.py"


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
