"""The log on the screen: whatever a job writes, the app goes on answering."""

from __future__ import annotations

import asyncio

from textual.app import App, ComposeResult
from tui_steps import until

from computeswarm.tui.logbuffer import LogBuffer, fold
from computeswarm.tui.views import LogLine
from computeswarm.tui.widgets.log_view import LogView

HOSTILE = "漢x́" * 660
"""As long as a line may be, and of the kind that takes longest to fold."""


class Alone(App[None]):
    def compose(self) -> ComposeResult:
        yield LogView()


async def test_lines_that_take_long_to_fold_hold_nobody_up() -> None:
    app = Alone()
    async with app.run_test(size=(60, 20)) as pilot:
        view = app.query_one(LogView)
        buffer = LogBuffer()
        buffer.extend(LogLine(f"{n} {HOSTILE}") for n in range(600))
        view.show(buffer)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(others())
        view.wrap = True
        folded = len({number for number, _ in view._rows})
        assert folded < 600  # not all at once
        await until(pilot, lambda: view._end == buffer.end)
        task.cancel()
        assert turns > 20
        room = view._room()
        whole = [(n, piece) for n in range(600) for piece in fold(buffer[n].text, room)]
        assert view._rows == whole
        assert view.is_vertical_scroll_end  # it followed all the while


async def test_lines_that_fall_out_before_they_were_folded_are_left_out() -> None:
    app = Alone()
    async with app.run_test(size=(60, 20)) as pilot:
        view = app.query_one(LogView)
        view.wrap = True
        buffer = LogBuffer(max_lines=300)
        view.show(buffer)
        for begin in range(0, 900, 150):
            buffer.extend(LogLine(f"{n} {HOSTILE}") for n in range(begin, begin + 150))
            view.grew()
        await until(pilot, lambda: view._end == buffer.end)
        held = {number for number, _ in view._rows}
        assert held == set(range(buffer.first, buffer.end))
