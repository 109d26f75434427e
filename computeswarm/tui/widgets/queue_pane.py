"""The seller's jobs: who, what, how long, how much."""

from __future__ import annotations

from textual.app import ComposeResult

from computeswarm.tui.format import (
    DASH,
    JOB_STATES,
    clock,
    duration,
    price,
    short_address,
    short_job,
    spent,
)
from computeswarm.tui.views import SellerJob
from computeswarm.tui.widgets.pane import Notice, Pane
from computeswarm.tui.widgets.table import Column, Table


def _state(job: SellerJob) -> tuple[str, str]:
    if job.paused:
        return "◫ paused", "warning"
    glyph, word, tone = JOB_STATES[job.state]
    place = f" #{job.queue_position}" if job.queue_position is not None else ""
    return f"{glyph} {word}{place}", tone


def _time(job: SellerJob) -> tuple[str, str]:
    """How long it has run; of one that waits, when it starts at the latest."""
    if job.queue_position is None:
        return clock(job.metered_ms / 1000), ""
    return (DASH if job.starts_in is None else f"≤{clock(job.starts_in)}"), "muted"


COLUMNS: tuple[Column[SellerJob], ...] = (
    Column("JOB", 10, lambda j: (short_job(j.job_id), "muted")),
    Column("BUYER", 11, lambda j: (short_address(j.buyer), ""), rank=3),
    Column("NAME", 8, lambda j: (j.name, "bright"), rank=4, grow=True),
    Column("IMAGE", 9, lambda j: (j.image, "muted"), rank=6),
    Column("GPU", 3, lambda j: (str(j.gpu_count), ""), right=True, rank=7),
    Column("STATE", 12, _state),
    Column("TIME", 8, _time, right=True),
    Column("LIMIT", 7, lambda j: (duration(j.max_seconds), "muted"), right=True, rank=5),
    Column("$/H", 5, lambda j: (price(j.price), ""), right=True, rank=1),
    Column("EARNED", 6, lambda j: (spent(j.cost), "accent"), right=True, rank=2),
)


class QueuePane(Pane):
    def compose(self) -> ComposeResult:
        yield Table[SellerJob](COLUMNS, lambda job: job.job_id, id="queue")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Queue", "bold"))
        self.notice("◌", "Asking the seller…")

    @property
    def table(self) -> Table[SellerJob]:
        return self.query_one("#queue", Table)

    def load(self, jobs: tuple[SellerJob, ...], paused: bool) -> None:
        """Live jobs first."""
        self.table.set_rows(jobs)
        live = sum(not job.state.terminal for job in jobs)
        self.foot((f"{live} live · {len(jobs)} shown" if jobs else "", "$muted"))
        if jobs:
            self.show_body()
        elif paused:
            self.notice("◫", "No new jobs are taken", "o takes them again")
        else:
            self.notice("◇", "No job yet", "Listed and waiting; buyers come by themselves")
