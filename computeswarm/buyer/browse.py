"""Looking for nodes at a market, trusting its list no further than the wallets that signed it."""

from __future__ import annotations

from computeswarm.buyer.http.market import MarketClient
from computeswarm.core.errors import NodeNotFound
from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.query import parse as parse_query

_PAGES = 10
_ID_LENGTH = len("nd-") + 12


async def find_node(market: MarketClient, node_id: str) -> ComputeNode:
    """A node by its id or the unique beginning of it.

    Raises:
        NodeNotFound: none, or several.
    """
    wanted = node_id.strip().lower()
    stem = wanted if wanted.startswith("nd-") else f"nd-{wanted}"
    if not stem.removeprefix("nd-").isalnum() or not stem.isascii():
        raise NodeNotFound(f"{node_id[:60]!r} is no node id; `computeswarm nodes` lists them.")
    if len(stem) == _ID_LENGTH:
        return await market.node(stem)
    found = [node for node in await search(market) if node.node_id.startswith(stem)]
    if len(found) == 1:
        return found[0]
    what = "Several nodes start" if found else "No node starts"
    raise NodeNotFound(f"{what} with {node_id[:60]}; `computeswarm nodes` lists them.")


async def candidates(
    market: MarketClient,
    query: str,
    *,
    image: str,
    gpu_count: int,
    max_seconds: int,
    network: bool = False,
    secrets: bool = False,
) -> list[ComputeNode]:
    """Idle nodes that match and could take such a job, cheapest first.

    Args:
        network: only those that let jobs reach the internet.
        secrets: only those that secrets can be sealed for.
    """
    wanted = parse_query(query)
    fitting = [
        node
        for node in await search(market, query)
        if node.status is NodeStatus.IDLE
        and image in node.info.images
        and len(node.info.hardware.gpus) >= gpu_count
        and node.info.max_job_seconds >= max_seconds
        and (node.info.network or not network)
        and (node.info.secrets_key or not secrets)
        and wanted.matches(node)  # the market's word alone doesn't choose whom we pay
    ]
    return sorted(fitting, key=lambda node: node.info.price_per_hour)


async def search(market: MarketClient, query: str = "") -> list[ComputeNode]:
    """All matching nodes, as far as a few long pages go."""
    found: list[ComputeNode] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await market.nodes(query, sort="price", cursor=cursor, limit=100)
        found += page.nodes
        if (cursor := page.next) is None:
            break
    return found
