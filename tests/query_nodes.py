"""Nodes to look for: facts of a seller's rig, with whatever a test wants changed."""

from __future__ import annotations

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import GPUInfo, Hardware, Isolation, NodeRecord, NodeStatus
from computeswarm.core.query import Facts, facts

KEY = PrivateKey(bytes(31) + b"\x01")


def node(
    *,
    gpu: str = "NVIDIA GeForce RTX 4090",
    vram_mib: int = 24_564,
    price: int = 400_000,
    status: NodeStatus = NodeStatus.IDLE,
    name: str = "rig",
    succeeded: int = 98,
    failed: int = 0,
    **changes: object,
) -> Facts:
    gpus = (GPUInfo(vendor="nvidia", model=gpu, memory_bytes=vram_mib * 2**20),) if gpu else ()
    values: dict[str, object] = {
        "wallet": KEY.address,
        "name": name,
        "endpoint": "http://127.0.0.1:1",
        "hardware": Hardware(cpu_model="Ryzen", cpu_cores=8, memory_bytes=2**36, gpus=gpus),
        "isolation": Isolation.CONTAINER,
        "price_per_hour": price,
        "slice_seconds": 60,
        "max_job_seconds": 3600,
        "region": "eu-fra",
        "images": ("python", "torch"),
        "seq": 1,
        "issued_at": 1,
    }
    record = NodeRecord.model_validate(values | changes)
    return facts(
        record.node_id,
        record,
        status=status,
        queued=0,
        succeeded=succeeded,
        failed=failed,
        uptime_permille=1000,
    )
