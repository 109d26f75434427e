"""A JSON-RPC client for one EVM chain, through one node or several (see ``nodes``).

Two errors and no third: ``RpcError`` (the node said no) and ``RpcUnavailable`` (no usable answer;
what was asked may or may not have happened).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.nodes import Nodes
from computeswarm.chain.wire import (
    Block,
    Receipt,
    parse_block,
    parse_bytes,
    parse_hash,
    parse_quantity,
    parse_receipt,
)
from computeswarm.core.chains import chain_title
from computeswarm.core.crypto import keccak256
from computeswarm.core.errors import ConfigError

_Answer = TypeVar("_Answer")
_MAX_TIP_WEI = 2 * 10**9
"""Far more than is usual on Base. A tip is paid in full, so no node may name any it likes."""


class RpcClient:
    """One chain seen through one or more nodes; the next is asked when one is of no use.

    Args:
        url: a node's HTTP address, or several in order of preference.
        timeout: seconds for one request to one node; a node is given less of them while there is
            another to be asked.
        chain_id: what all of them have to serve; None takes the first node's word for it.
    """

    def __init__(
        self, url: str | Sequence[str], *, timeout: float = 10.0, chain_id: int | None = None
    ) -> None:
        urls = (url,) if isinstance(url, str) else tuple(url)
        if not urls:
            raise ConfigError("No chain is set; give --rpc or COMPUTESWARM_RPC its address.")
        self._nodes = Nodes(urls, timeout=timeout)
        self._nodes.chain_id = chain_id

    @property
    def urls(self) -> tuple[str, ...]:
        """The nodes' addresses, in order of preference."""
        return self._nodes.urls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client may be used again and opens new ones."""
        await self._nodes.close()

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC request; the ``result`` as parsed JSON.

        Raises:
            RpcError: the node answered with an error.
            RpcUnavailable: no node gave a usable answer.
        """
        return await self._nodes.call(method, params)

    async def ask(self, body: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
        """Post one document to a node, to the next one where none of it can be used.

        Args:
            read: makes sense of a node's reply; RpcUnavailable where there is none in it.
        """
        return await self._nodes.ask(body, read)

    async def chain_id(self) -> int:
        """The id the node claims."""
        return parse_quantity(await self.call("eth_chainId"))

    async def verify_chain(self, expected: int) -> None:
        """Make sure that the node serves the chain we mean to pay on; of several, one that does.

        Raises:
            ConfigError: it serves another.
        """
        self._nodes.expect(expected)
        found = await self.chain_id()
        if found != expected:
            raise ConfigError(
                f"The RPC serves {chain_title(found)}, not {chain_title(expected)};"
                " give --rpc another address, or set another --network."
            )

    async def block_number(self) -> int:
        """The number of the latest block."""
        return parse_quantity(await self.call("eth_blockNumber"))

    async def head(self, tag: str = "latest") -> Block:
        """A block's header: ``latest``, ``safe``, ``finalized`` or a number in hex."""
        block = parse_block(await self.call("eth_getBlockByNumber", [tag, False]))
        if block is None:
            raise RpcUnavailable(f"The chain has no {tag} block yet; try again later.")
        return await self._nodes.fresher(block) if tag == "latest" else block

    async def native_balance(self, address: str, block: str = "latest") -> int:
        """Wei."""
        return parse_quantity(await self.call("eth_getBalance", [address, block]))

    async def code(self, address: str, block: str = "latest") -> bytes:
        """The code at an address; an EIP-7702 delegation counts as code."""
        return parse_bytes(await self.call("eth_getCode", [address, block]))

    async def nonce(self, address: str, block: str = "pending") -> int:
        """The next nonce of an account, counting the transactions the node holds."""
        return parse_quantity(await self.call("eth_getTransactionCount", [address, block]))

    async def eth_call(
        self,
        to: str,
        data: bytes,
        *,
        sender: str | None = None,
        block: str = "latest",
        gas: int | None = None,
    ) -> bytes:
        """Run a call without a transaction; raises RpcError with the reason where it reverts.

        It may use ``gas`` units, or what the node allows.
        """
        call = _call_object(to, data, sender)
        if gas is not None:
            call["gas"] = hex(gas)
        return parse_bytes(await self.call("eth_call", [call, block]))

    async def estimate_gas(self, to: str, data: bytes, *, sender: str, value: int = 0) -> int:
        """Gas a transaction would need; raises RpcError with the reason where it would revert."""
        call = _call_object(to, data, sender)
        if value:
            call["value"] = hex(value)
        return parse_quantity(await self.call("eth_estimateGas", [call]))

    async def fees(self) -> tuple[int, int]:
        """(max fee, priority fee) in wei per gas, for a transaction to be mined soon.

        The max fee leaves room for the base fee to double. The priority fee is at most the base
        fee, or 2 gwei where that is less.
        """
        block, tip = await asyncio.gather(self.head(), self.call("eth_maxPriorityFeePerGas"))
        priority = min(parse_quantity(tip), max(block.base_fee, _MAX_TIP_WEI))
        return 2 * block.base_fee + priority, priority

    async def send_raw(self, raw: bytes) -> str:
        """Broadcast signed bytes; the transaction's hash. Sending the same bytes twice is fine.

        Raises:
            RpcError: the node refused it, and holds no such transaction.
            RpcUnavailable: unknown; send the same bytes again or look for the receipt.
        """
        tx_hash = "0x" + keccak256(raw).hex()
        try:
            await self.call("eth_sendRawTransaction", ["0x" + raw.hex()])
        except RpcError:
            # what was sent before is refused in each node's own words: see whether it is there
            if await self.call("eth_getTransactionByHash", [tx_hash]) is None:
                raise
        return tx_hash

    async def receipt(self, tx_hash: str) -> Receipt | None:
        """The receipt, or None while the transaction is not in a block."""
        found = parse_receipt(await self.call("eth_getTransactionReceipt", [tx_hash]))
        if found is not None and found.tx_hash != parse_hash(tx_hash):
            raise RpcUnavailable(
                "The RPC answered with another receipt; give --rpc another address."
            )
        return found


def _call_object(to: str, data: bytes, sender: str | None) -> dict[str, str]:
    call = {"to": to, "data": "0x" + data.hex()}
    if sender is not None:
        call["from"] = sender
    return call
