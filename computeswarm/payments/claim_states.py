"""The states of a claim, and the only steps between them."""

from __future__ import annotations

from enum import StrEnum

from computeswarm.core.errors import InvalidTransition


class ClaimState(StrEnum):
    RESERVED = "reserved"
    BROADCAST = "broadcast"
    SETTLED = "settled"
    CONSUMED = "consumed"
    REFUNDED = "refunded"
    FAILED = "failed"
    REVERTED = "reverted"

    @property
    def paid(self) -> bool:
        """Whether the money is ours, proven by a receipt."""
        return self in (ClaimState.SETTLED, ClaimState.CONSUMED, ClaimState.REFUNDED)


_S = ClaimState
CLAIM_TRANSITIONS: dict[ClaimState, frozenset[ClaimState]] = {
    # settled without a broadcast of ours: a third party submitted the authorization first
    _S.RESERVED: frozenset({_S.BROADCAST, _S.SETTLED, _S.FAILED}),
    # again: the transaction that it shared with others was mined without it; it gets its own
    _S.BROADCAST: frozenset({_S.BROADCAST, _S.SETTLED, _S.FAILED}),
    # reverted: the chain took the block back, and the payment can't be mined any more
    _S.SETTLED: frozenset({_S.CONSUMED, _S.REFUNDED, _S.REVERTED}),
    _S.CONSUMED: frozenset({_S.REFUNDED, _S.REVERTED}),
    _S.REFUNDED: frozenset({_S.REVERTED}),
    # only what surely did not pay has failed: the same request may try again (topped up, say)
    _S.FAILED: frozenset({_S.RESERVED}),
    # a buyer's own transfer has no window: mined after all, it goes back to him
    _S.REVERTED: frozenset({_S.SETTLED}),
}


def check_claim(old: ClaimState, new: ClaimState) -> None:
    """Allow exactly one step of the table.

    Raises:
        InvalidTransition: the table has no such step.
    """
    if new not in CLAIM_TRANSITIONS[old]:
        raise InvalidTransition(f"A payment that is {old} can't become {new}.", state=str(old))
