"""How many of the nodes that were found are of which kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from computeswarm.core.pages import FacetCount, Facets
from computeswarm.core.query import FIELDS
from computeswarm.market.columns import Array, Columns
from computeswarm.market.dictionary import Dictionary
from computeswarm.market.facts import ITEMS
from computeswarm.market.table import NodeTable

MOST = 100
"""Values a field; whoever lists nodes by the thousand can't make a page longer."""


def count(table: NodeTable, columns: Columns, found: Array) -> Facets:
    """Facets of the slots where ``found`` is true; may run in a thread."""
    slots = np.flatnonzero(found)

    def of(column: str, name: Callable[[int], str]) -> tuple[FacetCount, ...]:
        return _counts(getattr(columns, column)[slots], name)

    return Facets(
        total=len(slots),
        model=of("gpu", _label(table.gpus, "cpu")),
        vendor=of("vendor", lambda code: FIELDS["vendor"].choices[code]),
        vram=of("vram", str),
        gpus=of("gpus", str),
        region=of("region", _label(table.regions, "")),
        isolation=of("isolation", lambda code: FIELDS["isolation"].choices[code]),
        status=of("status", _status),
        network=of("network", lambda code: "yes" if code else "no"),
    )


def _label(dictionary: Dictionary, empty: str) -> Callable[[int], str]:
    return lambda entry: dictionary.label(entry).replace(ITEMS, " + ") or empty


def _status(code: int) -> str:
    choices = FIELDS["status"].choices
    return choices[min(code, len(choices) - 1)]  # one that left while it was counted


def _counts(values: Array, name: Callable[[int], str]) -> tuple[FacetCount, ...]:
    if len(values) and int(values.max()) < 2 * len(values) + 2**16:
        counted = np.bincount(values)
        kinds = np.flatnonzero(counted)
        counted = counted[kinds]
    else:
        kinds, counted = np.unique(values, return_counts=True)
    if len(kinds) > MOST:
        most = np.argpartition(-counted, MOST)[:MOST]
        kinds, counted = kinds[most], counted[most]
    made = [
        FacetCount(value=name(kind), nodes=nodes)
        for kind, nodes in zip(kinds.tolist(), counted.tolist(), strict=True)
    ]
    return tuple(sorted(made, key=lambda one: (-one.nodes, one.value)))
