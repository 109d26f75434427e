"""What an owner says to his running seller about its jobs; each key says why it can't."""

from __future__ import annotations

from collections.abc import Awaitable

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import SellerBackend
from computeswarm.tui.feeds import Poll
from computeswarm.tui.format import money, short_job
from computeswarm.tui.screens.base import ModeScreen
from computeswarm.tui.views import SellerItem, SellerJob
from computeswarm.tui.widgets.queue_pane import QueuePane


class SellerOrders(ModeScreen):
    """The orders of Seller mode; ``SellerScreen`` fills the panes."""

    def __init__(self) -> None:
        super().__init__()
        self.status: SellerItem | None = None
        self._seller: SellerBackend | None = None
        self._poll: Poll | None = None
        self._gone = ""
        """Why the seller does not answer; empty while it does."""

    @property
    def selected(self) -> SellerJob | None:
        return self.query_one(QueuePane).table.current

    def unreachable(self) -> str:
        """Why nothing can be said to the seller; empty while it can."""
        if self._seller is None or self.status is None:
            return "No seller is attached:  computeswarm seller  starts one."
        if self._gone:
            return "The seller does not answer; it goes on once it is back."
        return ""

    def refusal(self, action: str) -> str:
        if action not in ("pause", "drain", "evict"):
            return ""
        if why := self.unreachable():
            return why
        if action == "evict" and (self.selected is None or self.selected.state.terminal):
            return "No live job is under the cursor; ↑ goes to those that run."
        return ""

    def action_pause(self) -> None:
        if self.refused("pause") or self.status is None or self._seller is None:
            return
        if self.status.paused:
            self._do(self._seller.resume(), "New jobs are taken again.")
        else:
            self._do(self._seller.pause(), "Paused: jobs that run go on, no new ones are taken.")

    def action_drain(self) -> None:
        if self.refused("drain") or self.status is None or self._seller is None:
            return
        if self.status.mood in ("draining", "drained"):
            self._do(self._seller.resume(), "New jobs are taken again.")
        else:
            self._do(self._seller.drain(), "Draining: what is paid is finished, no new jobs.")

    def action_evict(self) -> None:
        job = self.selected
        if self.refused("evict") or job is None or self._seller is None:
            return
        from computeswarm.tui.modals.ask import AskModal

        seller = self._seller
        question = AskModal(
            f"End {short_job(job.job_id)}?",
            f"The buyer gets back all that he paid: {money(job.paid)} USDC.",
            "He keeps what the job wrote so far.",
            yes="End the job",
            no="Let it run",
        )
        self.app.push_screen(
            question,
            lambda sure: self._do(seller.evict(job.job_id), "Ended.") if sure else None,
        )

    def _do(self, work: Awaitable[None], done: str) -> None:
        self.run_worker(self._attempt(work, done), group="owner", exit_on_error=False)

    async def _attempt(self, work: Awaitable[None], done: str) -> None:
        try:
            await work
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")
        else:
            self.swarm.say(done)
        if self._poll is not None:
            self._poll.kick()
