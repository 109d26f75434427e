"""What sellers ask over time: a sample of each model's percentiles every five minutes, for charts.

Older times are kept in coarser steps. Moments are whole steps of the clock, so that any number of
instances may sample, and each moment is kept once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from computeswarm.core.clock import Clock
from computeswarm.core.errors import BadRequest, ComputeSwarmError
from computeswarm.core.logs import get_logger
from computeswarm.core.prices import (
    MAX_POINTS,
    MAX_SERIES,
    PriceHistory,
    PricePoint,
    PriceSeries,
)
from computeswarm.core.query import squeeze
from computeswarm.core.stats import GPUStats
from computeswarm.market.stats import Statistics
from computeswarm.market.stores.protocol import Store

DAY = 86_400
KEEP_SECONDS = 90 * DAY
DEFAULT_SPAN = DAY
MAX_GPU = 100
"""Letters of a model that is asked for."""
_GOAL_POINTS = 120
_ALL_POINTS = 1_200
"""Of all series together, so that no question costs more than another."""
_LAST = 2**40
_log = get_logger("market")


class Tier(NamedTuple):
    """Samples every ``step`` seconds, kept for ``keep`` seconds."""

    step: int
    keep: int


TIERS = (Tier(300, 3 * DAY), Tier(3_600, 30 * DAY), Tier(21_600, KEEP_SECONDS))
SAMPLE_SECONDS = TIERS[0].step


class Prices:
    """Samples the market's own statistics, and tells what was sampled.

    Args:
        stats: where the present figures come from.
    """

    def __init__(self, store: Store, stats: Statistics, *, clock: Clock) -> None:
        self.sampled_at = 0
        """The last moment that was kept, unix seconds; 0 before the first."""
        self._store, self._stats, self._clock = store, stats, clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._task = asyncio.create_task(self._sample_forever(), name="price-history")

    async def close(self) -> None:
        """Stop sampling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sample(self) -> None:
        """Keep the present figures under the present moment, and drop what is too old.

        A coarser moment is kept with the first sample in it.

        Raises:
            StorageFull, Unavailable: nothing, or a part, was kept; a next attempt makes it whole.
        """
        now = int(self._clock.now())
        gpus = (await self._stats.get()).gpus
        for tier in TIERS:
            samples = {_series(tier, gpu.model): _sample(gpu) for gpu in gpus if gpu.asked}
            if samples:
                await self._store.add_samples(now - now % tier.step, samples)
            await self._store.prune_samples(now - tier.keep, prefix=_series(tier, ""))
        self.sampled_at = now - now % SAMPLE_SECONDS

    async def history(
        self,
        gpu: str = "",
        *,
        since: int | None = None,
        until: int | None = None,
        step: int | None = None,
    ) -> PriceHistory:
        """The prices of the models that ``gpu`` names, a day of them unless told otherwise.

        Args:
            gpu: part of a model's name, several parted by ``|``; empty for the commonest models.
            since, until: unix seconds.
            step: seconds between points at least; a coarser one is taken where points would be too
                many.

        Raises:
            BadRequest: ``since`` is not before ``until``.
            Unavailable: the database does not answer.
        """
        now = int(self._clock.now())
        end = now if until is None else min(until, _LAST)
        begin = max(0, end - DEFAULT_SPAN) if since is None else since
        if begin >= end:
            raise BadRequest("since is a time before until, both in unix seconds.")
        begin = max(begin, now - KEEP_SECONDS, 0)
        tier = next((t for t in TIERS if begin >= now - t.keep), TIERS[-1])
        listed = (await self._stats.get()).gpus
        models = _models(listed, gpu)[:MAX_SERIES]
        most = min(MAX_POINTS, _ALL_POINTS // max(1, len(models)))
        every = _step(tier, step, (end - begin) / (most if step else min(most, _GOAL_POINTS)))
        made = []
        for model in models:
            kept = await self._store.samples(_series(tier, model), since=begin, until=end)
            present = next((row for row in listed if row.model == model), None)
            points = _points(_thinned(kept, every))
            if present is not None and present.asked and end >= now:
                points = [*(p for p in points if p.at < now), _now(present, now)]
            made.append(PriceSeries(model=model, points=tuple(points[-MAX_POINTS - 1 :])))
        return PriceHistory(since=begin, until=end, step=every, series=tuple(made))

    async def _sample_forever(self) -> None:
        while True:
            now = self._clock.now()
            await asyncio.sleep(SAMPLE_SECONDS - now % SAMPLE_SECONDS)
            try:
                await self.sample()
            except ComputeSwarmError as error:
                _log.warning("prices_not_kept", reason=error.detail)
            except Exception as error:  # the next moment has its own chance
                _log.error("prices_failed", exc=error)


def _series(tier: Tier, model: str) -> str:
    return f"price/{tier.step}/{model}"


def _sample(gpu: GPUStats) -> Mapping[str, int]:
    assert gpu.asked is not None
    return {"nodes": gpu.nodes, "idle": gpu.idle, **gpu.asked.model_dump()}


def _now(gpu: GPUStats, now: int) -> PricePoint:
    return PricePoint.model_validate({"at": now, **_sample(gpu)})


def _step(tier: Tier, wanted: int | None, least: float) -> int:
    """Seconds between points: whole steps of the tier, at least what was wanted and ``least``."""
    steps = -(-max(wanted or 0, least, tier.step) // tier.step)
    return int(steps) * tier.step


def _models(listed: Sequence[GPUStats], gpu: str) -> list[str]:
    """Models whose name holds one of the words; where none does, the word itself may name one that
    nobody offers any more."""
    words = [word for part in gpu[:MAX_GPU].split("|") if (word := part.strip())]
    if not words:
        return [row.model for row in listed]
    exact = [row.model for row in listed if row.model in words]
    if len(exact) == len(words):
        return exact
    squeezed = [word for word in map(squeeze, words) if word]
    found = [row.model for row in listed if any(w in squeeze(row.model) for w in squeezed)]
    return found or words


def _thinned(
    samples: Sequence[tuple[int, Mapping[str, Any]]], step: int
) -> list[tuple[int, Mapping[str, Any]]]:
    """The first sample of each step."""
    kept: dict[int, tuple[int, Mapping[str, Any]]] = {}
    for sample in samples:
        kept.setdefault(sample[0] // step, sample)
    return list(kept.values())


def _points(samples: Sequence[tuple[int, Mapping[str, Any]]]) -> list[PricePoint]:
    # we wrote them: nothing to check again
    return [PricePoint.model_construct(at=at, **figures) for at, figures in samples]
