"""An address as a QR code, drawn so that a telephone reads it off any terminal.

Each cell is two modules, one above the other. It is always dark on light, with the quiet zone of
four modules that the standard asks for, whatever the theme: scanners need both.
"""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.widgets.pane import Part, line, lines

QUIET = 4
"""Modules of light around it."""
_DARK, _LIGHT = "#000000", "#ffffff"
_GLYPHS = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}

Matrix = tuple[tuple[bool, ...], ...]


def qr_matrix(text: str) -> Matrix:
    """The modules from top to bottom, the quiet zone with them; True is dark."""
    import segno

    code = segno.make(text, error="m", micro=False)
    return tuple(
        tuple(bool(module) for module in row) for row in code.matrix_iter(scale=1, border=QUIET)
    )


def drawn(matrix: Matrix) -> Content:
    """The modules as half blocks; an odd last line is light below."""
    light = (False,) * len(matrix[0])
    rows = [*matrix, light] if len(matrix) % 2 else list(matrix)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return lines(*(line(*_runs(top, bottom)) for top, bottom in pairs))


def _runs(top: tuple[bool, ...], bottom: tuple[bool, ...]) -> list[Part]:
    parts: list[Part] = []
    for pair in zip(top, bottom, strict=True):
        # where both are dark the ground is, too: no light line between cells that don't touch
        style = f"{_DARK} on {_DARK if all(pair) else _LIGHT}"
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + _GLYPHS[pair], style)
        else:
            parts.append((_GLYPHS[pair], style))
    return parts


class QrCode(Static):
    """Draws an address; nothing while there is none."""

    DEFAULT_CSS = "QrCode { width: auto; height: auto; }"

    def __init__(self, text: str = "", *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(drawn(qr_matrix(text)) if text else "", id=id, markup=False)
        self._text = text

    def show(self, text: str) -> None:
        """Another address."""
        if text != self._text:
            self._text = text
            self.update(drawn(qr_matrix(text)) if text else "")
