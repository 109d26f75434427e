"""What sellers asked over time, as ``GET /api/v1/stats/prices`` gives it."""

from __future__ import annotations

from pydantic import Field

from computeswarm.core.nodes import UNIX_SECONDS, Label
from computeswarm.core.signing import Document
from computeswarm.core.stats import PricePercentiles

MAX_SERIES = 10
MAX_POINTS = 500


class PricePoint(PricePercentiles):
    """How a model's prices stood at one moment; atoms per GPU and hour."""

    at: UNIX_SECONDS
    nodes: int = Field(default=0, ge=0)
    """Online."""
    idle: int = Field(default=0, ge=0)


class PriceSeries(Document):
    """One GPU model, oldest point first. The last may be of now, all others are of the history.

    A moment at which nobody offered the model, or the market did not run, has no point.
    """

    model: Label
    points: tuple[PricePoint, ...] = Field(default=(), max_length=MAX_POINTS + 1)


class PriceHistory(Document):
    """Points are ``step`` seconds apart; older times are kept in coarser steps."""

    since: UNIX_SECONDS
    until: UNIX_SECONDS
    step: int = Field(ge=1)
    series: tuple[PriceSeries, ...] = Field(default=(), max_length=MAX_SERIES)
    """The models that were asked for; those with most nodes first."""
