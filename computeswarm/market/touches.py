"""Which slots changed since somebody last asked, by what changed there."""

from __future__ import annotations

import numpy as np

from computeswarm.market.columns import Array

_NONE = np.zeros(0, np.int64)


class Touched:
    """Slots of one kind of change. Nothing is kept until somebody wants to know."""

    def __init__(self) -> None:
        self.wanted = False
        self._single: list[int] = []
        self._many: list[Array] = []

    def add(self, slot: int) -> None:
        """A slot changed."""
        if self.wanted:
            self._single.append(slot)

    def add_many(self, slots: Array) -> None:
        """Several did."""
        if self.wanted:
            self._many.append(slots)

    def drain(self) -> Array:
        """What changed since the last call; a slot may come several times."""
        if not self._single and not self._many:
            return _NONE
        found = np.concatenate([np.array(self._single, np.int64), *self._many])
        self.clear()
        return found

    def clear(self) -> None:
        """Forget what changed: nobody keeps anything that it moves."""
        self._single, self._many = [], []


class Touches:
    """Kinds of change, told apart since each moves nodes in other orders."""

    def __init__(self) -> None:
        self.records = Touched()
        """Nodes that came, left or changed their record."""
        self.leases = Touched()
        """Status, queue or running jobs."""
        self.figures = Touched()
        """Uptime or counts of jobs, and what follows from them."""
