"""The seller's jobs: who, what, how long, how much; and which of them ask their seller's owner."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from computeswarm.tui.format import (
    DASH,
    JOB_STATES,
    clock,
    duration,
    money,
    price,
    short_address,
    short_job,
    spent,
)
from computeswarm.tui.views import SellerItem, SellerJob
from computeswarm.tui.widgets.pane import Notice, Pane, line
from computeswarm.tui.widgets.table import Column, Table


def _state(job: SellerJob) -> tuple[str, str]:
    if job.decide_by is not None:
        return "? asks you", "warning"
    if job.paused:
        return "◫ paused", "warning"
    glyph, word, tone = JOB_STATES[job.state]
    place = f" #{job.queue_position}" if job.queue_position is not None else ""
    return f"{glyph} {word}{place}", tone


def wants(job: SellerJob) -> str:
    """What a job that asks would take, and bring."""
    gpus = {0: "the processor", 1: "1 GPU"}.get(job.gpu_count, f"{job.gpu_count} GPUs")
    most = money(job.price * job.max_seconds // 3600, 2)
    return f"{gpus} for {duration(job.max_seconds)} at most, up to {most} USDC"


class QueuePane(Pane):
    def compose(self) -> ComposeResult:
        self._now = 0.0
        self._left_on = ""
        """The ended job on which the cursor came to rest because no other was there."""
        yield Table[SellerJob](self._columns(), lambda job: job.job_id, id="queue")
        yield Static(id="queue-ask", markup=False)
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Queue", "bold"))
        self.notice("◌", "Asking the seller…")

    def _columns(self) -> tuple[Column[SellerJob], ...]:
        return (
            Column("JOB", 10, lambda j: (short_job(j.job_id), "muted")),
            Column("BUYER", 11, lambda j: (short_address(j.buyer), ""), rank=3),
            Column("NAME", 8, lambda j: (j.name, "bright"), rank=4, grow=True),
            Column("IMAGE", 9, lambda j: (j.image, "muted"), rank=6),
            Column("GPU", 3, lambda j: (str(j.gpu_count), ""), right=True, rank=7),
            Column("STATE", 12, _state),
            Column("TIME", 8, self._time, right=True),
            Column("LIMIT", 7, lambda j: (duration(j.max_seconds), "muted"), right=True, rank=5),
            Column("$/H", 5, lambda j: (price(j.price), ""), right=True, rank=1),
            Column("EARNED", 6, lambda j: (spent(j.cost), "accent"), right=True, rank=2),
        )

    def _time(self, job: SellerJob) -> tuple[str, str]:
        """How long it has run; of one that waits, when it starts at the latest; of one that asks,
        how long its owner has for an answer."""
        if job.decide_by is not None:
            return clock(max(0.0, job.decide_by - self._now)), "warning"
        if job.queue_position is None:
            return clock(job.metered_ms / 1000), ""
        return (DASH if job.starts_in is None else f"≤{clock(job.starts_in)}"), "muted"

    @property
    def table(self) -> Table[SellerJob]:
        return self.query_one("#queue", Table)

    def load(self, status: SellerItem, now: float) -> None:
        """Live jobs first; ``now`` in unix seconds, by which the time to answer is counted."""
        jobs, self._now = status.jobs, now
        self._show(jobs)
        live = sum(not job.state.terminal for job in jobs)
        asking = [job for job in jobs if job.decide_by is not None]
        self._question()
        if asking:
            asks = "1 asks you" if len(asking) == 1 else f"{len(asking)} ask you"
            self.foot((f"? {asks} · a accept · r reject", "bold $warning"))
        else:
            self.foot((f"{live} live · {len(jobs)} shown" if jobs else "", "$muted"))
        if jobs:
            self.show_body()
        elif status.paused:
            self.notice("◫", "No new jobs are taken", "o takes them again")
        elif status.asks_owner:
            self.notice("◇", "No job yet", "Listed and waiting; you decide which may run")
        else:
            self.notice("◇", "No job yet", "Listed and waiting; buyers come by themselves")

    @property
    def asking(self) -> SellerJob | None:
        """The job that an answer is for: the one under the cursor, or else the only one."""
        job = self.table.current
        if job is not None and job.decide_by is not None:
            return job
        jobs = [job for job in self.table.rows if job.decide_by is not None]
        return jobs[0] if len(jobs) == 1 else None

    @on(Table.Moved, "#queue")
    def _question(self) -> None:
        """What the job that asks wants, in a line below the table."""
        job = self.asking
        self.set_class(job is not None, "-asks")
        if job is not None:
            text = f"? {short_job(job.job_id)} wants {wants(job)} · {job.name}"
            self.query_one("#queue-ask", Static).update(line(text))

    def _show(self, jobs: tuple[SellerJob, ...]) -> None:
        """The cursor stays on its job, but leaves one that has ended for one that lives."""
        table = self.table
        before, place = table.current, table.cursor
        table.set_rows(jobs)
        after = table.current
        if after is None or not after.state.terminal:
            self._left_on = ""
            return
        ended = before is None or (before.job_id == after.job_id and not before.state.terminal)
        if not ended and self._left_on != after.job_id:
            return  # somebody put it there
        live = [job for job in jobs if not job.state.terminal]
        self._left_on = "" if live else after.job_id
        if live:
            table.select(live[min(place, len(live) - 1)].job_id)
