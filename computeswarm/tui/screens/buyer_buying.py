"""From a node to a job: which draft the wizard begins with, the payment, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

from computeswarm.tui.draft import JobDraft
from computeswarm.tui.modals.wizard import Start, WizardModal
from computeswarm.tui.modals.wizard_notes import Facts
from computeswarm.tui.screens.base import ModeScreen
from computeswarm.tui.views import JobItem, NodeItem
from computeswarm.tui.widgets.log_view import LogView


class BuyerBuying(ModeScreen):
    """The way to a purchase."""

    def __init__(self) -> None:
        super().__init__()
        self.draft: JobDraft | None = None
        """What was written and not bought, with the secrets that were typed."""
        self.balance: int | None = None
        self.jobs: list[JobItem] = []
        self._folders: dict[str, str] = {}
        self._bought_job = ""

    def kick(self, *names: str) -> None:
        """Fetch now what has surely changed."""
        raise NotImplementedError

    def draft_of(self, job: JobItem | None) -> JobDraft | None:
        """What to buy a job again from: its own draft, or the last that was bought."""
        memory = self.swarm.memory
        return (memory.job_draft(job.job_id) if job is not None else None) or memory.last_job

    def buy_again(self, draft: JobDraft) -> None:
        """The wizard's last step with everything filled in."""
        node = {n.node_id: n for n in self.listed_nodes()}.get(draft.node_id)
        where = "" if node or not draft.node_id else "; its node is not listed here now"
        self._open(draft, node, f"The same again: {draft.name}{where}", review=True)

    def listed_nodes(self) -> list[NodeItem]:
        """The nodes that are shown now."""
        raise NotImplementedError

    def open_wizard(self, node: NodeItem | None) -> None:
        """A job for one node, or for the cheapest that fits."""
        memory = self.swarm.memory
        draft, banner = self.draft or memory.draft, ""
        if draft is not None:
            banner = f"Your draft of {draft.name or 'a job'}; ^n starts with empty fields"
        elif (draft := memory.last_job) is not None:
            banner = f"As your last job, {draft.name}; ^n starts with empty fields"
        self._open(draft, node, banner, review=node is None)

    def _open(
        self, draft: JobDraft | None, node: NodeItem | None, banner: str, *, review: bool
    ) -> None:
        backends = self.swarm.backends
        assert backends is not None  # or it was refused
        if backends.buyer.identity.locked:
            from computeswarm.tui.modals.unlock import UnlockModal

            def opened(yes: bool | None) -> None:
                if yes:
                    self._open(draft, node, banner, review=review)

            self.app.push_screen(UnlockModal(backends.buyer), opened)
            return
        pay = backends.buyer.identity.pay
        fresh = replace(JobDraft(), pay=pay, gpus="1" if node and node.gpu_count else "0")
        if draft is None:
            example = self.swarm.example
            draft = JobDraft.from_example(example) if example else fresh
            draft = replace(draft, pay=fresh.pay, gpus=fresh.gpus)
        draft = replace(draft, node_id=node.node_id if node else "")
        start = Start("Review" if review and draft.complete else "Script", banner, fresh)
        wizard = WizardModal(Facts(draft, node, self.jobs, pay), start, self._keep)
        self.app.push_screen(wizard, self._drafted)

    def _keep(self, draft: JobDraft) -> None:
        self.draft = draft
        self.swarm.memory.draft = draft

    def _drafted(self, result: tuple[JobDraft, bool] | None) -> None:
        if result is None:
            return
        self.draft, wanted = result
        if wanted:
            from computeswarm.tui.modals.payment import PaymentModal

            draft = self.draft
            modal = PaymentModal(draft, self.balance, lambda job_id: self._became(job_id, draft))
            self.app.push_screen(modal, self._bought)

    def _became(self, job_id: str, draft: JobDraft) -> None:
        """A draft is a job now: it is not to be offered as one that was never bought."""
        self._folders[job_id] = draft.output
        self.swarm.memory.bought(job_id, draft)
        if self.draft == draft:
            self.draft = None

    def _bought(self, job_id: str | None) -> None:
        self.kick("jobs", "balance", "nodes")
        if job_id:
            self._bought_job = job_id  # the cursor goes there as soon as the journal lists it
            self.query_one(LogView).focus()
