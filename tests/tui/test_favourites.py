"""Favourites: marked by f, listed by the filter."""

from __future__ import annotations

from pathlib import Path

from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.tui.memory import Memory
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
