"""The nodes in memory: leases, and what a search sees of each."""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.core.nodes import ComputeNode, NodeRecord, NodeStatus
from computeswarm.core.query import Facts, facts
from computeswarm.core.sessions import MAX_SESSION_SECONDS
from computeswarm.core.signing import Signed
from computeswarm.market.store import NodeRow


@dataclass(slots=True, eq=False)
class Node:
    """One registered node. Times in unix seconds; it is online until ``lease_until``."""

    node_id: str
    signed: Signed
    record: NodeRecord
    record_json: str
    seq: int
    session_key: bytes
    """Of 32 bytes; empty once the node was revoked."""
    session_until: float
    counter: int
    registered_at: float
    last_seen: float
    alive_seconds: float
    lease_until: float
    status: NodeStatus = NodeStatus.IDLE
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    gone: bool = False

    @classmethod
    def from_row(cls, row: NodeRow, lease_seconds: float) -> Node:
        """A node as it was stored, its lease counted from its last heartbeat."""
        signed = Signed.model_validate_json(row.record)
        return cls(
            row.node_id,
            signed,
            NodeRecord.model_validate(signed.document),
            row.record,
            row.seq,
            bytes.fromhex(row.session_key),
            row.last_seen + MAX_SESSION_SECONDS,  # no later can its session end
            row.counter,
            row.registered_at,
            row.last_seen,
            row.alive_seconds,
            row.last_seen + lease_seconds,
            NodeStatus(row.status),
            row.queued,
            row.running,
            row.succeeded,
            row.failed,
            bool(row.gone),  # SQLite has no truth values
        )

    def to_row(self, **changes: int | bool) -> NodeRow:
        """What is stored of it, with ``changes`` on top."""
        values = {
            "counter": self.counter,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "gone": self.gone,
        } | changes
        return NodeRow(
            node_id=self.node_id,
            record=self.record_json,
            seq=self.seq,
            session_key=self.session_key.hex(),
            registered_at=self.registered_at,
            last_seen=self.last_seen,
            alive_seconds=self.alive_seconds,
            status=str(self.status),
            queued=self.queued,
            running=self.running,
            counter=values["counter"],
            succeeded=values["succeeded"],
            failed=values["failed"],
            gone=bool(values["gone"]),
        )

    def status_at(self, now: float) -> NodeStatus:
        """Offline once the lease has run out."""
        return self.status if now < self.lease_until else NodeStatus.OFFLINE

    def uptime_permille(self, now: float) -> int:
        """Share of the time since registration that was covered by heartbeats."""
        known = now - self.registered_at
        waiting = min(max(now, self.last_seen), self.lease_until) - self.last_seen
        alive = self.alive_seconds + max(0.0, waiting)
        return 1000 if known <= 0 else max(0, min(1000, round(1000 * alive / known)))

    def facts_at(self, now: float) -> Facts:
        """What a query can ask about it now."""
        return facts(
            self.node_id,
            self.record,
            status=self.status_at(now),
            queued=self.queued,
            succeeded=self.succeeded,
            failed=self.failed,
            uptime_permille=self.uptime_permille(now),
        )

    def listed_at(self, now: float) -> ComputeNode:
        """As the market shows it; built from checked parts, so nothing is checked again."""
        return ComputeNode.model_construct(
            node_id=self.node_id,
            status=self.status_at(now),
            record=self.signed,
            registered_at=int(self.registered_at),
            last_seen=int(self.last_seen),
            queued=self.queued,
            running=self.running,
            jobs_succeeded=self.succeeded,
            jobs_failed=self.failed,
            uptime_permille=self.uptime_permille(now),
        )

    def json_at(self, now: float) -> str:
        """``listed_at`` as JSON, with the record's own text: a page is mostly records."""
        return (
            f'{{"node_id":"{self.node_id}","status":"{self.status_at(now)}",'
            f'"record":{self.record_json},"registered_at":{int(self.registered_at)},'
            f'"last_seen":{int(self.last_seen)},"queued":{self.queued},'
            f'"running":{self.running},"jobs_succeeded":{self.succeeded},'
            f'"jobs_failed":{self.failed},"uptime_permille":{self.uptime_permille(now)}}}'
        )
