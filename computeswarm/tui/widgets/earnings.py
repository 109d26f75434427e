"""What the seller earned: kept and net, today to 30 days, the week as bars, and by GPU."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.format import DASH, money, price, sparkline
from computeswarm.tui.views import EarningsItem, GpuEarned
from computeswarm.tui.widgets.pane import Notice, Pane, Part, line, lines

LABEL = 8
"""Cells of a row's name."""
_WEEK = 7


class EarningsPane(Pane):
    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 -- Textual's own name
        super().__init__(id=id)
        self._earned: EarningsItem | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="earnings-text", classes="body", markup=False)
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Earnings", "bold"), (" USDC", "$muted"))
        self.notice("◌", "Asking the seller…")

    def on_resize(self) -> None:
        self._draw()

    def load(self, earned: EarningsItem) -> None:
        """All sums are after refunds, and net of gas and measured current."""
        self._earned = earned
        sold: tuple[Part, ...] = ()
        if earned.sold is not None:
            sold = ((f" · {earned.sold:.0%} sold", "$muted"),)
        self.head(("Earnings", "bold"), (" USDC", "$muted"), *sold)
        self.foot(_foot(earned))
        self.show_body()
        self._draw()

    def _draw(self) -> None:
        earned = self._earned
        if earned is None:
            return
        width = max(20, self.content_size.width)
        room = max(9, (width - LABEL) // 2)
        names = ("today", "7 days", "30 days")
        sums = (earned.today, earned.week, earned.month)
        rows = [line((f"{'':<{LABEL}}{'kept':>{room}}{'net':>{room}}", "$muted"))]
        for number, (name, kept) in enumerate(zip(names, sums, strict=True)):
            net = earned.nets[number]
            rows.append(
                line(
                    (f"{name:<{LABEL}}", "$muted"),
                    (f"{_short(kept):>{room}}", "bold $primary" if not number else ""),
                    (f"{DASH if net is None else _short(net, sign=True):>{room}}", _tone(net)),
                )
            )
        if earned.by_day:
            rows.append(_week(earned, width))
        if earned.owed:
            owed = f"{_short(-earned.owed):>{room}}"
            rows.append(line((f"{'owed':<{LABEL}}", "$muted"), (owed, "$warning")))
        rows += [_gpu(gpu, room) for gpu in earned.gpus if gpu.kept or gpu.sold]
        if earned.refunded or earned.vouched:
            back = f"went back {_short(earned.refunded)}"
            rows.append(line((f"{back}  vouched {_short(earned.vouched)}"[:width], "$muted")))
        self.query_one("#earnings-text", Static).update(lines(*rows))


def _week(earned: EarningsItem, width: int) -> Content:
    """Seven days as bars, as wide as there is room."""
    days = [max(0.0, float(atoms)) for _, atoms in earned.by_day[-_WEEK:]]
    bars = sparkline(list(days), len(days), max(days)) if any(days) else "▁" * len(days)
    cells = max(1, min(3, (width - LABEL) // (_WEEK + 1)))
    drawn = " ".join(bar * cells for bar in bars) if cells > 1 else bars
    return line((f"{'by day':<{LABEL}}", "$muted"), (drawn, "$primary"))


def _gpu(gpu: GpuEarned, room: int) -> Content:
    net = DASH if gpu.net is None else _short(gpu.net, sign=True)
    return line(
        (f"{gpu.label[: LABEL - 1]:<{LABEL}}", "$muted"),
        f"{_short(gpu.kept):>{room}}",
        (f"{net:>{room}}", _tone(gpu.net)),
    )


def _foot(earned: EarningsItem) -> Part:
    if earned.nets[-1] is None:
        return ("power not measured", "$muted")
    return (f"power at {price(earned.electricity_price)}/kWh", "$muted")


def _tone(net: int | None) -> str:
    if net is None:
        return "$muted"
    return "$success" if net >= 0 else "$error"


def _short(atoms: int, *, sign: bool = False) -> str:
    """Four decimals below a hundred, two above: nine cells at most for what people earn."""
    text = money(atoms, 4 if abs(atoms) < 100_000_000 else 2)
    return f"+{text}" if sign and atoms > 0 else text
