"""The first line: name, modes, connection with its age, network, address, money."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from computeswarm.core.clock import Clock
from computeswarm.tui.format import age
from computeswarm.tui.widgets.pane import Part, line

LATE_SECONDS = 10.0
"""Without news for so long a connection is no longer called live."""
_WORDMARK = " ◆ ComputeSwarm "
_MODES = (("buyer", "1 Buyer"), ("seller", "2 Seller"), ("wallet", "3 Wallet"))


@dataclass(frozen=True, slots=True)
class Link:
    """How the connection stands; times in unix seconds."""

    state: str = "connecting"
    """``connecting``, ``live``, ``offline``, or ``none`` where there is nothing to connect to."""
    since: float = 0.0
    """The last good answer; for ``offline`` the moment it broke off."""
    none: str = "not selling"
    """What the state ``none`` is called."""


def real_money(yes: bool) -> str:
    """The alarm of a network whose money is worth something."""
    return "REAL MONEY" if yes else ""


class Header(Widget):
    """Draws what it is told; a click on a mode switches to it."""

    link: reactive[Link] = reactive(Link())
    facts: reactive[tuple[Part, ...]] = reactive((), layout=False)
    """On the right, most important last; the first ones are dropped on a narrow screen."""

    alarm: reactive[str] = reactive("")
    """In a red block, and never dropped."""

    def __init__(self, mode: str, clock: Clock) -> None:
        super().__init__()
        self._mode = mode
        self._clock = clock

    def on_mount(self) -> None:
        self.set_interval(1.0, self.refresh)

    def _alarm_parts(self) -> list[Part]:
        block = (f" {self.alarm} ", "bold $background on $error")
        return [" ", block] if self.alarm else []

    def _link_parts(self) -> list[Part]:
        past = self._clock.now() - self.link.since
        if self.link.state == "none":
            return [(f"○ {self.link.none}", "$muted")]
        if self.link.state == "connecting":
            return [("◌ connecting", "$warning")]
        if self.link.state == "offline":
            return [(f"✗ offline {age(past)}", "bold $error"), (" retrying", "$muted")]
        if past > LATE_SECONDS:
            return [(f"◐ late {age(past)}", "$warning")]
        return [("● ", "$success"), ("live ", ""), (age(past), "$muted")]

    def render(self) -> Content:
        left = line(
            (_WORDMARK, "bold $primary"),
            *(part for mode, word in _MODES for part in _tab(word, mode == self._mode)),
            *self._alarm_parts(),
            "  ",
            *self._link_parts(),
        )
        facts = list(self.facts)
        right = _joined(facts)
        while facts and left.cell_length + right.cell_length + 2 > self.size.width:
            facts.pop(0)
            right = _joined(facts)
        gap = max(1, self.size.width - left.cell_length - right.cell_length - 1)
        return line(left, " " * gap, right)  # type: ignore[arg-type]

    async def on_click(self, event: events.Click) -> None:
        end = len(_WORDMARK)
        for mode, word in _MODES:
            start, end = end, end + len(word) + 2
            if start <= event.x < end:
                await self.app.run_action(f"mode('{mode}')")


def _tab(word: str, active: bool) -> list[Part]:
    """A mode's name; the active one stands in a block and in capitals, seen without colours too."""
    if not active:
        return [(f" {word} ", "$muted")]
    edge = "$primary on $primary"
    return [("▌", edge), (word.upper(), "bold $background on $primary"), ("▐", edge)]


def _joined(facts: list[Part]) -> Content:
    return Content("   ").join([line(fact) for fact in facts])
