"""Records of made-up nodes: everything a record must have, and whatever a test cares about."""

from __future__ import annotations

from typing import Any

from computeswarm.core.nodes import GPUInfo, Hardware, NodeRecord

START = 1_800_000_000
"""Seconds since 1970 at which they were issued, and at which tests' clocks begin."""


def node_record(
    wallet: str,
    name: str = "rig",
    *,
    gpus: tuple[GPUInfo, ...] = (),
    hardware: Hardware | None = None,
    **changes: Any,
) -> NodeRecord:
    """An unsigned record; it is checked, however it was changed."""
    values: dict[str, Any] = {
        "wallet": wallet,
        "name": name,
        "endpoint": "http://127.0.0.1:9/",
        "hardware": hardware or Hardware(cpu_model="x", cpu_cores=2, memory_bytes=2**33, gpus=gpus),
        "isolation": "namespace",
        "price_per_hour": 360_000,
        "slice_seconds": 60,
        "max_job_seconds": 600,
        "seq": 1,
        "issued_at": START,
    }
    return NodeRecord.model_validate(values | changes)
