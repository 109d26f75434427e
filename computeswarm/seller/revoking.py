"""Taking a node off a market by its wallet's word, whether or not its seller runs."""

from __future__ import annotations

import re

from computeswarm.core.chains import ChainInfo
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Conflict, NodeNotFound
from computeswarm.core.ids import NODE_ID_PATTERN, NodeId
from computeswarm.core.nodes import node_id
from computeswarm.core.sessions import REVOCATION_KIND, NodeRevocation
from computeswarm.core.signing import Signed
from computeswarm.seller.market_calls import MarketCalls

_LEAD_MS = 600_000
"""A revocation is numbered so far ahead of the clock: a seller that runs numbers its records by its
own clock, and hears of it by its next heartbeat, so none of them can undo it meanwhile."""
_AHEAD_MS = 2 * 86_400_000


def find_node(wallet: str, name_or_id: str) -> NodeId:
    """The id of a node that its owner names."""
    if re.fullmatch(NODE_ID_PATTERN, name_or_id):
        return NodeId(name_or_id)
    return node_id(wallet, name_or_id)


async def revoke_node(
    key: PrivateKey, node: NodeId, market: str, chain: ChainInfo, clock: Clock, *, called: str = ""
) -> Signed:
    """Revoke a node, and give the revocation, which anybody may take to other markets too.

    Args:
        called: its name, where the owner named it so; for the error's words.

    Raises:
        NodeNotFound: the market never had it.
        Unauthorized: it is another wallet's.
        ComputeSwarmError: the market refuses otherwise, or does not answer.
    """
    now = clock.now()
    seq = int(now * 1000) + _LEAD_MS
    calls = MarketCalls(market)
    try:
        try:
            return await _send(calls, key, node, chain, seq, now)
        except Conflict as error:  # its clock is ahead of ours, or it was revoked so before
            known = error.extra.get("seq")
            if type(known) is not int or not seq < known <= seq + _AHEAD_MS:
                raise  # a wallet doesn't sign away all the numbers at a market's word
            return await _send(calls, key, node, chain, known + _LEAD_MS, now)
        except NodeNotFound:
            what = f"a node {called[:60]!r} of this wallet" if called not in ("", node) else node
            raise NodeNotFound(
                f"The market {calls.url} never had {what}; give the name that its seller goes by"
                " (node_name), or its id, as computeswarm nodes shows it."
            ) from None
    finally:
        await calls.close()


async def _send(
    calls: MarketCalls, key: PrivateKey, node: NodeId, chain: ChainInfo, seq: int, now: float
) -> Signed:
    word = NodeRevocation(wallet=key.address, node_id=node, seq=seq, issued_at=int(now))
    signed = Signed.make(key, REVOCATION_KIND, chain.chain_id, word)
    await calls.call("POST", f"/api/v1/nodes/{node}/revoke", signed.model_dump_json().encode())
    return signed
