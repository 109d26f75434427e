"""The nodes that a search found, kept right by the market's stream of changes."""

from __future__ import annotations

from collections.abc import Iterable

from computeswarm.core.changes import Change, NodeChanged, NodeGone, NodeListed
from computeswarm.core.nodes import ComputeNode


class NodeView:
    """Nodes by their ids. Load it after the stream has opened, and once more after a ``reset``."""

    def __init__(self, nodes: Iterable[ComputeNode] = ()) -> None:
        self.nodes: dict[str, ComputeNode] = {}
        self.load(nodes)

    def load(self, nodes: Iterable[ComputeNode]) -> None:
        """What a search gives now."""
        self.nodes = {node.node_id: node for node in nodes}

    def apply(self, change: Change) -> bool:
        """Take over a change; whether anything is different now."""
        match change:
            case NodeListed(node=node):
                before = self.nodes.get(node.node_id)
                self.nodes[node.node_id] = node
                return node != before
            case NodeChanged(node_id=node_id):
                known = self.nodes.get(node_id)
                if known is None:
                    return False  # one that a search of so many nodes didn't show
                update = change.model_dump(exclude={"type", "node_id"})
                self.nodes[node_id] = _with(known, update)
                return self.nodes[node_id] != known
            case NodeGone(node_id=node_id):
                return self.nodes.pop(node_id, None) is not None
        return False


def _with(node: ComputeNode, update: dict[str, object]) -> ComputeNode:
    """The node as it goes now; the record that was opened once stays open."""
    return node.model_copy(update=update)
