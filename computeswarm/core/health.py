"""Whether a server can do its work, as ``GET /health`` tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from computeswarm.core.nodes import Label
from computeswarm.core.signing import Document


class Trouble(Document):
    """One thing that isn't right."""

    code: str = Field(max_length=40)
    """``loading``, ``closing``, ``database_away``, ``replication_late``, ``clock_off`` or
    ``brake``."""
    detail: str = Field(max_length=300)
    """A sentence for people: what it means for them."""


class MarketHealth(Document):
    """A market is *ready* while it answers reads, ``degraded`` though it may be.

    ``/health`` and ``/health/ready`` answer 503 only before it has loaded its nodes and while it
    closes; ``/health/live`` never does.
    """

    status: Literal["ok", "degraded", "loading", "closing"]
    version: Label
    troubles: tuple[Trouble, ...] = Field(default=(), max_length=20)
    """Everything that isn't right; empty when all is well."""
    loaded: bool
    """The nodes are in memory."""
    nodes_online: int = Field(default=0, ge=0)
    database: Label = ""
    """``sqlite`` or ``postgresql``."""
    database_ok: bool = True
    stale_seconds: int = Field(default=0, ge=0)
    """What is shown is so much older than usual, since the database is away."""
    replication_lag_seconds: float | None = None
    """Since when what other instances wrote is here in full; None where there are no others."""
    brake: bool = False
    """Many nodes fell silent at once; none of them is taken for offline for now."""
    nodes_held: int = Field(default=0, ge=0)
    """Nodes that the brake keeps listed."""

    @property
    def ready(self) -> bool:
        """Whether reads are answered."""
        return self.status in ("ok", "degraded")
