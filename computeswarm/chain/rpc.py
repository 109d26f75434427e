"""A JSON-RPC client for one EVM chain, on one keep-alive aiohttp session.

Two errors and no third: ``RpcError`` (the node said no) and ``RpcUnavailable`` (no usable answer;
what was asked may or may not have happened).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import aiohttp

from computeswarm.chain.errors import RpcError, RpcUnavailable
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

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_READ_BYTES = 256 * 1024
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
# The node's own trouble rather than a verdict on the request (EIP-1474).
_NODE_TROUBLE = frozenset({-32603, -32002, -32005})
_VERDICTS = ("revert", "evm error")  # anvil answers -32603 where code breaks down
_Answer = TypeVar("_Answer")
_ALREADY_KNOWN = ("already known", "already imported", "alreadyknown", "known transaction")


class RpcClient:
    """One chain seen through one or more nodes; the next is asked when one does not answer.

    Args:
        url: a node's HTTP address, or several in order of preference.
        timeout: seconds for one request to one node.
    """

    def __init__(self, url: str | Sequence[str], *, timeout: float = 10.0) -> None:
        self.urls = (url,) if isinstance(url, str) else tuple(url)
        if not self.urls:
            raise ConfigError("No chain is set; give --rpc or COMPUTESWARM_RPC its address.")
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)
        self._preferred = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client may be used again and opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC request; the ``result`` as parsed JSON.

        Raises:
            RpcError: the node answered with an error.
            RpcUnavailable: no node gave a usable answer.
        """
        request_id = next(self._ids)
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        return await self.ask(
            json.dumps(body).encode(), lambda reply: _result_of(reply, request_id)
        )

    async def ask(self, body: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
        """Post one document to a node, to the next one where none of it can be used.

        Args:
            read: makes sense of a node's reply; RpcUnavailable where there is none in it.
        """
        last: RpcUnavailable | None = None
        for step in range(len(self.urls)):
            index = (self._preferred + step) % len(self.urls)
            try:
                result = read(await self._post(self.urls[index], body))
            except RpcUnavailable as error:
                last = last or error
                continue
            self._preferred = index
            return result
        assert last is not None
        raise last

    async def _post(self, url: str, body: bytes) -> bytes:
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
                headers=_HEADERS,
                read_bufsize=_READ_BYTES,
            )
        try:
            async with session.post(url, data=body, allow_redirects=False) as response:
                chunks, size = [], 0
                while chunk := await response.content.readany():
                    size += len(chunk)
                    if size > MAX_RESPONSE_BYTES:
                        raise RpcUnavailable("The chain's answer is too large; use another RPC.")
                    chunks.append(chunk)
                if response.status >= 500 or response.status == 429:
                    raise RpcUnavailable(
                        f"The chain's RPC answered HTTP {response.status}; try again later."
                    )
                return b"".join(chunks)
        except TimeoutError:
            raise RpcUnavailable(
                "The chain's RPC did not answer in time; try again or give --rpc another address."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RpcUnavailable(
                f"The chain's RPC can't be reached ({type(error).__name__});"
                " check that it runs, or give --rpc another address."
            ) from None

    async def chain_id(self) -> int:
        """The id the node claims."""
        return parse_quantity(await self.call("eth_chainId"))

    async def verify_chain(self, expected: int) -> None:
        """Make sure that the node serves the chain we mean to pay on.

        Raises:
            ConfigError: it serves another.
        """
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
        return block

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

        The max fee leaves room for the base fee to double.
        """
        block, tip = await asyncio.gather(self.head(), self.call("eth_maxPriorityFeePerGas"))
        priority = parse_quantity(tip)
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
        except RpcError as error:
            message = error.message.lower()
            known = any(phrase in message for phrase in _ALREADY_KNOWN)
            if not known and not await self._holds_after_nonce_too_low(message, tx_hash):
                raise
        return tx_hash

    async def _holds_after_nonce_too_low(self, message: str, tx_hash: str) -> bool:
        """A mined transaction sent again is refused for its nonce: then ask for it by hash."""
        if "nonce" not in message:
            return False
        return await self.call("eth_getTransactionByHash", [tx_hash]) is not None

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


def _result_of(body: bytes, request_id: int) -> Any:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    return result_of(reply, request_id)


def result_of(reply: Any, request_id: int) -> Any:
    """The ``result`` of one parsed reply.

    Raises:
        RpcError: the node answered with an error.
        RpcUnavailable: it is no answer to this request.
    """
    if not isinstance(reply, dict):
        raise RpcUnavailable(
            "What answers at the RPC address is no JSON-RPC node; give --rpc another."
        )
    error = reply.get("error")
    if error is not None:
        raise _error_of(error)
    if reply.get("id") != request_id or "result" not in reply:
        raise RpcUnavailable(
            "The RPC's answer doesn't fit the question; give --rpc another address."
        )
    return reply["result"]


def _error_of(error: Any) -> RpcError | RpcUnavailable:
    if not isinstance(error, dict):
        return RpcUnavailable(
            "The RPC answered with an error we can't read; give --rpc another address."
        )
    number = error.get("code")
    code = number if isinstance(number, int) else 0
    message = str(error.get("message") or "no reason given")
    data = _revert_data(error.get("data"))
    verdict = bool(data) or any(word in message.lower() for word in _VERDICTS)
    if code in _NODE_TROUBLE and not verdict:
        return RpcUnavailable(f"The chain's RPC has trouble ({code}): {message[:200]}.")
    return RpcError(message, rpc_code=code, data=data)


def _revert_data(value: Any) -> bytes | None:
    if isinstance(value, dict):  # some nodes wrap it once more
        value = value.get("data")
    if not isinstance(value, str) or not value.startswith("0x"):
        return None
    try:
        return bytes.fromhex(value[2:])
    except ValueError:
        return None
