"""Figures that follow from others, for many nodes at once: ``core.query.facts`` in arrays."""

from __future__ import annotations

import numpy as np

from computeswarm.core.query import UNKNOWN_VALUE
from computeswarm.core.query.facts import BOUND_DEVIATIONS, DEAREST, PPM
from computeswarm.market.columns import Array, Columns


def uptime(columns: Columns, rows: Array | slice, now: float | Array) -> Array:
    """Share of the time since registration that was covered by heartbeats, in thousandths."""
    known = now - columns.registered_at[rows]
    last_seen = columns.last_seen[rows]
    until = np.minimum(np.maximum(last_seen, now), columns.lease_until[rows])
    alive = columns.alive_seconds[rows] + np.maximum(until - last_seen, 0.0)
    share = np.rint(1000 * alive / np.where(known > 0, known, 1.0))
    return np.where(known > 0, np.clip(share, 0, 1000), 1000).astype(np.int32)


def reliability(uptime_permille: Array, succeeded: Array, failed: Array) -> Array:
    """In millionths; see ``core.query.facts.reliability``."""
    good = succeeded.astype(np.int64)
    ended = good + failed
    share = np.where(ended > 0, good * PPM // np.maximum(ended, 1), PPM)
    return (uptime_permille * share // 1000).astype(np.int32)


def expected_cost(price: Array, rel: Array) -> Array:
    """Atoms per hour; see ``core.query.facts.expected_cost``."""
    return np.minimum(price, DEAREST) * PPM // np.maximum(rel, 1)


def price_of_throughput(price: Array, tflops: Array) -> Array:
    """Thousandths of an atom; see ``core.query.facts.price_of_throughput``."""
    value = np.minimum(price, DEAREST) * 1000 // np.maximum(tflops, 1)
    return np.where(tflops > 0, value, UNKNOWN_VALUE)


def reputation(succeeded: Array, failed: Array) -> Array:
    """In thousandths; see ``core.query.facts.reputation``, whose order of operations this is."""
    good, bad = 1.0 + succeeded, 1.0 + failed
    both = good + bad
    deviation = np.sqrt(good * bad / (both * both * (both + 1.0)))
    share = 1000.0 * (good / both - BOUND_DEVIATIONS * deviation)
    return np.maximum(share.astype(np.int32), 0)


def reckon(columns: Columns, slots: Array, now: float | Array) -> None:
    """Everything that follows from the other columns of some slots."""
    columns.uptime[slots] = uptime(columns, slots, now)
    columns.value[slots] = price_of_throughput(columns.price[slots], columns.tflops[slots])
    reckon_jobs(columns, slots)


def reckon_jobs(columns: Columns, slots: Array) -> None:
    """What follows from uptime and the counts of jobs."""
    succeeded, failed = columns.succeeded[slots], columns.failed[slots]
    rel = reliability(columns.uptime[slots], succeeded, failed)
    columns.rel[slots] = rel
    columns.cost[slots] = expected_cost(columns.price[slots], rel)
    columns.reputation[slots] = reputation(succeeded, failed)
