"""The selected job's log in its frame, with a line to find in it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Input

from computeswarm.core.states import JobState
from computeswarm.tui.format import JOB_STATES, clock, money, short_job, spent
from computeswarm.tui.logbuffer import LogBuffer
from computeswarm.tui.views import JobItem, Meter
from computeswarm.tui.widgets.job_pane import state_of
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.pane import Notice, Pane

WAITING = {
    "created": "Not paid yet",
    "awaiting_payment": "The payment is on its way",
    "queued": "Waiting for its turn",
    "starting": "The sandbox starts; time costs from the first line on",
    "running": "Running; nothing written yet",
}


def _waits_for(job: JobItem) -> str:
    """What the seller says of a job that waits: its place, and when it starts at the latest."""
    if job.state is JobState.QUEUED and job.reason:
        return job.reason
    return WAITING.get(str(job.state), "Nothing yet")


class LogPane(Pane):
    def compose(self) -> ComposeResult:
        yield LogView(id="log")
        yield Notice()
        yield Input(placeholder="find in the log", id="log-find", compact=True, max_length=200)

    def on_mount(self) -> None:
        self.query_one("#log-find").display = False
        self.show(None, LogBuffer(), None)

    @property
    def view(self) -> LogView:
        return self.query_one("#log", LogView)

    def show(self, job: JobItem | None, buffer: LogBuffer, meter: Meter | None) -> None:
        """A job's log, and how it stands in the upper edge."""
        if job is None:
            self.head(("Log", "bold"))
            self.foot()
            self.notice("·", "A job's output appears here as it is written")
            return
        text, tone = state_of(job)
        gpu = ""
        if meter is not None and not job.ended and meter.utilization_pct is not None:
            gpu = f" · GPU {meter.utilization_pct} %"
        self.head(
            (short_job(job.job_id), "bold"),
            (f" {job.name}  ", "$muted"),
            (text, f"${tone}"),
            (f" {clock(job.metered_ms / 1000)} · {spent(job.cost)} of {money(job.budget)}", ""),
            (gpu, "$muted"),
        )
        self.view.show(buffer)
        if buffer.end or job.ended:
            self.show_body()
        else:
            self.notice(JOB_STATES[job.state][0], _waits_for(job))

    def describe(self) -> None:
        """Say in the lower edge how the log is shown."""
        view, buffer = self.view, self.view.buffer
        words = ["following" if view.follow else "f follow", "w unwrap" if view.wrap else "w wrap"]
        if view.needle:
            words.append(f"“{view.needle}” n N" if view.match is not None else "not found")
        else:
            words.append("/ find")
        words.append("^s save")
        if buffer.dropped:
            words.append(f"{buffer.dropped:,} older lines dropped")
        self.foot((" · ".join(words), "$muted"))

    def on_log_view_changed(self) -> None:
        self.describe()

    def open_find(self) -> None:
        find = self.query_one("#log-find", Input)
        find.display = True
        find.focus()

    def close_find(self, *, keep: bool) -> None:
        find = self.query_one("#log-find", Input)
        find.display = False
        if not keep:
            find.value = ""
            self.view.needle = ""
        self.view.focus()

    @property
    def finding(self) -> bool:
        return bool(self.query_one("#log-find").display)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.view.needle = event.value

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.close_find(keep=True)
