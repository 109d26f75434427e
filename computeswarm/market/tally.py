"""Counting a million nodes by status and model, and what their wallets ask; in arrays only.

It runs in a thread beside the market's loop, so it takes columns and touches no table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from computeswarm.core.nodes import NodeStatus
from computeswarm.core.stats import GPUStats, PricePercentiles
from computeswarm.market.facts import ITEMS
from computeswarm.market.rows import STATUSES

MAX_MODELS = 200
"""A label of a metric, and a series of the price history: strangers' models are only so many."""
_LABELS = 5_000
"""Numbers of labels that are read; beyond that they are of a few machines each."""
ENOUGH = 3
"""Wallets that have finished a job; below that all of them count."""
_PRICE_BITS = 48
_TOP_PRICE = (1 << _PRICE_BITS) - 1
"""Atoms; 281 million USDC an hour, and whoever asks more is counted there."""
_ONLINE = np.array([status is not NodeStatus.OFFLINE for status in STATUSES])
_PERCENTS = (10, 25, 50, 75, 90)

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Columns:
    """One entry a node; a status beyond ``rows.STATUSES`` is no node."""

    status: Array
    gpu: Array
    """A small number for each combination of models."""
    price: Array
    """Atoms per GPU and hour."""
    wallet: Array
    """Eight bytes of the address: enough to tell wallets apart, short of 2^64 attempts."""
    succeeded: Array


@dataclass(frozen=True, slots=True)
class Tally:
    """``by_status`` is in the order of ``rows.STATUSES``."""

    by_status: tuple[int, ...]
    gpus: tuple[GPUStats, ...]

    def of(self, status: NodeStatus) -> int:
        """Nodes of a status."""
        return self.by_status[STATUSES.index(status)]


def tally(nodes: Columns, labels: Sequence[str]) -> Tally:
    """Count nodes, and for each of the models with most nodes online its prices.

    Args:
        labels: the models of a machine's GPUs by the number in ``gpu``; the first one counts.
    """
    by_status = np.bincount(nodes.status, minlength=len(STATUSES))[: len(STATUSES)]
    counted = tuple(int(count) for count in by_status)
    online = np.flatnonzero(_ONLINE.take(nodes.status, mode="clip"))  # the last one is offline
    if not len(online):
        return Tally(counted, ())
    gpu = nodes.gpu.take(online)
    names, rank_of = _rank(np.bincount(gpu), labels)
    rank = rank_of.take(gpu)
    if rank.min() < 0:
        kept = np.flatnonzero(rank >= 0)
        online, rank = online.take(kept), rank.take(kept)
    rows = _models(nodes, online, rank, names)
    rows.sort(key=lambda row: (-row.nodes, row.model))
    return Tally(counted, tuple(rows))


def _rank(counts: Ints, labels: Sequence[str]) -> tuple[list[str], Ints]:
    """The models with most nodes, and the place among them by number of a label; -1 for none."""
    numbers = _most(counts, _LABELS)
    models = [labels[number].partition(ITEMS)[0] or "cpu" for number in numbers]
    nodes: Counter[str] = Counter()
    for model, number in zip(models, numbers, strict=True):
        nodes[model] += int(counts[number])
    names = [model for model, _ in nodes.most_common(MAX_MODELS)]
    places = {model: place for place, model in enumerate(names)}
    rank_of = np.full(len(counts), -1, np.int64)
    rank_of[numbers] = [places.get(model, -1) for model in models]
    return names, rank_of


def _most(counts: Ints, limit: int) -> list[int]:
    ordered = np.argsort(-counts, kind="stable")[:limit]
    return [int(number) for number in ordered[counts.take(ordered) > 0]]


def _models(nodes: Columns, online: Ints, rank: Ints, names: list[str]) -> list[GPUStats]:
    price = np.minimum(nodes.price.take(online).astype(np.int64), _TOP_PRICE)
    by_state = np.bincount(
        rank * len(STATUSES) + nodes.status.take(online), minlength=len(names) * len(STATUSES)
    ).reshape(len(names), len(STATUSES))
    listed = _Sorted(rank, price, len(names))
    proven = nodes.succeeded.take(online) > 0
    asked = _asked(rank, nodes.wallet.take(online), price, proven, len(names))
    return [
        GPUStats(
            model=name,
            nodes=int(by_state[place].sum()),
            idle=_count(by_state[place], NodeStatus.IDLE),
            busy=_count(by_state[place], NodeStatus.BUSY),
            draining=_count(by_state[place], NodeStatus.DRAINING),
            min_price=listed.at(place, 0),
            median_price=listed.at(place, (listed.count(place) - 1) // 2),
            asked=asked[place],
        )
        for place, name in enumerate(names)
    ]


def _count(counts: Ints, status: NodeStatus) -> int:
    return int(counts[STATUSES.index(status)])


class _Sorted:
    """Prices by model, each model's in order; one sort for all of them."""

    def __init__(self, rank: Ints, price: Ints, models: int) -> None:
        keys = (rank << _PRICE_BITS) | price
        keys.sort()
        self._prices = keys & _TOP_PRICE
        self._ends = np.searchsorted(keys, np.arange(models + 1) << _PRICE_BITS)

    def count(self, model: int) -> int:
        return int(self._ends[model + 1] - self._ends[model])

    def at(self, model: int, place: int) -> int:
        return int(self._prices[self._ends[model] + place])


def _asked(
    rank: Ints, wallet: Array, price: Ints, proven: npt.NDArray[np.bool_], models: int
) -> list[PricePercentiles]:
    """Each wallet once with its lowest price; those that finished a job, where there are enough."""
    # wallet and model in one number: one sort, and two that meet are not to be found by trying
    key = wallet.astype(np.uint64) ^ (rank.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    order = np.argsort(key)
    key = key.take(order)
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    lowest = np.minimum.reduceat(price.take(order), starts)
    sold = np.logical_or.reduceat(proven.take(order), starts)
    model = rank.take(order.take(starts))
    enough = np.bincount(model[sold], minlength=models) >= ENOUGH
    counted = sold | ~enough.take(model)
    prices = _Sorted(model[counted], lowest[counted], models)
    return [_percentiles(prices, place) for place in range(models)]


def _percentiles(prices: _Sorted, model: int) -> PricePercentiles:
    count = prices.count(model)
    at = [prices.at(model, min(count - 1, count * percent // 100)) for percent in _PERCENTS]
    return PricePercentiles(sellers=count, p10=at[0], p25=at[1], p50=at[2], p75=at[3], p90=at[4])
