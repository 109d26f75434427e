"""What is said of a node: its price over time, and what beats it."""

from __future__ import annotations

from typing import Any

from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer, node

from computeswarm.core.errors import MarketUnavailable
from computeswarm.tui.marks import compare, verdict
from computeswarm.tui.widgets.node_pane import NodePane

SIZE = (120, 40)


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
