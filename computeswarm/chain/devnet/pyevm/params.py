"""Reading what callers send: every parameter is checked, every fault has its standard code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from computeswarm.chain.devnet.pyevm.evm import GAS_LIMIT, Call
from computeswarm.chain.devnet.pyevm.node import Node, StoredBlock

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
EXECUTION_REVERTED = 3

_FROM_HEAD = {"latest": 0, "safe": 1, "finalized": 2}
_ADDRESS_BYTES = 20
_T = TypeVar("_T")


class Fault(Exception):
    """A JSON-RPC error to be answered."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        """The ``error`` member."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


def invalid(what: str) -> Fault:
    """A parameter that can't be read."""
    return Fault(INVALID_PARAMS, f"invalid params: {what}"[:300])


def data(value: Any, *, size: int | None = None) -> bytes:
    """Hex bytes; of ``size`` bytes where given."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise invalid("expected 0x hex")
    try:
        raw = bytes.fromhex(value[2:])
    except ValueError:
        raise invalid("expected 0x hex of whole bytes") from None
    if size is not None and len(raw) != size:
        raise invalid(f"expected {size} bytes, not {len(raw)}")
    return raw


def address(value: Any) -> bytes:
    """A 20-byte address."""
    return data(value, size=_ADDRESS_BYTES)


def tx_hash(value: Any) -> bytes:
    """A 32-byte hash."""
    return data(value, size=32)


def quantity(value: Any, *, bits: int = 256) -> int:
    """A number in hex, or a JSON number as some tools send it."""
    number = value
    if isinstance(value, str) and value.startswith("0x"):
        try:
            number = int(value, 16)
        except ValueError:
            raise invalid("expected a number in hex") from None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**bits:
        raise invalid("expected a number in hex")
    return number


def block(node: Node, value: Any) -> StoredBlock | None:
    """The block of a tag, a number, or an EIP-1898 object; None where there is none."""
    if isinstance(value, dict):
        if "blockHash" in value:
            number = node.number_of.get(tx_hash(value["blockHash"]))
            return None if number is None else node.blocks[number]
        value = value.get("blockNumber")
    if value is None:
        value = "latest"
    if value == "earliest":
        return node.blocks[0]
    if value == "pending":
        return StoredBlock(node.pending_header(), None)
    if isinstance(value, str) and value in _FROM_HEAD:
        return node.blocks[max(0, len(node.blocks) - 1 - _FROM_HEAD[value])]
    number = quantity(value)
    return node.blocks[number] if number < len(node.blocks) else None


def header(node: Node, value: Any) -> Any:
    """The header of a block that has to exist."""
    found = block(node, value)
    if found is None:
        raise Fault(SERVER_ERROR, "header not found")
    return found.header


def call(value: Any) -> Call:
    """The call object of ``eth_call`` and ``eth_estimateGas``; fees are ignored, calls are free."""
    if not isinstance(value, dict):
        raise invalid("expected a call object")
    return Call(
        sender=_optional(value, ("from",), address, bytes(_ADDRESS_BYTES)),
        to=_optional(value, ("to",), address, b""),
        data=_optional(value, ("input", "data"), data, b""),
        value=_optional(value, ("value",), quantity, 0),
        gas=min(GAS_LIMIT, _optional(value, ("gas",), quantity, GAS_LIMIT)),
    )


def _optional(
    value: dict[str, Any], names: tuple[str, ...], read: Callable[[Any], _T], default: _T
) -> _T:
    for name in names:
        if value.get(name) is not None:
            return read(value[name])
    return default
