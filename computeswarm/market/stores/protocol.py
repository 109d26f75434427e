"""What a store must do. SQLite's serves one process, PostgreSQL's any number of instances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType, Protocol

import numpy as np
import numpy.typing as npt

from computeswarm.core.jobs import MarketJob
from computeswarm.core.metrics import Histogram
from computeswarm.market.rows import NodeColumns, NodeRow

Position = NewType("Position", str)
"""A place in the change log, to be compared by the store only; safe in a URL."""

Leases = npt.NDArray[np.void]
"""An array of ``rows.LEASE``."""


class Kind(StrEnum):
    """What a change is about."""

    NODE = "node"
    """A node was registered, left or was revoked: ``key`` is its id, its row is to be read."""
    LEASES = "leases"
    """``leases`` of any number of nodes."""
    JOB = "job"
    """``job`` as it stood after this change. Where its node's counts changed too, a ``NODE`` change
    of that node follows."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log, from any instance (``instance`` says which)."""

    position: Position
    instance: str
    kind: Kind
    key: str = ""
    leases: Leases | None = None
    job: MarketJob | None = None
    row: NodeRow | None = None
    """For ``NODE``: the node as it stood when the log was read; None where the store has none."""


@dataclass(frozen=True, slots=True)
class JobTotals:
    """Sums over all jobs, so that statistics need no scan."""

    by_state: dict[str, int]
    ended: int
    settled: int
    """Ended jobs of which the seller kept something: paid more than refunded."""
    metered_ms: int
    """Of ended jobs."""
    paid: int
    """Atoms, refunds taken off."""


@dataclass(frozen=True, slots=True)
class Count:
    """What one instance adds to a shared counter; it is forgotten ``until`` (unix seconds)."""

    amount: int
    until: float


class Store(Protocol):
    """Durable truth. A write that returned survives ``kill -9`` and a power cut.

    Everything but ``touch`` raises StorageFull, or Unavailable (with ``retry_after`` in extra) when
    it did not happen or nobody knows whether it did.
    """

    kind: str
    """``sqlite`` or ``postgresql``."""
    shared: bool
    """Other instances may write too: their changes come by ``changes``, and so do our own."""
    instance: str
    """Names this process in the change log."""
    clock_ahead: float
    """Seconds by which this machine's clock is ahead of the database's, as last looked at."""
    flush_seconds: Histogram
    """How long each batch of leases took to write."""

    @property
    def unavailable_since(self) -> float | None:
        """Unix seconds since when nothing could be read or written; None while all is well."""
        ...

    @property
    def backlog(self) -> int:
        """Leases that wait to be written."""
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises:
            ConfigError: no such database, no right to use it, or written by a later version.
            Unavailable: it can't be reached now.
        """
        ...

    async def close(self) -> None:
        """Write everything out and let go. Leases that can't be written are only logged: they come
        again with the next heartbeats."""
        ...

    async def ping(self) -> None:
        """Ask whether it answers, within a second or two."""
        ...

    # nodes

    def load_nodes(self, batch: int = 10_000) -> AsyncIterator[NodeColumns]:
        """Every node, gone ones too, by number; the next are read while these are taken in."""
        ...

    async def position(self) -> Position:
        """The log's end; taken before ``load_nodes``, so that nothing falls between."""
        ...

    async def node(self, node_id: str) -> NodeRow | None: ...

    async def save_node(self, row: NodeRow) -> NodeRow:
        """Insert a node, or replace it where the wallet is the same and ``seq`` higher.

        ``succeeded``, ``failed`` and ``registered_at`` of a known node stay as they are in the
        store, and so does its number; ``alive_seconds`` never falls. The row as it stands now is
        returned.

        Raises:
            Conflict: another wallet's, or ``seq`` is not higher (then with ``seq`` in extra).
        """
        ...

    async def remove_node(self, node_id: str, *, session_key: bytes, counter: int) -> bool:
        """Mark it gone under its session; False where session or counter are not good any more.

        ``counter`` has to be above that of every call that was stored in this session: heartbeats'
        are written behind and may overtake, so they don't count here.
        """
        ...

    async def revoke_node(self, node_id: str, *, seq: int) -> bool:
        """Mark it gone, forget its session and remember ``seq``; False where ``seq`` is lower than
        the stored one."""
        ...

    async def forget_nodes(
        self, *, before: float, proven_before: float, limit: int = 1_000
    ) -> Sequence[str]:
        """Delete nodes, at most ``limit``, that were last seen before a moment (unix seconds):
        those that have finished a job well before ``proven_before``, all others before ``before``.

        Their ids are returned, and told to other instances as ``NODE`` changes without a row. Jobs
        stay. An id that comes back is a new node.
        """
        ...

    def touch(self, leases: Leases) -> None:
        """Write leases behind; what comes again for a node before it was written replaces it.

        Keeps everything while the database is away (a node once, however long that lasts).
        """
        ...

    async def flush(self) -> None:
        """Wait until what was touched is written."""
        ...

    # jobs

    async def job(self, job_id: str) -> tuple[MarketJob, str] | None:
        """A job and its signed submission as JSON."""
        ...

    async def add_job(self, job: MarketJob, submission: str) -> tuple[MarketJob, str, bool]:
        """Keep a new job, or return the one that has its id; the flag says whether it is new."""
        ...

    async def change_job(
        self,
        old: MarketJob,
        new: MarketJob,
        *,
        session_key: bytes,
        counter: int,
        succeeded: int,
        failed: int,
    ) -> bool:
        """Replace ``old`` by ``new`` and add to its node's counts, in one transaction.

        False, with nothing done, where the job is not ``old`` any more, or the node's session or
        counter are not good any more (as in ``remove_node``).
        """
        ...

    async def jobs_of(
        self, wallet: str, *, before: tuple[int, str] | None, limit: int
    ) -> Sequence[MarketJob]:
        """Jobs a wallet bought or sold, newest first by ``(created_at, job_id)``."""
        ...

    async def job_totals(self) -> JobTotals: ...

    # between instances

    async def changes(self, after: Position, limit: int = 1_000) -> Sequence[Change] | None:
        """What the log holds after a position, in its order; None where that was pruned already.

        Always empty on a store that is not shared.
        """
        ...

    async def wait(self, seconds: float) -> None:
        """Until another instance may have written, at most ``seconds``."""
        ...

    async def share(self, counts: Mapping[str, Count]) -> Mapping[str, int]:
        """Add to shared counters and return what they stand at now."""
        ...

    # samples for charts

    async def add_samples(self, at: int, samples: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep figures by series (such as ``price/rtx-4090``) for one moment (unix seconds); the
        same series and moment from another instance are kept once."""
        ...

    async def samples(
        self, series: str, *, since: int, until: int
    ) -> Sequence[tuple[int, Mapping[str, Any]]]:
        """A series, oldest first."""
        ...

    async def prune_samples(self, before: int, *, prefix: str = "") -> None:
        """Forget what is older, of series whose names begin so."""
        ...
