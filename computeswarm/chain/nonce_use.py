"""Where the nonce of a signed authorization was used, by USDC's own events."""

from __future__ import annotations

from computeswarm.chain.abi import address_word
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, Usdc
from computeswarm.chain.wire import parse_hash

SEARCH_BLOCKS = 5_000
"""Almost three hours on Base, which is longer than any payment that we take is valid."""
_SEARCHES = 400
"""Questions for events at most, each of so many blocks: six weeks on Base."""


async def used_in(
    rpc: RpcClient, usdc: Usdc, authorizer: str, nonce: str, *, back_to: float | None
) -> list[str]:
    """The transactions that used a nonce: at most one, on a chain that is honest.

    Args:
        back_to: unix seconds; where it is longer ago than a few hours, so is the search.

    Raises:
        RpcUnavailable: the chain doesn't say.
    """
    query: dict[str, object] = {
        "address": usdc.address,
        "topics": [
            AUTHORIZATION_USED_TOPIC,
            "0x" + address_word(authorizer).hex(),
            nonce.lower(),
        ],
    }
    first = max(0, await rpc.block_number() - SEARCH_BLOCKS)
    last = "latest"
    for _ in range(_SEARCHES):
        asked = query | {"fromBlock": hex(first), "toBlock": last}
        logs = await rpc.call("eth_getLogs", [asked])
        if not isinstance(logs, list) or not all(isinstance(log, dict) for log in logs):
            raise RpcUnavailable("The RPC's answer makes no sense (events); try another.")
        if logs:
            return [parse_hash(log.get("transactionHash")) for log in logs]
        if first == 0 or back_to is None:
            break
        if (await rpc.head(hex(first))).timestamp < back_to:
            break
        last, first = hex(first - 1), max(0, first - SEARCH_BLOCKS)
    return []
