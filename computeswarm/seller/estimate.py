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
import sys
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
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for all jobs together."""

    slots: int
    memory_bytes: int
    disk_bytes: int = sys.maxsize


@dataclass
class _Floor:
    """Who has a place at some moment of the play."""

    room: Room
    inside: list[tuple[float, int, Work]] = field(default_factory=list)
    now: float = 0.0
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
        if works and sum(w.disk_bytes for w in works) + work.disk_bytes > self.room.disk_bytes:
            return False
        held = sum(len(w.held & work.fits) if w.held else w.gpus for w in works)
        return not work.gpus or len(work.fits) - held >= work.gpus

    def play(self, work: Work) -> float | None:
        """When it starts if everybody before it takes his longest time; None where never."""
        while not self.admits(work):
            if not self.inside:
                return None
            self.now = max(self.now, heapq.heappop(self.inside)[0])
        self.enter(work, self.now + (work.seconds or 0.0))
        return self.now


def latest_starts(
    running: Sequence[Work], waiting: Sequence[Work], room: Room
) -> list[float | None]:
    """Seconds until each of those that wait, in their order, starts at most; None for those of
    whom nobody can say."""
    floor, first = _Floor(room), _Floor(room)
    for work in running:
        floor.enter(work, work.seconds or 0.0)
        first.enter(work, work.seconds or 0.0)
    known = room.slots > 0 and all(work.seconds is not None for work in running)
    in_turn = max((work.seconds or 0.0 for work in running), default=0.0)
    kinds: set[frozenset[int]] = set()
    alone, alike, found = True, True, list[float | None]()
    for work in waiting:
        possible = len(work.fits) >= work.gpus
        told: float | None = None
        # one that lacks inputs, or waits for a GPU to be well again, may come in at any time
        alike = alike and work.ready and possible
        if alike:
            kinds |= {work.fits} if work.gpus else set()
            told = floor.play(work)
        if not work.ready or not possible:
            told = None
        elif alone and first.admits(work):
            told = 0.0
        elif not known:
            told = None
        elif not alike or len(kinds) > 1:
            told = in_turn
        found.append(told)
        alone = alone and not possible
        known = known and work.seconds is not None
        in_turn += work.seconds or 0.0
    return found


def starts_in(
    running: Sequence[Work], ahead: Sequence[Work], job: Work, room: Room
) -> float | None:
    """The same for a job that stands behind ``ahead``."""
    return latest_starts(running, [*ahead, job], room)[-1]
