"""Who waits, and in which order: by price, then by arrival, and nobody for ever.

A job that pays more than was asked when it was quoted counts as having come earlier:
``AGE_SECONDS`` for each time its offer doubles the asked price, ``MAX_DOUBLINGS`` at most. So the
order of two jobs never changes while they wait, waiting counts as much as paying, and nobody is
overtaken by a job that came more than an hour after him.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator

from computeswarm.seller.job import Job

AGE_SECONDS = 900
"""Of waiting, that are worth as much as to pay twice as much."""
MAX_DOUBLINGS = 4


def priority_seconds(offer: int, asked: int) -> int:
    """How much earlier than it comes a job counts; both in atoms for a GPU and hour."""
    if offer <= asked or asked <= 0:
        return 0
    return round(AGE_SECONDS * min(MAX_DOUBLINGS, math.log2(offer / asked)))


def rank(queued_ms: int, priority: int) -> int:
    """The lower goes first: unix milliseconds at which the job counts as having come."""
    return queued_ms - priority * 1000


class JobQueue:
    """Paid jobs that wait, in their order."""

    def __init__(self) -> None:
        self._ranks: dict[str, tuple[int, int, str]] = {}
        self._order: list[tuple[int, int, str]] = []
        self.version = 0
        """Changes with every change."""

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._ranks

    def __iter__(self) -> Iterator[str]:
        return iter([entry[2] for entry in self._order])

    def add(self, job: Job) -> bool:
        """Give a job its place: the same again after a restart; False where it has one."""
        if job.job_id in self._ranks:
            return False
        created, queued = job.phases.created or 0, job.phases.queued or 0
        entry = (rank(queued, job.quote.priority_seconds), created, job.job_id)
        self._ranks[job.job_id] = entry
        insort(self._order, entry)
        self.version += 1
        return True

    def remove(self, job_id: str) -> None:
        """It waits no more."""
        entry = self._ranks.pop(job_id)
        del self._order[bisect_left(self._order, entry)]
        self.version += 1

    def position(self, job_id: str) -> int | None:
        """1 is next; None where it does not wait."""
        entry = self._ranks.get(job_id)
        return None if entry is None else bisect_left(self._order, entry) + 1

    def place_of(self, queued_ms: int, priority: int) -> int:
        """Where a job would stand that came then."""
        return bisect_left(self._order, (rank(queued_ms, priority) + 1,)) + 1
