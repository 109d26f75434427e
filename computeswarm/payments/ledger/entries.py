"""One line of the books, the same on both sides. Money in atoms, times in unix seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Direction = Literal["in", "out", ""]
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")


class Role(StrEnum):
    """Whose books."""

    BUYER = "buyer"
    SELLER = "seller"


class Kind(StrEnum):
    """What happened."""

    PAYMENT = "payment"
    """By an authorization (EIP-3009)."""
    TRANSFER = "transfer"
    """A payment that the buyer broadcast himself and proved by its transaction."""
    REFUND = "refund"
    OWED = "owed"
    """A debt of the seller that no transaction pays yet."""
    REVERTED = "reverted"
    """The seller's own transaction that moved nothing and cost gas."""
    DEPOSIT = "channel_deposit"
    CLAIM = "channel_claim"
    """Marks a channel's money as the seller's; it moves with the next settle."""
    SETTLE = "channel_settle"
    CHANNEL_REFUND = "channel_refund"
    WITHDRAWAL = "channel_withdrawal"

    @property
    def of_channel(self) -> bool:
        """Whether a payment channel's contract is part of it."""
        return self.value.startswith("channel_")


class Standing(StrEnum):
    """How sure the books are of it."""

    DONE = "done"
    """A receipt proved it; a buyer's payment that was served counts as well."""
    OPEN = "open"
    """Signed or sent, its fate not known."""
    TOLD = "told"
    """A refund as the seller tells it; the buyer has not seen it on the chain yet."""
    OWED = "owed"
    REORGED = "reorged"
    """A settled receipt that the chain took back; the same bytes are on their way again."""
    REVERTED = "reverted"
    REFUSED = "refused"
    """The seller says he took nothing; he still could."""
    EXPIRED = "expired"
    """The chain showed that it can't be used any more and never was."""
    SPENT = "spent"
    """Refused, and used on the chain all the same."""
    WRITTEN_OFF = "written_off"
    """Refused, too old to ask about: taken for gone."""

    @property
    def moved(self) -> bool:
        """Whether the money is gone from one side to the other, by these books."""
        return self in (Standing.DONE, Standing.SPENT)

    @property
    def at_risk(self) -> bool:
        """Whether it may have moved, or may yet."""
        return self in _AT_RISK


_AT_RISK = frozenset(
    {Standing.OPEN, Standing.TOLD, Standing.REORGED, Standing.REFUSED, Standing.WRITTEN_OFF}
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money, or what should become one.

    ``wallet`` is ours (empty where the books don't say), ``peer`` the other side's. ``direction``
    says how our wallet's balance changes once it has moved. ``block`` and ``gas_wei`` are there
    where the books know them; the gas of a transaction stands on the first of its entries.
    ``row`` names the line in its database, such as ``claims 12``.
    """

    at: float
    role: Role
    kind: Kind
    job_id: str
    slice: int | None
    peer: str
    wallet: str
    chain_id: int
    amount: int
    direction: Direction
    transaction: str
    state: Standing
    row: str
    nonce: str = ""
    channel: str = ""
    block: int | None = None
    gas_wei: int | None = None
    note: str = ""

    @property
    def signed(self) -> int:
        """By how many atoms our wallet changed."""
        if not self.state.moved:
            return 0
        return {"in": self.amount, "out": -self.amount, "": 0}[self.direction]

    @property
    def subject(self) -> str:
        """The job, with ``#n`` for a slice after the first."""
        return f"{self.job_id}#{self.slice}" if self.slice else self.job_id


@dataclass(slots=True)
class Totals:
    """Sums over entries, in atoms; ``gas_wei`` in wei.

    ``owed`` is what sellers still have to pay (we, in the seller's books; to us, in the buyer's);
    ``at_risk`` is what may have moved or may yet.
    """

    entries: int = 0
    received: int = 0
    sent: int = 0
    owed: int = 0
    at_risk: int = 0
    gas_wei: int = 0

    @property
    def net(self) -> int:
        """What our wallet gained."""
        return self.received - self.sent

    def add(self, entry: Entry) -> None:
        """Count one more."""
        self.entries += 1
        self.received += max(0, entry.signed)
        self.sent += max(0, -entry.signed)
        self.gas_wei += entry.gas_wei or 0
        if entry.state is Standing.OWED:
            self.owed += entry.amount
        elif entry.state.at_risk and entry.direction:
            self.at_risk += entry.amount


def total(entries: Iterable[Entry]) -> Totals:
    """The sums of all of them."""
    sums = Totals()
    for entry in entries:
        sums.add(entry)
    return sums


def split_subject(subject: str) -> tuple[str, int | None]:
    """``job-x#3`` as the job's id and the slice."""
    job_id, mark, number = subject.partition("#")
    return job_id, int(number) if mark and number.isascii() and number.isdigit() else None


def is_hash(text: str) -> bool:
    """Whether it is a transaction's hash, in form."""
    return _HASH.fullmatch(text) is not None
