"""The market's statistics, as ``GET /api/v1/stats`` gives them."""

from __future__ import annotations

from pydantic import Field

from computeswarm.core.nodes import UNIX_SECONDS, Atoms, Label
from computeswarm.core.signing import Document


class PricePercentiles(Document):
    """What sellers ask, each wallet counted once with its lowest price; atoms per GPU and hour.

    Of wallets that have finished a job where there are three such, of all otherwise: a stranger
    can list any number of nodes at any price, but not sell from them.
    """

    sellers: int = Field(ge=1)
    p10: Atoms
    p25: Atoms
    p50: Atoms
    p75: Atoms
    p90: Atoms


class GPUStats(Document):
    """One GPU model; prices in atoms per GPU and hour, over the nodes that are online."""

    model: Label
    nodes: int = Field(ge=0)
    idle: int = Field(ge=0)
    busy: int = Field(default=0, ge=0)
    draining: int = Field(default=0, ge=0)
    min_price: Atoms
    median_price: Atoms
    asked: PricePercentiles | None = None
    """None where a market does not tell."""


class MarketStats(Document):
    """``nodes_*`` count nodes now; jobs are counted since the market began."""

    time: UNIX_SECONDS
    nodes_total: int = Field(ge=0)
    nodes_online: int = Field(ge=0)
    nodes_idle: int = Field(ge=0)
    nodes_busy: int = Field(ge=0)
    nodes_draining: int = Field(ge=0)
    gpus: tuple[GPUStats, ...] = Field(default=(), max_length=1_000)
    """Most nodes first; a machine without a GPU counts under ``cpu``."""
    jobs_total: int = Field(ge=0)
    """Submitted."""
    jobs: dict[str, int] = Field(default_factory=dict, max_length=20)
    """By the state they are in."""
    jobs_ended: int = Field(default=0, ge=0)
    jobs_completed: int = Field(default=0, ge=0)
    """Ended in ``succeeded``."""
    mean_job_ms: int = Field(default=0, ge=0)
    """Mean metered time of the jobs that ended."""
    paid: int = Field(default=0, ge=0)
    """Atoms paid for jobs, refunds taken off."""
    jobs_paid: int = Field(default=0, ge=0)
    """Ended jobs whose seller kept something: paid for, and not refunded in full."""
    payment_success_permille: int | None = Field(default=None, ge=0, le=1000)
    """Share of ``jobs_paid`` in the jobs that ended; the others ended unpaid or refunded in full,
    whoever's fault that was. None before any ended. As the sellers report it."""
    brake: bool = False
    """So many nodes fell silent at once that the market takes itself to be cut off: none of them
    is counted as offline for now."""
    stale_seconds: int = Field(default=0, ge=0)
    """The market works from memory, and its database was last heard of so long ago."""
