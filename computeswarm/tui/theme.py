"""The app's own colours, for dark, light, high contrast, and the terminal's own sixteen.

Every state also has a glyph and a word. Beside Textual's own variables there are ours: ``$line``,
``$muted``, ``$faint``, ``$bright``, ``$cursor`` and ``$cursor-quiet``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from textual.theme import Theme


def _own(**colours: str) -> dict[str, str]:
    """Our variables, and Textual's that follow from them."""
    line, background = colours["line"], colours["background"]
    accent, ink = colours["accent"], colours["on_accent"]
    return {
        "line": line,
        "muted": colours["muted"],
        "faint": colours["faint"],
        "bright": colours["bright"],
        "cursor": colours["cursor"],
        "cursor-quiet": colours["quiet"],
        "block-cursor-background": accent,
        "block-cursor-foreground": ink,
        "input-cursor-background": accent,
        "input-cursor-foreground": ink,
        "input-selection-background": colours.get("selection", f"{accent} 35%"),
        "scrollbar": line,
        "scrollbar-hover": colours.get("hover", accent),
        "scrollbar-active": accent,
        "scrollbar-background": background,
        "scrollbar-background-hover": background,
        "scrollbar-background-active": background,
        "scrollbar-corner-color": background,
        "border": line,
        "border-blurred": line,
    }


SWARM = Theme(
    name="swarm",
    primary="#f0b429",
    secondary="#56b6c2",
    accent="#f0b429",
    foreground="#d5dbe3",
    background="#0c1016",
    surface="#11161e",
    panel="#1a212c",
    success="#8ccf7e",
    warning="#e5a450",
    error="#e8716f",
    dark=True,
    variables=_own(
        line="#2a3442", muted="#8a97a7", faint="#6f7c8c", bright="#f3f6fa", cursor="#232d3b",
        quiet="#171e28", background="#0c1016", accent="#f0b429", on_accent="#0c1016",
        hover="#3a475a",
    ),
)  # fmt: skip
"""Ink and honey."""

LIGHT = Theme(
    name="swarm-light",
    primary="#7d5300",
    secondary="#0b5f73",
    accent="#7d5300",
    foreground="#22272e",
    background="#fbfaf6",
    surface="#f0eee6",
    panel="#e6e3d8",
    success="#22631d",
    warning="#874400",
    error="#a3211f",
    dark=False,
    variables=_own(
        line="#c9c4b4", muted="#575f69", faint="#686f78", bright="#0b0d10", cursor="#e9dfc3",
        quiet="#f1ece0", background="#fbfaf6", accent="#7d5300", on_accent="#fbfaf6",
        hover="#a89f88",
    ),
)  # fmt: skip

CONTRAST = Theme(
    name="swarm-contrast",
    primary="#ffd75f",
    secondary="#7fe5f0",
    accent="#ffd75f",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    success="#8dff8d",
    warning="#ffbf66",
    error="#ffa6a6",
    dark=True,
    variables=_own(
        line="#8f8f8f", muted="#d6d6d6", faint="#b8b8b8", bright="#ffffff", cursor="#332f00",
        quiet="#242424", background="#000000", accent="#ffd75f", on_accent="#000000",
        hover="#ffffff",
    ),
)  # fmt: skip
"""Each text at least 7 to 1 against what is behind it (WCAG 2.2, level AAA)."""

SIXTEEN = Theme(
    name="swarm-16",
    ansi=True,
    primary="ansi_yellow",
    secondary="ansi_cyan",
    accent="ansi_yellow",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    success="ansi_green",
    warning="ansi_magenta",
    error="ansi_red",
    dark=True,
    variables=_own(
        line="ansi_bright_black", muted="ansi_default", faint="ansi_bright_black",
        bright="ansi_default", cursor="ansi_blue", quiet="ansi_bright_black",
        background="ansi_default", accent="ansi_yellow", on_accent="ansi_black",
        selection="ansi_blue",
    ) | {"ansi-background": "ansi_black", "ansi-foreground": "ansi_white"},
)  # fmt: skip
"""Only what the terminal's own palette has, so it looks as its owner chose."""

THEMES = (SWARM, LIGHT, CONTRAST, SIXTEEN)

FALLBACKS = {
    name: SWARM.variables[name]
    for name in ("line", "muted", "faint", "bright", "cursor", "cursor-quiet")
}
"""So that the app's style sheet still reads under another theme from the palette."""


def fitting(environ: Mapping[str, str] | None = None) -> str:
    """The theme for a terminal nobody chose one for: sixteen colours where it has no more."""
    environ = os.environ if environ is None else environ
    term = environ.get("TERM", "")
    if environ.get("COLORTERM", "") in ("truecolor", "24bit") or "256" in term:
        return SWARM.name
    return SIXTEEN.name if term in ("linux", "ansi", "xterm", "screen", "vt220") else SWARM.name
