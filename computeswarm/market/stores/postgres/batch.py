"""Writes that wait to be committed together, judged one after the other on locked rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from computeswarm.core.jobs import MarketJob
from computeswarm.market.rows import NodeRow
from computeswarm.market.stores.postgres.log import Entry, job_entry, node_entry
from computeswarm.market.stores.rules import Known, Sum, difference, may_call, registered


@dataclass(slots=True)
class Batch:
    """The rows as they stand in the transaction, and what has been done to them."""

    nodes: dict[str, Known]
    jobs: dict[str, tuple[MarketJob, str]]
    numbers: list[int] = field(default_factory=list)
    """For nodes that are new."""
    added: dict[str, NodeRow] = field(default_factory=dict)
    renewed: dict[str, NodeRow] = field(default_factory=dict)
    called: dict[str, Known] = field(default_factory=dict)
    added_jobs: set[str] = field(default_factory=set)
    changed_jobs: set[str] = field(default_factory=set)
    sums: list[Sum] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)

    def note_call(self, known: Known) -> None:
        """A node was changed by a call; the change log says so."""
        self.called[known.node_id] = known
        self.log.append(node_entry(known.node_id))


class Write(Protocol):
    """One caller's wish."""

    node_id: str
    """The node it touches, or empty."""
    job_id: str
    """The job it touches, or empty."""

    def apply(self, batch: Batch) -> Any:
        """Do it in the batch, or raise a ComputeSwarmError with nothing done."""
        ...


class Save:
    """``Store.save_node``."""

    job_id = ""

    def __init__(self, row: NodeRow) -> None:
        self.node_id = row.node_id
        self._row = row

    def apply(self, batch: Batch) -> NodeRow:
        known = batch.nodes.get(self.node_id)
        row = registered(known, self._row)
        if known is None:
            row = replace(row, number=batch.numbers.pop())
        fresh = self.node_id in batch.added or known is None
        (batch.added if fresh else batch.renewed)[self.node_id] = row
        batch.called.pop(self.node_id, None)
        batch.nodes[self.node_id] = Known(
            number=row.number,
            node_id=row.node_id,
            wallet=row.wallet,
            seq=row.seq,
            session_key=row.session_key,
            call_counter=0,
            registered_at=row.registered_at,
            succeeded=row.succeeded,
            failed=row.failed,
            gone=row.gone,
            alive_seconds=row.lease.alive_seconds,
        )
        batch.log.append(node_entry(self.node_id))
        return row


class Remove:
    """``Store.remove_node``."""

    job_id = ""

    def __init__(self, node_id: str, session_key: bytes, counter: int) -> None:
        self.node_id = node_id
        self._session_key = session_key
        self._counter = counter

    def apply(self, batch: Batch) -> bool:
        known = batch.nodes.get(self.node_id)
        if known is None or not may_call(known, self._session_key, self._counter):
            return False
        known.gone = True
        known.call_counter = self._counter
        batch.note_call(known)
        return True


class Revoke:
    """``Store.revoke_node``."""

    job_id = ""

    def __init__(self, node_id: str, seq: int) -> None:
        self.node_id = node_id
        self._seq = seq

    def apply(self, batch: Batch) -> bool:
        known = batch.nodes.get(self.node_id)
        if known is None or self._seq < known.seq:
            return False
        known.gone = True
        known.session_key = b""
        known.seq = self._seq
        batch.note_call(known)
        return True


class AddJob:
    """``Store.add_job``."""

    node_id = ""

    def __init__(self, job: MarketJob, submission: str) -> None:
        self.job_id = str(job.job_id)
        self._job = job
        self._submission = submission

    def apply(self, batch: Batch) -> tuple[MarketJob, str, bool]:
        kept = batch.jobs.get(self.job_id)
        if kept is not None:
            return *kept, False
        batch.jobs[self.job_id] = self._job, self._submission
        batch.added_jobs.add(self.job_id)
        batch.sums += difference(None, self._job)
        batch.log.append(job_entry(self._job))
        return self._job, self._submission, True


class ChangeJob:
    """``Store.change_job``."""

    def __init__(
        self,
        old: MarketJob,
        new: MarketJob,
        *,
        session_key: bytes,
        counter: int,
        succeeded: int,
        failed: int,
    ) -> None:
        self.node_id = str(old.node_id)
        self.job_id = str(old.job_id)
        self._old = old
        self._new = new
        self._session_key = session_key
        self._counter = counter
        self._counts = succeeded, failed

    def apply(self, batch: Batch) -> bool:
        known = batch.nodes.get(self.node_id)
        kept = batch.jobs.get(self.job_id)
        if (
            kept is None
            or kept[0] != self._old
            or known is None
            or not may_call(known, self._session_key, self._counter)
        ):
            return False
        batch.jobs[self.job_id] = self._new, kept[1]
        if self.job_id not in batch.added_jobs:
            batch.changed_jobs.add(self.job_id)
        batch.sums += difference(self._old, self._new)
        batch.log.append(job_entry(self._new))
        known.call_counter = self._counter
        known.succeeded += self._counts[0]
        known.failed += self._counts[1]
        batch.called[self.node_id] = known
        if any(self._counts):
            batch.note_call(known)
        return True
