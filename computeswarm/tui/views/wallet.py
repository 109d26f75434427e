"""What is shown of whose money it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose money is spent, and where."""

    address: str
    """The wallet's checksummed address; empty without a wallet."""
    network: str
    usdc: str
    market: str
    real_money: bool
    locked: bool = False
    """There is a wallet, but its key has not been brought yet."""
    barred: str = ""
    """Why nothing can be paid here at all; empty where something can."""
    pay: str = "slices"
    """How jobs are paid unless the wizard says otherwise."""


@dataclass(frozen=True, slots=True)
class Balance:
    usdc: int
