"""What the market remembers for good, and the protocol of whatever remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from computeswarm.core.jobs import MarketJob


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as stored. A node that left stays as ``gone``, so its old records can't come back."""

    node_id: str
    record: str
    """The signed record, as JSON."""
    seq: int
    session_key: str
    counter: int
    registered_at: float
    last_seen: float
    alive_seconds: float
    status: str
    queued: int
    running: int
    succeeded: int
    failed: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class JobTotals:
    """Sums over all jobs, so that statistics need no scan."""

    by_state: dict[str, int]
    ended: int
    metered_ms: int
    paid: int
    """Atoms, refunds taken off."""


class Store(Protocol):
    """Durable truth. A write that returned survives ``kill -9`` and a power cut.

    Every method but ``touch`` raises StorageFull or Unavailable when the write did not happen.
    """

    def load_nodes(self) -> Sequence[NodeRow]:
        """Every node, gone ones too."""
        ...

    def load_job(self, job_id: str) -> tuple[MarketJob, str] | None:
        """A job and its signed submission as JSON."""
        ...

    def job_totals(self) -> JobTotals: ...

    async def save_node(self, row: NodeRow) -> None: ...

    async def save_job(self, job: MarketJob, submission: str, node: NodeRow | None = None) -> None:
        """Store a job, and in the same transaction the node that reported it."""
        ...

    def touch(self, rows: Sequence[NodeRow]) -> None:
        """Write leases behind: lost with the process is at most what was not flushed yet."""
        ...

    async def close(self) -> None:
        """Write everything out and let go of the file."""
        ...
