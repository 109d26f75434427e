"""What can be bought here, in the form of x402's own discovery list.

Everything in it stands in the sellers' signed records; what else they offer, such as channels, they
say themselves.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import is_address
from computeswarm.core.money import cost_atoms
from computeswarm.core.nodes import NodeRecord
from computeswarm.core.signing import Signed
from computeswarm.core.x402 import RequirementsV2
from computeswarm.market.columns import Array
from computeswarm.market.leases import OFFLINE
from computeswarm.market.table import NodeTable
from computeswarm.payments.extensions.bazaar import discovered, page_of

MAX_ITEMS = 1_000
MAX_PAGE = 100
STALE_SECONDS = 2.0
_ON_THE_SPOT = 200
"""Nodes from which documents are made faster than a thread could be asked to."""
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; empty is any. Sources: the specification's section 8.1, and the packages'
    clients."""

    type: str = ""
    pay_to: str = ""
    scheme: str = ""
    network: str = ""

    def slots(self, table: NodeTable, chain: ChainInfo) -> Array:
        """The nodes that are it, of those that are there."""
        here = (
            self.type in ("", "http")
            and self.scheme in ("", "exact")
            and self.network in ("", chain.caip2)
            and (not self.pay_to or is_address(self.pay_to))
        )
        if not here:
            return np.zeros(0, np.int64)
        columns = table.columns
        found = columns.status[: table.size] < OFFLINE
        if self.pay_to:
            wallet = bytes.fromhex(self.pay_to[2:])
            for column, part in zip(
                (columns.wallet_a, columns.wallet_b, columns.wallet_c),
                (wallet[:8], wallet[8:16], wallet[16:]),
                strict=True,
            ):
                found = found & (column[: len(found)] == int.from_bytes(part))
        return np.flatnonzero(found)


class Shelf:
    """Both documents as JSON, made beside the loop where there is much to look through."""

    def __init__(self, table: NodeTable, chain: ChainInfo, clock: Clock) -> None:
        self._table, self._chain, self._clock = table, chain, clock
        self._making = asyncio.Lock()
        self._manifest = b""
        self._version, self._made_at = -1, -math.inf

    async def manifest(self) -> bytes:
        """See ``manifest``; of a large market at most ``STALE_SECONDS`` old."""
        async with self._making:
            if not self._fresh():
                self._version, self._made_at = self._table.version, self._clock.monotonic()
                made = await self._beside(lambda: manifest(self._table, self._chain))
                self._manifest = _json(made)
        return self._manifest

    async def resources(self, wanted: Wanted, *, limit: int, offset: int) -> bytes:
        """See ``resources``."""
        page = {"limit": limit, "offset": offset}
        async with self._making:  # one at a time, since each may go through all nodes
            return _json(
                await self._beside(lambda: resources(self._table, self._chain, wanted, **page))
            )

    def _fresh(self) -> bool:
        if self._table.version == self._version:
            return True
        age = self._clock.monotonic() - self._made_at
        return self._table.size > _ON_THE_SPOT and age < STALE_SECONDS

    async def _beside(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return make() if self._table.size <= _ON_THE_SPOT else await asyncio.to_thread(make)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def manifest(table: NodeTable, chain: ChainInfo) -> dict[str, Any]:
    """``/x402.json``; each item is a node's ``/execute``, at the price of its first slice."""
    listed = resources(table, chain, Wanted(), limit=MAX_ITEMS, offset=0)
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
    table: NodeTable, chain: ChainInfo, wanted: Wanted, *, limit: int, offset: int
) -> dict[str, Any]:
    """``GET /discovery/resources``: the nodes that are there, the cheapest first.

    May run in a thread while the table changes: a node that leaves meanwhile is left out.
    """
    found = wanted.slots(table, chain)
    shown = _cheapest(table, found, offset + limit)[offset:]
    records = [(table.node_id(slot), table.record(slot)) for slot in shown.tolist()]
    items = [_item(node_id, record, chain) for node_id, record in records if record]
    return page_of(items, limit=limit, offset=offset, total=len(found))


def _cheapest(table: NodeTable, slots: Array, count: int) -> Array:
    prices, ids = table.columns.price[slots], table.columns.id[slots]
    if count < len(slots):  # only those that may be shown need an order
        few = prices <= np.partition(prices, count)[count]
        slots, prices, ids = slots[few], prices[few], ids[few]
    return slots[np.lexsort((ids, prices))][:count]


def _item(node_id: str, record_json: bytes, chain: ChainInfo) -> dict[str, Any]:
    record = NodeRecord.model_validate(Signed.model_validate_json(record_json).document)
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
            "node_id": node_id,
            "hardware": record.hardware.title,
            "price_per_hour": record.price_per_hour,
            "slice_seconds": record.slice_seconds,
        },
    )
