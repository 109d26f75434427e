"""Which of the nodes that are here nothing else beats, and which one beats the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from computeswarm.core.dominance import Offer, dominators
from computeswarm.tui.views import NodeItem

STAR, HEART = "★", "♥"
_RENTABLE = ("idle", "busy")


@dataclass(frozen=True, slots=True)
class Marks:
    """Of nodes that were compared with one another."""

    best: frozenset[str] = frozenset()
    """Ids: nothing is as cheap, as fast and as reliable, and better in one of these."""
    better: Mapping[str, NodeItem] = field(default_factory=dict)
    """By the id of a node that is beaten: one that beats it and is itself unbeaten."""
    compared: int = 0


NOTHING = Marks()


def compare(nodes: Iterable[NodeItem]) -> Marks:
    """Mark those that take jobs and whose throughput is known; others are not compared."""
    rentable = [n for n in nodes if n.tflops > 0 and n.status in _RENTABLE]
    found = dominators([Offer(n.price, n.tflops, n.rel) for n in rentable])
    pairs = list(zip(rentable, found, strict=True))
    return Marks(
        frozenset(node.node_id for node, by in pairs if by is None),
        {node.node_id: rentable[by] for node, by in pairs if by is not None},
        len(rentable),
    )


def verdict(node: NodeItem, marks: Marks) -> str:
    """What the mark says of a node, in a sentence."""
    if node.node_id in marks.best:
        others = marks.compared - 1
        if not others:
            return "the only one here that can be compared"
        return f"best of its kind: none of {others:,} others is cheaper, faster and more reliable"
    by = marks.better.get(node.node_id)
    if by is None:
        if node.tflops <= 0:
            return "not compared: its throughput is not known"
        return f"not compared: it is {node.status}"
    ways = [
        word
        for word, better in (
            ("cheaper", by.price < node.price),
            ("faster", by.tflops > node.tflops),
            ("more reliable", by.rel > node.rel),
        )
        if better
    ]
    same = "" if len(ways) == 3 else ", else as good"
    return f"{by.name} ({by.node_id}) is {' and '.join(ways)}{same}"
