"""``seller revoke`` from a machine on which no seller runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from buying_world import Ended, World, _store_cheaply, on_terminal, world

from computeswarm.core.signing import Signed


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    """The home holds the wallet of the seller that is listed, and nothing else of his."""
    async with world(tmp_path, wallet=False) as made:
        _store_cheaply(made.home / "wallet.json", made.seller.key)
        yield made


async def listed(there: World) -> list[str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{there.market}/api/v1/nodes?q=") as reply,
    ):
        return [node["node_id"] for node in (await reply.json())["nodes"]]


async def revoke(there: World, *words: str) -> Ended:
    return await there.cli("seller", "revoke", *words)


async def test_a_node_is_revoked_from_wherever_its_wallet_is(there: World) -> None:
    node = there.seller.record.node_id
    assert await listed(there) == [node]
    asked = await revoke(there, node)
    assert asked.code == 125 and "--yes" in asked.err
    unknown = await revoke(there, "nobody", "--yes")
    assert unknown.code == 125 and "never had a node 'nobody' of this wallet" in unknown.err
    strange = await revoke(there, "nd-" + "0" * 12, "--yes")
    assert strange.code == 125 and "never had nd-000000000000; give" in strange.err
    assert await listed(there) == [node]
    done = await revoke(there, there.seller.record.name, "--yes", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["revoked"] == node
    word = Signed.model_validate(document["revocation"])
    assert word.signer() == there.seller.key.address and word.kind == "node-revocation"
    assert await listed(there) == []
    assert (await revoke(there, node, "--yes")).code == 0  # once more does no harm


async def test_it_asks_first(there: World) -> None:
    node = there.seller.record.node_id
    refused = await on_terminal(there, b"n\n", "seller", "revoke", node)
    assert refused.code == 126 and await listed(there) == [node]
    agreed = await on_terminal(there, b"y\n", "seller", "revoke", node)
    assert agreed.code == 0 and await listed(there) == []
