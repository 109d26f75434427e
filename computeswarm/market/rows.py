"""A node as the stores keep it, and its lease as it travels between instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from computeswarm.core.nodes import NodeStatus

STATUSES = (NodeStatus.IDLE, NodeStatus.BUSY, NodeStatus.DRAINING, NodeStatus.OFFLINE)
"""A status' place here is its code in columns and in stores: never reorder."""

LEASE = np.dtype(
    [
        ("number", "<i8"),
        ("seq", "<i8"),
        ("counter", "<i8"),
        ("last_seen", "<f8"),
        ("lease_until", "<f8"),
        ("alive_seconds", "<f8"),
        ("queued", "<i4"),
        ("running", "<i4"),
        ("status", "u1"),
    ]
)
"""One heartbeat's outcome; times in unix seconds. Packed as it is, it travels in ``changes``.

``seq`` is that of the registration it was sent under: a lease written late, or elsewhere, must not
give a newer registration the old one's counter, so one of another ``seq`` counts for nothing.
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The hot part of a node, in the order and units of ``LEASE``, which has two keys before it."""

    counter: int = 0
    last_seen: float = 0.0
    lease_until: float = 0.0
    alive_seconds: float = 0.0
    queued: int = 0
    running: int = 0
    status: int = 0


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as stored. One that left stays as ``gone``, so its old records can't come back."""

    node_id: str
    wallet: str
    record: bytes
    """The signed record, as JSON."""
    facts: bytes
    """What searches compare, packed: see ``market.facts``. Kept so that a start parses nothing."""
    words: str
    """What text searches look in."""
    seq: int
    session_key: bytes
    """32 bytes; empty after a revocation."""
    session_until: float
    registered_at: float
    lease: Lease = field(default_factory=Lease)
    succeeded: int = 0
    failed: int = 0
    gone: bool = False
    number: int = 0
    """Small, dense, given by the store at the first registration and never again; 0 before."""


def lease_array(rows: Sequence[NodeRow]) -> npt.NDArray[np.void]:
    """The leases of stored nodes, as ``LEASE``."""
    return np.array(
        [
            (
                row.number,
                row.seq,
                row.lease.counter,
                row.lease.last_seen,
                row.lease.lease_until,
                row.lease.alive_seconds,
                row.lease.queued,
                row.lease.running,
                row.lease.status,
            )
            for row in rows
        ],
        LEASE,
    )


@dataclass(frozen=True, slots=True)
class NodeColumns:
    """Many stored nodes at once, a sequence for each of ``NodeRow``'s fields: for a quick start."""

    node_id: Sequence[str]
    wallet: Sequence[str]
    record: Sequence[bytes]
    facts: Sequence[bytes]
    words: Sequence[str]
    session_key: Sequence[bytes]
    session_until: Sequence[float]
    registered_at: Sequence[float]
    succeeded: Sequence[int]
    failed: Sequence[int]
    gone: Sequence[bool]
    leases: npt.NDArray[np.void]
    """``LEASE``, with ``number`` and ``seq``."""

    @classmethod
    def of(cls, rows: Sequence[NodeRow]) -> Self:
        """Nodes side by side."""
        names = [f.name for f in fields(cls) if f.name != "leases"]
        given = {name: [getattr(row, name) for row in rows] for name in names}
        return cls(**given, leases=lease_array(rows))

    def __len__(self) -> int:
        return len(self.node_id)

    def rows(self) -> list[NodeRow]:
        """The same, node by node."""
        return [
            NodeRow(
                self.node_id[i],
                self.wallet[i],
                self.record[i],
                self.facts[i],
                self.words[i],
                lease[1],
                self.session_key[i],
                self.session_until[i],
                self.registered_at[i],
                Lease(*lease[2:]),
                self.succeeded[i],
                self.failed[i],
                bool(self.gone[i]),  # SQLite has no truth values
                lease[0],
            )
            for i, lease in enumerate(self.leases.tolist())
        ]
