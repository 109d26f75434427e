"""Leases: how long a sign of life counts, who has gone offline, and when not to believe it.

A node's lease ends without anything being done at the time, so a million nodes need no timers. What
is done each second is to look over all of them at once for those whose lease is over, and to doubt
it where too many would go together: then it is rather the market that can't hear (Eureka's
self-preservation).
"""

from __future__ import annotations

import math

import numpy as np

from computeswarm.core.logs import get_logger
from computeswarm.core.nodes import HeartbeatReply, NodeStatus
from computeswarm.market.columns import Array
from computeswarm.market.rows import STATUSES
from computeswarm.market.table import NodeTable

HEARTBEAT_SECONDS = 30
LEASE_BEATS = 3
BEATS_PER_SECOND = 33_000
"""What all instances together are asked to take; a larger fleet is told to beat less often."""
LOOK_SECONDS = 1.0
_QUICK_LOOK_SECONDS, _QUICK_SLOTS = 0.1, 20_000
"""A small market is looked over in microseconds."""
BRAKE_SHARE = 0.15
BRAKE_NODES = 20
"""Below that, a few sellers who switch off together are nothing strange."""
BRAKE_SECONDS = 900.0
GRACE_BEATS = 2
LISTENED_SECONDS = 5.0
"""Another instance writes leases twice a second."""
GRACE_SHARE = 0.5
"""So many may not have come back after a start: they went while nobody listened, not all at once.
Beyond that the market has reason to doubt itself."""
OFFLINE = STATUSES.index(NodeStatus.OFFLINE)
_JITTER_PERCENT = 10
_log = get_logger("market")


class Pace:
    """How often nodes are told to send a sign of life, and how long each one counts."""

    def __init__(self, base_seconds: int = HEARTBEAT_SECONDS) -> None:
        self._base = base_seconds
        self.interval_seconds = base_seconds
        self.replies: tuple[tuple[bytes, int], ...] = ()
        """Heartbeat replies as JSON with the lease each tells of (seconds), 10 % to both sides."""
        self._tell()

    @property
    def lease_seconds(self) -> int:
        """A lease before jitter."""
        return self.interval_seconds * LEASE_BEATS

    def follow(self, nodes: int) -> None:
        """Adapt to a fleet of so many nodes."""
        wanted = max(self._base, math.ceil(nodes / BEATS_PER_SECOND))
        if wanted != self.interval_seconds:
            self.interval_seconds = wanted
            self._tell()

    def told(self, slot: int, counter: int) -> tuple[bytes, int]:
        """What a node is told now: the reply, and the lease in seconds that it tells of.

        Nodes that beat together drift apart: each gets another jitter, and each time another.
        """
        return self.replies[(slot + 5 * counter) % len(self.replies)]

    def _tell(self) -> None:
        made = []
        for percent in range(100 - _JITTER_PERCENT, 100 + _JITTER_PERCENT + 1):
            told = max(1, round(self.interval_seconds * percent / 100))
            reply = HeartbeatReply(heartbeat_seconds=told, lease_seconds=told * LEASE_BEATS)
            made.append((reply.model_dump_json().encode(), told * LEASE_BEATS))
        self.replies = tuple(made)


class Leases:
    """Notices who goes offline, and holds it back where too many would."""

    def __init__(self, table: NodeTable, *, base_seconds: int = HEARTBEAT_SECONDS) -> None:
        self.pace = Pace(base_seconds)
        self.online = 0
        self.expired = 0
        """Nodes that went offline, since the start."""
        self.held = 0
        """Nodes that stay listed though their lease is over, as too many would go at once."""
        self._table = table
        self._braked_at: float | None = None
        self._grace = math.nan
        self._looked_at = -math.inf

    @property
    def interval_seconds(self) -> int:
        """How often a node is told to beat, before jitter."""
        return self.pace.interval_seconds

    @property
    def lease_seconds(self) -> int:
        """What a lease lasts, before jitter."""
        return self.pace.lease_seconds

    @property
    def braked(self) -> bool:
        """Whether nodes are held."""
        return self._braked_at is not None

    def begin(self, now: float) -> None:
        """Give everybody the chance of a heartbeat after a start.

        Who was online at the last sign of life that was written is online for two more intervals
        and no longer; who had gone by then stays offline. Where others have listened until now,
        nobody missed anything.
        """
        columns, size = self._table.columns, self._table.size
        online = columns.status[:size] < OFFLINE
        ends = columns.lease_until[:size]
        newest = float(columns.last_seen[:size].max(initial=0.0))
        self._table.expire(np.flatnonzero(online & (ends <= min(newest, now))))
        self.online = self._count()
        self.pace.follow(self.online)
        if now - newest < LISTENED_SECONDS:
            return
        grace = now + GRACE_BEATS * self.pace.interval_seconds
        kept = np.flatnonzero(online & (ends > newest) & (ends < grace))
        # a beat counts all time within the lease as covered, and that while we were down is not
        columns.alive_seconds[kept] -= np.maximum(0.0, now - ends[kept])
        ends[kept] = self._grace = grace

    def due(self, now: float) -> bool:
        """Whether it is time for a look."""
        quick = self._table.size <= _QUICK_SLOTS
        return now - self._looked_at >= (_QUICK_LOOK_SECONDS if quick else LOOK_SECONDS)

    def look(self, now: float, *, blind: bool = False) -> Array:
        """Take those offline whose lease is over, and return their slots.

        Args:
            blind: the market knows that it does not hear of every heartbeat; nobody goes then, for
                as long as the brake may last.
        """
        self._looked_at = now
        self.online = self._count()
        self.pace.follow(self.online)
        over = self._table.expiring(now)
        if not len(over):
            self._release()
            return over
        if self._brakes(now, blind=blind):
            self.held = len(over)
            return over[:0]
        self._release()
        self._table.expire(over)
        self.online -= len(over)
        self.expired += len(over)
        return over

    def _count(self) -> int:
        return int(np.count_nonzero(self._table.columns.status[: self._table.size] < OFFLINE))

    def _brakes(self, now: float, *, blind: bool) -> bool:
        """Whether too many are over, or would be within one interval, to believe it."""
        if self._braked_at is not None and now - self._braked_at >= BRAKE_SECONDS:
            return False
        columns, size = self._table.columns, self._table.size
        ends = columns.lease_until[:size]
        online = columns.status[:size] < OFFLINE
        at_risk = online & (ends <= now + self.pace.interval_seconds)
        silent = online & (ends == self._grace)
        if np.count_nonzero(silent) <= GRACE_SHARE * self.online:
            at_risk &= ~silent
        endangered = np.count_nonzero(at_risk)
        many = self.online >= BRAKE_NODES and endangered > BRAKE_SHARE * self.online
        if (many or blind) and self._braked_at is None:
            self._braked_at = now
            _log.warning(
                "mass_expiry_brake_on", nodes=int(endangered), online=self.online, blind=blind
            )
        return bool(many or blind)

    def _release(self) -> None:
        if self._braked_at is not None:
            _log.warning("mass_expiry_brake_off", held=self.held, online=self.online)
            self._braked_at = None
        self.held = 0
