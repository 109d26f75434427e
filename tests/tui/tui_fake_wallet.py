"""A wallet's door with fixed values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tui_fake import BUYER, NOW, TX, WALLET, FakeBuyer

from computeswarm.core.errors import ComputeSwarmError, WalletError
from computeswarm.tui.views import (
    CapsItem,
    FundsItem,
    LedgerItem,
    LedgerPage,
    LedgerSums,
    WalletItem,
)

FILE = "/home/ada/.local/share/computeswarm/wallet.json"
NEW = "0x2546BcD3c84621e976D8185a91A922aE77ECEc30"
"""The address of every wallet that is made here."""
KEY = "0x" + "47" * 32
CAPS = CapsItem(
    1_000_000, 5_000_000, 20_000_000, used_day=6_480_000, at_risk=6_334, in_channels=500_000
)
_KINDS = (
    ("payment", "out", "done", 6_334),
    ("refund", "in", "done", 1_936),
    ("channel_deposit", "out", "done", 500_000),
    ("payment", "out", "open", 6_334),
    ("refund", "in", "owed", 6_102),
    ("channel_refund", "in", "done", 119_472),
    ("payment", "out", "refused", 6_334),
)


def entry(number: int, **changes: Any) -> LedgerItem:
    """One line of the books, the older the higher its number."""
    kind, direction, standing, amount = _KINDS[number % len(_KINDS)]
    moved = standing == "done"
    values: dict[str, Any] = {
        "key": f"payments {10_000 - number}",
        "at": NOW - 120 - number * 3_700,
        "role": "buyer",
        "kind": kind,
        "job_id": f"job-{(204 - number // 2) % 4096:03x}a{number % 10:017d}",
        "slice": 0,
        "peer": WALLET,
        "amount": amount,
        "signed": (amount if direction == "in" else -amount) if moved else 0,
        "direction": direction,
        "standing": standing,
        "transaction": TX if moved else "",
        "block": 8_123_456 - number if moved else None,
        "wallet": BUYER,
        "nonce": "0x" + f"{number:064x}",
    }
    return LedgerItem(**(values | changes))


BOOKS = tuple(entry(number) for number in range(12))


class FakeWallet:
    """Answers at once, or raises a ``fault`` where one is set."""

    def __init__(
        self,
        books: tuple[LedgerItem, ...] = BOOKS,
        *,
        address: str = BUYER,
        real_money: bool = False,
        buyer: FakeBuyer | None = None,
        **changes: Any,
    ) -> None:
        self.item = WalletItem(
            address,
            FILE,
            "Base" if real_money else "Base Sepolia",
            "http://market.example:8402",
            real_money,
            CAPS,
            shortest_password=10 if real_money else 1,
        )
        self.item = replace(self.item, **changes)
        self.buyer = buyer
        self.books = books
        self.held = FundsItem(42_180_000, 50_000_000_000_000_000)
        self.fault: ComputeSwarmError | None = None
        self.funds_fault: ComputeSwarmError | None = None
        self.create_fault: ComputeSwarmError | None = None
        self.limits: list[int] = []
        self.made: list[tuple[str, str]] = []
        """What was made: ``new`` or the key, and its password."""
        self.closed = False

    async def status(self) -> WalletItem:
        if self.fault is not None:
            raise self.fault
        return self.item

    async def funds(self) -> FundsItem:
        if self.funds_fault is not None:
            raise self.funds_fault
        return self.held

    async def ledger(self, find: str, *, limit: int) -> LedgerPage:
        if self.fault is not None:
            raise self.fault
        self.limits.append(limit)
        found = [item for item in self.books if self._holds(item, find)]
        moved = [item.signed for item in found]
        sums = LedgerSums(
            "buyer",
            len(found),
            sum(sum_ for sum_ in moved if sum_ > 0),
            -sum(sum_ for sum_ in moved if sum_ < 0),
            owed=sum(item.amount for item in found if item.standing == "owed"),
        )
        return LedgerPage(tuple(found[:limit]), (sums,) if found else (), find)

    async def ledger_csv(self, find: str) -> str:
        found = [item for item in reversed(self.books) if self._holds(item, find)]
        return "time,kind\r\n" + "".join(f"{item.at},{item.kind}\r\n" for item in found)

    async def create(self, password: str) -> str:
        return self._make("new", password)

    async def import_key(self, key_hex: str, password: str) -> str:
        if key_hex != KEY:
            raise WalletError("That is not a private key: it has 64 hex digits.")
        return self._make(key_hex, password)

    def _make(self, what: str, password: str) -> str:
        if self.create_fault is not None:
            raise self.create_fault
        self.made.append((what, password))
        self.item = replace(self.item, address=NEW)
        if self.buyer is not None:  # it looks into the same home
            self.buyer.password = password
            self.buyer.identity = replace(self.buyer.identity, address=NEW, locked=True)
        return NEW

    async def close(self) -> None:
        self.closed = True

    @staticmethod
    def _holds(item: LedgerItem, find: str) -> bool:
        text = f"{item.kind} {item.job_id} {item.peer} {item.standing} {item.transaction}".lower()
        return all(word in text for word in find.lower().split())
