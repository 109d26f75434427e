"""Multicall3: many calls in one transaction, each of which may fail by itself.

The contract stands at one address on every chain; the calls come from it, not from us, so it is
good only for calls that ask nobody who sent them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from computeswarm.chain.abi import (
    WORD,
    address_word,
    array_tail,
    bytes_tail,
    selector,
    uint_word,
)

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
_AGGREGATE3 = selector("aggregate3((address,bool,bytes)[])")
_HEAD = uint_word(WORD)  # the one argument's offset
_CALL_DATA = uint_word(3 * WORD)  # target, allowFailure and this offset precede it


@dataclass(frozen=True, slots=True)
class Call:
    """One call; where it ``allow_failure``, its failure leaves the others standing."""

    target: str
    data: bytes
    allow_failure: bool = True


def aggregate3_calldata(calls: Sequence[Call]) -> bytes:
    """``aggregate3(calls)``, to be sent to ``MULTICALL3``."""
    rows = [
        address_word(call.target)
        + uint_word(call.allow_failure)
        + _CALL_DATA
        + bytes_tail(call.data)
        for call in calls
    ]
    return _AGGREGATE3 + _HEAD + array_tail(rows)
