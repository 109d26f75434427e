"""A terminal's recording as one SVG that moves by itself: no script in it, no font from elsewhere.

Each line that is ever shown is drawn once and placed wherever a frame has it, so a minute of a
screen that changes in few places stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

import pyte
from pyte.screens import Char

CELL, LINE = 8.4, 17
FONT = "ui-monospace, 'Fira Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace"
INK, PAPER = "#d5dbe3", "#0c1016"
STEP = 0.25
"""Seconds that a frame is shown at least."""
REST = 2.5
"""Seconds for which the last frame stays."""
_NAMED = {
    "black": "#1a212c", "red": "#e8716f", "green": "#8ccf7e", "brown": "#e5a450",
    "blue": "#6ba5e7", "magenta": "#c58fd6", "cyan": "#56b6c2", "white": "#d5dbe3",
}  # fmt: skip

Row = tuple[tuple[str, str, str, bool], ...]
"""Pieces of a line: text, ink, paper, and whether it is bold."""


def animated(events: Sequence[tuple[float, str]], columns: int, rows: int) -> str:
    """The recording as a picture.

    Args:
        events: seconds since the beginning, and what was written then.
    """
    frames = _frames(events, columns, rows)
    whole = frames[-1][0] + REST
    drawn: dict[Row, str] = {}
    shown, rules = [], []
    for number, (at, screen) in enumerate(frames):
        end = frames[number + 1][0] if number + 1 < len(frames) else whole
        uses = []
        for y, row in enumerate(screen):
            if row:
                name = drawn.setdefault(row, f"l{len(drawn)}")
                uses.append(f'<use href="#{name}" y="{y * LINE}"/>')
        shown.append(f'<g class="f f{number}">{"".join(uses)}</g>')
        rules.append(_rule(number, at / whole * 100, end / whole * 100))
    width, height = columns * CELL, rows * LINE
    style = (
        f".f{{visibility:hidden;animation:{whole:.2f}s steps(1) infinite}}"
        f"text{{font:14px {FONT};white-space:pre}}{''.join(rules)}"
        "@media (prefers-reduced-motion:reduce){.f{animation-play-state:paused}"
        f".f{len(frames) - 1}{{visibility:visible;animation:none}}}}"
    )
    lines = "".join(f'<g id="{name}">{_line(row)}</g>' for row, name in drawn.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -12 {width + 24:.0f} {height + 24}">'
        f"<style>{style}</style><defs>{lines}</defs>"
        f'<rect x="-12" y="-12" width="{width + 24:.0f}" height="{height + 24}" rx="8" '
        f'fill="{PAPER}"/>{"".join(shown)}</svg>\n'
    )


def _rule(number: int, begin: float, end: float) -> str:
    """Visible from ``begin`` to ``end`` percent of the whole."""
    before = "0%{visibility:hidden}" if begin > 0 else ""
    after = f"{end:.3f}%{{visibility:hidden}}" if end < 100 else ""
    return (
        f"@keyframes k{number}{{{before}{begin:.3f}%{{visibility:visible}}{after}}}"
        f".f{number}{{animation-name:k{number}}}"
    )


def _frames(
    events: Sequence[tuple[float, str]], columns: int, rows: int
) -> list[tuple[float, tuple[Row, ...]]]:
    screen = pyte.Screen(columns, rows)
    stream = pyte.Stream(screen)
    frames: list[tuple[float, tuple[Row, ...]]] = []
    for number, (at, text) in enumerate(events):
        if "\x1b[?1049l" in text and frames:  # it gives the terminal back: the story is over
            break
        stream.feed(text)
        following = events[number + 1][0] if number + 1 < len(events) else at + REST
        if following - at < STEP and (not frames or at - frames[-1][0] < STEP):
            continue
        seen = tuple(_row(screen, y) for y in range(rows))
        if any(seen) and (not frames or frames[-1][1] != seen):
            frames.append((at, seen))
    first = frames[0][0]
    return [(at - first, seen) for at, seen in frames]


def _row(screen: pyte.Screen, y: int) -> Row:
    line = screen.buffer[y]
    cells = [_look(line[x]) for x in range(screen.columns)]
    row = tuple(
        ("".join(text for text, *_ in piece), ink, paper, bold)
        for (ink, paper, bold), piece in (
            (look, list(cells)) for look, cells in groupby(cells, key=lambda cell: cell[1:])
        )
    )
    return row if any(text.strip() or paper != PAPER for text, _, paper, _ in row) else ()


def _look(cell: Char) -> tuple[str, str, str, bool]:
    ink, paper = _colour(cell.fg, INK), _colour(cell.bg, PAPER)
    if cell.reverse:
        ink, paper = paper, ink
    return cell.data, ink, paper, bool(cell.bold)


def _colour(name: str, default: str) -> str:
    if name == "default":
        return default
    if name.startswith("bright"):
        name = name.removeprefix("bright")
    return _NAMED.get(name) or f"#{name}"


def _line(row: Row) -> str:
    parts, x = [], 0
    for text, ink, paper, bold in row:
        if paper != PAPER:
            parts.append(
                f'<rect x="{x * CELL:.1f}" width="{len(text) * CELL:.1f}" height="{LINE}" '
                f'fill="{paper}"/>'
            )
        if text.strip():
            weight = ' font-weight="bold"' if bold else ""
            # each piece is told its width: no font's own metrics pull the columns apart
            parts.append(
                f'<text x="{x * CELL:.1f}" y="13.5" fill="{ink}"{weight} '
                f'textLength="{len(text) * CELL:.1f}" xml:space="preserve">{escape(text)}</text>'
            )
        x += len(text)
    return "".join(parts)
