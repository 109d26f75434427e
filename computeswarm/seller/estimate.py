"""When a waiting job starts at the latest, from what runs and what stands before it.

Never too early by construction, as long as nobody who pays more comes, no job that runs outlives
its time limit, and between two jobs passes no more than ``TURNOVER_SECONDS``:

- Where all GPUs that waiting jobs could use are the same to them, jobs start in their order as
  soon as there is room, so a job that ends earlier delays nobody, and the order played through
  with everybody's longest time is the latest.
- Where GPUs differ, or a job before it still lacks inputs, an early end may lead to another
  placement that delays a later job. Then the latest is: all of them one after the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

TURNOVER_SECONDS = 45.0
"""From one job's last second to the next one's first: outputs, cleaning, sandbox, first line."""


@dataclass(frozen=True, slots=True)
class Work:
    """A job as far as it matters to those behind it."""

    seconds: float | None
    """How long it holds its place at most, from its start or, if it runs, from now; None where
    nobody knows."""
    memory_bytes: int
    gpus: int = 0
    """How many it needs."""
    fits: frozenset[int] = frozenset()
    """Which GPUs that are well would do."""
    held: frozenset[int] = frozenset()
    """Those that it has, if it runs."""
    ready: bool = True
    """All inputs are there."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for all jobs together."""

    slots: int
    memory_bytes: int


@dataclass
class _Floor:
    """Who has a place at some moment of the play."""

    room: Room
    inside: list[tuple[float, int, Work]] = field(default_factory=list)
    count: int = 0

    def enter(self, work: Work, until: float) -> None:
        self.count += 1
        heapq.heappush(self.inside, (until, self.count, work))

    def admits(self, work: Work) -> bool:
        works = [each for *_, each in self.inside]
        if len(works) >= self.room.slots:
            return False
        if sum(w.memory_bytes for w in works) + work.memory_bytes > self.room.memory_bytes:
            return False
        held = sum(len(w.held & work.fits) if w.held else w.gpus for w in works)
        return not work.gpus or len(work.fits) - held >= work.gpus


def starts_in(
    running: Sequence[Work], ahead: Sequence[Work], job: Work, room: Room
) -> float | None:
    """Seconds until ``job`` starts, at most; None where nobody can say.

    Args:
        ahead: those that wait before it, in their order.
    """
    if not job.ready or len(job.fits) < job.gpus or job.memory_bytes > room.memory_bytes:
        return None
    before = [work for work in ahead if len(work.fits) >= work.gpus]  # others wait for a GPU
    floor = _Floor(room)
    for work in running:
        floor.enter(work, work.seconds or 0.0)
    if not before and floor.admits(job):
        return 0.0
    known = [work.seconds for work in (*running, *before) if work.seconds is not None]
    if len(known) < len(running) + len(before) or room.slots < 1:
        return None
    kinds = {work.fits for work in (*before, job) if work.gpus}
    # one that waits for a GPU to be well again may come in between at any time
    if len(kinds) > 1 or len(before) < len(ahead) or not all(work.ready for work in before):
        parked = [work.seconds for work in ahead if len(work.fits) < work.gpus]
        if None in parked:
            return None
        rest = sum(seconds or 0.0 for seconds in (*(w.seconds for w in before), *parked))
        return max((work.seconds or 0.0 for work in running), default=0.0) + rest
    return _played(floor, [*before, job])


def _played(floor: _Floor, works: Sequence[Work]) -> float | None:
    """When the last of these starts if everybody takes his longest time."""
    now = 0.0
    for work in works:
        while not floor.admits(work):
            if not floor.inside:
                return None
            now = max(now, heapq.heappop(floor.inside)[0])
        floor.enter(work, now + (work.seconds or 0.0))
    return now
