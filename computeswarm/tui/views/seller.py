"""What Seller mode shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from computeswarm.core.states import JobState


@dataclass(frozen=True, slots=True)
class GpuItem:
    """One GPU right now; None for what the driver doesn't tell."""

    index: int
    model: str
    utilization_pct: int | None
    memory_used: int | None
    memory_total: int
    past: tuple[int | None, ...] = ()
    """Utilisation at the seller's last readings, oldest first."""
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    job_id: str = ""
    held: bool = False
    """Its owner keeps it: no new job until he releases it."""
    trouble: str = ""
    """Why it takes no job: it is lost, or its owner uses or holds it."""
    is_slice: bool = False
    """A part of a GPU (MIG)."""


@dataclass(frozen=True, slots=True)
class HostItem:
    cpu_model: str
    cpu_cores: int
    cpu_pct: float | None
    memory_used: int | None
    memory_total: int
    held: bool = False
    """A machine without a GPU that its owner keeps for himself."""


@dataclass(frozen=True, slots=True)
class GpuEarned:
    """What one GPU brought in 30 days; ``net`` None where its current is not measured, ``sold``
    None where it was never offered."""

    label: str
    kept: int
    net: int | None = None
    sold: float | None = None


@dataclass(frozen=True, slots=True)
class EarningsItem:
    today: int = 0
    week: int = 0
    month: int = 0
    refunded: int = 0
    """What went back in 30 days; the sums above are after it."""
    owed: int = 0
    by_day: tuple[tuple[str, int], ...] = ()
    """Oldest first: ISO date, and atoms less refunds."""
    vouched: int = 0
    """Signed for on channels and not claimed yet; in none of the sums."""
    nets: tuple[int | None, ...] = (None, None, None)
    """Today, 7 and 30 days, less gas and current; None where that is not measured."""
    sold: float | None = None
    """The share of the offered time that was sold in 7 days."""
    electricity_price: int = 0
    """Atoms a kilowatt-hour."""
    gpus: tuple[GpuEarned, ...] = ()


@dataclass(frozen=True, slots=True)
class SellerJob:
    job_id: str
    buyer: str
    name: str
    state: JobState
    image: str
    gpu_count: int
    price: int
    paid: int
    cost: int
    metered_ms: int
    max_seconds: int
    started_ms: int | None = None
    queue_position: int | None = None
    """1 is next."""
    starts_in: int | None = None
    """Seconds at most; None where nobody can say."""
    paused: bool = False
    """Its owner uses the GPU; it costs nothing meanwhile."""
    decide_by: float | None = None
    """It asks the owner, who has until then (unix seconds) for a yes; None where it does not."""


@dataclass(frozen=True, slots=True)
class AdviceItem:
    """A price to think about: atoms an hour (0 for none), and the whole sentence."""

    suggested: int
    sentence: str


@dataclass(frozen=True, slots=True)
class EventItem:
    at: float
    level: str
    """``info``, ``good``, ``warning`` or ``error``."""
    text: str


@dataclass(frozen=True, slots=True)
class SellerItem:
    """Everything Seller mode shows, in one document."""

    node_id: str
    name: str
    wallet: str
    endpoint: str
    price: int
    paused: bool
    listed: bool
    """Whether the market's last answer was good."""
    market: str
    executor: str
    isolation: str
    slots: int
    host: HostItem
    network: str = ""
    real_money: bool = False
    note: str = ""
    """What the owner should know: why the market doesn't list it, say."""
    mood: str = "taking"
    """How it feels about new jobs, in the seller's own word."""
    mood_reason: str = ""
    asks_owner: bool = False
    """Paid jobs wait for the owner's yes."""
    advice: AdviceItem | None = None
    gpus: tuple[GpuItem, ...] = ()
    earnings: EarningsItem = field(default_factory=EarningsItem)
    jobs: tuple[SellerJob, ...] = ()
    events: tuple[EventItem, ...] = ()
