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
    """Of its fastest GPU, dense FP16; 0 where that is not known."""
    model: str = "cpu"
    """Of its first GPU, as the market's price history names it."""
    gpu_vram: int = 0
    """Bytes of its largest GPU: a model has to fit into one."""
    rel: int = 1_000_000
    """Reliability in millionths: share of time online times share of jobs not failed."""
    cost: int = 0
    """Expected, in atoms per hour of finished work: the price over the reliability."""
    value: int = 0
    """Thousandths of an atom for an hour of one TFLOPS; huge where that is unknown."""
    reputation: int = 0
    """In thousandths: how often its jobs succeed, held low while there were few."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands in a list for nodes that have not been fetched."""

    missing: int
    """How many at least."""


@dataclass(frozen=True, slots=True)
class NodePage:
    nodes: tuple[NodeItem, ...]
    total: int
    rejected: int = 0
    """Records that the market listed but whose signature is not the wallet's."""
    next: str = ""
    """The cursor of the page behind this one; empty on the last."""
    exact: bool = True
    """Whether ``total`` was counted to the end; otherwise there are at least so many."""

    @property
    def more(self) -> bool:
        """Whether there are nodes behind the last of these."""
        return bool(self.next)


@dataclass(frozen=True, slots=True)
class PricePoint:
    """What the sellers of one model asked at one moment; atoms per GPU and hour."""

    at: int
    """Unix seconds."""
    p10: int
    p25: int
    p50: int
    p75: int
    p90: int
    sellers: int


@dataclass(frozen=True, slots=True)
class PriceTrend:
    """Thirty days of one model's prices, oldest first. Empty where nobody offered it yet."""

    model: str
    since: int
    until: int
    points: tuple[PricePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class FacetItem:
    """How many of the nodes that match have one value of one field."""

    field: str
    """A field of the query language."""
    label: str
    nodes: int
    word: str
    """The word of the language that finds them."""
