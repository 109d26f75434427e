"""An address as a QR code: its own modules are drawn, dark on light, in a quiet zone."""

from __future__ import annotations

import pytest
import segno
from rich.color import Color
from rich.segment import Segment
from textual.app import App, ComposeResult
from tui_fake import BUYER, WALLET

from computeswarm.tui.theme import THEMES
from computeswarm.tui.widgets.qr import QUIET, QrCode, qr_matrix

HALVES = {"█": (True, True), "▀": (True, False), "▄": (False, True), " ": (False, False)}


class Shown(App[None]):
    def __init__(self, address: str, theme: str) -> None:
        super().__init__()
        for known in THEMES:
            self.register_theme(known)
        self.theme = theme
        self._address = address

    def compose(self) -> ComposeResult:
        yield QrCode(self._address)


def modules(rows: list[list[Segment]]) -> list[list[bool]]:
    """The modules of a drawing: every line is two of them."""
    read: list[list[bool]] = []
    for row in rows:
        halves = [HALVES[sign] for segment in row for sign in segment.text]
        read.append([top for top, _ in halves])
        read.append([bottom for _, bottom in halves])
    return read


def lightness(color: Color | None) -> float:
    assert color is not None
    return sum(color.get_truecolor()) / 3


@pytest.mark.parametrize("theme", ["swarm", "swarm-light", "swarm-contrast", "swarm-16"])
@pytest.mark.parametrize("address", [BUYER, WALLET])
async def test_what_is_drawn_is_the_address_whatever_the_theme(address: str, theme: str) -> None:
    async with Shown(address, theme).run_test(size=(80, 24)) as pilot:
        widget = pilot.app.query_one(QrCode)
        rows = [list(widget.render_line(y)) for y in range(widget.size.height)]
        code = segno.make(address, error="m", micro=False)
        side = code.symbol_size(scale=1, border=0)[0]
        drawn = modules(rows)
        inner = [row[QUIET : QUIET + side] for row in drawn[QUIET : QUIET + side]]
        assert inner == [[bool(module) for module in row] for row in code.matrix]

        edges = [*drawn[:QUIET], *drawn[QUIET + side :]]
        assert not any(any(row) for row in edges)
        assert not any(any(row[:QUIET]) or any(row[QUIET + side :]) for row in drawn)
        assert len(drawn) >= side + 2 * QUIET
        assert {len(row) for row in drawn} == {side + 2 * QUIET}

        for segment in (segment for row in rows for segment in row):
            assert segment.style is not None
            assert lightness(segment.style.color) < 40  # what is dark
            light = lightness(segment.style.bgcolor)
            assert light > 215 or set(segment.text) == {"█"}


def test_it_fits_the_smallest_screen() -> None:
    matrix = qr_matrix(BUYER)
    assert (len(matrix[0]), len(matrix)) == (37, 37)
    assert len(matrix) // 2 + 1 <= 24 - 5  # with the dialog's frame and the address below


def test_one_wrong_module_would_be_seen() -> None:
    """The comparison above can fail: two addresses differ in many modules."""
    ours, others = (sum(qr_matrix(address), ()) for address in (BUYER, WALLET))
    differing = sum(one != other for one, other in zip(ours, others, strict=True))
    assert differing > 50
