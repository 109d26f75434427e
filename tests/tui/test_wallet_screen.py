"""Wallet mode by its keys: what is held, what may be spent, and the books."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui_fake import BUYER, NOW, TX, FakeBuyer, FixedClock
from tui_fake_wallet import CAPS, FILE, FakeWallet, entry
from tui_steps import until

from computeswarm.core.errors import ChainUnavailable, ConfigError
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.memory import Memory
from computeswarm.tui.modals.entry import EntryModal
from computeswarm.tui.modals.new_wallet import NewWalletModal
from computeswarm.tui.modals.qr import QrModal
from computeswarm.tui.modals.save import SaveModal
from computeswarm.tui.screens.wallet import PAGE, WalletScreen
from computeswarm.tui.widgets.header import Header
from computeswarm.tui.widgets.ledger_pane import LedgerPane
from computeswarm.tui.widgets.pane import Notice
from computeswarm.tui.widgets.qr import QrCode
from computeswarm.tui.widgets.wallet_pane import WalletPane

SMALL, LARGE = (80, 24), (120, 40)


@asynccontextmanager
async def shown(
    wallet: FakeWallet | None,
    buyer: FakeBuyer | None = None,
    size: tuple[int, int] = SMALL,
    **options: Any,
) -> AsyncIterator[Pilot[None]]:
    """The app in Wallet mode, with what it first fetches."""
    memory = Memory()
    memory.welcomed = True
    app = ComputeSwarmApp(
        buyer or FakeBuyer(), None, wallet=wallet, mode="wallet", memory=memory,
        **({"clock": FixedClock()} | options),
    )  # fmt: skip
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WalletScreen), "Wallet mode")
        if wallet is not None:
            await until(pilot, lambda: "◌" not in words(pilot), "the first answers")
        yield pilot


def screen(pilot: Pilot[None]) -> WalletScreen:
    found = pilot.app.screen_stack[0]
    assert isinstance(found, WalletScreen)
    return found


def pane_words(pilot: Pilot[None], kind: type[Any]) -> str:
    """What a pane says: its notice, or its body."""
    pane = screen(pilot).query_one(kind)
    if pane.has_class("-notice"):
        return str(pane.query_one(Notice).render())
    if kind is WalletPane:
        return str(pane.query_one("#wallet-text", Static).render())
    table = pane.table
    drawn = [table.render_line(y).text for y in range(min(30, len(table.rows) + 1))]
    return "\n".join([*drawn, pane._border_title.plain, pane._border_subtitle.plain])


def words(pilot: Pilot[None]) -> str:
    return f"{pane_words(pilot, WalletPane)}\n{pane_words(pilot, LedgerPane)}"


def said(pilot: Pilot[None]) -> str:
    return " | ".join(f"{note.title}: {note.message}" for note in pilot.app._notifications)


async def test_it_says_what_there_is_where_and_what_may_be_spent() -> None:
    async with shown(FakeWallet()) as pilot:
        text = pane_words(pilot, WalletPane)
        for fact in (
            "42.18 USDC", "0.05 ETH", "sellers need some, buyers none", BUYER, "Base Sepolia",
            "test money", "◆ open", "6.48 of 20.00 USDC used · 13.52 left", "5.00 USDC a job",
            "1.00 USDC a payment", "0.006334 USDC signed, fate unknown", "0.50 USDC locked",
            "any seller at any host",
        ):  # fmt: skip
            assert fact in text, fact
        assert text.count("█") == 6  # a third of the bar's twenty cells, with its rest
        assert not screen(pilot).query_one(QrCode).display


async def test_with_room_the_code_stands_beside_it() -> None:
    async with shown(FakeWallet(), size=LARGE) as pilot:
        code = screen(pilot).query_one(QrCode)
        assert code.display
        assert code.size.width == 37
        assert FILE in pane_words(pilot, WalletPane)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not code.display, "no code without room")
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: code.display, "the code again")


async def test_the_books_stand_newest_first_with_their_sums() -> None:
    async with shown(FakeWallet(), size=LARGE) as pilot:
        lines = pane_words(pilot, LedgerPane).splitlines()
        assert "DATE" in lines[0]
        assert "TX" in lines[0]
        assert lines[1].split()[:5] == ["▸", "11-25", "11:58", "payment", "-0.006334"]
        assert "+0.001936" in lines[2]
        assert "(0.006334)" in lines[4]
        for word in ("✓ done", "… open", "! owed", "✗ refused", "channel back", "0x1c1c…1ce8"):
            assert any(word in line for line in lines), word
        assert "12" in lines[-2]
        assert "+0.123344 -1.012668 net -0.889324 ! owed 0.012204" in lines[-1]


async def test_columns_go_before_words_on_a_narrow_screen() -> None:
    async with shown(FakeWallet()) as pilot:
        heading = pane_words(pilot, LedgerPane).splitlines()[0]
        assert heading.split() == ["DATE", "WHAT", "AMOUNT", "STANDING", "JOB"]


async def test_finding_narrows_the_books_and_escape_shows_all_again() -> None:
    async with shown(FakeWallet()) as pilot:
        await pilot.press("slash")
        field = screen(pilot).query_one("#ledger-find", Input)
        await until(pilot, lambda: field.has_focus)
        field.value = "deposit done"
        table = screen(pilot).query_one(LedgerPane).table
        await until(pilot, lambda: len(table.rows) == 2, "the deposits")
        await pilot.press("enter")
        await until(pilot, lambda: table.has_focus)
        assert "deposit" in pane_words(pilot, LedgerPane)
        field.value = "nothing of the kind"
        await until(pilot, lambda: "Nothing in the books fits" in words(pilot), "none")
        await pilot.press("escape")
        await until(pilot, lambda: len(table.rows) == 12, "all of them again")
        assert not field.display


async def test_thousands_of_lines_come_by_pages() -> None:
    wallet = FakeWallet(tuple(entry(number) for number in range(3_000)))
    async with shown(wallet) as pilot:
        table = screen(pilot).query_one(LedgerPane).table
        assert len(table.rows) == PAGE
        assert "3,000" in pane_words(pilot, LedgerPane)
        await pilot.press("G")
        await until(pilot, lambda: len(table.rows) == 2 * PAGE, "the next page")
        assert table.cursor == PAGE - 1  # nothing moves away under the cursor
        await pilot.press("g")
        assert table.cursor == 0
        assert max(wallet.limits) == 2 * PAGE


async def test_enter_shows_an_entry_whole_and_y_copies_its_transaction() -> None:
    books = (entry(0, gas_wei=21_000_000_000_000, note="slice 1 of 3"), *FakeWallet().books[1:])
    async with shown(FakeWallet(books)) as pilot:
        await pilot.press("y")
        assert f"Copied transaction: {TX}" in said(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EntryModal))
        text = "\n".join(str(static.render()) for static in pilot.app.screen.query(Static))
        for fact in (TX, "8,123,456", "0.000021000 ETH", books[0].peer, books[0].job_id,
                     "a receipt proves it", "slice 1 of 3", "-0.006334 USDC"):  # fmt: skip
            assert fact in text, fact
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, WalletScreen))
        await pilot.press("j", "j", "j", "y")  # this one has none
        assert f"Copied address: {BUYER}" in said(pilot)


async def test_the_code_opens_by_its_key_and_says_which_network() -> None:
    async with shown(FakeWallet()) as pilot:
        await pilot.press("Q")
        await until(pilot, lambda: isinstance(pilot.app.screen, QrModal))
        box = pilot.app.screen.query_one(QrCode)
        await until(pilot, lambda: box.size.height == 19, "the whole code")
        text = "\n".join(str(static.render()) for static in pilot.app.screen.query(Static))
        assert BUYER in text
        assert "Base Sepolia" in text
        assert box.region.bottom <= 24
        address = pilot.app.screen.query_one("#qr-address")
        assert address.region.bottom <= 23  # seen whole above the frame
        await pilot.press("y", "escape")
        assert f"Copied address: {BUYER}" in said(pilot)
        await until(pilot, lambda: isinstance(pilot.app.screen, WalletScreen))


async def test_the_books_are_saved_as_csv(tmp_path: Path) -> None:
    async with shown(FakeWallet()) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(pilot.app.screen, SaveModal))
        field = pilot.app.screen.query_one(Input)
        assert field.value == "books-2025-11-25.csv"
        file = tmp_path / "books.csv"
        field.value = str(file)
        await pilot.press("enter")
        await until(pilot, file.exists, "the file")
        written = file.read_bytes().decode()
        assert written.startswith("time,kind\r\n")
        assert written.count("\r\n") == 13
        await until(pilot, lambda: f"Saved {file}" in said(pilot))


async def test_without_a_wallet_enter_makes_one() -> None:
    buyer = FakeBuyer(address="", jobs=[])
    wallet = FakeWallet((), address="", buyer=buyer)
    async with shown(wallet, buyer) as pilot:
        text = words(pilot)
        assert "You have no wallet yet" in text
        assert FILE in text
        assert "Nothing has been paid yet" in text
        assert screen(pilot).query_one(Header).link.none == "no wallet"
        await pilot.press("Q")
        assert "There is no wallet yet; ⏎ makes one." in said(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, NewWalletModal))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, WalletScreen))
        assert not wallet.made


async def test_locked_real_money_and_barred_are_said_in_words() -> None:
    buyer = FakeBuyer(real_money=True)
    buyer.identity = replace(buyer.identity, locked=True)
    async with shown(FakeWallet(real_money=True), buyer) as pilot:
        text = pane_words(pilot, WalletPane)
        assert "◇ locked" in text
        assert BUYER in text
        assert "✗ REAL MONEY" in text
        assert screen(pilot).query_one(Header).alarm == "REAL MONEY"
        buyer.identity = replace(buyer.identity, barred="Real money is not allowed here.")
        screen(pilot).kick("wallet")
        await until(pilot, lambda: "✗ Real money is not allowed here." in words(pilot))


async def test_a_chain_that_is_gone_leaves_the_last_balance_with_its_age() -> None:
    wallet, clock = FakeWallet(), FixedClock()
    async with shown(wallet, clock=clock) as pilot:
        wallet.funds_fault = ChainUnavailable("The chain doesn't answer.")
        clock.time = NOW + 185
        screen(pilot).kick("funds")
        await until(pilot, lambda: "✗ offline; this is 3 min 5 s old" in words(pilot), "its age")
        assert "42.18 USDC" in words(pilot)
        assert screen(pilot).query_one(Header).link.state == "offline"
        wallet.funds_fault = None
        screen(pilot).kick("funds")
        await until(pilot, lambda: "offline" not in words(pilot), "back again")


async def test_a_chain_that_never_answered_says_so() -> None:
    wallet = FakeWallet()
    wallet.funds_fault = ChainUnavailable("The chain doesn't answer.")
    async with shown(wallet) as pilot:
        assert f"✗ {wallet.funds_fault.title}" in pane_words(pilot, WalletPane)
        assert BUYER in pane_words(pilot, WalletPane)


async def test_books_that_cannot_be_read_say_why_and_hide_nothing_else() -> None:
    wallet = FakeWallet()
    async with shown(wallet) as pilot:
        wallet.fault = ConfigError("The books can't be read: they are damaged.")
        screen(pilot).kick("ledger")
        await until(pilot, lambda: "they are damaged" in words(pilot), "the reason")
        assert "42.18 USDC" in words(pilot)
        assert "payment" in words(pilot)  # what was read before stays


async def test_a_day_that_is_used_up_names_the_setting() -> None:
    caps = replace(CAPS, used_day=21_000_000, payees=(BUYER, TX[:42]), hosts=("*.example",))
    async with shown(FakeWallet(caps=caps)) as pilot:
        text = pane_words(pilot, WalletPane)
        assert "✗ nothing left; max_day raises it" in text
        assert "and 1 more at only *.example" in text


async def test_a_damaged_wallet_says_why_and_is_not_made_anew() -> None:
    trouble = f"The wallet {FILE} is damaged; restore it from a backup."
    async with shown(FakeWallet((), address="", trouble=trouble)) as pilot:
        assert trouble in words(pilot)
        await pilot.press("enter")
        assert trouble in said(pilot)
        assert isinstance(pilot.app.screen, WalletScreen)


async def test_hostile_words_in_the_books_are_only_words() -> None:
    evil = "[@click=app.exit]x[/]"
    books = (entry(0, peer=evil, job_id="[/nope]", note=evil, kind="[b]"),)
    async with shown(FakeWallet(books), size=LARGE) as pilot:
        assert "[/nope]" in pane_words(pilot, LedgerPane)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, EntryModal))
        text = "\n".join(str(static.render()) for static in pilot.app.screen.query(Static))
        assert evil in text


async def test_without_a_door_it_says_so() -> None:
    async with shown(None) as pilot:
        notice = screen(pilot).query_one("#no-wallet", Notice)
        await until(pilot, lambda: "No wallet can be shown" in str(notice.render()))
        await pilot.press("e")
        assert "Not connected yet" in said(pilot)


@pytest.mark.parametrize("key", ["1", "2"])
async def test_other_modes_are_one_key_away(key: str) -> None:
    async with shown(FakeWallet()) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(pilot.app.screen, WalletScreen))
        await pilot.press("3")
        await until(pilot, lambda: isinstance(pilot.app.screen, WalletScreen))
