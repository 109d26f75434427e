"""Nodes, leases and jobs for the stores' tests."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from computeswarm.core.jobs import MarketJob
from computeswarm.core.states import JobState
from computeswarm.market.rows import LEASE, Lease, NodeRow
from computeswarm.market.stores.protocol import Leases, Store

WALLET = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
OTHER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
KEY = bytes(range(32))
SPEC = "0x" + "ab" * 32


def node_id(n: int) -> str:
    return f"nd-{n:012x}"


def job_id(n: int) -> str:
    return f"job-{n:020x}"


def row(n: int = 1, **changes: Any) -> NodeRow:
    """Node ``n`` as it registers."""
    given = NodeRow(
        node_id=node_id(n),
        wallet=WALLET,
        record=b'{"n":%d,"name":"gr\xc3\xbc\xc3\x9fe"}' % n,
        facts=b"\x00\xff facts",
        words="rtx 4090 grüße",
        seq=1,
        session_key=KEY,
        session_until=2_000.0,
        registered_at=1_000.0,
        lease=Lease(last_seen=1_000.0, lease_until=1_090.0),
    )
    return replace(given, **changes)


def leases(*rows: tuple[int, int, int, float], status: int = 0, queued: int = 0) -> Leases:
    """Leases as (number, seq, counter, last_seen)."""
    made = np.zeros(len(rows), LEASE)
    for i, (number, seq, counter, seen) in enumerate(rows):
        made[i] = (number, seq, counter, seen, seen + 90, seen - 1_000, queued, 0, status)
    return made


def job(n: int = 1, node: int = 1, **changes: Any) -> MarketJob:
    """Job ``n`` as it was submitted for a node."""
    given = {
        "job_id": job_id(n),
        "node_id": node_id(node),
        "buyer": OTHER,
        "seller": WALLET,
        "state": JobState.CREATED,
        "spec_hash": SPEC,
        "price_per_hour": 300_000,
        "max_seconds": 3_600,
        "created_at": 1_000 + n,
        "updated_at": 1_000 + n,
    }
    return MarketJob(**{**given, **changes})


async def all_nodes(store: Store, batch: int = 1_000) -> dict[str, NodeRow]:
    """Everything a start would load."""
    return {r.node_id: r async for columns in store.load_nodes(batch) for r in columns.rows()}


def soon(seconds: float = 60.0) -> float:
    """A deadline no slow machine misses."""
    return time.monotonic() + seconds
