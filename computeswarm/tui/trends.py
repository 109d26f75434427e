"""Prices of a model over thirty days: kept for minutes, and in words and bars."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.format import BARS
from computeswarm.tui.views import PricePoint, PriceTrend

KEPT_SECONDS, FAILED_SECONDS = 300.0, 30.0
MOST = 64


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a model's prices: loading where nothing is."""

    trend: PriceTrend | None = None
    trouble: str = ""
    """Why it could not be fetched."""

    @property
    def loading(self) -> bool:
        return self.trend is None and not self.trouble


LOADING = Told()


class Trends:
    """What was fetched, by model. ``monotonic`` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held: OrderedDict[str, tuple[float, Told]] = OrderedDict()

    def told(self, model: str) -> Told:
        """What is held of it, old or not."""
        held = self._held.get(model)
        return held[1] if held else LOADING

    def fresh(self, model: str) -> bool:
        """Whether there is no need to fetch it again yet; a failure is tried again sooner."""
        held = self._held.get(model)
        if held is None:
            return False
        at, told = held
        return self._monotonic() - at < (FAILED_SECONDS if told.trouble else KEPT_SECONDS)

    def keep(self, model: str, answer: PriceTrend | ComputeSwarmError) -> None:
        """It came, or it did not: then what was there before stays."""
        if isinstance(answer, PriceTrend):
            told = Told(answer)
        else:
            told = Told(self.told(model).trend, answer.detail)
        self._held.pop(model, None)
        self._held[model] = (self._monotonic(), told)
        if len(self._held) > MOST:
            self._held.popitem(last=False)


def bars(trend: PriceTrend, width: int) -> str:
    """Median prices over the whole span, from the lowest to the highest; blank where unknown."""
    if not trend.points or width < 1:
        return ""
    span = max(1, trend.until - trend.since)
    cells: list[list[int]] = [[] for _ in range(width)]
    for point in trend.points:
        at = (point.at - trend.since) * width // span
        cells[max(0, min(width - 1, at))].append(point.p50)
    means = [sum(cell) // len(cell) if cell else None for cell in cells]
    known = [mean for mean in means if mean is not None]
    low, high = min(known), max(known)
    steps = len(BARS) - 1
    middle = steps // 2
    return "".join(
        " "
        if mean is None
        else BARS[(mean - low) * steps // (high - low) if high > low else middle]
        for mean in means
    )


def standing(price: int, point: PricePoint) -> str:
    """Where a price lies among what the sellers of its model ask now."""
    if point.sellers < 2:
        return "the only seller of this model"
    if price < point.p10:
        return "below the cheapest tenth"
    for share, border in ((25, point.p25), (50, point.p50), (75, point.p75), (90, point.p90)):
        if price <= border:
            return (
                f"in the cheapest {share} %"
                if share <= 50
                else f"dearer than half, within {share} %"
            )
    return "above nine tenths"
