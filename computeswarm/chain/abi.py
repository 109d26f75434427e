"""The little of the Solidity ABI that we speak, by hand: 32-byte words, selectors, revert reasons.

A hand-encoded call costs microseconds where a general encoder costs milliseconds of import and
hundreds of microseconds a call. The tests hold it against ``eth_abi``.
"""

from __future__ import annotations

from collections.abc import Sequence

from computeswarm.core.crypto import keccak256

WORD = 32
_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_MAX_REASON = 300
_PANICS = {
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x32: "array index out of bounds",
}
_CUSTOM_ERRORS = (
    "ERC20InsufficientBalance(address,uint256,uint256)",
    "ERC20InsufficientAllowance(address,uint256,uint256)",
    "ERC20InvalidReceiver(address)",
    "ERC20InvalidSender(address)",
    "ERC3009InvalidSignature()",
    "ERC3009InvalidAuthorizationTime(uint256,uint256)",
    "ERC3009UsedAuthorization(address,bytes32)",
    "EnforcedPause()",
    # the settlement contract of payment channels and its collector
    "InvalidChannel()",
    "WithdrawDelayOutOfRange()",
    "ZeroDeposit()",
    "DepositOverflow()",
    "DepositCollectionFailed()",
    "EmptyBatch()",
    "InvalidSignature()",
    "NotAuthorizedToClaim()",
    "NotReceiverAuthorizer()",
    "ClaimExceedsCeiling()",
    "ClaimExceedsBalance()",
    "ZeroRefund()",
    "NotAuthorizedToRefund()",
    "InvalidRefundNonce()",
    "NotAuthorizedToWithdraw()",
    "NothingToWithdraw()",
    "WithdrawAmountExceedsAvailable()",
    "WithdrawalAlreadyPending()",
    "WithdrawalNotPending()",
    "WithdrawDelayNotElapsed()",
    "OnlySettlement()",
    "ReentrancyGuardReentrantCall()",
)


def selector(signature: str) -> bytes:
    """The first four bytes of a call, from a signature such as ``transfer(address,uint256)``."""
    return keccak256(signature.encode())[:4]


def topic(signature: str) -> str:
    """An event's first topic as lower-case 0x hex."""
    return "0x" + keccak256(signature.encode()).hex()


def uint_word(value: int) -> bytes:
    """A ``uint256``; raises OverflowError outside its range."""
    return value.to_bytes(WORD)


def address_word(address: str) -> bytes:
    """An ``address``, left-padded."""
    return bytes(12) + bytes.fromhex(address.removeprefix("0x"))


def bytes32_word(value: str | bytes) -> bytes:
    """A ``bytes32`` from 32 bytes or their 0x hex.

    Raises:
        ValueError: not 32 bytes.
    """
    raw = value if isinstance(value, bytes) else bytes.fromhex(value.removeprefix("0x"))
    if len(raw) != WORD:
        raise ValueError(f"bytes32 takes 32 bytes, not {len(raw)}")
    return raw


def bytes_tail(value: bytes) -> bytes:
    """The tail of a dynamic ``bytes``: its length and its content padded to whole words."""
    return uint_word(len(value)) + value + bytes(-len(value) % WORD)


def array_tail(rows: Sequence[bytes]) -> bytes:
    """The tail of an array of dynamic elements: how many, where each begins, and themselves."""
    offsets, at = [], WORD * len(rows)
    for row in rows:
        offsets.append(uint_word(at))
        at += len(row)
    return uint_word(len(rows)) + b"".join(offsets) + b"".join(rows)


def read_uint(data: bytes, index: int = 0) -> int:
    """The word at ``index`` as an integer.

    Raises:
        ValueError: the data is too short.
    """
    word = data[index * WORD : (index + 1) * WORD]
    if len(word) != WORD:
        raise ValueError("the answer is too short")
    return int.from_bytes(word)


def read_bytes_array(data: bytes) -> list[bytes]:
    """The elements of an answer that is one ``bytes[]``.

    Raises:
        ValueError: it is none.
    """
    base = read_uint(data) + WORD
    elements, size = [], 0
    for index in range(read_uint(data[base - WORD : base])):
        at = base + read_uint(data[base + index * WORD : base + (index + 1) * WORD])
        length = read_uint(data[at : at + WORD])
        size += length  # elements may lie on top of each other, to be huge together
        if at + WORD + length > len(data) or size > len(data):
            raise ValueError("the answer is too short")
        elements.append(data[at + WORD : at + WORD + length])
    return elements


def topic_address(word: str) -> str:
    """The address in an indexed topic, lower-case."""
    return "0x" + word[-40:].lower()


_CUSTOM = {selector(error): error.partition("(")[0] for error in _CUSTOM_ERRORS}


def revert_reason(data: bytes) -> str | None:
    """What a contract said when it reverted, or None where it said nothing.

    The text comes from the contract's author: clean it before showing it.
    """
    head, body = data[:4], data[4:]
    if head == _ERROR_STRING and len(body) >= 2 * WORD:
        length = min(read_uint(body, 1), _MAX_REASON)
        return body[2 * WORD : 2 * WORD + length].decode("utf-8", "replace")
    if head == _PANIC and len(body) == WORD:
        code = read_uint(body)
        return f"panic {code:#04x} ({_PANICS.get(code, 'unknown')})"
    if len(head) == 4:
        return _CUSTOM.get(head, f"custom error 0x{head.hex()}")
    return None
