"""The last line: the keys that matter here, made from the keymap; a click does the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual import events
from textual.content import Content
from textual.widget import Widget

from computeswarm.tui.keymap import Key
from computeswarm.tui.widgets.pane import Part, line

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp

_KEPT = ("help", "quit")


class Footer(Widget):
    """Dims what can't run now. Keys that don't fit are left out, but never help and quit."""

    def __init__(self, mode: str, refusal: Callable[[str], str]) -> None:
        """``refusal(action)`` is why an action can't run, or empty when it can."""
        super().__init__()
        self._mode = mode
        self._refusal = refusal
        self._spans: list[tuple[int, int, Key]] = []

    @property
    def _swarm(self) -> ComputeSwarmApp:
        return self.app  # type: ignore[return-value]

    def render(self) -> Content:
        here = f"mode.{self._mode}"
        keys = [key for key in self._swarm.keys.footer(self._mode, "app") if key.id != here]
        while len(keys) > len(_KEPT) and _width(keys) > self.size.width - 1:
            keys.remove([k for k in keys if k.id not in _KEPT][-1])
        parts: list[Part] = [" "]
        self._spans, at = [], 1
        for key in keys:
            dead = bool(self._refusal(key.action))
            cells = len(key.shown) + len(key.label) + 1
            parts += [
                (key.shown, "$faint" if dead else "bold $primary"),
                (f" {key.label}", "$faint" if dead else "$muted"),
                "  ",
            ]
            self._spans.append((at, at + cells, key))
            at += cells + 2
        return line(*parts)

    async def on_click(self, event: events.Click) -> None:
        for start, end, key in self._spans:
            if start <= event.x < end:
                await self.app.run_action(key.action, default_namespace=self.screen)


def _width(keys: list[Key]) -> int:
    return sum(len(key.shown) + len(key.label) + 3 for key in keys)
