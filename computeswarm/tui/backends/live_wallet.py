"""The wallet of one home as the screens want it: its file, its rules, its money, its books.

The books are read beside whoever writes them and never locked. They are read whole, in a thread,
and only when one of their files has changed; of their lines just the newest are kept.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress

from computeswarm.buyer.funds import Funds
from computeswarm.core.errors import ComputeSwarmError, ConfigError, WalletError
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.text import clean_line
from computeswarm.payments.guard import SpendingPolicy
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.ledger import export
from computeswarm.payments.ledger.books import Books
from computeswarm.payments.ledger.entries import Entry, Role, Totals
from computeswarm.payments.wallet import (
    MIN_REAL_PASSWORD,
    check_new_password,
    create_wallet,
    import_wallet,
    parse_key,
    wallet_address,
)
from computeswarm.tui.views import (
    CapsItem,
    FundsItem,
    LedgerItem,
    LedgerPage,
    LedgerSums,
    WalletItem,
)

REST = 10
"""So many times as long as reading the books took, they are not read again: a running job writes
every few seconds, and long books would be read all the time."""

Stamp = tuple[tuple[int, int], ...]


class LiveWallet:
    """One home's wallet. Nothing here holds a key for longer than its file takes to write."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._settings, self._paths = settings, paths
        self._chain = settings.chain
        self._funds = Funds(settings.rpc_urls, self._chain)
        self._page: tuple[Stamp, int, LedgerPage] | None = None
        self._rest_until = 0.0

    # -- what there is

    async def status(self) -> WalletItem:
        return await asyncio.to_thread(self._status)

    def _status(self) -> WalletItem:
        address, trouble = "", ""
        if self._paths.wallet.exists():
            try:
                address = wallet_address(self._paths.wallet)
            except WalletError as error:
                trouble = error.detail
        return WalletItem(
            address=address,
            file=str(self._paths.wallet),
            network=self._chain.title,
            market=clean_line(self._settings.market, limit=200),
            real_money=self._chain.real_money,
            caps=self._caps(),
            shortest_password=MIN_REAL_PASSWORD if self._chain.real_money else 1,
            trouble=trouble,
        )

    def _caps(self) -> CapsItem:
        policy = SpendingPolicy.from_settings(self._settings)
        used, at_risk, locked = self._use()
        return CapsItem(
            policy.max_payment,
            policy.max_job,
            policy.max_day,
            used_day=used,
            at_risk=at_risk,
            in_channels=locked,
            payees=tuple(clean_line(payee, limit=60) for payee in policy.payees),
            hosts=tuple(clean_line(host, limit=80) for host in policy.hosts),
        )

    def _use(self) -> tuple[int, int, int]:
        path, chain_id = self._paths.buyer / "payments.db", self._chain.chain_id
        if not path.exists():  # looking makes no files
            return 0, 0, 0
        try:
            with closing(PaymentJournal.reading(path)) as journal:
                spent = journal.spent_day(time.time(), chain_id)
                return spent, journal.at_risk(chain_id), journal.locked(chain_id)
        except sqlite3.Error as error:
            raise ConfigError(f"{path} can't be read: {error}.") from None

    async def funds(self) -> FundsItem:
        usdc, wei = await self._funds.balance(wallet_address(self._paths.wallet))
        return FundsItem(usdc, wei)

    # -- the books

    async def ledger(self, find: str, *, limit: int) -> LedgerPage:
        stamp = await asyncio.to_thread(self._stamp)
        began = time.monotonic()
        if self._page is not None:
            known, kept, page = self._page
            current = known == stamp or began < self._rest_until
            if current and page.find == find and (kept >= limit or page.total <= kept):
                return page
        page = await asyncio.to_thread(self._read, find, limit)
        self._page = stamp, limit, page
        ended = time.monotonic()
        self._rest_until = ended + REST * (ended - began)
        return page

    def _stamp(self) -> Stamp:
        """What differs once a book has been written to."""
        stamps = []
        for path in (
            self._paths.buyer / "payments.db",
            self._paths.seller / "payments.db",
            self._paths.seller / "channels.db",
        ):
            for file in (path, path.with_name(f"{path.name}-wal")):
                with suppress(OSError):
                    stat = file.stat()
                    stamps.append((stat.st_mtime_ns, stat.st_size))
        return tuple(stamps)

    def _read(self, find: str, limit: int) -> LedgerPage:
        newest: deque[LedgerItem] = deque(maxlen=limit)
        sums: dict[Role, Totals] = {}
        for entry, item in self._entries(find):
            sums.setdefault(entry.role, Totals()).add(entry)
            newest.append(item)
        return LedgerPage(
            tuple(reversed(newest)),
            tuple(_sums(role, side) for role, side in sums.items()),
            find,
        )

    def _entries(self, find: str) -> Iterator[tuple[Entry, LedgerItem]]:
        """Those on this chain that hold every word, oldest first."""
        words = find.lower().split()
        with Books(self._paths, self._chain.chain_id) as books:
            for entry in books.entries():
                if entry.chain_id != self._chain.chain_id:
                    continue  # sums of real money and test money would tell nothing
                item = ledger_item(entry)
                if not words or _holds(item, words):
                    yield entry, item

    async def ledger_csv(self, find: str) -> str:
        return await asyncio.to_thread(self._csv, find)

    def _csv(self, find: str) -> str:
        out, net = io.StringIO(), dict.fromkeys(Role, 0)
        out.write(export.csv_line(export.CSV_COLUMNS))
        for entry, _ in self._entries(find):
            net[entry.role] += entry.signed
            out.write(export.csv_row(entry, net[entry.role]))
        return out.getvalue()

    # -- making one

    async def create(self, password: str) -> str:
        check_new_password(self._chain, password)
        key = await asyncio.to_thread(create_wallet, self._paths.wallet, password)
        return key.address

    async def import_key(self, key_hex: str, password: str) -> str:
        parse_key(key_hex)
        check_new_password(self._chain, password)
        key = await asyncio.to_thread(import_wallet, self._paths.wallet, key_hex, password)
        return key.address

    async def close(self) -> None:
        with suppress(OSError, ComputeSwarmError):
            await self._funds.close()


