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


@dataclass(frozen=True, slots=True)
class CapsItem:
    """What the guard lets pass, in atoms, and what of it is used."""

    max_payment: int
    max_job: int
    max_day: int
    used_day: int = 0
    """Gone, at risk or locked in the last 24 hours."""
    at_risk: int = 0
    """Signed, and not known to be gone."""
    in_channels: int = 0
    payees: tuple[str, ...] = ()
    """The only wallets that may be paid; empty: any."""
    hosts: tuple[str, ...] = ()

    @property
    def left_day(self) -> int:
        return max(0, self.max_day - self.used_day)


@dataclass(frozen=True, slots=True)
class WalletItem:
    """The wallet of this home and its rules; nobody is asked for it."""

    address: str
    """Checksummed; empty where there is no wallet."""
    file: str
    """Where its key lies, or would."""
    network: str
    market: str
    real_money: bool
    caps: CapsItem
    shortest_password: int = 1
    """Characters that a new wallet's password must have here."""
    trouble: str = ""
    """What is wrong with its file, or with a rule of it."""


@dataclass(frozen=True, slots=True)
class FundsItem:
    """What the chain says it holds."""

    usdc: int
    wei: int
    """Of the chain's own coin, which pays for transactions."""


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """One line of the books."""

    key: str
    at: float
    role: str
    """``buyer`` or ``seller``: whose books."""
    kind: str
    """``payment``, ``refund``, ``channel_deposit``, …"""
    job_id: str
    slice: int | None
    peer: str
    amount: int
    """The whole sum, whether it has moved or not."""
    signed: int
    """By how much our wallet changed; 0 while nothing has moved."""
    direction: str
    """``in``, ``out`` or empty."""
    standing: str
    """``done``, ``open``, ``told``, ``owed``, …: how sure the books are."""
    transaction: str = ""
    block: int | None = None
    gas_wei: int | None = None
    channel: str = ""
    nonce: str = ""
    wallet: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """What one side's books come to, in atoms."""

    role: str
    entries: int
    received: int
    sent: int
    owed: int = 0
    at_risk: int = 0
    gas_wei: int = 0

    @property
    def net(self) -> int:
        return self.received - self.sent


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """The newest lines that match, newest first, and the sums of all that match."""

    items: tuple[LedgerItem, ...]
    sums: tuple[LedgerSums, ...] = ()
    find: str = ""
    """What was looked for."""

    @property
    def total(self) -> int:
        """How many lines match."""
        return sum(side.entries for side in self.sums)
