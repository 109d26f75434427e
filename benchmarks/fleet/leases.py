"""Heartbeats of very many nodes as arrays of leases: what sockets and two cores can't carry."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from computeswarm.market.rows import LEASE

LEASE_BEATS = 3
_IDLE, _BUSY = 0, 1


class LeaseTraffic:
    """Who beats when, and what it says; sessions end and begin by the dice of one seed.

    Args:
        numbers: the store's numbers of the nodes.
        seqs: of their registrations.
        interval: seconds between two heartbeats of a node, give or take a tenth.
        session_seconds: how long a node stays up on average; it is away a third of that.
    """

    def __init__(
        self,
        numbers: npt.NDArray[np.int64],
        seqs: npt.NDArray[np.int64],
        *,
        now: float,
        interval: float,
        session_seconds: float = 6 * 3_600.0,
        seed: int = 1,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._numbers, self._seqs = numbers, seqs
        self._interval, self._session = interval, session_seconds
        count = len(numbers)
        self._next = now + self._rng.random(count) * interval
        self._turns = now + self._rng.exponential(session_seconds, count)
        self._up = np.ones(count, np.bool_)
        self._counter = np.zeros(count, np.int64)
        self._alive = np.zeros(count)
        self._status = (self._rng.random(count) < 0.4).astype(np.uint8)
        self._horizon = now
        self._soon = np.zeros(0, np.int64)
        self._times = np.zeros(0)
        self.beats = 0
        self.crashes = 0

    @property
    def up(self) -> int:
        """How many nodes beat."""
        return int(np.count_nonzero(self._up))

    def due(self, now: float) -> npt.NDArray[np.void]:
        """The heartbeats sent since the last call, as ``rows.LEASE``."""
        if now >= self._horizon:
            self._look_ahead(now)
        until = int(np.searchsorted(self._times, now, side="right"))
        due, self._soon, self._times = (
            self._soon[:until], self._soon[until:], self._times[until:],
        )  # fmt: skip
        due = due[self._up[due]]
        count = len(due)
        flips = due[self._rng.random(count) < 0.1]  # a job begins or ends
        self._status[flips] = np.where(self._status[flips] == _IDLE, _BUSY, _IDLE)
        jitter = self._rng.uniform(0.9, 1.1, count)
        self._next[due] = now + self._interval * jitter
        self._counter[due] += 1
        self._alive[due] += self._interval
        self.beats += count
        made = np.zeros(count, LEASE)
        made["number"], made["seq"] = self._numbers[due], self._seqs[due]
        made["counter"], made["last_seen"] = self._counter[due], now
        made["lease_until"] = now + self._interval * jitter * LEASE_BEATS
        made["alive_seconds"] = self._alive[due]
        made["status"] = made["running"] = self._status[due]
        return made

    def silence(self, share: float) -> npt.NDArray[np.int64]:
        """Let a share of those that are up vanish without a word, for good; their numbers."""
        up = np.flatnonzero(self._up)
        gone = self._rng.choice(up, int(len(up) * share), replace=False)
        self._up[gone] = False
        self._turns[gone] = np.inf
        return self._numbers[gone]

    def _look_ahead(self, now: float) -> None:
        """Let sessions end and begin, and see who beats within the next second: looking at all
        nodes costs more than a second's heartbeats."""
        turning = np.flatnonzero(self._turns <= now)
        ends = self._up[turning]
        self.crashes += int(np.count_nonzero(ends))
        self._up[turning] = ~ends
        wait = np.where(ends, self._session / 3, self._session)
        self._turns[turning] = now + self._rng.exponential(wait)
        self._next[turning] = now
        self._horizon = now + min(1.0, self._interval / 2)
        soon = np.flatnonzero(self._up & (self._next <= self._horizon))
        self._soon = soon[np.argsort(self._next[soon])]
        self._times = self._next[self._soon]
