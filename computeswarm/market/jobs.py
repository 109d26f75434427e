"""What the market keeps of jobs: metadata that the buyer signed and the job's seller updates."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from computeswarm.core.errors import (
    BadRequest,
    Conflict,
    JobNotFound,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from computeswarm.core.ids import JOB_ID_PATTERN
from computeswarm.core.jobs import JobPage, JobSubmission, JobUpdate, MarketJob
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState, check_progress
from computeswarm.market.stores.protocol import JobTotals, Store

MAX_SUBMISSION = 4 * 1024
"""Bytes of a signed one; a usual one has 600."""
MAX_HISTORY = 200
"""Jobs a page at most."""
TOTALS_SECONDS = 1.0
_TRIES = 8
"""Each but the first comes from another instance that was faster."""
_CURSOR = re.compile(rf"([0-9]{{1,13}})\.({JOB_ID_PATTERN})\Z", re.ASCII)


class Step(NamedTuple):
    """A job after an update, and what that adds to its node's counts."""

    job: MarketJob
    succeeded: int
    failed: int


class JobBook:
    """The jobs of a market, on a store that other instances may write too.

    Args:
        changed: told of every job that is new or goes on.
        monotonic: seconds, for how long sums are good.
    """

    def __init__(
        self,
        store: Store,
        *,
        changed: Callable[[MarketJob], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.totals = JobTotals({}, 0, 0, 0, 0)
        """As of the last ``refresh``."""
        self._store = store
        self._changed = changed
        self._monotonic = monotonic
        self._stale = True
        self._counted = 0.0

    async def open(self) -> None:
        """Read the sums.

        Raises:
            Unavailable: the store does not answer.
        """
        self.totals = await self._store.job_totals()
        self._counted, self._stale = self._monotonic(), False

    async def refresh(self) -> JobTotals:
        """The sums, on a shared store a second old at most; older while the store is away."""
        least = TOTALS_SECONDS if self._store.shared else 0.0
        if self._stale and self._monotonic() - self._counted >= least:
            try:
                await self.open()
            except Unavailable:
                self._counted = self._monotonic()  # ask no more than once a second then either
        return self.totals

    def changed_elsewhere(self, job: MarketJob) -> None:
        """Another instance has changed a job."""
        self._stale = True
        self._changed(job)

    async def get(self, job_id: str) -> MarketJob:
        """A job.

        Raises:
            JobNotFound: never submitted here.
            Unavailable: the store does not answer.
        """
        kept = await self._store.job(job_id)
        if kept is None:
            raise JobNotFound(f"The market knows no job {job_id}.", job_id=job_id)
        return kept[0]

    async def submit(
        self, signed: Signed, submission: JobSubmission, seller: str, now: int
    ) -> tuple[MarketJob, bool]:
        """Keep a new job; the same submission again finds the job it made.

        Raises:
            Unprocessable: it says more than a submission has to; nothing of a job's content may
                get here, and what is signed can't be cut.
            Conflict: another submission has this id.
            Unavailable, StorageFull: it was not kept, or nobody knows.
        """
        job = MarketJob(
            **submission.model_dump(exclude={"issued_at"}),
            seller=seller,
            state=JobState.CREATED,
            created_at=now,
            updated_at=now,
        )
        made = signed.model_dump_json()
        if signed.document.keys() - JobSubmission.model_fields.keys() or len(made) > MAX_SUBMISSION:
            raise Unprocessable("The market keeps a job's metadata and nothing else; leave it out.")
        kept, written, new = await self._store.add_job(job, made)
        if new:
            self._stale = True
            self._changed(job)
        elif Signed.model_validate_json(written) != signed:
            sentence = "Another job has this id; make a new one for a new job."
            raise Conflict(sentence, job_id=submission.job_id)
        return kept, new

    async def update(
        self,
        job_id: str,
        update: JobUpdate,
        *,
        node_id: str,
        session_key: bytes,
        counter: int,
        now: int,
    ) -> Step:
        """Take over what the job's seller says of it; the present state again changes no count.

        Args:
            session_key, counter: of the node's call, which was checked already; the store checks
                once more that neither was used up meanwhile.

        Raises:
            JobNotFound: never submitted here.
            Unauthorized: not this node's job, or the call is used up.
            InvalidTransition: the job can't get there from where it is.
            Unavailable, StorageFull: it was not kept, or nobody knows.
        """
        for attempt in range(_TRIES):
            old = await self.get(job_id)
            if old.node_id != node_id:
                raise Unauthorized("Only the seller of this job may say how it goes.")
            new = _stepped(old, update, now)
            if new == old:
                return Step(old, 0, 0)
            good, bad = _verdict(old, new)
            if await self._store.change_job(
                old,
                new,
                session_key=session_key,
                counter=counter,
                succeeded=good,
                failed=bad,
            ):
                self._stale = True
                self._changed(new)
                return Step(new, good, bad)
            if await self.get(job_id) == old:
                sentence = "The session is over or the call was seen before; register again."
                raise Unauthorized(sentence)
            await asyncio.sleep(0.001 * 2**attempt)
        raise Unavailable("Too many say at once how this job goes; try again.", retry_after=1)

    async def of_wallet(self, wallet: str, *, cursor: str = "", limit: int = 50) -> JobPage:
        """What a wallet bought and sold, newest first; its permit was checked.

        Raises:
            BadRequest: a cursor that is not ours.
            Unavailable: the store does not answer.
        """
        limit = max(1, min(limit, MAX_HISTORY))
        before = _read_cursor(cursor) if cursor else None
        found = await self._store.jobs_of(wallet, before=before, limit=limit + 1)
        shown = tuple(found[:limit])
        more = len(found) > limit
        following = f"{shown[-1].created_at}.{shown[-1].job_id}" if more else None
        return JobPage(jobs=shown, next=following)


def _stepped(old: MarketJob, update: JobUpdate, now: int) -> MarketJob:
    if update.state is not old.state:
        check_progress(old.state, update.state)
    new = old.model_copy(update=update.model_dump(exclude_none=True))
    return old if new == old else new.model_copy(update={"updated_at": max(now, old.updated_at)})


def _read_cursor(text: str) -> tuple[int, str]:
    read = _CURSOR.match(text)
    if read is None:
        raise BadRequest("The cursor is not of this list; start again without it.")
    return int(read[1]), read[2]


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
