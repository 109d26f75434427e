"""``/x402.json``: what can be bought here, in the form of x402's own discovery list."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.x402 import RequirementsV2
from computeswarm.market.directory import Node

MAX_ITEMS = 1_000
_TIMEOUT_SECONDS = 300


def manifest(nodes: Iterable[Node], chain: ChainInfo, now: float) -> dict[str, Any]:
    """The document; each item is a node's ``/execute``, at the price of its first slice."""
    online = [node for node in nodes if node.status_at(now) is not NodeStatus.OFFLINE]
    online.sort(key=lambda node: (node.record.price_per_hour, node.node_id))
    items = [_item(node, chain) for node in online[:MAX_ITEMS]]
    return {
        "x402Version": 2,
        "name": "ComputeSwarm",
        "description": "Compute by the second, paid in USDC straight to its seller.",
        "networks": [chain.caip2, chain.slug],
        "items": items,
        "pagination": {"limit": MAX_ITEMS, "offset": 0, "total": len(online)},
        "computeswarm": {
            "discovery": "/api/v1/nodes",
            "openapi": "/openapi.json",
            "chain_id": chain.chain_id,
            "asset": chain.usdc.address,
            "scheme": "exact",
        },
    }


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
    return {
        "resource": record.endpoint.rstrip("/") + "/execute",
        "type": "http",
        "x402Version": 2,
        "accepts": [accepted.wire()],
        "lastUpdated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.issued_at)),
        "metadata": {
            "node_id": node.node_id,
            "hardware": record.hardware.title,
            "price_per_hour": record.price_per_hour,
            "slice_seconds": record.slice_seconds,
        },
    }
