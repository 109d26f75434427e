"""What the owner of a seller sees: one document with everything the Seller screen shows.

Money in atoms, sizes in bytes, times in unix seconds unless a name says otherwise. Text that came
from a buyer is clean.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from computeswarm.core.ids import JobIdText, NodeIdText
from computeswarm.core.nodes import Address, Atoms, Isolation
from computeswarm.core.signing import Document
from computeswarm.core.states import JobState
from computeswarm.seller.earnings_rows import EarningsRow
from computeswarm.seller.pricing import PriceAdvice

EventLevel = Literal["info", "good", "warning", "error"]


class OwnerFile(Document):
    """``owner.json`` in the seller's folder (mode 0600): how its owner reaches a running seller."""

    url: str
    token: str
    pid: int


class GpuSample(Document):
    """One reading of one GPU; None for what the driver does not tell."""

    at: int
    """Unix milliseconds."""
    utilization_pct: int | None = None
    memory_used_bytes: int | None = None
    temperature_c: int | None = None
    power_mw: int | None = None


class OwnerGpu(Document):
    """A GPU of this machine and its last readings (about 120), oldest first."""

    index: int
    model: str
    uuid: str = ""
    memory_bytes: int
    power_limit_mw: int | None = None
    job_id: str = ""
    """The job that has it now."""
    held: bool = False
    """Its owner keeps it: no new job until he releases it."""
    trouble: str = ""
    """Why it takes no job: it is lost, or its owner uses or holds it; empty while it does."""
    samples: tuple[GpuSample, ...] = ()


class OwnerHost(Document):
    """The machine round the GPUs, now."""

    cpu_model: str
    cpu_cores: int
    memory_bytes: int
    cpu_pct: int | None = None
    memory_used_bytes: int | None = None
    held: bool = False
    """Of a machine without a GPU: its owner keeps all of it."""


class OwnerJob(Document):
    """A row of the queue: jobs that wait or run, and those that ended last."""

    job_id: JobIdText
    buyer: Address
    name: str
    state: JobState
    reason: str = ""
    image: str
    gpu_count: int
    price_per_hour: Atoms
    paid: Atoms
    cost: Atoms
    """What has been earned with it so far."""
    metered_ms: int
    left_ms: int | None = None
    """Milliseconds until the paid slices are used up; None when it does not run."""
    max_seconds: int
    created_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    queue_position: int | None = None
    """1 is next."""
    starts_in_seconds: int | None = None
    """At most; None where nobody can say."""
    paused: bool = False
    """It stands still, at no cost, for the owner uses its GPU. It keeps its graphics memory."""
    waits_for_owner: bool = False
    """It starts with the owner's yes only, and goes back without an answer."""
    decide_by_ms: int | None = None
    """Until then he has to answer, in unix milliseconds; None where it does not ask."""
    priority_seconds: int = 0
    """So much earlier than it came it counts in the queue, for what it pays."""


class Earnings(Document):
    """What selling brought in the last 30 of the owner's days.

    ``vouched`` is what is signed for on channels and not claimed yet: no part of the sums.
    """

    days: tuple[EarningsRow, ...] = ()
    """Oldest first."""
    gpus: tuple[EarningsRow, ...] = ()
    """Of the same days together."""
    total: EarningsRow = EarningsRow(key="total", label="all")
    vouched: Atoms = 0
    electricity_price: Atoms = 0
    """A kilowatt-hour, as set by the owner."""


class OwnerEvent(Document):
    """Something that happened, in one clean line."""

    at: float
    level: EventLevel
    text: str


class MarketLink(Document):
    """How things stand with the market."""

    url: str
    connected: bool
    last_ok: float | None = None
    problem: str = ""
    """Why it is not connected, in one sentence."""


class OwnerStatus(Document):
    """``GET /owner/status``."""

    node_id: NodeIdText
    name: str
    wallet: Address
    endpoint: str
    chain: str
    real_money: bool = False
    started_at: float
    accepting: bool
    """New jobs are taken."""
    paused: bool
    draining: bool = False
    asks_owner: bool = False
    """Paid jobs wait for the owner's yes."""
    mood: str = "taking"
    """taking, starting, stopping, paused, draining, drained, closed, held, in_use or no_gas."""
    mood_reason: str = ""
    """The mood in a sentence; empty where jobs are taken."""
    stopping: bool
    market: MarketLink
    price_per_hour: Atoms
    slice_seconds: int
    executor: str
    isolation: Isolation
    images: tuple[str, ...]
    trusted: tuple[Address, ...] = ()
    """The only wallets served, where there is no sandbox; empty when everybody is."""
    slots: int = Field(ge=1)
    running: int
    queued: int
    host: OwnerHost
    gpus: tuple[OwnerGpu, ...] = ()
    earnings: Earnings = Earnings()
    advice: PriceAdvice | None = None
    """A price to think about; never applied by itself."""
    gas_wei: str = ""
    """Native balance of the wallet as a decimal string; empty while unknown."""
    jobs: tuple[OwnerJob, ...] = ()
    events: tuple[OwnerEvent, ...] = ()
    """Newest last."""
    notes: tuple[str, ...] = ()
    """What the owner should know or do, such as that no GPU was found."""


class Wish(Document):
    """``POST /owner/pause`` and ``/owner/drain``: why, in the owner's words, which buyers see."""

    reason: str = Field(default="", max_length=500)
    then_stop: bool = False
    """Of ``drain``: stop when no job is left."""


class Rejection(Document):
    """``POST /owner/jobs/{id}/reject``: why, in the owner's words, which the buyer sees."""

    reason: str = Field(default="", max_length=500)


class Hold(Document):
    """``POST /owner/gpus/{index}/hold``: keep a GPU from new jobs, or release it. Index 0 is the
    whole machine where it has no GPU."""

    held: bool


class PriceChange(Document):
    """``POST /owner/price``; quotes that are out keep their price."""

    price_per_hour: Atoms
