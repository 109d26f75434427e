"""What the filter proposes, and the words of the app's own in it."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input
from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FakeBuyer

from computeswarm.tui.searching import queries, split, without_sort
from computeswarm.tui.widgets.filter_bar import FilterBar

SIZE = (120, 40)


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
