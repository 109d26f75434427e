"""A newcomer's way: what this is, a wallet, money, the first job; by a few keys."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui_fake import JOBS, FakeBuyer, FixedClock
from tui_fake_seller import FakeSeller, seller_status
from tui_fake_wallet import FILE, KEY, NEW, FakeWallet
from tui_steps import until

from computeswarm.core.errors import ChainUnavailable, RealMoneyRefused, StorageFull
from computeswarm.tui.app import ComputeSwarmApp
from computeswarm.tui.backend import Backends
from computeswarm.tui.draft import ExampleJob
from computeswarm.tui.memory import Memory
from computeswarm.tui.modals.new_wallet import NewWalletModal
from computeswarm.tui.modals.payment import PaymentModal
from computeswarm.tui.modals.qr import FundModal
from computeswarm.tui.modals.sell import COMMAND, SellModal
from computeswarm.tui.modals.welcome import WelcomeModal
from computeswarm.tui.modals.wizard import WizardModal
from computeswarm.tui.screens.buyer import BuyerScreen
from computeswarm.tui.screens.seller import SellerScreen
from computeswarm.tui.screens.wallet import WalletScreen
from computeswarm.tui.views import FundsItem

PASSWORD = "correct horse"
EXAMPLE = ExampleJob(Path(__file__).resolve().parents[2] / "examples/monte_carlo.py", args=("9",))


class Newcomer:
    """The app and whoever sits before it, with all the keys he has pressed."""

    def __init__(self, pilot: Pilot[None], app: ComputeSwarmApp) -> None:
        self.pilot, self.app = pilot, app
        self.keys: list[str] = []

    async def press(self, *keys: str) -> None:
        for key in keys:
            self.keys.append(key)
            await self.pilot.press(key)

    async def type(self, field: str, text: str) -> None:
        """The text at once: where keys race, it is not the welcome that is tested."""
        self.keys += text
        self.app.screen.query_one(f"#{field}", Input).value = text
        await self.pilot.pause()

    async def sees(self, kind: type[Any]) -> Any:
        await until(self.pilot, lambda: isinstance(self.app.screen, kind), kind.__name__)
        await self.pilot.pause()
        return self.app.screen

    @property
    def words(self) -> str:
        """All that the dialog says."""
        return "\n".join(str(static.render()) for static in self.app.screen.query(Static))

    @property
    def picture(self) -> str:
        svg = self.app.export_screenshot()
        return re.sub(r"<[^>]+>", "", svg).replace("&#160;", " ")

    @property
    def said(self) -> str:
        return " | ".join(f"{note.title}: {note.message}" for note in self.app._notifications)

    async def to_payment(self) -> None:
        """Through the wizard by nothing but Enter."""
        await self.sees(WizardModal)
        while not isinstance(self.app.screen, PaymentModal):
            assert self.keys.count("enter") < 20, self.picture
            step = getattr(self.app.screen, "step", None)
            await self.press("enter")
            await until(self.pilot, lambda s=step: getattr(self.app.screen, "step", None) != s)
        await until(self.pilot, lambda: not self.app.screen.query_one("#pay").disabled)


@asynccontextmanager
async def newcomer(
    wallet: FakeWallet | None,
    buyer: FakeBuyer,
    *,
    seller: FakeSeller | None = None,
    attach: Any = lambda: None,
    size: tuple[int, int] = (80, 24),
    **options: Any,
) -> AsyncIterator[Newcomer]:
    async def connect() -> Backends:
        return Backends(buyer, seller, wallet, attach=attach)

    app = ComputeSwarmApp(connect=connect, **({"clock": FixedClock()} | options))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.backends is not None, "the backends")
        yield Newcomer(pilot, app)


def nobody(**changes: Any) -> tuple[FakeWallet, FakeBuyer]:
    """Somebody without a wallet, in an app that is new to him."""
    buyer = FakeBuyer(address="", jobs=[], **changes)
    return FakeWallet((), address="", buyer=buyer, **changes), buyer


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_from_nothing_to_the_first_job_within_a_minute(size: tuple[int, int]) -> None:
    wallet, buyer = nobody()
    async with newcomer(wallet, buyer, example=EXAMPLE, size=size) as new:
        await new.sees(WelcomeModal)
        assert "pay by the second in USDC" in new.words
        for choice in ("Buy compute", "Sell my GPU", "Just look"):
            assert choice in new.picture
        await new.press("enter")

        await new.sees(NewWalletModal)
        assert FILE in new.words
        assert "Nobody can restore file or password" in new.words
        await new.type("new-password", PASSWORD)
        await new.press("enter")
        await new.type("new-again", PASSWORD)
        assert PASSWORD not in new.picture  # hidden while it is typed
        await new.press("enter")
        await new.to_payment()
        assert wallet.made == [("new", PASSWORD)]
        assert buyer.identity.address == NEW
        assert not buyer.identity.locked  # opened for paying, without another start
        await new.press("p")
        await until(new.pilot, lambda: buyer.bought == ["offer-1"], "the first job")

        buyer_screen = await new.sees(BuyerScreen)
        await until(new.pilot, lambda: buyer_screen.balance == buyer.usdc, "its balance")
        # but for the password, so few that nobody needs a minute for them
        assert len(new.keys) - 2 * len(PASSWORD) <= 12, new.keys
        assert new.app.memory.welcomed


async def test_in_the_demo_the_first_job_is_one_key_away() -> None:
    buyer = FakeBuyer(jobs=[])
    async with newcomer(FakeWallet(()), buyer, example=EXAMPLE) as new:
        await new.sees(WelcomeModal)
        assert "Buy your first job" in new.picture
        assert "monte_carlo.py" in new.words
        await new.press("enter")
        await new.to_payment()
        await new.press("p")
        await until(new.pilot, lambda: bool(buyer.bought), "the first job")
        assert len(new.keys) <= 8, new.keys


@pytest.mark.parametrize("key", ["escape", "l"])
async def test_one_may_just_look_and_is_not_asked_again(key: str, tmp_path: Path) -> None:
    file = tmp_path / "terminal.json"
    wallet, buyer = nobody()
    async with newcomer(wallet, buyer, memory=Memory(file)) as new:
        await new.sees(WelcomeModal)
        await new.press(key)
        await new.sees(BuyerScreen)
        await until(new.pilot, lambda: Memory(file).welcomed, "remembered")
    async with newcomer(wallet, buyer, memory=Memory(file)) as again:
        screen = await again.sees(BuyerScreen)
        await until(again.pilot, lambda: bool(screen.selected_node), "the nodes")
        assert not again.app.query(WelcomeModal)
        await again.press("W")
        await again.sees(WelcomeModal)
        await again.press("escape")
        await again.sees(BuyerScreen)
    assert not wallet.made


@pytest.mark.parametrize("case", ["no door", "has bought", "has a wallet", "sells"])
async def test_whoever_is_no_newcomer_is_left_alone(case: str) -> None:
    wallet, buyer = nobody()
    options: dict[str, Any] = {"example": EXAMPLE}
    door: FakeWallet | None = wallet
    if case == "no door":
        door = None
    elif case == "has bought":
        buyer.journal = list(JOBS)
    elif case == "has a wallet":
        door, options = FakeWallet(()), {}
    else:
        options["mode"] = "seller"
    async with newcomer(door, buyer, seller=FakeSeller(seller_status()), **options) as new:
        workers = new.app.workers
        await until(
            new.pilot,
            lambda: not any(w.group == "welcome" and not w.is_finished for w in workers),
            "the greeting's end",
        )
        assert len(new.app.screen_stack) == 1


async def test_the_password_is_judged_while_it_is_typed() -> None:
    wallet, buyer = nobody(real_money=True)
    async with newcomer(wallet, buyer) as new:
        await new.sees(WelcomeModal)
        await new.press("b")
        modal = await new.sees(NewWalletModal)
        assert "REAL MONEY" in str(modal.query_one("Box")._border_title.plain)
        assert "Choose a password" in new.words
        await new.type("new-password", "short")
        assert "at least 10 characters; 5 to go" in new.words
        await new.press("enter")
        await new.type("new-again", "short")
        await new.press("enter")
        assert "✗ Real money" in new.words
        await new.type("new-password", PASSWORD)
        assert "Type the same password once more" in new.words
        assert not wallet.made
        await new.type("new-again", PASSWORD)
        assert "✓ Good." in new.words
        await new.press("escape")
        await new.sees(BuyerScreen)
        assert not wallet.made


async def test_what_goes_wrong_is_said_and_can_be_tried_again() -> None:
    wallet, buyer = nobody()
    wallet.create_fault = StorageFull("The wallet can't be written: no space is left.")
    async with newcomer(wallet, buyer) as new:
        await new.sees(WelcomeModal)
        await new.press("b")
        modal = await new.sees(NewWalletModal)
        await new.type("new-password", PASSWORD)
        await new.type("new-again", PASSWORD)
        modal.query_one("#new-again").focus()
        await new.press("enter")
        await until(new.pilot, lambda: "no space is left" in new.words, "the reason")
        wallet.create_fault = None
        await until(new.pilot, lambda: modal.query_one("#new-again").has_focus)
        await new.press("enter")
        await new.sees(WizardModal)
        assert len(wallet.made) == 1


async def test_a_key_of_ones_own_is_taken() -> None:
    wallet, buyer = nobody()
    async with newcomer(wallet, buyer) as new:
        await new.sees(WelcomeModal)
        await new.press("b")
        modal = await new.sees(NewWalletModal)
        await new.press("ctrl+t")
        assert modal.query_one("#new-key").has_focus
        await new.type("new-key", "0x12")
        await new.type("new-password", PASSWORD)
        await new.type("new-again", PASSWORD)
        modal.query_one("#new-again").focus()
        await new.press("enter")
        await until(new.pilot, lambda: "not a private key" in new.words, "what is wrong")
        await new.type("new-key", KEY)
        assert KEY[:12] not in new.picture
        await new.press("enter")
        await new.sees(WizardModal)
        assert wallet.made == [(KEY, PASSWORD)]


async def test_it_waits_for_money_and_goes_on_by_itself() -> None:
    wallet, buyer = nobody()
    wallet.held = FundsItem(0, 0)
    async with newcomer(wallet, buyer, mode="wallet") as new:
        await new.sees(WelcomeModal)
        await new.press("escape")
        await new.sees(WalletScreen)
        await until(new.pilot, lambda: "no wallet yet" in new.picture, "no wallet")
        await new.press("enter")
        modal = await new.sees(NewWalletModal)
        await new.type("new-password", PASSWORD)
        await new.type("new-again", PASSWORD)
        modal.query_one("#new-again").focus()
        await new.press("enter")
        funding = await new.sees(FundModal)
        assert NEW in new.words
        assert "Base Sepolia" in new.words
        assert "faucet.circle.com" in new.words
        foot = funding.query_one("Box")
        await until(new.pilot, lambda: "waiting for USDC" in foot._border_subtitle.plain)
        wallet.funds_fault = ChainUnavailable("The chain doesn't answer.")
        await until(new.pilot, lambda: "looking again" in foot._border_subtitle.plain)
        wallet.funds_fault, wallet.held = None, FundsItem(5_000_000, 0)
        await new.sees(WalletScreen)
        assert "5.00 USDC is there." in new.said
        await until(new.pilot, lambda: "5.00 USDC" in new.picture, "the balance")
        assert NEW in new.picture


async def test_money_may_come_later() -> None:
    wallet, buyer = nobody()
    wallet.held = FundsItem(0, 0)
    async with newcomer(wallet, buyer) as new:
        await new.sees(WelcomeModal)
        await new.press("b")
        modal = await new.sees(NewWalletModal)
        await new.type("new-password", PASSWORD)
        await new.type("new-again", PASSWORD)
        modal.query_one("#new-again").focus()
        await new.press("enter")
        await new.sees(FundModal)
        await new.press("escape")
        await new.sees(BuyerScreen)
        assert wallet.made == [("new", PASSWORD)]


async def test_real_money_that_is_not_allowed_leaves_a_wallet_and_says_so() -> None:
    wallet, buyer = nobody()

    async def refuse(_: str) -> None:
        raise RealMoneyRefused("Base costs real money; allow it by allow_real_money.")

    buyer.unlock = refuse  # type: ignore[method-assign]
    async with newcomer(wallet, buyer) as new:
        await new.sees(WelcomeModal)
        await new.press("b")
        modal = await new.sees(NewWalletModal)
        await new.type("new-password", PASSWORD)
        await new.type("new-again", PASSWORD)
        modal.query_one("#new-again").focus()
        await new.press("enter")
        await until(new.pilot, lambda: "allow it by allow_real_money" in new.said, "the reason")
        assert wallet.made


async def test_selling_shows_the_command_and_finds_the_seller_that_starts() -> None:
    wallet, buyer = nobody()
    running: list[FakeSeller] = []
    async with newcomer(wallet, buyer, attach=lambda: running[0] if running else None) as new:
        await new.sees(WelcomeModal)
        await new.press("s")
        await new.sees(SellModal)
        assert COMMAND in new.words
        await new.press("y")
        assert f"Copied command: {COMMAND}" in new.said
        running.append(FakeSeller(seller_status()))
        await new.sees(SellerScreen)
        assert "Your seller is here." in new.said


async def test_with_a_seller_running_it_is_shown_at_once() -> None:
    wallet, buyer = nobody()
    async with newcomer(wallet, buyer, seller=FakeSeller(seller_status())) as new:
        await new.sees(WelcomeModal)
        assert "See what your GPU earns" in new.picture
        await new.press("down", "enter")
        await new.sees(SellerScreen)
