"""What changed lately, so that a reader who was away for a while can be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from computeswarm.core.changes import PriceChanged
from computeswarm.core.jobs import MarketJob
from computeswarm.market.stores.protocol import Position

MAX_ENTRIES = 250_000
MAX_BATCHES = 3_600
"""A quarter of an hour of them, where each moment has one."""


@dataclass(slots=True)
class Batch:
    """What changed within one moment, each thing once.

    Of a node only *that* it changed is kept: a reader is told how it stands when it is told. So a
    batch that waits in the ring costs a number a node.
    """

    number: int
    at: float = 0.0
    """Unix seconds."""
    full: set[int] = field(default_factory=set)
    """Slots whose record changed, or that may have gone out of view and come back meanwhile."""
    hot: set[int] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    """Nodes that left. They come before ``full``: some may be back."""
    prices: dict[str, PriceChanged] = field(default_factory=dict)
    jobs: dict[str, MarketJob] = field(default_factory=dict)
    positions: list[Position] = field(default_factory=list)
    """Places in the shared log that were reached within this moment."""

    def __len__(self) -> int:
        return len(self.full) + len(self.hot) + len(self.left) + len(self.prices) + len(self.jobs)

    def add(self, later: Batch) -> None:
        """What a later one tells, on top."""
        self.full |= later.full
        self.hot |= later.hot
        self.left |= later.left
        self.prices |= later.prices
        self.jobs |= later.jobs


class Ring:
    """Recent batches, bounded by what they hold."""

    def __init__(self, *, entries: int = MAX_ENTRIES, batches: int = MAX_BATCHES) -> None:
        self._most_entries, self._most_batches = entries, batches
        self._batches: deque[Batch] = deque()
        self._numbers: dict[Position, int] = {}
        self._entries = 0
        self._floor = 0

    def add(self, batch: Batch) -> None:
        """Keep a batch; numbers rise."""
        self._batches.append(batch)
        self._entries += len(batch) + len(batch.positions)
        for position in batch.positions:
            self._numbers[position] = batch.number
        while self._entries > self._most_entries or len(self._batches) > self._most_batches:
            old = self._batches.popleft()
            self._entries -= len(old) + len(old.positions)
            self._floor = old.number
            for position in old.positions:
                self._numbers.pop(position, None)

    def clear(self, number: int) -> None:
        """Forget what was up to a batch."""
        self._batches.clear()
        self._numbers.clear()
        self._entries, self._floor = 0, number

    def number_of(self, position: Position) -> int | None:
        """The batch within which a place in the shared log was reached, if it is kept."""
        return self._numbers.get(position)

    def after(self, number: int) -> Sequence[Batch] | None:
        """The batches after one; None where some of them are not kept any more."""
        if number < self._floor:
            return None
        found: deque[Batch] = deque()
        for batch in reversed(self._batches):
            if batch.number <= number:
                break
            found.appendleft(batch)
        return found
