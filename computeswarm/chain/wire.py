"""What nodes answer, typed and checked: a node may be a stranger's, so nothing is trusted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from computeswarm.chain.errors import RpcError, RpcUnavailable

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
# The node's own trouble rather than a verdict on the request (EIP-1474).
_NODE_TROUBLE = frozenset({-32603, -32002, -32005})
_VERDICTS = ("revert", "evm error")  # anvil answers -32603 where code breaks down


@dataclass(frozen=True, slots=True)
class Block:
    """A block's header; ``timestamp`` in Unix seconds, ``base_fee`` in wei per gas."""

    number: int
    hash: str
    timestamp: int
    base_fee: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event; addresses, topics and data as lower-case 0x hex."""

    address: str
    topics: tuple[str, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction in its block; ``succeeded`` is False where it reverted."""

    tx_hash: str
    succeeded: bool
    block_number: int
    block_hash: str
    gas_used: int
    gas_price: int
    logs: tuple[Log, ...]


def _nonsense(what: str) -> RpcUnavailable:
    return RpcUnavailable(f"The RPC's answer makes no sense ({what}); give --rpc another address.")


def parse_quantity(value: Any) -> int:
    """A hex quantity of at most 256 bits."""
    if not isinstance(value, str) or not _QUANTITY.match(value):
        raise _nonsense("a number")
    return int(value, 16)


def parse_bytes(value: Any) -> bytes:
    """Hex bytes."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise _nonsense("bytes")
    try:
        return bytes.fromhex(value[2:])
    except ValueError:
        raise _nonsense("bytes") from None


def parse_hash(value: Any) -> str:
    """A 32-byte hash, lower-case."""
    if not isinstance(value, str) or not _HASH.match(value):
        raise _nonsense("a hash")
    return value.lower()


def _parse_address(value: Any) -> str:
    if not isinstance(value, str) or not _ADDRESS.match(value):
        raise _nonsense("an address")
    return value.lower()


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _nonsense(what)
    return value


def parse_block(value: Any) -> Block | None:
    """A block with or without its transactions; None where the node has none."""
    if value is None:
        return None
    block = _object(value, "a block")
    return Block(
        number=parse_quantity(block.get("number")),
        hash=parse_hash(block.get("hash")),
        timestamp=parse_quantity(block.get("timestamp")),
        base_fee=parse_quantity(block.get("baseFeePerGas", "0x0")),
    )


def parse_log(value: Any) -> Log:
    """One event, of a receipt or of ``eth_getLogs``."""
    log = _object(value, "an event")
    topics = log.get("topics")
    if not isinstance(topics, list) or len(topics) > 4:
        raise _nonsense("an event")
    return Log(
        address=_parse_address(log.get("address")),
        topics=tuple(parse_hash(topic) for topic in topics),
        data=parse_bytes(log.get("data")),
    )


def parse_receipt(value: Any) -> Receipt | None:
    """A receipt; None where there is none, or where it is in no block yet."""
    if value is None:
        return None
    receipt = _object(value, "a receipt")
    if receipt.get("blockNumber") is None:
        return None
    logs = receipt.get("logs")
    if not isinstance(logs, list):
        raise _nonsense("a receipt")
    return Receipt(
        tx_hash=parse_hash(receipt.get("transactionHash")),
        succeeded=parse_quantity(receipt.get("status")) == 1,
        block_number=parse_quantity(receipt.get("blockNumber")),
        block_hash=parse_hash(receipt.get("blockHash")),
        gas_used=parse_quantity(receipt.get("gasUsed")),
        gas_price=parse_quantity(receipt.get("effectiveGasPrice", "0x0")),
        logs=tuple(parse_log(log) for log in logs),
    )


def parse_reply(body: bytes, request_id: int) -> Any:
    """The ``result`` in the body of a node's reply; see ``result_of``."""
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
