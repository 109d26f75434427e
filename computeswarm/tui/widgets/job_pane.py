"""The buyer's jobs: state, time, money spent of the cap."""

from __future__ import annotations

from textual.app import ComposeResult

from computeswarm.tui.format import JOB_STATES, clock, money, short_job, spent
from computeswarm.tui.views import JobItem
from computeswarm.tui.widgets.pane import Notice, Pane
from computeswarm.tui.widgets.table import Column, Table


def state_of(job: JobItem) -> tuple[str, str]:
    """Glyph and word with their tone; the exit code where a job failed with one."""
    glyph, word, tone = JOB_STATES[job.state]
    if job.paused and not job.ended:
        return "‖ paused", "warning"
    if job.step and not job.ended:
        word = job.step
    if job.state == "failed" and job.exit_code:
        word = f"exit {job.exit_code}"
    return f"{glyph} {word}", tone


def _money(job: JobItem) -> tuple[str, str]:
    return f"{spent(job.cost)} / {money(job.budget)}", ""


COLUMNS: tuple[Column[JobItem], ...] = (
    Column("JOB", 10, lambda j: (short_job(j.job_id), "muted"), rank=4),
    Column("NAME", 9, lambda j: (j.name, "bright"), grow=True),
    Column("NODE", 9, lambda j: (j.node_name or j.node_id[:9], "muted"), rank=3),
    Column("STATE", 12, state_of),
    Column("TIME", 7, lambda j: (clock(j.metered_ms / 1000), ""), right=True),
    Column("SPENT / CAP", 14, _money, right=True, rank=1),
)


class JobPane(Pane):
    def __init__(self, example: str = "", *, id: str | None = None) -> None:  # noqa: A002
        """``example`` is the name of a job that waits to be tried."""
        super().__init__(id=id)
        self._example = example

    def compose(self) -> ComposeResult:
        yield Table[JobItem](COLUMNS, lambda job: job.job_id, id="jobs")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Jobs", "bold"))
        self.load([])

    @property
    def table(self) -> Table[JobItem]:
        return self.query_one("#jobs", Table)

    def load(self, jobs: list[JobItem]) -> None:
        """The journal, newest first."""
        self.table.set_rows(jobs)
        if not jobs:
            ready = f"n starts one: {self._example} is ready" if self._example else "n starts one"
            self.notice("◇", "No jobs yet", ready)
            self.foot()
            return
        self.show_body()
        self.place()

    def place(self) -> None:
        """Say in the lower edge how many are live and where the cursor is."""
        jobs = self.table.rows
        live = sum(not job.ended for job in jobs)
        running = f"{live} live · " if live else ""
        self.foot((f"{running}{self.table.cursor + 1}/{len(jobs)}" if jobs else "", "$muted"))
