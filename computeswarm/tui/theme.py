"""The app's own colours: ink and honey. Every state also has a glyph and a word."""

from __future__ import annotations

from textual.theme import Theme

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
    variables={
        "line": "#2a3442",
        "muted": "#7d8a9a",
        "faint": "#4a5666",
        "bright": "#f3f6fa",
        "cursor": "#232d3b",
        "cursor-quiet": "#171e28",
        "block-cursor-background": "#f0b429",
        "block-cursor-foreground": "#0c1016",
        "input-cursor-background": "#f0b429",
        "input-cursor-foreground": "#0c1016",
        "input-selection-background": "#f0b429 35%",
        "scrollbar": "#2a3442",
        "scrollbar-hover": "#3a475a",
        "scrollbar-active": "#f0b429",
        "scrollbar-background": "#0c1016",
        "scrollbar-background-hover": "#0c1016",
        "scrollbar-background-active": "#0c1016",
        "scrollbar-corner-color": "#0c1016",
        "border": "#2a3442",
        "border-blurred": "#2a3442",
    },
)
"""``$line``, ``$muted``, ``$faint``, ``$bright``, ``$cursor`` are ours; the rest is Textual's."""

FALLBACKS = {
    name: SWARM.variables[name]
    for name in ("line", "muted", "faint", "bright", "cursor", "cursor-quiet")
}
"""So that the app's style sheet still reads under another theme from the palette."""
