"""The first frame: the mode's panes as empty frames, drawn by one widget.

A widget costs Textual half a millisecond of style sheet; a screen full of them is what a person
would otherwise wait for.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.widget import Widget

Frame = tuple[str, str, int]
"""Title, words in the middle, and height in lines (0 takes what is left)."""

_TALL: dict[str, tuple[Frame, ...]] = {
    "buyer": (("Nodes", "Looking for nodes…", 0), ("Jobs", "", 11), ("Log", "", 12)),
    "seller": (("Machine", "Asking the seller…", 6), ("Queue", "", 0), ("Events", "", 16)),
    "wallet": (("Wallet", "Looking for your wallet…", 21), ("Ledger", "", 0)),
}
_SHORT: dict[str, tuple[Frame, ...]] = {
    "buyer": (("Nodes", "Looking for nodes…", 0), ("Jobs", "", 5), ("Log", "", 7)),
    "seller": (("Machine", "Asking the seller…", 6), ("Queue", "", 0), ("Events", "", 7)),
    "wallet": (("Wallet", "Looking for your wallet…", 10), ("Ledger", "", 0)),
}


class Skeleton(Widget):
    """Frames below one another, as many and as high as the mode's own."""

    def __init__(self, mode: str, drawn: Callable[[], object]) -> None:
        """``drawn`` is called while the first frame is drawn: it may only ask for more later."""
        super().__init__()
        self._mode = mode
        self._drawn = drawn
        self._told = False

    def render(self) -> Content:
        width, height = self.size
        if not self._told and height:
            self._told = True
            self._drawn()
        frames = (_TALL if height >= 30 else _SHORT)[self._mode]
        rest = max(2, height - sum(lines for _, _, lines in frames))
        rows: list[str] = []
        for title, words, lines in frames:
            rows += _frame(title, words, width, lines or rest)
        return Content("\n".join(rows[:height]))


def _frame(title: str, words: str, width: int, height: int) -> list[str]:
    inside = [" " * (width - 2)] * (height - 2)
    if inside:
        inside[len(inside) // 2] = words.center(width - 2)
    top = f"╭─ {title} ".ljust(width - 1, "─") + "╮"
    return [top, *(f"│{row}│" for row in inside), f"╰{'─' * (width - 2)}╯"]
