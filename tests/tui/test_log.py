"""The log's buffer and its folding; the table with many rows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from computeswarm.tui.logbuffer import LogBuffer, fold
from computeswarm.tui.views import LogLine
from computeswarm.tui.widgets.table import Column, Table


@given(st.text(max_size=300), st.integers(min_value=2, max_value=80))
def test_folded_pieces_fit_and_lose_nothing(text: str, width: int) -> None:
    pieces = fold(text, width)
    assert "".join(pieces) == text
    assert all(cell_len(piece) <= width for piece in pieces)


def test_the_buffer_keeps_the_newest_lines_and_their_numbers() -> None:
    buffer = LogBuffer(max_lines=2_000)
    for start in range(0, 5_000, 100):
        buffer.extend(LogLine(f"line {n}") for n in range(start, start + 100))
    assert buffer.end == 5_000
    assert len(buffer.lines) <= 2_000
    assert buffer[4_999].text == "line 4999"
    assert buffer[buffer.first].text == f"line {buffer.first}"
    assert buffer.find("LINE 4990", buffer.end - 1, -1) == 4_990
    assert buffer.find("nowhere", buffer.first, 1) is None


class Rows(App[None]):
    def compose(self) -> ComposeResult:
        columns: tuple[Column[int], ...] = (Column("N", 8, lambda n: (str(n), "")),)
        yield Table[int](columns, str)


async def test_a_hundred_thousand_rows_are_set_at_once() -> None:
    app = Rows()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one(Table)
        table.set_rows(range(10))
        await pilot.pause()
        began = time.perf_counter()
        table.set_rows(range(10))
        few = time.perf_counter() - began
        began = time.perf_counter()
        table.set_rows(range(100_000))
        many = time.perf_counter() - began
        assert many < max(0.05, few * 50)
        table.focus()
        await pilot.press("G")
        assert table.current == 99_999
        await pilot.pause()
        assert "99999" in table.render_line(table.size.height - 1).text


async def test_the_cursor_stays_on_its_row_when_rows_move() -> None:
    app = Rows()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one(Table)
        table.set_rows([1, 2, 3, 4])
        table.select("3")
        table.set_rows([9, 8, 3, 7])
        assert table.current == 3
        table.set_rows([7, 3])
        assert table.current == 3
        table.set_rows([])
        assert table.current is None
        await pilot.pause()


@pytest.mark.parametrize(
    "line",
    ["Traceback (most recent call last):", "ValueError: no", "torch.cuda.OutOfMemoryError: CUDA",
     "main.c:3: error: expected ';'", "ERROR: it broke", "Killed", "Segmentation fault",
     "fatal: not a git repository"],
)  # fmt: skip
def test_lines_that_tell_of_an_error(line: str) -> None:
    buffer = LogBuffer()
    fine = ["epoch 3 error_rate 0.02", "0 errors so far", "terror", "mean absolute error 0.3"]
    buffer.extend(LogLine(text) for text in [*fine, line, "and on"])
    assert buffer.find_error(0) == len(fine)
    assert buffer.find_error(len(fine) + 1) is None
