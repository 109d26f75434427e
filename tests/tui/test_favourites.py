"""Marking nodes, and listing only those; what nothing beats is marked by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual.widgets import Input
from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer, node

from computeswarm.core.errors import MarketUnavailable
from computeswarm.tui.marks import compare, verdict
from computeswarm.tui.memory import Memory
from computeswarm.tui.modals.searches import SearchesModal
from computeswarm.tui.searching import queries, split, without_sort
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.node_pane import NodePane

SIZE = (120, 40)


async def test_f_marks_a_node_and_the_filter_lists_the_marked(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "terminal.json")
    app = make_app(FakeBuyer(jobs=[]), memory=memory)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        await pilot.press("j", "f")
        marked = screen.selected_node
        assert marked is not None
        assert memory.favourites == {marked.node_id}
        line = "".join(s.text for s in screen.query_one(NodePane).table.render_line(2))
        assert "♥" in line
        assert f"{marked.rel / 10_000:.1f}".removesuffix(".0") in line
        screen.query_one(FilterBar).fill("is:favourite")
        table = screen.query_one(NodePane).table
        await until(pilot, lambda: [row.node_id for row in table.rows] == [marked.node_id])
        await pilot.press("f")  # the mark is taken off again
        await until(pilot, lambda: not table.rows, "none is left")
        assert not Memory(tmp_path / "terminal.json").favourites


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


async def test_tab_takes_what_is_proposed_and_else_goes_on() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        bar = buyer_screen(pilot).query_one(FilterBar)
        await pilot.press("slash")
        field: Any = bar.query_one(Input)
        field.value = "is:fav"
        field.cursor_position = 6
        await until(pilot, lambda: field._suggestion == "is:favourite")
        assert bar.has_class("-words")
        await pilot.press("tab")
        assert bar.text == "is:favourite"
        assert field.has_focus
        await until(pilot, lambda: not field._suggestion)
        await pilot.press("tab")
        await until(pilot, lambda: not field.has_focus)


async def test_prices_come_when_the_cursor_rests_or_say_why_not() -> None:
    buyer = FakeBuyer(jobs=[])
    buyer.prices_fault = MarketUnavailable("This market keeps no history of its prices.")
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        shown: Any = screen.query_one("#detail-text")
        await until(pilot, lambda: "keeps no history" in str(shown.visual))
        buyer.prices_fault = None
        table = screen.query_one(NodePane).table
        place = next(i for i, row in enumerate(table.rows) if row.model == "RTX 4090")
        table.cursor = place
        await until(pilot, lambda: "median" in str(shown.visual), "its prices")
        asked = buyer.trends_asked.count("RTX 4090")
        table.cursor = 0
        table.cursor = place
        await until(pilot, lambda: screen.trends.fresh("RTX 4090"))
        assert buyer.trends_asked.count("RTX 4090") == asked == 1


def test_who_beats_a_node_is_named() -> None:
    good = node(0, status="idle", price=300_000)
    worse = node(0, node_id="nd-" + "1" * 12, status="idle", price=400_000)
    away = node(0, node_id="nd-" + "2" * 12, status="offline", price=100_000)
    marks = compare([worse, good, away])
    assert marks.best == {good.node_id}
    assert verdict(worse, marks) == f"fra-01 ({good.node_id}) is cheaper, else as good"
    assert verdict(away, marks) == "not compared: it is offline"
    assert "none of 1 others" in verdict(good, marks)


def test_words_of_our_own_keep_the_others_where_they_are() -> None:
    rest, marked = split('gpu:4090 is:favourite "is:favourite" x')
    assert marked
    assert rest == 'gpu:4090              "is:favourite" x'
    assert split("this:favourite") == ("this:favourite", False)
    assert without_sort("gpu:4090 sort:-price idle").split() == ["gpu:4090", "idle"]
    ids = [f"nd-{number:012x}" for number in range(200)]
    asked = queries("gpu:4090", ids)
    assert sum(query.count("|") for query in asked) >= 190
    assert all(len(query) <= 500 for query in asked)
    assert "offline" not in queries("idle", ids[:1])[0]
