"""Which rows a plan finds: block by block, each condition on what the ones before left over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from computeswarm.core.query import Query
from computeswarm.market.columns import Array, Columns
from computeswarm.market.index.plan import Condition, Plan, plan
from computeswarm.market.table import NodeTable

BLOCK = 128 * 1024
"""Rows at a time: what is read and written stays in the processor's cache."""
_SPARSE = 128
"""Below one row in so many the rest is looked up row by row."""
_FEW = 2_000
"""Nodes whose names are sooner read than all names."""
_THIN = 4
"""The same where rows are looked up one by one anyway."""


def mask(made: Plan, columns: Columns, size: int) -> Array:
    """For each of the first ``size`` slots whether its node is found."""
    found = np.empty(size, np.bool_)
    for start in range(0, size, BLOCK):
        rows = slice(start, min(start + BLOCK, size))
        found[rows] = _block(made.conditions, columns, rows)
    return found


def narrow(made: Plan, columns: Columns, found: Array, few: Array) -> None:
    """Ask the plan's late conditions of the slots that were ``found``, which are ``few``."""
    found[few] = some(made.late, columns, few)


def _block(conditions: Sequence[Condition], columns: Columns, rows: slice) -> Array:
    found = conditions[0].mask(columns, rows)
    for place, condition in enumerate(conditions[1:], 1):
        left = int(np.count_nonzero(found))
        if not left:
            break
        if left * _SPARSE < len(found):
            few = np.flatnonzero(found)
            found[few] = some(conditions[place:], columns, few + rows.start)
            break
        found &= condition.mask(columns, rows)
    return found


def some(conditions: Sequence[Condition], columns: Columns, slots: Array) -> Array:
    """For each of some slots whether all conditions hold."""
    found = conditions[0].mask(columns, slots)
    for place, condition in enumerate(conditions[1:], 1):
        if np.count_nonzero(found) * _THIN < len(found):
            few = np.flatnonzero(found)
            found[few] = some(conditions[place:], columns, slots[few])
            break
        found &= condition.mask(columns, slots)
    return found


def matching(table: NodeTable, query: Query, slots: Array) -> Array:
    """For each of some slots whether the query finds its node now."""
    made = plan(table, query, few=len(slots) < _FEW)
    return some(made.all, table.columns, slots)
