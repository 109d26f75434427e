"""What Buyer mode shows of the market."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeItem:
    """A node whose record's signature has been checked."""

    node_id: str
    name: str
    title: str
    """``2× RTX 4090``, or the processor of a cpu node."""
    gpu_count: int
    vram_bytes: int
    price: int
    """Atoms an hour for one GPU; for the whole machine on a cpu node."""
    status: str
    isolation: str
    region: str
    wallet: str
    endpoint: str
    cpu_model: str
    cpu_cores: int
    memory_bytes: int
    disk_bytes: int
    driver: str
    runtime: str
    images: tuple[str, ...]
    network: bool
    slice_seconds: int
    max_job_seconds: int
    queued: int
    running: int
    jobs_succeeded: int
    jobs_failed: int
    uptime_permille: int
    registered_at: int
    last_seen: int
    version: str = ""
    tflops: int = 0
    """Of one GPU, dense FP16; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class NodePage:
    nodes: tuple[NodeItem, ...]
    total: int
    rejected: int = 0
    """Records that the market listed but whose signature is not the wallet's."""
    more: bool = False
    """Whether there are nodes behind the last of these."""
    exact: bool = True
    """Whether ``total`` was counted to the end; otherwise there are at least so many."""


@dataclass(frozen=True, slots=True)
class FacetItem:
    """How many of the nodes that match have one value of one field."""

    field: str
    """A field of the query language."""
    label: str
    nodes: int
    word: str
    """The word of the language that finds them."""
