"""Leases that wait to be written: a node once, however long the database is away."""

from __future__ import annotations

import threading

import numpy as np

from computeswarm.market.rows import LEASE
from computeswarm.market.stores.protocol import Leases

_ROOM = 1_024


class Pending:
    """Kept by one thread and emptied by another.

    A node's number is its place, as numbers are dense: keeping one costs no search and no sorting,
    so that the event loop never waits for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Leases = np.zeros(_ROOM, LEASE)
        self._waiting = np.zeros(_ROOM, np.bool_)
        self._taken = 0
        self._next = 0

    def __len__(self) -> int:
        """How many nodes' newest are not known to be written."""
        return int(np.count_nonzero(self._waiting)) + self._taken

    def add(self, leases: Leases) -> None:
        """Keep these; what was kept of the same nodes is older."""
        if len(leases):
            numbers = leases["number"]
            with self._lock:
                self._make_room(int(numbers.max()) + 1)
                self._newest[numbers] = leases
                self._waiting[numbers] = True

    def take(self, limit: int) -> Leases:
        """Some, at most ``limit``, each in its turn. To be ``written`` or ``put_back``."""
        with self._lock:
            waiting = np.flatnonzero(self._waiting)
            turn = int(np.searchsorted(waiting, self._next))
            numbers = waiting[turn : turn + limit]
            if len(numbers) < limit:
                numbers = np.concatenate([numbers, waiting[: min(turn, limit - len(numbers))]])
            if len(numbers):
                self._next = int(numbers[-1]) + 1
            self._waiting[numbers] = False
            self._taken += len(numbers)
            return self._newest[numbers]

    def written(self, leases: Leases) -> None:
        """Forget what was taken."""
        with self._lock:
            self._taken -= len(leases)

    def put_back(self, leases: Leases) -> None:
        """Keep what was taken and could not be written, or what came of the same nodes since."""
        with self._lock:
            self._taken -= len(leases)
            self._waiting[leases["number"]] = True

    def _make_room(self, least: int) -> None:
        if least > len(self._newest):
            length = max(least, 2 * len(self._newest))
            for name in ("_newest", "_waiting"):
                old = getattr(self, name)
                grown = np.zeros(length, old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
