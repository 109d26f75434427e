"""Which GPU its owner wants for himself, or wants to sell again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Static

from computeswarm.tui.format import short_job
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import GpuItem
from computeswarm.tui.widgets.pane import line
from computeswarm.tui.widgets.table import Column, Table


def gpu_state(gpu: GpuItem) -> tuple[str, str]:
    """What a GPU does: glyph and word, and its tone."""
    job = f" · {short_job(gpu.job_id)}" if gpu.job_id else ""
    if gpu.held:
        return f"◼ held by you{job}", "warning"
    if gpu.trouble:
        return f"✗ {gpu.trouble}", "warning"
    return (f"● rented{job}", "success") if gpu.job_id else ("○ idle", "muted")


_COLUMNS: tuple[Column[GpuItem], ...] = (
    Column("#", 3, lambda gpu: (str(gpu.index), "muted")),
    Column("MODEL", 16, lambda gpu: (gpu.model, "bright")),
    Column("STATE", 24, gpu_state, grow=True),
)


class HoldModal(Dialog[int]):
    """Dismissed with the number of a GPU: one that is held is released."""

    BINDINGS: ClassVar = [
        Binding("enter,space", "choose", "choose", show=False, id="hold.choose"),
        *(
            Binding(str(n), f"number({n})", "choose", show=False, id=f"hold.number{n}")
            for n in range(10)
        ),
    ]

    def __init__(self, gpus: Sequence[GpuItem]) -> None:
        super().__init__("Which GPU do you want for yourself?")
        self._gpus = gpus

    def content(self) -> ComposeResult:
        words = "No new job on it; one that runs goes on. A held one is released."
        yield Static(line((words, "$muted")))
        yield Table[GpuItem](_COLUMNS, lambda gpu: str(gpu.index), id="hold")

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.set_rows(self._gpus)
        table.styles.height = min(len(self._gpus) + 1, 18)
        table.focus()
        self.foot(("⏎ holds or releases · its number does too · esc closes", "$muted"))

    @on(Table.Chosen, "#hold")
    def action_choose(self) -> None:
        gpu = self.query_one(Table).current
        if gpu is not None:
            self.dismiss(gpu.index)

    def action_number(self, index: int) -> None:
        if index in [gpu.index for gpu in self._gpus]:
            self.dismiss(index)
