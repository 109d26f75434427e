"""What Buyer mode shows of its jobs: from the quote to the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from computeswarm.core.states import JobState
from computeswarm.tui.views.nodes import NodeItem

REFUSED = "refused"
"""A job's step while its seller has refused the first payment and could still take it."""

LogKind = Literal["stdout", "stderr", "note", "good", "warn", "bad"]


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
class Download:
    """What came of fetching a job's outputs."""

    files: tuple[Path, ...]
    folder: Path
