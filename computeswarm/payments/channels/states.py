"""How a channel, its deposits and the seller's transactions may change, as tables."""

from __future__ import annotations

from enum import StrEnum

from computeswarm.core.errors import InvalidTransition


class ChannelState(StrEnum):
    OPEN = "open"
    """Vouchers are taken."""
    CLOSING = "closing"
    """What was used is claimed and the rest given back; no voucher is taken meanwhile."""
    CLOSED = "closed"


class DepositState(StrEnum):
    RESERVED = "reserved"
    BROADCAST = "broadcast"
    SETTLED = "settled"
    CONSUMED = "consumed"
    FAILED = "failed"

    @property
    def paid(self) -> bool:
        """Whether the money is in the channel, proven by a receipt."""
        return self in (DepositState.SETTLED, DepositState.CONSUMED)


class PayoutState(StrEnum):
    """One transaction of the seller's that claims, settles and refunds for many channels."""

    PLANNED = "planned"
    BROADCAST = "broadcast"
    MINED = "mined"
    FINAL = "final"
    LOST = "lost"


_C, _D, _P = ChannelState, DepositState, PayoutState

CHANNEL_TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    _C.OPEN: frozenset({_C.CLOSING}),
    _C.CLOSING: frozenset({_C.CLOSED}),
    # a buyer may put money in again
    _C.CLOSED: frozenset({_C.OPEN}),
}

DEPOSIT_TRANSITIONS: dict[DepositState, frozenset[DepositState]] = {
    # settled without a broadcast of ours: a third party submitted the deposit first
    _D.RESERVED: frozenset({_D.BROADCAST, _D.SETTLED, _D.FAILED}),
    _D.BROADCAST: frozenset({_D.SETTLED, _D.FAILED}),
    _D.SETTLED: frozenset({_D.CONSUMED}),
    _D.CONSUMED: frozenset(),
    # only what surely did not pay has failed: the same request may try again
    _D.FAILED: frozenset({_D.RESERVED}),
}

PAYOUT_TRANSITIONS: dict[PayoutState, frozenset[PayoutState]] = {
    # lost before it was signed: its channels are planned anew
    _P.PLANNED: frozenset({_P.BROADCAST, _P.LOST}),
    _P.BROADCAST: frozenset({_P.MINED, _P.LOST}),
    # back to broadcast where a reorg took its block
    _P.MINED: frozenset({_P.FINAL, _P.BROADCAST}),
    _P.FINAL: frozenset(),
    _P.LOST: frozenset(),
}


def check_channel(old: ChannelState, new: ChannelState) -> None:
    """Allow exactly one step of the channels' table; raises InvalidTransition."""
    _check("channel", old, new in CHANNEL_TRANSITIONS[old], new)


def check_deposit(old: DepositState, new: DepositState) -> None:
    """Allow exactly one step of the deposits' table; raises InvalidTransition."""
    _check("deposit", old, new in DEPOSIT_TRANSITIONS[old], new)


def check_payout(old: PayoutState, new: PayoutState) -> None:
    """Allow exactly one step of the payouts' table; raises InvalidTransition."""
    _check("payout", old, new in PAYOUT_TRANSITIONS[old], new)


def _check(what: str, old: StrEnum, allowed: bool, new: StrEnum) -> None:
    if not allowed:
        raise InvalidTransition(f"A {what} that is {old} can't become {new}.", state=str(old))