def ledger_item(entry: Entry) -> LedgerItem:
    """A line of the books, cleaned: peers, jobs and notes were named by others."""
    return LedgerItem(
        key=f"{entry.role} {entry.kind} {entry.row}",
        at=entry.at,
        role=str(entry.role),
        kind=str(entry.kind),
        job_id=_clean(entry.job_id),
        slice=entry.slice,
        peer=_clean(entry.peer),
        amount=entry.amount,
        signed=entry.signed,
        direction=entry.direction,
        standing=str(entry.state),
        transaction=_clean(entry.transaction),
        block=entry.block,
        gas_wei=entry.gas_wei,
        channel=_clean(entry.channel),
        nonce=_clean(entry.nonce),
        wallet=_clean(entry.wallet),
        note=_clean(entry.note, 200),
    )


def _clean(text: str, limit: int = 80) -> str:
    # of a long listing most texts are ids and hashes, and nothing to clean
    return text if text.isascii() and text.isalnum() else clean_line(text, limit=limit)


def _holds(item: LedgerItem, words: list[str]) -> bool:
    text = " ".join(
        (item.role, item.kind, item.job_id, item.peer, item.standing, item.transaction,
         item.channel, item.note, time.strftime("%Y-%m-%d", time.localtime(item.at)))
    ).lower()  # fmt: skip
    return all(word in text for word in words)


def _sums(role: Role, side: Totals) -> LedgerSums:
    return LedgerSums(
        str(role), side.entries, side.received, side.sent, side.owed, side.at_risk, side.gas_wei
    )
