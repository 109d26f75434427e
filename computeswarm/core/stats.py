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
    min_price: Atoms
    median_price: Atoms
    asked: PricePercentiles | None = None
    """None where a market does not tell."""


class MarketStats(Document):
    """``nodes_*`` count nodes now; jobs are counted by state since the market began."""

    time: UNIX_SECONDS
    nodes_total: int = Field(ge=0)
    nodes_online: int = Field(ge=0)
    nodes_idle: int = Field(ge=0)
    nodes_busy: int = Field(ge=0)
    nodes_draining: int = Field(ge=0)
    gpus: tuple[GPUStats, ...] = Field(default=(), max_length=1_000)
    """Most nodes first; a machine without a GPU counts under ``cpu``."""
    jobs_total: int = Field(ge=0)
    jobs: dict[str, int] = Field(default_factory=dict, max_length=20)
    mean_job_ms: int = Field(default=0, ge=0)
    """Mean metered time of the jobs that ended."""
    paid: int = Field(default=0, ge=0)
    """Atoms paid for jobs, refunds taken off."""
