"""What a buyer does with a node or a job: rent, watch, cancel, fetch. Each key opens its dialog."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

from textual import on

from computeswarm.tui.format import short_job
from computeswarm.tui.logbuffer import LogBuffer
from computeswarm.tui.screens.buyer_buying import BuyerBuying
from computeswarm.tui.views import JobItem, NodeItem
from computeswarm.tui.widgets.job_pane import JobPane
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.node_pane import NodePane


class BuyerOrders(BuyerBuying):
    """The actions of Buyer mode, and why one can't run; ``BuyerScreen`` fills the panes."""

    def __init__(self) -> None:
        super().__init__()
        self._logs: dict[str, LogBuffer] = {}

    @property
    def selected_job(self) -> JobItem | None:
        return self.query_one(JobPane).table.current

    @property
    def selected_node(self) -> NodeItem | None:
        return self.query_one(NodePane).table.current

    def refusal(self, action: str) -> str:
        if action in ("new_job", "rent", "again"):
            return self._cannot_buy(action)
        if action == "facets":
            return "" if self.swarm.backends else "Not connected yet; this takes a moment."
        if action == "detail":
            return "" if self.selected_node else "No node is under the cursor."
        if action not in ("cancel_job", "download", "receipt", "logs"):
            return ""
        job = self.selected_job
        if job is None:
            return "There is no job yet; n starts one."
        if action == "cancel_job" and job.ended:
            return f"This job has ended ({job.state}); there is nothing to cancel."
        if action == "download" and not job.outputs_ready:
            return "No outputs to fetch." if job.ended else "Outputs come when the job has ended."
        return ""

    def _cannot_buy(self, action: str) -> str:
        if self.swarm.backends is None:
            return "Not connected yet; this takes a moment."
        if not self.swarm.backends.buyer.identity.address:
            return "You have no wallet yet: W leads through making one, or  computeswarm wallet new"
        if barred := self.swarm.backends.buyer.identity.barred:
            return barred
        if action == "rent" and self.selected_node is None:
            return "No node is under the cursor."
        if action == "again" and self.draft_of(self.selected_job) is None:
            return "This app remembers no job that it bought; n starts one."
        return ""

    def action_again(self) -> None:
        """The selected job once more, or the last one that is remembered."""
        if not self.refused("again") and (draft := self.draft_of(self.selected_job)):
            self.buy_again(draft)

    def action_rent(self) -> None:
        """Enter: on a node rent it, on a job show its log or receipt."""
        if self.query_one(JobPane).table.has_focus:
            job = self.selected_job
            if job is not None and job.ended:
                self.action_receipt()
            else:
                self.action_logs()
        elif not self.refused("rent") and (node := self.selected_node):
            self.open_wizard(node)

    def action_new_job(self) -> None:
        if not self.refused("new_job"):
            self.open_wizard(None)

    def action_detail(self) -> None:
        node = self.selected_node
        if not self.refused("detail") and node is not None:
            from computeswarm.tui.modals.detail import DetailModal

            self.app.push_screen(DetailModal(node, self.now))

    def action_logs(self) -> None:
        if not self.refused("logs"):
            self.query_one("#log").focus()

    def action_receipt(self) -> None:
        job, backends = self.selected_job, self.swarm.backends
        if not self.refused("receipt") and job is not None and backends is not None:
            from computeswarm.tui.modals.receipt import ReceiptModal

            self.app.push_screen(ReceiptModal(job, backends.buyer))

    def action_copy(self) -> None:
        job, node = self.selected_job, self.selected_node
        if self.query_one(JobPane).table.has_focus or isinstance(self.focused, LogView):
            if job is not None:
                self.swarm.copy(job.job_id, "job id")
        elif node is not None:
            self.swarm.copy(node.node_id, "node id")

    def action_cancel_job(self) -> None:
        job = self.selected_job
        if self.refused("cancel_job") or job is None:
            return
        from computeswarm.tui.modals.ask import AskModal

        question = AskModal(
            f"Cancel {job.name or short_job(job.job_id)}?",
            "It is ended now; what it wrote so far is kept, the unused seconds come back.",
            yes="Cancel the job",
            no="Let it run",
        )
        self.app.push_screen(question, lambda sure: self._cancel(job) if sure else None)

    def _cancel(self, job: JobItem) -> None:
        backends = self.swarm.backends
        assert backends is not None
        self.run_worker(
            self._attempt(backends.buyer.cancel(job.job_id), "Cancelled."),
            group="cancel",
            exit_on_error=False,
        )

    async def _attempt(self, work: Awaitable[None], done: str) -> None:
        await self.attempt(work, done)
        self.kick("jobs", "balance")

    def action_download(self) -> None:
        job, backends = self.selected_job, self.swarm.backends
        if self.refused("download") or job is None or backends is None:
            return
        from computeswarm.tui.modals.download import DownloadModal

        folder = self._folders.get(job.job_id, "")
        self.app.push_screen(DownloadModal(job, backends.buyer, folder))

    @on(LogView.SaveAsked)
    def _save_log(self) -> None:
        job = self.selected_job
        if job is None:
            return
        from computeswarm.tui.modals.save import SaveModal

        buffer = self._logs.get(job.job_id, LogBuffer())
        self.app.push_screen(SaveModal(Path(f"{short_job(job.job_id)}.log"), buffer.text()))
