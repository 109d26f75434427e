"""Looking through more nodes than one page holds, and narrowing what is found."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input, Static
from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer, node

from computeswarm.core.errors import MarketUnavailable
from computeswarm.core.pages import FacetCount, Facets
from computeswarm.core.query import parse
from computeswarm.tui.backends.market_mapping import facet_items
from computeswarm.tui.modals.facets import FacetsModal
from computeswarm.tui.roster import Ask, Roster
from computeswarm.tui.screens.buyer_pages import NODES_EVERY, PAGE_NODES
from computeswarm.tui.views import Gap, NodePage
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.node_pane import NodePane

SIZE = (120, 40)
MANY = tuple(node(number) for number in range(250))


async def test_the_list_goes_on_and_its_end_is_one_key_away() -> None:
    buyer = FakeBuyer(MANY, jobs=[])
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        table = screen.query_one(NodePane).table
        assert len(table.rows) == PAGE_NODES
        assert "1 of 250" in str(screen.query_one(NodePane).border_subtitle)
        await pilot.press("G")
        await until(pilot, lambda: table.cursor == 2 * PAGE_NODES, "the end")
        assert isinstance(table.rows[PAGE_NODES], Gap)
        assert table.rows[PAGE_NODES].missing == 50
        last = max(MANY, key=lambda n: (n.price, n.node_id))
        assert screen.selected_node == last
        assert "250 of 250" in str(screen.query_one(NodePane).border_subtitle)
        table.cursor = PAGE_NODES - 1
        await until(pilot, lambda: len(table.rows) == len(MANY), "what lay between")
        assert len({row.node_id for row in table.rows}) == len(MANY)
        await pilot.press("s")
        ends = [screen.order.removeprefix("-"), len(table.rows)]
        assert ends == ["cost", len(MANY)]  # all are here: they turn at once


async def test_a_long_list_is_asked_for_page_by_page_where_somebody_looks() -> None:
    buyer = FakeBuyer(MANY, jobs=[])
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        table = screen.query_one(NodePane).table
        await pilot.press("G")
        await until(pilot, lambda: table.cursor == 2 * PAGE_NODES, "the end")
        assert max(buyer.limits) == PAGE_NODES
        assert screen._polls["nodes"].period == NODES_EVERY
        asks = screen.roster.due(*table.in_view)
        assert len(asks) == 2  # the first, which counts, and the one in view


async def test_a_count_narrows_the_filter() -> None:
    buyer = FakeBuyer(jobs=[])
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, FacetsModal))
        shown = [str(row.word) for row in app.screen.query_one("#facets").rows]  # type: ignore[attr-defined]
        await pilot.press("down", "enter")
        bar = buyer_screen(pilot).query_one(FilterBar)
        await until(pilot, lambda: bar.text == shown[1], "the word in the filter")
        await until(pilot, lambda: buyer.asked[-1][0] == shown[1], "its answer")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, FacetsModal))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is buyer_screen(pilot))
        assert bar.text == shown[1]
        await pilot.press("slash", "space", *"idle", "enter")
        assert bar.text == f"{shown[1]} idle"  # what is typed comes after it
        buyer.fault = MarketUnavailable("This market doesn't count its nodes; list them instead.")
        await pilot.press("c")
        await until(pilot, lambda: app._notifications)


async def test_typing_is_completed_with_the_values_there_are() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        await pilot.press("slash")
        bar = buyer_screen(pilot).query_one(FilterBar)
        await until(pilot, lambda: "region" in bar.known)
        await pilot.press(*"region:eu-w")
        field = bar.query_one(Input)
        await until(pilot, lambda: field._suggestion == "region:eu-waw")
        await pilot.press("right")
        assert bar.text == "region:eu-waw"


async def test_the_mark_stands_below_the_wrong_word_of_a_long_query() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        bar = screen.query_one(FilterBar)
        await pilot.press("slash")
        bar.fill("gpu:4090 " * 12 + "名前 vrma>=24")
        field = bar.query_one(Input)
        await until(pilot, lambda: bar.has_class("-wrong"))
        await pilot.press("home", "end")
        await until(pilot, lambda: field.scroll_x > 0)
        bar._ask()  # as it stands now, at its end
        await pilot.pause()
        shown: Any = bar.query_one("#filter-error").visual
        mark = str(shown).splitlines()[0]
        assert mark.count("▔") == 4
        assert 0 < mark.index("▔") < field.size.width


async def test_the_filters_own_order_is_marked() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        screen.query_one(FilterBar).fill("sort:-region")
        table = screen.query_one(NodePane).table
        await until(pilot, lambda: (table.sort_key, table.descending) == ("region", True))
        await pilot.press("escape")
        screen.query_one(FilterBar).clear()
        await until(pilot, lambda: table.sort_key == "price")


def test_counts_become_words_of_the_language() -> None:
    hostile = 'x" offline [red]\x1b[2J'
    facets = Facets(
        total=9,
        model=tuple(
            FacetCount(value=value, nodes=1)
            for value in ("NVIDIA GeForce RTX 4090", "A100 + T4", "cpu", hostile, "!!")
        ),
        region=(FacetCount(value="", nodes=2), FacetCount(value="eu-fra", nodes=7)),
        network=(FacetCount(value="no", nodes=9),),
    )
    items = facet_items(facets)
    words = [item.word for item in items]
    assert words[:3] == ['gpu:"RTX 4090"', "gpu:A100", "cpu"]
    assert words[4:] == ["region:eu-fra", "network:no"]
    for item in items:
        (term,) = parse(item.word).terms
        assert term.field in (item.field, "gpus")
        assert "\x1b" not in item.label


async def test_the_keys_sort_by_the_columns_in_view() -> None:
    buyer = FakeBuyer(jobs=[])
    app = make_app(buyer)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        table = buyer_screen(pilot).query_one(NodePane).table
        seen = []
        for _ in range(len(table.sorts)):
            await pilot.press("s")
            seen.append(table.sort_key)
        assert sorted(seen) == sorted(table.sorts)  # each once, then round again
        assert seen[-1] == "price"
        await until(pilot, lambda: buyer.asked[-1][1] == "price")


async def test_a_list_that_is_all_here_is_its_own_count() -> None:
    app = make_app(FakeBuyer(jobs=[]))
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        pane = buyer_screen(pilot).query_one(NodePane)
        count = pane.query_one("#filter-count", Static)
        roster = Roster()
        roster.take(Ask("top", 0), NodePage(MANY, total=9_999, next="250"))
        roster.arrange()
        pane.load(roster, "")
        assert "250 here of 9,999 listed" in str(count.visual)
        roster.take(Ask("top", 0), NodePage(MANY, total=9_999))
        roster.arrange()
        pane.load(roster, "")
        assert str(count.visual).strip() == "250 listed"
