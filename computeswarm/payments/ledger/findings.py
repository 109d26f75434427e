"""What an audit finds: differences between the books and the chain, each in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from computeswarm.core.chains import ChainInfo
from computeswarm.core.money import format_usdc
from computeswarm.payments.ledger.entries import Entry, Totals

Code = Literal[
    "no_receipt",
    "reverted",
    "not_paid",
    "other_transaction",
    "amount",
    "account",
    "used_twice",
    "taken",
    "unknown_in",
    "unknown_out",
    "channel",
    "sum",
]
"""no_receipt: the transaction is in no block. not_paid: no transfer on chain shows it.
taken: the books say that it failed or expired, and the chain that it was used."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on which the books and the chain disagree; ``rows`` name the lines concerned."""

    code: Code
    text: str
    transaction: str = ""
    rows: tuple[str, ...] = ()
    amount: int = 0

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {
            "code": self.code,
            "text": self.text,
            "transaction": self.transaction,
            "rows": list(self.rows),
            "amount": self.amount,
        }


@dataclass(frozen=True, slots=True)
class Arrival:
    """A transfer that the chain shows, and the buyer's debts that it paid without being named."""

    entries: tuple[Entry, ...]
    transaction: str
    block: int


@dataclass(slots=True)
class Report:
    """The audit of one wallet on one chain; sums in atoms, over the blocks it covers."""

    wallet: str
    chain: ChainInfo
    first: int
    last: int
    opening: int | None
    closing: int
    received: int
    sent: int
    checked: int = 0
    pending: int = 0
    """Entries whose fate was open; the chain has nothing against them."""
    books: Totals = field(default_factory=Totals)
    differences: list[Difference] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    returned: int = 0
    """Came back from servers of the web that were paid as much or more."""
    witnesses: int = 1
    """Nodes that said the same."""

    @property
    def complete(self) -> bool:
        """Whether all could be compared; the opening balance needs a node that keeps old state."""
        return self.opening is not None

    @property
    def clean(self) -> bool:
        """Whether books and chain agree to the atom."""
        return self.complete and not self.differences

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {
            "type": "audit",
            "wallet": self.wallet,
            "chain_id": self.chain.chain_id,
            **self.chain.document(),
            "first_block": self.first,
            "last_block": self.last,
            "opening": self.opening,
            "received": self.received,
            "sent": self.sent,
            "closing": self.closing,
            "checked": self.checked,
            "pending": self.pending,
            "owed": self.books.owed,
            "returned": self.returned,
            "witnesses": self.witnesses,
            "clean": self.clean,
            "complete": self.complete,
            "differences": [one.document() for one in self.differences],
        }


def usdc(atoms: int) -> str:
    """An amount in a sentence."""
    return f"{format_usdc(atoms)} USDC"


def named(entry: Entry) -> str:
    """An entry in a sentence."""
    kind = str(entry.kind).replace("_", " ")
    job = f" for {entry.subject}" if entry.job_id else ""
    return f"the {entry.role}'s {kind} of {usdc(entry.amount)}{job} ({entry.row})"
