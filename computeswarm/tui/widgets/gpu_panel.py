"""The machine: each GPU's use over time, memory, heat and power; the processor's without one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.format import DASH, gauge, short_job, size, sparkline
from computeswarm.tui.views import GpuItem, SellerItem
from computeswarm.tui.widgets.pane import Notice, Pane, Part, line, lines

SAMPLES = 120
HOT_C = 83
"""From here on most cards slow down."""


class GpuPanel(Pane):
    """The GPUs' past comes from the seller; the processor's is kept here, a sample a second."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 -- Textual's own name
        super().__init__(id=id)
        self._past: dict[str, deque[float | None]] = {}
        self._status: SellerItem | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="gpu-text", classes="body", markup=False)
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Machine", "bold"))
        self.notice("◌", "Asking the seller…")

    def load(self, status: SellerItem) -> None:
        """One more sample."""
        self._status = status
        self._sample("cpu", status.host.cpu_pct)
        used = status.host.memory_used
        self._sample("memory", used / status.host.memory_total * 100 if used is not None else None)
        kind = f"{len(status.gpus)} GPU" if status.gpus else "CPU"
        self.head((kind, "bold"), (f"  {status.executor} · {status.isolation}", "$muted"))
        jobs = "1 job" if status.slots == 1 else f"{status.slots} jobs"
        watts = [gpu.power_w for gpu in status.gpus if gpu.power_w is not None]
        power = f"{sum(watts):.0f} W now · " if watts else ""
        self.foot((f"{power}{jobs} at a time", "$muted"))
        self.show_body()
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _sample(self, name: str, value: float | None) -> None:
        self._past.setdefault(name, deque(maxlen=SAMPLES)).append(value)

    def _draw(self) -> None:
        status = self._status
        if status is None:
            return
        width = self.size.width
        if status.gpus:
            rows = [self._gpu(gpu, width) for gpu in status.gpus]
            rows.insert(0, self._heading(width))
            rows += [_trouble(gpu, width) for gpu in status.gpus if gpu.trouble]
            rows.append(self._host(width))
        else:
            rows = [
                line(("No GPU found: listed as cpu. ", "$warning"),
                     (f"{status.host.cpu_model} · {status.host.cpu_cores} cores", "$muted")),
                self._meter("cpu", status.host.cpu_pct, "", width),
                self._memory(width),
            ]  # fmt: skip
        self.query_one("#gpu-text", Static).update(lines(*rows))

    def _heading(self, width: int) -> Content:
        chart, bar = _widths(width)
        memory = f"{'VRAM':<{bar + 11}}"
        title = f"{'#':<2}{'MODEL':<13}{'USE':>4} {'OVER TIME':<{chart}}  {memory}{'TEMP':>4}"
        return line((f"{title}{'POWER':>11}  JOB", "$muted"))

    def _gpu(self, gpu: GpuItem, width: int) -> Content:
        chart, bar = _widths(width)
        use = DASH if gpu.utilization_pct is None else f"{gpu.utilization_pct}%"
        share = (gpu.memory_used or 0) / gpu.memory_total if gpu.memory_total else 0.0
        used = DASH if gpu.memory_used is None else size(gpu.memory_used)
        hot = gpu.temperature_c is not None and gpu.temperature_c >= HOT_C
        heat = DASH if gpu.temperature_c is None else f"{'!' if hot else ''}{gpu.temperature_c}°"
        return line(
            (f"{gpu.index:<2}", "$muted"),
            (f"{_model(gpu):<13}", "bold"),
            (f"{use:>4} ", "bold $primary"),
            *_chart(gpu.past, chart),
            "  ",
            (gauge(share, bar - 1) + " " if bar else "", "$secondary"),
            f"{f'{used}/{size(gpu.memory_total)}':<11}",
            (f"{heat:>4}", "$error" if hot else ""),
            f"{_power(gpu):>11}  ",
            _holder(gpu),
        )

    def _host(self, width: int) -> Content:
        host = self._status.host if self._status else None
        assert host is not None
        cpu = DASH if host.cpu_pct is None else f"{host.cpu_pct:.0f} %"
        memory = DASH if host.memory_used is None else size(host.memory_used)
        words = f"cpu {cpu} of {host.cpu_cores} cores · memory {memory}/{size(host.memory_total)}"
        return line((words[:width], "$muted"))

    def _memory(self, width: int) -> Content:
        assert self._status is not None
        host = self._status.host
        if host.memory_used is None:
            return self._meter("memory", None, "", width)
        share = host.memory_used / host.memory_total * 100
        text = f"{size(host.memory_used)}/{size(host.memory_total)}"
        return self._meter("memory", share, text, width)

    def _meter(self, name: str, value: float | None, text: str, width: int) -> Content:
        chart = max(8, min(SAMPLES, width - 44))
        return line(
            (f"{name:<8}", "$muted"),
            (f"{DASH if value is None else f'{value:.0f} %':>6} ", "bold $primary"),
            *_chart(self._past.get(name, ()), chart),
            "  ",
            (gauge((value or 0) / 100, 12), "$secondary"),
            f" {text}",
        )


def _chart(samples: Iterable[float | None], width: int) -> list[Part]:
    """The samples so far; dots where there was none yet."""
    past = list(samples)[-width:]
    return [("·" * (width - len(past)), "$faint"), (sparkline(past, len(past)), "$primary")]


def _widths(width: int) -> tuple[int, int]:
    """Cells for the chart and for the memory's bar, which needs a wide screen."""
    bar = 9 if width >= 90 else 0
    return max(8, min(SAMPLES, width - 60 - bar)), bar


def _model(gpu: GpuItem) -> str:
    """Twelve cells; a part of a GPU says so."""
    return f"{gpu.model[:8]} MIG" if gpu.is_slice else gpu.model[:12]


def _holder(gpu: GpuItem) -> Part:
    if gpu.job_id:
        return short_job(gpu.job_id)
    return ("✗ not sold", "$warning") if gpu.trouble else ("○ idle", "$muted")


def _trouble(gpu: GpuItem, width: int) -> Content:
    return line((f"! GPU {gpu.index}: {gpu.trouble}"[: max(10, width)], "$warning"))


def _power(gpu: GpuItem) -> str:
    if gpu.power_w is None:
        return DASH
    return f"{gpu.power_w:.0f}" + (f"/{gpu.power_limit_w:.0f}" if gpu.power_limit_w else "") + " W"
