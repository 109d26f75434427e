"""Order and filter nodes that are here already, in pieces that let the screen breathe."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from itertools import compress

from computeswarm.tui.views import NodeItem

PIECE = 8_192
"""Rows handled at once: 5 to 10 ms."""
_ATTRIBUTES = {
    "gpu": ("title", False),
    "gpus": ("gpu_count", True),
    "vram": ("gpu_vram", True),
    "price": ("price", False),
    "cost": ("cost", False),
    "value": ("value", False),
    "tflops": ("tflops", True),
    "region": ("region", False),
    "rel": ("rel", True),
    "reputation": ("reputation", True),
    "uptime": ("uptime_permille", True),
    "network": ("network", True),
    "cores": ("cpu_cores", True),
    "ram": ("memory_bytes", True),
    "disk": ("disk_bytes", True),
    "queue": ("queued", False),
    "max_time": ("max_job_seconds", True),
    "slice": ("slice_seconds", False),
    "name": ("name", False),
}
"""By sort key: the attribute that the market orders by, and whether its best is the largest."""
LOCAL = frozenset(_ATTRIBUTES)
"""Sort keys that can be followed without asking the market."""


def steps(nodes: Sequence[NodeItem], sort: str) -> Iterator[list[NodeItem] | None]:
    """Sort in steps: None while there is more to do, then the rows.

    Pieces are sorted one by one; sorting them joined is a merge, which costs little more than
    comparing neighbours.
    """
    name = sort.removeprefix("-")
    attribute, falls = _ATTRIBUTES[name]
    reverse = falls != sort.startswith("-")

    def key(node: NodeItem) -> str | int:
        value: str | int = getattr(node, attribute)
        return value.lower() if isinstance(value, str) else value

    keys: list[str | int] = []
    places: list[int] = []
    for begin in range(0, len(nodes), PIECE):
        keys += map(key, nodes[begin : begin + PIECE])
        some = range(begin, min(begin + PIECE, len(nodes)))
        places += sorted(some, key=keys.__getitem__, reverse=reverse)
        yield None
    places.sort(key=keys.__getitem__, reverse=reverse)
    yield None
    yield list(map(nodes.__getitem__, places))


def ordered(nodes: Sequence[NodeItem], sort: str) -> list[NodeItem]:
    """In the order of a sort key, ``-`` before it reversed; equal ones stay as they stand."""
    for rows in steps(nodes, sort):
        if rows is not None:
            return rows
    return []


async def ordered_gently(nodes: Sequence[NodeItem], sort: str) -> list[NodeItem]:
    """The same, giving way to others between the pieces."""
    for rows in steps(nodes, sort):
        if rows is not None:
            return rows
        await asyncio.sleep(0)
    return []


def only(nodes: Sequence[NodeItem], ids: Collection[str]) -> list[NodeItem]:
    """Those whose id is among ``ids``, in the same order."""
    return list(compress(nodes, [node.node_id in ids for node in nodes]))
