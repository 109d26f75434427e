"""What the screens show, as plain values: cleaned of hostile text, with no models behind them.

The backend's edge (``backends.live``) makes these from the façades' models. They cost nothing to
import, so the first frame doesn't wait for pydantic. Money in atoms, sizes in bytes, times in unix
seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from computeswarm.core.states import JobState

REFUSED = "refused"
"""A job's step while its seller has refused the first payment and could still take it."""

LogKind = Literal["stdout", "stderr", "note", "good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose money is spent, and where."""

    address: str
    """The wallet's checksummed address; empty without a wallet."""
    network: str
    usdc: str
    market: str
    real_money: bool
    locked: bool = False
    """There is a wallet, but its key has not been brought yet."""
    barred: str = ""
    """Why nothing can be paid here at all; empty where something can."""
    pay: str = "slices"
    """How jobs are paid unless the wizard says otherwise."""


@dataclass(frozen=True, slots=True)
class Balance:
    usdc: int


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


@dataclass(frozen=True, slots=True)
class Transfer:
    """One settled slice, or a refund (``transaction`` empty while it is still owed)."""

    amount: int
    transaction: str


@dataclass(frozen=True, slots=True)
class JobItem:
    """A job of the local journal."""

    job_id: str
    name: str
    node_id: str
    node_name: str
    state: JobState
    created_at: float
    budget: int
    price: int
    reason: str = ""
    step: str = ""
    """What goes on right now where the state alone doesn't say it: ``uploading``, ``paying``."""
    paid: int = 0
    cost: int = 0
    metered_ms: int = 0
    exit_code: int | None = None
    payments: tuple[Transfer, ...] = ()
    deposit: Transfer | None = None
    """What was put into the channel that pays it; None where each slice is a transfer."""
    slices: int = 0
    """How many have been paid; ``payments`` may hold only the newest."""
    refund: Transfer | None = None
    phases: tuple[tuple[str, int], ...] = ()
    """Each phase that began, in order, with its unix milliseconds."""
    outputs_ready: bool = False
    paused: bool = False
    """The seller's owner uses the GPU: it stands still, at no cost."""

    @property
    def ended(self) -> bool:
        return self.state.terminal


@dataclass(frozen=True, slots=True)
class OfferItem:
    """A seller's signed quote for one draft, frozen for as long as it is shown."""

    key: str
    """Names the purchase: buying the same offer twice starts one job."""
    node: NodeItem
    job_name: str
    price_per_hour: int
    first_amount: int
    """Atoms paid now, for the first slice."""
    slice_seconds: int
    max_seconds: int
    budget: int
    most: int
    """Atoms paid at most: to the time limit, or as far as the budget goes in whole slices."""
    at_risk: int
    """Atoms that a seller who vanishes takes along."""
    pay_to: str
    expires_at: float
    network: str
    usdc: str
    real_money: bool = False
    deposit: int = 0
    """Atoms locked in a channel before the start; 0 where each slice is a transfer."""
    conditions: tuple[tuple[str, str], ...] = ()
    """What the quote says beside its price, a word and a sentence each."""

    @property
    def paid_now(self) -> int:
        """Atoms that leave the wallet at once."""
        return self.deposit or self.first_amount


@dataclass(frozen=True, slots=True)
class LogLine:
    text: str
    kind: LogKind = "stdout"
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """Where a running job's meter stands."""

    metered_ms: int
    cost: int
    paid: int
    utilization_pct: int | None = None
    memory_used_bytes: int | None = None


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
    trouble: str = ""
    """Why it takes no job: it is lost, or its owner uses it."""
    is_slice: bool = False
    """A part of a GPU (MIG)."""


@dataclass(frozen=True, slots=True)
class HostItem:
    cpu_model: str
    cpu_cores: int
    cpu_pct: float | None
    memory_used: int | None
    memory_total: int


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
    advice: AdviceItem | None = None
    gpus: tuple[GpuItem, ...] = ()
    earnings: EarningsItem = field(default_factory=EarningsItem)
    jobs: tuple[SellerJob, ...] = ()
    events: tuple[EventItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """What came of fetching a job's outputs."""

    files: tuple[Path, ...]
    folder: Path
