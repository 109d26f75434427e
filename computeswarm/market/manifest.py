"""What can be bought here, in the form of x402's own discovery list.

Everything in it stands in the sellers' signed records; what else they offer, such as channels, they
say themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import same_address
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.x402 import RequirementsV2
from computeswarm.market.directory import Node
from computeswarm.payments.extensions.bazaar import discovered, page_of

MAX_ITEMS = 1_000
MAX_PAGE = 100
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; empty is any. Sources: the specification's section 8.1, and the packages'
    clients."""

    type: str = ""
    pay_to: str = ""
    scheme: str = ""
    network: str = ""

    def __call__(self, node: Node, chain: ChainInfo) -> bool:
        """Whether a node is it."""
        return (
            self.type in ("", "http")
            and self.scheme in ("", "exact")
            and self.network in ("", chain.caip2)
            and (not self.pay_to or same_address(self.pay_to, node.record.wallet))
        )


def manifest(nodes: Iterable[Node], chain: ChainInfo, now: float) -> dict[str, Any]:
    """``/x402.json``; each item is a node's ``/execute``, at the price of its first slice."""
    listed = resources(nodes, chain, now, Wanted(), limit=MAX_ITEMS, offset=0)
    return listed | {
        "name": "ComputeSwarm",
        "description": "Compute by the second, paid in USDC straight to its seller.",
        "networks": [chain.caip2, chain.slug],
        "computeswarm": {
            "discovery": "/api/v1/nodes",
            "openapi": "/openapi.json",
            "chain_id": chain.chain_id,
            "asset": chain.usdc.address,
            "scheme": "exact",
        },
    }


def resources(
    nodes: Iterable[Node], chain: ChainInfo, now: float, wanted: Wanted, *, limit: int, offset: int
) -> dict[str, Any]:
    """``GET /discovery/resources``: the nodes that are there, the cheapest first."""
    found = [
        node
        for node in nodes
        if node.status_at(now) is not NodeStatus.OFFLINE and wanted(node, chain)
    ]
    found.sort(key=lambda node: (node.record.price_per_hour, node.node_id))
    items = [_item(node, chain) for node in found[offset : offset + limit]]
    return page_of(items, limit=limit, offset=offset, total=len(found))


def _item(node: Node, chain: ChainInfo) -> dict[str, Any]:
    record = node.record
    accepted = RequirementsV2(
        scheme="exact",
        network=chain.caip2,
        amount=str(cost_atoms(record.price_per_hour, record.slice_seconds)),
        asset=chain.usdc.address,
        pay_to=record.wallet,
        max_timeout_seconds=_TIMEOUT_SECONDS,
        extra={"name": chain.usdc.name, "version": chain.usdc.version},
    )
    return discovered(
        record.endpoint.rstrip("/") + "/execute",
        accepts=[accepted.wire()],
        last_updated=record.issued_at,
        metadata={
            "node_id": node.node_id,
            "hardware": record.hardware.title,
            "price_per_hour": record.price_per_hour,
            "slice_seconds": record.slice_seconds,
        },
    )
