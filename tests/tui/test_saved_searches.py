"""Searches that are saved, applied and deleted."""

from __future__ import annotations

from textual.widgets import Input
from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.tui.modals.searches import SearchesModal
from computeswarm.tui.widgets.filter_bar import FilterBar

SIZE = (120, 40)


async def test_a_search_is_saved_applied_and_deleted() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        bar = screen.query_one(FilterBar)
        bar.fill("gpu:a100")
        await until(pilot, lambda: screen.query_text == "gpu:a100")
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, SearchesModal))
        await pilot.press("s")
        app.screen.query_one(Input).value = "big"
        await pilot.press("enter")
        await until(pilot, lambda: [s.name for s in app.memory.searches] == ["big"])
        await pilot.press("escape")
        bar.clear()
        await until(pilot, lambda: screen.query_text == "")
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, SearchesModal))
        await pilot.press("enter")
        await until(pilot, lambda: screen.query_text == "gpu:a100")
        assert bar.text == "gpu:a100"
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, SearchesModal))
        await pilot.press("x")
        assert not app.memory.searches
        await pilot.press("x")  # a suggestion stays
        assert app.screen.query_one("#searches").rows  # type: ignore[attr-defined]
