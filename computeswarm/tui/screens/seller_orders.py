"""What an owner says to his running seller about its jobs and GPUs; each key says why it can't."""

from __future__ import annotations

from collections.abc import Awaitable

from computeswarm.tui.backend import SellerBackend
from computeswarm.tui.feeds import Poll
from computeswarm.tui.format import clock, money, short_job
from computeswarm.tui.screens.base import ModeScreen
from computeswarm.tui.views import SellerItem, SellerJob
from computeswarm.tui.widgets.queue_pane import QueuePane, wants

_ANSWERS = ("accept", "reject")


class SellerOrders(ModeScreen):
    """The orders of Seller mode; ``SellerScreen`` fills the panes."""

    def __init__(self) -> None:
        super().__init__()
        self.status: SellerItem | None = None
        self._seller: SellerBackend | None = None
        self._poll: Poll | None = None
        self._gone = ""
        """Why the seller does not answer; empty while it does."""
        self._asked: frozenset[str] = frozenset()
        """Jobs whose question has been told of."""

    # -- what a key is about

    @property
    def selected(self) -> SellerJob | None:
        return self.query_one(QueuePane).table.current

    @property
    def asking(self) -> SellerJob | None:
        """The job that an answer is for: the one under the cursor, or else the only one."""
        return self.query_one(QueuePane).asking

    def gpu_under_cursor(self) -> int | None:
        """The GPU that hold is for; None where the screen has no cursor on one."""
        return None

    def _questions(self) -> list[SellerJob]:
        jobs = self.status.jobs if self.status is not None else ()
        return [job for job in jobs if job.decide_by is not None]

    # -- why not

    def unreachable(self) -> str:
        """Why nothing can be said to the seller; empty while it can."""
        if self._seller is None or self.status is None:
            return "No seller is attached:  computeswarm seller  starts one."
        if self._gone:
            return "The seller does not answer; it goes on once it is back."
        return ""

    def refusal(self, action: str) -> str:
        if action not in ("pause", "drain", "evict", "hold", *_ANSWERS):
            return ""
        if why := self.unreachable():
            return why
        if action == "evict" and (self.selected is None or self.selected.state.terminal):
            return "No live job is under the cursor; ↑ goes to those that run."
        if action in _ANSWERS and self.asking is None:
            return self._no_question()
        return ""

    def _no_question(self) -> str:
        if (several := len(self._questions())) > 1:
            return f"{several} jobs ask; put the cursor on the one you mean."
        if self.status is not None and self.status.asks_owner:
            return "No job asks just now; you are told when one does."
        return 'No job asks: they start by themselves. The setting accept = "ask" lets you decide.'

    # -- questions

    def tell_of_questions(self, status: SellerItem) -> None:
        """Say once of each job that asks: there is little time to answer."""
        asking = {job.job_id: job for job in status.jobs if job.decide_by is not None}
        fresh = [job for job_id, job in asking.items() if job_id not in self._asked]
        self._asked = frozenset(asking)
        if len(fresh) == 1:
            self.swarm.alert(self._question(fresh[0]), title="A job asks you", severity="warning")
        elif fresh:
            text = f"{len(fresh)} jobs wait for your yes; a lets one in, r turns it away."
            self.swarm.alert(text, title="Jobs ask you", severity="warning")

    def _question(self, job: SellerJob) -> str:
        left = clock(max(0.0, (job.decide_by or self.now) - self.now))
        return (
            f"{short_job(job.job_id)} {job.name} wants {wants(job)}. a lets it in, r turns it away;"
            f" it goes back by itself in {left}."
        )

    def action_accept(self) -> None:
        job = self.asking
        if self.refused("accept") or job is None or self._seller is None:
            return
        self._do(self._seller.accept(job.job_id), f"{short_job(job.job_id)} is let in.")

    def action_reject(self) -> None:
        job = self.asking
        if self.refused("reject") or job is None or self._seller is None:
            return
        from computeswarm.tui.modals.reject import RejectModal

        seller, done = self._seller, f"{short_job(job.job_id)} is turned away; all goes back."

        def answered(reason: str | None) -> None:
            if reason is not None:
                self._do(seller.reject(job.job_id, reason), done)

        self.app.push_screen(RejectModal(job), answered)

    # -- GPUs

    def action_hold(self) -> None:
        """Hold or release: the GPU under the cursor, the only one, or the one that is chosen."""
        if self.refused("hold") or self.status is None:
            return
        gpus, index = self.status.gpus, self.gpu_under_cursor()
        if index is None and len(gpus) > 1:
            from computeswarm.tui.modals.hold import HoldModal

            self.app.push_screen(HoldModal(gpus), self._hold)
        else:
            self._hold(index or 0)

    def _hold(self, index: int | None) -> None:
        if index is None or self.status is None or self._seller is None:
            return
        gpu = next((gpu for gpu in self.status.gpus if gpu.index == index), None)
        held = not (gpu.held if gpu is not None else self.status.host.held)
        name = f"GPU {index}" if gpu is not None else "The machine"
        runs = gpu.job_id if gpu is not None else self._at_work()
        goes_on = f" {short_job(runs)} goes on." if runs else ""
        done = f"{name} is yours: no new job.{goes_on}" if held else f"{name} takes jobs again."
        self._do(self._seller.hold(index, held), done)

    def _at_work(self) -> str:
        jobs = self.status.jobs if self.status is not None else ()
        return next((job.job_id for job in jobs if job.started_ms and not job.state.terminal), "")

    # -- the seller and its jobs

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
        await self.attempt(work, done)
        if self._poll is not None:
            self._poll.kick()
