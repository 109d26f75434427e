"""What the market keeps of jobs: metadata that the buyer signed and the job's seller updates."""

from __future__ import annotations

from computeswarm.core.errors import Conflict, JobNotFound
from computeswarm.core.jobs import JobSubmission, JobUpdate, MarketJob
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState, check_progress
from computeswarm.market.directory import Node
from computeswarm.market.store import Store


class Jobs:
    """The job book. Callers hold the job's lock around every change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        totals = store.job_totals()
        self.by_state: dict[str, int] = dict(totals.by_state)
        self.ended = totals.ended
        self.metered_ms = totals.metered_ms
        self.paid = totals.paid

    def get(self, job_id: str) -> MarketJob:
        """A job.

        Raises:
            JobNotFound: never submitted here.
        """
        return self._load(job_id)[0]

    async def submit(
        self, signed: Signed, submission: JobSubmission, seller: str, now: int
    ) -> tuple[MarketJob, bool]:
        """Keep a new job; the same submission again finds the job it made.

        Raises:
            Conflict: another submission has this id.
        """
        kept = self._store.load_job(submission.job_id)
        if kept is not None:
            if Signed.model_validate_json(kept[1]) != signed:
                sentence = "Another job has this id; make a new one for a new job."
                raise Conflict(sentence, job_id=submission.job_id)
            return kept[0], False
        job = MarketJob(
            **submission.model_dump(exclude={"issued_at"}),
            seller=seller,
            state=JobState.CREATED,
            created_at=now,
            updated_at=now,
        )
        await self._store.save_job(job, signed.model_dump_json())
        self._count(None, job)
        return job, True

    async def update(self, job_id: str, update: JobUpdate, node: Node, now: int) -> MarketJob:
        """Take over what the job's seller says of it; the present state again changes no count.

        Raises:
            JobNotFound: never submitted here.
            InvalidTransition: the job can't get there from where it is.
        """
        old, submission = self._load(job_id)
        if update.state is not old.state:
            check_progress(old.state, update.state)
        given = update.model_dump(exclude_none=True)
        new = old.model_copy(update=given)
        if new == old:
            return old
        new = new.model_copy(update={"updated_at": now})
        good, bad = _verdict(old, new)
        row = node.to_row(succeeded=node.succeeded + good, failed=node.failed + bad)
        await self._store.save_job(new, submission, row)
        node.succeeded += good
        node.failed += bad
        self._count(old, new)
        return new

    def _load(self, job_id: str) -> tuple[MarketJob, str]:
        kept = self._store.load_job(job_id)
        if kept is None:
            raise JobNotFound(f"The market knows no job {job_id}.", job_id=job_id)
        return kept

    def _count(self, old: MarketJob | None, new: MarketJob) -> None:
        for job, sign in ((old, -1), (new, 1)):
            if job is None:
                continue
            self.by_state[job.state] = self.by_state.get(job.state, 0) + sign
            self.paid += sign * (job.paid - job.refunded)
            if job.state.terminal:
                self.ended += sign
                self.metered_ms += sign * job.metered_ms


def _verdict(old: MarketJob, new: MarketJob) -> tuple[int, int]:
    """Whether this step speaks for the node (1, 0), against it (0, 1), or neither.

    A program that ends with its own exit code is its author's matter, not the node's.
    """
    if new.state is old.state:
        return 0, 0
    if new.state is JobState.SUCCEEDED:
        return 1, 0
    lost = new.state is JobState.SELLER_LOST
    return 0, int(lost or (new.state is JobState.FAILED and new.exit_code is None))
