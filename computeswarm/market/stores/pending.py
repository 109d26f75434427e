"""Leases that wait to be written: a node once, however long the database is away."""

from __future__ import annotations

import threading

import numpy as np

from computeswarm.market.rows import LEASE
from computeswarm.market.stores.protocol import Leases

_SLACK = 10_000


class Pending:
    """Kept by one thread and emptied by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: list[Leases] = []
        self._length = 0
        self._distinct = 0
        self._taken = 0

    def __len__(self) -> int:
        """How many are not known to be written; some may be of the same node."""
        return self._length + self._taken

    def add(self, leases: Leases) -> None:
        """Keep these; what was kept of the same nodes is older."""
        if len(leases):
            with self._lock:
                self._arrays.append(leases.copy())
                self._length += len(leases)
                if self._length > 2 * self._distinct + _SLACK:
                    self._compact()

    def written(self, leases: Leases) -> None:
        """Forget what was taken."""
        with self._lock:
            self._taken -= len(leases)

    def put_back(self, leases: Leases) -> None:
        """Keep what was taken and could not be written; what was kept since is newer."""
        with self._lock:
            self._taken -= len(leases)
            if len(leases):
                self._arrays.insert(0, leases)
                self._length += len(leases)

    def take(self, limit: int) -> Leases:
        """The oldest, a node once; at most ``limit``. To be ``written`` or ``put_back``."""
        with self._lock:
            if not self._arrays:
                return np.empty(0, LEASE)
            if len(self._arrays) > 1 or self._length > self._distinct:
                self._compact()
            whole = self._arrays.pop()
            rest = whole[limit:]
            if len(rest):
                self._arrays.append(rest)
            self._length = self._distinct = len(rest)
            self._taken += min(limit, len(whole))
            return whole[:limit]

    def _compact(self) -> None:
        whole = np.concatenate(self._arrays)
        # the last of each number: the first when read backwards
        _, backwards = np.unique(whole["number"][::-1], return_index=True)
        kept = whole[np.sort(len(whole) - 1 - backwards)]
        self._arrays = [kept]
        self._length = self._distinct = len(kept)
