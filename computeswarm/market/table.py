"""All nodes of the market in memory, as columns: what searches, statistics and leases read.

One event loop writes it. The records themselves stay the JSON bytes that came.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from computeswarm.core.nodes import ComputeNode, NodeRecord
from computeswarm.core.query import Facts, facts
from computeswarm.core.signing import Signed
from computeswarm.market import derived
from computeswarm.market.columns import ABSENT, Array
from computeswarm.market.facts import pack
from computeswarm.market.rows import LEASE, STATUSES, Lease, NodeRow
from computeswarm.market.slots import Slots

_OFFLINE = len(STATUSES) - 1
_LEASE_COLUMNS = LEASE.names or ()


class NodeTable(Slots):
    """The nodes as they are shown, their leases, and the figures that move with time.

    Status is what the market shows: a node is offline from the call of ``expire`` on.
    """

    def row(self, slot: int) -> NodeRow:
        """The node as a store keeps it."""
        hot, record = self.hot, self.record(slot)
        node_id = self.node_id(slot)
        packed, words = pack(node_id, _read(record)) if record else (b"", "")
        status = hot.status[slot]
        return NodeRow(
            node_id=node_id,
            wallet=self.wallet(slot),
            record=record,
            facts=packed,
            words=words,
            seq=hot.seq[slot],
            session_key=self.session_key(slot),
            session_until=hot.session_until[slot],
            registered_at=hot.registered_at[slot],
            lease=Lease(
                counter=hot.counter[slot],
                last_seen=hot.last_seen[slot],
                lease_until=hot.lease_until[slot],
                alive_seconds=hot.alive_seconds[slot],
                queued=hot.queued[slot],
                running=hot.running[slot],
                status=_OFFLINE if status == ABSENT else status,
            ),
            succeeded=hot.succeeded[slot],
            failed=hot.failed[slot],
            gone=status == ABSENT,
            number=hot.number[slot],
        )

    def uptime(self, slot: int, now: float) -> int:
        """Share of the time since registration that was covered by heartbeats, in thousandths."""
        hot = self.hot
        known, last_seen = now - hot.registered_at[slot], hot.last_seen[slot]
        if known <= 0:
            return 1000
        waiting = max(0.0, min(max(now, last_seen), hot.lease_until[slot]) - last_seen)
        share = round(1000 * (hot.alive_seconds[slot] + waiting) / known)
        return max(0, min(1000, share))

    def facts(self, slot: int, now: float) -> Facts:
        """What a query can ask about the node, reckoned from its record."""
        hot = self.hot
        return facts(
            self.node_id(slot),
            _read(self.record(slot)),
            status=STATUSES[hot.status[slot]],
            queued=hot.queued[slot],
            succeeded=hot.succeeded[slot],
            failed=hot.failed[slot],
            uptime_permille=self.uptime(slot, now),
        )

    def listed(self, slot: int, now: float) -> ComputeNode:
        """As the market shows it; built from checked parts, so nothing is checked again."""
        hot = self.hot
        return ComputeNode.model_construct(
            node_id=self.node_id(slot),
            status=STATUSES[hot.status[slot]],
            record=Signed.model_validate_json(self.record(slot)),
            registered_at=int(hot.registered_at[slot]),
            last_seen=int(hot.last_seen[slot]),
            queued=hot.queued[slot],
            running=hot.running[slot],
            jobs_succeeded=hot.succeeded[slot],
            jobs_failed=hot.failed[slot],
            uptime_permille=self.uptime(slot, now),
        )

    def json(self, slot: int, now: float) -> bytes:
        """``listed`` as JSON, with the record's own bytes: a page is mostly records."""
        hot = self.hot
        head = f'{{"node_id":"nd-{hot.id[slot]:012x}","status":"{STATUSES[hot.status[slot]]}"'
        rest = (
            f',"registered_at":{int(hot.registered_at[slot])},'
            f'"last_seen":{int(hot.last_seen[slot])},"queued":{hot.queued[slot]},'
            f'"running":{hot.running[slot]},"jobs_succeeded":{hot.succeeded[slot]},'
            f'"jobs_failed":{hot.failed[slot]},"uptime_permille":{self.uptime(slot, now)}}}'
        )
        return b'%b,"record":%b%b' % (head.encode(), self._records[slot], rest.encode())

    # -- leases

    def beat(
        self,
        slot: int,
        *,
        counter: int,
        now: float,
        lease_until: float,
        status: int,
        queued: int,
        running: int,
    ) -> bool:
        """Renew a lease; whether something changed that a list shows. The hot path."""
        hot = self.hot
        last_seen = hot.last_seen[slot]
        covered = min(now, hot.lease_until[slot]) - last_seen
        if covered > 0:
            hot.alive_seconds[slot] += covered
        hot.counter[slot] = counter
        hot.last_seen[slot] = now
        hot.lease_until[slot] = lease_until
        if (
            hot.status[slot] == status
            and hot.queued[slot] == queued
            and hot.running[slot] == running
        ):
            return False
        hot.status[slot] = status
        hot.queued[slot] = queued
        hot.running[slot] = running
        self.touches.leases.add(slot)
        self.version += 1
        return True

    def apply(self, batch: Array) -> Array:
        """Take leases (``rows.LEASE``) where they are newer; returns the slots that took one.

        One sent under another registration than the node's present one counts for nothing.
        """
        batch = batch[np.lexsort((batch["counter"], batch["last_seen"]))]
        slots = self.slots_of(batch["number"])
        columns = self.columns
        seen, before = batch["last_seen"], columns.last_seen[slots]
        newer = (seen > before) | ((seen == before) & (batch["counter"] > columns.counter[slots]))
        newer &= (slots >= 0) & (columns.status[slots] != ABSENT)
        newer &= batch["seq"] == columns.seq[slots]
        slots, batch = slots[newer], batch[newer]
        changed = np.zeros(len(slots), np.bool_)
        for name in ("status", "queued", "running"):
            changed |= getattr(columns, name)[slots] != batch[name]
        for name in _LEASE_COLUMNS[2:]:  # where a node comes twice, its newest stands last
            getattr(columns, name)[slots] = batch[name]
        if changed.any():
            self.touches.leases.add_many(slots[changed])
            self.version += 1
        return np.unique(slots)

    def lease_rows(self, slots: Array | Sequence[int]) -> Array:
        """The leases of some nodes, as ``rows.LEASE``."""
        made = np.empty(len(slots), LEASE)
        for name in _LEASE_COLUMNS:
            made[name] = getattr(self.columns, name)[slots]
        return made

    def expiring(self, now: float) -> Array:
        """Slots of nodes that count as online though their lease is over."""
        columns, size = self.columns, self.size
        return np.flatnonzero(
            (columns.lease_until[:size] <= now) & (columns.status[:size] < _OFFLINE)
        )

    def expire(self, slots: Array) -> None:
        """Take nodes for offline until their next heartbeat."""
        if len(slots):
            self.columns.status[slots] = _OFFLINE
            self.touches.leases.add_many(slots)
            self.version += 1

    # -- figures

    def set_counts(self, slot: int, succeeded: int, failed: int) -> None:
        """How many of a node's jobs ended well and badly."""
        self.hot.succeeded[slot] = succeeded
        self.hot.failed[slot] = failed
        derived.reckon_jobs(self.columns, np.array([slot]))
        self.touches.figures.add(slot)
        self.version += 1

    def refresh(self, now: float, first: int = 0, last: int | None = None) -> None:
        """Reckon uptime, and what follows from it, anew for the slots ``first`` to ``last``."""
        rows = slice(first, self.size if last is None else min(last, self.size))
        made = derived.uptime(self.columns, rows, now)
        changed = np.flatnonzero(made != self.columns.uptime[rows])
        if len(changed):
            slots = changed + first
            self.columns.uptime[slots] = made[changed]
            derived.reckon_jobs(self.columns, slots)
            self.touches.figures.add_many(slots)
            self.version += 1


def _read(record: bytes) -> NodeRecord:
    return NodeRecord.model_validate(Signed.model_validate_json(record).document)
