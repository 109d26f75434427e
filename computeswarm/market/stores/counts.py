"""Counters that are forgotten at a time of their own; those of one process."""

from __future__ import annotations

from collections.abc import Mapping

from computeswarm.market.stores.protocol import Count

_SWEEP = 10_000


class Counts:
    """Kept in memory: what they limit starts anew with the process."""

    def __init__(self) -> None:
        self._kept: dict[str, Count] = {}
        self._sweep_at = _SWEEP

    def add(self, counts: Mapping[str, Count], now: float) -> Mapping[str, int]:
        """Add, and return what each stands at."""
        for key, count in counts.items():
            old = self._kept.get(key)
            amount = count.amount + (old.amount if old is not None and old.until > now else 0)
            self._kept[key] = Count(amount, count.until)
        standing = {key: self._kept[key].amount for key in counts}
        if len(self._kept) > self._sweep_at:
            self._kept = {key: count for key, count in self._kept.items() if count.until > now}
            self._sweep_at = max(_SWEEP, 2 * len(self._kept))
        return standing
