"""Looking for nodes at a market, trusting its list no further than the wallets that signed it."""

from __future__ import annotations

from computeswarm.buyer.http.market import MarketClient
from computeswarm.core.errors import NodeNotFound
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.query import facts_of, squeeze
from computeswarm.core.query import parse as parse_query

_LOOKED_AT = 1_000
_ENOUGH = 50
"""Fitting nodes after which no further page is asked for: the best come first."""
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
    page = await market.nodes(f"id:{stem[:_ID_LENGTH]}", limit=100)
    found = [node for node in page.nodes if node.node_id.startswith(stem)]
    if len(found) == 1 and page.next is None:
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
    """Idle nodes that match and could take such a job, in the query's order: cheapest first, unless
    it has a ``sort:``.

    Args:
        network: only those that let jobs reach the internet.
        secrets: only those that secrets can be sealed for.

    Raises:
        InvalidQuery, MarketUnavailable.
    """
    parse_query(query)  # alone: what it leaves open is not to take in our own words
    wanted = parse_query(_narrowed(query, image, gpu_count, max_seconds, network))
    fitting: list[ComputeNode] = []
    async for page in market.find_all(wanted.text, most=_LOOKED_AT):
        fitting += [
            node
            for node in page.nodes
            if wanted.matches(node)  # the market's word alone doesn't choose whom we pay
            and image in node.info.images
            and (node.info.secrets_key or not secrets)
        ]
        if len(fitting) >= _ENOUGH:
            break
    return sorted(fitting, key=lambda node: wanted.sort_key(facts_of(node)))


def _narrowed(query: str, image: str, gpus: int, seconds: int, network: bool) -> str:
    """The query with what the job needs behind it.

    Raises:
        InvalidQuery: it is too long for that.
    """
    words = [query, "idle", f"max_time>={seconds}"]
    words += [f"gpus>={gpus}"] if gpus else []
    words += ["network"] if network else []
    words += [f"image:{squeezed}"] if (squeezed := squeeze(image)) else []
    return " ".join(words).strip()
